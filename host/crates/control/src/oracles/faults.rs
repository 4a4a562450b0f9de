//! What becomes of a submission that was not judged: its oracle failed, or the host did.

use ringfence_runtime::Outcome;
use ringfence_store::jobs::{self, Job};
use ringfence_store::queue::Leased;
use ringfence_store::submissions::{Judgement, Submission};
use ringfence_store::{Tx, invocations};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::worker::{Done, TaskKind};
use crate::{Control, EventName, Internal};

/// How often an oracle may fail to judge one submission before it is given up.
const MAX_FAULTS: u32 = 2;

/// How many submissions of a job in a row the oracle may fail to judge, before a person has to decide about the job.
const MAX_FAULTED_IN_A_ROW: u32 = 3;

/// What stands in the place of the oracle's fault where it was the host's.
const UNAVAILABLE: &str = "unavailable";

/// What the queue keeps of an evaluation.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Payload {
    /// How often the oracle has failed to judge.
    faults: u32,
}

impl Control {
    /// The oracle has failed: it is asked once more, and then the submission fails, which is not counted against the worker.
    pub(super) async fn oracle_failed(
        &self,
        tx: &mut Tx,
        task: &Leased,
        (job, submission): (&Job, &Submission),
        call: &invocations::Invocation,
        outcome: Outcome,
    ) -> Result<(), Internal> {
        let payload: Payload = serde_json::from_value(task.payload.clone())?;
        let faults = payload.faults.saturating_add(1);
        if faults < MAX_FAULTS {
            let payload = serde_json::to_value(Payload { faults })?;
            let (kind, now) = (TaskKind::Evaluate, self.clock.now());
            return self.enqueue(tx, kind, &job.org_id, submission.id.as_str(), now, payload).await;
        }
        let judgement = Judgement {
            score: None,
            reason: fault_reason(outcome, call.detail.as_deref()),
            steps: None,
            oracle_fault: Some(outcome.as_str().to_owned()),
            invocation_id: Some(call.id.clone()),
        };
        self.fail(tx, job, submission, judgement).await?;
        self.count_fault(tx, job, submission).await
    }

    /// Counts a submission that the oracle could not judge. After some in a row the job goes to dispute: who is right about
    /// an oracle that does not judge is for a person to say, and until then the money stays where it is.
    async fn count_fault(&self, tx: &mut Tx, job: &Job, submission: &Submission) -> Result<(), Internal> {
        let now = self.clock.now();
        let faults = jobs::fault(tx, &job.id, now).await?;
        if faults < MAX_FAULTED_IN_A_ROW {
            return Ok(());
        }
        if !jobs::dispute(tx, &job.id, now).await? {
            return Err(Internal::Invariant("a locked job changed its escrow"));
        }
        tracing::warn!(
            task_id = job.id.as_str(),
            faults,
            "a job is disputed: its oracle keeps failing to judge"
        );
        let data = json!({ "cause": "oracle_fault", "submission_id": submission.id, "faults": faults });
        let parties = (&job.org_id, Some(&submission.org_id));
        self.emit(tx, EventName::JobDisputed, parties, &job.id, data).await
    }

    /// Ends a submission whose oracle never got to judge. That is the host's fault, not the oracle's.
    pub(super) async fn give_up(
        &self,
        task: &Leased,
        submission: &Submission,
        reason: String,
    ) -> Result<Done, Internal> {
        let mut tx = self.store.begin().await?;
        let job = match self.still_ours(&mut tx, task, submission).await? {
            Ok(job) => job,
            Err(done) => return Ok(done),
        };
        let judgement = Judgement {
            score: None,
            reason,
            steps: None,
            oracle_fault: Some(UNAVAILABLE.to_owned()),
            invocation_id: None,
        };
        self.fail(&mut tx, &job, submission, judgement).await?;
        tx.commit().await?;
        Ok(Done::Settled)
    }
}

/// What the worker reads when the oracle, and not the work, was at fault.
fn fault_reason(outcome: Outcome, detail: Option<&str>) -> String {
    match outcome {
        Outcome::TimedOut => "Evaluation timed out".to_owned(),
        _ => format!(
            "The oracle could not judge this ({}{}). This attempt does not count.",
            outcome.as_str(),
            detail.map(|detail| format!(": {detail}")).unwrap_or_default()
        ),
    }
}
