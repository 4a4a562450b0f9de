use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use ringfence_control::{AuditEntryView, AuditError, AuditOutcome, ListAudit};
use ringfence_model::{OrgId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::body::QueryOf;
use crate::guard::Authenticated;
use crate::list::{checked_limit, fifty};
use crate::{App, Problem};

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

impl From<AuditError> for Problem {
    fn from(error: AuditError) -> Self {
        match error {
            AuditError::NoSuchOrg => {
                Self::new(StatusCode::NOT_FOUND, "org_not_found", "There is no org with this id.")
            }
            AuditError::Denied(denied) => denied.into(),
            AuditError::Internal(error) => error.into(),
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct AuditQuery {
    /// Of which org; one's own if none is named.
    #[param(value_type = Option<String>)]
    org_id: Option<OrgId>,
    /// Only of this actor: a user, an agent, a service key, `command` or `anonymous`.
    actor: Option<String>,
    /// Only of this action, such as `bots:create`.
    action: Option<String>,
    /// Only on this resource.
    resource: Option<String>,
    /// Only `done`, `denied` or `failed`.
    #[param(value_type = Option<String>)]
    outcome: Option<AuditOutcome>,
    /// Only from this time on.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Only before this time.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// How many at most, 1 to 200.
    #[serde(default = "fifty")]
    #[param(default = 50, minimum = 1, maximum = 200)]
    limit: u32,
    /// What the page before this one gave as `next_page_token`.
    #[param(value_type = Option<String>)]
    page_token: Option<u64>,
}

/// Entries of the audit log, newest first.
#[derive(Serialize, ToSchema)]
struct AuditList {
    /// The part.
    entries: Vec<AuditEntryView>,
    /// Gets the next part; absent behind the last entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

/// Read the audit log
///
/// Who did what to which, when, from where, and how it ended; newest first. For admins and operators: of their own org;
/// for the operators', of any org.
#[utoipa::path(get, path = "/audit", tag = "audit", security(("token" = [])), params(AuditQuery), responses(
    (status = 200, body = AuditList),
    (status = 404, description = "`org_not_found`", body = Problem),
    (status = 422, description = "`invalid_query`, `invalid_fields`", body = Problem)
))]
async fn list(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    QueryOf(query): QueryOf<AuditQuery>,
) -> Result<Json<AuditList>, Problem> {
    let limit = checked_limit(query.limit)?;
    let list = ListAudit {
        org_id: query.org_id,
        actor: query.actor,
        action: query.action,
        resource: query.resource,
        outcome: query.outcome,
        since: query.since,
        until: query.until,
        before: query.page_token,
        // One more than is shown tells whether there are more.
        limit: limit + 1,
    };
    let mut entries = app.control.audit_log(&caller, &list).await?;
    let shown = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = entries.len() > shown;
    entries.truncate(shown);
    let next_page_token = entries.last().filter(|_| more).map(|entry| entry.seq.to_string());
    Ok(Json(AuditList { entries, next_page_token }))
}
