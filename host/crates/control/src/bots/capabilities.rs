//! What a bot was granted, set up for its calls.

use std::sync::Arc;

use ringfence_model::OrgId;
use ringfence_runtime::Capabilities;

use super::BotView;
use crate::kv::BotKv;
use crate::{Control, Internal};

impl Control {
    /// The host's side of a bot's grants.
    ///
    /// # Errors
    /// If its secrets cannot be read.
    pub(super) async fn capabilities(&self, org: &OrgId, bot: &BotView) -> Result<Capabilities, Internal> {
        let kv = bot.grants.kv.as_ref().map(|grant| {
            Arc::new(BotKv {
                store: self.store.clone(),
                clock: self.clock.clone(),
                org: org.clone(),
                bot: bot.bot_id.clone(),
                quota_bytes: grant.quota_bytes,
            }) as Arc<dyn ringfence_runtime::KvStore>
        });
        let names = &bot.grants.secrets;
        let secrets = match names.is_empty() {
            true => None,
            false => Some(self.granted_secrets(org, &bot.bot_id, names).await?),
        };
        Ok(Capabilities { config: bot.config.clone(), kv, secrets })
    }
}
