//! `ringfence:guest/log`: structured logs, kept beside standard output.

use crate::bindings::log::{Host, Level as GuestLevel};
use crate::logs::Level;
use crate::state::State;

impl Host for State {
    fn write(
        &mut self,
        level: GuestLevel,
        message: String,
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        let level = match level {
            GuestLevel::Trace => Level::Trace,
            GuestLevel::Debug => Level::Debug,
            GuestLevel::Info => Level::Info,
            GuestLevel::Warn => Level::Warn,
            GuestLevel::Error => Level::Error,
        };
        Ok(self.logs.write(level, message, fields)?)
    }
}
