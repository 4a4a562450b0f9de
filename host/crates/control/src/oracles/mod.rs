//! Evaluation: an oracle judges a submission inside the sandbox, and the verdict moves the money.
//!
//! The oracle runs outside of any transaction. What it said is written in one transaction that first makes sure
//! that this attempt still holds its lease: a late attempt, on this host or another, writes nothing.

mod disputes;
mod faults;

use std::time::Duration;

use ringfence_model::{InvocationId, JobEvent, Sha256, SubmissionEvent, SubmissionId, SubmissionStatus};
use ringfence_runtime::{CallError, Invocation, Limits, OracleCall, Outcome, Step, Verdict};
use ringfence_store::jobs::{self, Job};
use ringfence_store::queue::{self, Leased};
use ringfence_store::records::{self, Record};
use ringfence_store::submissions::{self, Judgement, Submission};
use ringfence_store::{Tx, invocations, outbox};
use serde::Serialize;
use serde_json::json;

use crate::bots::{lines_text, usage_row};
use crate::guard::{self, Finding};
use crate::jobs::{OraclePin, pin_of};
use crate::submissions::{StepView, can_win};
use crate::worker::{Done, TaskKind};
use crate::{Control, EventName, Internal};

pub use disputes::{DisputeOutcome, DisputeRuling};

/// How often an evaluation is tried that the host cannot bring to its end, before the worker is told.
const MAX_ATTEMPTS: u32 = 8;

/// The name of the guard's step among those of a verdict.
const GUARD: &str = "guard";

/// How long it may take until the oracle runs.
const MAX_PREPARATION: Duration = Duration::from_secs(60);

/// What the oracle was given, in the order in which its digest is taken.
#[derive(Serialize)]
struct OracleInput<'a> {
    job: &'a ringfence_runtime::Job,
    submission: &'a ringfence_runtime::Submission,
}

impl Control {
    /// Judges the submission that `task` is about.
    pub(crate) async fn evaluate(&self, task: &Leased) -> Result<Done, Internal> {
        let id: SubmissionId = task
            .subject_id
            .parse()
            .map_err(|_| Internal::Invariant("an evaluation is about a submission"))?;
        let mut reader = self.store.reader().await?;
        let submission = submissions::get(&mut reader, &id).await?;
        let submission = submission.ok_or(Internal::Invariant("a submission vanished"))?;
        let job = jobs::get(&mut reader, &submission.job_id).await?;
        let job = job.ok_or(Internal::Invariant("a job vanished"))?;
        if !can_win(&job, submission.status) {
            return Ok(Done::Finished);
        }
        // Whatever goes wrong each time, the host's crash included: every evaluation comes to an end, or the escrow
        // would be held for ever.
        if task.attempt > MAX_ATTEMPTS {
            let reason = "The host could not evaluate this. This attempt does not count.".to_owned();
            return self.give_up(task, &submission, reason).await;
        }
        let input = match job.input_digest {
            Some(_) => jobs::input(&mut reader, &job.id).await?,
            None => None,
        };
        drop(reader);
        let pin = pin_of(&job)?.ok_or(Internal::Invariant("a funded job has its oracle"))?;

        if pin.guard
            && let Some(finding) = look_through(&submission).await?
        {
            return self.refuse(task, &submission, finding).await;
        }
        let call = self.oracle_call(&job, &submission, &pin, input)?;
        let given = serde_json::to_vec(&OracleInput { job: &call.job, submission: &call.submission })?;
        let started_at = self.clock.now();
        // The oracle has a limit of its own. This one is for what comes before: the wait for a slot, loading, compiling.
        let deadline = self.settings.oracle_timeout + MAX_PREPARATION;
        let Ok(called) = tokio::time::timeout(deadline, self.runtime.call_oracle(call)).await else {
            return Ok(Done::Again {
                after: Duration::from_secs(1),
                why: "the oracle did not get to run".to_owned(),
            });
        };
        match called {
            Ok(called) => {
                let oracle = pin.oracle()?;
                let row = invocations::Invocation {
                    id: InvocationId::new(&*self.clock, &*self.rng),
                    org_id: job.org_id.clone(),
                    bot_id: oracle.bot_id.clone(),
                    bot_version: oracle.version,
                    component_digest: oracle.component,
                    submission_id: Some(submission.id.clone()),
                    outcome: called.outcome.as_str().to_owned(),
                    detail: called
                        .failure
                        .as_ref()
                        .map(|failure| failure.message.clone())
                        .or(called.detail.clone()),
                    input_digest: Sha256::of(&given),
                    output_digest: called
                        .output
                        .as_ref()
                        .map(|verdict| serde_json::to_vec(verdict).map(|bytes| Sha256::of(&bytes)))
                        .transpose()?,
                    limits: serde_json::to_string(&oracle.limits)?.into(),
                    engine: ringfence_runtime::Runtime::engine_version().into(),
                    usage: usage_row(&called.usage),
                    started_at,
                };
                self.conclude(task, &submission, &pin, row, called).await
            }
            // Waiting for a slot is no attempt.
            Err(CallError::Busy { retry_after_ms }) => {
                Ok(Done::Anew { after: Duration::from_millis(retry_after_ms) })
            }
            Err(error) => Ok(Done::Again {
                after: Duration::from_secs(1 << task.attempt.min(6)),
                why: error.to_string(),
            }),
        }
    }

    fn oracle_call(
        &self,
        job: &Job,
        submission: &Submission,
        pin: &OraclePin,
        input: Option<String>,
    ) -> Result<OracleCall, Internal> {
        let timeout_ms = u64::try_from(self.settings.oracle_timeout.as_millis()).unwrap_or(u64::MAX);
        let oracle = pin.oracle()?;
        let limits = &oracle.limits;
        let limits = Limits { wall_time_ms: limits.wall_time_ms.min(timeout_ms), ..limits.clone() };
        let submitted_at_us = u64::try_from(submission.created_at.as_micros())
            .map_err(|_| Internal::Invariant("a submission was made before 1970"))?;
        let seed = format!("{}:{}", pin.seed_secret, submission.content_digest);
        Ok(OracleCall {
            digest: oracle.component,
            job: ringfence_runtime::Job {
                id: job.id.to_string(),
                title: job.title.clone(),
                description: job.description.clone(),
                rubric: job.rubric.clone(),
                artifact_type: job.artifact_type.clone(),
                input,
            },
            submission: ringfence_runtime::Submission {
                id: submission.id.to_string(),
                attempt: submission.attempt,
                content: submission
                    .content
                    .clone()
                    .ok_or(Internal::Invariant("a submission has its content"))?,
                submitted_at_us,
            },
            limits,
            config: oracle.config.clone(),
            seed: *Sha256::of(seed.as_bytes()).as_bytes(),
            tenant: job.org_id.as_str().into(),
        })
    }

    /// Writes what the oracle said, if this attempt may still speak for it.
    async fn conclude(
        &self,
        task: &Leased,
        submission: &Submission,
        pin: &OraclePin,
        row: invocations::Invocation,
        called: Invocation<Verdict>,
    ) -> Result<Done, Internal> {
        let mut tx = self.store.begin().await?;
        let job = match self.still_ours(&mut tx, task, submission).await? {
            Ok(job) => job,
            Err(done) => return Ok(done),
        };
        let verdict = called.output.filter(|_| called.outcome == Outcome::Completed);
        let verdict = verdict.map(|verdict| held_to(verdict, pin));
        let record = Record { call: row, lines: lines_text(called.logs)? };
        records::keep(&mut tx, std::slice::from_ref(&record)).await?;
        let row = record.call;
        let passed = verdict.as_ref().is_some_and(|verdict| verdict.passed);
        match verdict {
            Some(verdict) => self.give_verdict(&mut tx, &job, submission, &row.id, verdict).await?,
            None => self.oracle_failed(&mut tx, task, (&job, submission), &row, called.outcome).await?,
        }
        records::add_run(&mut tx, &row, passed).await?;
        tx.commit().await?;
        Ok(Done::Settled)
    }

    /// Fails a submission that speaks to whoever judges. It counts as an attempt, and the oracle never reads it.
    async fn refuse(
        &self,
        task: &Leased,
        submission: &Submission,
        finding: Finding,
    ) -> Result<Done, Internal> {
        let mut tx = self.store.begin().await?;
        let job = match self.still_ours(&mut tx, task, submission).await? {
            Ok(job) => job,
            Err(done) => return Ok(done),
        };
        let step = StepView { name: GUARD.to_owned(), passed: false, detail: finding.to_string() };
        let judgement = Judgement {
            score: None,
            reason: format!(
                "The submission speaks to whoever judges it: {finding}. The oracle did not read it."
            ),
            steps: Some(serde_json::to_value([step])?),
            oracle_fault: None,
            invocation_id: None,
        };
        self.fail(&mut tx, &job, submission, judgement).await?;
        tx.commit().await?;
        Ok(Done::Settled)
    }

    /// Locks the job, then takes the task off the queue, which only the attempt can that holds its lease, and makes sure that
    /// there is something left to judge. If not, says how the task ends: another attempt has it, or another submission won
    /// meanwhile. Nothing is to be committed then.
    async fn still_ours(
        &self,
        tx: &mut Tx,
        task: &Leased,
        submission: &Submission,
    ) -> Result<Result<Job, Done>, Internal> {
        let job = jobs::lock(tx, &submission.job_id).await?.ok_or(Internal::Invariant("a job vanished"))?;
        if !queue::finish(tx, &task.id, task.attempt).await? {
            return Ok(Err(Done::Lost));
        }
        let current = submissions::status(tx, &submission.id).await?;
        let current = current.ok_or(Internal::Invariant("a submission vanished"))?;
        Ok(if can_win(&job, current) { Ok(job) } else { Err(Done::Finished) })
    }

    async fn give_verdict(
        &self,
        tx: &mut Tx,
        job: &Job,
        submission: &Submission,
        invocation: &InvocationId,
        verdict: Verdict,
    ) -> Result<(), Internal> {
        let steps: Vec<StepView> = verdict
            .steps
            .into_iter()
            .map(|step| StepView { name: step.name, passed: step.passed, detail: step.detail })
            .collect();
        let judgement = Judgement {
            score: Some(verdict.score),
            reason: verdict.reason,
            steps: Some(serde_json::to_value(steps)?),
            oracle_fault: None,
            invocation_id: Some(invocation.clone()),
        };
        if !verdict.passed {
            jobs::no_fault(tx, &job.id).await?;
            return self.fail(tx, job, submission, judgement).await;
        }
        let now = self.clock.now();
        submission
            .status
            .transition(SubmissionEvent::Pass)
            .and(job.status.transition(JobEvent::Resolve).map(|_| SubmissionStatus::Passed))
            .map_err(|_| Internal::Invariant("a verdict came for what had ended"))?;
        // First pass wins: both updates are conditional, and the job is locked.
        let two_winners = Internal::Invariant("a locked job has two winners");
        if !submissions::judged(tx, &submission.id, SubmissionStatus::Passed, &judgement, now).await? {
            return Err(two_winners);
        }
        self.close_others(tx, job, "The job was won by another submission.").await?;
        queue::remove(tx, TaskKind::Expire.as_str(), job.id.as_str()).await?;
        let (worker, worker_org) = (&submission.worker_id, &submission.org_id);
        let parties = (&job.org_id, Some(worker_org));
        let verdict = json!({ "submission_id": submission.id, "worker_id": worker,
            "status": SubmissionStatus::Passed, "score": judgement.score });
        let completed = self.event(EventName::SubmissionCompleted, parties, &job.id, verdict.clone());
        let resolved = self.event(EventName::JobResolved, parties, &job.id, verdict);
        // Earned with the verdict, also where the payout has to be tried again.
        self.count_win(tx, job, submission, job.fee_bps.split(job.price).payout).await?;
        // Late, for all payouts meet at the platform's account for fees.
        let (payout, paid) = self.pay_out(tx, job, (worker_org, worker)).await?;
        if !jobs::resolve(tx, &job.id, &submission.id, worker, worker_org, &payout, now).await? {
            return Err(two_winners);
        }
        Ok(outbox::insert(tx, &[completed, resolved, paid]).await?)
    }

    async fn fail(
        &self,
        tx: &mut Tx,
        job: &Job,
        submission: &Submission,
        judgement: Judgement,
    ) -> Result<(), Internal> {
        let now = self.clock.now();
        if !submissions::judged(tx, &submission.id, SubmissionStatus::Failed, &judgement, now).await? {
            return Err(Internal::Invariant("a submission was judged twice"));
        }
        if judgement.oracle_fault.is_none() {
            self.count_failed_submission(tx, job, submission).await?;
        }
        let data = json!({ "submission_id": submission.id, "worker_id": submission.worker_id,
            "status": SubmissionStatus::Failed, "score": judgement.score });
        self.emit(tx, EventName::SubmissionCompleted, (&submission.org_id, Some(&job.org_id)), &job.id, data)
            .await
    }
}

/// The verdict as the job takes it: with the guard's step, and without the score that the job asks for, nothing passes.
fn held_to(mut verdict: Verdict, pin: &OraclePin) -> Verdict {
    if pin.guard {
        let detail = "no instructions to whoever judges were found".to_owned();
        verdict.steps.insert(0, Step { name: GUARD.to_owned(), passed: true, detail });
    }
    if !verdict.passed || verdict.score >= pin.min_score {
        return verdict;
    }
    let reason = format!(
        "The score of {} is below the job's least score of {}. The oracle says: {}",
        verdict.score, pin.min_score, verdict.reason
    );
    Verdict { passed: false, reason, ..verdict }
}

/// Looks for what speaks to whoever judges. It takes the processor for some time, like nothing else in a worker's task.
async fn look_through(submission: &Submission) -> Result<Option<Finding>, Internal> {
    let content = submission.content.clone().ok_or(Internal::Invariant("a submission has its content"))?;
    let looked = tokio::task::spawn_blocking(move || guard::look_through(&content)).await;
    looked.map_err(|_| Internal::Invariant("the guard comes to its end"))
}
