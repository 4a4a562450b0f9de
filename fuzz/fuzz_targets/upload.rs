//! Whatever is uploaded is answered: it may run or it may not, with a reason. What may run is called.
#![no_main]

use std::sync::LazyLock;

use arbitrary::{Arbitrary, Unstructured};
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

#[derive(Arbitrary, Debug)]
enum Upload {
    /// These bytes.
    Bytes(Vec<u8>),
    /// These bytes behind the header of a component.
    Body(Vec<u8>),
    /// A bot that may run, changed at some places.
    Changed(Vec<(u16, u8)>),
    /// A bot that may run, with this in place of a part of it.
    Spliced(u16, u8, Vec<u8>),
    /// A component of any shape.
    Component(Vec<u8>),
    /// A core module of any shape within a component.
    Module(Vec<u8>),
}

fn component(upload: Upload) -> Option<Vec<u8>> {
    const HEADER: &[u8] = b"\0asm\x0d\0\x01\0";
    Some(match upload {
        Upload::Bytes(bytes) => bytes,
        Upload::Body(bytes) => [HEADER, &bytes].concat(),
        Upload::Changed(changes) => {
            let mut bytes = BOT.to_vec();
            for (place, byte) in changes {
                let place = usize::from(place) % bytes.len();
                bytes[place] = byte;
            }
            bytes
        }
        Upload::Spliced(start, length, part) => {
            let mut bytes = BOT.to_vec();
            let start = usize::from(start) % bytes.len();
            let end = (start + usize::from(length)).min(bytes.len());
            bytes.splice(start..end, part);
            bytes
        }
        Upload::Component(seed) => {
            let config = wasm_smith::Config::default();
            wasm_smith::Component::new(config, &mut Unstructured::new(&seed)).ok()?.to_bytes()
        }
        Upload::Module(seed) => {
            let module =
                wasm_smith::Module::new(wasm_smith::Config::default(), &mut Unstructured::new(&seed));
            let module = module.ok()?.to_bytes();
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

fuzz_target!(|upload: Upload| {
    let Some(wasm) = component(upload) else { return };
    match TOKIO.block_on(SANDBOX.prepare(wasm.into())) {
        Ok(info) if info.kind == Kind::Bot && info.capabilities.is_empty() => {
            call(&SANDBOX, info.digest, Capabilities::default());
        }
        Ok(_) => {}
        Err(PrepareError::Invalid(error)) => assert!(!error.to_string().is_empty()),
        Err(other) => panic!("{other}"),
    }
});
