//! Booking: every way in which money moves.

use std::collections::BTreeSet;
use std::slice::from_ref;

use ringfence_model::{AccountId, Timestamp, TransferId};
use sqlx::AssertSqlSafe;

use super::{
    Account, AccountKind, Transfer, TransferKind, TransferPhase, account_columns, read_account,
    transfer_columns,
};
use crate::session::{Row, args};
use crate::statements::{parameters, statements};
use crate::{StoreError, Tx};

/// How many transfers are booked together at most, and between how many accounts: what empties an escrow.
const TRANSFERS: usize = 3;
const ACCOUNTS: usize = 4;

/// What became of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posted {
    /// It is booked.
    Posted,
    /// It was booked before: its idempotency id, or its external reference. Nothing was changed.
    AlreadyPosted,
    /// The paying account has too little that is not reserved; nothing was changed.
    InsufficientFunds,
    /// One of the accounts is frozen; nothing was changed.
    Frozen,
}

/// What became of the end of a pending transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It is posted, or voided, as was asked.
    Ended,
    /// It had ended before, in this phase; nothing was changed.
    Already(TransferPhase),
    /// One of the accounts is frozen; nothing was changed.
    Frozen,
}

statements! {
    ACCOUNTS_OF = concat!("SELECT ", account_columns!(), " FROM ledger_accounts WHERE id IN ($1, $2, $3, $4) ORDER BY kind, id");
    IS_BOOKED = "SELECT id FROM ledger_transfers
        WHERE idempotency_id IN ($1, $3, $5) OR external_reference IN ($2, $4, $6)";
    END_OF = "SELECT phase FROM ledger_transfers WHERE pending_id = $1";
    CHANGE = "UPDATE ledger_accounts SET
        balance = balance + CASE id WHEN $1 THEN CAST($2 AS BIGINT) WHEN $4 THEN $5 WHEN $7 THEN $8 ELSE $11 END,
        reserved = reserved + CASE id WHEN $1 THEN CAST($3 AS BIGINT) WHEN $4 THEN $6 WHEN $7 THEN $9 ELSE $12 END
        WHERE id IN ($1, $4, $7, $10)";
}

const INSERT: &str = concat!("INSERT INTO ledger_transfers (", transfer_columns!(), ") VALUES ");

/// An account that is locked, as it will be, and what is to be added to it.
struct Locked {
    account: Account,
    balance: i64,
    reserved: i64,
}

/// Books a transfer at once: its row and both balances, once. Its `phase` and `pending_id` are not read.
///
/// The transfer that is not booked leaves nothing behind, so the transaction can go on.
///
/// # Errors
/// [`StoreError::Busy`] if another transaction holds one of the accounts for too long; [`StoreError::Refused`] if the
/// amount is nothing, or both accounts are one; [`StoreError::Corrupt`] if an account is missing or its balance would not
/// fit.
pub async fn post(tx: &mut Tx, transfer: &Transfer) -> Result<Posted, StoreError> {
    post_all(tx, from_ref(transfer)).await
}

/// As [`post`], of one to three transfers between four accounts at most: all of them or none.
///
/// # Errors
/// As [`post`]; [`StoreError::Corrupt`] also if money of some of these kinds, and not of all, was moved for the job before.
pub async fn post_all(tx: &mut Tx, transfers: &[Transfer]) -> Result<Posted, StoreError> {
    book(tx, transfers, TransferPhase::Single).await
}

/// The first of two phases: reserves the amount on the paying account, once. Its `phase` and `pending_id` are not read.
///
/// # Errors
/// As [`post`].
pub async fn reserve(tx: &mut Tx, transfer: &Transfer) -> Result<Posted, StoreError> {
    book(tx, from_ref(transfer), TransferPhase::Pending).await
}

async fn book(tx: &mut Tx, transfers: &[Transfer], phase: TransferPhase) -> Result<Posted, StoreError> {
    let mut accounts = lock(tx, transfers).await?;
    let mut named = Vec::with_capacity(2 * TRANSFERS);
    for transfer in transfers.iter().cycle().take(TRANSFERS) {
        named.extend(args![&transfer.idempotency_id, transfer.external_reference.as_ref()]);
    }
    // Before they are inserted, and not by their conflict alone: on SQLite a trigger takes a conflict for a replacement.
    if tx.optional(IS_BOOKED, named, |_| Ok(())).await?.is_some() {
        return Ok(Posted::AlreadyPosted);
    }
    for transfer in transfers {
        let (debit, credit) = (find(&accounts, &transfer.debit)?, find(&accounts, &transfer.credit)?);
        if is_frozen(transfer.kind, phase, debit, credit) {
            return Ok(Posted::Frozen);
        }
        if debit.kind != AccountKind::External && debit.available_micros() < transfer.amount.as_micros() {
            return Ok(Posted::InsufficientFunds);
        }
        add(&mut accounts, transfer, phase)?;
    }
    match insert(tx, transfers, phase, None).await? {
        0 => return Ok(Posted::AlreadyPosted),
        inserted if inserted == transfers.len() as u64 => {}
        _ => return Err(moved_before()),
    }
    change(tx, &accounts).await?;
    Ok(Posted::Posted)
}

/// The second of two phases: moves what `pending` has reserved, in a transfer of its own with this id, once.
///
/// # Errors
/// As [`post`]; [`StoreError::Corrupt`] if `pending` is not pending, or if money of its kind was moved for its job.
pub async fn post_pending(
    tx: &mut Tx,
    pending: &Transfer,
    id: TransferId,
    now: Timestamp,
) -> Result<Ended, StoreError> {
    end(tx, pending, TransferPhase::Posted, id, now).await
}

/// The other second phase: gives free what `pending` has reserved, once.
///
/// # Errors
/// As [`post_pending`].
pub async fn void_pending(
    tx: &mut Tx,
    pending: &Transfer,
    id: TransferId,
    now: Timestamp,
) -> Result<Ended, StoreError> {
    end(tx, pending, TransferPhase::Voided, id, now).await
}

async fn end(
    tx: &mut Tx,
    pending: &Transfer,
    phase: TransferPhase,
    id: TransferId,
    now: Timestamp,
) -> Result<Ended, StoreError> {
    if pending.phase != TransferPhase::Pending {
        return Err(StoreError::corrupt(
            "ledger_transfers.phase",
            "only a pending transfer is posted or voided",
        ));
    }
    // Whoever ends it locks the same accounts, so what is found afterwards stays as it is.
    let mut accounts = lock(tx, from_ref(pending)).await?;
    let before = tx.optional(END_OF, args![&pending.id], |row| row.parse("phase")).await?;
    if let Some(before) = before {
        return Ok(Ended::Already(before));
    }
    let (debit, credit) = (find(&accounts, &pending.debit)?, find(&accounts, &pending.credit)?);
    if is_frozen(pending.kind, phase, debit, credit) {
        return Ok(Ended::Frozen);
    }
    add(&mut accounts, pending, phase)?;
    let ending = Transfer {
        id,
        idempotency_id: format!("end:{}", pending.id),
        external_reference: None,
        created_at: now,
        ..pending.clone()
    };
    if insert(tx, from_ref(&ending), phase, Some(&pending.id)).await? == 0 {
        return Err(moved_before());
    }
    change(tx, &accounts).await?;
    Ok(Ended::Ended)
}

/// Locks the accounts of transfers: those that pay and those that get.
///
/// All at once, agents' before escrows and those before the platform's, for which most others wait, and of a kind in the
/// order of their ids: two transactions between the same accounts then never wait for each other, and what follows is
/// decided by balances that nobody else changes.
async fn lock(tx: &mut Tx, transfers: &[Transfer]) -> Result<Vec<Locked>, StoreError> {
    let ids = transfers.iter().flat_map(|transfer| [&transfer.debit, &transfer.credit]);
    let ids: BTreeSet<_> = ids.collect();
    if transfers.len() > TRANSFERS || ids.len() > ACCOUNTS {
        return Err(StoreError::corrupt("ledger_accounts.id", "these are too many for one booking"));
    }
    let ids = ids.iter().cycle().take(ACCOUNTS).map(|&id| id.into()).collect();
    let accounts = tx.locking(ACCOUNTS_OF);
    let read = |row: &Row| Ok(Locked { account: read_account(row)?, balance: 0, reserved: 0 });
    tx.all(accounts, ids, read).await
}

fn find<'a>(accounts: &'a [Locked], id: &AccountId) -> Result<&'a Account, StoreError> {
    let found = accounts.iter().map(|locked| &locked.account).find(|account| account.id == *id);
    found.ok_or_else(|| StoreError::corrupt("ledger_accounts.id", format_args!("there is no account {id}")))
}

/// Adds to the accounts of a transfer what it does in this phase.
fn add(accounts: &mut [Locked], transfer: &Transfer, phase: TransferPhase) -> Result<(), StoreError> {
    let amount = transfer.amount.as_micros();
    let (paid, reserved) = match phase {
        TransferPhase::Single => (amount, 0),
        TransferPhase::Pending => (0, amount),
        TransferPhase::Posted => (amount, -amount),
        TransferPhase::Voided => (0, -amount),
    };
    for locked in accounts {
        if locked.account.id == transfer.debit {
            locked.add(-paid, reserved)?;
        }
        if locked.account.id == transfer.credit {
            locked.add(paid, 0)?;
        }
    }
    Ok(())
}

impl Locked {
    /// SQLite would go on with a floating-point number. The caller's transaction ends with the error.
    fn add(&mut self, balance: i64, reserved: i64) -> Result<(), StoreError> {
        for (sum, more) in [
            (&mut self.account.balance_micros, balance),
            (&mut self.account.reserved_micros, reserved),
            (&mut self.balance, balance),
            (&mut self.reserved, reserved),
        ] {
            *sum = sum
                .checked_add(more)
                .ok_or_else(|| StoreError::corrupt("ledger_accounts.balance", "it would not fit 64 bits"))?;
        }
        Ok(())
    }
}

/// Writes what is to be added to accounts.
async fn change(tx: &mut Tx, accounts: &[Locked]) -> Result<(), StoreError> {
    let mut changes = Vec::with_capacity(3 * ACCOUNTS);
    let changed = accounts.iter().filter(|locked| (locked.balance, locked.reserved) != (0, 0));
    for locked in changed.clone().cycle().take(ACCOUNTS) {
        changes.extend(args![&locked.account.id, locked.balance, locked.reserved]);
    }
    if tx.execute(CHANGE, changes).await? != changed.count() as u64 {
        return Err(StoreError::corrupt("ledger_accounts.id", "a locked account is not there"));
    }
    Ok(())
}

/// Whether a frozen account stands in the way: nothing that its agent could ask for leaves it, and no payout is moved to
/// it. What comes back to a buyer does come back.
fn is_frozen(kind: TransferKind, phase: TransferPhase, debit: &Account, credit: &Account) -> bool {
    match (kind, phase) {
        (_, TransferPhase::Voided) => false,
        (TransferKind::Fund | TransferKind::Withdrawal, _) => debit.frozen.is_some(),
        (TransferKind::Payout, TransferPhase::Single | TransferPhase::Posted) => credit.frozen.is_some(),
        _ => false,
    }
}

/// Inserts transfers; how many of them were none before.
async fn insert(
    tx: &mut Tx,
    transfers: &[Transfer],
    phase: TransferPhase,
    pending: Option<&TransferId>,
) -> Result<u64, StoreError> {
    let mut rows = Vec::new();
    for transfer in transfers {
        rows.extend(args![
            &transfer.id,
            &transfer.org_id,
            transfer.kind.as_str(),
            phase.as_str(),
            pending,
            &transfer.debit,
            &transfer.credit,
            transfer.amount,
            transfer.job_id.as_ref(),
            &transfer.idempotency_id,
            transfer.external_reference.as_ref(),
            transfer.created_at,
        ]);
    }
    let sql = format!("{INSERT}{} ON CONFLICT DO NOTHING", parameters(transfers.len(), 12));
    tx.execute(AssertSqlSafe(sql), rows).await
}

fn moved_before() -> StoreError {
    StoreError::corrupt("ledger_transfers.kind", "money of this kind was moved for the job before")
}
