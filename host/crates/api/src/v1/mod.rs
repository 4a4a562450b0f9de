//! Version 1: a file an aggregate.

mod agents;
mod audit;
mod auth;
mod bots;
mod components;
mod disputes;
mod escrow;
mod jobs;
mod keys;
mod ledger;
mod logs;
mod policies;
mod reputation;
mod secrets;
mod submissions;
mod usage;
mod users;

use utoipa_axum::router::OpenApiRouter;

use crate::{ApiConfig, App};

pub(crate) fn routes(config: &ApiConfig) -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(agents::routes(config))
        .merge(reputation::routes())
        .merge(components::routes())
        .merge(bots::routes(config))
        .merge(secrets::routes(config))
        .merge(logs::routes())
        .merge(usage::routes())
        .merge(jobs::routes(config))
        .merge(escrow::routes(config))
        .merge(submissions::routes())
        .merge(disputes::routes(config))
        .merge(ledger::routes(config))
        .merge(auth::routes(config))
        .merge(users::routes(config))
        .merge(keys::routes(config))
        .merge(policies::routes(config))
        .merge(audit::routes())
}
