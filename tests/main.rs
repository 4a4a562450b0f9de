//! Black-box tests: a real host process, spoken to over HTTP, on SQLite and on PostgreSQL.
//!
//! `routes` mirrors the URLs; `flows` are whole ways through the market; `market` has its rules, case by case; `house` holds the
//! rules of the code base.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod flows;
mod house;
mod market;
mod routes;

use ringfence_testkit::{Engine, Host, HostOptions};

/// A host with the usual options.
async fn host(engine: Engine) -> Host {
    host_with(engine, HostOptions::default()).await
}

async fn host_with(engine: Engine, options: HostOptions) -> Host {
    Host::start(env!("CARGO_BIN_EXE_ringfence"), engine, options).await
}

/// Recomputes the whole ledger, at one moment, and finds nothing wrong.
async fn ledger_holds(host: &Host) {
    let store = ringfence_store::Store::connect(host.database().url()).await.unwrap();
    let mut snapshot = store.snapshot().await.unwrap();
    assert_eq!(ringfence_store::ledger::check(&mut snapshot).await.unwrap(), []);
    drop(snapshot);
    store.close().await;
}
