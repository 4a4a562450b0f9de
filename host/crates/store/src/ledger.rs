//! The ledger: accounts and transfers, in double entry.
//!
//! A transfer is inserted and never changed. The balances of its two accounts change in the same transaction, and a
//! constraint keeps every account but the outside world from falling below zero.

use ringfence_model::{AccountId, JobId, MicroUsdc, OrgId, Timestamp, TransferId};

use crate::session::{Row, args};
use crate::statements::statements;
use crate::{Page, Session, StoreError, Tx, count, words};

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
        /// A buyer pays into a job's escrow.
        Fund = "fund",
        /// A worker is paid from it.
        Payout = "payout",
        /// The platform's share of it.
        Fee = "fee",
        /// A buyer gets it back.
        Refund = "refund",
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

/// What became of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posted {
    /// It is booked.
    Posted,
    /// It was booked before: its idempotency id, or its external reference. Nothing was changed.
    AlreadyPosted,
    /// The paying account has too little; nothing was changed.
    InsufficientFunds,
}

/// An account whose balance is not the sum of its transfers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discrepancy {
    /// The account.
    pub account_id: AccountId,
    /// What is recorded.
    pub recorded: i64,
    /// What the transfers come to.
    pub computed: i64,
}

macro_rules! transfer_columns {
    () => {
        "id, org_id, kind, debit_account_id, credit_account_id, amount, job_id, idempotency_id, external_reference,
        created_at"
    };
}

statements! {
    GET_ACCOUNT = "SELECT id, org_id, kind, owner_id, balance FROM ledger_accounts WHERE kind = $1 AND owner_id = $2";
    AGENTS_OF_ORG = "SELECT CAST(COALESCE(SUM(l.balance), 0) AS BIGINT) AS balance FROM agents a
        JOIN ledger_accounts l ON l.kind = 'agent' AND l.owner_id = a.id WHERE a.org_id = $1";
    ENSURE_ACCOUNT = "INSERT INTO ledger_accounts (id, org_id, kind, owner_id, balance) VALUES ($1, $2, $3, $4, 0)
        ON CONFLICT (kind, owner_id) DO NOTHING";
    BOTH_ACCOUNTS = "SELECT id, org_id, kind, owner_id, balance FROM ledger_accounts WHERE id IN ($1, $2) ORDER BY id";
    IS_POSTED = "SELECT id FROM ledger_transfers WHERE idempotency_id = $1 OR external_reference = $2";
    INSERT = concat!("INSERT INTO ledger_transfers (", transfer_columns!(), ")
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING");
    MOVE = "UPDATE ledger_accounts SET balance = balance + CASE WHEN id = $1 THEN 0 - $3 ELSE $3 END
        WHERE id IN ($1, $2)";
    TRANSFERS_OF = concat!("SELECT ", transfer_columns!(), " FROM (
            SELECT * FROM (SELECT ", transfer_columns!(), " FROM ledger_transfers WHERE debit_account_id = $1
                ORDER BY created_at DESC, id DESC LIMIT $4) AS debits
            UNION ALL
            SELECT * FROM (SELECT ", transfer_columns!(), " FROM ledger_transfers WHERE credit_account_id = $1
                ORDER BY created_at DESC, id DESC LIMIT $4) AS credits
        ) AS transfers ORDER BY created_at DESC, id DESC LIMIT $2 OFFSET $3");
    COUNT_OF = "SELECT COUNT(*) AS n FROM ledger_transfers WHERE debit_account_id = $1 OR credit_account_id = $1";
    CHECK = "SELECT a.id, a.balance, CAST(
            COALESCE((SELECT SUM(t.amount) FROM ledger_transfers t WHERE t.credit_account_id = a.id), 0)
            - COALESCE((SELECT SUM(t.amount) FROM ledger_transfers t WHERE t.debit_account_id = a.id), 0)
        AS BIGINT) AS computed FROM ledger_accounts a ORDER BY a.id";
}

/// An account, if there is one of this kind for this owner.
///
/// # Errors
/// Those of the database.
pub async fn account(s: &mut Session, kind: AccountKind, owner: &str) -> Result<Option<Account>, StoreError> {
    s.optional(GET_ACCOUNT, args![kind.as_str(), owner], read_account).await
}

/// What the agents of an org have together, in micro-USDC.
///
/// # Errors
/// Those of the database.
pub async fn agents_of_org(s: &mut Session, org: &OrgId) -> Result<i64, StoreError> {
    s.one(AGENTS_OF_ORG, args![org], |row| row.int("balance")).await
}

/// The account of this kind for this owner; made, with nothing on it, if there is none.
///
/// # Errors
/// Those of the database.
pub async fn ensure_account(s: &mut Session, wanted: &Account) -> Result<Account, StoreError> {
    if let Some(found) = account(s, wanted.kind, &wanted.owner_id).await? {
        return Ok(found);
    }
    let args = args![&wanted.id, &wanted.org_id, wanted.kind.as_str(), &wanted.owner_id];
    s.execute(ENSURE_ACCOUNT, args).await?;
    s.one(GET_ACCOUNT, args![wanted.kind.as_str(), &wanted.owner_id], read_account).await
}

/// Books a transfer: its row and both balances, once.
///
/// The transfer that is not booked leaves nothing behind, so the transaction can go on.
///
/// # Errors
/// [`StoreError::Busy`] if another transaction holds one of the accounts for too long; [`StoreError::Refused`] if the
/// amount is nothing, or both accounts are one; [`StoreError::Corrupt`] if an account is missing or its balance would not
/// fit.
pub async fn post(tx: &mut Tx, transfer: &Transfer) -> Result<Posted, StoreError> {
    // Both are locked at once, in the order of their ids: two transfers between the same accounts then never wait for
    // each other, and what follows is decided by balances that nobody else changes.
    let accounts = tx.locking(BOTH_ACCOUNTS);
    let accounts = tx.all(accounts, args![&transfer.debit, &transfer.credit], read_account).await?;
    let find = |id: &AccountId| {
        let found = accounts.iter().find(|account| account.id == *id);
        found.ok_or_else(|| {
            StoreError::corrupt("ledger_accounts.id", format_args!("there is no account {id}"))
        })
    };
    let (debit, credit) = (find(&transfer.debit)?, find(&transfer.credit)?);
    let amount = transfer.amount.as_micros();
    if debit.kind != AccountKind::External && debit.balance_micros < amount {
        let posted = tx
            .optional(
                IS_POSTED,
                args![&transfer.idempotency_id, transfer.external_reference.as_ref()],
                |_| Ok(()),
            )
            .await?
            .is_some();
        return Ok(if posted { Posted::AlreadyPosted } else { Posted::InsufficientFunds });
    }
    let row = args![
        &transfer.id,
        &transfer.org_id,
        transfer.kind.as_str(),
        &transfer.debit,
        &transfer.credit,
        transfer.amount,
        transfer.job_id.as_ref(),
        &transfer.idempotency_id,
        transfer.external_reference.as_ref(),
        transfer.created_at,
    ];
    if tx.execute(INSERT, row).await? == 0 {
        return Ok(Posted::AlreadyPosted);
    }
    // SQLite would go on with a floating-point number. The caller's transaction ends with the error.
    if debit.balance_micros.checked_sub(amount).is_none()
        || credit.balance_micros.checked_add(amount).is_none()
    {
        return Err(StoreError::corrupt("ledger_accounts.balance", "it would not fit 64 bits"));
    }
    tx.execute(MOVE, args![&transfer.debit, &transfer.credit, transfer.amount]).await?;
    Ok(Posted::Posted)
}

/// An account's transfers, newest first.
///
/// # Errors
/// Those of the database.
pub async fn transfers_of(
    s: &mut Session,
    account: &AccountId,
    limit: u32,
    offset: u32,
) -> Result<Page<Transfer>, StoreError> {
    let total = count(s, COUNT_OF, args![account]).await?;
    // Each side is cut to what can be shown before the two are put together, so that each is read by its index.
    let shown = i64::from(limit) + i64::from(offset);
    Ok(Page { items: s.all(TRANSFERS_OF, args![account, limit, offset, shown], read_transfer).await?, total })
}

/// Adds up every account's transfers and compares; the accounts that are not what they should be.
///
/// # Errors
/// Those of the database.
pub async fn check(s: &mut Session) -> Result<Vec<Discrepancy>, StoreError> {
    let found = s
        .all(CHECK, args![], |row| {
            Ok(Discrepancy {
                account_id: row.parse("id")?,
                recorded: row.int("balance")?,
                computed: row.int("computed")?,
            })
        })
        .await?;
    Ok(found.into_iter().filter(|account| account.recorded != account.computed).collect())
}

fn read_account(row: &Row) -> Result<Account, StoreError> {
    Ok(Account {
        id: row.parse("id")?,
        org_id: row.parse("org_id")?,
        kind: row.parse("kind")?,
        owner_id: row.text("owner_id")?,
        balance_micros: row.int("balance")?,
    })
}

fn read_transfer(row: &Row) -> Result<Transfer, StoreError> {
    Ok(Transfer {
        id: row.parse("id")?,
        org_id: row.parse("org_id")?,
        kind: row.parse("kind")?,
        debit: row.parse("debit_account_id")?,
        credit: row.parse("credit_account_id")?,
        amount: row.money("amount")?,
        job_id: row.opt_parse("job_id")?,
        idempotency_id: row.text("idempotency_id")?,
        external_reference: row.opt_text("external_reference")?,
        created_at: row.time("created_at")?,
    })
}
