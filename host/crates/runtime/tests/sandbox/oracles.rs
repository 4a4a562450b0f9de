//! Oracles: verdicts, faults, and the same again for the same submission.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringfence_runtime::{
    CLOCK_STEP_NS, CallError, InvalidComponent, Invocation, Job, Kind, Limits, OracleCall, Outcome,
    PrepareError, Runtime, RuntimeConfig, Submission, Verdict,
};

use crate::guests::{RUNTIME, bot_importing, built, prepared, runtime, tenant, wat};

const SUBMITTED_AT_US: u64 = 1_700_000_000_123_456;

async fn oracle_call(wasm: Bytes) -> OracleCall {
    let info = RUNTIME.prepare(wasm, &tenant()).await.expect("the oracle may run");
    OracleCall {
        digest: info.digest,
        job: Job {
            id: "job_1".to_owned(),
            title: "Sum".to_owned(),
            input: Some("[1,2]".to_owned()),
            ..Job::default()
        },
        submission: Submission {
            id: "sub_1".to_owned(),
            attempt: 1,
            content: "3".to_owned(),
            submitted_at_us: SUBMITTED_AT_US,
        },
        limits: Limits::default(),
        config: BTreeMap::new(),
        seed: [7; 32],
        tenant: "org_test".into(),
    }
}

async fn judge(name: &str) -> Invocation<Verdict> {
    RUNTIME.call_oracle(oracle_call(built(name)).await).await.expect("the call begins")
}

#[tokio::test]
async fn a_verdict_comes_through() {
    let invocation = judge("hostile/oracle-accept").await;
    let verdict = Verdict { score: 100, passed: true, reason: "anything goes".to_owned(), steps: Vec::new() };
    assert_eq!(invocation.output, Some(verdict));
    assert_eq!(invocation.outcome, Outcome::Completed);
    assert_eq!(invocation.usage.input_bytes, "Sum[1,2]3".len() as u64);
    assert_eq!(invocation.usage.output_bytes, "anything goes".len() as u64);
}

#[tokio::test]
async fn a_fault_is_no_verdict() {
    let invocation = judge("hostile/oracle-fault").await;
    assert_eq!(invocation.outcome, Outcome::Failed);
    assert_eq!(invocation.failure.unwrap().code, "cannot_judge");
}

#[tokio::test]
async fn a_score_above_100_is_no_verdict() {
    let invocation = judge("hostile/oracle-bad-score").await;
    assert_eq!(invocation.outcome, Outcome::InvalidOutput);
    assert_eq!(invocation.output, None);
    assert!(invocation.detail.unwrap().contains("200"));
}

#[tokio::test]
async fn a_verdict_has_the_output_limit_over_all_its_texts() {
    let mut call = oracle_call(built("hostile/oracle-clock")).await;
    call.limits.output_bytes = 200;
    let invocation = RUNTIME.call_oracle(call).await.unwrap();
    assert_eq!(invocation.outcome, Outcome::OutputTooLarge, "{invocation:?}");
}

#[tokio::test]
async fn an_oracle_that_spins_runs_out_of_fuel_and_always_the_same() {
    let mut call = oracle_call(built("hostile/oracle-spin")).await;
    call.limits.fuel = 10_000_000;
    let invocation = RUNTIME.call_oracle(call).await.unwrap();
    assert_eq!((invocation.outcome, invocation.usage.fuel), (Outcome::OutOfFuel, 10_000_000));
    assert!(!invocation.outcome.depends_on_machine() && Outcome::TimedOut.depends_on_machine());
}

#[tokio::test]
async fn clocks_and_chance_repeat() {
    let call = oracle_call(built("hostile/oracle-clock")).await;
    let first = RUNTIME.call_oracle(call.clone()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    // A host of its own, as another machine would be.
    let elsewhere = runtime(RuntimeConfig { slots: 1, ..RuntimeConfig::default() });
    elsewhere.prepare(built("hostile/oracle-clock"), &tenant()).await.unwrap();
    let second = elsewhere.call_oracle(call.clone()).await.unwrap();
    assert_eq!(first.output, second.output);
    assert_eq!(first.usage.fuel, second.usage.fuel);

    let verdict = first.output.unwrap();
    let seen = |name: &str| {
        verdict.steps.iter().find(|step| step.name == name).map(|step| step.detail.clone()).unwrap()
    };
    assert_eq!(seen("wall_us"), SUBMITTED_AT_US.to_string());
    assert_eq!(seen("submitted_at_us"), SUBMITTED_AT_US.to_string());
    assert!(seen("monotonic_first").contains(&format!("tv_nsec: {CLOCK_STEP_NS} ")));
    assert!(seen("monotonic_second").contains(&format!("tv_nsec: {} ", 2 * CLOCK_STEP_NS)));

    let other_seed = OracleCall { seed: [8; 32], ..call };
    let other = RUNTIME.call_oracle(other_seed).await.unwrap().output.unwrap();
    let random = other.steps.iter().find(|step| step.name == "random").unwrap();
    assert_ne!(random.detail, seen("random"));
}

/// Sleeps for an hour by `wasi:clocks/monotonic-clock` and `wasi:io/poll`, as compiled programs do.
#[tokio::test]
async fn an_oracle_that_sleeps_does_not_wait() {
    let sleeper = wat(r#"(component
        (import "ringfence:guest/types@0.1.0" (instance $types
            (type $job (record (field "id" string) (field "title" string) (field "description" string)
                (field "rubric" string) (field "artifact-type" string) (field "input" (option string))))
            (export "job" (type (eq $job)))
            (type $submission (record (field "id" string) (field "attempt" u32) (field "content" string)
                (field "submitted-at" u64)))
            (export "submission" (type (eq $submission)))
            (type $step (record (field "name" string) (field "passed" bool) (field "detail" string)))
            (export "step" (type $named-step (eq $step)))
            (type $verdict (record (field "score" u8) (field "passed" bool) (field "reason" string)
                (field "steps" (list $named-step))))
            (export "verdict" (type (eq $verdict)))
            (type $failure (record (field "code" string) (field "message" string)))
            (export "failure" (type (eq $failure)))))
        (alias export $types "job" (type $job))
        (alias export $types "submission" (type $submission))
        (alias export $types "verdict" (type $verdict))
        (alias export $types "failure" (type $failure))
        (import "wasi:io/poll@0.2.0" (instance $poll
            (export "pollable" (type $pollable (sub resource)))
            (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
        (alias export $poll "pollable" (type $pollable))
        (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
            (alias outer 1 $pollable (type $outer))
            (export "pollable" (type $inner (eq $outer)))
            (export "now" (func (result u64)))
            (export "subscribe-duration" (func (param "when" u64) (result (own $inner))))))
        (core func $now (canon lower (func $clock "now")))
        (core func $subscribe (canon lower (func $clock "subscribe-duration")))
        (core func $block (canon lower (func $poll "[method]pollable.block")))
        (core module $main
            (import "wasi" "now" (func $now (result i64)))
            (import "wasi" "subscribe" (func $subscribe (param i64) (result i32)))
            (import "wasi" "block" (func $block (param i32)))
            (memory (export "memory") 1)
            (global $next (mut i32) (i32.const 1024))
            (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                global.get $next
                (global.set $next (i32.add (global.get $next)
                    (i32.and (i32.add (local.get 3) (i32.const 7)) (i32.const -8)))))
            (func (export "evaluate") (param i32) (result i32)
                (local $before i64)
                (local.set $before (call $now))
                (call $block (call $subscribe (i64.const 3600000000000)))
                ;; The score is the hours that have passed; ok(verdict) lies at 16, its score at 20.
                (i32.store8 (i32.const 20) (i32.wrap_i64
                    (i64.div_u (i64.sub (call $now) (local.get $before)) (i64.const 3600000000000))))
                (i32.const 16)))
        (core instance $main (instantiate $main (with "wasi" (instance
            (export "now" (func $now)) (export "subscribe" (func $subscribe))
            (export "block" (func $block))))))
        (func (export "evaluate") (param "job" $job) (param "submission" $submission)
            (result (result $verdict (error $failure)))
            (canon lift (core func $main "evaluate") (memory (core memory $main "memory"))
                (realloc (core func $main "realloc")))))"#);
    let call = oracle_call(sleeper).await;
    let start = Instant::now();
    let invocation = RUNTIME.call_oracle(call).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(invocation.outcome, Outcome::Completed, "{invocation:?}");
    assert_eq!(invocation.output.unwrap().score, 1);
}

#[tokio::test]
async fn an_oracle_has_no_store() {
    // The same imports that make a bot: what is exported decides.
    let wasm = wat(r#"(component
        (import "ringfence:guest/kv@0.1.0" (instance))
        (core module $m (func (export "f")))
        (core instance $i (instantiate $m))
        (func (export "evaluate") (canon lift (core func $i "f"))))"#);
    let error = RUNTIME.prepare(wasm, &tenant()).await.unwrap_err();
    let PrepareError::Invalid(InvalidComponent::UnknownImports { kind: Kind::Oracle, names }) = error else {
        panic!("{error:?}")
    };
    assert_eq!(names, ["ringfence:guest/kv@0.1.0"]);
}

#[tokio::test]
async fn bots_and_oracles_are_not_mixed_up() {
    let bot = prepared(&RUNTIME, bot_importing("", "", "", "(i32.const 16)")).await;
    let mut oracle = oracle_call(built("hostile/oracle-accept")).await;
    let mut as_bot = bot.clone();
    as_bot.digest = oracle.digest;
    oracle.digest = bot.digest;
    assert_eq!(
        RUNTIME.call_bot(as_bot).await,
        Err(CallError::WrongKind { expected: Kind::Bot, found: Kind::Oracle })
    );
    assert_eq!(
        RUNTIME.call_oracle(oracle).await,
        Err(CallError::WrongKind { expected: Kind::Oracle, found: Kind::Bot })
    );
}

/// Receipts name the engine; this keeps the name true when wasmtime is raised.
#[test]
fn the_engine_version_is_the_locked_one() {
    let lock = include_str!("../../../../../Cargo.lock");
    let version = lock
        .split("[[package]]")
        .find(|package| package.contains("\nname = \"wasmtime\"\n"))
        .and_then(|package| package.split("version = \"").nth(1)?.split('"').next())
        .expect("wasmtime is locked");
    assert_eq!(Runtime::engine_version(), format!("wasmtime {version}"));
}
