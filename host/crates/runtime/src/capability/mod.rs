//! What a guest can ask of its host, one file for each capability.
//!
//! A capability has three moments, and its file has a place for each: it is linked once, when the engine starts
//! (`link`); it is set up for a bot, when the bot is deployed or changed (its part of [`Capabilities`]); and it is made
//! ready for a call, when [`State`](crate::state::State) is made.

use std::collections::BTreeMap;
use std::sync::Arc;

use directories::Directory;
use http::HttpGrant;
use kv::KvStore;
use llm::Llm;
use secrets::Secrets;

pub(crate) mod clock;
pub(crate) mod config;
pub(crate) mod directories;
pub(crate) mod http;
pub(crate) mod kv;
pub(crate) mod llm;
pub(crate) mod log;
pub(crate) mod secrets;

/// What a bot was granted, set up for its calls. Nothing, unless it is given here.
#[derive(Clone, Default)]
pub struct Capabilities {
    /// What the guest reads through `config`.
    pub config: BTreeMap<String, String>,
    /// The bot's key-value store, if it was granted one.
    pub kv: Option<Arc<dyn KvStore>>,
    /// The hosts that the guest may send requests to, if it was granted any.
    pub http: Option<HttpGrant>,
    /// Its directories, each in a place of its own.
    pub directories: Vec<Directory>,
    /// The secrets that it was granted, if it was granted any.
    pub secrets: Option<Secrets>,
    /// The language models that it was granted, if it was granted any.
    pub llm: Option<Llm>,
}

impl Capabilities {
    /// The first of these capabilities of a component that is not granted, if there is one.
    pub(crate) fn missing(&self, needed: &[String]) -> Option<&'static str> {
        let granted =
            [("kv", self.kv.is_some()), ("secrets", self.secrets.is_some()), ("llm", self.llm.is_some())];
        let missing = |(name, granted): &(&str, bool)| !granted && needed.iter().any(|needed| needed == name);
        granted.into_iter().find(missing).map(|(name, _)| name)
    }
}
