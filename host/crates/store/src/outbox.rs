//! Events, written in the transaction of the change that they tell of.

use ringfence_model::{EventId, JobId, OrgId, Timestamp};
use serde_json::Value;
use sqlx::AssertSqlSafe;

use crate::session::args;
use crate::statements::{parameters, statements};
use crate::{Session, StoreError};

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// Whom it concerns.
    pub org_id: OrgId,
    /// Whom it concerns too.
    pub other_org_id: Option<OrgId>,
    /// What happened.
    pub event: String,
    /// The job that it happened to.
    pub task_id: Option<JobId>,
    /// What else there is to know.
    pub data: Value,
    /// When.
    pub created_at: Timestamp,
}

statements! {
    LIST = "SELECT id, org_id, other_org_id, event, task_id, data, created_at FROM outbox
        WHERE created_at > $1 OR (created_at = $1 AND id > $2) ORDER BY created_at, id LIMIT $3";
}

const INSERT: &str =
    "INSERT INTO outbox (id, org_id, other_org_id, event, task_id, data, created_at) VALUES ";

/// Writes the events of one change, which are few.
///
/// # Errors
/// Those of the database.
pub async fn insert(s: &mut Session, events: &[Event]) -> Result<(), StoreError> {
    let mut rows = Vec::new();
    for event in events {
        rows.extend(args![
            &event.id,
            &event.org_id,
            event.other_org_id.as_ref(),
            &event.event,
            event.task_id.as_ref(),
            event.data.to_string(),
            event.created_at,
        ]);
    }
    s.execute(AssertSqlSafe(format!("{INSERT}{}", parameters(events.len(), 7))), rows).await?;
    Ok(())
}

/// Events in the order of their time, from the one behind `after` on.
///
/// # Errors
/// Those of the database.
pub async fn list(
    s: &mut Session,
    after: Option<&(Timestamp, EventId)>,
    limit: u32,
) -> Result<Vec<Event>, StoreError> {
    let (time, id) = after.map_or((Timestamp::EPOCH, ""), |(time, id)| (*time, id.as_str()));
    s.all(LIST, args![time, id, limit], |row| {
        Ok(Event {
            id: row.parse("id")?,
            org_id: row.parse("org_id")?,
            other_org_id: row.opt_parse("other_org_id")?,
            event: row.text("event")?,
            task_id: row.opt_parse("task_id")?,
            data: row.json("data")?,
            created_at: row.time("created_at")?,
        })
    })
    .await
}
