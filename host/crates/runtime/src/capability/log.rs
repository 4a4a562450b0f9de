//! `ringfence:guest/log`: structured logs, kept beside standard output.

use wasmtime::component::{HasSelf, Linker};

use crate::bindings::log::{self, Host, Level as GuestLevel};
use crate::logs::Level;
use crate::state::State;

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    log::add_to_linker::<_, HasSelf<State>>(linker, State::called)
}

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
