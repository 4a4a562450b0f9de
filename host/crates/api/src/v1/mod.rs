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
        .merge(agents::routes())
        .merge(components::routes(config))
        .merge(bots::routes())
        .merge(jobs::routes())
        .merge(submissions::routes())
        .merge(ledger::routes())
}
