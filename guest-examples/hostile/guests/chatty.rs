//! Makes many small calls to the host. Input: `{"calls": 5000000, "what": "config"}`; `what` is
//! `config`, `entries`, `clock`, `random` or `log` (empty lines).

use std::time::Instant;

use ringfence::Failure;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Config,
    Entries,
    Clock,
    Random,
    Log,
}

#[derive(Deserialize)]
struct Input {
    calls: u64,
    what: What,
}

#[ringfence::bot]
fn handle(input: Input) -> Result<u64, Failure> {
    for _ in 0..input.calls {
        match input.what {
            What::Config => drop(std::hint::black_box(ringfence::config::get("k"))),
            What::Entries => drop(std::hint::black_box(ringfence::config::entries())),
            What::Clock => drop(std::hint::black_box(Instant::now())),
            What::Random => drop(std::hint::black_box(random())),
            What::Log => ringfence::log::write(ringfence::log::Level::Trace, "", &[]),
        }
    }
    Ok(input.calls)
}

/// Asks the host for one byte of randomness each time; the standard library's own would ask but once.
fn random() -> u8 {
    unsafe extern "C" {
        fn getentropy(buffer: *mut u8, length: usize) -> i32;
    }
    let mut byte = 0;
    // SAFETY: the buffer is one byte, as the length says.
    unsafe { getentropy(&raw mut byte, 1) };
    byte
}
