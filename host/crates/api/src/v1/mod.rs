//! Version 1: a file an aggregate.

mod agents;
mod bots;
mod components;
mod jobs;
mod ledger;
mod submissions;

use utoipa_axum::router::OpenApiRouter;

use crate::{ApiConfig, App};

pub(crate) fn routes(config: &ApiConfig) -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(agents::routes(config))
        .merge(components::routes(config))
        .merge(bots::routes(config))
        .merge(jobs::routes(config))
        .merge(submissions::routes())
        .merge(ledger::routes(config))
}
