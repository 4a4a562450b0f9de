//! Booking: every way in which money moves.

use ringfence_model::{AccountId, Timestamp, TransferId};

use super::{
    Account, AccountKind, Transfer, TransferKind, TransferPhase, account_columns, read_account,
    transfer_columns,
};
use crate::session::args;
use crate::statements::statements;
use crate::{StoreError, Tx};

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
    BOTH_ACCOUNTS = concat!("SELECT ", account_columns!(), " FROM ledger_accounts WHERE id IN ($1, $2) ORDER BY id");
    IS_BOOKED = "SELECT id FROM ledger_transfers WHERE idempotency_id = $1 OR external_reference = $2";
    END_OF = "SELECT phase FROM ledger_transfers WHERE pending_id = $1";
    INSERT = concat!("INSERT INTO ledger_transfers (", transfer_columns!(), ")
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING");
    MOVE = "UPDATE ledger_accounts SET balance = balance + CASE WHEN id = $1 THEN 0 - $3 ELSE $3 END,
        reserved = reserved - CASE WHEN id = $1 THEN $4 ELSE 0 END WHERE id IN ($1, $2)";
    RESERVE = "UPDATE ledger_accounts SET reserved = reserved + $2 WHERE id = $1";
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
    book(tx, transfer, TransferPhase::Single).await
}

/// The first of two phases: reserves the amount on the paying account, once. Its `phase` and `pending_id` are not read.
///
/// # Errors
/// As [`post`].
pub async fn reserve(tx: &mut Tx, transfer: &Transfer) -> Result<Posted, StoreError> {
    book(tx, transfer, TransferPhase::Pending).await
}

async fn book(tx: &mut Tx, transfer: &Transfer, phase: TransferPhase) -> Result<Posted, StoreError> {
    let (debit, credit) = lock_both(tx, transfer).await?;
    let named = args![&transfer.idempotency_id, transfer.external_reference.as_ref()];
    // Before it is inserted, and not by its conflict alone: on SQLite a trigger takes a conflict for a replacement.
    if tx.optional(IS_BOOKED, named, |_| Ok(())).await?.is_some() {
        return Ok(Posted::AlreadyPosted);
    }
    if is_frozen(transfer.kind, phase, &debit, &credit) {
        return Ok(Posted::Frozen);
    }
    let amount = transfer.amount.as_micros();
    if debit.kind != AccountKind::External && debit.available_micros() < amount {
        return Ok(Posted::InsufficientFunds);
    }
    if !insert(tx, transfer, phase, None).await? {
        return Ok(Posted::AlreadyPosted);
    }
    if phase == TransferPhase::Pending {
        tx.execute(RESERVE, args![&transfer.debit, amount]).await?;
    } else {
        fits(&debit, &credit, amount)?;
        tx.execute(MOVE, args![&transfer.debit, &transfer.credit, amount, 0i64]).await?;
    }
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
    let (debit, credit) = lock_both(tx, pending).await?;
    let before = tx.optional(END_OF, args![&pending.id], |row| row.parse("phase")).await?;
    if let Some(before) = before {
        return Ok(Ended::Already(before));
    }
    if is_frozen(pending.kind, phase, &debit, &credit) {
        return Ok(Ended::Frozen);
    }
    let ending = Transfer {
        id,
        idempotency_id: format!("end:{}", pending.id),
        external_reference: None,
        created_at: now,
        ..pending.clone()
    };
    if !insert(tx, &ending, phase, Some(&pending.id)).await? {
        return Err(StoreError::corrupt(
            "ledger_transfers.kind",
            "money of this kind was moved for the job before",
        ));
    }
    let amount = pending.amount.as_micros();
    if phase == TransferPhase::Voided {
        tx.execute(RESERVE, args![&pending.debit, 0i64.saturating_sub(amount)]).await?;
    } else {
        fits(&debit, &credit, amount)?;
        tx.execute(MOVE, args![&pending.debit, &pending.credit, amount, amount]).await?;
    }
    Ok(Ended::Ended)
}

/// Locks the accounts of a transfer: the one that pays and the one that gets.
///
/// Both at once, in the order of their ids: two transfers between the same accounts then never wait for each other, and
/// what follows is decided by balances that nobody else changes.
async fn lock_both(tx: &mut Tx, transfer: &Transfer) -> Result<(Account, Account), StoreError> {
    let accounts = tx.locking(BOTH_ACCOUNTS);
    let accounts = tx.all(accounts, args![&transfer.debit, &transfer.credit], read_account).await?;
    let find = |id: &AccountId| {
        let found = accounts.iter().find(|account| account.id == *id);
        found.cloned().ok_or_else(|| {
            StoreError::corrupt("ledger_accounts.id", format_args!("there is no account {id}"))
        })
    };
    Ok((find(&transfer.debit)?, find(&transfer.credit)?))
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

/// SQLite would go on with a floating-point number. The caller's transaction ends with the error.
fn fits(debit: &Account, credit: &Account, amount: i64) -> Result<(), StoreError> {
    let fits = debit.balance_micros.checked_sub(amount).is_some()
        && credit.balance_micros.checked_add(amount).is_some();
    if fits {
        Ok(())
    } else {
        Err(StoreError::corrupt("ledger_accounts.balance", "it would not fit 64 bits"))
    }
}

async fn insert(
    tx: &mut Tx,
    transfer: &Transfer,
    phase: TransferPhase,
    pending: Option<&TransferId>,
) -> Result<bool, StoreError> {
    let row = args![
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
    ];
    Ok(tx.execute(INSERT, row).await? > 0)
}
