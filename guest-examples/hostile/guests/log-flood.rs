//! Writes without end. Input: `"log"`, `"stdout"`, `"stderr"` or `"all"`.

use std::io::Write;

use ringfence::Failure;
use serde::Deserialize;

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Where {
    Log,
    Stdout,
    Stderr,
    All,
}

#[ringfence::bot]
fn handle(to: Where) -> Result<(), Failure> {
    let line = "x".repeat(1000);
    let stopped = |error: std::io::Error| Failure::new("stopped", error.to_string());
    for number in 0_u64.. {
        if to == Where::Log || to == Where::All {
            ringfence::log::info!("{line}"; number = number);
        }
        if to == Where::Stdout || to == Where::All {
            writeln!(std::io::stdout(), "{number} {line}").map_err(stopped)?;
        }
        if to == Where::Stderr || to == Where::All {
            writeln!(std::io::stderr(), "{number} {line}").map_err(stopped)?;
        }
    }
    Ok(())
}
