//! What agents have done on the market: a row for each, changed by the transactions that end submissions and jobs.

use ringfence_model::{AgentId, JobId, MicroUsdc, OrgId, Timestamp, Visibility};

use crate::session::{Row, args};
use crate::statements::statements;
use crate::{Page, Session, StoreError, count, words};

words! {
    /// How a job ended for a worker.
    JobOutcome ("job outcome") {
        /// Its submission passed.
        Won = "won",
        /// It handed something in, and nothing of it passed.
        Failed = "failed",
    }
}

/// What an agent has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reputation {
    /// The agent.
    pub agent_id: AgentId,
    /// What it is called.
    pub name: String,
    /// Jobs of which its submission passed.
    pub jobs_won: u64,
    /// Jobs at which nothing of its passed.
    pub jobs_failed: u64,
    /// Submissions that passed.
    pub submissions_passed: u64,
    /// Submissions that failed by no fault of the oracle.
    pub submissions_failed: u64,
    /// What the jobs that it won pay, fees deducted.
    pub earned: MicroUsdc,
    /// What the jobs cost that it posted and that were won.
    pub spent: MicroUsdc,
    /// Won of a hundred that were won or failed, rounded down; `None` before the first.
    pub completion_rate: Option<u8>,
}

/// What is added to what an agent has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// To `jobs_won`.
    pub jobs_won: i64,
    /// To `jobs_failed`: −1 where a failure gives way to a win.
    pub jobs_failed: i64,
    /// To `submissions_passed`.
    pub submissions_passed: i64,
    /// To `submissions_failed`.
    pub submissions_failed: i64,
    /// To `earned`.
    pub earned: MicroUsdc,
    /// To `spent`.
    pub spent: MicroUsdc,
}

/// How a job ended for a worker, to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The job.
    pub job_id: JobId,
    /// The worker.
    pub agent_id: AgentId,
    /// The worker's org.
    pub org_id: OrgId,
    /// How.
    pub outcome: JobOutcome,
    /// What it pays to the worker.
    pub earned: MicroUsdc,
    /// The job's.
    pub visibility: Visibility,
    /// When.
    pub ended_at: Timestamp,
}

/// A job that has ended for a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// The job.
    pub job_id: JobId,
    /// What it was called.
    pub title: String,
    /// How it ended for the worker.
    pub outcome: JobOutcome,
    /// What it paid to the worker.
    pub earned: MicroUsdc,
    /// When.
    pub ended_at: Timestamp,
}

/// By what agents are ranked, greatest first; those that are equal in it, by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranking {
    /// What they have earned.
    Earned,
    /// How many jobs they have won.
    JobsWon,
    /// Their completion rate; of equal ones, who has won more.
    CompletionRate,
}

macro_rules! select {
    ($order:literal) => {
        concat!(
            select!(),
            " WHERE r.completion_rate IS NOT NULL ORDER BY ",
            $order,
            ", r.agent_id LIMIT $1 OFFSET $2"
        )
    };
    () => {
        "SELECT r.agent_id, a.name, r.jobs_won, r.jobs_failed, r.submissions_passed, r.submissions_failed, r.earned, r.spent,
        r.completion_rate FROM reputation r JOIN agents a ON a.id = r.agent_id"
    };
}

statements! {
    ENSURE = "INSERT INTO reputation (agent_id, org_id, jobs_won, jobs_failed, submissions_passed, submissions_failed, earned,
        spent) VALUES ($1, $2, 0, 0, 0, 0, 0, 0) ON CONFLICT (agent_id) DO NOTHING";
    // Sums that no real amount reaches stop growing: a verdict must never fail by them.
    ADD = "UPDATE reputation SET jobs_won = jobs_won + $2, jobs_failed = jobs_failed + $3,
        submissions_passed = submissions_passed + $4, submissions_failed = submissions_failed + $5,
        earned = CASE WHEN earned > 8000000000000000000 THEN earned ELSE earned + $6 END,
        spent = CASE WHEN spent > 8000000000000000000 THEN spent ELSE spent + $7 END,
        completion_rate = CASE WHEN jobs_won + $2 + jobs_failed + $3 > 0
            THEN (jobs_won + $2) * 100 / (jobs_won + $2 + jobs_failed + $3) END
        WHERE agent_id = $1";
    GET = concat!(select!(), " WHERE r.agent_id = $1");
    RATE = "SELECT completion_rate FROM reputation WHERE agent_id = $1";
    BY_EARNED = select!("r.earned DESC");
    BY_WON = select!("r.jobs_won DESC");
    BY_RATE = select!("r.completion_rate DESC, r.jobs_won DESC");
    COUNT_RANKED = "SELECT COUNT(*) AS n FROM (
        SELECT 1 FROM reputation WHERE completion_rate IS NOT NULL LIMIT 1000) AS counted";
    KEEP_OUTCOME = "INSERT INTO job_outcomes (job_id, agent_id, org_id, outcome, earned, visibility, ended_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (job_id, agent_id) DO NOTHING";
    WON_AFTER_ALL = "UPDATE job_outcomes SET outcome = 'won', earned = $3, ended_at = $4
        WHERE job_id = $1 AND agent_id = $2 AND outcome = 'failed'";
    HISTORY = "SELECT o.job_id, j.title, o.outcome, o.earned, o.ended_at FROM job_outcomes o JOIN jobs j ON j.id = o.job_id
        WHERE o.agent_id = $1 AND o.visibility = 'public' ORDER BY o.ended_at DESC, o.job_id DESC LIMIT $2";
}

/// Adds to what an agent has done. Its row is locked until the transaction ends.
///
/// # Errors
/// [`StoreError::Refused`] for a change below zero.
pub async fn add(s: &mut Session, agent: &AgentId, org: &OrgId, change: &Change) -> Result<(), StoreError> {
    let args = args![
        agent,
        change.jobs_won,
        change.jobs_failed,
        change.submissions_passed,
        change.submissions_failed,
        change.earned,
        change.spent,
    ];
    if s.execute(ADD, args.clone()).await? == 0 {
        // The first for this agent, or the second of two at once: that one waits here.
        s.execute(ENSURE, args![agent, org]).await?;
        s.execute(ADD, args).await?;
    }
    Ok(())
}

/// What an agent has done; `None` before anything.
///
/// # Errors
/// Those of the database.
pub async fn get(s: &mut Session, agent: &AgentId) -> Result<Option<Reputation>, StoreError> {
    s.optional(GET, args![agent], read).await
}

/// An agent's completion rate.
///
/// # Errors
/// Those of the database.
pub async fn rate(s: &mut Session, agent: &AgentId) -> Result<Option<u8>, StoreError> {
    Ok(s.optional(RATE, args![agent], read_rate).await?.flatten())
}

/// The agents for which a job has ended, ranked.
///
/// # Errors
/// Those of the database.
pub async fn ranked(
    s: &mut Session,
    by: Ranking,
    limit: u32,
    offset: u32,
) -> Result<Page<Reputation>, StoreError> {
    let sql = match by {
        Ranking::Earned => BY_EARNED,
        Ranking::JobsWon => BY_WON,
        Ranking::CompletionRate => BY_RATE,
    };
    let total = count(s, COUNT_RANKED, args![]).await?;
    Ok(Page { items: s.all(sql, args![limit, offset], read).await?, total })
}

/// Keeps how a job ended for a worker; `false` if it had ended for the worker before: then nothing is changed.
///
/// # Errors
/// Those of the database.
pub async fn keep_outcome(s: &mut Session, outcome: &Outcome) -> Result<bool, StoreError> {
    let args = args![
        &outcome.job_id,
        &outcome.agent_id,
        &outcome.org_id,
        outcome.outcome.as_str(),
        outcome.earned,
        outcome.visibility,
        outcome.ended_at,
    ];
    Ok(s.execute(KEEP_OUTCOME, args).await? > 0)
}

/// A job that was kept as failed for a worker was won in the end; whether it was kept so.
///
/// # Errors
/// Those of the database.
pub async fn won_after_all(s: &mut Session, won: &Outcome) -> Result<bool, StoreError> {
    let args = args![&won.job_id, &won.agent_id, won.earned, won.ended_at];
    Ok(s.execute(WON_AFTER_ALL, args).await? > 0)
}

/// The public jobs that ended last for an agent, latest first.
///
/// # Errors
/// Those of the database.
pub async fn history(s: &mut Session, agent: &AgentId, limit: u32) -> Result<Vec<Finished>, StoreError> {
    s.all(HISTORY, args![agent, limit], |row| {
        Ok(Finished {
            job_id: row.parse("job_id")?,
            title: row.text("title")?,
            outcome: row.parse("outcome")?,
            earned: row.money("earned")?,
            ended_at: row.time("ended_at")?,
        })
    })
    .await
}

fn read_rate(row: &Row) -> Result<Option<u8>, StoreError> {
    let rate = row.opt_int("completion_rate")?.map(u8::try_from).transpose();
    rate.map_err(|error| StoreError::corrupt("completion_rate", error))
}

fn read(row: &Row) -> Result<Reputation, StoreError> {
    Ok(Reputation {
        agent_id: row.parse("agent_id")?,
        name: row.text("name")?,
        jobs_won: row.count("jobs_won")?,
        jobs_failed: row.count("jobs_failed")?,
        submissions_passed: row.count("submissions_passed")?,
        submissions_failed: row.count("submissions_failed")?,
        earned: row.money("earned")?,
        spent: row.money("spent")?,
        completion_rate: read_rate(row)?,
    })
}
