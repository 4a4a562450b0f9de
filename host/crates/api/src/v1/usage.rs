use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use ringfence_control::{Day, GroupUsageBy, ListUsage, UsageError, UsageReport};
use ringfence_model::{BotId, OrgId};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::body::QueryOf;
use crate::guard::Authenticated;
use crate::list::{checked_limit, fifty};
use crate::{App, Problem};

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(usage))
}

impl From<UsageError> for Problem {
    fn from(error: UsageError) -> Self {
        match error {
            UsageError::Invalid(invalid) => invalid.into(),
            UsageError::NoSuchOrg => {
                Self::new(StatusCode::NOT_FOUND, "org_not_found", "There is no org with this id.")
            }
            UsageError::Denied(denied) => denied.into(),
            UsageError::Internal(error) => error.into(),
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct UsageQuery {
    /// Whose; one's own org's if none is named. Another org's is for the operators.
    #[param(value_type = Option<String>)]
    org_id: Option<OrgId>,
    /// Of this bot alone; with `group_by` `day` or `none`.
    #[param(value_type = Option<String>)]
    bot_id: Option<BotId>,
    /// The first day in UTC, at most 366 up to `to`; 30 days are added up if none is named.
    #[param(value_type = Option<String>, format = Date)]
    from: Option<Day>,
    /// The last day in UTC; today if none is named.
    #[param(value_type = Option<String>, format = Date)]
    to: Option<Day>,
    /// What a row adds up: a `day`, a `bot`, an `org` (for the operators: of all orgs), or all (`none`).
    #[serde(default)]
    #[param(inline, default = "day")]
    group_by: GroupUsageBy,
    /// How many rows at most, 1 to 200.
    #[serde(default = "fifty")]
    #[param(default = 50, minimum = 1, maximum = 200)]
    limit: u32,
    /// What the page before this one gave as `next_page_token`.
    page_token: Option<String>,
}

/// Read what calls used
///
/// Fuel, processor and wall time, memory, host calls, bytes and tokens, added up by the day on which calls began, by bot or by
/// org. What an oracle's run used is added when its submission passes; till then the run is counted in `calls` alone.
#[utoipa::path(get, path = "/usage", tag = "usage", security(("token" = [])), params(UsageQuery), responses(
    (status = 200, body = UsageReport),
    (status = 404, description = "`org_not_found`", body = Problem),
    (status = 422, description = "`invalid_query`, `invalid_fields`", body = Problem)
))]
async fn usage(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    QueryOf(query): QueryOf<UsageQuery>,
) -> Result<Json<UsageReport>, Problem> {
    let limit = checked_limit(query.limit)?;
    let list = ListUsage {
        org_id: query.org_id,
        bot_id: query.bot_id,
        from: query.from,
        to: query.to,
        group_by: query.group_by,
        limit,
        page_token: query.page_token,
    };
    Ok(Json(app.control.usage(&caller, &list).await?))
}
