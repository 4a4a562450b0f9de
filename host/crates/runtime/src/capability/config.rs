//! `ringfence:guest/config`: the values that the owner set for this bot.

use wasmtime::component::{HasSelf, Linker};

use crate::bindings::config::{self, Host};
use crate::state::State;

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    config::add_to_linker::<_, HasSelf<State>>(linker, State::called)
}

impl Host for State {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        Ok(self.capabilities.config.get(&key).cloned())
    }

    fn entries(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        Ok(self.capabilities.config.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}
