//! The secrets of a bot: set by its owner, read by its guest where granted, shown to nobody.

use std::collections::BTreeSet;
use std::sync::Arc;

use ringfence_model::{BotId, BotStatus, OrgId, Timestamp};
use ringfence_runtime::{Capabilities, Secrets};
use ringfence_store::bots;
use ringfence_store::components::ComponentKind;
use ringfence_store::secrets as store;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{Deployed, judges_without};
use crate::error::{Checks, rules};
use crate::policy::{Action, Resource};
use crate::{BotError, Caller, Control, Internal, secrets};

/// How many secrets a bot can have.
pub(super) const MAX_SECRETS: usize = 50;

/// A secret's value.
#[derive(Debug, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct NewSecret {
    /// 1 to 8,192 bytes of text. It is sealed, and never shown again.
    #[schema(value_type = String, format = Password, min_length = 1)]
    #[garde(custom(a_value))]
    pub value: SecretString,
}

/// A secret, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SecretView {
    /// Its name.
    pub name: String,
    /// When its value was set.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

fn a_value(value: &SecretString, (): &()) -> garde::Result {
    let bytes = value.expose_secret().len();
    rules::require((1..=8192).contains(&bytes), "must have 1 to 8,192 bytes (UTF-8)")
}

/// Whether this can be a secret's name.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}

pub(super) const NAMES: &str = "must have 1 to 64 letters, digits, `_`, `-` and `.`";

/// The kind and the id under which a bot's secret is sealed: they name org, bot and secret, and the seal is bound to both,
/// so that none can be put in another one's place.
fn kind(org: &OrgId, bot: &BotId) -> String {
    format!("bot:{org}/{bot}")
}

fn id(bot: &BotId, name: &str) -> String {
    format!("{bot}/{name}")
}

fn name_in<'a>(bot: &BotId, id: &'a str) -> Option<&'a str> {
    id.strip_prefix(bot.as_str())?.strip_prefix('/')
}

impl Control {
    /// Sets the value of a bot's secret. Calls that begin after the answer get it.
    ///
    /// # Errors
    /// [`BotError::TooManySecrets`]; [`BotError::Invalid`] for a name or a value that cannot be, and for an oracle.
    pub async fn set_secret(
        &self,
        caller: &Caller,
        bot: &BotId,
        name: &str,
        new: NewSecret,
    ) -> Result<(), BotError> {
        let row = self.own_bot(caller, bot, Action::SecretsWrite).await?;
        let mut checks = Checks::of(&new);
        checks.require(is_name(name), "name", NAMES);
        let is_bot = row.kind == ComponentKind::Bot;
        checks.require(is_bot, "bot_id", judges_without("secrets"));
        checks.done()?;
        let mut tx = self.store.begin().await?;
        // Held, so that it is not deleted meanwhile, and no more secrets than can be are added at a time.
        let row = bots::lock(&mut tx, bot).await?.ok_or(BotError::NotFound)?;
        if row.status == BotStatus::Terminated {
            return Err(BotError::Terminated);
        }
        let (kind, id) = (kind(caller.org(), bot), id(bot, name));
        let there = store::ids(&mut tx, &kind).await?;
        if there.len() >= MAX_SECRETS && there.iter().all(|(there, _)| *there != id) {
            return Err(BotError::TooManySecrets);
        }
        let (master, value) = (&self.access.master, new.value.expose_secret().as_bytes());
        let drawn = (&*self.clock, &*self.rng);
        secrets::put(&mut tx, master, drawn, caller.org(), (&id, &kind), value).await?;
        let detail = json!({ "name": name });
        self.audit(&mut tx, caller, Action::SecretsWrite, Resource::Bot(&row), detail).await?;
        tx.commit().await?;
        Ok(())
    }

    /// The names of a bot's secrets, by name.
    ///
    /// # Errors
    /// [`BotError::NotFound`].
    pub async fn secrets(&self, caller: &Caller, bot: &BotId) -> Result<Vec<SecretView>, BotError> {
        self.own_bot(caller, bot, Action::SecretsList).await?;
        let ids = store::ids(&mut self.store.reader().await?, &kind(caller.org(), bot)).await?;
        let view = |(id, updated_at): &(String, Timestamp)| {
            Some(SecretView { name: name_in(bot, id)?.to_owned(), updated_at: *updated_at })
        };
        let mut secrets: Vec<_> = ids.iter().filter_map(view).collect();
        secrets.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(secrets)
    }

    /// Removes a bot's secret. Calls that begin after the answer do not get it any more.
    ///
    /// # Errors
    /// [`BotError::NoSuchSecret`].
    pub async fn delete_secret(&self, caller: &Caller, bot: &BotId, name: &str) -> Result<(), BotError> {
        let row = self.own_bot(caller, bot, Action::SecretsWrite).await?;
        let mut tx = self.store.begin().await?;
        if !is_name(name) || !store::delete(&mut tx, &id(bot, name)).await? {
            return Err(BotError::NoSuchSecret);
        }
        let detail = json!({ "name": name, "deleted": true });
        self.audit(&mut tx, caller, Action::SecretsWrite, Resource::Bot(&row), detail).await?;
        tx.commit().await?;
        Ok(())
    }

    /// What a bot was granted, with its secrets as they are now.
    pub(super) async fn with_secrets(&self, bot: &Deployed) -> Result<Arc<Capabilities>, Internal> {
        if bot.secrets.is_empty() {
            return Ok(Arc::clone(&bot.capabilities));
        }
        let secrets = self.granted_secrets(&bot.row.org_id, &bot.row.id, &bot.secrets).await?;
        Ok(Arc::new(Capabilities { secrets: Some(secrets), ..Capabilities::clone(&bot.capabilities) }))
    }

    /// The secrets of these names, for the guest. One that cannot be opened is missing, and said in the log: the calls
    /// that do without it go on.
    async fn granted_secrets(
        &self,
        org: &OrgId,
        bot: &BotId,
        names: &BTreeSet<String>,
    ) -> Result<Secrets, Internal> {
        let mut granted: Secrets = names.iter().map(|name| (name.clone(), None)).collect();
        let kept = store::of_kind(&mut self.store.reader().await?, &kind(org, bot)).await?;
        for secret in kept {
            let Some(value) = name_in(bot, &secret.id).and_then(|name| granted.get_mut(name)) else {
                continue;
            };
            match self.access.master.open(&secret) {
                Ok(bytes) => *value = str::from_utf8(bytes.expose_secret()).ok().map(SecretString::from),
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "a bot's secret cannot be opened"
                    );
                }
            }
        }
        Ok(granted)
    }

    /// Removes all secrets of a bot.
    pub(super) async fn forget_secrets(
        &self,
        tx: &mut ringfence_store::Tx,
        org: &OrgId,
        bot: &BotId,
    ) -> Result<(), Internal> {
        Ok(store::delete_kind(tx, &kind(org, bot)).await?)
    }
}
