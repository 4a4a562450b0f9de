//! The statement of an account: its transfers, newest first.

use ringfence_model::{AgentId, JobId, MicroUsdc, Timestamp, TransferId};
use ringfence_store::ledger::{
    self, Account, AccountKind, Transfer, TransferFilter, TransferKind, TransferPhase,
};
use ringfence_store::{Session, accounts};
use serde::Serialize;
use utoipa::ToSchema;

use super::{LedgerError, bad_token, cut, newest};
use crate::error::Checks;
use crate::policy::{Action, Resource};
use crate::{Caller, Control};

/// Which transfers to list.
#[derive(Debug, Clone)]
pub struct ListTransfers {
    /// Of which agent; the caller, if it is one, where none is named.
    pub agent_id: Option<AgentId>,
    /// Only these.
    pub kind: Option<TransferKind>,
    /// Only this job's.
    pub job_id: Option<JobId>,
    /// Only from this time on.
    pub since: Option<Timestamp>,
    /// Only before this time.
    pub until: Option<Timestamp>,
    /// How many at most.
    pub limit: u32,
    /// What the page before gave.
    pub page_token: Option<String>,
}

/// A transfer, as one of its two accounts sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct TransferView {
    /// The transfer.
    #[schema(value_type = String)]
    pub transfer_id: TransferId,
    /// `deposit`, `withdrawal`, `fund`, `payout`, `fee`, `refund` or `excess`.
    #[schema(value_type = String, example = "payout")]
    pub kind: TransferKind,
    /// `single`: it moved the amount. `pending`: it reserved it. `posted`, `voided`: it ended a pending one, by moving the
    /// amount or by giving it free.
    #[schema(value_type = String, example = "single")]
    pub phase: TransferPhase,
    /// The pending transfer that it ended.
    #[schema(value_type = Option<String>)]
    pub pending_id: Option<TransferId>,
    /// `in`: the amount comes to the account. `out`: it goes from it.
    #[schema(value_type = String, example = "in")]
    pub direction: &'static str,
    /// How much.
    #[schema(value_type = String, example = "20.000000")]
    pub amount: MicroUsdc,
    /// The job that it belongs to.
    #[schema(value_type = Option<String>)]
    pub task_id: Option<JobId>,
    /// What names it outside.
    pub external_reference: Option<String>,
    /// When it was booked.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// A part of a statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct StatementPage {
    /// Whose account it is.
    #[schema(value_type = String)]
    pub agent_id: AgentId,
    /// The transfers, newest first.
    pub transfers: Vec<TransferView>,
    /// Gets the next page; absent behind the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

impl Control {
    /// The transfers of an agent's account.
    ///
    /// # Errors
    /// [`LedgerError::AgentNotFound`] for another org's agent, unless the caller belongs to the operators.
    pub async fn statement(
        &self,
        caller: &Caller,
        list: &ListTransfers,
    ) -> Result<StatementPage, LedgerError> {
        let named = list.agent_id.as_ref().or_else(|| caller.agent());
        let mut checks = Checks::default();
        checks.require(named.is_some(), "agent_id", "must name the agent whose account is asked for");
        checks.done()?;
        let id = named.ok_or(LedgerError::AgentNotFound)?;
        let mut reader = self.store.reader().await?;
        let agent = accounts::agent(&mut reader, id).await?.ok_or(LedgerError::AgentNotFound)?;
        drop(reader);
        if !caller.reaches(&agent.org_id) {
            return Err(LedgerError::AgentNotFound);
        }
        let own = agent.org_id == *caller.org();
        let action = if own { Action::LedgerTransfers } else { Action::LedgerRead };
        self.permit(caller, action, Resource::Agent(&agent.org_id, id)).await?;

        let mut reader = self.store.reader().await?;
        let mut page = StatementPage { agent_id: id.clone(), transfers: Vec::new(), next_page_token: None };
        let Some(account) = ledger::account(&mut reader, AccountKind::Agent, id.as_str()).await? else {
            return if list.page_token.is_none() { Ok(page) } else { Err(bad_token()) };
        };
        let mut found = found(&mut reader, &account, list).await?;
        page.next_page_token = cut(&mut found, list.limit, |last| last.id.to_string());
        page.transfers = found.into_iter().map(|transfer| view(&account, transfer)).collect();
        Ok(page)
    }
}

/// What the filters let through, one more than is shown.
async fn found(
    reader: &mut Session,
    account: &Account,
    list: &ListTransfers,
) -> Result<Vec<Transfer>, LedgerError> {
    let mut before = list.until.map_or_else(newest, |until| (until, String::new()));
    if let Some(token) = &list.page_token {
        let id: TransferId = token.parse().map_err(|_| bad_token())?;
        let last = ledger::transfer(reader, &id).await?.ok_or_else(bad_token)?;
        if !concerns(account, &last) {
            return Err(bad_token());
        }
        before = before.min((last.created_at, id.to_string()));
    }
    let filter = TransferFilter {
        kind: list.kind,
        since: list.since.unwrap_or(Timestamp::from_micros(i64::MIN)),
        before,
        limit: list.limit.saturating_add(1),
    };
    let Some(job) = &list.job_id else { return Ok(ledger::of_account(reader, &account.id, &filter).await?) };
    // A job has few transfers.
    let mut found = ledger::of_job(reader, job).await?;
    found.retain(|transfer| {
        let place = (transfer.created_at, transfer.id.to_string());
        concerns(account, transfer)
            && filter.kind.is_none_or(|kind| transfer.kind == kind)
            && transfer.created_at >= filter.since
            && place < filter.before
    });
    Ok(found)
}

fn concerns(account: &Account, transfer: &Transfer) -> bool {
    transfer.debit == account.id || transfer.credit == account.id
}

fn view(account: &Account, transfer: Transfer) -> TransferView {
    TransferView {
        direction: if transfer.credit == account.id { "in" } else { "out" },
        transfer_id: transfer.id,
        kind: transfer.kind,
        phase: transfer.phase,
        pending_id: transfer.pending_id,
        amount: transfer.amount,
        task_id: transfer.job_id,
        external_reference: transfer.external_reference,
        created_at: transfer.created_at,
    }
}
