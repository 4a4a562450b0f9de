//! A guest that calls what it imports with whatever pointers, lengths and handles it likes, whose allocator answers what
//! it likes, and which returns what it likes: the call ends with an outcome, within its limits.
#![no_main]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock, Mutex};

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use ringfence_fuzz::{TOKIO, call, sandbox};
use ringfence_runtime::{Capabilities, KvError, KvStore, Runtime, RuntimeConfig};

static SANDBOX: LazyLock<Runtime> =
    LazyLock::new(|| sandbox(RuntimeConfig { loaded_cache_bytes: 1, ..RuntimeConfig::default() }));

/// A number as a guest would choose it to do harm, or not: small, in its memory of 64 KiB, near the end of that, or any.
fn number(u: &mut Unstructured<'_>) -> arbitrary::Result<i32> {
    Ok(match u.int_in_range(0..=3)? {
        0 => i32::from(u.arbitrary::<u8>()?),
        1 => i32::from(u.arbitrary::<u16>()?),
        2 => 65_536 + i32::from(u.arbitrary::<i8>()?),
        _ => u.arbitrary()?,
    })
}

/// The component's types and imports, and all of them lowered on the memory of `$shared`.
const IMPORTS: &str = r#"
    (import "ringfence:guest/types@0.1.0" (instance $types
        (type $task (record (field "id" string) (field "input" string)))
        (export "task" (type (eq $task)))
        (type $failure (record (field "code" string) (field "message" string)))
        (export "failure" (type (eq $failure)))))
    (alias export $types "task" (type $task))
    (alias export $types "failure" (type $failure))
    (import "ringfence:guest/log@0.1.0" (instance $log
        (type $level (enum "trace" "debug" "info" "warn" "error"))
        (export "level" (type $level-name (eq $level)))
        (export "write" (func (param "level" $level-name) (param "message" string)
            (param "fields" (list (tuple string string)))))))
    (import "ringfence:guest/config@0.1.0" (instance $config
        (export "get" (func (param "key" string) (result (option string))))
        (export "entries" (func (result (list (tuple string string)))))))
    (import "ringfence:guest/kv@0.1.0" (instance $kv
        (type $error (variant (case "invalid-key" string) (case "quota-exceeded" string) (case "unavailable" string)))
        (export "error" (type $e (eq $error)))
        (export "get" (func (param "key" string) (result (result (option (list u8)) (error $e)))))
        (export "set" (func (param "key" string) (param "value" (list u8)) (result (result (error $e)))))
        (export "delete" (func (param "key" string) (result (result (error $e)))))
        (export "compare-and-swap" (func (param "key" string) (param "expected" (option (list u8)))
            (param "value" (option (list u8))) (result (result bool (error $e)))))
        (export "list-keys" (func (param "prefix" string) (param "after" (option string))
            (result (result (list string) (error $e)))))))
    (import "wasi:cli/environment@0.2.0" (instance $environment
        (export "get-environment" (func (result (list (tuple string string)))))))
    (import "wasi:random/random@0.2.0" (instance $random
        (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))
    (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock (export "now" (func (result u64)))))
    (import "wasi:io/error@0.2.0" (instance $io-error (export "error" (type (sub resource)))))
    (alias export $io-error "error" (type $io-error-type))
    (import "wasi:io/poll@0.2.0" (instance $poll
        (export "pollable" (type $pollable (sub resource)))
        (export "poll" (func (param "in" (list (borrow $pollable))) (result (list u32))))))
    (alias export $poll "pollable" (type $pollable))
    (import "wasi:io/streams@0.2.0" (instance $streams
        (alias outer 1 $io-error-type (type $outer-error))
        (export "error" (type $error (eq $outer-error)))
        (alias outer 1 $pollable (type $outer-pollable))
        (export "pollable" (type $pollable (eq $outer-pollable)))
        (type $stream-error (variant (case "last-operation-failed" (own $error)) (case "closed")))
        (export "stream-error" (type $stream-error-name (eq $stream-error)))
        (export "output-stream" (type $output (sub resource)))
        (export "[method]output-stream.check-write" (func (param "self" (borrow $output))
            (result (result u64 (error $stream-error-name)))))
        (export "[method]output-stream.blocking-write-and-flush" (func (param "self" (borrow $output))
            (param "contents" (list u8)) (result (result (error $stream-error-name)))))
        (export "[method]output-stream.subscribe" (func (param "self" (borrow $output)) (result (own $pollable))))))
    (alias export $streams "output-stream" (type $output))
    (import "wasi:cli/stdout@0.2.0" (instance $stdout
        (alias outer 1 $output (type $outer-output))
        (export "output-stream" (type $output (eq $outer-output)))
        (export "get-stdout" (func (result (own $output))))))
"#;

/// Name within the guest, what is lowered, parameters, whether it answers (`i32`, `i64` or nothing).
const FUNCTIONS: &[(&str, &str, &str, &str)] = &[
    ("log", r#"(func $log "write")"#, "i32 i32 i32 i32 i32", ""),
    ("config-get", r#"(func $config "get")"#, "i32 i32 i32", ""),
    ("config-entries", r#"(func $config "entries")"#, "i32", ""),
    ("kv-get", r#"(func $kv "get")"#, "i32 i32 i32", ""),
    ("kv-set", r#"(func $kv "set")"#, "i32 i32 i32 i32 i32", ""),
    ("kv-delete", r#"(func $kv "delete")"#, "i32 i32 i32", ""),
    ("kv-swap", r#"(func $kv "compare-and-swap")"#, "i32 i32 i32 i32 i32 i32 i32 i32 i32", ""),
    ("kv-list", r#"(func $kv "list-keys")"#, "i32 i32 i32 i32 i32 i32", ""),
    ("environment", r#"(func $environment "get-environment")"#, "i32", ""),
    ("random", r#"(func $random "get-random-bytes")"#, "i64 i32", ""),
    ("now", r#"(func $clock "now")"#, "", "i64"),
    ("stdout", r#"(func $stdout "get-stdout")"#, "", "i32"),
    ("write", r#"(func $streams "[method]output-stream.blocking-write-and-flush")"#, "i32 i32 i32 i32", ""),
    ("check-write", r#"(func $streams "[method]output-stream.check-write")"#, "i32 i32", ""),
    ("subscribe", r#"(func $streams "[method]output-stream.subscribe")"#, "i32", "i32"),
    ("poll", r#"(func $poll "poll")"#, "i32 i32 i32", ""),
];

fn text(u: &mut Unstructured<'_>) -> arbitrary::Result<String> {
    let mut text = format!("(component {IMPORTS}\n(core module $shared (memory (export \"memory\") 1)\n");
    text.push_str("(data (i32.const 0) \"");
    for byte in u.arbitrary::<Vec<u8>>()?.iter().take(4096) {
        let _ = write!(text, "\\{byte:02x}");
    }
    text.push_str("\")\n(global $calls (mut i32) (i32.const 0)) (global $next (mut i32) (i32.const 8192))\n");
    text.push_str("(func (export \"realloc\") (param i32 i32 i32 i32) (result i32)\n");
    text.push_str("(global.set $calls (i32.add (global.get $calls) (i32.const 1)))\n");
    // What its allocator answers: these in turn, then on from an address.
    for turn in 1..=u.int_in_range(0..=16)? {
        let number = number(u)?;
        let _ = writeln!(
            text,
            "(if (i32.eq (global.get $calls) (i32.const {turn})) (then (return (i32.const {number}))))"
        );
    }
    text.push_str(
        "global.get $next (global.set $next (i32.add (global.get $next)
            (i32.and (i32.add (local.get 3) (i32.const 7)) (i32.const -8))))))\n(core instance $shared (instantiate $shared))\n",
    );
    let (mut main, mut with) = (String::new(), String::new());
    for (name, lowered, parameters, results) in FUNCTIONS {
        let _ = writeln!(
            text,
            "(core func ${name} (canon lower {lowered} (memory (core memory $shared \"memory\"))
                (realloc (core func $shared \"realloc\"))))"
        );
        let _ =
            writeln!(main, "(import \"\" \"{name}\" (func ${name} (param {parameters}) (result {results})))");
        let _ = writeln!(with, "(export \"{name}\" (func ${name}))");
    }
    for (name, resource) in [("drop-stream", "$output"), ("drop-pollable", "$pollable")] {
        let _ = writeln!(text, "(core func ${name} (canon resource.drop {resource}))");
        let _ = writeln!(main, "(import \"\" \"{name}\" (func ${name} (param i32)))");
        let _ = writeln!(with, "(export \"{name}\" (func ${name}))");
    }
    let mut body = String::new();
    for _ in 0..u.int_in_range(0..=64)? {
        write_step(&mut body, u)?;
    }
    let returned = number(u)?;
    let _ = write!(
        text,
        "(core module $main {main} (import \"\" \"memory\" (memory 1))
            (func (export \"handle\") (param i32 i32 i32 i32) (result i32) {body} (i32.const {returned})))
        (core instance $main (instantiate $main (with \"\" (instance {with} (export \"memory\" (memory $shared \"memory\"))))))
        (func (export \"handle\") (param \"task\" $task) (result (result string (error $failure)))
            (canon lift (core func $main \"handle\") (memory (core memory $shared \"memory\"))
                (realloc (core func $shared \"realloc\")))))"
    );
    Ok(text)
}

/// A call of an import, a store or a growth.
fn write_step(body: &mut String, u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    match u.int_in_range(0..=9)? {
        0 => {
            let _ = writeln!(body, "(i32.store (i32.const {}) (i32.const {}))", number(u)?, number(u)?);
        }
        1 => {
            let _ = writeln!(body, "(drop (memory.grow (i32.const {})))", number(u)?);
        }
        2 => {
            let name = if u.arbitrary()? { "drop-stream" } else { "drop-pollable" };
            let _ = writeln!(body, "(call ${name} (i32.const {}))", number(u)?);
        }
        _ => {
            let (name, _, parameters, results) = u.choose(FUNCTIONS)?;
            let _ = write!(body, "(call ${name}");
            for kind in parameters.split_whitespace() {
                let value = number(u)?;
                let _ = write!(body, " ({kind}.const {value})");
            }
            body.push_str(if results.is_empty() { ")\n" } else { ") drop\n" });
        }
    }
    Ok(())
}

/// A store that takes a few keys.
#[derive(Default)]
struct Memory(Mutex<BTreeMap<String, Vec<u8>>>);

#[async_trait::async_trait]
impl KvStore for Memory {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.0.lock().expect("no panic before").get(key).cloned())
    }

    async fn set(&self, key: &str, value: Vec<u8>) -> Result<(), KvError> {
        self.0.lock().expect("no panic before").insert(key.to_owned(), value);
        Ok(())
    }

    async fn delete(&self, key: &str) -> Result<(), KvError> {
        self.0.lock().expect("no panic before").remove(key);
        Ok(())
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
    ) -> Result<bool, KvError> {
        let mut store = self.0.lock().expect("no panic before");
        if store.get(key) != expected.as_ref() {
            return Ok(false);
        }
        match value {
            Some(value) => store.insert(key.to_owned(), value),
            None => store.remove(key),
        };
        Ok(true)
    }

    async fn list_keys(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>, KvError> {
        let store = self.0.lock().expect("no panic before");
        let keys = store.keys().filter(|key| key.starts_with(prefix));
        let keys = keys.filter(|key| after.is_none_or(|after| key.as_str() > after));
        Ok(keys.take(limit as usize).cloned().collect())
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = text(&mut Unstructured::new(data)) else { return };
    let wasm = wat::parse_str(text).expect("the text is right");
    let info = TOKIO.block_on(SANDBOX.prepare(wasm.into(), &"org_1".into())).expect("it may run");
    let config = [("key", "value"), ("", "empty"), ("long", "0123456789")];
    let config = config.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let capabilities =
        Capabilities { config, kv: Some(Arc::new(Memory::default())), ..Capabilities::default() };
    call(&SANDBOX, info.digest, capabilities);
});
