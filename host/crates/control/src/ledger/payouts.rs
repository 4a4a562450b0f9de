//! How a job's escrow is emptied: to the worker and the platform, or back to the buyer.

use ringfence_model::{AgentId, JobId, MicroUsdc, OrgId, TransferId};
use ringfence_store::Tx;
use ringfence_store::jobs::{self, Job};
use ringfence_store::ledger::{self, AccountKind, Ended, Transfer, TransferKind, TransferPhase};
use serde_json::json;

use super::{Movement, NotMoved, amount};
use crate::{Control, EventName, Internal};

/// What everybody may know of why a payout failed.
const WORKER_FROZEN: &str = "The worker's account is frozen.";

/// What became of another attempt to pay.
pub(crate) enum Retried {
    /// The worker is paid.
    Paid,
    /// Nothing has changed, for this reason of the operator who froze the worker's account.
    Frozen(String),
}

impl Control {
    /// Empties the escrow of a job that was just resolved: the worker's part of the price, the platform's, and to the buyer
    /// what was paid above the price. If the worker's account is frozen, the price stays: reserved for the two.
    ///
    /// Writes into the job how the payout ended, and tells of it.
    pub(crate) async fn pay_out(
        &self,
        tx: &mut Tx,
        job: &Job,
        (worker_org, worker): (&OrgId, &AgentId),
    ) -> Result<(), Internal> {
        let escrow = self.escrow_account(tx, &job.org_id, &job.id).await?;
        let account = self.agent_account(tx, worker_org, worker).await?;
        let buyer = self.agent_account(tx, &job.org_id, &job.buyer_id).await?;
        let fees = self.platform_account(tx, AccountKind::Fees).await?;
        let (split, above) = (job.fee_bps.split(job.price), excess_of(job)?);
        let part = |kind, to, amount| Movement { kind, from: &escrow.id, to, amount, job: &job.id };
        let payout = part(TransferKind::Payout, &account.id, split.payout);
        let fee = part(TransferKind::Fee, &fees.id, split.fee);
        let excess = part(TransferKind::Excess, &buyer.id, above);
        // Agents' accounts in the order of their ids, then the fees: so two of these never wait for each other. The fee
        // comes after the payout: if that cannot be moved, it is not either.
        let parts = if buyer.id < account.id { [excess, payout, fee] } else { [payout, excess, fee] };
        let mut frozen = false;
        for part in parts.into_iter().filter(|part| part.amount > MicroUsdc::ZERO) {
            let waits = frozen && part.kind == TransferKind::Fee;
            let mut done =
                if waits { Err(NotMoved::Frozen) } else { self.book(tx, &job.org_id, part).await? };
            if matches!(done, Err(NotMoved::Frozen)) {
                frozen = true;
                done = self.reserve(tx, &job.org_id, part).await?;
            }
            done.map_err(|_| Internal::Invariant("an escrow holds less than it does"))?;
        }
        self.note_excess(tx, job, above).await?;
        let now = self.clock.now();
        let (written, event) = if frozen {
            (jobs::unpaid(tx, &job.id, WORKER_FROZEN, now).await?, EventName::PayoutFailed)
        } else {
            (jobs::paid(tx, &job.id, now).await?, EventName::PayoutCompleted)
        };
        if !written {
            return Err(Internal::Invariant("a payout is made when its job is resolved"));
        }
        let mut data = json!({ "worker_id": worker, "amount": split.payout, "fee": split.fee });
        if let (true, Some(data)) = (frozen, data.as_object_mut()) {
            data.insert("reason".to_owned(), WORKER_FROZEN.into());
        }
        self.emit(tx, event, (&job.org_id, Some(worker_org)), &job.id, data).await
    }

    /// Tries again to pay a job whose payout has failed, once: moves what is reserved in its escrow. The job is locked.
    pub(crate) async fn pay_reserved(&self, tx: &mut Tx, job: &Job) -> Result<Retried, Internal> {
        let vanished = Internal::Invariant("a resolved job has its worker");
        let Some((worker, worker_org)) = job.worker_id.as_ref().zip(job.worker_org_id.as_ref()) else {
            return Err(vanished);
        };
        let now = self.clock.now();
        let of_job = ledger::of_job(tx, &job.id).await?;
        let pending = |kind: TransferKind| {
            let is_pending = |one: &&Transfer| one.kind == kind && one.phase == TransferPhase::Pending;
            of_job.iter().find(is_pending)
        };
        // The payout first: if it cannot be moved, nothing is.
        for part in [pending(TransferKind::Payout), pending(TransferKind::Fee)].into_iter().flatten() {
            let id = TransferId::new(&*self.clock, &*self.rng);
            match ledger::post_pending(tx, part, id, now).await? {
                Ended::Ended => {}
                Ended::Frozen => {
                    return Ok(Retried::Frozen(self.why_frozen(tx, worker_org, worker).await?));
                }
                Ended::Already(_) => return Err(Internal::Invariant("a failed payout was made before")),
            }
        }
        if !jobs::paid(tx, &job.id, now).await? {
            return Err(Internal::Invariant("a locked job changed its status"));
        }
        let split = job.fee_bps.split(job.price);
        let data = json!({ "worker_id": worker, "amount": split.payout, "fee": split.fee });
        let parties = (&job.org_id, Some(worker_org));
        self.emit(tx, EventName::PayoutCompleted, parties, &job.id, data).await?;
        Ok(Retried::Paid)
    }

    /// Gives a job's escrow back to its buyer; how much that was.
    pub(crate) async fn refund(
        &self,
        tx: &mut Tx,
        org: &OrgId,
        job: &JobId,
        buyer: &AgentId,
    ) -> Result<MicroUsdc, Internal> {
        let escrow = self.escrow_account(tx, org, job).await?;
        let held = amount(escrow.balance_micros)?;
        if held > MicroUsdc::ZERO {
            let account = self.agent_account(tx, org, buyer).await?;
            let movement =
                Movement { kind: TransferKind::Refund, from: &escrow.id, to: &account.id, amount: held, job };
            let booked = self.book(tx, org, movement).await?;
            booked.map_err(|_| Internal::Invariant("an escrow holds less than it does"))?;
        }
        Ok(held)
    }

    /// Gives the buyer back what was paid above the price. The job is locked, and there is an excess.
    pub(crate) async fn give_back_excess(
        &self,
        tx: &mut Tx,
        job: &Job,
        excess: MicroUsdc,
    ) -> Result<(), Internal> {
        let escrow = self.escrow_account(tx, &job.org_id, &job.id).await?;
        let account = self.agent_account(tx, &job.org_id, &job.buyer_id).await?;
        let movement = Movement {
            kind: TransferKind::Excess,
            from: &escrow.id,
            to: &account.id,
            amount: excess,
            job: &job.id,
        };
        let booked = self.book(tx, &job.org_id, movement).await?;
        booked.map_err(|_| Internal::Invariant("an escrow holds less than it does"))?;
        self.note_excess(tx, job, excess).await
    }

    /// Writes into the job what went back to the buyer, if anything did.
    async fn note_excess(&self, tx: &mut Tx, job: &Job, excess: MicroUsdc) -> Result<(), Internal> {
        let noted =
            excess == MicroUsdc::ZERO || jobs::excess_refunded(tx, &job.id, excess, self.clock.now()).await?;
        if noted { Ok(()) } else { Err(Internal::Invariant("an excess was given back twice")) }
    }
}

/// What of a job's deposit lies above its price and was not given back.
pub(crate) fn excess_of(job: &Job) -> Result<MicroUsdc, Internal> {
    match (job.deposit_amount, job.excess_refunded) {
        (Some(deposit), None) => deposit
            .checked_sub(job.price)
            .ok_or(Internal::Invariant("a job's deposit is less than its price")),
        _ => Ok(MicroUsdc::ZERO),
    }
}
