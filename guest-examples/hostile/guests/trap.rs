//! Ends in a way that is no answer. Input: `"unreachable"`, `"panic"`, `"abort"`, `"exit"` (code 3),
//! `"exit_zero"`, `"out_of_bounds"` (of the memory) or `"divide"` (by zero).

use std::hint::black_box;

use ringfence::Failure;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Way {
    Unreachable,
    Panic,
    Abort,
    Exit,
    ExitZero,
    OutOfBounds,
    Divide,
}

#[ringfence::bot]
fn handle(way: Way) -> Result<u32, Failure> {
    match way {
        Way::Unreachable => trap(),
        Way::Panic => panic!("this guest panics on purpose"),
        Way::Abort => std::process::abort(),
        Way::Exit => std::process::exit(3),
        Way::ExitZero => std::process::exit(0),
        // SAFETY: none, that is the point: the sandbox has to notice.
        Way::OutOfBounds => Ok(unsafe { black_box(0xffff_fff0_usize as *const u32).read_volatile() }),
        // SAFETY: none either. The check that would panic is taken away, and the processor's remains.
        Way::Divide => Ok(unsafe { black_box(7_u32).checked_div(black_box(0)).unwrap_unchecked() }),
    }
}

#[cfg(target_family = "wasm")]
fn trap() -> ! {
    core::arch::wasm32::unreachable()
}

#[cfg(not(target_family = "wasm"))]
fn trap() -> ! {
    std::process::abort()
}
