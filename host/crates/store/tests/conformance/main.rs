//! What must hold of the store, on SQLite and on PostgreSQL alike: the same cases on both.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod aggregates;
mod audit;
mod edges;
mod fixture;
mod idempotency;
mod keys;
mod kv;
mod ledger;
mod market;
mod market_bots;
mod pending;
mod policies_secrets;
mod queue;
mod rates;
mod schema;
mod turns;
mod usage;
mod users;
