//! Returns a JSON string of as many bytes as the input says; 64 MiB for `null`.

use ringfence::Failure;

#[ringfence::bot]
fn handle(bytes: Option<usize>) -> Result<String, Failure> {
    Ok("x".repeat(bytes.unwrap_or(64 << 20)))
}
