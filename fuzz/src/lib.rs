//! What the fuzz targets share: a sandbox with small limits, and bots made of text.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use ringfence_runtime::{
    BotCall, Capabilities, Digest, Invocation, Limits, LogOptions, NoSource, Runtime, RuntimeConfig,
};

/// Where everything asynchronous runs.
pub static TOKIO: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().expect("tokio starts")
});

/// What one call may take: little, so that many fit into a second.
#[allow(clippy::needless_update, reason = "limits may be added that are none of ours")]
pub fn limits() -> Limits {
    Limits {
        fuel: 200_000,
        memory_bytes: 8 << 20,
        table_elements: 1_000,
        wall_time_ms: 2_000,
        log_bytes: 4_096,
        output_bytes: 4_096,
        host_calls: 64,
        ..Limits::default()
    }
}

/// A sandbox with one slot that compiles in this process.
pub fn sandbox(config: RuntimeConfig) -> Runtime {
    let config = RuntimeConfig { slots: 1, maximum: limits(), compile_concurrency: 1, ..config };
    Runtime::new(config, Arc::new(NoSource)).expect("the sandbox starts")
}

/// Calls a bot. However it ends, it has kept to its limits.
pub fn call(sandbox: &Runtime, digest: Digest, capabilities: Capabilities) -> Invocation<String> {
    let limits = limits();
    let call = BotCall {
        digest,
        invocation_id: "inv_1".to_owned(),
        input: r#"{"text":"hello"}"#.to_owned(),
        limits: limits.clone(),
        capabilities: Arc::new(capabilities),
        tenant: "org_1".into(),
        logs: LogOptions::default(),
    };
    let invocation = TOKIO.block_on(sandbox.call_bot(call)).expect("the call begins");
    let usage = &invocation.usage;
    assert!(usage.fuel <= limits.fuel, "{usage:?}");
    assert!(usage.peak_memory_bytes <= limits.memory_bytes, "{usage:?}");
    assert!(usage.host_calls <= limits.host_calls + 1, "{usage:?}");
    let texts = invocation.output.iter().map(String::len).sum::<usize>()
        + invocation.failure.iter().map(|failure| failure.code.len() + failure.message.len()).sum::<usize>();
    // What is no text is charged as it came, and each such byte is kept as U+FFFD, which has three.
    assert!(texts as u64 <= 3 * limits.output_bytes, "{texts} bytes came back");
    let logged: usize = invocation.logs.iter().map(|line| line.message.len()).sum();
    assert!(logged as u64 <= 3 * limits.log_bytes, "{logged} bytes were logged");
    invocation
}

/// A bot in the text format that answers `{}`. `fields` are fields of its core module.
pub fn bot(fields: &str) -> Bytes {
    let text = format!(
        r#"(component
            (import "ringfence:guest/types@0.1.0" (instance $types
                (type $task (record (field "id" string) (field "input" string)))
                (export "task" (type (eq $task)))
                (type $failure (record (field "code" string) (field "message" string)))
                (export "failure" (type (eq $failure)))))
            (alias export $types "task" (type $task))
            (alias export $types "failure" (type $failure))
            (core module $main
                {fields}
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
                (memory $memory (export "memory") 1)
                (data (memory $memory) (i32.const 16) "\00\00\00\00\20\00\00\00\02\00\00\00")
                (data (memory $memory) (i32.const 32) "{{}}")
                (func (export "handle") (param i32 i32 i32 i32) (result i32) (i32.const 16)))
            (core instance $main (instantiate $main))
            (func (export "handle") (param "task" $task) (result (result string (error $failure)))
                (canon lift (core func $main "handle") (memory (core memory $main "memory"))
                    (realloc (core func $main "realloc")))))"#
    );
    wat::parse_str(text).expect("the text is right").into()
}
