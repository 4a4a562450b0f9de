//! Jobs: posted by a buyer, paid into escrow, claimed by workers, ended by a verdict, the clock or the buyer.
//!
//! Each use case is one transaction: the state, the money, the event and the next step on the queue, or none.

mod changes;
mod claims;
mod escrow;
mod parties;
mod pin;
mod types;

use std::time::Duration;

use ringfence_model::{BotId, BotStatus, EscrowStatus, JobId, JobStatus, Sha256, Timestamp, Visibility};
use ringfence_store::components::ComponentKind;
use ringfence_store::jobs::{self, Job, JobFilter};
use ringfence_store::{Tx, bots, submissions};
use serde_json::json;
use serde_json::value::RawValue;

use crate::error::Checks;
use crate::policy::{Action, Resource};
use crate::worker::TaskKind;
use crate::{Answer, Caller, Control, EventName, Idempotency, Internal, Invalid, Page};

pub use pin::OraclePinView;
pub(crate) use pin::{OraclePin, pin_of};
pub(crate) use types::artifact;
pub use types::{
    ClaimView, FundedView, JobChanges, JobError, JobInputView, JobView, ListJobs, NewFunding, NewJob,
    ParticipantView, SortJobs, UnclaimView,
};

/// How long a job runs whose buyer sets no expiry.
const DEFAULT_EXPIRY: Duration = Duration::from_secs(7 * 24 * 3600);
/// How far ahead an expiry may lie.
const MAX_EXPIRY: Duration = Duration::from_secs(366 * 24 * 3600);

impl Control {
    /// Posts a job. It costs nothing until it is funded.
    ///
    /// # Errors
    /// [`JobError::Invalid`] names every field that is not as it must be.
    pub async fn create_job(
        &self,
        caller: &Caller,
        new: NewJob,
        once: Option<&Idempotency>,
    ) -> Result<Answer<JobView>, JobError> {
        let buyer = caller.agent().ok_or(JobError::NotAnAgent)?;
        if new.buyer_id.as_ref().is_some_and(|named| named != buyer) {
            return Err(JobError::OtherAgent);
        }
        self.permit(caller, Action::JobsCreate, Resource::Org(caller.org())).await?;
        let now = self.clock.now();
        let expiry = new.expiry.unwrap_or_else(|| now.plus(DEFAULT_EXPIRY));
        let (max_submissions, max_retries) =
            (new.max_submissions.unwrap_or(100), new.max_retries.unwrap_or(3));
        let visibility = new.visibility.unwrap_or(Visibility::Public);
        check_new_job(&new, visibility, now, expiry)?;
        let invited = self.invitable(caller, "invited", &new.invited).await?;

        let mut tx = self.store.begin().await?;
        if let Some(answer) = self.begin_once::<JobError>(&mut tx, caller, once).await? {
            return Ok(Answer::Replay(answer));
        }
        self.usable_oracle(&mut tx, caller, &new.oracle).await?;
        let job = Job {
            id: JobId::new(&*self.clock, &*self.rng),
            org_id: caller.org().clone(),
            buyer_id: buyer.clone(),
            title: new.title,
            description: new.description,
            rubric: new.rubric,
            artifact_type: new.artifact_type,
            price: new.price,
            fee_bps: new.fee_bps.unwrap_or(self.settings.platform_fee),
            expiry,
            max_submissions,
            max_retries,
            min_reputation: new.min_reputation.unwrap_or(0),
            visibility,
            min_score: new.min_score.unwrap_or(0),
            guard: new.guard,
            status: JobStatus::Open,
            oracle_bot_id: new.oracle,
            oracle_pin: None,
            input_digest: new.input.as_ref().map(|input| Sha256::of(input.get().as_bytes())),
            deposit_amount: None,
            escrow_status: None,
            excess_refunded: None,
            refunded_amount: None,
            winning_submission_id: None,
            worker_id: None,
            worker_org_id: None,
            payout_status: None,
            payout_error: None,
            created_at: now,
            updated_at: now,
            funded_at: None,
            ended_at: None,
        };
        jobs::insert(&mut tx, &job, new.input.as_deref().map(RawValue::get)).await?;
        if visibility == Visibility::Private {
            let buyer = (job.buyer_id.clone(), job.org_id.clone());
            parties::add(&mut tx, &job.id, &[buyer]).await?;
            parties::add(&mut tx, &job.id, &invited).await?;
        }
        self.enqueue(&mut tx, TaskKind::Expire, &job.org_id, job.id.as_str(), expiry, json!({})).await?;
        self.emit(
            &mut tx,
            EventName::JobCreated,
            (&job.org_id, None),
            &job.id,
            json!({ "price": job.price }),
        )
        .await?;
        let view = job_view(job.clone())?;
        self.finish_once(&mut tx, caller, once, &view).await?;
        let detail = json!({ "price": job.price, "visibility": job.visibility });
        self.audit(&mut tx, caller, Action::JobsCreate, Resource::Job(&job), detail).await?;
        tx.commit().await?;
        self.ring_for(TaskKind::Expire, expiry);
        Ok(Answer::New(view))
    }

    /// A job. Every caller may see a public one: it is an offer.
    ///
    /// # Errors
    /// [`JobError::NotFound`].
    pub async fn job(&self, caller: &Caller, id: &JobId) -> Result<JobView, JobError> {
        Ok(job_view(self.permitted_job(caller, id, Action::JobsRead).await?)?)
    }

    /// Jobs, filtered and sorted.
    ///
    /// # Errors
    /// [`JobError::Internal`] only.
    pub async fn jobs(&self, caller: &Caller, list: ListJobs) -> Result<Page<JobView>, JobError> {
        self.permit(caller, Action::JobsList, Resource::Org(caller.org())).await?;
        let filter = JobFilter {
            party: list.private.then(|| caller.org().clone()),
            status: list.status,
            buyer_id: list.buyer_id,
            worker_id: list.worker_id,
            claims_seen_by: (!caller.is_platform()).then(|| caller.org().clone()),
            artifact_type: list.artifact_type,
            min_price: list.min_price,
            max_price: list.max_price,
            sort_by: list.sort_by,
            descending: list.descending,
            limit: list.limit,
            offset: list.offset,
        };
        let mut reader = self.store.reader().await?;
        let page = jobs::list(&mut reader, &filter).await?;
        let items = page.items.into_iter().map(job_view).collect::<Result<_, _>>()?;
        Ok(Page { items, total: page.total })
    }

    /// The data that the job is about: for its buyer and for the workers who hold a claim.
    ///
    /// # Errors
    /// [`JobError::NotClaimed`] for everyone else.
    pub async fn job_input(&self, caller: &Caller, id: &JobId) -> Result<JobInputView, JobError> {
        let agent = caller.agent().ok_or(JobError::NotAnAgent)?;
        let job = self.permitted_job(caller, id, Action::JobsReadInput).await?;
        let mut reader = self.store.reader().await?;
        if job.buyer_id != *agent && !submissions::is_participant(&mut reader, id, agent).await? {
            return Err(JobError::NotClaimed);
        }
        let input = jobs::input(&mut reader, id).await?.ok_or(JobError::NoInput)?;
        Ok(JobInputView(RawValue::from_string(input).map_err(Internal::from)?))
    }

    /// A job to which the caller may do this.
    pub(crate) async fn permitted_job(
        &self,
        caller: &Caller,
        id: &JobId,
        action: Action,
    ) -> Result<Job, JobError> {
        let job = self.visible_job(caller, id).await?;
        self.permit(caller, action, Resource::Job(&job)).await?;
        Ok(job)
    }

    /// That the job is the caller's own, and the caller may do this to it. Whose a job is never changes.
    pub(crate) async fn own_job(&self, caller: &Caller, id: &JobId, action: Action) -> Result<(), JobError> {
        let job = self.visible_job(caller, id).await?;
        if caller.agent() != Some(&job.buyer_id) {
            return Err(JobError::NotBuyer);
        }
        Ok(self.permit(caller, action, Resource::Job(&job)).await?)
    }

    /// Whether claims and submissions are taken.
    pub(crate) fn takes_work(&self, job: &Job) -> Result<(), JobError> {
        if job.status != JobStatus::Funded {
            return Err(JobError::WrongStatus { status: job.status });
        }
        if is_disputed(job) {
            return Err(JobError::Disputed);
        }
        if job.expiry <= self.clock.now() {
            return Err(JobError::Expired { expiry: job.expiry });
        }
        Ok(())
    }

    /// The oracle that a job names. It is held until the transaction ends, so that it cannot be deleted before the job can
    /// be seen.
    pub(crate) async fn usable_oracle(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        id: &BotId,
    ) -> Result<bots::Bot, JobError> {
        let oracle = bots::hold(tx, id).await?;
        let oracle = oracle.filter(|bot| bot.org_id == *caller.org() && bot.status == BotStatus::Running);
        let oracle = oracle.ok_or(JobError::NoSuchOracle)?;
        if oracle.kind == ComponentKind::Oracle { Ok(oracle) } else { Err(JobError::NotAnOracle) }
    }
}

fn check_new_job(
    new: &NewJob,
    visibility: Visibility,
    now: Timestamp,
    expiry: Timestamp,
) -> Result<(), Invalid> {
    let mut checks = Checks::of(new);
    check_expiry(&mut checks, now, expiry);
    let private = visibility == Visibility::Private;
    checks.require(private || new.invited.is_empty(), "invited", "is for private jobs alone");
    checks.require(!private || !new.invited.is_empty(), "invited", "a private job needs 1 to 100 agents");
    checks.done()
}

/// What holds of an expiry, at the post and later.
fn check_expiry(checks: &mut Checks, now: Timestamp, expiry: Timestamp) {
    checks.require(expiry > now, "expiry", "must lie in the future");
    checks.require(expiry <= now.plus(MAX_EXPIRY), "expiry", "must lie within 366 days from now");
}

/// Whether a person has to decide what becomes of the job. Nothing moves it until then.
pub(crate) fn is_disputed(job: &Job) -> bool {
    job.escrow_status == Some(EscrowStatus::Disputed)
}

pub(crate) async fn reread(tx: &mut Tx, id: &JobId) -> Result<JobView, JobError> {
    Ok(job_view(jobs::get(tx, id).await?.ok_or(JobError::NotFound)?)?)
}

fn job_view(job: Job) -> Result<JobView, Internal> {
    let pin = pin_of(&job)?;
    let guard = pin.as_ref().map_or(job.guard, |pin| Some(pin.guard));
    let quorum = pin.as_ref().map_or(1, |pin| pin.quorum);
    Ok(JobView {
        payout: job.fee_bps.split(job.price).payout,
        task_id: job.id,
        buyer_id: job.buyer_id,
        title: job.title,
        description: job.description,
        rubric: job.rubric,
        artifact_type: job.artifact_type,
        price: job.price,
        fee_bps: job.fee_bps,
        expiry: job.expiry,
        max_submissions: job.max_submissions,
        max_retries: job.max_retries,
        min_reputation: job.min_reputation,
        visibility: job.visibility,
        status: job.status,
        oracle_id: job.oracle_bot_id,
        oracles: pin.map(|pin| pin.oracles).unwrap_or_default(),
        quorum,
        min_score: job.min_score,
        guard,
        input_digest: job.input_digest,
        deposit_amount: job.deposit_amount,
        escrow_status: job.escrow_status,
        excess_refunded: job.excess_refunded,
        refunded_amount: job.refunded_amount,
        winning_submission_id: job.winning_submission_id,
        worker_id: job.worker_id,
        payout_status: job.payout_status,
        payout_error: job.payout_error,
        created_at: job.created_at,
        updated_at: job.updated_at,
        funded_at: job.funded_at,
        ended_at: job.ended_at,
    })
}
