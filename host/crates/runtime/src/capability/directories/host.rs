//! `wasi:filesystem` as a bot finds it.

use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, statat};
use wasmtime::component::Resource;
use wasmtime_wasi::OpenMode;
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi::p2::bindings::filesystem::preopens;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    self, Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, DirectoryEntryStream,
    ErrorCode, Filesize, HostDescriptor, HostDirectoryEntryStream, MetadataHashValue, NewTimestamp,
    OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult};

use super::stream::{FileInput, FileOutput, read};
use super::volume::{Node, check_path};
use super::wasi::delegate;
use super::{MAX_IO_BYTES, MAX_LISTED_BYTES};
use crate::state::State;

/// What the guest has not read of a folder's list.
struct Listing {
    entries: std::vec::IntoIter<Result<DirectoryEntry, ErrorCode>>,
    bytes: usize,
}

/// The table holds nodes and listings of ours. The types in the signatures are those that WASI's interface is made for.
impl State {
    fn node(&self, fd: &Resource<Descriptor>) -> FsResult<Arc<Node>> {
        Ok(self.table.get(&Resource::<Arc<Node>>::new_borrow(fd.rep()))?.clone())
    }

    fn push_node(&mut self, node: Arc<Node>) -> FsResult<Resource<Descriptor>> {
        Ok(Resource::new_own(self.table.push(node)?.rep()))
    }

    /// Does something with a node that blocks.
    async fn work<T: Send + 'static>(
        &mut self,
        fd: &Resource<Descriptor>,
        work: impl FnOnce(&Node) -> FsResult<T> + Send + 'static,
    ) -> FsResult<T> {
        let (node, permits) = (self.node(fd)?, self.directories.permits.clone());
        permits.run(move || work(&node)).await?
    }
}

impl preopens::Host for State {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        let mounted = self.directories.mounted.clone();
        mounted
            .into_iter()
            .map(|(path, node)| Ok((Resource::new_own(self.table.push(node)?.rep()), path)))
            .collect()
    }
}

impl types::Host for State {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn filesystem_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        Ok(self.table.get(&error)?.downcast_ref::<ErrorCode>().copied())
    }
}

impl HostDescriptor for State {
    async fn advise(
        &mut self,
        fd: Resource<Descriptor>,
        offset: Filesize,
        length: Filesize,
        advice: Advice,
    ) -> FsResult<()> {
        let advise = move |node: &Node| {
            delegate([&node.descriptor], async |wasi, [fd]| wasi.advise(fd, offset, length, advice).await)
        };
        self.work(&fd, advise).await
    }

    async fn sync_data(&mut self, fd: Resource<Descriptor>) -> FsResult<()> {
        self.work(&fd, |node| delegate([&node.descriptor], async |wasi, [fd]| wasi.sync_data(fd).await)).await
    }

    async fn get_flags(&mut self, fd: Resource<Descriptor>) -> FsResult<DescriptorFlags> {
        self.work(&fd, |node| delegate([&node.descriptor], async |wasi, [fd]| wasi.get_flags(fd).await)).await
    }

    async fn get_type(&mut self, fd: Resource<Descriptor>) -> FsResult<DescriptorType> {
        self.work(&fd, |node| delegate([&node.descriptor], async |wasi, [fd]| wasi.get_type(fd).await)).await
    }

    async fn set_size(&mut self, fd: Resource<Descriptor>, size: Filesize) -> FsResult<()> {
        self.work(&fd, move |node| Ok(node.set_size(size)?)).await
    }

    async fn set_times(
        &mut self,
        fd: Resource<Descriptor>,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        let set = move |node: &Node| {
            delegate([&node.descriptor], async |wasi, [fd]| wasi.set_times(fd, accessed, modified).await)
        };
        self.work(&fd, set).await
    }

    async fn read(
        &mut self,
        fd: Resource<Descriptor>,
        length: Filesize,
        offset: Filesize,
    ) -> FsResult<(Vec<u8>, bool)> {
        let length = usize::try_from(length).unwrap_or(MAX_IO_BYTES);
        let data = self.work(&fd, move |node| Ok(read(node, length, offset)?)).await?;
        let at_end = data.is_empty() && length > 0;
        Ok((data.into(), at_end))
    }

    async fn write(
        &mut self,
        fd: Resource<Descriptor>,
        data: Vec<u8>,
        offset: Filesize,
    ) -> FsResult<Filesize> {
        self.work(&fd, move |node| Ok(node.write(&data, Some(offset))?)).await
    }

    async fn read_directory(&mut self, fd: Resource<Descriptor>) -> FsResult<Resource<DirectoryEntryStream>> {
        let room = MAX_LISTED_BYTES.saturating_sub(self.directories.listed_bytes);
        let listing = self.work(&fd, move |node| list(node, room)).await?;
        self.directories.listed_bytes += listing.bytes;
        Ok(Resource::new_own(self.table.push(listing)?.rep()))
    }

    async fn sync(&mut self, fd: Resource<Descriptor>) -> FsResult<()> {
        self.work(&fd, |node| delegate([&node.descriptor], async |wasi, [fd]| wasi.sync(fd).await)).await
    }

    async fn create_directory_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<()> {
        self.work(&fd, |node| node.create_directory(path)).await
    }

    async fn stat(&mut self, fd: Resource<Descriptor>) -> FsResult<DescriptorStat> {
        self.work(&fd, |node| delegate([&node.descriptor], async |wasi, [fd]| wasi.stat(fd).await)).await
    }

    async fn stat_at(
        &mut self,
        fd: Resource<Descriptor>,
        follow: PathFlags,
        path: String,
    ) -> FsResult<DescriptorStat> {
        check_path(&path)?;
        let stat = move |node: &Node| {
            delegate([&node.descriptor], async |wasi, [fd]| wasi.stat_at(fd, follow, path).await)
        };
        self.work(&fd, stat).await
    }

    async fn set_times_at(
        &mut self,
        fd: Resource<Descriptor>,
        follow: PathFlags,
        path: String,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        let set = move |node: &Node| {
            // It opens what it finds.
            node.check_plain(follow, &path)?;
            delegate([&node.descriptor], async |wasi, [fd]| {
                wasi.set_times_at(fd, follow, path, accessed, modified).await
            })
        };
        self.work(&fd, set).await
    }

    /// A file with two names would be counted twice or not at all.
    async fn link_at(
        &mut self,
        _: Resource<Descriptor>,
        _: PathFlags,
        _: String,
        _: Resource<Descriptor>,
        _: String,
    ) -> FsResult<()> {
        Err(ErrorCode::NotPermitted.into())
    }

    async fn open_at(
        &mut self,
        fd: Resource<Descriptor>,
        follow: PathFlags,
        path: String,
        how: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Resource<Descriptor>> {
        let permit = self.directories.open.clone().try_acquire_owned();
        let permit = permit.map_err(|_| ErrorCode::InsufficientMemory)?;
        let opened = self.work(&fd, move |node| node.open(follow, path, how, flags, permit)).await?;
        self.push_node(Arc::new(opened))
    }

    fn drop(&mut self, fd: Resource<Descriptor>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Arc<Node>>::new_own(fd.rep()))?;
        Ok(())
    }

    async fn readlink_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<String> {
        check_path(&path)?;
        let read =
            |node: &Node| delegate([&node.descriptor], async |wasi, [fd]| wasi.readlink_at(fd, path).await);
        self.work(&fd, read).await
    }

    async fn remove_directory_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<()> {
        self.work(&fd, |node| node.remove_directory(path)).await
    }

    async fn rename_at(
        &mut self,
        fd: Resource<Descriptor>,
        path: String,
        new_fd: Resource<Descriptor>,
        new_path: String,
    ) -> FsResult<()> {
        let other = self.node(&new_fd)?;
        self.work(&fd, move |node| node.rename(path, &other, new_path)).await
    }

    /// A link leads wherever its maker likes, also for those who look at the volume from outside.
    async fn symlink_at(&mut self, _: Resource<Descriptor>, _: String, _: String) -> FsResult<()> {
        Err(ErrorCode::NotPermitted.into())
    }

    async fn unlink_file_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<()> {
        self.work(&fd, |node| node.unlink(path)).await
    }

    fn read_via_stream(
        &mut self,
        fd: Resource<Descriptor>,
        offset: Filesize,
    ) -> FsResult<Resource<DynInputStream>> {
        let node = self.node(&fd)?;
        node.file(OpenMode::READ)?;
        let stream: DynInputStream = Box::new(FileInput::new(node, self.directories.permits.clone(), offset));
        Ok(self.table.push(stream)?)
    }

    fn write_via_stream(
        &mut self,
        fd: Resource<Descriptor>,
        offset: Filesize,
    ) -> FsResult<Resource<DynOutputStream>> {
        self.output(&fd, Some(offset))
    }

    fn append_via_stream(&mut self, fd: Resource<Descriptor>) -> FsResult<Resource<DynOutputStream>> {
        self.output(&fd, None)
    }

    async fn is_same_object(
        &mut self,
        one: Resource<Descriptor>,
        other: Resource<Descriptor>,
    ) -> wasmtime::Result<bool> {
        let other = self.node(&other).map_err(trap)?;
        let compare = move |node: &Node| {
            delegate([&node.descriptor, &other.descriptor], async |wasi, [one, other]| {
                wasi.is_same_object(one, other).await.map_err(FsError::trap)
            })
        };
        self.work(&one, compare).await.map_err(trap)
    }

    async fn metadata_hash(&mut self, fd: Resource<Descriptor>) -> FsResult<MetadataHashValue> {
        self.work(&fd, |node| delegate([&node.descriptor], async |wasi, [fd]| wasi.metadata_hash(fd).await))
            .await
    }

    async fn metadata_hash_at(
        &mut self,
        fd: Resource<Descriptor>,
        follow: PathFlags,
        path: String,
    ) -> FsResult<MetadataHashValue> {
        check_path(&path)?;
        let hash = move |node: &Node| {
            delegate([&node.descriptor], async |wasi, [fd]| wasi.metadata_hash_at(fd, follow, path).await)
        };
        self.work(&fd, hash).await
    }
}

impl HostDirectoryEntryStream for State {
    async fn read_directory_entry(
        &mut self,
        stream: Resource<DirectoryEntryStream>,
    ) -> FsResult<Option<DirectoryEntry>> {
        let listing = self.table.get_mut(&Resource::<Listing>::new_borrow(stream.rep()))?;
        Ok(listing.entries.next().transpose()?)
    }

    fn drop(&mut self, stream: Resource<DirectoryEntryStream>) -> wasmtime::Result<()> {
        let listing = self.table.delete(Resource::<Listing>::new_own(stream.rep()))?;
        self.directories.listed_bytes = self.directories.listed_bytes.saturating_sub(listing.bytes);
        Ok(())
    }
}

impl State {
    fn output(
        &mut self,
        fd: &Resource<Descriptor>,
        position: Option<u64>,
    ) -> FsResult<Resource<DynOutputStream>> {
        let node = self.node(fd)?;
        node.may_change()?;
        node.file(OpenMode::WRITE)?;
        let stream: DynOutputStream =
            Box::new(FileOutput::new(node, self.directories.permits.clone(), position));
        Ok(self.table.push(stream)?)
    }
}

/// An error of a function that has none for the guest.
fn trap(error: FsError) -> wasmtime::Error {
    match error.downcast() {
        Ok(code) => code.into(),
        Err(trap) => trap,
    }
}

/// Reads a folder, as long as its list takes no more memory than this. Blocks.
fn list(node: &Node, room: usize) -> FsResult<Listing> {
    let Descriptor::Dir(folder) = node.directory()? else { return Err(ErrorCode::NotDirectory.into()) };
    let (mut entries, mut bytes) = (Vec::new(), size_of::<Listing>());
    for entry in Dir::read_from(&folder.dir).map_err(std::io::Error::from)? {
        let entry = entry.map_err(std::io::Error::from)?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => statat(&folder.dir, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
            known => known,
        };
        bytes += size_of::<Result<DirectoryEntry, ErrorCode>>() + name.count_bytes();
        if bytes > room {
            return Err(ErrorCode::InsufficientMemory.into());
        }
        entries.push(match name.to_str() {
            Ok(name) => Ok(DirectoryEntry { type_: kind_of(kind), name: name.to_owned() }),
            Err(_) => Err(ErrorCode::IllegalByteSequence),
        });
    }
    Ok(Listing { entries: entries.into_iter(), bytes })
}

fn kind_of(kind: FileType) -> DescriptorType {
    match kind {
        FileType::RegularFile => DescriptorType::RegularFile,
        FileType::Directory => DescriptorType::Directory,
        FileType::Symlink => DescriptorType::SymbolicLink,
        FileType::BlockDevice => DescriptorType::BlockDevice,
        FileType::CharacterDevice => DescriptorType::CharacterDevice,
        FileType::Fifo => DescriptorType::Fifo,
        FileType::Socket => DescriptorType::Socket,
        FileType::Unknown => DescriptorType::Unknown,
    }
}
