//! Whatever is uploaded is answered: it may run or it may not, with a reason. What may run is called.
#![no_main]

use std::sync::LazyLock;

use arbitrary::Unstructured;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ringfence_fuzz::{TOKIO, bot, call, sandbox};
use ringfence_runtime::{Capabilities, Kind, PrepareError, Runtime, RuntimeConfig};

static SANDBOX: LazyLock<Runtime> = LazyLock::new(|| {
    sandbox(RuntimeConfig {
        loaded_cache_bytes: 1 << 20,
        max_component_bytes: 1 << 20,
        ..RuntimeConfig::default()
    })
});

/// A component that may run.
static BOT: LazyLock<Bytes> = LazyLock::new(|| bot(""));

const HEADER: &[u8] = b"\0asm\x0d\0\x01\0";

/// What is uploaded.
fn component(data: &[u8]) -> arbitrary::Result<Vec<u8>> {
    // A component, as the corpus is given some, and what the fuzzer makes of it.
    if data.starts_with(b"\0asm") {
        return Ok(data.to_vec());
    }
    made_up(&mut Unstructured::new(data))
}

fn made_up(u: &mut Unstructured<'_>) -> arbitrary::Result<Vec<u8>> {
    Ok(match u.int_in_range(0..=5)? {
        // Any bytes.
        0 => u.arbitrary()?,
        // Any bytes behind the header of a component.
        1 => [HEADER, &u.arbitrary::<Vec<u8>>()?].concat(),
        // A bot that may run, changed at some places.
        2 => {
            let mut bytes = BOT.to_vec();
            for change in u.arbitrary_iter::<(u16, u8)>()? {
                let (place, byte) = change?;
                let place = usize::from(place) % bytes.len();
                bytes[place] = byte;
            }
            bytes
        }
        // A bot that may run, with something in place of a part of it.
        3 => {
            let mut bytes = BOT.to_vec();
            let start = u.choose_index(bytes.len())?;
            let end = (start + usize::from(u.arbitrary::<u8>()?)).min(bytes.len());
            bytes.splice(start..end, u.arbitrary::<Vec<u8>>()?);
            bytes
        }
        // A component of any shape.
        4 => wasm_smith::Component::new(wasm_smith::Config::default(), u)?.to_bytes(),
        // A core module of any shape within a component.
        _ => {
            let module = wasm_smith::Module::new(wasm_smith::Config::default(), u)?.to_bytes();
            let mut length = Vec::new();
            let mut rest = module.len();
            while rest > 0x7f {
                length.push((rest & 0x7f) as u8 | 0x80);
                rest >>= 7;
            }
            length.push(rest as u8);
            [HEADER, &[1], &length, &module].concat()
        }
    })
}

fuzz_target!(|data: &[u8]| {
    let Ok(wasm) = component(data) else { return };
    match TOKIO.block_on(SANDBOX.prepare(wasm.into(), &"org_1".into())) {
        Ok(info) if info.kind == Kind::Bot && info.capabilities.is_empty() => {
            call(&SANDBOX, info.digest, Capabilities::default());
        }
        Ok(_) => {}
        Err(PrepareError::Invalid(error)) => assert!(!error.to_string().is_empty()),
        Err(other) => panic!("{other}"),
    }
});
