//! wasmtime-wasi's own implementation, called from a thread that may block: it resolves paths inside a directory and
//! nowhere else (`openat2` with `RESOLVE_BENEATH`, or step by step where there is none).

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use wasmtime::component::{Resource, ResourceTable};
use wasmtime_wasi::filesystem::{Descriptor, Dir, File, WasiFilesystemCtx, WasiFilesystemCtxView};
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, DescriptorStat, ErrorCode, HostDescriptor as _, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::{FsError, FsResult};

/// Lets wasmtime-wasi do something with descriptors. These were all made to block the thread that uses them, so that
/// nothing is left to wait for when the call returns.
pub(super) fn delegate<T, const N: usize>(
    descriptors: [&Descriptor; N],
    call: impl AsyncFnOnce(&mut WasiFilesystemCtxView<'_>, [Resource<Descriptor>; N]) -> FsResult<T>,
) -> FsResult<T> {
    let (mut ctx, mut table) = (WasiFilesystemCtx::default(), ResourceTable::new());
    let mut pushed = Vec::with_capacity(N);
    for descriptor in descriptors {
        pushed.push(table.push(descriptor.clone())?);
    }
    let pushed: [_; N] = pushed.try_into().map_err(|_| FsError::from(ErrorCode::Io))?;
    let mut view = WasiFilesystemCtxView { ctx: &mut ctx, table: &mut table };
    let future = pin!(call(&mut view, pushed));
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(FsError::trap(wasmtime::format_err!("file work did not end on its own thread"))),
    }
}

/// Opens what is at a path.
pub(super) fn open(
    dir: &Descriptor,
    follow: PathFlags,
    path: String,
    how: OpenFlags,
    flags: DescriptorFlags,
) -> FsResult<Descriptor> {
    let opened = delegate([dir], async |wasi, [dir]| {
        let opened = wasi.open_at(dir, follow, path, how, flags).await?;
        Ok(wasi.table.delete(opened)?)
    })?;
    // It was made to be used without blocking. Nobody else holds it yet, so it can be taken out.
    let taken = |file| std::sync::Arc::try_unwrap(file).map_err(|_| FsError::from(ErrorCode::Io));
    Ok(match opened {
        Descriptor::Dir(Dir { dir, perms, open_mode, .. }) => {
            Descriptor::Dir(Dir::new(taken(dir)?, perms, open_mode, true))
        }
        Descriptor::File(File { file, perms, open_mode, .. }) => {
            Descriptor::File(File::new(taken(file)?, perms, open_mode, true))
        }
    })
}

/// What is at a path, if there is something.
pub(super) fn stat(dir: &Descriptor, follow: PathFlags, path: &str) -> FsResult<Option<DescriptorStat>> {
    let path = path.to_owned();
    let stat = delegate([dir], async |wasi, [dir]| wasi.stat_at(dir, follow, path).await);
    match stat.map_err(FsError::downcast) {
        Ok(stat) => Ok(Some(stat)),
        Err(Ok(ErrorCode::NoEntry)) => Ok(None),
        Err(Ok(code)) => Err(code.into()),
        Err(Err(trap)) => Err(FsError::trap(trap)),
    }
}

/// Tells the file at a path from every other.
pub(super) fn identity_at(dir: &Descriptor, path: &str) -> FsResult<u64> {
    let path = path.to_owned();
    let hash =
        delegate([dir], async |wasi, [dir]| wasi.metadata_hash_at(dir, PathFlags::empty(), path).await)?;
    Ok(hash.lower)
}

/// Tells an open file from every other, in the same way as [`identity_at`].
pub(super) fn identity(descriptor: &Descriptor) -> FsResult<u64> {
    Ok(delegate([descriptor], async |wasi, [file]| wasi.metadata_hash(file).await)?.lower)
}
