//! Bots and oracles: named, versioned deployments of components; calls to them and what these left.

mod capabilities;
mod cursor;
mod deployed;
mod directories;
mod follow;
mod invocations;
mod logs;
mod market;
mod running;
mod secrets;
mod sending;
mod types;

use ringfence_model::{BotId, BotStatus};
use ringfence_runtime::Level;
use ringfence_store::bots::{self, Bot, BotFilter};
use ringfence_store::components::{self, Component, ComponentKind};
use serde_json::json;

use crate::error::Checks;
use crate::policy::{Action, Resource};
use crate::{Answer, Caller, Control, Idempotency, Internal, Page};

pub(crate) use deployed::{Deployed, KEPT};
pub use directories::{DirectoryAccess, DirectoryGrant};
pub use follow::{FollowEvent, FollowLogs, MAX_FOLLOW};
pub use invocations::{InvocationView, InvokedBot, LogLineView, UsageView};
pub(crate) use invocations::{lines_text, usage_row};
pub use logs::{BotLogLineView, BotLogs, ListLogs, LogFilter};
pub(crate) use running::Running;
pub use secrets::{NewSecret, SecretView};
pub use types::{
    BotChanges, BotError, BotView, Grants, HttpGrant, KvGrant, ListBots, LlmGrant, LogPolicy, MarketGrant,
    MissingGrant, NewBot,
};

impl Control {
    /// Deploys a component under a name.
    ///
    /// # Errors
    /// [`BotError::GrantMissing`] names what the component imports without a grant. [`BotError::Denied`] also if there are
    /// grants and the caller may not give any.
    pub async fn create_bot(
        &self,
        caller: &Caller,
        new: NewBot,
        once: Option<&Idempotency>,
    ) -> Result<Answer<BotView>, BotError> {
        self.permit(caller, Action::BotsCreate, Resource::Org(caller.org())).await?;
        if new.grants != Grants::default() {
            self.permit(caller, Action::BotsGrant, Resource::Org(caller.org())).await?;
        }
        self.may_lend(caller, new.grants.market.as_ref()).await?;
        let checks = Checks::of(&new);
        let mut tx = self.store.begin().await?;
        if let Some(answer) = self.begin_once::<BotError>(&mut tx, caller, once).await? {
            return Ok(Answer::Replay(answer));
        }
        let component = components::get(&mut tx, caller.org(), &new.component).await?;
        let component = component.ok_or(BotError::NoSuchComponent)?;
        let now = self.clock.now();
        let view = BotView {
            bot_id: BotId::new(&*self.clock, &*self.rng),
            name: new.name,
            description: new.description,
            kind: component.kind,
            version: 1,
            component: new.component,
            config: new.config,
            grants: new.grants,
            limits: new.limits,
            logs: new.logs,
            status: BotStatus::Running,
            created_at: now,
            updated_at: now,
        };
        self.check_bot(checks, &view, &component)?;
        let row = to_row(caller, &view)?;
        bots::insert(&mut tx, &row).await?;
        self.enlist(&mut tx, &row, view.grants.market.as_ref()).await?;
        self.finish_once(&mut tx, caller, once, &view).await?;
        self.audit(&mut tx, caller, Action::BotsCreate, Resource::Bot(&row), deployed(&row)).await?;
        tx.commit().await?;
        Ok(Answer::New(view))
    }

    /// A bot of the caller's org.
    ///
    /// # Errors
    /// [`BotError::NotFound`], also for another org's.
    pub async fn bot(&self, caller: &Caller, id: &BotId) -> Result<BotView, BotError> {
        from_row(self.own_bot(caller, id, Action::BotsRead).await?)
    }

    /// The bots of the caller's org, newest first.
    ///
    /// # Errors
    /// [`BotError::Internal`] only.
    pub async fn bots(&self, caller: &Caller, list: &ListBots) -> Result<Page<BotView>, BotError> {
        let filter = BotFilter { status: list.status, kind: list.kind, name: list.name.clone() };
        self.permit(caller, Action::BotsList, Resource::Org(caller.org())).await?;
        let mut reader = self.store.reader().await?;
        let page = bots::list(&mut reader, caller.org(), &filter, list.limit, list.offset).await?;
        let items = page.items.into_iter().map(from_row).collect::<Result<_, _>>()?;
        Ok(Page { items, total: page.total })
    }

    /// Changes a bot. Calls that have begun go on with what was, those that begin after the answer see the change; jobs that were funded keep the oracle that they had.
    ///
    /// # Errors
    /// As [`Self::create_bot`], and [`BotError::Changed`] if two changes met.
    pub async fn update_bot(
        &self,
        caller: &Caller,
        id: &BotId,
        changes: BotChanges,
    ) -> Result<BotView, BotError> {
        let bot = self.own_bot(caller, id, Action::BotsUpdate).await?;
        let mut view = from_row(bot.clone())?;
        // What was compared is what is changed: the version sees to that.
        if changes.grants.as_ref().is_some_and(|grants| *grants != view.grants) {
            self.permit(caller, Action::BotsGrant, Resource::Bot(&bot)).await?;
        }
        let market = changes.grants.as_ref().map(|grants| grants.market.clone());
        let market = market.filter(|market| *market != view.grants.market);
        self.may_lend(caller, market.as_ref().and_then(Option::as_ref)).await?;
        let mut tx = self.store.begin().await?;
        if view.status == BotStatus::Terminated {
            return Err(BotError::Terminated);
        }
        let (expected, kind, mut checks) = (view.version, view.kind, Checks::of(&changes));
        if let Some(name) = changes.name {
            view.name = name;
        }
        if let Some(description) = changes.description {
            view.description = description;
        }
        if let Some(component) = changes.component {
            view.component = component;
        }
        if let Some(config) = changes.config {
            view.config = config;
        }
        if let Some(grants) = changes.grants {
            view.grants = grants;
        }
        if let Some(limits) = changes.limits {
            view.limits = limits;
        }
        if let Some(logs) = changes.logs {
            view.logs = logs;
        }
        let component = components::get(&mut tx, caller.org(), &view.component).await?;
        let component = component.ok_or(BotError::NoSuchComponent)?;
        let message = format!("must be a component of the same kind: {}", kind.as_str());
        checks.require(component.kind == kind, "component", message);
        self.check_bot(checks, &view, &component)?;
        view.version = expected.saturating_add(1);
        view.updated_at = self.clock.now();
        let row = to_row(caller, &view)?;
        if !bots::update(&mut tx, &row, expected).await? {
            return Err(BotError::Changed);
        }
        if let Some(market) = market {
            self.enlist(&mut tx, &row, market.as_ref()).await?;
        }
        self.audit(&mut tx, caller, Action::BotsUpdate, Resource::Bot(&row), deployed(&row)).await?;
        tx.commit().await?;
        self.deployment_in_force().await;
        Ok(view)
    }

    /// Takes a bot out of service for good. Its invocations stay readable, its name becomes free, its volumes and its secrets
    /// are removed.
    ///
    /// # Errors
    /// [`BotError::InUse`] while an open or funded job names it as its oracle.
    pub async fn delete_bot(&self, caller: &Caller, id: &BotId) -> Result<(), BotError> {
        let bot = self.own_bot(caller, id, Action::BotsDelete).await?;
        let mut tx = self.store.begin().await?;
        // Who posts a job that names it holds it meanwhile: see `usable_oracle`.
        bots::lock(&mut tx, id).await?;
        if bots::used_by_unfinished_job(&mut tx, id).await? {
            return Err(BotError::InUse);
        }
        bots::terminate(&mut tx, id, self.clock.now()).await?;
        self.enlist(&mut tx, &bot, None).await?;
        self.forget_secrets(&mut tx, caller.org(), id).await?;
        self.audit(&mut tx, caller, Action::BotsDelete, Resource::Bot(&bot), json!({ "name": bot.name }))
            .await?;
        tx.commit().await?;
        self.deployment_in_force().await;
        self.remove_volumes(id).await;
        Ok(())
    }

    /// A bot of the caller's org, to which the caller may do this.
    async fn own_bot(&self, caller: &Caller, id: &BotId, action: Action) -> Result<Bot, BotError> {
        let bot = bots::get(&mut self.store.reader().await?, id).await?;
        let bot = bot.filter(|bot| bot.org_id == *caller.org()).ok_or(BotError::NotFound)?;
        self.permit(caller, action, Resource::Bot(&bot)).await?;
        Ok(bot)
    }

    /// What must hold of a bot, new or changed, besides what its request was checked for.
    fn check_bot(&self, mut checks: Checks, bot: &BotView, component: &Component) -> Result<(), BotError> {
        let (is_bot, grants) = (bot.kind == ComponentKind::Bot, &bot.grants);
        for (granted, field, what) in [
            (grants.kv.is_some(), "grants.kv", "a key-value store"),
            (grants.http.is_some(), "grants.http", "a network"),
            (grants.llm.is_some(), "grants.llm", "language models"),
            (!grants.secrets.is_empty(), "grants.secrets", "secrets"),
            (!grants.directories.is_empty(), "grants.directories", "directories"),
            (grants.market.is_some(), "grants.market", "a market"),
        ] {
            checks.require(is_bot || !granted, field, judges_without(what));
        }
        checks.require(
            is_bot || bot.logs.min_level.is_none(),
            "logs.min_level",
            "cannot be set for an oracle: whoever paid for a verdict can read all that led to it",
        );
        checks.require(
            bot.grants.directories.is_empty() || self.settings.volumes_dir.is_some(),
            "grants.directories",
            "this host has no folder for volumes",
        );
        let fuel = bot.limits.fuel;
        checks.require(
            grants.market.as_ref().is_none_or(|market| market.max_fuel_per_day >= fuel),
            "grants.market.max_fuel_per_day",
            format!("must be at least what one call may take: {fuel}, the bot's `limits.fuel`"),
        );
        if let Err(error) = bot.limits.validate(self.runtime.maximum()) {
            checks.require(false, &format!("limits.{}", error.field()), error.to_string());
        }
        checks.done()?;
        let missing = bot.grants.missing_for(&component.capabilities);
        if missing.is_empty() { Ok(()) } else { Err(BotError::GrantMissing(missing)) }
    }
}

/// Why an oracle is given none of these.
fn judges_without(what: &str) -> String {
    format!("an oracle judges without {what}: it must give the same verdict every time")
}

/// What the audit log says of a deployment. Not the configuration: people put into it what they should not.
fn deployed(bot: &Bot) -> serde_json::Value {
    json!({
        "name": bot.name,
        "version": bot.version,
        "component": bot.component_digest,
        "grants": bot.grants,
        "limits": bot.limits,
        "logs": { "keep_days": bot.log_keep_days, "min_level": bot.log_min_level },
    })
}

fn to_row(caller: &Caller, view: &BotView) -> Result<Bot, Internal> {
    Ok(Bot {
        id: view.bot_id.clone(),
        org_id: caller.org().clone(),
        name: view.name.clone(),
        description: view.description.clone(),
        kind: view.kind,
        version: view.version,
        component_digest: view.component,
        config: view.config.clone(),
        grants: serde_json::to_value(&view.grants)?,
        limits: serde_json::to_value(&view.limits)?,
        log_keep_days: view.logs.keep_days,
        log_min_level: view.logs.min_level.map(|level| level.as_str().to_owned()),
        status: view.status,
        created_at: view.created_at,
        updated_at: view.updated_at,
    })
}

fn from_row(bot: Bot) -> Result<BotView, BotError> {
    Ok(BotView {
        bot_id: bot.id,
        name: bot.name,
        description: bot.description,
        kind: bot.kind,
        version: bot.version,
        component: bot.component_digest,
        config: bot.config,
        grants: serde_json::from_value(bot.grants).map_err(Internal::from)?,
        limits: serde_json::from_value(bot.limits).map_err(Internal::from)?,
        logs: LogPolicy {
            keep_days: bot.log_keep_days,
            min_level: bot
                .log_min_level
                .and_then(|name| Level::ALL.into_iter().find(|level| level.as_str() == name)),
        },
        status: bot.status,
        created_at: bot.created_at,
        updated_at: bot.updated_at,
    })
}
