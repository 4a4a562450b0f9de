//! `ringfence:guest/secrets`: values that the owner set for one bot, by name.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret as _, SecretString};
use wasmtime::component::{HasSelf, Linker};

use crate::bindings::secrets::{self, Error, Host};
use crate::state::State;

/// The secrets that a bot was granted, by name. Of one that has no value, or whose value cannot be read, there is none.
pub type Secrets = BTreeMap<String, Option<SecretString>>;

/// As much of a name as is repeated to the guest.
const SHOWN_CHARS: usize = 64;

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    secrets::add_to_linker::<_, HasSelf<State>>(linker, State::called)
}

impl Host for State {
    fn get(&mut self, name: String) -> wasmtime::Result<Result<String, Error>> {
        let granted = self.capabilities.secrets.as_ref().and_then(|secrets| secrets.get(&name));
        let shown: String = name.chars().take(SHOWN_CHARS).collect();
        Ok(match granted {
            Some(Some(value)) => Ok(value.expose_secret().to_owned()),
            Some(None) => Err(Error::Unavailable(format!(
                "the secret `{shown}` was granted, but its owner has set no value for it, or it cannot be read now"
            ))),
            None => Err(Error::NotGranted(format!("the secret `{shown}` was not granted to this bot"))),
        })
    }
}
