//! The ledger recomputed from its transfers, and held against what is recorded.

use ringfence_model::{AccountId, JobId, TransferId};

use super::TransferKind;
use crate::session::args;
use crate::statements::statements;
use crate::{Session, StoreError, count};

/// Something that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Discrepancy {
    /// A balance is not what came in less what went out.
    #[error("{account_id}: the balance is {recorded}, its transfers come to {computed}")]
    Balance {
        /// The account.
        account_id: AccountId,
        /// What is recorded, in micro-USDC.
        recorded: i64,
        /// What the transfers come to.
        computed: i64,
    },
    /// What is reserved is not the sum of the pending transfers that have not ended.
    #[error("{account_id}: {recorded} is reserved, its pending transfers come to {computed}")]
    Reserved {
        /// The account.
        account_id: AccountId,
        /// What is recorded, in micro-USDC.
        recorded: i64,
        /// What the pending transfers come to.
        computed: i64,
    },
    /// All balances together are not zero: debits and credits are not equal.
    #[error("all balances together are {sum}, not 0")]
    Sum {
        /// What they are, in micro-USDC.
        sum: i64,
    },
    /// A job's escrow does not hold what it must: a funded job's its deposit without the excess that was given back, an
    /// ended job's nothing, or, while its payout has failed, its price.
    #[error("{job_id}: the escrow holds {held} ({reserved} reserved), it must hold {expected}")]
    Escrow {
        /// The job.
        job_id: JobId,
        /// What is recorded, in micro-USDC.
        held: i64,
        /// What of it is reserved.
        reserved: i64,
        /// What must be there.
        expected: i64,
    },
    /// Of one kind, money was moved more than once for a job.
    #[error("{job_id}: {times} transfers of the kind `{kind}` moved money")]
    Repeated {
        /// The job.
        job_id: JobId,
        /// The kind.
        kind: TransferKind,
        /// How often.
        times: u64,
    },
    /// A transfer does not end what it says it ends.
    #[error("{transfer_id}: it does not fit the pending transfer that it ends")]
    Unfit {
        /// The transfer.
        transfer_id: TransferId,
    },
}

/// What was looked at, and what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// How many accounts were computed anew.
    pub accounts: u64,
    /// From how many transfers.
    pub transfers: u64,
    /// How many jobs' escrows were looked at.
    pub jobs: u64,
    /// What does not hold: of each sort the first hundred.
    pub discrepancies: Vec<Discrepancy>,
}

statements! {
    ACCOUNTS = "SELECT COUNT(*) AS n FROM ledger_accounts";
    TRANSFERS = "SELECT COUNT(*) AS n FROM ledger_transfers";
    JOBS = "SELECT COUNT(*) AS n FROM jobs";
    BALANCES = "SELECT id, recorded, computed FROM (SELECT a.id, a.balance AS recorded, CAST(
            COALESCE((SELECT SUM(t.amount) FROM ledger_transfers t
                WHERE t.credit_account_id = a.id AND t.phase IN ('single', 'posted')), 0)
            - COALESCE((SELECT SUM(t.amount) FROM ledger_transfers t
                WHERE t.debit_account_id = a.id AND t.phase IN ('single', 'posted')), 0)
        AS BIGINT) AS computed FROM ledger_accounts a) AS accounts
        WHERE recorded <> computed ORDER BY id LIMIT 100";
    RESERVES = "SELECT id, recorded, computed FROM (SELECT a.id, a.reserved AS recorded, CAST(
            COALESCE((SELECT SUM(CASE WHEN t.phase = 'pending' THEN t.amount ELSE 0 - t.amount END)
                FROM ledger_transfers t WHERE t.debit_account_id = a.id AND t.phase <> 'single'), 0)
        AS BIGINT) AS computed FROM ledger_accounts a) AS accounts
        WHERE recorded <> computed ORDER BY id LIMIT 100";
    SUM = "SELECT CAST(COALESCE(SUM(balance), 0) AS BIGINT) AS total FROM ledger_accounts";
    ESCROWS = "SELECT id, held, reserved, expected FROM (SELECT j.id, COALESCE(a.balance, 0) AS held,
            COALESCE(a.reserved, 0) AS reserved, CASE
                WHEN j.status = 'funded' THEN COALESCE(j.deposit_amount, 0) - COALESCE(j.excess_refunded, 0)
                WHEN j.status = 'resolved' AND j.payout_status = 'failed' THEN j.price
                ELSE 0 END AS expected,
            CASE WHEN j.status = 'resolved' AND j.payout_status = 'failed' THEN j.price ELSE 0 END AS kept
        FROM jobs j LEFT JOIN ledger_accounts a ON a.kind = 'escrow' AND a.owner_id = j.id) AS escrows
        WHERE held <> expected OR reserved <> kept ORDER BY id LIMIT 100";
    REPEATED = "SELECT job_id, kind, COUNT(*) AS times FROM ledger_transfers
        WHERE job_id IS NOT NULL AND phase IN ('single', 'posted') GROUP BY job_id, kind HAVING COUNT(*) > 1
        ORDER BY job_id, kind LIMIT 100";
    UNFIT = "SELECT e.id FROM ledger_transfers e JOIN ledger_transfers p ON p.id = e.pending_id
        WHERE e.pending_id IS NOT NULL AND (p.phase <> 'pending' OR p.amount <> e.amount OR p.kind <> e.kind
            OR p.debit_account_id <> e.debit_account_id OR p.credit_account_id <> e.credit_account_id) LIMIT 100";
}

/// Computes the ledger anew and says what does not hold.
///
/// # Errors
/// Those of the database.
pub async fn check(s: &mut Session) -> Result<Vec<Discrepancy>, StoreError> {
    Ok(inspect(s).await?.discrepancies)
}

/// As [`check`], and says how much was looked at. It is several statements: where others write meanwhile, in a snapshot.
///
/// # Errors
/// Those of the database.
pub async fn inspect(s: &mut Session) -> Result<Checked, StoreError> {
    let (accounts, transfers) = (count(s, ACCOUNTS, args![]).await?, count(s, TRANSFERS, args![]).await?);
    let jobs = count(s, JOBS, args![]).await?;
    let mut found = s
        .all(BALANCES, args![], |row| {
            let (recorded, computed) = (row.int("recorded")?, row.int("computed")?);
            Ok(Discrepancy::Balance { account_id: row.parse("id")?, recorded, computed })
        })
        .await?;
    found.extend(
        s.all(RESERVES, args![], |row| {
            let (recorded, computed) = (row.int("recorded")?, row.int("computed")?);
            Ok(Discrepancy::Reserved { account_id: row.parse("id")?, recorded, computed })
        })
        .await?,
    );
    let sum = s.one(SUM, args![], |row| row.int("total")).await?;
    if sum != 0 {
        found.push(Discrepancy::Sum { sum });
    }
    found.extend(
        s.all(ESCROWS, args![], |row| {
            let (held, reserved) = (row.int("held")?, row.int("reserved")?);
            Ok(Discrepancy::Escrow {
                job_id: row.parse("id")?,
                held,
                reserved,
                expected: row.int("expected")?,
            })
        })
        .await?,
    );
    found.extend(
        s.all(REPEATED, args![], |row| {
            let (kind, times) = (row.parse("kind")?, row.count("times")?);
            Ok(Discrepancy::Repeated { job_id: row.parse("job_id")?, kind, times })
        })
        .await?,
    );
    found
        .extend(s.all(UNFIT, args![], |row| Ok(Discrepancy::Unfit { transfer_id: row.parse("id")? })).await?);
    Ok(Checked { accounts, transfers, jobs, discrepancies: found })
}
