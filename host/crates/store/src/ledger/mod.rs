//! The ledger: accounts and transfers, in double entry.
//!
//! A transfer is inserted and never changed. The balances of its two accounts change in the same transaction, and a
//! constraint keeps every account but the outside world from falling below zero. A transfer may come in two phases: a
//! pending one reserves the amount on the paying account, and another one posts or voids it, once.

mod booking;
mod check;
mod listing;
mod reported;

use ringfence_model::{AccountId, JobId, MicroUsdc, OrgId, Timestamp, TransferId};

use crate::session::{Row, args};
use crate::statements::statements;
use crate::{Session, StoreError, words};

pub use booking::{Ended, Posted, post, post_all, post_pending, reserve, void_pending};
pub use check::{Checked, Discrepancy, check, inspect};
pub use listing::{Operation, TransferFilter, of_account, of_job, operation, operations, transfer};
pub use reported::{Reported, report, reported};

/// The statements of all parts of the ledger.
pub(crate) fn all_statements() -> Vec<(&'static str, &'static str)> {
    [STATEMENTS, booking::STATEMENTS, check::STATEMENTS, listing::STATEMENTS, reported::STATEMENTS].concat()
}

words! {
    /// What an account is for.
    AccountKind ("account kind") {
        /// The world outside: where deposits come from. The only one below zero.
        External = "external",
        /// What an agent can spend.
        Agent = "agent",
        /// What is held for a job.
        Escrow = "escrow",
        /// What the platform has earned.
        Fees = "fees",
    }
}

words! {
    /// What a transfer is for.
    TransferKind ("transfer kind") {
        /// Money comes in from outside.
        Deposit = "deposit",
        /// Money goes out.
        Withdrawal = "withdrawal",
        /// A buyer pays into a job's escrow.
        Fund = "fund",
        /// A worker is paid from it.
        Payout = "payout",
        /// The platform's share of it.
        Fee = "fee",
        /// A buyer gets it back.
        Refund = "refund",
        /// A buyer gets back what was paid in above the price.
        Excess = "excess",
    }
}

words! {
    /// What a transfer does. It does so when it is inserted, and never again.
    TransferPhase ("transfer phase") {
        /// Moves the amount.
        Single = "single",
        /// Reserves the amount on the paying account.
        Pending = "pending",
        /// Ends a pending one: moves what that reserved.
        Posted = "posted",
        /// Ends a pending one: gives free what that reserved.
        Voided = "voided",
    }
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its id.
    pub id: AccountId,
    /// Whose it is.
    pub org_id: OrgId,
    /// What it is for.
    pub kind: AccountKind,
    /// The agent, the job or the org that it is about.
    pub owner_id: String,
    /// What came in less what went out, in micro-USDC.
    pub balance_micros: i64,
    /// What of it pending transfers will take.
    pub reserved_micros: i64,
    /// Set while it is frozen.
    pub frozen: Option<Frozen>,
}

/// That an account is frozen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// Since when.
    pub since: Timestamp,
    /// What the operator gave as the reason.
    pub reason: String,
}

impl Account {
    /// A new account, with nothing on it.
    #[must_use]
    pub fn empty(id: AccountId, org_id: OrgId, kind: AccountKind, owner_id: String) -> Self {
        Self { id, org_id, kind, owner_id, balance_micros: 0, reserved_micros: 0, frozen: None }
    }

    /// What can be spent: the balance without what is reserved, in micro-USDC.
    #[must_use]
    pub const fn available_micros(&self) -> i64 {
        self.balance_micros.saturating_sub(self.reserved_micros)
    }
}

/// A movement of money.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Its id.
    pub id: TransferId,
    /// The org that it concerns.
    pub org_id: OrgId,
    /// What it is for.
    pub kind: TransferKind,
    /// What it does.
    pub phase: TransferPhase,
    /// The pending transfer that it ends.
    pub pending_id: Option<TransferId>,
    /// Where the money comes from.
    pub debit: AccountId,
    /// Where it goes.
    pub credit: AccountId,
    /// How much; more than zero.
    pub amount: MicroUsdc,
    /// The job that it belongs to.
    pub job_id: Option<JobId>,
    /// What makes it one of a kind.
    pub idempotency_id: String,
    /// What names it outside.
    pub external_reference: Option<String>,
    /// When it was booked.
    pub created_at: Timestamp,
}

/// What the accounts of one kind hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sums {
    /// The kind.
    pub kind: AccountKind,
    /// The sum of their balances, in micro-USDC.
    pub balance_micros: i64,
    /// The sum of what is reserved on them.
    pub reserved_micros: i64,
}

macro_rules! account_columns {
    () => {
        "id, org_id, kind, owner_id, balance, reserved, frozen_at, frozen_reason"
    };
}
pub(crate) use account_columns;

macro_rules! transfer_columns {
    () => {
        "id, org_id, kind, phase, pending_id, debit_account_id, credit_account_id, amount, job_id, idempotency_id,
        external_reference, created_at"
    };
}
pub(crate) use transfer_columns;

statements! {
    GET_ACCOUNT = concat!("SELECT ", account_columns!(), " FROM ledger_accounts WHERE kind = $1 AND owner_id = $2");
    AGENTS_OF_ORG = "SELECT CAST(COALESCE(SUM(l.balance), 0) AS BIGINT) AS balance,
        CAST(COALESCE(SUM(l.reserved), 0) AS BIGINT) AS reserved FROM agents a
        JOIN ledger_accounts l ON l.kind = 'agent' AND l.owner_id = a.id WHERE a.org_id = $1";
    SUMS = "SELECT kind, CAST(SUM(balance) AS BIGINT) AS balance, CAST(SUM(reserved) AS BIGINT) AS reserved
        FROM ledger_accounts GROUP BY kind";
    RESERVED_BY_AGENTS = "SELECT CAST(COALESCE(SUM(reserved), 0) AS BIGINT) AS reserved FROM ledger_accounts
        WHERE kind = 'agent' AND reserved > 0";
    GET_ACCOUNTS = concat!("SELECT ", account_columns!(), " FROM ledger_accounts WHERE (kind = $1 AND owner_id = $2)
        OR (kind = $3 AND owner_id = $4) OR (kind = $5 AND owner_id = $6) OR (kind = $7 AND owner_id = $8)");
    MAKE_ACCOUNT = concat!("INSERT INTO ledger_accounts (id, org_id, kind, owner_id, balance) VALUES ($1, $2, $3, $4, 0)
        ON CONFLICT (kind, owner_id) DO NOTHING RETURNING ", account_columns!());
    FREEZE = "UPDATE ledger_accounts SET frozen_at = $2, frozen_reason = $3 WHERE id = $1 AND kind = 'agent'";
}

/// An account, if there is one of this kind for this owner.
///
/// # Errors
/// Those of the database.
pub async fn account(s: &mut Session, kind: AccountKind, owner: &str) -> Result<Option<Account>, StoreError> {
    s.optional(GET_ACCOUNT, args![kind.as_str(), owner], read_account).await
}

/// What the agents of an org have together, and what of it is reserved, in micro-USDC.
///
/// # Errors
/// Those of the database.
pub async fn agents_of_org(s: &mut Session, org: &OrgId) -> Result<(i64, i64), StoreError> {
    s.one(AGENTS_OF_ORG, args![org], |row| Ok((row.int("balance")?, row.int("reserved")?))).await
}

/// What the accounts of each kind hold together: of the kinds of which there are any.
///
/// # Errors
/// Those of the database.
pub async fn sums(s: &mut Session) -> Result<Vec<Sums>, StoreError> {
    s.all(SUMS, args![], |row| {
        Ok(Sums {
            kind: row.parse("kind")?,
            balance_micros: row.int("balance")?,
            reserved_micros: row.int("reserved")?,
        })
    })
    .await
}

/// What agents' accounts have reserved together, in micro-USDC. Looks at those alone that have.
///
/// # Errors
/// Those of the database.
pub async fn reserved_by_agents(s: &mut Session) -> Result<i64, StoreError> {
    s.one(RESERVED_BY_AGENTS, args![], |row| row.int("reserved")).await
}

/// The accounts of these kinds for these owners, one to four; each is made, with nothing on it, if there is none.
///
/// # Errors
/// Those of the database.
pub async fn ensure_accounts<const N: usize>(
    s: &mut Session,
    mut accounts: [Account; N],
) -> Result<[Account; N], StoreError> {
    const { assert!(N > 0 && N <= 4, "the statement asks for four") }
    let mut args = Vec::with_capacity(8);
    for wanted in accounts.iter().cycle().take(4) {
        args.extend(args![wanted.kind.as_str(), &wanted.owner_id]);
    }
    let found = s.all(GET_ACCOUNTS, args, read_account).await?;
    for account in &mut accounts {
        let same = |one: &&Account| one.kind == account.kind && one.owner_id == account.owner_id;
        *account = match found.iter().find(same) {
            Some(found) => found.clone(),
            None => make_account(s, account).await?,
        };
    }
    Ok(accounts)
}

async fn make_account(s: &mut Session, wanted: &Account) -> Result<Account, StoreError> {
    let args = args![&wanted.id, &wanted.org_id, wanted.kind.as_str(), &wanted.owner_id];
    match s.optional(MAKE_ACCOUNT, args, read_account).await? {
        Some(made) => Ok(made),
        // Another transaction has made it meanwhile.
        None => s.one(GET_ACCOUNT, args![wanted.kind.as_str(), &wanted.owner_id], read_account).await,
    }
}

/// Freezes an agent's account, or, with `None`, lets it go again. Transfers that are booked afterwards see it.
///
/// # Errors
/// [`StoreError::Busy`] if another transaction holds the account for too long.
pub async fn freeze(s: &mut Session, account: &AccountId, frozen: Option<&Frozen>) -> Result<(), StoreError> {
    let since = frozen.map(|frozen| frozen.since);
    let reason = frozen.map(|frozen| frozen.reason.as_str());
    s.execute(FREEZE, args![account, since, reason]).await?;
    Ok(())
}

fn read_account(row: &Row) -> Result<Account, StoreError> {
    let reason = row.opt_text("frozen_reason")?.unwrap_or_default();
    Ok(Account {
        id: row.parse("id")?,
        org_id: row.parse("org_id")?,
        kind: row.parse("kind")?,
        owner_id: row.text("owner_id")?,
        balance_micros: row.int("balance")?,
        reserved_micros: row.int("reserved")?,
        frozen: row.opt_time("frozen_at")?.map(|since| Frozen { since, reason }),
    })
}

fn read_transfer(row: &Row) -> Result<Transfer, StoreError> {
    Ok(Transfer {
        id: row.parse("id")?,
        org_id: row.parse("org_id")?,
        kind: row.parse("kind")?,
        phase: row.parse("phase")?,
        pending_id: row.opt_parse("pending_id")?,
        debit: row.parse("debit_account_id")?,
        credit: row.parse("credit_account_id")?,
        amount: row.money("amount")?,
        job_id: row.opt_parse("job_id")?,
        idempotency_id: row.text("idempotency_id")?,
        external_reference: row.opt_text("external_reference")?,
        created_at: row.time("created_at")?,
    })
}
