//! `ringfence:guest/kv`: a key-value store that belongs to one bot.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::task::JoinError;
use wasmtime::component::{HasSelf, Linker};

use crate::bindings::kv::{self, Error, Host};
use crate::state::State;

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    kv::add_to_linker::<_, HasSelf<State>>(linker, State::called)
}

/// Keys are 1 to this many bytes.
pub const MAX_KEY_BYTES: usize = 256;

/// The most keys that one listing returns.
pub const MAX_LISTED_KEYS: u32 = 1000;

/// The store behind one bot's `kv` imports, opened for that bot alone. Keys that reach it are 1 to
/// [`MAX_KEY_BYTES`] bytes long. The quota is counted by the implementor, who knows what is stored.
#[async_trait]
pub trait KvStore: Send + Sync {
    /// The value under `key`, if there is one.
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, KvError>;

    /// Puts `value` under `key`. On an error nothing has been written.
    async fn set(&self, key: &str, value: Vec<u8>) -> Result<(), KvError>;

    /// Removes `key`; what is not there is no error.
    async fn delete(&self, key: &str) -> Result<(), KvError>;

    /// Puts `value` under `key`, or removes it if there is none, provided that `expected` is what is there; `false`,
    /// and nothing changed, if it is not. No other write, by any host, comes between the look and the change.
    async fn compare_and_swap(
        &self,
        key: &str,
        expected: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
    ) -> Result<bool, KvError>;

    /// Up to `limit` keys that begin with `prefix` and come after `after`, in byte order.
    async fn list_keys(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>, KvError>;
}

/// Why the store refused. The guest reads the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// The write would take the store past its quota.
    #[error("{0}")]
    QuotaExceeded(String),
    /// The store did not answer. Keep what is internal out of the text.
    #[error("{0}")]
    Unavailable(String),
}

impl From<KvError> for Error {
    fn from(error: KvError) -> Self {
        match error {
            KvError::QuotaExceeded(message) => Self::QuotaExceeded(message),
            KvError::Unavailable(message) => Self::Unavailable(message),
        }
    }
}

/// The store of one call, if `kv` was granted. A component that imports `kv` is not started without one, so
/// a missing store is a host's mistake.
#[derive(Clone)]
struct Granted(Option<Arc<dyn KvStore>>);

impl Granted {
    fn store(&self, key: &str) -> Result<&dyn KvStore, Error> {
        match key.len() {
            1..=MAX_KEY_BYTES => self.any(),
            length => {
                Err(Error::InvalidKey(format!("a key is 1 to {MAX_KEY_BYTES} bytes; this one is {length}")))
            }
        }
    }

    fn any(&self) -> Result<&dyn KvStore, Error> {
        self.0.as_deref().ok_or_else(|| Error::Unavailable("kv was not granted".to_owned()))
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.store(key)?.get(key).await?)
    }

    async fn set(&self, key: &str, value: Vec<u8>) -> Result<(), Error> {
        Ok(self.store(key)?.set(key, value).await?)
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        Ok(self.store(key)?.delete(key).await?)
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
    ) -> Result<bool, Error> {
        Ok(self.store(key)?.compare_and_swap(key, expected, value).await?)
    }

    async fn list_keys(&self, prefix: &str, after: Option<&str>) -> Result<Vec<String>, Error> {
        if prefix.len() > MAX_KEY_BYTES || after.is_some_and(|after| after.len() > MAX_KEY_BYTES) {
            return Err(Error::InvalidKey(format!("no key is longer than {MAX_KEY_BYTES} bytes")));
        }
        let mut keys = self.any()?.list_keys(prefix, after, MAX_LISTED_KEYS).await?;
        keys.truncate(MAX_LISTED_KEYS as usize);
        Ok(keys)
    }
}

/// What came of a write; of one that panicked nobody knows.
fn ended<T>(written: Result<Result<T, Error>, JoinError>) -> Result<T, Error> {
    written.unwrap_or_else(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "a write to a key-value store ended badly");
        Err(Error::Unavailable("the store did not answer".to_owned()))
    })
}

/// The store is cloned out of the state first: a future that holds on to the state could not be sent between
/// threads. Writes are begun and waited for: a guest that is ended meanwhile cuts none in half.
impl Host for State {
    async fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, Error>> {
        let kv = Granted(self.capabilities.kv.clone());
        Ok(kv.get(&key).await)
    }

    async fn set(&mut self, key: String, value: Vec<u8>) -> wasmtime::Result<Result<(), Error>> {
        let kv = Granted(self.capabilities.kv.clone());
        Ok(ended(self.begin(async move { kv.set(&key, value).await }).await))
    }

    async fn delete(&mut self, key: String) -> wasmtime::Result<Result<(), Error>> {
        let kv = Granted(self.capabilities.kv.clone());
        Ok(ended(self.begin(async move { kv.delete(&key).await }).await))
    }

    async fn compare_and_swap(
        &mut self,
        key: String,
        expected: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
    ) -> wasmtime::Result<Result<bool, Error>> {
        let kv = Granted(self.capabilities.kv.clone());
        Ok(ended(self.begin(async move { kv.compare_and_swap(&key, expected, value).await }).await))
    }

    async fn list_keys(
        &mut self,
        prefix: String,
        after: Option<String>,
    ) -> wasmtime::Result<Result<Vec<String>, Error>> {
        let kv = Granted(self.capabilities.kv.clone());
        Ok(kv.list_keys(&prefix, after.as_deref()).await)
    }
}
