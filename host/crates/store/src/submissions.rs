//! Claims and submissions.

use ringfence_model::{
    AgentId, InvocationId, JobId, OrgId, Sha256, SubmissionId, SubmissionStatus, Timestamp,
};
use serde_json::Value;

use crate::session::{Row, args};
use crate::statements::statements;
use crate::{Page, Session, StoreError, count};

/// A worker's part in a job, from the claim to the unclaim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant {
    /// Its id.
    pub id: String,
    /// The job.
    pub job_id: JobId,
    /// The worker.
    pub worker_id: AgentId,
    /// The worker's org.
    pub org_id: OrgId,
    /// The buyer's org.
    pub buyer_org_id: OrgId,
    /// Since when.
    pub claimed_at: Timestamp,
    /// Until when.
    pub unclaimed_at: Option<Timestamp>,
}

/// A worker's part in a job, and how often it has handed something in at this job, over all of its claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participation {
    /// The claim.
    pub participant: Participant,
    /// How many submissions there have been of this worker.
    pub attempts: u32,
}

/// How a worker stands at a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its submissions that are being judged.
    pub judging: u32,
    /// Those that failed, by no fault of the oracle.
    pub failed: u32,
    /// All but those that the oracle could not judge.
    pub counted: u32,
}

/// A submission.
#[derive(Debug, Clone, PartialEq)]
pub struct Submission {
    /// Its id.
    pub id: SubmissionId,
    /// The job.
    pub job_id: JobId,
    /// The worker's org.
    pub org_id: OrgId,
    /// The buyer's org.
    pub buyer_org_id: OrgId,
    /// Whose it is.
    pub worker_id: AgentId,
    /// 1 for the worker's first at this job.
    pub attempt: u32,
    /// The work, JSON. A listing leaves out what is larger than 64 KiB, here and in `reason` and `steps`.
    pub content: Option<String>,
    /// The digest of the work.
    pub content_digest: Sha256,
    /// Its state.
    pub status: SubmissionStatus,
    /// 0 to 100.
    pub score: Option<u8>,
    /// The verdict in words.
    pub reason: Option<String>,
    /// How the oracle came to it.
    pub steps: Option<Value>,
    /// Why the oracle could not judge.
    pub oracle_fault: Option<String>,
    /// The call of the oracle.
    pub invocation_id: Option<InvocationId>,
    /// When it was handed in.
    pub created_at: Timestamp,
    /// When it was judged or closed.
    pub judged_at: Option<Timestamp>,
}

/// How many submissions there have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempts {
    /// Whether the worker holds a claim now.
    pub claimed: bool,
    /// The number of the worker's last attempt, or 0.
    pub last_attempt: u32,
    /// The worker's, without those that the oracle could not judge.
    pub counted_by_worker: u32,
    /// All workers', without those that the oracle could not judge.
    pub counted_total: u32,
    /// The worker's that the oracle could not judge, by its own fault.
    pub faulted_by_worker: u32,
}

/// A submission that was closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Its id.
    pub id: SubmissionId,
    /// Whose it was.
    pub worker_id: AgentId,
    /// The worker's org.
    pub org_id: OrgId,
}

/// What is written of a judgement.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// 0 to 100.
    pub score: Option<u8>,
    /// The verdict in words.
    pub reason: String,
    /// How the oracle came to it.
    pub steps: Option<Value>,
    /// Why the oracle could not judge.
    pub oracle_fault: Option<String>,
    /// The call of the oracle.
    pub invocation_id: Option<InvocationId>,
}

macro_rules! columns {
    () => {
        "id, job_id, org_id, buyer_org_id, worker_id, attempt, content, content_digest, status, score, reason, steps,
        oracle_fault, invocation_id, created_at, judged_at"
    };
}

// A page of 200 must not bring hundreds of megabytes along.
macro_rules! listed_columns {
    () => {
        "id, job_id, org_id, buyer_org_id, worker_id, attempt,
        CASE WHEN LENGTH(content) <= 65536 THEN content END AS content, content_digest, status, score,
        CASE WHEN LENGTH(reason) <= 65536 THEN reason END AS reason,
        CASE WHEN LENGTH(steps) <= 65536 THEN steps END AS steps, oracle_fault, invocation_id, created_at, judged_at"
    };
}

macro_rules! participations {
    () => {
        "SELECT p.id, p.job_id, p.worker_id, p.org_id, p.buyer_org_id, p.claimed_at, p.unclaimed_at,
        COALESCE((SELECT MAX(s.attempt) FROM submissions s WHERE s.job_id = p.job_id AND s.worker_id = p.worker_id), 0)
            AS attempts FROM participants p"
    };
}

statements! {
    CLAIM = "INSERT INTO participants (id, job_id, worker_id, org_id, buyer_org_id, claimed_at, unclaimed_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (job_id, worker_id) WHERE unclaimed_at IS NULL DO NOTHING";
    IS_PARTICIPANT = "SELECT COUNT(*) AS n FROM participants
        WHERE job_id = $1 AND worker_id = $2 AND unclaimed_at IS NULL";
    UNCLAIM = "UPDATE participants SET unclaimed_at = $3
        WHERE job_id = $1 AND worker_id = $2 AND unclaimed_at IS NULL";
    PARTICIPANTS = concat!(participations!(), " WHERE p.job_id = $1 ORDER BY p.claimed_at, p.id LIMIT $2 OFFSET $3");
    COUNT_PARTICIPANTS = "SELECT COUNT(*) AS n FROM (SELECT 1 FROM participants WHERE job_id = $1 LIMIT 1000) AS counted";
    PARTICIPANTS_OF_ORG = concat!(participations!(), " WHERE p.job_id = $1 AND p.org_id = $2
        ORDER BY p.claimed_at, p.id LIMIT $3 OFFSET $4");
    COUNT_PARTICIPANTS_OF_ORG = "SELECT COUNT(*) AS n FROM (
        SELECT 1 FROM participants WHERE job_id = $1 AND org_id = $2 LIMIT 1000) AS counted";
    STANDING = "SELECT COUNT(CASE WHEN status = 'judging' THEN 1 END) AS judging,
        COUNT(CASE WHEN status = 'failed' AND oracle_fault IS NULL THEN 1 END) AS failed,
        COUNT(CASE WHEN oracle_fault IS NULL THEN 1 END) AS counted
        FROM submissions WHERE job_id = $1 AND worker_id = $2";
    FAILED_CLAIMS = "SELECT p.worker_id, p.org_id FROM participants p
        WHERE p.job_id = $1 AND p.unclaimed_at IS NULL AND EXISTS (SELECT 1 FROM submissions s
            WHERE s.job_id = p.job_id AND s.worker_id = p.worker_id AND s.status = 'failed' AND s.oracle_fault IS NULL)
        ORDER BY p.worker_id";
    INSERT = concat!("INSERT INTO submissions (", columns!(), ")
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)");
    GET = concat!("SELECT ", columns!(), " FROM submissions WHERE id = $1");
    STATUS = "SELECT status FROM submissions WHERE id = $1";
    ATTEMPTS = "SELECT
        (SELECT COUNT(*) FROM participants WHERE job_id = $1 AND worker_id = $2 AND unclaimed_at IS NULL) AS claims,
        COALESCE(MAX(CASE WHEN worker_id = $2 THEN attempt END), 0) AS last_attempt,
        COUNT(CASE WHEN worker_id = $2 AND oracle_fault IS NULL THEN 1 END) AS counted_by_worker,
        COUNT(CASE WHEN oracle_fault IS NULL THEN 1 END) AS counted_total,
        COUNT(CASE WHEN worker_id = $2 AND oracle_fault <> 'unavailable' THEN 1 END) AS faulted_by_worker
        FROM submissions WHERE job_id = $1";
    LIST_OF_JOB = concat!("SELECT ", listed_columns!(), " FROM submissions WHERE job_id = $1
        ORDER BY created_at, id LIMIT $2 OFFSET $3");
    COUNT_OF_JOB = "SELECT COUNT(*) AS n FROM submissions WHERE job_id = $1";
    LIST_OF_WORKER = concat!("SELECT ", listed_columns!(), " FROM submissions WHERE worker_id = $1
        ORDER BY created_at DESC, id DESC LIMIT $2 OFFSET $3");
    COUNT_OF_WORKER = "SELECT COUNT(*) AS n FROM (SELECT 1 FROM submissions WHERE worker_id = $1 LIMIT 1000) AS counted";
    JUDGED = "UPDATE submissions SET status = $2, score = $3, reason = $4, steps = $5, oracle_fault = $6,
        invocation_id = $7, judged_at = $8 WHERE id = $1 AND status = 'judging'";
    CLOSE_ALL = "UPDATE submissions SET status = 'closed', reason = $2, judged_at = $3
        WHERE job_id = $1 AND status = 'judging' RETURNING id, worker_id, org_id";
    BEING_JUDGED = "SELECT id FROM submissions WHERE job_id = $1 AND status = 'judging' ORDER BY created_at, id";
    JUDGING = "SELECT COUNT(*) AS n FROM submissions WHERE job_id = $1 AND status = 'judging'";
}

/// Makes a claim; `false` if the worker holds one already.
///
/// # Errors
/// Those of the database.
pub async fn claim(s: &mut Session, participant: &Participant) -> Result<bool, StoreError> {
    let args = args![
        &participant.id,
        &participant.job_id,
        &participant.worker_id,
        &participant.org_id,
        &participant.buyer_org_id,
        participant.claimed_at,
        participant.unclaimed_at,
    ];
    Ok(s.execute(CLAIM, args).await? > 0)
}

/// Whether the worker holds a claim now.
///
/// # Errors
/// Those of the database.
pub async fn is_participant(s: &mut Session, job: &JobId, worker: &AgentId) -> Result<bool, StoreError> {
    Ok(count(s, IS_PARTICIPANT, args![job, worker]).await? > 0)
}

/// Ends a worker's claim; `false` if it holds none. The row stays.
///
/// # Errors
/// Those of the database.
pub async fn unclaim(
    s: &mut Session,
    job: &JobId,
    worker: &AgentId,
    now: Timestamp,
) -> Result<bool, StoreError> {
    Ok(s.execute(UNCLAIM, args![job, worker, now]).await? > 0)
}

/// The claims on a job, past ones too, oldest first: all, or those of an org's agents.
///
/// # Errors
/// Those of the database.
pub async fn participants(
    s: &mut Session,
    job: &JobId,
    org: Option<&OrgId>,
    limit: u32,
    offset: u32,
) -> Result<Page<Participation>, StoreError> {
    let read = |row: &Row| {
        Ok(Participation {
            participant: Participant {
                id: row.text("id")?,
                job_id: row.parse("job_id")?,
                worker_id: row.parse("worker_id")?,
                org_id: row.parse("org_id")?,
                buyer_org_id: row.parse("buyer_org_id")?,
                claimed_at: row.time("claimed_at")?,
                unclaimed_at: row.opt_time("unclaimed_at")?,
            },
            attempts: row.small("attempts")?,
        })
    };
    Ok(match org {
        None => Page {
            total: count(s, COUNT_PARTICIPANTS, args![job]).await?,
            items: s.all(PARTICIPANTS, args![job, limit, offset], read).await?,
        },
        Some(org) => Page {
            total: count(s, COUNT_PARTICIPANTS_OF_ORG, args![job, org]).await?,
            items: s.all(PARTICIPANTS_OF_ORG, args![job, org, limit, offset], read).await?,
        },
    })
}

/// How a worker stands at a job. Ask under the job's lock where the answer decides something.
///
/// # Errors
/// Those of the database.
pub async fn standing(s: &mut Session, job: &JobId, worker: &AgentId) -> Result<Standing, StoreError> {
    s.one(STANDING, args![job, worker], |row| {
        Ok(Standing {
            judging: row.small("judging")?,
            failed: row.small("failed")?,
            counted: row.small("counted")?,
        })
    })
    .await
}

/// Who holds a claim on a job and has had a submission fail there, and their orgs; as many as the job takes submissions at
/// most.
///
/// # Errors
/// Those of the database.
pub async fn failed_claims(s: &mut Session, job: &JobId) -> Result<Vec<(AgentId, OrgId)>, StoreError> {
    s.all(FAILED_CLAIMS, args![job], |row| Ok((row.parse("worker_id")?, row.parse("org_id")?))).await
}

/// Makes a submission.
///
/// # Errors
/// [`StoreError::Conflict`] if the worker has made this attempt.
pub async fn insert(s: &mut Session, submission: &Submission) -> Result<(), StoreError> {
    let args = args![
        &submission.id,
        &submission.job_id,
        &submission.org_id,
        &submission.buyer_org_id,
        &submission.worker_id,
        submission.attempt,
        submission.content.as_ref(),
        &submission.content_digest,
        submission.status,
        submission.score.map(u32::from),
        submission.reason.as_ref(),
        submission.steps.as_ref(),
        submission.oracle_fault.as_ref(),
        submission.invocation_id.as_ref(),
        submission.created_at,
        submission.judged_at,
    ];
    s.execute(INSERT, args).await?;
    Ok(())
}

/// A submission.
///
/// # Errors
/// Those of the database.
pub async fn get(s: &mut Session, id: &SubmissionId) -> Result<Option<Submission>, StoreError> {
    s.optional(GET, args![id], read).await
}

/// A submission's state, without what may be large.
///
/// # Errors
/// Those of the database.
pub async fn status(s: &mut Session, id: &SubmissionId) -> Result<Option<SubmissionStatus>, StoreError> {
    s.optional(STATUS, args![id], |row| row.parse("status")).await
}

/// Whether a worker holds a claim on a job, and how many submissions that has had. Ask under the job's lock where the answer
/// decides something.
///
/// # Errors
/// Those of the database.
pub async fn attempts(s: &mut Session, job: &JobId, worker: &AgentId) -> Result<Attempts, StoreError> {
    s.one(ATTEMPTS, args![job, worker], |row| {
        Ok(Attempts {
            claimed: row.count("claims")? > 0,
            last_attempt: row.small("last_attempt")?,
            counted_by_worker: row.small("counted_by_worker")?,
            counted_total: row.small("counted_total")?,
            faulted_by_worker: row.small("faulted_by_worker")?,
        })
    })
    .await
}

/// A job's submissions, oldest first.
///
/// # Errors
/// Those of the database.
pub async fn list_of_job(
    s: &mut Session,
    job: &JobId,
    limit: u32,
    offset: u32,
) -> Result<Page<Submission>, StoreError> {
    let total = count(s, COUNT_OF_JOB, args![job]).await?;
    Ok(Page { items: s.all(LIST_OF_JOB, args![job, limit, offset], read).await?, total })
}

/// A worker's submissions, newest first.
///
/// # Errors
/// Those of the database.
pub async fn list_of_worker(
    s: &mut Session,
    worker: &AgentId,
    limit: u32,
    offset: u32,
) -> Result<Page<Submission>, StoreError> {
    let total = count(s, COUNT_OF_WORKER, args![worker]).await?;
    Ok(Page { items: s.all(LIST_OF_WORKER, args![worker, limit, offset], read).await?, total })
}

/// `judging → to`, with the judgement; whether it was being judged.
///
/// # Errors
/// [`StoreError::Conflict`] if another submission of the job has passed.
pub async fn judged(
    s: &mut Session,
    id: &SubmissionId,
    to: SubmissionStatus,
    judgement: &Judgement,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let args = args![
        id,
        to,
        judgement.score.map(u32::from),
        &judgement.reason,
        judgement.steps.as_ref(),
        judgement.oracle_fault.as_ref(),
        judgement.invocation_id.as_ref(),
        now,
    ];
    Ok(s.execute(JUDGED, args).await? > 0)
}

/// Closes what is still being judged, and says whose that was.
///
/// # Errors
/// Those of the database.
pub async fn close_all(
    s: &mut Session,
    job: &JobId,
    reason: &str,
    now: Timestamp,
) -> Result<Vec<Closed>, StoreError> {
    s.all(CLOSE_ALL, args![job, reason, now], |row| {
        Ok(Closed { id: row.parse("id")?, worker_id: row.parse("worker_id")?, org_id: row.parse("org_id")? })
    })
    .await
}

/// How many submissions of a job are being judged.
///
/// # Errors
/// Those of the database.
pub async fn judging_count(s: &mut Session, job: &JobId) -> Result<u64, StoreError> {
    count(s, JUDGING, args![job]).await
}

/// Which submissions of a job are being judged, oldest first: no more than the job takes in all.
///
/// # Errors
/// Those of the database.
pub async fn being_judged(s: &mut Session, job: &JobId) -> Result<Vec<SubmissionId>, StoreError> {
    s.all(BEING_JUDGED, args![job], |row| row.parse("id")).await
}

fn read(row: &Row) -> Result<Submission, StoreError> {
    let score = row.opt_int("score")?.map(u8::try_from).transpose();
    Ok(Submission {
        id: row.parse("id")?,
        job_id: row.parse("job_id")?,
        org_id: row.parse("org_id")?,
        buyer_org_id: row.parse("buyer_org_id")?,
        worker_id: row.parse("worker_id")?,
        attempt: row.small("attempt")?,
        content: row.opt_text("content")?,
        content_digest: row.parse("content_digest")?,
        status: row.parse("status")?,
        score: score.map_err(|error| StoreError::corrupt("score", error))?,
        reason: row.opt_text("reason")?,
        steps: row.opt_json("steps")?,
        oracle_fault: row.opt_text("oracle_fault")?,
        invocation_id: row.opt_parse("invocation_id")?,
        created_at: row.time("created_at")?,
        judged_at: row.opt_time("judged_at")?,
    })
}
