//! Disputes: a job whose escrow nothing moves until an operator has decided.
//!
//! Evaluations and the expiry of such a job find that it is disputed and leave the queue. What is being judged stays so.
//! Resuming puts all of them back.

use ringfence_model::{JobEvent, JobId, JobStatus, SubmissionStatus};
use ringfence_store::jobs::{self, Job};
use ringfence_store::{Tx, submissions};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::error::Checks;
use crate::error::rules::text;
use crate::jobs::{is_disputed, reread};
use crate::policy::{Action, Resource};
use crate::worker::TaskKind;
use crate::{Answer, Caller, Control, EventName, Idempotency, Internal, JobError, JobView};

/// What becomes of a disputed job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DisputeOutcome {
    /// The job is cancelled, and its escrow goes back to the buyer.
    Refund,
    /// The job goes on as it was: what is being judged is judged, and if its time is up, it expires then.
    Resume,
}

/// An operator's decision.
#[derive(Debug, Clone, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct DisputeRuling {
    /// `refund` or `resume`.
    #[garde(skip)]
    #[schema(inline)]
    pub outcome: DisputeOutcome,
    /// Why, for the audit log and the buyer: 1 to 2,000 characters.
    #[garde(custom(text(1, 2000)))]
    #[schema(min_length = 1, max_length = 2000)]
    pub reason: String,
}

impl Control {
    /// Ends a dispute.
    ///
    /// # Errors
    /// [`JobError::NotDisputed`], also if another decision came first.
    pub async fn resolve_dispute(
        &self,
        caller: &Caller,
        id: &JobId,
        ruling: DisputeRuling,
        once: Option<&Idempotency>,
    ) -> Result<Answer<JobView>, JobError> {
        self.permitted_job(caller, id, Action::DisputesResolve).await?;
        Checks::of(&ruling).done()?;
        let mut tx = self.store.begin().await?;
        if let Some(answer) = self.begin_once::<JobError>(&mut tx, caller, once).await? {
            return Ok(Answer::Replay(answer));
        }
        let job = jobs::lock(&mut tx, id).await?.ok_or(JobError::NotFound)?;
        if !is_disputed(&job) {
            return Err(JobError::NotDisputed);
        }
        let decided = json!({ "outcome": ruling.outcome, "reason": ruling.reason });
        self.emit(&mut tx, EventName::JobDisputeResolved, (&job.org_id, None), id, decided.clone()).await?;
        match ruling.outcome {
            DisputeOutcome::Refund => self.call_off(&mut tx, &job).await?,
            DisputeOutcome::Resume => self.resume(&mut tx, &job).await?,
        }
        let view = reread(&mut tx, id).await?;
        self.finish_once(&mut tx, caller, once, &view).await?;
        self.audit(&mut tx, caller, Action::DisputesResolve, Resource::Job(&job), decided).await?;
        tx.commit().await?;
        self.ring(TaskKind::Evaluate);
        self.ring(TaskKind::Expire);
        Ok(Answer::New(view))
    }

    /// Cancels the job, and closes what has not been judged.
    async fn call_off(&self, tx: &mut Tx, job: &Job) -> Result<(), Internal> {
        job.status
            .transition(JobEvent::Cancel)
            .map_err(|_| Internal::Invariant("a disputed job has ended"))?;
        let reason = "The job's dispute ended with a refund to its buyer.";
        self.close_others(tx, job, reason).await?;
        self.end_unresolved(tx, job, JobStatus::Cancelled, EventName::JobCancelled).await
    }

    async fn resume(&self, tx: &mut Tx, job: &Job) -> Result<(), Internal> {
        let now = self.clock.now();
        if !jobs::resume(tx, &job.id, now).await? {
            return Err(Internal::Invariant("a locked job changed its status"));
        }
        for submission in submissions::being_judged(tx, &job.id).await? {
            // An evaluation that began before the dispute may not have noticed yet: it loses its lease.
            let payload = json!({ "faults": 0 });
            self.enqueue_anew(tx, TaskKind::Evaluate, &job.org_id, submission.as_str(), now, payload).await?;
        }
        self.enqueue_anew(tx, TaskKind::Expire, &job.org_id, job.id.as_str(), job.expiry, json!({})).await
    }

    /// Closes all submissions of a job that are being judged, and tells of each.
    pub(super) async fn close_others(&self, tx: &mut Tx, job: &Job, reason: &str) -> Result<(), Internal> {
        for closed in submissions::close_all(tx, &job.id, reason, self.clock.now()).await? {
            let data = json!({ "submission_id": closed.id, "worker_id": closed.worker_id,
                "status": SubmissionStatus::Closed, "score": null });
            let parties = (&closed.org_id, Some(&job.org_id));
            self.emit(tx, EventName::SubmissionCompleted, parties, &job.id, data).await?;
        }
        Ok(())
    }
}
