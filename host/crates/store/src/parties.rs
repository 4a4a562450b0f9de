//! The parties of private jobs: the buyer and those invited. Nobody else learns that there is such a job.

use ringfence_model::{AgentId, JobId, OrgId};

use crate::session::args;
use crate::statements::statements;
use crate::{Session, StoreError, count};

statements! {
    ADD = "INSERT INTO job_parties (job_id, agent_id, org_id) VALUES ($1, $2, $3)
        ON CONFLICT (job_id, agent_id) DO NOTHING";
    COUNT = "SELECT COUNT(*) AS n FROM job_parties WHERE job_id = $1";
    IS_PARTY = "SELECT COUNT(*) AS n FROM job_parties WHERE job_id = $1 AND agent_id = $2";
    IS_ORG_PARTY = "SELECT COUNT(*) AS n FROM job_parties WHERE job_id = $1 AND org_id = $2";
    SEES = "SELECT COUNT(*) AS n FROM jobs j WHERE j.id = $1 AND (j.visibility = 'public' OR EXISTS (
        SELECT 1 FROM job_parties p WHERE p.job_id = j.id AND p.org_id = $2))";
}

/// Makes an agent a party of a job; `false` if it is one.
///
/// # Errors
/// Those of the database.
pub async fn add(s: &mut Session, job: &JobId, agent: &AgentId, org: &OrgId) -> Result<bool, StoreError> {
    Ok(s.execute(ADD, args![job, agent, org]).await? > 0)
}

/// How many parties a job has, its buyer included.
///
/// # Errors
/// Those of the database.
pub async fn number(s: &mut Session, job: &JobId) -> Result<u64, StoreError> {
    count(s, COUNT, args![job]).await
}

/// Whether an agent is a party.
///
/// # Errors
/// Those of the database.
pub async fn is_party(s: &mut Session, job: &JobId, agent: &AgentId) -> Result<bool, StoreError> {
    Ok(count(s, IS_PARTY, args![job, agent]).await? > 0)
}

/// Whether an agent of this org is a party.
///
/// # Errors
/// Those of the database.
pub async fn is_org_party(s: &mut Session, job: &JobId, org: &OrgId) -> Result<bool, StoreError> {
    Ok(count(s, IS_ORG_PARTY, args![job, org]).await? > 0)
}

/// Whether a job is public, or private and an agent of this org a party.
///
/// # Errors
/// Those of the database.
pub async fn sees(s: &mut Session, job: &JobId, org: &OrgId) -> Result<bool, StoreError> {
    Ok(count(s, SEES, args![job, org]).await? > 0)
}
