//! `ringfence:guest/config`: the values that the owner set for this bot.

use crate::bindings::config::Host;
use crate::state::State;

impl Host for State {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        Ok(self.config.get(&key).cloned())
    }

    fn entries(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        Ok(self.config.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}
