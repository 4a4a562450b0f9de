//! How a job's escrow is emptied: to the worker and the platform, or back to the buyer.

use ringfence_model::{AgentId, MicroUsdc, OrgId, PayoutStatus, TransferId};
use ringfence_store::Tx;
use ringfence_store::jobs::{self, Job, Payout};
use ringfence_store::ledger::{self, AccountKind, Ended, Transfer, TransferKind, TransferPhase};
use ringfence_store::outbox::Event;
use serde_json::json;

use super::{Movement, NotMoved, amount, moved};
use crate::{Control, EventName, Internal};

const TOO_LITTLE: Internal = Internal::Invariant("an escrow holds less than it does");

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
    /// Empties the escrow of a job that is being resolved: the worker's part of the price, the platform's, and to the buyer
    /// what was paid above the price. If the worker's account is frozen, the price stays: reserved for the two.
    ///
    /// Says how the payout ended, to be written into the job, and the event that tells of it.
    pub(crate) async fn pay_out(
        &self,
        tx: &mut Tx,
        job: &Job,
        (worker_org, worker): (&OrgId, &AgentId),
    ) -> Result<(Payout, Event), Internal> {
        let platform = OrgId::platform();
        let wanted = [
            (&job.org_id, AccountKind::Escrow, job.id.as_str()),
            (worker_org, AccountKind::Agent, worker.as_str()),
            (&job.org_id, AccountKind::Agent, job.buyer_id.as_str()),
            (&platform, AccountKind::Fees, platform.as_str()),
        ];
        let [escrow, account, buyer, fees] = self.accounts(tx, wanted).await?;
        let (split, above) = (job.fee_bps.split(job.price), excess_of(job)?);
        let parts = [
            (TransferKind::Excess, &buyer.id, above),
            (TransferKind::Payout, &account.id, split.payout),
            (TransferKind::Fee, &fees.id, split.fee),
        ];
        let parts = parts.into_iter().filter(|(_, _, amount)| *amount > MicroUsdc::ZERO);
        let parts = parts.map(|(kind, to, amount)| {
            self.transfer_of(&job.org_id, Movement { kind, from: &escrow.id, to, amount, job: &job.id })
        });
        let parts: Vec<_> = parts.collect();
        let frozen = match moved(ledger::post_all(tx, &parts).await?)? {
            Ok(()) => false,
            Err(NotMoved::InsufficientFunds) => return Err(TOO_LITTLE),
            Err(NotMoved::Frozen) => {
                // The fee waits with the payout. What is the buyer's goes back all the same.
                for part in &parts {
                    let done = match part.kind {
                        TransferKind::Excess => ledger::post(tx, part).await?,
                        _ => ledger::reserve(tx, part).await?,
                    };
                    moved(done)?.map_err(|_| TOO_LITTLE)?;
                }
                true
            }
        };
        let (status, event) = if frozen {
            (PayoutStatus::Failed, EventName::PayoutFailed)
        } else {
            (PayoutStatus::Success, EventName::PayoutCompleted)
        };
        let error = frozen.then(|| WORKER_FROZEN.to_owned());
        let mut data = json!({ "worker_id": worker, "amount": split.payout, "fee": split.fee });
        if let (Some(error), Some(data)) = (&error, data.as_object_mut()) {
            data.insert("reason".to_owned(), error.as_str().into());
        }
        let event = self.event(event, (&job.org_id, Some(worker_org)), &job.id, data);
        let excess_refunded = Some(above).filter(|above| *above > MicroUsdc::ZERO);
        Ok((Payout { status, error, excess_refunded }, event))
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
    pub(crate) async fn refund(&self, tx: &mut Tx, job: &Job) -> Result<MicroUsdc, Internal> {
        let [buyer, escrow] = self.buyer_and_escrow(tx, job).await?;
        let held = amount(escrow.balance_micros)?;
        if held > MicroUsdc::ZERO {
            let kind = TransferKind::Refund;
            let movement = Movement { kind, from: &escrow.id, to: &buyer.id, amount: held, job: &job.id };
            self.book(tx, &job.org_id, movement).await?.map_err(|_| TOO_LITTLE)?;
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
        let [buyer, escrow] = self.buyer_and_escrow(tx, job).await?;
        let kind = TransferKind::Excess;
        let movement = Movement { kind, from: &escrow.id, to: &buyer.id, amount: excess, job: &job.id };
        self.book(tx, &job.org_id, movement).await?.map_err(|_| TOO_LITTLE)?;
        if !jobs::excess_refunded(tx, &job.id, excess, self.clock.now()).await? {
            return Err(Internal::Invariant("an excess was given back twice"));
        }
        Ok(())
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
