//! Submissions: taken from workers who hold a claim, judged from the queue, private to those whom they concern.

use ringfence_model::{
    AgentId, InvocationId, JobId, JobStatus, Sha256, SubmissionId, SubmissionStatus, Timestamp,
};
use ringfence_store::jobs::{self, Job};
use ringfence_store::submissions::{self, Submission};
use ringfence_store::{Session, StoreError, invocations, parties};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::error::Checks;
use crate::jobs::is_disputed;
use crate::policy::{Action, Resource};
use crate::worker::TaskKind;
use crate::{
    Answer, Caller, Control, Denied, EventName, Idempotency, IdempotencyError, Internal, JobError, Page,
    UsageView,
};

/// How many submissions of a worker may meet an oracle that cannot judge them, before no more are taken from this worker.
/// (Counted by worker: nobody uses up what others may hand in. Three faults in a row are a matter for a person all the same.)
const MAX_FAULTED: u32 = 10;

/// A result, handed in.
#[derive(Debug, Clone, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct NewSubmission {
    /// Must be the caller, where it is named at all.
    #[garde(skip)]
    #[schema(value_type = Option<String>)]
    pub worker_id: Option<AgentId>,
    /// The work: any JSON.
    #[garde(skip)]
    #[schema(value_type = Value)]
    pub content: Box<RawValue>,
}

/// One thing that the oracle looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// What was looked at.
    pub name: String,
    /// Whether it was as it must be.
    pub passed: bool,
    /// What was expected and what was found.
    pub detail: String,
}

/// How the oracle came to its verdict: enough to run it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EvaluationView {
    /// The call of the oracle.
    #[schema(value_type = String)]
    pub invocation_id: InvocationId,
    /// How the call ended.
    pub outcome: String,
    /// The oracle's component.
    #[schema(value_type = String)]
    pub component: Sha256,
    /// The digest of the job and the submission as the oracle got them.
    #[schema(value_type = String)]
    pub input_digest: Sha256,
    /// The digest of its verdict.
    #[schema(value_type = Option<String>)]
    pub output_digest: Option<Sha256>,
    /// The engine that ran it.
    pub engine: String,
    /// What it used.
    pub usage: UsageView,
}

/// A submission, as far as the caller may see it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SubmissionView {
    /// The submission.
    #[schema(value_type = String)]
    pub submission_id: SubmissionId,
    /// The job.
    #[schema(value_type = String)]
    pub task_id: JobId,
    /// Whose it is.
    #[schema(value_type = String)]
    pub worker_id: AgentId,
    /// 1 for the worker's first at this job.
    pub attempt: u32,
    /// `judging`, `passed`, `failed` or `closed`.
    #[schema(value_type = String, example = "passed")]
    pub status: SubmissionStatus,
    /// 0 to 100, once judged.
    pub score: Option<u8>,
    /// When it was handed in.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was judged or closed.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub judged_at: Option<Timestamp>,
    /// What only the worker, and of the winning one the buyer, may see.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub private: Option<PrivateSubmissionView>,
}

/// The private part of a submission.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PrivateSubmissionView {
    /// The work, as it was handed in: to the byte. A listing leaves out what is larger than 64 KiB, here and in the reason
    /// and the steps: read the submission by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Value)]
    pub content: Option<Box<RawValue>>,
    /// The digest of the work, as it was handed in.
    #[schema(value_type = String)]
    pub content_digest: Sha256,
    /// The verdict in words.
    pub reason: Option<String>,
    /// How the oracle came to it.
    pub steps: Option<Vec<StepView>>,
    /// Set where the oracle could not judge; the attempt does not count then.
    pub oracle_fault: Option<String>,
    /// The call of the oracle.
    pub evaluation: Option<EvaluationView>,
}

/// Why a submission was not taken, or cannot be seen.
#[derive(Debug, thiserror::Error)]
pub enum SubmissionError {
    /// What stands in the way is the job.
    #[error(transparent)]
    Job(#[from] JobError),
    /// No such submission.
    #[error("there is no submission with this id")]
    NotFound,
    /// The worker has used its attempts.
    #[error("this worker has used all of its {allowed} attempts")]
    AttemptsUsed {
        /// How many it had.
        allowed: u32,
    },
    /// The job's oracle fails to judge what this worker hands in.
    #[error("the job's oracle has failed to judge {faults} submissions of this worker")]
    OracleUnreliable {
        /// How often.
        faults: u32,
    },
    /// The job takes no more.
    #[error("the job takes no more than {allowed} submissions")]
    JobFull {
        /// How many it takes.
        allowed: u32,
    },
}

impl From<StoreError> for SubmissionError {
    fn from(error: StoreError) -> Self {
        Self::Job(error.into())
    }
}

impl From<Internal> for SubmissionError {
    fn from(error: Internal) -> Self {
        Self::Job(error.into())
    }
}

impl From<Denied> for SubmissionError {
    fn from(denied: Denied) -> Self {
        Self::Job(denied.into())
    }
}

impl From<IdempotencyError> for SubmissionError {
    fn from(error: IdempotencyError) -> Self {
        Self::Job(error.into())
    }
}

impl Control {
    /// Hands in a result. It is judged soon after; the answer does not wait for that.
    ///
    /// # Errors
    /// [`JobError::NotClaimed`]; [`JobError::Expired`] and [`JobError::WrongStatus`] once the job has ended;
    /// [`SubmissionError::AttemptsUsed`].
    pub async fn submit(
        &self,
        caller: &Caller,
        id: &JobId,
        new: NewSubmission,
        once: Option<&Idempotency>,
    ) -> Result<Answer<SubmissionView>, SubmissionError> {
        let worker = caller.agent().ok_or(JobError::NotAnAgent)?;
        if new.worker_id.as_ref().is_some_and(|named| named != worker) {
            return Err(JobError::OtherAgent.into());
        }
        Checks::of(&new).done().map_err(JobError::from)?;
        self.permitted_job(caller, id, Action::JobsSubmit).await?;
        let mut tx = self.store.begin().await?;
        if let Some(answer) = self.begin_once::<SubmissionError>(&mut tx, caller, once).await? {
            return Ok(Answer::Replay(answer));
        }
        // The lock lets one submission of a job be counted at a time.
        let job = jobs::lock(&mut tx, id).await?.ok_or(JobError::NotFound)?;
        self.takes_work(&job)?;
        let attempts = submissions::attempts(&mut tx, id, worker).await?;
        if !attempts.claimed {
            return Err(JobError::NotClaimed.into());
        }
        let allowed = job.max_retries.saturating_add(1);
        if attempts.counted_by_worker >= allowed {
            return Err(SubmissionError::AttemptsUsed { allowed });
        }
        if attempts.counted_total >= job.max_submissions {
            return Err(SubmissionError::JobFull { allowed: job.max_submissions });
        }
        // What the oracle could not judge does not count, and yet it was work for the host.
        if attempts.faulted_by_worker >= MAX_FAULTED {
            return Err(SubmissionError::OracleUnreliable { faults: attempts.faulted_by_worker });
        }
        let now = self.clock.now();
        let submission = Submission {
            id: SubmissionId::new(&*self.clock, &*self.rng),
            job_id: id.clone(),
            org_id: caller.org().clone(),
            buyer_org_id: job.org_id.clone(),
            worker_id: worker.clone(),
            attempt: attempts.last_attempt.saturating_add(1),
            content: Some(new.content.get().to_owned()),
            content_digest: Sha256::of(new.content.get().as_bytes()),
            status: SubmissionStatus::Judging,
            score: None,
            reason: None,
            steps: None,
            oracle_fault: None,
            invocation_id: None,
            created_at: now,
            judged_at: None,
        };
        submissions::insert(&mut tx, &submission).await?;
        let payload = json!({ "faults": 0 });
        self.enqueue(&mut tx, TaskKind::Evaluate, &job.org_id, submission.id.as_str(), now, payload).await?;
        let data = json!({ "submission_id": submission.id, "attempt": submission.attempt });
        self.emit(&mut tx, EventName::SubmissionCreated, (caller.org(), Some(&job.org_id)), id, data).await?;
        let view = submission_view(&mut tx, submission, true).await?;
        self.finish_once(&mut tx, caller, once, &view).await?;
        let detail = json!({ "submission_id": view.submission_id });
        self.audit(&mut tx, caller, Action::JobsSubmit, Resource::Job(&job), detail).await?;
        tx.commit().await?;
        self.ring(TaskKind::Evaluate);
        Ok(Answer::New(view))
    }

    /// One submission: all of it for its worker, and for the buyer once it has won; for others, that it exists.
    ///
    /// # Errors
    /// [`SubmissionError::NotFound`].
    pub async fn submission(
        &self,
        caller: &Caller,
        id: &SubmissionId,
    ) -> Result<SubmissionView, SubmissionError> {
        let mut reader = self.store.reader().await?;
        let submission = submissions::get(&mut reader, id).await?.ok_or(SubmissionError::NotFound)?;
        let party = submission.org_id == *caller.org()
            || caller.reaches(&submission.buyer_org_id)
            || parties::sees(&mut reader, &submission.job_id, caller.org()).await?;
        drop(reader);
        if !party {
            return Err(SubmissionError::NotFound);
        }
        self.permit(caller, Action::SubmissionsRead, Resource::Submission(&submission)).await?;
        let private = may_see(caller, &submission);
        Ok(submission_view(&mut self.store.reader().await?, submission, private).await?)
    }

    /// The submissions of a job, oldest first, each as far as the caller may see it.
    ///
    /// # Errors
    /// [`JobError::NotFound`].
    pub async fn submissions_of_job(
        &self,
        caller: &Caller,
        id: &JobId,
        limit: u32,
        offset: u32,
    ) -> Result<Page<SubmissionView>, SubmissionError> {
        self.permitted_job(caller, id, Action::SubmissionsList).await?;
        let mut reader = self.store.reader().await?;
        let page = submissions::list_of_job(&mut reader, id, limit, offset).await?;
        views(&mut reader, caller, page).await
    }

    /// The caller's own submissions over all jobs, newest first.
    ///
    /// # Errors
    /// [`JobError::OtherAgent`] if `worker` is not the caller.
    pub async fn own_submissions(
        &self,
        caller: &Caller,
        worker: Option<&AgentId>,
        limit: u32,
        offset: u32,
    ) -> Result<Page<SubmissionView>, SubmissionError> {
        let own = caller.agent().ok_or(JobError::NotAnAgent)?;
        if worker.is_some_and(|named| named != own) {
            return Err(JobError::OtherAgent.into());
        }
        self.permit(caller, Action::SubmissionsList, Resource::Org(caller.org())).await?;
        let mut reader = self.store.reader().await?;
        let page = submissions::list_of_worker(&mut reader, own, limit, offset).await?;
        views(&mut reader, caller, page).await
    }
}

/// The worker sees its own; the buyer's side sees what has won, for that is paid for.
fn may_see(caller: &Caller, submission: &Submission) -> bool {
    caller.agent() == Some(&submission.worker_id)
        || (submission.status == SubmissionStatus::Passed && submission.buyer_org_id == *caller.org())
}

async fn views(
    reader: &mut Session,
    caller: &Caller,
    page: ringfence_store::Page<Submission>,
) -> Result<Page<SubmissionView>, SubmissionError> {
    let mut items = Vec::with_capacity(page.items.len());
    for submission in page.items {
        let private = may_see(caller, &submission);
        items.push(submission_view(reader, submission, private).await?);
    }
    Ok(Page { items, total: page.total })
}

async fn submission_view(
    session: &mut Session,
    submission: Submission,
    private: bool,
) -> Result<SubmissionView, Internal> {
    let private = if private {
        let evaluation = match &submission.invocation_id {
            Some(id) => invocations::get(session, id).await?.map(|call| EvaluationView {
                invocation_id: call.id,
                outcome: call.outcome,
                component: call.component_digest,
                input_digest: call.input_digest,
                output_digest: call.output_digest,
                engine: call.engine.to_string(),
                usage: call.usage.into(),
            }),
            None => None,
        };
        Some(PrivateSubmissionView {
            content: submission.content.map(RawValue::from_string).transpose()?,
            content_digest: submission.content_digest,
            reason: submission.reason,
            steps: submission.steps.map(serde_json::from_value).transpose()?,
            oracle_fault: submission.oracle_fault,
            evaluation,
        })
    } else {
        None
    };
    Ok(SubmissionView {
        submission_id: submission.id,
        task_id: submission.job_id,
        worker_id: submission.worker_id,
        attempt: submission.attempt,
        status: submission.status,
        score: submission.score,
        created_at: submission.created_at,
        judged_at: submission.judged_at,
        private,
    })
}

/// Whether a submission can still change what becomes of its job.
pub(crate) fn can_win(job: &Job, submission: SubmissionStatus) -> bool {
    job.status == JobStatus::Funded && !is_disputed(job) && submission == SubmissionStatus::Judging
}
