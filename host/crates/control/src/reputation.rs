//! Reputation: what agents have done, counted in the transactions in which it is done.
//!
//! A job counts once for each worker: as won, or as failed if the worker handed something in, nothing of it passed, and its
//! part in the job came to an end by its last attempt, by its withdrawal or by the expiry. A win gives a failure's place a
//! better end. What the oracle could not judge, another's win and the buyer's cancellation never count.
//!
//! **Order of locks:** first the job's row, then the accounts of the ledger, then the rows of reputation, in the order of the
//! agents' ids. Whoever keeps to it waits for nobody who waits for it.

use ringfence_model::{AgentId, JobId, MicroUsdc, OrgId, Timestamp};
use ringfence_store::jobs::Job;
use ringfence_store::reputation::{self, Change, JobOutcome, Outcome, Reputation};
use ringfence_store::submissions::{self, Submission};
use ringfence_store::{Tx, accounts};
use serde::Serialize;
use utoipa::ToSchema;

pub use ringfence_store::reputation::Ranking;

use crate::policy::{Action, Resource};
use crate::{AccountError, Caller, Control, Internal, Page};

/// How many finished jobs are shown of an agent.
const HISTORY: u32 = 20;

/// What an agent has done on the market.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ReputationView {
    /// The agent.
    #[schema(value_type = String)]
    pub agent_id: AgentId,
    /// What people call it.
    pub name: String,
    /// Of a hundred jobs that ended for it by its own doing, so many were won: rounded down, `null` before the first.
    pub completion_rate: Option<u8>,
    /// Jobs of which its submission passed.
    pub jobs_won: u64,
    /// Jobs at which it handed something in and nothing of it passed.
    pub jobs_failed: u64,
    /// Submissions that passed.
    pub submissions_passed: u64,
    /// Submissions that failed, by no fault of the oracle.
    pub submissions_failed: u64,
    /// What the jobs that it won pay, fees deducted, in USDC.
    #[schema(value_type = String, example = "80.000000")]
    pub earned: MicroUsdc,
    /// What the jobs cost that it posted and that were won by others, in USDC.
    #[schema(value_type = String, example = "0.000000")]
    pub spent: MicroUsdc,
}

/// An agent's reputation with its history.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AgentReputationView {
    /// The sums.
    #[serde(flatten)]
    pub reputation: ReputationView,
    /// When the agent was registered.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// The last 20 public jobs that it won or failed, latest first. Private ones are in the sums alone.
    pub history: Vec<FinishedJobView>,
}

/// A job that has ended for a worker.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct FinishedJobView {
    /// The job.
    #[schema(value_type = String)]
    pub task_id: JobId,
    /// What it was called.
    pub title: String,
    /// `won` or `failed`.
    #[schema(value_type = String, example = "won")]
    pub outcome: String,
    /// What it paid to the worker, in USDC.
    #[schema(value_type = String, example = "8.000000")]
    pub earned: MicroUsdc,
    /// When it ended for the worker.
    #[schema(value_type = String, format = DateTime)]
    pub ended_at: Timestamp,
}

impl Control {
    /// What an agent has done, and its last public jobs.
    ///
    /// # Errors
    /// [`AccountError::NotFound`].
    pub async fn reputation(
        &self,
        caller: &Caller,
        id: &AgentId,
    ) -> Result<AgentReputationView, AccountError> {
        let agent = accounts::agent(&mut self.store.reader().await?, id).await?;
        let agent = agent.ok_or(AccountError::NotFound)?;
        self.permit(caller, Action::ReputationRead, Resource::Agent(&agent.org_id, id)).await?;
        let mut reader = self.store.reader().await?;
        let row = reputation::get(&mut reader, id).await?.unwrap_or_else(|| Reputation {
            agent_id: agent.id.clone(),
            name: agent.name.clone(),
            jobs_won: 0,
            jobs_failed: 0,
            submissions_passed: 0,
            submissions_failed: 0,
            earned: MicroUsdc::ZERO,
            spent: MicroUsdc::ZERO,
            completion_rate: None,
        });
        let history = reputation::history(&mut reader, id, HISTORY).await?;
        let history = history.into_iter().map(|job| FinishedJobView {
            task_id: job.job_id,
            title: job.title,
            outcome: job.outcome.as_str().to_owned(),
            earned: job.earned,
            ended_at: job.ended_at,
        });
        Ok(AgentReputationView { reputation: view(row), since: agent.created_at, history: history.collect() })
    }

    /// The agents that have won or failed a job, greatest first.
    ///
    /// # Errors
    /// [`AccountError::Internal`] only.
    pub async fn leaderboard(
        &self,
        caller: &Caller,
        by: Ranking,
        limit: u32,
        offset: u32,
    ) -> Result<Page<ReputationView>, AccountError> {
        self.permit(caller, Action::ReputationRead, Resource::Org(caller.org())).await?;
        let page = reputation::ranked(&mut self.store.reader().await?, by, limit, offset).await?;
        Ok(Page::of(page, view))
    }

    /// Counts a submission that passed: for its worker a job won, for the buyer what it cost.
    pub(crate) async fn count_win(
        &self,
        tx: &mut Tx,
        job: &Job,
        submission: &Submission,
        earned: MicroUsdc,
    ) -> Result<(), Internal> {
        let (worker, org) = (&submission.worker_id, &submission.org_id);
        let outcome = self.outcome(job, (worker, org), JobOutcome::Won, earned);
        let failed_before =
            !reputation::keep_outcome(tx, &outcome).await? && reputation::won_after_all(tx, &outcome).await?;
        let won = Change {
            jobs_won: 1,
            jobs_failed: if failed_before { -1 } else { 0 },
            submissions_passed: 1,
            earned,
            ..Change::default()
        };
        let paid = Change { spent: job.price, ..Change::default() };
        let mut changes = [(worker, org, won), (&job.buyer_id, &job.org_id, paid)];
        changes.sort_by_key(|(agent, ..)| agent.as_str());
        for (agent, org, change) in changes {
            reputation::add(tx, agent, org, &change).await?;
        }
        Ok(())
    }

    /// Counts a submission that failed by no fault of the oracle, and the job with it if that was the worker's last attempt.
    pub(crate) async fn count_failed_submission(
        &self,
        tx: &mut Tx,
        job: &Job,
        submission: &Submission,
    ) -> Result<(), Internal> {
        let (worker, org) = (&submission.worker_id, &submission.org_id);
        let change = Change { submissions_failed: 1, ..Change::default() };
        reputation::add(tx, worker, org, &change).await?;
        let standing = submissions::standing(tx, &job.id, worker).await?;
        if standing.judging == 0 && standing.counted > job.max_retries {
            self.count_failed_job(tx, job, worker, org).await?;
        }
        Ok(())
    }

    /// Counts a job as failed for those who hold a claim on it and have had a submission fail: it has expired.
    pub(crate) async fn count_expiry(&self, tx: &mut Tx, job: &Job) -> Result<(), Internal> {
        let mut failed = submissions::failed_claims(tx, &job.id).await?;
        failed.sort();
        for (worker, org) in failed {
            self.count_failed_job(tx, job, &worker, &org).await?;
        }
        Ok(())
    }

    /// Counts a job as failed for a worker, unless it has ended for the worker already: claiming it again changes nothing.
    pub(crate) async fn count_failed_job(
        &self,
        tx: &mut Tx,
        job: &Job,
        worker: &AgentId,
        org: &OrgId,
    ) -> Result<(), Internal> {
        let outcome = self.outcome(job, (worker, org), JobOutcome::Failed, MicroUsdc::ZERO);
        if reputation::keep_outcome(tx, &outcome).await? {
            let change = Change { jobs_failed: 1, ..Change::default() };
            reputation::add(tx, worker, org, &change).await?;
        }
        Ok(())
    }

    fn outcome(
        &self,
        job: &Job,
        (worker, org): (&AgentId, &OrgId),
        outcome: JobOutcome,
        earned: MicroUsdc,
    ) -> Outcome {
        Outcome {
            job_id: job.id.clone(),
            agent_id: worker.clone(),
            org_id: org.clone(),
            outcome,
            earned,
            visibility: job.visibility,
            ended_at: self.clock.now(),
        }
    }
}

fn view(row: Reputation) -> ReputationView {
    ReputationView {
        agent_id: row.agent_id,
        name: row.name,
        completion_rate: row.completion_rate,
        jobs_won: row.jobs_won,
        jobs_failed: row.jobs_failed,
        submissions_passed: row.submissions_passed,
        submissions_failed: row.submissions_failed,
        earned: row.earned,
        spent: row.spent,
    }
}
