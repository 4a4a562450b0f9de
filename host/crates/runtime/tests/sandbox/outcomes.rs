//! Every way in which an invocation can end, and that nothing follows after it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use ringfence_runtime::{BotCall, Invocation, Level, Limits, Outcome, Stream};

use crate::guests::{RUNTIME, bot, bot_importing, built, call, call_within, prepared};

/// An ending that was neither a result nor a failure, and whose sentence has `part` in it.
#[track_caller]
pub(crate) fn assert_ended<T: std::fmt::Debug>(invocation: &Invocation<T>, outcome: Outcome, part: &str) {
    assert_eq!(invocation.outcome, outcome, "{invocation:?}");
    let detail = invocation.detail.as_deref().unwrap_or_default();
    assert!(detail.contains(part), "{detail:?} has no {part:?}");
    assert!(invocation.output.is_none() && invocation.failure.is_none(), "{invocation:?}");
}

#[tokio::test]
async fn a_bot_answers() {
    let input = r#"{"text":"hé","list":[1,2]}"#;
    let invocation = call(built("echo"), input).await;
    assert_eq!(invocation.outcome, Outcome::Completed, "{invocation:?}");
    assert_eq!(invocation.detail, None);
    let output: serde_json::Value = serde_json::from_str(&invocation.output.unwrap()).unwrap();
    assert_eq!(output, serde_json::from_str::<serde_json::Value>(input).unwrap());
    let usage = invocation.usage;
    assert!(usage.fuel > 0 && usage.fuel < 100_000, "{usage:?}");
    assert!(usage.peak_memory_bytes >= 64 << 10 && usage.peak_memory_bytes < 4 << 20, "{usage:?}");
    assert!(usage.wall_us > 0 && usage.cpu_us > 0 && usage.cpu_us <= usage.wall_us, "{usage:?}");
    assert_eq!(usage.input_bytes, input.len() as u64);
    assert!(usage.output_bytes > 0);
}

#[tokio::test]
async fn a_guest_that_keeps_state_starts_anew_each_time() {
    let counter = bot(
        "(global $calls (mut i32) (i32.const 0))",
        "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
         (if (i32.ne (global.get $calls) (i32.const 1)) (then unreachable))
         (if (i32.load (i32.const 512)) (then unreachable))
         (i32.store (i32.const 512) (i32.const 1))
         (i32.const 16)",
    );
    for _ in 0..20 {
        assert_eq!(call(counter.clone(), "{}").await.outcome, Outcome::Completed);
    }
}

#[tokio::test]
async fn a_failure_is_an_answer() {
    let invocation = call(built("hostile/park"), r#""not a number""#).await;
    assert_eq!(invocation.outcome, Outcome::Failed);
    let failure = invocation.failure.unwrap();
    assert_eq!(failure.code, "bad_input");
    assert!(!failure.message.is_empty());
    assert!(invocation.output.is_none() && invocation.detail.is_none());
}

#[tokio::test]
async fn spinning_ends_with_the_fuel() {
    let limits = Limits { fuel: 10_000_000, ..Limits::default() };
    let invocation = call_within(built("hostile/spin"), "{}", limits).await;
    assert_ended(&invocation, Outcome::OutOfFuel, "10000000");
    assert_eq!(invocation.usage.fuel, 10_000_000);
}

#[tokio::test]
async fn spinning_ends_with_the_time() {
    let limits = Limits { fuel: u64::MAX, wall_time_ms: 100, ..Limits::default() };
    let start = Instant::now();
    let invocation = call_within(built("hostile/spin"), "{}", limits).await;
    assert_ended(&invocation, Outcome::TimedOut, "100 ms");
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(invocation.usage.wall_us >= 100_000, "{:?}", invocation.usage);
    assert!(invocation.usage.fuel > 0 && invocation.usage.cpu_us > 0, "{:?}", invocation.usage);
}

#[tokio::test]
async fn parking_ends_with_the_time() {
    let limits = Limits { wall_time_ms: 100, ..Limits::default() };
    let start = Instant::now();
    let invocation = call_within(built("hostile/park"), "3600000", limits).await;
    assert_ended(&invocation, Outcome::TimedOut, "100 ms");
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(invocation.usage.cpu_us < 90_000, "waiting is not work: {:?}", invocation.usage);
}

#[tokio::test]
async fn memory_ends_at_its_limit() {
    let limits = Limits { memory_bytes: 16 << 20, ..Limits::default() };
    for input in [r#"{"mode":"abort"}"#, r#"{"mode":"steps"}"#] {
        let invocation = call_within(built("hostile/memory"), input, limits.clone()).await;
        assert_ended(&invocation, Outcome::OutOfMemory, "16777216");
        let peak = invocation.usage.peak_memory_bytes;
        assert!(peak > 8 << 20 && peak <= 16 << 20, "{peak}");
    }
    let modest = call_within(built("hostile/memory"), r#"{"mode":"steps","max_mib":8}"#, limits).await;
    assert_eq!(modest.outcome, Outcome::Completed);
}

#[tokio::test]
async fn a_guest_is_not_told_that_memory_was_refused() {
    // It would answer if `memory.grow` returned.
    for pages in ["65536", "65535", "-1", "2000"] {
        let patient = bot("", &format!("(drop (memory.grow (i32.const {pages}))) (i32.const 16)"));
        let limits = Limits { memory_bytes: 1 << 20, ..Limits::default() };
        let invocation = call_within(patient, "{}", limits).await;
        assert_ended(&invocation, Outcome::OutOfMemory, "1048576");
        assert_eq!(invocation.usage.peak_memory_bytes, 64 << 10, "{pages}");
    }
}

#[tokio::test]
async fn a_components_own_maximum_is_the_specifications_minus_one() {
    let own = bot(
        "(memory $own 0 3)",
        "(if (i32.ne (memory.grow $own (i32.const 4)) (i32.const -1)) (then unreachable))
         (if (i32.ne (memory.grow $own (i32.const 3)) (i32.const 0)) (then unreachable))
         (i32.const 16)",
    );
    let invocation = call(own, "{}").await;
    assert_eq!(invocation.outcome, Outcome::Completed, "{invocation:?}");
    assert_eq!(invocation.usage.peak_memory_bytes, 4 * (64 << 10));
}

#[tokio::test]
async fn memories_are_summed() {
    let several = bot(
        "(memory $a 0) (memory $b 0)",
        "(drop (memory.grow $a (i32.const 8))) (drop (memory.grow $b (i32.const 8))) (i32.const 16)",
    );
    let limits = Limits { memory_bytes: 12 * (64 << 10), ..Limits::default() };
    let invocation = call_within(several.clone(), "{}", limits).await;
    assert_ended(&invocation, Outcome::OutOfMemory, "memory");
    assert_eq!(call(several, "{}").await.outcome, Outcome::Completed);
}

#[tokio::test]
async fn the_first_memory_may_be_too_large_already() {
    let limits = Limits { memory_bytes: 64 << 10, ..Limits::default() };
    let invocation = call_within(built("echo"), "{}", limits).await;
    assert_ended(&invocation, Outcome::OutOfMemory, "65536");
}

#[tokio::test]
async fn tables_end_at_their_limit() {
    for elements in ["100000", "101"] {
        let grower = bot(
            "(table $table 0 funcref)",
            &format!("(drop (table.grow $table (ref.null func) (i32.const {elements}))) (i32.const 16)"),
        );
        let limits = Limits { table_elements: 100, ..Limits::default() };
        let invocation = call_within(grower, "{}", limits).await;
        assert_ended(&invocation, Outcome::OutOfTable, "100");
    }
}

#[tokio::test]
async fn recursion_ends_with_the_stack() {
    let recursion = bot("(func $down (result i32) (i32.add (call $down) (i32.const 1)))", "(call $down)");
    assert_ended(&call(recursion, "{}").await, Outcome::StackOverflow, "524288");

    // Compiled Rust has a second stack, in its memory; whichever ends first.
    let invocation = call(built("hostile/recurse"), "null").await;
    assert!(matches!(invocation.outcome, Outcome::StackOverflow | Outcome::Trapped), "{invocation:?}");
    assert_eq!(call(built("hostile/recurse"), "100").await.outcome, Outcome::Completed);
}

#[tokio::test]
async fn traps_say_what_happened() {
    let cases = [
        (r#""unreachable""#, "unreachable"),
        (r#""panic""#, "unreachable"),
        (r#""abort""#, "unreachable"),
        (r#""out_of_bounds""#, "out of bounds memory access"),
    ];
    for (input, part) in cases {
        assert_ended(&call(built("hostile/trap"), input).await, Outcome::Trapped, part);
    }
    let panic = call(built("hostile/trap"), r#""panic""#).await;
    assert!(
        panic.logs.iter().any(|line| line.stream == Stream::Stderr
            && line.level == Level::Warn
            && line.message.contains("this guest panics on purpose")),
        "{:?}",
        panic.logs
    );
    let division = bot(
        "",
        "(drop (i32.div_u (i32.const 1) (local.get 0))) (local.set 0 (i32.const 0))
        (drop (i32.div_u (i32.const 1) (local.get 0))) (i32.const 16)",
    );
    assert_ended(&call(division, "{}").await, Outcome::Trapped, "divide by zero");
}

#[tokio::test]
async fn leaving_is_not_answering() {
    assert_ended(&call(built("hostile/trap"), r#""exit""#).await, Outcome::Exited, "exit code 1");
    assert_ended(&call(built("hostile/trap"), r#""exit_zero""#).await, Outcome::Exited, "exit code 0");
}

#[tokio::test]
async fn output_ends_at_its_limit() {
    let limits = Limits { output_bytes: 1000, ..Limits::default() };
    // JSON adds two quotation marks.
    let fits = call_within(built("hostile/big-output"), "998", limits.clone()).await;
    assert_eq!(fits.outcome, Outcome::Completed);
    assert_eq!(fits.usage.output_bytes, 1000);
    for bytes in ["999", "100000", "10000000"] {
        let invocation = call_within(built("hostile/big-output"), bytes, limits.clone()).await;
        assert_ended(&invocation, Outcome::OutputTooLarge, "1000 bytes");
    }
}

#[tokio::test]
async fn a_result_that_is_no_json_is_no_result() {
    let words = bot(
        r#"(data (i32.const 64) "\00\00\00\00\50\00\00\00\03\00\00\00") (data (i32.const 80) "{x}")"#,
        "(i32.const 64)",
    );
    assert_ended(&call(words, "{}").await, Outcome::InvalidOutput, "not JSON");
    let deep = bot(
        r#"(data (i32.const 64) "\00\00\00\00\00\80\00\00\00\40\00\00")"#,
        "(memory.fill (i32.const 0x8000) (i32.const 91) (i32.const 0x4000)) (i32.const 64)",
    );
    assert_ended(&call(deep, "{}").await, Outcome::InvalidOutput, "not JSON");
}

#[tokio::test]
async fn a_result_that_breaks_the_abi_is_no_result() {
    let bytes = bot(
        r#"(data (i32.const 64) "\00\00\00\00\50\00\00\00\01\00\00\00") (data (i32.const 80) "\ff")"#,
        "(i32.const 64)",
    );
    assert_ended(&call(bytes, "{}").await, Outcome::InvalidOutput, "could not be read");
    let outside = bot(r#"(data (i32.const 64) "\00\00\00\00\00\00\00\f0\01\00\00\00")"#, "(i32.const 64)");
    assert_ended(&call(outside, "{}").await, Outcome::InvalidOutput, "could not be read");
}

#[tokio::test]
async fn logs_end_at_their_limit() {
    for input in [r#""log""#, r#""stdout""#, r#""stderr""#, r#""all""#] {
        let limits = Limits { log_bytes: 50_000, ..Limits::default() };
        let invocation = call_within(built("hostile/log-flood"), input, limits).await;
        assert_ended(&invocation, Outcome::LogLimit, "50000");
        let kept: usize = invocation.logs.iter().map(|line| line.message.len()).sum();
        assert!((40_000..=50_000).contains(&kept), "{input}: {kept}");
        assert!(invocation.usage.log_bytes <= 50_000);
        assert!(invocation.logs.is_sorted_by_key(|line| line.at_us));
    }
}

#[tokio::test]
async fn host_calls_end_at_their_limit() {
    for what in ["config", "entries", "clock", "random", "log"] {
        let input = format!(r#"{{"calls":5000000,"what":"{what}"}}"#);
        let limits = Limits { host_calls: 1000, log_bytes: 1 << 20, ..Limits::default() };
        let invocation = call_within(built("hostile/chatty"), &input, limits).await;
        assert_ended(&invocation, Outcome::HostCallLimit, "1000");
        assert_eq!(invocation.usage.host_calls, 1000, "{what}");
    }
    let modest = call(built("hostile/chatty"), r#"{"calls":100,"what":"config"}"#).await;
    assert_eq!(modest.outcome, Outcome::Completed);
    assert_eq!(modest.usage.host_calls, 100);
}

#[tokio::test]
async fn one_host_call_takes_only_so_much() {
    let flood = bot_importing(
        r#"(import "ringfence:guest/log@0.1.0" (instance $log
               (type $level (enum "trace" "debug" "info" "warn" "error"))
               (export "level" (type $level-name (eq $level)))
               (export "write" (func (param "level" $level-name) (param "message" string)
                   (param "fields" (list (tuple string string)))))))
           (core module $shared (memory (export "memory") 1000))
           (core instance $shared (instantiate $shared))
           (core func $write (canon lower (func $log "write") (memory (core memory $shared "memory"))))"#,
        r#"(with "log" (instance (export "write" (func $write))))"#,
        r#"(import "log" "write" (func $write (param i32 i32 i32 i32 i32)))"#,
        "(call $write (i32.const 0) (i32.const 0) (i32.const 60000000) (i32.const 0) (i32.const 0))
         (i32.const 16)",
    );
    assert_ended(&call(flood, "{}").await, Outcome::HostCallLimit, "one host call");
}

#[tokio::test]
async fn limits_are_lowered_to_the_hosts_maximum() {
    let greedy = Limits { memory_bytes: u64::MAX, ..Limits::default() };
    let grower = bot("", "(drop (memory.grow (i32.const 20000))) (i32.const 16)");
    let invocation = call_within(grower, "{}", greedy).await;
    assert_ended(&invocation, Outcome::OutOfMemory, &RUNTIME.maximum().memory_bytes.to_string());
}

/// One worker thread, on which a guest spins: another call is answered all the same.
#[tokio::test(flavor = "current_thread")]
async fn a_spinning_guest_does_not_hold_its_thread() {
    let echo = prepared(&RUNTIME, built("echo")).await;
    let spin = BotCall {
        limits: Limits { fuel: u64::MAX, wall_time_ms: 2000, ..Limits::default() },
        ..prepared(&RUNTIME, built("hostile/spin")).await
    };
    let spinning = tokio::spawn(async { RUNTIME.call_bot(spin).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    for _ in 0..10 {
        let start = Instant::now();
        assert_eq!(RUNTIME.call_bot(echo.clone()).await.unwrap().outcome, Outcome::Completed);
        assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    }
    assert!(!spinning.is_finished());
    assert_eq!(spinning.await.unwrap().unwrap().outcome, Outcome::TimedOut);
}

#[tokio::test]
async fn the_same_call_costs_the_same_fuel() {
    let one = call(built("echo"), r#"{"a":[1,2,3]}"#).await.usage.fuel;
    for _ in 0..5 {
        assert_eq!(call(built("echo"), r#"{"a":[1,2,3]}"#).await.usage.fuel, one);
    }
}

#[tokio::test]
async fn nothing_of_the_host_is_seen() {
    // What WASI would show a program: no environment, no arguments, no directory, no socket.
    let environment = bot_importing(
        r#"(import "wasi:cli/environment@0.2.0" (instance $environment
               (export "get-environment" (func (result (list (tuple string string)))))
               (export "get-arguments" (func (result (list string))))))
           (core module $shared
               (memory (export "memory") 1)
               (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
           (core instance $shared (instantiate $shared))
           (core func $environment (canon lower (func $environment "get-environment")
               (memory (core memory $shared "memory")) (realloc (core func $shared "realloc"))))
           (core func $arguments (canon lower (func $environment "get-arguments")
               (memory (core memory $shared "memory")) (realloc (core func $shared "realloc"))))"#,
        r#"(with "wasi" (instance (export "environment" (func $environment))
               (export "arguments" (func $arguments)) (export "memory" (memory $shared "memory"))))"#,
        r#"(import "wasi" "environment" (func $environment (param i32)))
           (import "wasi" "arguments" (func $arguments (param i32)))
           (import "wasi" "memory" (memory $shared 1))"#,
        "(call $environment (i32.const 0))
         (if (i32.load $shared (i32.const 4)) (then unreachable))
         (call $arguments (i32.const 0))
         (if (i32.load $shared (i32.const 4)) (then unreachable))
         (i32.const 16)",
    );
    let invocation = call(environment, "{}").await;
    assert_eq!(invocation.outcome, Outcome::Completed, "{invocation:?}");
}

#[tokio::test]
async fn sockets_are_denied() {
    let socket = bot_importing(
        r#"(import "wasi:sockets/network@0.2.0" (instance $network
               (type $family (enum "ipv4" "ipv6"))
               (export "ip-address-family" (type (eq $family)))
               (type $error (enum "unknown" "access-denied" "not-supported" "invalid-argument"
                   "out-of-memory" "timeout" "concurrency-conflict" "not-in-progress" "would-block"
                   "invalid-state" "new-socket-limit" "address-not-bindable" "address-in-use"
                   "remote-unreachable" "connection-refused" "connection-reset" "connection-aborted"
                   "datagram-too-large" "name-unresolvable" "temporary-resolver-failure"
                   "permanent-resolver-failure"))
               (export "error-code" (type (eq $error)))))
           (alias export $network "ip-address-family" (type $family))
           (alias export $network "error-code" (type $error))
           (import "wasi:sockets/tcp@0.2.0" (instance $tcp (export "tcp-socket" (type (sub resource)))))
           (alias export $tcp "tcp-socket" (type $tcp-socket))
           (import "wasi:sockets/tcp-create-socket@0.2.0" (instance $create
               (alias outer 1 $family (type $outer-family))
               (export "ip-address-family" (type $family (eq $outer-family)))
               (alias outer 1 $error (type $outer-error))
               (export "error-code" (type $error (eq $outer-error)))
               (alias outer 1 $tcp-socket (type $outer-socket))
               (export "tcp-socket" (type $socket (eq $outer-socket)))
               (export "create-tcp-socket" (func (param "address-family" $family)
                   (result (result (own $socket) (error $error)))))))
           (core module $shared (memory (export "memory") 1))
           (core instance $shared (instantiate $shared))
           (core func $create (canon lower (func $create "create-tcp-socket") (memory (core memory $shared "memory"))))"#,
        r#"(with "wasi" (instance (export "create" (func $create))
               (export "memory" (memory $shared "memory"))))"#,
        r#"(import "wasi" "create" (func $create (param i32 i32)))
           (import "wasi" "memory" (memory $shared 1))"#,
        // The result has to be an error.
        "(call $create (i32.const 0) (i32.const 0))
         (if (i32.eqz (i32.load8_u $shared (i32.const 0))) (then unreachable))
         (i32.const 16)",
    );
    let invocation = call(socket, "{}").await;
    assert_eq!(invocation.outcome, Outcome::Completed, "{invocation:?}");
}

#[tokio::test]
async fn input_of_some_size_goes_through() {
    let input = format!(r#""{}""#, "é".repeat(500_000));
    let limits = Limits { output_bytes: 4 << 20, ..Limits::default() };
    let invocation = call_within(built("echo"), &input, limits).await;
    assert_eq!(invocation.outcome, Outcome::Completed);
    assert_eq!(invocation.output.map(Bytes::from).unwrap(), Bytes::from(input));
}
