//! Reading transfers: the statement of an account, what happened about a job, what went in and out.

use ringfence_model::{AccountId, AgentId, JobId, Timestamp, TransferId};

use super::{Transfer, TransferKind, TransferPhase, read_transfer, transfer_columns};
use crate::session::{Row, args};
use crate::statements::statements;
use crate::{Session, StoreError};

/// Which transfers of an account.
#[derive(Debug, Clone)]
pub struct TransferFilter {
    /// Only these.
    pub kind: Option<TransferKind>,
    /// Only from this time on.
    pub since: Timestamp,
    /// Only those before this place in their order.
    pub before: (Timestamp, String),
    /// How many at most.
    pub limit: u32,
}

/// A deposit or a withdrawal, as operators book them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The transfer; of a withdrawal, the pending one.
    pub transfer: Transfer,
    /// Whose account it is about.
    pub agent_id: AgentId,
    /// How and when it ended, if it was pending and has ended.
    pub ended: Option<(TransferPhase, Timestamp)>,
}

/// Both sides of an account. Each is cut to what can be shown before the two are put together, so that each is read by its
/// index.
macro_rules! of_account {
    ($kind:literal) => {
        concat!(
            "SELECT ",
            transfer_columns!(),
            " FROM (
                SELECT * FROM (SELECT ",
            transfer_columns!(),
            " FROM ledger_transfers
                    WHERE debit_account_id = $1 AND (created_at, id) < ($2, $3) AND created_at >= $4",
            $kind,
            "
                    ORDER BY created_at DESC, id DESC LIMIT $5) AS debits
                UNION ALL
                SELECT * FROM (SELECT ",
            transfer_columns!(),
            " FROM ledger_transfers
                    WHERE credit_account_id = $1 AND (created_at, id) < ($2, $3) AND created_at >= $4",
            $kind,
            "
                    ORDER BY created_at DESC, id DESC LIMIT $5) AS credits
            ) AS transfers ORDER BY created_at DESC, id DESC LIMIT $5"
        )
    };
}

macro_rules! operations {
    ($condition:literal) => {
        concat!(
            "SELECT p.id, p.org_id, p.kind, p.phase, p.pending_id, p.debit_account_id, p.credit_account_id, p.amount,
                p.job_id, p.idempotency_id, p.external_reference, p.created_at, a.owner_id, e.phase AS end_phase,
                e.created_at AS ended_at
            FROM ledger_transfers p
            JOIN ledger_accounts a ON a.id IN (p.debit_account_id, p.credit_account_id) AND a.kind = 'agent'
            LEFT JOIN ledger_transfers e ON e.pending_id = p.id
            WHERE ", $condition
        )
    };
}

statements! {
    GET = concat!("SELECT ", transfer_columns!(), " FROM ledger_transfers WHERE id = $1");
    OF_ACCOUNT = of_account!("");
    OF_ACCOUNT_AND_KIND = of_account!(" AND kind = $6");
    OF_JOB = concat!("SELECT ", transfer_columns!(), " FROM ledger_transfers WHERE job_id = $1");
    OPERATION = operations!("p.id = $1 AND p.kind = $2 AND p.phase IN ('single', 'pending')");
    OPERATIONS = operations!("p.kind = $1 AND p.phase = $2 AND (p.created_at, p.id) < ($3, $4)
            ORDER BY p.created_at DESC, p.id DESC LIMIT $5");
}

/// A transfer.
///
/// # Errors
/// Those of the database.
pub async fn transfer(s: &mut Session, id: &TransferId) -> Result<Option<Transfer>, StoreError> {
    s.optional(GET, args![id], read_transfer).await
}

/// An account's transfers, newest first.
///
/// # Errors
/// Those of the database.
pub async fn of_account(
    s: &mut Session,
    account: &AccountId,
    filter: &TransferFilter,
) -> Result<Vec<Transfer>, StoreError> {
    let (created_at, id) = (filter.before.0, &filter.before.1);
    let mut args = args![account, created_at, id, filter.since, filter.limit];
    match filter.kind {
        None => s.all(OF_ACCOUNT, args, read_transfer).await,
        Some(kind) => {
            args.extend(args![kind.as_str()]);
            s.all(OF_ACCOUNT_AND_KIND, args, read_transfer).await
        }
    }
}

/// A job's transfers, newest first. They are few: of each kind one, or two in two phases.
///
/// # Errors
/// Those of the database.
pub async fn of_job(s: &mut Session, job: &JobId) -> Result<Vec<Transfer>, StoreError> {
    let mut found = s.all(OF_JOB, args![job], read_transfer).await?;
    found.sort_by(|one, other| (other.created_at, &other.id).cmp(&(one.created_at, &one.id)));
    Ok(found)
}

/// A deposit or a withdrawal.
///
/// # Errors
/// Those of the database.
pub async fn operation(
    s: &mut Session,
    kind: TransferKind,
    id: &TransferId,
) -> Result<Option<Operation>, StoreError> {
    s.optional(OPERATION, args![id, kind.as_str()], read_operation).await
}

/// Deposits (`single`) or withdrawals (`pending`), newest first, before a place in their order.
///
/// # Errors
/// Those of the database.
pub async fn operations(
    s: &mut Session,
    (kind, phase): (TransferKind, TransferPhase),
    before: (Timestamp, &str),
    limit: u32,
) -> Result<Vec<Operation>, StoreError> {
    let args = args![kind.as_str(), phase.as_str(), before.0, before.1, limit];
    s.all(OPERATIONS, args, read_operation).await
}

fn read_operation(row: &Row) -> Result<Operation, StoreError> {
    let phase: Option<TransferPhase> = row.opt_parse("end_phase")?;
    Ok(Operation {
        transfer: read_transfer(row)?,
        agent_id: row.parse("owner_id")?,
        ended: phase.zip(row.opt_time("ended_at")?),
    })
}
