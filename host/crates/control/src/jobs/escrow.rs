//! A job's money: paying it in, giving it back, and paying out again what could not be paid.

use ringfence_model::{EscrowStatus, JobEvent, JobId, JobStatus, MicroUsdc, OrgId, PayoutStatus, hex};
use ringfence_store::jobs::{self, Job};
use ringfence_store::ledger::TransferKind;
use ringfence_store::{Tx, components, queue, submissions};
use serde_json::json;

use super::{
    FundedView, JobError, JobView, NewFunding, OraclePin, OraclePinView, is_disputed, job_view, reread,
};
use crate::ledger::{Movement, NotMoved, Retried, excess_of};
use crate::policy::{Action, Resource};
use crate::worker::TaskKind;
use crate::{Answer, Caller, Control, EventName, Idempotency, Internal};

impl Control {
    /// Moves the price, or more if the buyer says so, from the buyer's balance into the job's escrow, and fixes the oracle.
    ///
    /// # Errors
    /// [`JobError::DepositTooSmall`]; [`JobError::InsufficientFunds`]; [`JobError::AccountFrozen`];
    /// [`JobError::WrongStatus`] if the job is not open.
    pub async fn fund_job(
        &self,
        caller: &Caller,
        id: &JobId,
        funding: NewFunding,
        once: Option<&Idempotency>,
    ) -> Result<Answer<FundedView>, JobError> {
        self.own_job(caller, id, Action::JobsFund).await?;
        let mut tx = self.store.begin().await?;
        if let Some(answer) = self.begin_once::<JobError>(&mut tx, caller, once).await? {
            return Ok(Answer::Replay(answer));
        }
        let job = jobs::lock(&mut tx, id).await?.ok_or(JobError::NotFound)?;
        let now = self.clock.now();
        job.status.transition(JobEvent::Fund).map_err(|_| JobError::WrongStatus { status: job.status })?;
        if job.expiry <= now {
            return Err(JobError::Expired { expiry: job.expiry });
        }
        let oracle = self.usable_oracle(&mut tx, caller, &job.oracle_bot_id).await?;
        let mut secret = [0; 32];
        self.rng.fill(&mut secret);
        let component = components::get(&mut tx, &oracle.org_id, &oracle.component_digest).await?;
        let asks_a_model =
            component.is_some_and(|component| component.capabilities.iter().any(|one| one == "llm"));
        let pin = OraclePin {
            oracles: vec![OraclePinView {
                bot_id: oracle.id,
                version: oracle.version,
                component: oracle.component_digest,
                config: oracle.config,
                limits: serde_json::from_value(oracle.limits).map_err(Internal::from)?,
            }],
            quorum: 1,
            min_score: job.min_score,
            guard: job.guard.unwrap_or(asks_a_model),
            seed_secret: hex(&secret),
        };

        let amount = funding.amount.unwrap_or(job.price);
        if amount < job.price {
            return Err(JobError::DepositTooSmall { amount, price: job.price });
        }
        let pin = serde_json::to_value(pin).map_err(Internal::from)?;
        let funded = jobs::fund(&mut tx, id, &pin, amount, now).await?;
        let funded = funded.ok_or(Internal::Invariant("a locked job changed its status"))?;
        let told = self.tell_bots(&mut tx, &job).await?;
        // Late, for all that the buyer funds meets at the buyer's account.
        let [buyer, escrow] = self.buyer_and_escrow(&mut tx, &job).await?;
        let movement =
            Movement { kind: TransferKind::Fund, from: &buyer.id, to: &escrow.id, amount, job: id };
        match self.book(&mut tx, &job.org_id, movement).await? {
            Ok(()) => {}
            Err(NotMoved::Frozen) => return Err(JobError::AccountFrozen),
            Err(NotMoved::InsufficientFunds) => {
                // Read after it was locked.
                let account = self.agent_account(&mut tx, &job.org_id, &job.buyer_id).await?;
                let available = MicroUsdc::from_micros(account.available_micros()).unwrap_or(MicroUsdc::ZERO);
                return Err(JobError::InsufficientFunds { available, amount });
            }
        }
        let data = json!({ "amount": amount });
        self.emit(&mut tx, EventName::JobFunded, (&job.org_id, None), id, data).await?;
        let view = FundedView { job: job_view(funded)?, warnings: overpaid(amount, job.price) };
        self.finish_once(&mut tx, caller, once, &view).await?;
        let detail = json!({ "amount": amount });
        self.audit(&mut tx, caller, Action::JobsFund, Resource::Job(&job), detail).await?;
        tx.commit().await?;
        if told {
            self.ring(TaskKind::Work);
        }
        Ok(Answer::New(view))
    }

    /// Calls a job off; what was in escrow goes back to the buyer.
    ///
    /// # Errors
    /// [`JobError::Judging`] while a submission is judged; [`JobError::WrongStatus`] once the job has ended.
    pub async fn cancel_job(
        &self,
        caller: &Caller,
        id: &JobId,
        once: Option<&Idempotency>,
    ) -> Result<Answer<JobView>, JobError> {
        self.own_job(caller, id, Action::JobsCancel).await?;
        let mut tx = self.store.begin().await?;
        if let Some(answer) = self.begin_once::<JobError>(&mut tx, caller, once).await? {
            return Ok(Answer::Replay(answer));
        }
        let job = jobs::lock(&mut tx, id).await?.ok_or(JobError::NotFound)?;
        job.status.transition(JobEvent::Cancel).map_err(|_| JobError::WrongStatus { status: job.status })?;
        if is_disputed(&job) {
            return Err(JobError::Disputed);
        }
        if submissions::judging_count(&mut tx, id).await? > 0 {
            return Err(JobError::Judging);
        }
        self.end_unresolved(&mut tx, &job, JobStatus::Cancelled, EventName::JobCancelled).await?;
        let view = reread(&mut tx, id).await?;
        self.finish_once(&mut tx, caller, once, &view).await?;
        let detail = json!({ "refunded_amount": view.refunded_amount });
        self.audit(&mut tx, caller, Action::JobsCancel, Resource::Job(&job), detail).await?;
        tx.commit().await?;
        Ok(Answer::New(view))
    }

    /// Whether the buyer has the escrow back: of a job that was funded and ended without a winner, it has from its end on.
    /// Nothing is moved.
    ///
    /// # Errors
    /// [`JobError::NotRefunded`] for every other job.
    pub async fn refund_job(&self, caller: &Caller, id: &JobId) -> Result<JobView, JobError> {
        self.own_job(caller, id, Action::JobsRefund).await?;
        let mut reader = self.store.reader().await?;
        let job = jobs::get(&mut reader, id).await?.ok_or(JobError::NotFound)?;
        if job.escrow_status != Some(EscrowStatus::Refunded) {
            return Err(JobError::NotRefunded { status: job.status });
        }
        Ok(job_view(job)?)
    }

    /// Gives the buyer back what was paid above the price, while the job is funded. At its end that happens by itself.
    ///
    /// # Errors
    /// [`JobError::ExcessRefunded`] the second time; [`JobError::NoExcess`]; [`JobError::WrongStatus`] unless the job is
    /// funded.
    pub async fn refund_excess(
        &self,
        caller: &Caller,
        id: &JobId,
        once: Option<&Idempotency>,
    ) -> Result<Answer<JobView>, JobError> {
        self.own_job(caller, id, Action::JobsRefund).await?;
        let mut tx = self.store.begin().await?;
        if let Some(answer) = self.begin_once::<JobError>(&mut tx, caller, once).await? {
            return Ok(Answer::Replay(answer));
        }
        let job = jobs::lock(&mut tx, id).await?.ok_or(JobError::NotFound)?;
        if let Some(amount) = job.excess_refunded {
            return Err(JobError::ExcessRefunded { amount });
        }
        if job.status != JobStatus::Funded {
            return Err(JobError::WrongStatus { status: job.status });
        }
        if is_disputed(&job) {
            return Err(JobError::Disputed);
        }
        let excess = excess_of(&job)?;
        if excess == MicroUsdc::ZERO {
            return Err(JobError::NoExcess);
        }
        self.give_back_excess(&mut tx, &job, excess).await?;
        let view = reread(&mut tx, id).await?;
        self.finish_once(&mut tx, caller, once, &view).await?;
        let detail = json!({ "excess_refunded": excess });
        self.audit(&mut tx, caller, Action::JobsRefund, Resource::Job(&job), detail).await?;
        tx.commit().await?;
        Ok(Answer::New(view))
    }

    /// Tries again to pay the worker of a job whose payout has failed.
    ///
    /// # Errors
    /// [`JobError::PayoutNotFailed`] for any other job; [`JobError::WorkerFrozen`] if it fails for the same reason again.
    pub async fn retry_payout(
        &self,
        caller: &Caller,
        id: &JobId,
        once: Option<&Idempotency>,
    ) -> Result<Answer<JobView>, JobError> {
        // Before it is looked for: whether there is such a job is told to operators alone.
        self.permit(caller, Action::JobsRetryPayout, Resource::Org(&OrgId::platform())).await?;
        let mut tx = self.store.begin().await?;
        if let Some(answer) = self.begin_once::<JobError>(&mut tx, caller, once).await? {
            return Ok(Answer::Replay(answer));
        }
        let job = jobs::lock(&mut tx, id).await?.ok_or(JobError::NotFound)?;
        if job.payout_status != Some(PayoutStatus::Failed) {
            return Err(JobError::PayoutNotFailed { payout: job.payout_status });
        }
        if let Retried::Frozen(reason) = self.pay_reserved(&mut tx, &job).await? {
            return Err(JobError::WorkerFrozen { reason });
        }
        let view = reread(&mut tx, id).await?;
        self.finish_once(&mut tx, caller, once, &view).await?;
        let detail = json!({ "worker_id": job.worker_id, "payout": view.payout });
        self.audit(&mut tx, caller, Action::JobsRetryPayout, Resource::Job(&job), detail).await?;
        tx.commit().await?;
        Ok(Answer::New(view))
    }

    /// Ends a job that nobody won: gives the escrow back and tells of it. The job is locked and nothing is judged.
    pub(crate) async fn end_unresolved(
        &self,
        tx: &mut Tx,
        job: &Job,
        to: JobStatus,
        event: EventName,
    ) -> Result<(), Internal> {
        if to == JobStatus::Expired {
            self.count_expiry(tx, job).await?;
        }
        let refunded = match job.status {
            JobStatus::Funded => Some(self.refund(tx, job).await?),
            _ => None,
        };
        if !jobs::end(tx, &job.id, to, job.status, refunded, self.clock.now()).await? {
            return Err(Internal::Invariant("a locked job changed its status"));
        }
        queue::remove(tx, TaskKind::Expire.as_str(), job.id.as_str()).await?;
        self.emit(tx, event, (&job.org_id, None), &job.id, json!({ "refunded_amount": refunded })).await
    }
}

/// Warns of a deposit of more than a tenth above the price.
fn overpaid(deposit: MicroUsdc, price: MicroUsdc) -> Vec<String> {
    if i128::from(deposit.as_micros()) * 10 <= i128::from(price.as_micros()) * 11 {
        return Vec::new();
    }
    let excess = deposit.checked_sub(price).unwrap_or(MicroUsdc::ZERO);
    vec![format!(
        "The deposit of {deposit} USDC is more than 10 % above the price of {price} USDC. {excess} USDC come back with \
         POST /api/v1/jobs/{{task_id}}/refund-excess, or at the job's end."
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_more_is_no_reason_to_warn() {
        let warns = |deposit: &str| !overpaid(deposit.parse().unwrap(), "10".parse().unwrap()).is_empty();
        assert!(!warns("10") && !warns("11"));
        assert!(warns("11.000001") && warns("1000000000"));
    }
}
