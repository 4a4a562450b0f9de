//! Claims: workers take part in a job, and withdraw from it.

use ringfence_model::{AgentId, ClaimId, JobId, JobStatus, Visibility};
use ringfence_store::submissions::Participant;
use ringfence_store::{accounts, jobs, parties, reputation, submissions};
use serde_json::json;

use super::{ClaimView, JobError, ParticipantView, UnclaimView};
use crate::accounts::NO_WALLET;
use crate::policy::{Action, Resource};
use crate::{Caller, Control, EventName, Page};

impl Control {
    /// Takes part in a job. Several workers may; the first whose submission passes wins.
    ///
    /// # Errors
    /// [`JobError::WrongStatus`] unless the job is funded; [`JobError::OwnJob`]; [`JobError::NotInvited`];
    /// [`JobError::ReputationTooLow`]; [`JobError::AlreadyClaimed`].
    pub async fn claim_job(
        &self,
        caller: &Caller,
        id: &JobId,
        worker_id: Option<&AgentId>,
    ) -> Result<ClaimView, JobError> {
        let worker = caller.agent().ok_or(JobError::NotAnAgent)?;
        if worker_id.is_some_and(|named| named != worker) {
            return Err(JobError::OtherAgent);
        }
        self.permitted_job(caller, id, Action::JobsClaim).await?;
        let mut tx = self.store.begin().await?;
        let job = jobs::lock(&mut tx, id).await?.ok_or(JobError::NotFound)?;
        self.takes_work(&job)?;
        if job.org_id == *caller.org() {
            return Err(JobError::OwnJob);
        }
        if job.visibility == Visibility::Private && !parties::is_party(&mut tx, id, worker).await? {
            return Err(JobError::NotInvited);
        }
        if job.min_reputation > 0 {
            let had = reputation::rate(&mut tx, worker).await?;
            if had.unwrap_or(0) < job.min_reputation {
                return Err(JobError::ReputationTooLow { needed: job.min_reputation, had });
            }
        }
        let claimed_at = self.clock.now();
        let participant = Participant {
            id: ClaimId::new(&*self.clock, &*self.rng).to_string(),
            job_id: id.clone(),
            worker_id: worker.clone(),
            org_id: caller.org().clone(),
            buyer_org_id: job.org_id.clone(),
            claimed_at,
            unclaimed_at: None,
        };
        if !submissions::claim(&mut tx, &participant).await? {
            return Err(JobError::AlreadyClaimed);
        }
        let data = json!({ "worker_id": worker });
        self.emit(&mut tx, EventName::JobClaimed, (&job.org_id, Some(caller.org())), id, data).await?;
        let profile = accounts::agent(&mut tx, worker).await?;
        self.audit(&mut tx, caller, Action::JobsClaim, Resource::Job(&job), json!({})).await?;
        tx.commit().await?;
        let has_wallet = profile.is_some_and(|agent| agent.wallet_address.is_some());
        let warnings = if has_wallet { Vec::new() } else { vec![NO_WALLET.to_owned()] };
        Ok(ClaimView { task_id: id.clone(), worker_id: worker.clone(), claimed_at, warnings })
    }

    /// Withdraws from a job. The claim's row stays, and so do the attempts that were used; the worker may claim again.
    ///
    /// # Errors
    /// [`JobError::Ended`] once the job has ended; [`JobError::NoClaim`]; [`JobError::SubmissionJudging`] while a submission
    /// of this worker is judged.
    pub async fn unclaim_job(
        &self,
        caller: &Caller,
        id: &JobId,
        worker_id: Option<&AgentId>,
    ) -> Result<UnclaimView, JobError> {
        let worker = caller.agent().ok_or(JobError::NotAnAgent)?;
        if worker_id.is_some_and(|named| named != worker) {
            return Err(JobError::OtherAgent);
        }
        self.permitted_job(caller, id, Action::JobsUnclaim).await?;
        let mut tx = self.store.begin().await?;
        // Nothing is handed in, judged or ended meanwhile.
        let job = jobs::lock(&mut tx, id).await?.ok_or(JobError::NotFound)?;
        if !matches!(job.status, JobStatus::Open | JobStatus::Funded) {
            return Err(JobError::Ended { status: job.status });
        }
        let standing = submissions::standing(&mut tx, id, worker).await?;
        if standing.judging > 0 {
            return Err(JobError::SubmissionJudging);
        }
        if !submissions::unclaim(&mut tx, id, worker, self.clock.now()).await? {
            return Err(JobError::NoClaim);
        }
        if standing.failed > 0 {
            self.count_failed_job(&mut tx, &job, worker, caller.org()).await?;
        }
        let data = json!({ "worker_id": worker });
        self.emit(&mut tx, EventName::JobUnclaimed, (&job.org_id, Some(caller.org())), id, data).await?;
        self.audit(&mut tx, caller, Action::JobsUnclaim, Resource::Job(&job), json!({})).await?;
        tx.commit().await?;
        Ok(UnclaimView { status: "unclaimed", task_id: id.clone(), worker_id: worker.clone() })
    }

    /// The claims on a job, past ones too, oldest first: all for the buyer's org and for operators, their own for the orgs of
    /// workers.
    ///
    /// # Errors
    /// [`JobError::NotParticipant`] for everyone else.
    pub async fn participants(
        &self,
        caller: &Caller,
        id: &JobId,
        limit: u32,
        offset: u32,
    ) -> Result<Page<ParticipantView>, JobError> {
        let job = self.permitted_job(caller, id, Action::ParticipantsList).await?;
        let own = (!caller.reaches(&job.org_id)).then_some(caller.org());
        let mut reader = self.store.reader().await?;
        let page = submissions::participants(&mut reader, id, own, limit, offset).await?;
        if own.is_some() && page.total == 0 {
            return Err(JobError::NotParticipant);
        }
        Ok(Page::of(page, |row| ParticipantView {
            worker_id: row.participant.worker_id,
            claimed_at: row.participant.claimed_at,
            unclaimed_at: row.participant.unclaimed_at,
            attempts: row.attempts,
        }))
    }
}
