//! Whatever lies in the cache folder under the name of a component's code: it is loaded only if it is, to the byte, what
//! this host has written there.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use ringfence_fuzz::{TOKIO, bot, limits, sandbox};
use ringfence_runtime::{BotCall, CallError, Digest, LogOptions, Runtime, RuntimeConfig};

/// What lies in the file.
fn file(u: &mut Unstructured<'_>, world: &World) -> arbitrary::Result<Vec<u8>> {
    Ok(match u.int_in_range(0..=3)? {
        // Any bytes.
        0 => u.arbitrary()?,
        // What the host wrote, changed at some places.
        1 => {
            let mut bytes = world.own.clone();
            for change in u.arbitrary_iter::<(u32, u8)>()? {
                let (place, byte) = change?;
                let place = place as usize % bytes.len();
                bytes[place] = byte;
            }
            bytes
        }
        // What the host wrote, cut off somewhere, and something behind it.
        2 => {
            let length = u.int_in_range(0..=world.own.len())?;
            [&world.own[..length], &u.arbitrary::<Vec<u8>>()?].concat()
        }
        // What the host wrote for another component.
        _ => world.other.clone(),
    })
}

struct World {
    sandbox: Runtime,
    file: PathBuf,
    own: Vec<u8>,
    other: Vec<u8>,
    digest: Digest,
    other_digest: Digest,
    _folder: tempfile::TempDir,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let config = RuntimeConfig {
        cache_dir: Some(folder.path().to_owned()),
        loaded_cache_bytes: 1,
        ..RuntimeConfig::default()
    };
    let sandbox = sandbox(config);
    let prepare = |wasm| TOKIO.block_on(sandbox.prepare(wasm, &"org_1".into())).expect("it may run").digest;
    let (digest, other_digest) = (prepare(bot("")), prepare(bot("(global i32 (i32.const 1))")));
    let file = |digest: Digest| {
        let entries = std::fs::read_dir(folder.path()).expect("the folder is read").flatten();
        let mut files = entries.map(|entry| entry.path());
        files.find(|path| path.display().to_string().contains(&digest.to_hex())).expect("its file")
    };
    let (file, other) = (file(digest), file(other_digest));
    let read = |path| std::fs::read(path).expect("the file is read");
    World { sandbox, own: read(&file), other: read(&other), file, digest, other_digest, _folder: folder }
});

fuzz_target!(|data: &[u8]| {
    let world = &*WORLD;
    let Ok(bytes) = file(&mut Unstructured::new(data), world) else { return };
    std::fs::write(&world.file, &bytes).expect("the file is written");
    let call = |digest| {
        let call = BotCall {
            digest,
            invocation_id: "inv_1".to_owned(),
            input: "{}".to_owned(),
            limits: limits(),
            capabilities: Default::default(),
            tenant: "org_1".into(),
            logs: LogOptions::default(),
        };
        TOKIO.block_on(world.sandbox.call_bot(call))
    };
    // Puts the first one out of memory.
    call(world.other_digest).expect("the other one runs");
    match call(world.digest) {
        Ok(_) => assert_eq!(bytes, world.own, "a file that this host has not written was run"),
        Err(error) => {
            assert_eq!(error, CallError::UnknownComponent(world.digest));
            assert_ne!(bytes, world.own, "what this host has written is refused");
        }
    }
});
