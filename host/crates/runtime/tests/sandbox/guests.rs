//! Guests, and the host that the tests share.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use ringfence_runtime::{BotCall, Invocation, Limits, NoSource, Runtime, RuntimeConfig};

/// One sandbox for the tests that do not care about its configuration.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| runtime(RuntimeConfig::default()));

pub(crate) fn runtime(config: RuntimeConfig) -> Runtime {
    Runtime::new(config, Arc::new(NoSource)).expect("the sandbox starts")
}

/// Whoever does not care who it is.
pub(crate) fn tenant() -> Arc<str> {
    "org_test".into()
}

/// A guest that `scripts/build-guests.sh` has built, by its path without `.wasm`.
pub(crate) fn built(name: &str) -> Bytes {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3).expect("the workspace");
    let path = root.join("target/guests").join(format!("{name}.wasm"));
    match std::fs::read(&path) {
        Ok(wasm) => wasm.into(),
        Err(error) => panic!("{}: {error}; run scripts/build-guests.sh", path.display()),
    }
}

/// A bot in the text format. `fields` are fields of its core module; `body` is the body of `handle`, whose
/// parameters are the pointers and lengths of the task's id and input and which returns a pointer to its
/// result. At address 16 lies the result `ok("{}")`.
pub(crate) fn bot(fields: &str, body: &str) -> Bytes {
    bot_importing("", "", fields, body)
}

/// Like [`bot`], with imports: `imports` are fields of the component before the core module, `with` are
/// arguments of its instantiation.
pub(crate) fn bot_importing(imports: &str, with: &str, fields: &str, body: &str) -> Bytes {
    let fields = format!("{fields} {REALLOC}");
    bot_lifted(imports, with, &fields, body, "")
}

/// What gives the host room for what it hands over, and never takes any back.
const REALLOC: &str = r#"(global $next (mut i32) (i32.const 1024))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
        global.get $next
        (global.set $next (i32.add (global.get $next)
            (i32.and (i32.add (local.get 3) (i32.const 7)) (i32.const -8)))))"#;

/// Like [`bot_importing`], with a `realloc` of its own among the fields, and more options of `canon lift`.
pub(crate) fn bot_lifted(imports: &str, with: &str, fields: &str, body: &str, options: &str) -> Bytes {
    wat(&format!(
        r#"(component
            (import "ringfence:guest/types@0.1.0" (instance $types
                (type $task (record (field "id" string) (field "input" string)))
                (export "task" (type (eq $task)))
                (type $failure (record (field "code" string) (field "message" string)))
                (export "failure" (type (eq $failure)))))
            (alias export $types "task" (type $task))
            (alias export $types "failure" (type $failure))
            {imports}
            (core module $main
                {fields}
                (memory $memory (export "memory") 1)
                (data (memory $memory) (i32.const 16) "\00\00\00\00\20\00\00\00\02\00\00\00")
                (data (memory $memory) (i32.const 32) "{{}}")
                (func (export "handle") (param i32 i32 i32 i32) (result i32)
                    {body}))
            (core instance $main (instantiate $main {with}))
            (func (export "handle") (param "task" $task) (result (result string (error $failure)))
                (canon lift (core func $main "handle") (memory (core memory $main "memory"))
                    (realloc (core func $main "realloc")) {options})))"#
    ))
}

pub(crate) fn wat(text: &str) -> Bytes {
    wat::parse_str(text).expect("the test's own text is right").into()
}

/// A call of this input with the default limits.
pub(crate) async fn call(wasm: Bytes, input: &str) -> Invocation<String> {
    call_within(wasm, input, Limits::default()).await
}

pub(crate) async fn call_within(wasm: Bytes, input: &str, limits: Limits) -> Invocation<String> {
    let call = BotCall { limits, input: input.to_owned(), ..prepared(&RUNTIME, wasm).await };
    RUNTIME.call_bot(call).await.expect("the call begins")
}

/// Prepares a bot, for a call with an empty object.
pub(crate) async fn prepared(runtime: &Runtime, wasm: Bytes) -> BotCall {
    let info = runtime.prepare(wasm, &tenant()).await.expect("the component may run");
    BotCall {
        digest: info.digest,
        invocation_id: "inv_test".to_owned(),
        input: "{}".to_owned(),
        limits: Limits::default(),
        capabilities: Arc::default(),
        tenant: tenant(),
        logs: ringfence_runtime::LogOptions::default(),
    }
}
