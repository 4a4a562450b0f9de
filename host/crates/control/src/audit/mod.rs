//! The audit log: who did what to which, when, from where, and how it ended.
//!
//! An entry is written in the transaction of what it tells of, as its last statement. Each carries an HMAC over itself and
//! the entry before it, under a key that the database holds only sealed.

mod chain;

use std::borrow::Cow;

use ringfence_model::{OrgId, Timestamp};
use ringfence_store::Tx;
use ringfence_store::audit::{self, AuditFilter, Entry};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::policy::{Action, Denied, Resource};
use crate::{Caller, Control, Internal, Origin};
use chain::link;

pub use chain::{BrokenLink, ChainReport, verify_audit};

ringfence_model::words! {
    /// How what was tried ended.
    AuditOutcome ("outcome") {
        /// It was done.
        Done = "done",
        /// The caller may not.
        Denied = "denied",
        /// The caller could not prove who it is.
        Failed = "failed",
    }
}

/// What is to be written.
pub(crate) struct Deed<'a> {
    /// Who.
    pub(crate) actor: &'a str,
    /// By which key or session.
    pub(crate) credential: Option<&'a str>,
    /// In whose log it goes.
    pub(crate) org: &'a OrgId,
    pub(crate) action: &'a str,
    pub(crate) resource: Cow<'a, str>,
    pub(crate) resource_org: &'a OrgId,
    pub(crate) outcome: AuditOutcome,
    pub(crate) origin: &'a Origin,
    pub(crate) detail: Value,
}

impl<'a> Deed<'a> {
    /// What a caller has done or tried.
    pub(crate) fn of(
        caller: &'a Caller,
        action: Action,
        resource: &'a Resource<'_>,
        outcome: AuditOutcome,
        detail: Value,
    ) -> Self {
        Self {
            actor: caller.principal(),
            credential: Some(caller.credential()),
            org: caller.org(),
            action: action.name(),
            resource: resource.id().into(),
            resource_org: resource.org(),
            outcome,
            origin: caller.origin(),
            detail,
        }
    }
}

/// Who acts where nobody has proved who it is.
pub(crate) const ANONYMOUS: &str = "anonymous";
/// Who acts on the command line of the host.
pub(crate) const COMMAND: &str = "command";

/// An entry of the audit log.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AuditEntryView {
    /// Its place in the org's chain, from 1.
    pub seq: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Who: a user, an agent, a service key, a bot that works by itself, `command` (on the host's command line), or `anonymous`.
    pub actor: String,
    /// The key or the session that the actor used; of a bot, the agent as whom it works.
    pub credential: Option<String>,
    /// What was done or tried, as in the permission matrix; also `sessions:login` and the like.
    #[schema(example = "bots:create")]
    pub action: String,
    /// To what.
    pub resource: String,
    /// Whose that is, where it is the log's own org; the operators see it of all.
    #[schema(value_type = Option<String>)]
    pub resource_org_id: Option<OrgId>,
    /// `done`, `denied` or `failed`.
    pub outcome: String,
    /// The request, as it stands in the host's log.
    pub request_id: Option<String>,
    /// Where the request came from.
    pub address: Option<String>,
    /// What else there is to know.
    #[schema(value_type = Object)]
    pub detail: Box<RawValue>,
    /// The hash of the entry before it; empty for the first.
    pub previous_hash: String,
    /// The HMAC over this entry and the hash before it, in hexadecimal.
    pub hash: String,
}

/// Which entries to list.
#[derive(Debug, Clone, Default)]
pub struct ListAudit {
    /// Of which org; the caller's own if none is named.
    pub org_id: Option<OrgId>,
    /// Only of this actor.
    pub actor: Option<String>,
    /// Only of this action.
    pub action: Option<String>,
    /// Only on this resource.
    pub resource: Option<String>,
    /// Only with this outcome.
    pub outcome: Option<AuditOutcome>,
    /// Only from this time on.
    pub since: Option<Timestamp>,
    /// Only before this time.
    pub until: Option<Timestamp>,
    /// Only those before this place.
    pub before: Option<u64>,
    /// How many at most.
    pub limit: u32,
}

/// Why the audit log is not shown.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Another org's, or none.
    #[error("there is no org with this id")]
    NoSuchOrg,
    /// The caller may not.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Not the caller's fault.
    #[error(transparent)]
    Internal(#[from] Internal),
}

impl From<ringfence_store::StoreError> for AuditError {
    fn from(error: ringfence_store::StoreError) -> Self {
        Self::Internal(error.into())
    }
}

impl Control {
    /// Writes down what a caller has done, and makes sure that it is still who it was: since it was permitted, it may have
    /// waited for others. The last statement before the commit: it makes the org's other writers wait.
    ///
    /// # Errors
    /// [`Denied::Gone`] if the caller's key or session has ended meanwhile: then nothing is to be committed.
    pub(crate) async fn audit(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        action: Action,
        resource: Resource<'_>,
        detail: Value,
    ) -> Result<(), Denied> {
        let head = audit::lock_head(tx, caller.org()).await.map_err(Internal::from)?;
        self.confirm(tx, caller).await?;
        let deed = Deed::of(caller, action, &resource, AuditOutcome::Done, detail);
        Ok(self.append(tx, &deed, head).await?)
    }

    /// As [`Self::audit`], for what may have ended the caller's own key or session. Whoever uses it asks
    /// [`Self::confirm`] before.
    pub(crate) async fn audit_end(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        action: Action,
        resource: Resource<'_>,
        detail: Value,
    ) -> Result<(), Internal> {
        self.record(tx, &Deed::of(caller, action, &resource, AuditOutcome::Done, detail)).await
    }

    /// Writes down what a caller was not let do, in a transaction of its own.
    pub(crate) async fn audit_denial(
        &self,
        caller: &Caller,
        action: Action,
        resource: &Resource<'_>,
        why: &Denied,
    ) {
        let detail = json!({ "why": why.to_string() });
        self.record_alone(&Deed::of(caller, action, resource, AuditOutcome::Denied, detail)).await;
    }

    /// Writes down what was done from the host's command line.
    pub(crate) async fn audit_command(
        &self,
        tx: &mut Tx,
        action: &str,
        resource: &str,
        detail: Value,
    ) -> Result<(), Internal> {
        let (platform, origin) = (OrgId::platform(), Origin::default());
        let deed = Deed {
            actor: COMMAND,
            credential: None,
            org: &platform,
            action,
            resource: resource.into(),
            resource_org: &platform,
            outcome: AuditOutcome::Done,
            origin: &origin,
            detail,
        };
        self.record(tx, &deed).await
    }

    /// Writes an entry in a transaction of its own. What was refused stays refused, even if that cannot be written down.
    pub(crate) async fn record_alone(&self, deed: &Deed<'_>) {
        let written = async {
            let mut tx = self.store.begin().await?;
            self.record(&mut tx, deed).await?;
            tx.commit().await.map_err(Internal::from)
        };
        if let Err(error) = written.await {
            tracing::error!(action = deed.action, %error, "an entry of the audit log could not be written");
        }
    }

    /// Writes an entry.
    pub(crate) async fn record(&self, tx: &mut Tx, deed: &Deed<'_>) -> Result<(), Internal> {
        let head = audit::lock_head(tx, deed.org).await?;
        self.append(tx, deed, head).await
    }

    async fn append(&self, tx: &mut Tx, deed: &Deed<'_>, head: audit::Head) -> Result<(), Internal> {
        let mut entry = Entry {
            org_id: deed.org.clone(),
            seq: head.seq.saturating_add(1),
            at: self.clock.now(),
            actor: deed.actor.to_owned(),
            credential: deed.credential.map(str::to_owned),
            action: deed.action.to_owned(),
            resource: deed.resource.to_string(),
            resource_org_id: deed.resource_org.clone(),
            outcome: deed.outcome.as_str().to_owned(),
            request_id: deed.origin.request_id.clone(),
            address: deed.origin.address.map(|address| address.to_string()),
            detail: deed.detail.to_string(),
            previous_hash: head.hash,
            hash: String::new(),
        };
        entry.hash = link(&self.access.audit_key, &entry);
        Ok(audit::append(tx, &entry).await?)
    }

    /// Entries of an org's audit log, newest first.
    ///
    /// # Errors
    /// [`AuditError::NoSuchOrg`] for another org's, unless the caller belongs to the operators.
    pub async fn audit_log(
        &self,
        caller: &Caller,
        list: &ListAudit,
    ) -> Result<Vec<AuditEntryView>, AuditError> {
        let org = list.org_id.as_ref().unwrap_or_else(|| caller.org());
        if !caller.reaches(org) {
            return Err(AuditError::NoSuchOrg);
        }
        self.permit(caller, Action::AuditRead, Resource::Org(org)).await?;
        let filter = AuditFilter {
            actor: list.actor.clone(),
            action: list.action.clone(),
            resource: list.resource.clone(),
            outcome: list.outcome.map(|outcome| outcome.as_str().to_owned()),
            since: list.since,
            until: list.until,
            before: list.before,
        };
        let mut reader = self.store.reader().await?;
        let entries = audit::list(&mut reader, org, &filter, list.limit).await?;
        Ok(entries.into_iter().map(|entry| view(caller, entry)).collect::<Result<_, _>>()?)
    }
}

fn view(caller: &Caller, entry: Entry) -> Result<AuditEntryView, Internal> {
    Ok(AuditEntryView {
        seq: entry.seq,
        at: entry.at,
        actor: entry.actor,
        credential: entry.credential,
        action: entry.action,
        resource: entry.resource,
        // Whose an agent or a job is, is nobody's business but the org's own.
        resource_org_id: Some(entry.resource_org_id).filter(|org| caller.reaches(org)),
        outcome: entry.outcome,
        request_id: entry.request_id,
        address: entry.address,
        detail: RawValue::from_string(entry.detail)?,
        previous_hash: entry.previous_hash,
        hash: entry.hash,
    })
}
