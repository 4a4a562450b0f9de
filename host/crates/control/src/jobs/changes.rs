//! What a buyer changes of a posted job.

use ringfence_model::{JobId, JobStatus, Timestamp, Visibility};
use ringfence_store::jobs::{self, Job};
use ringfence_store::parties;
use serde_json::json;

use super::parties::{MAX_INVITED, add};
use super::{JobChanges, JobError, JobView, check_expiry, is_disputed, reread};
use crate::error::Checks;
use crate::policy::{Action, Resource};
use crate::worker::TaskKind;
use crate::{Answer, Caller, Control, EventName, Idempotency, Internal};

impl Control {
    /// Changes a job: all that workers rely on only while it is open, then a later expiry alone; private jobs take further
    /// agents until their end.
    ///
    /// # Errors
    /// [`JobError::Invalid`] for what a new job could not have either; [`JobError::Fixed`] and [`JobError::Shortened`] once
    /// it is funded; [`JobError::WrongStatus`] and [`JobError::Expired`] once it has ended.
    pub async fn update_job(
        &self,
        caller: &Caller,
        id: &JobId,
        changes: JobChanges,
        once: Option<&Idempotency>,
    ) -> Result<Answer<JobView>, JobError> {
        self.own_job(caller, id, Action::JobsUpdate).await?;
        Checks::of(&changes).done()?;
        let invited = self.invitable(caller, "invite", &changes.invite).await?;
        let mut tx = self.store.begin().await?;
        if let Some(answer) = self.begin_once::<JobError>(&mut tx, caller, once).await? {
            return Ok(Answer::Replay(answer));
        }
        // A funding, an expiry or another change comes before or after, never between.
        let old = jobs::lock(&mut tx, id).await?.ok_or(JobError::NotFound)?;
        if !matches!(old.status, JobStatus::Open | JobStatus::Funded) {
            return Err(JobError::WrongStatus { status: old.status });
        }
        if is_disputed(&old) {
            return Err(JobError::Disputed);
        }
        let now = self.clock.now();
        if old.expiry <= now {
            return Err(JobError::Expired { expiry: old.expiry });
        }
        let mut checks = Checks::default();
        let private = old.visibility == Visibility::Private;
        checks.require(private || invited.is_empty(), "invite", "is for private jobs alone");
        let (job, mut changed) = apply(&old, changes, now);
        if old.status == JobStatus::Funded {
            if let Some(&field) = changed.iter().find(|field| **field != "expiry") {
                return Err(JobError::Fixed { field });
            }
            if job.expiry < old.expiry {
                return Err(JobError::Shortened { expiry: old.expiry });
            }
        }
        if job.expiry != old.expiry {
            check_expiry(&mut checks, now, job.expiry);
        }
        checks.done()?;

        if add(&mut tx, id, &invited).await? {
            changed.push("invite");
            // The buyer is a party, too.
            let fits = parties::number(&mut tx, id).await? <= MAX_INVITED + 1;
            let mut checks = Checks::default();
            checks.require(fits, "invite", format!("a job has at most {MAX_INVITED} invited agents"));
            checks.done()?;
        }
        if !changed.is_empty() {
            // Nothing is handed in before the funding, so no bound can be below what was.
            if !jobs::update(&mut tx, &job).await? {
                return Err(Internal::Invariant("a locked job changed its status").into());
            }
            if job.expiry != old.expiry {
                self.reschedule(&mut tx, TaskKind::Expire, &job.org_id, id.as_str(), job.expiry).await?;
            }
            let data = json!({ "changed": changed });
            self.emit(&mut tx, EventName::JobUpdated, (&job.org_id, None), id, data).await?;
        }
        let view = reread(&mut tx, id).await?;
        self.finish_once(&mut tx, caller, once, &view).await?;
        if !changed.is_empty() {
            let data = json!({ "changed": changed });
            self.audit(&mut tx, caller, Action::JobsUpdate, Resource::Job(&old), data).await?;
        }
        tx.commit().await?;
        self.ring_for(TaskKind::Expire, job.expiry);
        Ok(Answer::New(view))
    }
}

/// The job as it is to be, and the fields in which it differs.
fn apply(old: &Job, changes: JobChanges, now: Timestamp) -> (Job, Vec<&'static str>) {
    let mut job = Job { updated_at: now, ..old.clone() };
    let mut changed = Vec::new();
    macro_rules! set {
        ($($field:ident),+) => { $(
            if let Some(new) = changes.$field && new != job.$field {
                job.$field = new;
                changed.push(stringify!($field));
            }
        )+ };
    }
    set!(title, description, rubric, expiry, max_submissions, max_retries, min_reputation);
    (job, changed)
}
