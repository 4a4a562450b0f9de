//! What a guest says: standard output, standard error and structured logs, within one limit.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use crate::limits::Ended;

/// What a field costs besides its texts, so that empty ones are not free: a little more than what keeping it takes.
const FIELD_COST: usize = 64;

/// What a line costs on top of its text, so that empty lines are not free.
const LINE_COST: u64 = 32;

/// The most that a guest may hand over in one write to a stream.
const WRITE_BYTES: usize = 64 << 10;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The interface `ringfence:guest/log`.
    Log,
}

impl Stream {
    /// `stdout`, `stderr` or `log`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Log => "log",
        }
    }
}

/// How much a line matters. Standard output is `info`, standard error is `warn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// For the author, in the finest detail.
    Trace,
    /// For the author.
    Debug,
    /// For whoever runs it.
    Info,
    /// Something to look at.
    Warn,
    /// Something went wrong.
    Error,
}

impl Level {
    /// Every level, from the one that matters least.
    pub const ALL: [Self; 5] = [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error];

    /// `trace`, `debug`, `info`, `warn` or `error`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// One line that a guest wrote. Its text is the guest's: show it as text, never as markup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Microseconds since the invocation began.
    pub at_us: u64,
    /// Where it came from.
    pub stream: Stream,
    /// How much it matters.
    pub level: Level,
    /// The line, without its newline. Bytes that are not UTF-8 are replaced by U+FFFD.
    pub message: String,
    /// Keys and values that came with it; empty for standard output and error.
    pub fields: Vec<(String, String)>,
}

/// What is done with each line when it is ended, besides keeping it: it is given the line and its number, from 0. It must
/// not block, for the guest waits.
pub type LineSink = Arc<dyn Fn(usize, &LogLine) + Send + Sync>;

/// What becomes of a call's lines.
#[derive(Clone, Default)]
pub struct LogOptions {
    /// Lines that matter less are charged and not kept; `None` keeps all.
    pub min_level: Option<Level>,
    /// Whoever follows the call while it runs.
    pub follow: Option<LineSink>,
}

/// The lines of one invocation; shared between its store and the streams that WASI holds.
#[derive(Clone)]
pub(crate) struct Logs(Arc<Mutex<Buffer>>);

struct Buffer {
    started: Instant,
    limit: u64,
    options: LogOptions,
    used: u64,
    lines: Vec<LogLine>,
    /// What standard output and standard error have written of a line that is not ended yet.
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    ended: Option<Ended>,
}

impl Logs {
    pub(crate) fn new(started: Instant, limit: u64, options: LogOptions) -> Self {
        Self(Arc::new(Mutex::new(Buffer {
            started,
            limit,
            options,
            used: 0,
            lines: Vec::new(),
            stdout: Vec::new(),
            stderr: Vec::new(),
            ended: None,
        })))
    }

    /// Adds a structured line.
    pub(crate) fn write(
        &self,
        level: Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> Result<(), Ended> {
        let mut buffer = self.lock();
        let cost =
            fields.iter().fold(message.len(), |sum, (key, value)| sum + FIELD_COST + key.len() + value.len());
        buffer.charge(cost as u64 + LINE_COST)?;
        buffer.push(Stream::Log, level, message, fields);
        Ok(())
    }

    /// Adds bytes of standard output or error. What still fits is kept, also when the rest does not.
    fn append(&self, stream: Stream, bytes: &[u8]) -> Result<(), Ended> {
        let mut buffer = self.lock();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            let room = buffer.room();
            let kept = text.get(..room).unwrap_or(text);
            buffer.partial(stream).extend_from_slice(kept);
            let cost = text.len() as u64 + if ends { LINE_COST } else { 0 };
            let charged = buffer.charge(cost);
            if ends || charged.is_err() {
                buffer.end_line(stream);
            }
            charged?;
        }
        Ok(())
    }

    /// The limit, if it was passed.
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.lock().ended
    }

    /// The lines in the order of their ends, and the bytes that were charged for them.
    pub(crate) fn finish(&self) -> (Vec<LogLine>, u64) {
        let mut buffer = self.lock();
        buffer.end_line(Stream::Stdout);
        buffer.end_line(Stream::Stderr);
        (std::mem::take(&mut buffer.lines), buffer.used)
    }

    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffer {
    fn charge(&mut self, cost: u64) -> Result<(), Ended> {
        let used = self.used.saturating_add(cost);
        self.used = used.min(self.limit);
        if used > self.limit {
            return Err(*self.ended.get_or_insert(Ended::Log { limit: self.limit }));
        }
        Ok(())
    }

    fn room(&self) -> usize {
        usize::try_from(self.limit - self.used).unwrap_or(usize::MAX)
    }

    fn partial(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stderr => &mut self.stderr,
            Stream::Stdout | Stream::Log => &mut self.stdout,
        }
    }

    fn end_line(&mut self, stream: Stream) {
        let bytes = std::mem::take(self.partial(stream));
        if bytes.is_empty() {
            return;
        }
        let message = String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        let level = if stream == Stream::Stderr { Level::Warn } else { Level::Info };
        self.push(stream, level, message, Vec::new());
    }

    fn push(&mut self, stream: Stream, level: Level, message: String, fields: Vec<(String, String)>) {
        if self.options.min_level.is_some_and(|least| level < least) {
            return;
        }
        let at_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let line = LogLine { at_us, stream, level, message, fields };
        if let Some(follow) = &self.options.follow {
            follow(self.lines.len(), &line);
        }
        self.lines.push(line);
    }
}

/// Standard output or standard error of one guest.
pub(crate) struct Output {
    logs: Logs,
    stream: Stream,
}

impl Output {
    pub(crate) fn new(logs: &Logs, stream: Stream) -> Self {
        Self { logs: logs.clone(), stream }
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Self::new(&self.logs, self.stream))
    }

    /// Only asked for by WASI 0.3, which is off.
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

#[wasmtime_wasi::async_trait]
impl OutputStream for Output {
    /// Past the limit this is a trap, not an error that the guest could shrug off.
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.logs.append(self.stream, &bytes).map_err(|ended| StreamError::Trap(ended.into()))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs(limit: u64) -> Logs {
        Logs::new(Instant::now(), limit, LogOptions::default())
    }

    fn messages(logs: &Logs) -> Vec<String> {
        logs.finish().0.into_iter().map(|line| line.message).collect()
    }

    #[test]
    fn writes_become_lines() {
        let logs = logs(1000);
        logs.append(Stream::Stdout, b"one\ntw").unwrap();
        logs.append(Stream::Stderr, b"err").unwrap();
        logs.append(Stream::Stdout, b"o\n\n").unwrap();
        logs.append(Stream::Stdout, b"\xff last").unwrap();
        assert_eq!(messages(&logs), ["one", "two", "\u{fffd} last", "err"]);
    }

    #[test]
    fn the_limit_keeps_what_fits() {
        let logs = logs(5);
        assert_eq!(logs.append(Stream::Stdout, b"0123456789"), Err(Ended::Log { limit: 5 }));
        assert_eq!(logs.ended(), Some(Ended::Log { limit: 5 }));
        let (lines, used) = logs.finish();
        assert_eq!(lines.first().map(|line| line.message.as_str()), Some("01234"));
        assert_eq!(used, 5);
    }

    #[test]
    fn what_matters_less_is_charged_and_neither_kept_nor_followed() {
        let followed = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&followed);
        let follow: LineSink = Arc::new(move |number, line| {
            seen.lock().unwrap().push((number, line.message.clone()));
        });
        let options = LogOptions { min_level: Some(Level::Warn), follow: Some(follow) };
        let logs = Logs::new(Instant::now(), 1000, options);
        logs.append(Stream::Stdout, b"info\n").unwrap();
        logs.append(Stream::Stderr, b"warn\npart").unwrap();
        logs.write(Level::Error, "error".to_owned(), Vec::new()).unwrap();
        let expected = ["warn", "error", "part"];
        let (lines, used) = logs.finish();
        assert_eq!(lines.iter().map(|line| line.message.as_str()).collect::<Vec<_>>(), expected);
        assert_eq!(used, 17 + 3 * LINE_COST);
        let followed = followed.lock().unwrap();
        assert_eq!(followed.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(followed.iter().map(|(_, message)| message.as_str()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn empty_lines_are_not_free() {
        let logs = logs(LINE_COST * 10);
        assert!(logs.append(Stream::Stdout, &[b'\n'; 10]).is_ok());
        assert!(logs.append(Stream::Stdout, b"\n").is_err());
    }

    #[test]
    fn empty_fields_are_not_free() {
        let fields = |count| vec![(String::new(), String::new()); count];
        let logs = logs(LINE_COST + 10 * FIELD_COST as u64);
        assert!(logs.write(Level::Info, String::new(), fields(11)).is_err());
        assert!(logs.finish().0.is_empty());
    }
}
