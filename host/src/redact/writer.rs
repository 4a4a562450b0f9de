use std::io::{self, Write};

use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

use super::redact;

/// The most that is written of one record.
const MAX_RECORD: usize = 1 << 20;

/// Writes what another writer would, without secrets and addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Redacting<M>(pub(crate) M);

/// One record. It is kept until it is complete, so that no secret is cut in two, and then written at once.
#[derive(Debug)]
pub(crate) struct Record<W: Write> {
    writer: W,
    bytes: Vec<u8>,
    cut: bool,
}

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Redacting<M> {
    type Writer = Record<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Record::new(self.0.make_writer())
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        Record::new(self.0.make_writer_for(metadata))
    }
}

impl<W: Write> Record<W> {
    fn new(writer: W) -> Self {
        Self { writer, bytes: Vec::new(), cut: false }
    }

    fn finish(&mut self) -> io::Result<()> {
        let mut bytes = std::mem::take(&mut self.bytes);
        if std::mem::take(&mut self.cut) {
            // Up to a space: half a secret might not look like one.
            let whole = bytes.iter().rposition(u8::is_ascii_whitespace).unwrap_or(0);
            bytes.truncate(whole);
            bytes.extend_from_slice(b" [cut]\n");
        }
        self.writer.write_all(redact(&String::from_utf8_lossy(&bytes)).as_bytes())
    }
}

impl<W: Write> Write for Record<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = MAX_RECORD - self.bytes.len();
        self.cut |= bytes.len() > room;
        self.bytes.extend(bytes.iter().take(room));
        Ok(bytes.len())
    }

    /// A record is not complete before the writer goes away.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> Drop for Record<W> {
    fn drop(&mut self) {
        // There is nowhere to say that a log cannot be written.
        let _ = self.finish();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// Each write on its own.
    #[derive(Clone, Default)]
    struct Writes(Arc<Mutex<Vec<String>>>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_secret_in_two_writes_is_hidden() {
        let writes = Writes::default();
        let mut record = Record::new(writes.clone());
        for part in ["pass", "word=hun", "ter2 from 10.0.", "0.1\n"] {
            record.write_all(part.as_bytes()).unwrap();
            record.flush().unwrap();
        }
        drop(record);
        assert_eq!(*writes.0.lock().unwrap(), ["password=[redacted] from [address]\n"]);
    }

    #[test]
    fn a_record_that_is_too_long_is_cut_at_a_space() {
        let writes = Writes::default();
        let mut record = Record::new(writes.clone());
        record.write_all(&b"x ".repeat(MAX_RECORD / 2 - 4)).unwrap();
        record.write_all(b"203.0.113.77 more").unwrap();
        drop(record);
        let written = writes.0.lock().unwrap().concat();
        assert!(written.ends_with("x x [cut]\n"), "{}", written.get(written.len() - 20..).unwrap());
    }

    #[test]
    fn fields_spans_and_panics_are_looked_through() {
        let writes = Writes::default();
        let sink = writes.clone();
        let layer =
            tracing_subscriber::fmt::layer().with_ansi(false).with_writer(Redacting(move || sink.clone()));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let _span = tracing::info_span!("request", path = "/agents/rf_live_abcdef").entered();
            tracing::info!(password = "correct horse", peer = %"10.0.0.1:1", "token=opaque");
            let usual = std::panic::take_hook();
            crate::logging::log_panics();
            let _ = std::panic::catch_unwind(|| panic!("at 10.0.0.2 with secret=opaque"));
            std::panic::set_hook(usual);
        });
        let written = writes.0.lock().unwrap().clone();
        assert_eq!(written.len(), 2, "{written:?}");
        let log = written.concat();
        for secret in ["abcdef", "horse", "10.0.0", "opaque"] {
            assert!(!log.contains(secret), "{log}");
        }
        for word in ["rf_live_[redacted]", "password=\"[redacted]\"", "panic: at [address]", "writer.rs:"] {
            assert!(log.contains(word), "{word}: {log}");
        }
    }
}
