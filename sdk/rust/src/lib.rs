//! Write bots and oracles for Ringfence.
//!
//! A bot is one function. Its input and output are JSON on the wire and ordinary Rust types here:
//!
//! ```
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct Order { cents: i64 }
//!
//! #[derive(Serialize)]
//! struct Total { total_cents: i64 }
//!
//! #[ringfence::bot]
//! fn handle(orders: Vec<Order>) -> Result<Total, ringfence::Failure> {
//!     ringfence::log::info!("adding up"; orders = orders.len());
//!     Ok(Total { total_cents: orders.iter().map(|order| order.cents).sum() })
//! }
//! # fn main() {}
//! ```
//!
//! An oracle judges what a worker delivered:
//!
//! ```
//! use ringfence::{Checks, Failure, Job, Submission, Verdict};
//!
//! #[ringfence::oracle]
//! fn evaluate(job: Job<Vec<i64>>, submission: Submission<i64>) -> Result<Verdict, Failure> {
//!     let (expected, found) = (job.input.iter().sum::<i64>(), submission.content);
//!     let mut checks = Checks::new();
//!     checks.equal("the sum is right", &expected, &found);
//!     Ok(checks.verdict())
//! }
//! # fn main() {}
//! ```
//!
//! Natively (`cargo test`) the same function runs against an in-memory host, see [`testing`]. For the
//! guest target (`wasm32-wasip2`) the attributes export it as `ringfence:guest/bot` or `/oracle`.

#[cfg(target_family = "wasm")]
mod bindings;
mod bot;
mod checks;
pub mod config;
mod failure;
mod host;
pub mod http;
pub mod kv;
pub mod llm;
pub mod log;
mod oracle;
mod parse;
pub mod secrets;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
#[cfg(target_family = "wasm")]
mod wasi_http;

pub use bot::{BotInput, Task};
pub use checks::Checks;
pub use failure::Failure;
pub use oracle::{Job, Step, Submission, Verdict};
pub use ringfence_macros::{bot, oracle};

/// What the attributes expand to. Nothing here is meant for people or kept stable.
#[doc(hidden)]
pub mod __private {
    pub use crate::bot::check as check_bot;
    pub use crate::oracle::check as check_oracle;

    #[cfg(target_family = "wasm")]
    pub use crate::bindings::{bot, export_bot, export_oracle, oracle};
}
