//! Where the host's words go: logs and panics through the redaction, what is for the person who starts it beside it.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write as _;
use std::net::SocketAddr;
use std::panic::PanicHookInfo;

use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{LogFormat, Serve};
use crate::redact::{Redacting, redact};

/// Starts to log to standard error.
pub(crate) fn start(config: &Serve, filter: EnvFilter) {
    let writer = if config.debug_redacted_mode {
        BoxMakeWriter::new(Redacting(std::io::stderr))
    } else {
        BoxMakeWriter::new(std::io::stderr)
    };
    let registry = tracing_subscriber::registry().with(filter);
    match config.log_format {
        LogFormat::Human => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry.with(fmt::layer().with_ansi(colours).with_writer(writer)).init();
        }
        LogFormat::Json => registry.with(fmt::layer().json().with_writer(writer)).init(),
    }
    if !config.debug_redacted_mode {
        tracing::warn!(
            "⚠️  DEBUG_REDACTED_MODE IS OFF: keys, passwords and addresses may stand in this log; do not keep it or pass it on"
        );
    }
}

/// Says where the host listens. Not a log record, which must not hold an address: it is for whoever started the host.
pub(crate) fn announce(format: LogFormat, address: SocketAddr) {
    let said = match format {
        LogFormat::Human => {
            format!("ringfence is listening on {address}; API documents at http://{address}/docs")
        }
        // A line of its own among lines of JSON. An address has nothing in it that JSON would escape.
        LogFormat::Json => format!(
            r#"{{"level":"INFO","fields":{{"message":"ringfence is listening","address":"{address}","documents":"http://{address}/docs"}},"target":"ringfence"}}"#
        ),
    };
    // A host whose standard error is closed serves all the same.
    let _ = writeln!(std::io::stderr(), "{said}");
}

/// Says that this is no host to trust, whatever is logged.
pub(crate) fn warn_of_dev_mode(format: LogFormat) {
    let said = match format {
        LogFormat::Human => DEV_MODE,
        LogFormat::Json => {
            r#"{"level":"WARN","fields":{"message":"⚠️ DEV_MODE ENABLED: internal errors are shown to clients; do not hold real money here"},"target":"ringfence"}"#
        }
    };
    let _ = writeln!(std::io::stderr(), "{said}");
}

const DEV_MODE: &str = "
================================================================
  ⚠️  DEV_MODE ENABLED

  Internal errors are shown to clients.
  Do not hold real money here. Unset DEV_MODE for anything else.
================================================================
";

/// Panics are logged like everything else: their message may quote what the program was working on.
pub(crate) fn log_panics() {
    std::panic::set_hook(Box::new(log_panic));
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("(no message)");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!(place, backtrace, "panic: {message}");
        return;
    }
    // Before logs begin, or without any: a panic is not to be lost.
    let backtrace = backtrace.unwrap_or_default();
    let said = format!("ringfence: panic at {place}: {message}\n{backtrace}");
    let _ = writeln!(std::io::stderr(), "{}", redact(said.trim_end()));
}
