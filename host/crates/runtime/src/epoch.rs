//! The clock that takes a spinning guest off its worker thread.

use std::thread;

use wasmtime::Engine;

use crate::engine::TICK;

/// Starts a thread that moves the engine's epoch every [`TICK`]. It is an operating-system thread, not a
/// task: it must tick when every worker of the async runtime is inside a guest. It ends with the engine.
pub(crate) fn start(engine: &Engine) -> std::io::Result<()> {
    let engine = engine.weak();
    thread::Builder::new()
        .name("ringfence-epoch".to_owned())
        .spawn(move || {
            loop {
                thread::sleep(TICK);
                match engine.upgrade() {
                    Some(engine) => engine.increment_epoch(),
                    None => break,
                }
            }
        })
        .map(drop)
}
