//! Takes memory. Input:
//! - `{"mode": "abort"}` allocates until refused, as ordinary code does: the refusal aborts.
//! - `{"mode": "steps"}` allocates until refused, takes the refusal well, and returns what it got.
//! - `{"mode": "steps", "max_mib": 8}` stops there on its own.

use ringfence::Failure;
use serde::{Deserialize, Serialize};

const MIB: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Abort,
    Steps,
}

#[derive(Deserialize)]
struct Input {
    mode: Mode,
    max_mib: Option<usize>,
}

#[derive(Serialize)]
struct Output {
    allocated_mib: usize,
    refused: bool,
}

#[ringfence::bot]
fn handle(input: Input) -> Result<Output, Failure> {
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    let max_mib = input.max_mib.unwrap_or(usize::MAX);
    let mut refused = false;
    while blocks.len() < max_mib && !refused {
        let mut block = Vec::new();
        match input.mode {
            Mode::Abort => block.reserve_exact(MIB),
            Mode::Steps => refused = block.try_reserve_exact(MIB).is_err(),
        }
        if !refused {
            // Written, so that it is really there.
            block.resize(MIB, 0xa5);
            blocks.push(std::hint::black_box(block));
        }
    }
    Ok(Output { allocated_mib: blocks.len(), refused })
}
