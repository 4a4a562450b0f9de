//! Whatever lies in the cache folder under the name of a component's code: it is loaded only if it is, to the byte, what
//! this host has written there.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ringfence_fuzz::{TOKIO, bot, limits, sandbox};
use ringfence_runtime::{BotCall, CallError, Digest, Runtime, RuntimeConfig};

#[derive(Arbitrary, Debug)]
enum File {
    /// These bytes.
    Bytes(Vec<u8>),
    /// What the host wrote, changed at some places.
    Changed(Vec<(u32, u8)>),
    /// What the host wrote, cut off here and with this behind it.
    Cut(u32, Vec<u8>),
    /// What the host wrote for another component.
    Other,
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
    let prepare = |wasm| TOKIO.block_on(sandbox.prepare(wasm)).expect("it may run").digest;
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

fuzz_target!(|file: File| {
    let world = &*WORLD;
    let bytes = match file {
        File::Bytes(bytes) => bytes,
        File::Changed(changes) => {
            let mut bytes = world.own.clone();
            for (place, byte) in changes {
                let place = place as usize % bytes.len();
                bytes[place] = byte;
            }
            bytes
        }
        File::Cut(length, rest) => [&world.own[..length as usize % (world.own.len() + 1)], &rest].concat(),
        File::Other => world.other.clone(),
    };
    std::fs::write(&world.file, &bytes).expect("the file is written");
    let call = |digest| {
        let call = BotCall {
            digest,
            invocation_id: "inv_1".to_owned(),
            input: "{}".to_owned(),
            limits: limits(),
            capabilities: Default::default(),
            tenant: "org_1".into(),
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
