//! What a bot was granted, set up for its calls.

use std::sync::Arc;

use ringfence_model::OrgId;
use ringfence_runtime::{Capabilities, Llm};

use super::BotView;
use crate::Control;
use crate::kv::BotKv;
use crate::llm::BotLlm;

impl Control {
    /// The host's side of a bot's grants, but for its secrets.
    pub(super) fn capabilities(&self, org: &OrgId, bot: &BotView) -> Capabilities {
        let kv = bot.grants.kv.as_ref().map(|grant| {
            Arc::new(BotKv {
                store: self.store.clone(),
                clock: self.clock.clone(),
                org: org.clone(),
                bot: bot.bot_id.clone(),
                quota_bytes: grant.quota_bytes,
            }) as Arc<dyn ringfence_runtime::KvStore>
        });
        let http = bot.grants.http.as_ref().zip(self.settings.outbound.clone());
        let http = http.map(|(grant, client)| ringfence_runtime::HttpGrant {
            client,
            org: org.clone(),
            hosts: Arc::new(grant.allowed()),
        });
        let directories = self.directories(&bot.bot_id, &bot.grants.directories);
        let llm = bot.grants.llm.as_ref().map(|grant| Llm {
            endpoint: Arc::new(BotLlm { endpoint: self.settings.llm.clone(), org: org.clone() }),
            models: grant.models.clone(),
            max_tokens_per_call: grant.max_tokens_per_call,
        });
        // Its secrets are read for each call: they lie in memory no longer than they are needed.
        Capabilities { config: bot.config.clone(), kv, http, directories, secrets: None, llm }
    }
}
