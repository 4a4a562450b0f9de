//! The end of what is kept for a time: lines of calls, and the calls themselves. What they used, added up by day, stays.

use std::time::Duration;

use ringfence_model::{InvocationId, Timestamp};
use ringfence_store::{StoreError, logs};
use tokio::sync::watch;

use crate::Control;

/// How many calls one transaction is about. On SQLite nobody else writes meanwhile.
const AT_A_TIME: u32 = 200;
/// How long others have the database to themselves in between.
const PAUSE: Duration = Duration::from_millis(20);

const DAY: Duration = Duration::from_secs(86_400);

/// What one round has deleted.
#[derive(Debug, Default)]
struct Deleted {
    logs: u64,
    calls: u64,
}

/// How far calls are deleted, on this host: what is left before that is about submissions and is not looked at again.
pub(crate) struct Progress(InvocationId);

impl Progress {
    pub(crate) fn new() -> Self {
        Self(InvocationId::least_at(Timestamp::EPOCH))
    }
}

impl Control {
    /// Deletes what is too old, in small transactions, until all is or the host is to stop. Several hosts may do so at
    /// once: what one has deleted the others do not find. What fails is tried again the next time.
    pub(crate) async fn delete_old(&self, progress: &mut Progress, stop: &watch::Receiver<bool>) {
        let mut deleted = Deleted::default();
        let done = async {
            self.delete_old_logs(&mut deleted, stop).await?;
            self.delete_logs_of_bots(stop).await?;
            self.delete_old_calls(progress, &mut deleted, stop).await
        };
        if let Err(error) = done.await {
            tracing::warn!(error = &error as &dyn std::error::Error, "old calls and logs cannot be deleted");
        }
        if deleted.logs + deleted.calls > 0 {
            tracing::info!(logs = deleted.logs, calls = deleted.calls, "old calls and logs are deleted");
        }
    }

    async fn delete_old_logs(
        &self,
        deleted: &mut Deleted,
        stop: &watch::Receiver<bool>,
    ) -> Result<(), StoreError> {
        let Some(before) = self.days_ago(self.settings.log_retention_days) else { return Ok(()) };
        let before = InvocationId::least_at(before);
        while !*stop.borrow() {
            let mut tx = self.store.begin().await?;
            let some = logs::delete_old(&mut tx, &before, AT_A_TIME).await?;
            tx.commit().await?;
            deleted.logs += some;
            if some < u64::from(AT_A_TIME) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// For bots that keep their lines less long.
    async fn delete_logs_of_bots(&self, stop: &watch::Receiver<bool>) -> Result<(), StoreError> {
        let mut after = String::new();
        loop {
            let bots = logs::keep_days(&mut self.store.reader().await?, &after, AT_A_TIME).await?;
            let Some(last) = bots.last() else { return Ok(()) };
            after = last.bot_id.to_string();
            for bot in bots {
                let Some(before) = self.days_ago(bot.days) else { continue };
                let mut left = Some(bot).filter(|bot| bot.deleted_until < before);
                while let Some(bot) = left {
                    if *stop.borrow() {
                        return Ok(());
                    }
                    let mut tx = self.store.begin().await?;
                    left = logs::delete_of_bot(&mut tx, &bot, before, AT_A_TIME).await?;
                    tx.commit().await?;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn delete_old_calls(
        &self,
        progress: &mut Progress,
        deleted: &mut Deleted,
        stop: &watch::Receiver<bool>,
    ) -> Result<(), StoreError> {
        let Some(before) = self.days_ago(self.settings.invocation_retention_days) else { return Ok(()) };
        let before = InvocationId::least_at(before);
        while !*stop.borrow() {
            let mut tx = self.store.begin().await?;
            let (some, last) = logs::delete_calls(&mut tx, &progress.0, &before, AT_A_TIME).await?;
            tx.commit().await?;
            deleted.calls += some;
            let Some(last) = last else {
                progress.0 = before.max(progress.0.clone());
                break;
            };
            progress.0 = last;
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// The time so many days ago; `None` for 0, which is for ever.
    fn days_ago(&self, days: u32) -> Option<Timestamp> {
        (days > 0).then(|| self.clock.now().minus(DAY * days))
    }
}
