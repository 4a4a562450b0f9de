//! Jobs. Every change of state repeats the state machine's guard, and says whether it held.

use ringfence_model::{
    AgentId, BotId, EscrowStatus, FeeBps, JobId, JobStatus, MicroUsdc, OrgId, PayoutStatus, Sha256,
    SubmissionId, Timestamp, Visibility,
};
use serde_json::Value;

use crate::session::{Arg, Row, args};
use crate::statements::statements;
use crate::{COUNTED, Page, Session, StoreError, count};

/// A job.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The buyer's org.
    pub org_id: OrgId,
    /// Who posted it.
    pub buyer_id: AgentId,
    /// What it is called.
    pub title: String,
    /// What is wanted.
    pub description: String,
    /// What makes a result good.
    pub rubric: String,
    /// What kind of result is wanted.
    pub artifact_type: String,
    /// What is paid, fee included.
    pub price: MicroUsdc,
    /// The platform's share.
    pub fee_bps: FeeBps,
    /// Until when submissions are taken.
    pub expiry: Timestamp,
    /// How many submissions are taken in all.
    pub max_submissions: u32,
    /// How often a worker may try again.
    pub max_retries: u32,
    /// The least reputation that a worker needs, 0 to 100.
    pub min_reputation: u8,
    /// Who may see it.
    pub visibility: Visibility,
    /// The least score with which a submission passes, 0 to 100.
    pub min_score: u8,
    /// Whether submissions are looked through before the oracle reads them, if the buyer has said so.
    pub guard: Option<bool>,
    /// Its state.
    pub status: JobStatus,
    /// The oracle that the buyer named.
    pub oracle_bot_id: BotId,
    /// What judges, exactly; from the funding on.
    pub oracle_pin: Option<Value>,
    /// The digest of its input.
    pub input_digest: Option<Sha256>,
    /// What was paid into escrow.
    pub deposit_amount: Option<MicroUsdc>,
    /// How its escrow stands; from the funding on.
    pub escrow_status: Option<EscrowStatus>,
    /// What the buyer got back of a deposit above the price.
    pub excess_refunded: Option<MicroUsdc>,
    /// What the buyer got back at the end.
    pub refunded_amount: Option<MicroUsdc>,
    /// What won.
    pub winning_submission_id: Option<SubmissionId>,
    /// Who won.
    pub worker_id: Option<AgentId>,
    /// The winner's org.
    pub worker_org_id: Option<OrgId>,
    /// What became of the payout.
    pub payout_status: Option<PayoutStatus>,
    /// Why the last attempt to pay the worker failed.
    pub payout_error: Option<String>,
    /// When it was posted.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it was funded.
    pub funded_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// How the payout of a job that is resolved has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payout {
    /// What became of it.
    pub status: PayoutStatus,
    /// Why the worker could not be paid.
    pub error: Option<String>,
    /// What the buyer got back of a deposit above the price, if it was not given back before.
    pub excess_refunded: Option<MicroUsdc>,
}

/// By what jobs are sorted; those that are equal in it, by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobSort {
    /// When they were posted.
    CreatedAt,
    /// What they pay.
    Price,
    /// Until when they run.
    Expiry,
}

impl JobSort {
    const fn column(self) -> &'static str {
        match self {
            Self::CreatedAt => "created_at",
            Self::Price => "price",
            Self::Expiry => "expiry",
        }
    }
}

/// Which jobs, and in which order.
#[derive(Debug, Clone)]
pub struct JobFilter {
    /// The private jobs that this org is party to, in the order in which they were posted; without it, the public ones.
    pub party: Option<OrgId>,
    /// Only these.
    pub status: Option<JobStatus>,
    /// Only this buyer's.
    pub buyer_id: Option<AgentId>,
    /// Only those that this worker has claimed at some time.
    pub worker_id: Option<AgentId>,
    /// Whose claims count for that: those that this org is a party to; all, if there is none.
    pub claims_seen_by: Option<OrgId>,
    /// Only these.
    pub artifact_type: Option<String>,
    /// Only from this price on.
    pub min_price: Option<MicroUsdc>,
    /// Only up to this price.
    pub max_price: Option<MicroUsdc>,
    /// By what.
    pub sort_by: JobSort,
    /// Greatest first.
    pub descending: bool,
    /// How many at most.
    pub limit: u32,
    /// How many to leave out before.
    pub offset: u32,
}

macro_rules! columns {
    () => {
        "id, org_id, buyer_id, title, description, rubric, artifact_type, price, fee_bps, expiry, max_submissions,
        max_retries, status, oracle_bot_id, oracle_pin, input_digest, deposit_amount, refunded_amount,
        winning_submission_id, worker_id, worker_org_id, payout_status, created_at, updated_at, funded_at, ended_at,
        min_reputation, visibility, escrow_status, excess_refunded, payout_error, min_score, guard"
    };
}

statements! {
    INSERT = concat!("INSERT INTO jobs (", columns!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13,
        $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33)");
    INSERT_INPUT = "INSERT INTO job_inputs (job_id, org_id, content) VALUES ($1, $2, $3)";
    GET = concat!("SELECT ", columns!(), " FROM jobs WHERE id = $1");
    PINNED = "SELECT id, created_at, oracle_pin FROM jobs WHERE status = 'funded' AND (created_at, id) > ($1, $2)
        ORDER BY created_at, id LIMIT $3";
    FUNDED = "SELECT COUNT(*) AS n FROM jobs WHERE status = 'funded'";
    GET_INPUT = "SELECT content FROM job_inputs WHERE job_id = $1";
    FUND = concat!("UPDATE jobs SET status = 'funded', escrow_status = 'held', oracle_pin = $2, deposit_amount = $3, funded_at = $4,
        updated_at = $4 WHERE id = $1 AND status = 'open' RETURNING ", columns!());
    RESOLVE = "UPDATE jobs SET status = 'resolved', winning_submission_id = $2, worker_id = $3, worker_org_id = $4, payout_status = $5,
        payout_error = $6, escrow_status = CASE $5 WHEN 'success' THEN 'released' ELSE 'held' END,
        excess_refunded = COALESCE(excess_refunded, $7), oracle_faults = 0, ended_at = $8, updated_at = $8
        WHERE id = $1 AND status = 'funded' AND escrow_status = 'held'";
    UPDATE = "UPDATE jobs SET title = $2, description = $3, rubric = $4, expiry = $5, max_submissions = $6, max_retries = $7,
        min_reputation = $8, updated_at = $9 WHERE id = $1 AND status = $10 AND status IN ('open', 'funded')";
    PAID = "UPDATE jobs SET payout_status = 'success', payout_error = NULL, escrow_status = 'released', updated_at = $2
        WHERE id = $1 AND status = 'resolved' AND payout_status IN ('pending', 'failed')";
    EXCESS = "UPDATE jobs SET excess_refunded = $2, updated_at = $3
        WHERE id = $1 AND status = 'funded' AND excess_refunded IS NULL";
    END = "UPDATE jobs SET status = $2, refunded_amount = $3,
        escrow_status = CASE WHEN escrow_status IS NULL THEN NULL ELSE 'refunded' END, ended_at = $4, updated_at = $4
        WHERE id = $1 AND status = $5 AND status IN ('open', 'funded')";
    FAULT = "UPDATE jobs SET oracle_faults = oracle_faults + 1, updated_at = $2 WHERE id = $1 RETURNING oracle_faults";
    NO_FAULT = "UPDATE jobs SET oracle_faults = 0 WHERE id = $1 AND oracle_faults > 0";
    DISPUTE = "UPDATE jobs SET escrow_status = 'disputed', updated_at = $2
        WHERE id = $1 AND status = 'funded' AND escrow_status = 'held'";
    RESUME = "UPDATE jobs SET escrow_status = 'held', oracle_faults = 0, updated_at = $2
        WHERE id = $1 AND status = 'funded' AND escrow_status = 'disputed'";
}

const SELECT: &str = concat!("SELECT ", columns!(), " FROM jobs");

/// The private jobs of an org, each once, however many of its agents are parties. The join says which part is walked
/// through: SQLite takes the parts of a CROSS JOIN in the order in which they stand.
const SHARED: &str = " FROM (SELECT p.job_id AS shared_id FROM job_parties p WHERE p.org_id = $1 AND NOT EXISTS (
        SELECT 1 FROM job_parties q WHERE q.job_id = p.job_id AND q.org_id = p.org_id AND q.agent_id < p.agent_id
    )) AS shared CROSS JOIN jobs WHERE id = shared_id AND visibility = 'private'";

/// Makes a job, and keeps its input beside it.
///
/// # Errors
/// Those of the database.
pub async fn insert(s: &mut Session, job: &Job, input: Option<&str>) -> Result<(), StoreError> {
    let args = args![
        &job.id,
        &job.org_id,
        &job.buyer_id,
        &job.title,
        &job.description,
        &job.rubric,
        &job.artifact_type,
        job.price,
        job.fee_bps,
        job.expiry,
        job.max_submissions,
        job.max_retries,
        job.status,
        &job.oracle_bot_id,
        job.oracle_pin.as_ref(),
        job.input_digest.as_ref(),
        job.deposit_amount,
        job.refunded_amount,
        job.winning_submission_id.as_ref(),
        job.worker_id.as_ref(),
        job.worker_org_id.as_ref(),
        job.payout_status.as_ref(),
        job.created_at,
        job.updated_at,
        job.funded_at,
        job.ended_at,
        u32::from(job.min_reputation),
        job.visibility,
        job.escrow_status.as_ref(),
        job.excess_refunded,
        job.payout_error.as_ref(),
        u32::from(job.min_score),
        job.guard.map(u32::from),
    ];
    s.execute(INSERT, args).await?;
    if let Some(input) = input {
        s.execute(INSERT_INPUT, args![&job.id, &job.org_id, input]).await?;
    }
    Ok(())
}

/// A job.
///
/// # Errors
/// Those of the database.
pub async fn get(s: &mut Session, id: &JobId) -> Result<Option<Job>, StoreError> {
    s.optional(GET, args![id], read).await
}

/// A funded job's pin, and where it stands among those of others.
#[derive(Debug, Clone, PartialEq)]
pub struct Pinned {
    /// The job.
    pub id: JobId,
    /// When it was posted.
    pub created_at: Timestamp,
    /// The oracle as it was at the funding.
    pub pin: Option<Value>,
}

/// The pins of all funded jobs, oldest first: those after a job, or the first ones.
///
/// # Errors
/// Those of the database.
pub async fn pinned(s: &mut Session, after: Option<&Pinned>, limit: u32) -> Result<Vec<Pinned>, StoreError> {
    let (created_at, id) =
        after.map_or((Timestamp::from_micros(0), ""), |last| (last.created_at, last.id.as_str()));
    let read = |row: &Row| {
        Ok(Pinned {
            id: row.parse("id")?,
            created_at: row.time("created_at")?,
            pin: row.opt_json("oracle_pin")?,
        })
    };
    s.all(PINNED, args![created_at, id, limit], read).await
}

/// How many jobs are funded.
///
/// # Errors
/// Those of the database.
pub async fn funded_count(s: &mut Session) -> Result<u64, StoreError> {
    count(s, FUNDED, args![]).await
}

/// A job, which nobody else changes until the transaction ends.
///
/// # Errors
/// [`StoreError::Busy`] if another transaction holds it for too long.
pub async fn lock(s: &mut Session, id: &JobId) -> Result<Option<Job>, StoreError> {
    s.optional(s.locking(GET), args![id], read).await
}

/// A job's input, JSON.
///
/// # Errors
/// Those of the database.
pub async fn input(s: &mut Session, id: &JobId) -> Result<Option<String>, StoreError> {
    s.optional(GET_INPUT, args![id], |row| row.text("content")).await
}

/// The jobs that a filter lets through.
///
/// # Errors
/// Those of the database.
pub async fn list(s: &mut Session, filter: &JobFilter) -> Result<Page<Job>, StoreError> {
    let (sql, args) = counting(filter);
    let total = count(s, sqlx::AssertSqlSafe(sql), args).await?;
    let (sql, args) = listing(filter, total >= COUNTED);
    Ok(Page { items: s.all(sqlx::AssertSqlSafe(sql), args, read).await?, total })
}

/// The statement of a listing, if few or `many` are let through: for tests of its plan.
#[doc(hidden)]
#[must_use]
pub fn list_statement(filter: &JobFilter, many: bool) -> String {
    listing(filter, many).0
}

fn counting(filter: &JobFilter) -> (String, Vec<Arg>) {
    let (source, args) = source(filter, false);
    (format!("SELECT COUNT(*) AS n FROM (SELECT 1{source} LIMIT {COUNTED}) AS counted"), args)
}

fn listing(filter: &JobFilter, many: bool) -> (String, Vec<Arg>) {
    let (source, mut args) = source(filter, many);
    let (column, direction) = (filter.sort_by.column(), if filter.descending { "DESC" } else { "ASC" });
    let (limit, offset) = (args.len() + 1, args.len() + 2);
    args.extend(args![filter.limit, filter.offset]);
    // Ids are in the order of time.
    let (found, shown) = match filter.party {
        Some(_) => (format!("ORDER BY shared_id {direction}"), format!("ORDER BY id {direction}")),
        None => {
            let order = format!("ORDER BY {column} {direction}, id {direction}");
            (order.clone(), order)
        }
    };
    // The jobs are found in an index that has all that is asked for, and only those that are shown are read.
    let sql =
        format!("{SELECT} WHERE id IN (SELECT id{source} {found} LIMIT ${limit} OFFSET ${offset}) {shown}");
    (sql, args)
}

/// Only the conditions that are asked for, so that each can use its index. Values are arguments, never text.
///
/// A range of prices and an order by something else want different indexes. If many are in the range it is better to
/// walk in order and leave out what is not: the `+` keeps the engine from collecting the range to sort it.
fn source(filter: &JobFilter, many: bool) -> (String, Vec<Arg>) {
    let walk = filter.party.is_some() || (many && filter.sort_by != JobSort::Price);
    let (at_least, at_most) = if walk { ("+price >= ", "+price <= ") } else { ("price >= ", "price <= ") };
    let asked = [
        ("status = ", filter.status.map(Arg::from)),
        ("buyer_id = ", filter.buyer_id.as_ref().map(Arg::from)),
        ("artifact_type = ", filter.artifact_type.as_ref().map(Arg::from)),
        (at_least, filter.min_price.map(Arg::from)),
        (at_most, filter.max_price.map(Arg::from)),
    ];
    // Written out, not an argument: the indexes are of public jobs alone.
    let (mut source, mut args) = match &filter.party {
        Some(org) => (SHARED.to_owned(), args![org]),
        None => (" FROM jobs WHERE visibility = 'public'".to_owned(), Vec::new()),
    };
    for (text, arg) in asked {
        let Some(arg) = arg else { continue };
        args.push(arg);
        source.push_str(&format!(" AND {text}${}", args.len()));
    }
    if let Some(worker) = &filter.worker_id {
        args.push(worker.into());
        source.push_str(&format!(
            " AND id IN (SELECT job_id FROM participants WHERE worker_id = ${}",
            args.len()
        ));
        if let Some(org) = &filter.claims_seen_by {
            args.push(org.into());
            source.push_str(&format!(" AND (org_id = ${0} OR buyer_org_id = ${0})", args.len()));
        }
        source.push(')');
    }
    (source, args)
}

/// `open → funded`; the job as it is then, if it was open.
///
/// # Errors
/// Those of the database.
pub async fn fund(
    s: &mut Session,
    id: &JobId,
    oracle_pin: &Value,
    deposit: MicroUsdc,
    now: Timestamp,
) -> Result<Option<Job>, StoreError> {
    s.optional(FUND, args![id, oracle_pin.to_string(), deposit, now], read).await
}

/// Writes what a buyer can change of a job, if it is still in the state in which `job` is; whether it was.
///
/// # Errors
/// Those of the database.
pub async fn update(s: &mut Session, job: &Job) -> Result<bool, StoreError> {
    let args = args![
        &job.id,
        &job.title,
        &job.description,
        &job.rubric,
        job.expiry,
        job.max_submissions,
        job.max_retries,
        u32::from(job.min_reputation),
        job.updated_at,
        job.status,
    ];
    Ok(s.execute(UPDATE, args).await? > 0)
}

/// `funded → resolved`, with what became of its money; whether it was funded. The oracle has judged: the row of submissions
/// that it could not is over.
///
/// # Errors
/// Those of the database.
pub async fn resolve(
    s: &mut Session,
    id: &JobId,
    winner: &SubmissionId,
    worker: &AgentId,
    worker_org: &OrgId,
    payout: &Payout,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let args = args![
        id,
        winner,
        worker,
        worker_org,
        payout.status,
        payout.error.as_ref(),
        payout.excess_refunded,
        now,
    ];
    Ok(s.execute(RESOLVE, args).await? > 0)
}

/// The payout of a resolved job has left its escrow; whether it was still to be paid.
///
/// # Errors
/// Those of the database.
pub async fn paid(s: &mut Session, id: &JobId, now: Timestamp) -> Result<bool, StoreError> {
    Ok(s.execute(PAID, args![id, now]).await? > 0)
}

/// The buyer got back what was paid above the price; whether none was given back before.
///
/// # Errors
/// Those of the database.
pub async fn excess_refunded(
    s: &mut Session,
    id: &JobId,
    amount: MicroUsdc,
    now: Timestamp,
) -> Result<bool, StoreError> {
    Ok(s.execute(EXCESS, args![id, amount, now]).await? > 0)
}

/// `from → expired | cancelled`, where `from` is open or funded; whether it was.
///
/// # Errors
/// Those of the database.
pub async fn end(
    s: &mut Session,
    id: &JobId,
    to: JobStatus,
    from: JobStatus,
    refunded: Option<MicroUsdc>,
    now: Timestamp,
) -> Result<bool, StoreError> {
    if !matches!(to, JobStatus::Expired | JobStatus::Cancelled) {
        return Ok(false);
    }
    Ok(s.execute(END, args![id, to, refunded, now, from]).await? > 0)
}

/// One more submission in a row that the oracle could not judge; how many those are.
///
/// # Errors
/// Those of the database.
pub async fn fault(s: &mut Session, id: &JobId, now: Timestamp) -> Result<u32, StoreError> {
    s.one(FAULT, args![id, now], |row| row.small("oracle_faults")).await
}

/// The oracle has judged: the row of those that it could not is over.
///
/// # Errors
/// Those of the database.
pub async fn no_fault(s: &mut Session, id: &JobId) -> Result<(), StoreError> {
    s.execute(NO_FAULT, args![id]).await?;
    Ok(())
}

/// The escrow of a funded job, `held → disputed`; whether it was held.
///
/// # Errors
/// Those of the database.
pub async fn dispute(s: &mut Session, id: &JobId, now: Timestamp) -> Result<bool, StoreError> {
    Ok(s.execute(DISPUTE, args![id, now]).await? > 0)
}

/// The escrow of a funded job, `disputed → held`, with no faults counted; whether it was disputed.
///
/// # Errors
/// Those of the database.
pub async fn resume(s: &mut Session, id: &JobId, now: Timestamp) -> Result<bool, StoreError> {
    Ok(s.execute(RESUME, args![id, now]).await? > 0)
}

fn read(row: &Row) -> Result<Job, StoreError> {
    let fee_bps =
        u16::try_from(row.int("fee_bps")?).map_err(|error| StoreError::corrupt("fee_bps", error))?;
    Ok(Job {
        id: row.parse("id")?,
        org_id: row.parse("org_id")?,
        buyer_id: row.parse("buyer_id")?,
        title: row.text("title")?,
        description: row.text("description")?,
        rubric: row.text("rubric")?,
        artifact_type: row.text("artifact_type")?,
        price: row.money("price")?,
        fee_bps: FeeBps::try_from(fee_bps).map_err(|error| StoreError::corrupt("fee_bps", error))?,
        expiry: row.time("expiry")?,
        max_submissions: row.small("max_submissions")?,
        max_retries: row.small("max_retries")?,
        min_reputation: u8::try_from(row.int("min_reputation")?)
            .map_err(|error| StoreError::corrupt("min_reputation", error))?,
        visibility: row.parse("visibility")?,
        min_score: u8::try_from(row.int("min_score")?)
            .map_err(|error| StoreError::corrupt("min_score", error))?,
        guard: row.opt_int("guard")?.map(|guard| guard != 0),
        status: row.parse("status")?,
        oracle_bot_id: row.parse("oracle_bot_id")?,
        oracle_pin: row.opt_json("oracle_pin")?,
        input_digest: row.opt_parse("input_digest")?,
        deposit_amount: row.opt_money("deposit_amount")?,
        escrow_status: row.opt_parse("escrow_status")?,
        excess_refunded: row.opt_money("excess_refunded")?,
        refunded_amount: row.opt_money("refunded_amount")?,
        winning_submission_id: row.opt_parse("winning_submission_id")?,
        worker_id: row.opt_parse("worker_id")?,
        worker_org_id: row.opt_parse("worker_org_id")?,
        payout_status: row.opt_parse("payout_status")?,
        payout_error: row.opt_text("payout_error")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
        funded_at: row.opt_time("funded_at")?,
        ended_at: row.opt_time("ended_at")?,
    })
}
