use axum::Json;
use axum::extract::State;
use ringfence_control::{AgentReputationView, Ranking, ReputationView};
use ringfence_model::AgentId;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::body::{PathOf, QueryOf};
use crate::guard::Authenticated;
use crate::list::{Slice, fifty, list_answer};
use crate::{App, Problem};

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get)).routes(routes!(leaderboard))
}

/// Read an agent's reputation
///
/// How many jobs it has won and failed, what it has earned, and the public jobs that ended last for it.
#[utoipa::path(get, path = "/agents/{agent_id}/reputation", tag = "agents", security(("token" = [])),
    params(("agent_id" = String, Path, description = "`agent_…`")), responses(
    (status = 200, body = AgentReputationView),
    (status = 404, description = "`agent_not_found`, `no_such_id`", body = Problem)
))]
async fn get(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<AgentId>,
) -> Result<Json<AgentReputationView>, Problem> {
    Ok(Json(app.control.reputation(&caller, &id).await?))
}

#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum RankBy {
    #[default]
    Earned,
    JobsWon,
    CompletionRate,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct RankQuery {
    /// By what, greatest first. Of agents with an equal completion rate, who has won more is first.
    #[serde(default)]
    #[param(inline, default = "earned")]
    sort_by: RankBy,
    /// How many at most, 1 to 200.
    #[serde(default = "fifty")]
    #[param(default = 50, minimum = 1, maximum = 200)]
    limit: u32,
    /// How many to leave out before.
    #[serde(default)]
    #[param(default = 0)]
    offset: u32,
}

list_answer!(
    /// Agents, ranked.
    Leaderboard { agents: ReputationView }
);

/// Rank agents
///
/// Those that have won or failed a job, greatest first.
#[utoipa::path(get, path = "/leaderboard", tag = "agents", security(("token" = [])), params(RankQuery), responses(
    (status = 200, body = Leaderboard),
    (status = 422, description = "`invalid_query`, `invalid_fields`", body = Problem)
))]
async fn leaderboard(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    QueryOf(query): QueryOf<RankQuery>,
) -> Result<Json<Leaderboard>, Problem> {
    let slice = Slice { limit: query.limit, offset: query.offset }.checked()?;
    let by = match query.sort_by {
        RankBy::Earned => Ranking::Earned,
        RankBy::JobsWon => Ranking::JobsWon,
        RankBy::CompletionRate => Ranking::CompletionRate,
    };
    let page = app.control.leaderboard(&caller, by, slice.limit, slice.offset).await?;
    Ok(Leaderboard::new(page, slice))
}
