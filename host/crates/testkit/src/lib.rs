//! What a test needs to meet Ringfence as its users do: a real host process, a real database, real guests.
//!
//! For tests only: it panics with advice where something is missing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod client;
mod database;
mod durable_rows;
mod host;
mod market;
mod people;

pub use client::{Answer, Client, expect_problem, send};
pub use database::{Database, Engine};
pub use durable_rows::DurableRows;
pub use host::{Host, HostOptions};
pub use market::{Agent, Market};
pub use people::{PASSWORD, Tokens};

use std::path::PathBuf;

/// The root of the workspace.
#[must_use]
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../..")
}

/// The bytes of a built guest, such as `echo` or `hostile/spin`.
///
/// # Panics
/// If the guest is not built.
#[must_use]
pub fn guest(name: &str) -> Vec<u8> {
    let path = root().join("target/guests").join(format!("{name}.wasm"));
    std::fs::read(&path)
        .unwrap_or_else(|_| panic!("{} is missing: run scripts/build-guests.sh", path.display()))
}

/// Makes each test twice: `sqlite::name` and `postgres::name`. A test takes the [`Engine`].
#[macro_export]
macro_rules! on_both_engines {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name($crate::Engine::Sqlite).await; })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name($crate::Engine::Postgres).await; })+
        }
    };
}
