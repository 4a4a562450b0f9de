//! A bot's key-value store, over the database.

use ringfence_model::{BotId, Clock, OrgId};
use ringfence_runtime::{KvError, KvStore};
use ringfence_store::kv::{self, Written};
use ringfence_store::{Store, StoreError, Tx};
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

impl BotKv {
    /// Writes in a transaction of its own; whether what was expected was there.
    async fn write(
        &self,
        key: &str,
        write: impl AsyncFnOnce(&mut Tx, &kv::Write<'_>) -> Result<Written, StoreError>,
    ) -> Result<bool, KvError> {
        let (key, quota_bytes, now) = (key.as_bytes(), self.quota_bytes, self.clock.now());
        let entry = kv::Write { org: &self.org, bot: &self.bot, key, quota_bytes, now };
        let written = async {
            let mut tx = self.store.begin().await?;
            let written = write(&mut tx, &entry).await?;
            tx.commit().await?;
            Ok(written)
        };
        match written.await {
            Ok(Written::Done) => Ok(true),
            Ok(Written::Differs) => Ok(false),
            Ok(Written::QuotaExceeded) => Err(KvError::QuotaExceeded(format!(
                "the store may hold {quota_bytes} bytes: keys, values and {} for each entry",
                kv::ENTRY_OVERHEAD_BYTES
            ))),
            Err(error) => Err(unavailable(&error)),
        }
    }
}

#[async_trait::async_trait]
impl KvStore for BotKv {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, KvError> {
        let mut reader = self.store.reader().await.map_err(|error| unavailable(&error))?;
        kv::get(&mut reader, &self.bot, key.as_bytes()).await.map_err(|error| unavailable(&error))
    }

    async fn set(&self, key: &str, value: Vec<u8>) -> Result<(), KvError> {
        self.write(key, async |tx, write| kv::set(tx, write, Some(&value)).await).await.map(drop)
    }

    async fn delete(&self, key: &str) -> Result<(), KvError> {
        self.write(key, async |tx, write| kv::set(tx, write, None).await).await.map(drop)
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
    ) -> Result<bool, KvError> {
        self.write(key, async |tx, write| {
            kv::compare_and_swap(tx, write, expected.as_deref(), value.as_deref()).await
        })
        .await
    }

    async fn list_keys(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>, KvError> {
        let mut reader = self.store.reader().await.map_err(|error| unavailable(&error))?;
        let keys =
            kv::list_keys(&mut reader, &self.bot, prefix.as_bytes(), after.map(str::as_bytes), limit).await;
        let keys = keys.map_err(|error| unavailable(&error))?;
        Ok(keys.into_iter().filter_map(|key| String::from_utf8(key).ok()).collect())
    }
}
