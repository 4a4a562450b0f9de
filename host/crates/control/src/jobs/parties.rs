//! Private jobs: to all but their buyer's org, the orgs of those invited, and the operators they do not exist.

use ringfence_model::{AgentId, JobId, OrgId, Visibility};
use ringfence_store::jobs::{self, Job};
use ringfence_store::{StoreError, Tx, accounts, parties};

use super::JobError;
use crate::error::Checks;
use crate::{Caller, Control};

/// How many agents can be invited to a job.
pub(super) const MAX_INVITED: u64 = 100;

/// Makes these agents, with their orgs, parties of a job; whether one was none before.
pub(super) async fn add(tx: &mut Tx, job: &JobId, agents: &[(AgentId, OrgId)]) -> Result<bool, StoreError> {
    let mut newly = false;
    for (agent, org) in agents {
        newly |= parties::add(tx, job, agent, org).await?;
    }
    Ok(newly)
}

impl Control {
    /// A job, if it is there for the caller.
    pub(super) async fn visible_job(&self, caller: &Caller, id: &JobId) -> Result<Job, JobError> {
        let mut reader = self.store.reader().await?;
        let job = jobs::get(&mut reader, id).await?.ok_or(JobError::NotFound)?;
        let visible = job.visibility == Visibility::Public
            || caller.reaches(&job.org_id)
            || parties::is_org_party(&mut reader, id, caller.org()).await?;
        if visible { Ok(job) } else { Err(JobError::NotFound) }
    }

    /// The agents that are to be invited, with their orgs. None of them can be of the caller's own org, which cannot be paid
    /// by itself.
    pub(super) async fn invitable(
        &self,
        caller: &Caller,
        field: &str,
        ids: &[AgentId],
    ) -> Result<Vec<(AgentId, OrgId)>, JobError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut reader = self.store.reader().await?;
        let (mut invited, mut checks) = (Vec::with_capacity(ids.len()), Checks::default());
        for (number, id) in ids.iter().enumerate() {
            let agent = accounts::agent(&mut reader, id).await?;
            let agent = agent.ok_or_else(|| JobError::NoSuchAgent { id: id.clone() })?;
            let foreign = agent.org_id != *caller.org();
            checks.require(foreign, &format!("{field}[{number}]"), "must not be an agent of your own org");
            invited.push((agent.id, agent.org_id));
        }
        checks.done()?;
        Ok(invited)
    }
}
