//! Bots as their calls find them: read and set up once, and good for the time of a lease.

use std::collections::BTreeSet;
use std::sync::Arc;

use ringfence_model::{BotId, BotStatus};
use ringfence_runtime::{Capabilities, Level, Limits, Runtime};
use ringfence_store::bots::{self, Bot};
use ringfence_store::components::ComponentKind;

use super::{BotError, MarketGrant, from_row};
use crate::access::LEASE;
use crate::{Control, Internal};

/// How many bots are kept in memory.
pub(crate) const KEPT: usize = 20_000;

/// All that a call of a bot needs to know of it.
pub(crate) struct Deployed {
    /// For the policies.
    pub(crate) row: Bot,
    pub(crate) limits: Limits,
    /// What it may do on the market by itself.
    pub(crate) market: Option<MarketGrant>,
    /// Lines that matter less are not kept.
    pub(super) min_level: Option<Level>,
    pub(super) capabilities: Arc<Capabilities>,
    /// The names of the secrets that were granted.
    pub(super) secrets: BTreeSet<String>,
    pub(super) tenant: Arc<str>,
    /// What each record of a call says.
    pub(super) limits_json: Arc<str>,
    pub(super) engine: Arc<str>,
}

impl Deployed {
    /// Whether the bot can be called.
    pub(crate) fn check(&self) -> Result<(), BotError> {
        if self.row.status == BotStatus::Terminated {
            return Err(BotError::Terminated);
        }
        if self.row.kind == ComponentKind::Oracle {
            return Err(BotError::NotCallable);
        }
        Ok(())
    }
}

impl Control {
    /// A bot of any org, as it was a [`LEASE`] ago at most.
    pub(crate) async fn deployed(&self, id: &BotId) -> Result<Option<Arc<Deployed>>, BotError> {
        let found = self.deployed.get(id, || async {
            let row = bots::get(&mut self.store.reader().await?, id).await?;
            row.map(|row| self.set_up(row)).transpose()
        });
        Ok(found.await?.map(|(bot, _)| bot))
    }

    fn set_up(&self, row: Bot) -> Result<Arc<Deployed>, BotError> {
        let view = from_row(row.clone())?;
        Ok(Arc::new(Deployed {
            capabilities: Arc::new(self.capabilities(&row.org_id, &view)),
            tenant: row.org_id.as_str().into(),
            limits_json: serde_json::to_string(&view.limits).map_err(Internal::from)?.into(),
            engine: Runtime::engine_version().into(),
            limits: view.limits,
            min_level: view.logs.min_level,
            secrets: view.grants.secrets,
            market: view.grants.market,
            row,
        }))
    }

    /// Waits until no call begins on any host with what was so before the last commit.
    pub(super) async fn deployment_in_force(&self) {
        self.deployed.forget();
        if self.store.is_shared() {
            tokio::time::sleep(LEASE).await;
        }
    }
}
