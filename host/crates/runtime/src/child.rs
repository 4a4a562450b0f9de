//! Compilation in a process of its own, so that what an upload makes of the compiler (much memory, much time, a crash)
//! ends there.
//!
//! The host writes a header (the limits and the component's length) and the bytes to the child's standard input and
//! leaves it open: its end tells the child that nobody waits any more. The child answers with a magic number and then
//! the compiled code or, under another, what the compiler said.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdin, Command};

use crate::component::{self, InvalidComponent};
use crate::{confine, engine};

/// What compiling one component may take. Holds for [`Compiler::Child`](crate::Compiler::Child) alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileLimits {
    /// Bytes of address space of the child, its own program included.
    pub memory_bytes: u64,
    /// Seconds of processor time.
    pub cpu_seconds: u64,
    /// Milliseconds until the child is killed, whatever it waits for.
    pub wall_time_ms: u64,
    /// Bytes of compiled code.
    pub code_bytes: u64,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self { memory_bytes: 4 << 30, cpu_seconds: 60, wall_time_ms: 300_000, code_bytes: 512 << 20 }
    }
}

/// Why there is no code.
#[derive(Debug)]
pub(crate) enum CompileError {
    /// It is the component's fault, or has to be taken for it.
    Invalid(InvalidComponent),
    /// The same, but it may have been the machine's: it was busy, or short of memory.
    Unlucky(InvalidComponent),
    /// It is the host's: a child could not be started or spoken to, or what it made does not load.
    Failed(String),
}

const MAGIC_BYTES: usize = 8;
const CODE: &[u8; MAGIC_BYTES] = b"RFCODE01";
const REFUSED: &[u8; MAGIC_BYTES] = b"RFERROR1";
/// Address space, seconds, length of the component, and 1 if the child has to confine itself: each little-endian.
const HEADER_BYTES: usize = 32;
/// The most of a refusal that is looked at. It is text, and goes to the uploader.
const MAX_REFUSAL_BYTES: usize = 16 << 10;
/// How much less than the host the child asks of the scheduler.
const NICE: i32 = 10;

/// Has a child compile a component. Dropping the future kills the child.
pub(crate) async fn compile(
    program: &Path,
    arguments: &[OsString],
    limits: &CompileLimits,
    wasm: &[u8],
) -> Result<Vec<u8>, CompileError> {
    let failed = |error: io::Error| CompileError::Failed(format!("the compiler's process: {error}"));
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(CompileError::Failed("the compiler's process has no pipes".to_owned()));
    };
    let most = limits.code_bytes.saturating_add(MAGIC_BYTES as u64);
    let conversation = async {
        let mut answer = Vec::new();
        let mut stdout = stdout.take(most.saturating_add(1));
        tokio::select! {
            read = stdout.read_to_end(&mut answer) => read?,
            never = ask(stdin, limits, wasm) => match never {},
        };
        let too_long = answer.len() as u64 > most;
        // One that goes on writing does not end by itself.
        let status = if too_long { None } else { Some(child.wait().await?) };
        Ok((answer, status))
    };
    match tokio::time::timeout(Duration::from_millis(limits.wall_time_ms), conversation).await {
        Err(_) => {
            let limit = format!("{} ms, perhaps because this host was busy", limits.wall_time_ms);
            Err(CompileError::Unlucky(passed(limit)))
        }
        Ok(Err(error)) => Err(failed(error)),
        Ok(Ok((_, None))) => {
            Err(CompileError::Invalid(passed(format!("{} bytes of code", limits.code_bytes))))
        }
        Ok(Ok((answer, Some(status)))) => understand(answer, status, limits),
    }
}

/// Hands over the component and then holds the pipe open. A child that does not read it says why by its end.
async fn ask(mut stdin: ChildStdin, limits: &CompileLimits, wasm: &[u8]) -> std::convert::Infallible {
    let confined = u64::from(confine::is_possible());
    let header = [limits.memory_bytes, limits.cpu_seconds, wasm.len() as u64, confined].map(u64::to_le_bytes);
    let _ = async {
        stdin.write_all(header.as_flattened()).await?;
        stdin.write_all(wasm).await
    }
    .await;
    std::future::pending().await
}

fn passed(limit: String) -> InvalidComponent {
    InvalidComponent::CompilationLimit { limit }
}

fn understand(
    mut answer: Vec<u8>,
    status: ExitStatus,
    limits: &CompileLimits,
) -> Result<Vec<u8>, CompileError> {
    let failed = |message: &str| InvalidComponent::CompileFailed { message: message.to_owned() };
    if let Some(signal) = status.signal() {
        if signal == Signal::SYS.as_raw() {
            // Either the compiler has a bug that somebody uses, or it needs what `confine` does not know of.
            tracing::error!("a compiler's process asked the system for what it may not have, and was killed");
            let message = "the host's compiler asked the system for what it may not have";
            return Err(CompileError::Invalid(failed(message)));
        }
        tracing::warn!(signal, "a compiler's process was ended by a signal");
        return Err(if signal == Signal::XCPU.as_raw() {
            CompileError::Invalid(passed(format!("{} s of processor time", limits.cpu_seconds)))
        } else if signal == Signal::ABORT.as_raw() {
            // What Rust does when there is no memory, or no stack.
            CompileError::Invalid(passed(format!("{} bytes of memory, or its stack", limits.memory_bytes)))
        } else {
            let limit = format!("this host has for it (its process was ended by signal {signal})");
            CompileError::Unlucky(passed(limit))
        });
    }
    let unusable = |what: &str| {
        tracing::warn!(%status, what, "a compiler's process gave no answer");
        CompileError::Unlucky(failed("the host's compiler ended without an answer"))
    };
    if !status.success() {
        return Err(unusable("it failed"));
    }
    if answer.starts_with(CODE) {
        answer.drain(..MAGIC_BYTES);
        return Ok(answer);
    }
    let Some(message) = answer.strip_prefix(REFUSED) else {
        return Err(unusable("not in the form agreed on"));
    };
    let message = message.get(..MAX_REFUSAL_BYTES).unwrap_or(message);
    Err(CompileError::Invalid(component::classify(String::from_utf8_lossy(message).into_owned())))
}

/// What the program of [`Compiler::Child`](crate::Compiler::Child) does: lowers its own limits to those that it is
/// told, and compiles what comes on standard input to standard output. Call it first thing in a process of its own:
/// it closes all other descriptors.
///
/// # Errors
/// Input that ends early, limits that cannot be set, an answer that nobody takes. That a component cannot be compiled
/// is an answer.
pub fn compile_from_stdin() -> io::Result<()> {
    close_inherited()?;
    // A system that forbids it loses nothing but courtesy.
    let _ = rustix::process::nice(NICE);

    let mut input = io::stdin().lock();
    let mut header = [[0; 8]; HEADER_BYTES / 8];
    input.read_exact(header.as_flattened_mut())?;
    let [memory_bytes, cpu_seconds, length, confined] = header.map(u64::from_le_bytes);
    limit(memory_bytes, cpu_seconds)?;
    let mut wasm = Vec::new();
    input.by_ref().take(length).read_to_end(&mut wasm)?;
    if (wasm.len() as u64) < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    drop(input);
    end_with_the_host()?;
    std::panic::set_hook(Box::new(end_with_a_panic));
    if confined != 0 {
        confine::confine_this_process().map_err(io::Error::other)?;
    }

    let compiled = engine::compiling().and_then(|engine| engine.precompile_component(&wasm));
    let mut output = io::stdout().lock();
    match compiled {
        Ok(code) => {
            output.write_all(CODE)?;
            output.write_all(&code)?;
        }
        Err(error) => {
            output.write_all(REFUSED)?;
            output.write_all(format!("{error:#}").as_bytes())?;
        }
    }
    output.flush()
}

/// A compiler that panics has no answer, and nothing to say that anybody reads. Where it panics for want of memory it ends
/// as Rust itself does for that, so that the host can tell.
fn end_with_a_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let said = panic.payload_as_str().unwrap_or_default();
    if said.contains("out-of-memory") || said.contains("out of memory") {
        std::process::abort();
    }
    std::process::exit(101)
}

/// From here on the process can open nothing, write no file and leave no core, and ends when it takes too much.
fn limit(memory_bytes: u64, cpu_seconds: u64) -> io::Result<()> {
    // Passing the lower limit of processor time is told by a signal of its own; at the upper one it would be a kill.
    let limits = [
        (Resource::As, memory_bytes, memory_bytes),
        (Resource::Cpu, cpu_seconds, cpu_seconds.saturating_add(1)),
        (Resource::Core, 0, 0),
        (Resource::Fsize, 0, 0),
        (Resource::Nofile, 3, 3),
    ];
    for (resource, current, maximum) in limits {
        // Never above what the host itself may have, which would be refused.
        let allowed = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let [current, maximum] = [current, maximum].map(|limit| Some(limit.min(allowed)));
        setrlimit(resource, Rlimit { current, maximum })?;
    }
    Ok(())
}

/// Closes what whoever started the host left open in it. What the host opens itself is never inherited.
fn close_inherited() -> io::Result<()> {
    let mut inherited: Vec<RawFd> = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        inherited.extend(entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    for descriptor in inherited {
        // The one that the list was read from is closed by now.
        let open = fs::symlink_metadata(format!("/proc/self/fd/{descriptor}")).is_ok();
        if descriptor > 2 && open {
            #[expect(
                unsafe_code,
                reason = "it is open, and nothing in this process owns it: called first thing, before any file is \
                          opened or thread started"
            )]
            drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
    }
    Ok(())
}

/// The host holds the other end of standard input for as long as it waits, and so does the system for it. Returns when
/// the thread that waits is past its start, which asks more of the system than is left to it afterwards.
fn end_with_the_host() -> io::Result<()> {
    let (begun, begins) = std::sync::mpsc::channel();
    let wait = move || {
        let _ = begun.send(());
        let _ = io::stdin().lock().read(&mut [0]);
        std::process::exit(1);
    };
    std::thread::Builder::new().stack_size(64 << 10).spawn(wait)?;
    begins.recv().map_err(io::Error::other)
}
