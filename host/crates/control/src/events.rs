use ringfence_model::{EventId, JobId, OrgId};
use ringfence_store::Tx;
use ringfence_store::outbox::{self, Event};
use serde_json::Value;

use crate::{Control, Internal};

/// The events of the market, by the names under which they are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventName {
    /// `job.created`
    JobCreated,
    /// `job.updated`
    JobUpdated,
    /// `job.funded`
    JobFunded,
    /// `job.claimed`
    JobClaimed,
    /// `job.unclaimed`
    JobUnclaimed,
    /// `job.resolved`
    JobResolved,
    /// `job.expired`
    JobExpired,
    /// `job.cancelled`
    JobCancelled,
    /// `job.disputed`: nothing moves it until an operator has decided.
    JobDisputed,
    /// `job.dispute_resolved`
    JobDisputeResolved,
    /// `submission.created`
    SubmissionCreated,
    /// `submission.completed`: judged or closed.
    SubmissionCompleted,
    /// `payout.completed`
    PayoutCompleted,
    /// `payout.failed`: the job is resolved, and its price is kept for the worker.
    PayoutFailed,
}

impl EventName {
    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::JobCreated => "job.created",
            Self::JobUpdated => "job.updated",
            Self::JobFunded => "job.funded",
            Self::JobClaimed => "job.claimed",
            Self::JobUnclaimed => "job.unclaimed",
            Self::JobResolved => "job.resolved",
            Self::JobExpired => "job.expired",
            Self::JobCancelled => "job.cancelled",
            Self::JobDisputed => "job.disputed",
            Self::JobDisputeResolved => "job.dispute_resolved",
            Self::SubmissionCreated => "submission.created",
            Self::SubmissionCompleted => "submission.completed",
            Self::PayoutCompleted => "payout.completed",
            Self::PayoutFailed => "payout.failed",
        }
    }
}

impl Control {
    /// Writes an event in the transaction of the change that it tells of.
    pub(crate) async fn emit(
        &self,
        tx: &mut Tx,
        event: EventName,
        (org, other): (&OrgId, Option<&OrgId>),
        job: &JobId,
        data: Value,
    ) -> Result<(), Internal> {
        let event = self.event(event, (org, other), job, data);
        Ok(outbox::insert(tx, &[event]).await?)
    }

    /// An event, to be written in the transaction of the change that it tells of.
    pub(crate) fn event(
        &self,
        event: EventName,
        (org, other): (&OrgId, Option<&OrgId>),
        job: &JobId,
        data: Value,
    ) -> Event {
        Event {
            id: EventId::new(&*self.clock, &*self.rng),
            org_id: org.clone(),
            other_org_id: other.filter(|other| *other != org).cloned(),
            event: event.as_str().to_owned(),
            task_id: Some(job.clone()),
            data,
            created_at: self.clock.now(),
        }
    }
}
