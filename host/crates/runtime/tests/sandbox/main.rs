//! The sandbox against real components: those that `scripts/build-guests.sh` builds, and small ones in the
//! text format for what no ordinary tool chain produces. One binary, so that wasmtime is linked once.

mod cache;
mod guests;
mod invalid;
mod kv;
mod oracles;
mod outcomes;
mod slots;
