//! The sandbox against real components: those that `scripts/build-guests.sh` builds, and small ones in the
//! text format for what no ordinary tool chain produces. One binary, so that wasmtime is linked once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests, whose helpers the lints do not recognise as such"
)]

mod cache;
mod compile;
mod confine;
mod directories;
mod guests;
mod hostile;
mod http;
mod invalid;
mod kv;
mod llm;
mod oracles;
mod outcomes;
mod secrets;
mod slots;
mod upkeep;
