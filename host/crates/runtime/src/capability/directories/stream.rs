//! Reading and writing a file as a stream. Each piece of work takes one of the tenant's permits and a thread that may
//! block; the stream has one at a time under way.

use std::mem;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use wasmtime_wasi::OpenMode;
use wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode;
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};

use super::volume::Node;
use super::{MAX_IO_BYTES, Permits};

/// What is read at a time when the guest waits without having said how much it wants.
const READ_AHEAD_BYTES: usize = 4096;

pub(super) struct FileInput {
    node: Arc<Node>,
    permits: Permits,
    position: u64,
    state: Reading,
}

enum Reading {
    Idle,
    UnderWay(AbortOnDropJoinHandle<Result<Bytes, ErrorCode>>),
    Data(Bytes),
    Failed(ErrorCode),
    Ended,
}

impl FileInput {
    pub(super) fn new(node: Arc<Node>, permits: Permits, position: u64) -> Self {
        Self { node, permits, position, state: Reading::Idle }
    }

    fn begin(&mut self, bytes: usize) {
        let (node, permits, position) = (self.node.clone(), self.permits.clone(), self.position);
        let work = async move { permits.run(move || read(&node, bytes, position)).await? };
        self.state = Reading::UnderWay(spawn(work));
    }
}

/// Up to so many bytes of a file; none at its end. Blocks.
pub(super) fn read(node: &Node, bytes: usize, position: u64) -> Result<Bytes, ErrorCode> {
    let file = node.file(OpenMode::READ)?;
    let mut buffer = BytesMut::zeroed(bytes.min(MAX_IO_BYTES));
    loop {
        match file.read_at(&mut buffer, position) {
            Ok(read) => {
                buffer.truncate(read);
                return Ok(buffer.freeze());
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for FileInput {
    async fn ready(&mut self) {
        if matches!(self.state, Reading::Idle) {
            self.begin(READ_AHEAD_BYTES);
        }
        if let Reading::UnderWay(work) = &mut self.state {
            self.state = match work.await {
                Ok(data) if data.is_empty() => Reading::Ended,
                Ok(data) => Reading::Data(data),
                Err(code) => Reading::Failed(code),
            };
        }
    }
}

#[wasmtime_wasi::async_trait]
impl InputStream for FileInput {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        match &mut self.state {
            Reading::Idle if size > 0 => self.begin(size),
            Reading::Idle | Reading::UnderWay(_) => {}
            Reading::Data(data) => {
                let piece = data.split_to(size.min(data.len()));
                self.position = self.position.saturating_add(piece.len() as u64);
                if data.is_empty() {
                    self.state = Reading::Idle;
                }
                return Ok(piece);
            }
            Reading::Failed(code) => {
                let failed = StreamError::LastOperationFailed((*code).into());
                self.state = Reading::Ended;
                return Err(failed);
            }
            Reading::Ended => return Err(StreamError::Closed),
        }
        Ok(Bytes::new())
    }

    async fn blocking_read(&mut self, size: usize) -> StreamResult<Bytes> {
        if matches!(self.state, Reading::Idle) && size > 0 {
            self.begin(size);
        }
        self.ready().await;
        self.read(size)
    }
}

pub(super) struct FileOutput {
    node: Arc<Node>,
    permits: Permits,
    /// Where the next byte goes; without one, to the end.
    position: Option<u64>,
    state: Writing,
}

enum Writing {
    Idle,
    UnderWay(AbortOnDropJoinHandle<Result<u64, ErrorCode>>),
    Failed(ErrorCode),
    Closed,
}

impl FileOutput {
    pub(super) fn new(node: Arc<Node>, permits: Permits, position: Option<u64>) -> Self {
        Self { node, permits, position, state: Writing::Idle }
    }

    /// The error that has come up since the guest last asked, which closes the stream.
    fn check(&mut self) -> StreamResult<()> {
        match &self.state {
            Writing::Failed(code) => {
                let failed = StreamError::LastOperationFailed((*code).into());
                self.state = Writing::Closed;
                Err(failed)
            }
            Writing::Closed => Err(StreamError::Closed),
            Writing::Idle | Writing::UnderWay(_) => Ok(()),
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for FileOutput {
    async fn ready(&mut self) {
        if let Writing::UnderWay(work) = &mut self.state {
            self.state = match work.await {
                Ok(written) => {
                    self.position = self.position.map(|position| position.saturating_add(written));
                    Writing::Idle
                }
                Err(code) => Writing::Failed(code),
            };
        }
    }
}

#[wasmtime_wasi::async_trait]
impl OutputStream for FileOutput {
    fn write(&mut self, data: Bytes) -> StreamResult<()> {
        self.check()?;
        if matches!(self.state, Writing::UnderWay(_)) {
            return Err(StreamError::trap("written without having asked how much may be written"));
        }
        let (node, permits, position) = (self.node.clone(), self.permits.clone(), self.position);
        let work = async move { permits.run(move || node.write(&data, position)).await? };
        self.state = Writing::UnderWay(spawn(work));
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.check()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.check()?;
        Ok(if matches!(self.state, Writing::Idle) { MAX_IO_BYTES } else { 0 })
    }

    /// What the guest has written is written when it drops the stream.
    async fn cancel(&mut self) {
        if let Writing::UnderWay(work) = mem::replace(&mut self.state, Writing::Closed) {
            let _ = work.await;
        }
    }
}
