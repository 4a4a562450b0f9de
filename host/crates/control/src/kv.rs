//! A bot's key-value store, over the database.

use ringfence_model::{BotId, Clock, OrgId};
use ringfence_runtime::{KvError, KvStore};
use ringfence_store::{Store, StoreError, kv};
use std::sync::Arc;

/// The entries of one bot, under its granted quota.
pub(crate) struct BotKv {
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) org: OrgId,
    pub(crate) bot: BotId,
    pub(crate) quota_bytes: u64,
}

/// The guest hears that trying again may help; the reason goes to the log.
fn unavailable(error: &StoreError) -> KvError {
    tracing::warn!(error = error as &dyn std::error::Error, "key-value store");
    KvError::Unavailable("the store did not answer; try again".to_owned())
}

#[async_trait::async_trait]
impl KvStore for BotKv {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, KvError> {
        let mut reader = self.store.reader().await.map_err(|error| unavailable(&error))?;
        kv::get(&mut reader, &self.bot, key.as_bytes()).await.map_err(|error| unavailable(&error))
    }

    async fn set(&self, key: &str, value: Vec<u8>) -> Result<(), KvError> {
        let written = async {
            let mut tx = self.store.begin().await?;
            let (key, now) = (key.as_bytes(), self.clock.now());
            let written = kv::set(&mut tx, &self.org, &self.bot, key, &value, self.quota_bytes, now).await?;
            tx.commit().await?;
            Ok(written)
        };
        match written.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(KvError::QuotaExceeded(format!(
                "the store may hold {} bytes, keys and values",
                self.quota_bytes
            ))),
            Err(error) => Err(unavailable(&error)),
        }
    }

    async fn delete(&self, key: &str) -> Result<(), KvError> {
        let deleted = async {
            let mut tx = self.store.begin().await?;
            kv::delete(&mut tx, &self.bot, key.as_bytes()).await?;
            tx.commit().await
        };
        deleted.await.map_err(|error| unavailable(&error))
    }

    async fn list_keys(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>, KvError> {
        let mut reader = self.store.reader().await.map_err(|error| unavailable(&error))?;
        let keys =
            kv::list_keys(&mut reader, &self.bot, prefix.as_bytes(), after.map(str::as_bytes), limit).await;
        let keys = keys.map_err(|error| unavailable(&error))?;
        Ok(keys.into_iter().filter_map(|key| String::from_utf8(key).ok()).collect())
    }
}
