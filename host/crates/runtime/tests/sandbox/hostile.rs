//! Guests that go after what the host does for them, and guests that try to go on after they were refused.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use ringfence_runtime::{BotCall, Capabilities, Invocation, KvError, KvStore, Limits, Outcome};

use crate::guests::{RUNTIME, bot, bot_importing, bot_lifted, call, call_within, prepared};
use crate::outcomes::assert_ended;

const FUEL: Limits = fuel(10_000_000);

const fn fuel(fuel: u64) -> Limits {
    Limits {
        fuel,
        memory_bytes: 128 << 20,
        table_elements: 20_000,
        wall_time_ms: 60_000,
        log_bytes: 256 << 10,
        output_bytes: 1 << 20,
        host_calls: 10_000,
        instances: 64,
    }
}

/// A loop without an end around `body`.
fn forever(body: &str) -> String {
    format!("(loop $again {body} (br $again)) (i32.const 16)")
}

const SPIN: &str = "(loop $spin (br $spin))";

#[tokio::test]
async fn bulk_memory_is_paid_for_by_the_byte() {
    let megabyte = "(i32.const 0x100000)";
    for bulk in [
        format!("(memory.fill $big (i32.const 0) (i32.const 1) {megabyte})"),
        format!("(memory.copy $big $big (i32.const 0) (i32.const 0) {megabyte})"),
        "(memory.init $big $data (i32.const 0) (i32.const 0) (i32.const 10000))".to_owned(),
    ] {
        let field = format!("(memory $big 16) (data $data \"{}\")", "x".repeat(10_000));
        let invocation = call_within(bot(&field, &forever(&bulk)), "{}", FUEL).await;
        assert_ended(&invocation, Outcome::OutOfFuel, "10000000");
        assert_eq!(invocation.usage.fuel, 10_000_000, "{bulk}");
        // Ten million instructions take longer than ten million bytes: the bytes were what counted.
        let once = bot(&field, &format!("{bulk} (i32.const 16)"));
        let bytes = if bulk.contains("init") { 10_000 } else { 1 << 20 };
        let used = call(once.clone(), "{}").await.usage.fuel;
        assert!((bytes..bytes + 100).contains(&used), "{bulk}: {used}");
        // What it cannot pay for is not begun.
        let poor = call_within(once, "{}", fuel(bytes - 1)).await;
        assert_ended(&poor, Outcome::OutOfFuel, &(bytes - 1).to_string());
    }
}

#[tokio::test]
async fn bulk_tables_are_paid_for_by_the_element() {
    let fill = "(table.fill $t (i32.const 0) (ref.null func) (i32.const 10000))";
    let copy = "(table.copy $t $t (i32.const 0) (i32.const 0) (i32.const 10000))";
    for bulk in [fill, copy] {
        let invocation = call_within(bot("(table $t 10000 funcref)", &forever(bulk)), "{}", FUEL).await;
        assert_ended(&invocation, Outcome::OutOfFuel, "10000000");
        let once = bot("(table $t 10000 funcref)", &format!("{bulk} (i32.const 16)"));
        let used = call(once, "{}").await.usage.fuel;
        assert!((10_000..10_100).contains(&used), "{bulk}: {used}");
    }
}

/// With the most memory that there is, one instruction can take long. It does not keep the only thread from others more
/// often than it must: this counts turns, not time.
#[tokio::test(flavor = "current_thread")]
async fn a_guest_that_fills_much_memory_lets_others_in_between() {
    let limits = Limits { memory_bytes: 256 << 20, fuel: 20_000_000_000, wall_time_ms: 3000, ..FUEL };
    let bulk = "(memory.fill $big (i32.const 0) (i32.const 1) (i32.const 0xc000000))";
    let filler =
        bot("(memory $big 0)", &format!("(drop (memory.grow $big (i32.const 0xc00))) {}", forever(bulk)));
    let call = BotCall { limits, ..prepared(&RUNTIME, filler).await };
    let filling = tokio::spawn(async { RUNTIME.call_bot(call).await.unwrap() });
    let mut turns = 0_u64;
    while !filling.is_finished() {
        tokio::task::yield_now().await;
        turns += 1;
    }
    let filled = filling.await.unwrap();
    assert!(matches!(filled.outcome, Outcome::TimedOut | Outcome::OutOfFuel), "{filled:?}");
    let fills = filled.usage.fuel / 0xc00_0000;
    // A slice is up to 10 ms, and no machine fills as much in less than 2.
    assert!(turns >= fills / 8, "{turns} turns between {fills} fills");
}

#[tokio::test]
async fn many_tables_are_summed() {
    let tables: String = (0..16).map(|number| format!("(table $t{number} 0 funcref)")).collect();
    let grow: String = (0..16)
        .map(|number| format!("(drop (table.grow $t{number} (ref.null func) (i32.const 100)))"))
        .collect();
    let grower = bot(&tables, &format!("{grow} (i32.const 16)"));
    let enough = Limits { table_elements: 1600, ..FUEL };
    assert_eq!(call_within(grower.clone(), "{}", enough).await.outcome, Outcome::Completed);
    let short = Limits { table_elements: 1599, ..FUEL };
    assert_ended(&call_within(grower, "{}", short).await, Outcome::OutOfTable, "1599");
}

/// Instantiation is a part of the call: nothing in it is outside of the limits.
#[tokio::test]
async fn instantiation_is_within_the_limits() {
    let start =
        |body: &str| bot(&format!("(memory $more 0) (func $start {body}) (start $start)"), "(i32.const 16)");
    let invocation = call_within(start(SPIN), "{}", FUEL).await;
    assert_ended(&invocation, Outcome::OutOfFuel, "10000000");
    assert_eq!(invocation.usage.fuel, 10_000_000);
    let timed = Limits { wall_time_ms: 50, ..fuel(u64::MAX) };
    assert_ended(&call_within(start(SPIN), "{}", timed).await, Outcome::TimedOut, "50 ms");
    assert_ended(&call(start("unreachable"), "{}").await, Outcome::Trapped, "unreachable");
    let grow = "(drop (memory.grow $more (i32.const 65535)))";
    assert_ended(&call(start(grow), "{}").await, Outcome::OutOfMemory, "134217728");
    let down = bot("(func $down (call $down) (call $down)) (start $down)", "(i32.const 16)");
    assert_ended(&call(down, "{}").await, Outcome::StackOverflow, "524288");
    // Each of many core instances that spins for a while, out of one store of fuel.
    let turns = "(local $n i32) (loop $l (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (br_if $l (i32.lt_u (local.get $n) (i32.const 100000))))";
    let many = format!("(core module $m (func $s {turns}) (start $s))")
        + &"(core instance (instantiate $m))".repeat(60);
    assert_ended(
        &call_within(bot_importing(&many, "", "", "(i32.const 16)"), "{}", FUEL).await,
        Outcome::OutOfFuel,
        "10000000",
    );
}

/// `realloc` is called by the host, before the guest has been called and between.
#[tokio::test]
async fn realloc_is_within_the_limits() {
    let with = |body: &str| {
        let realloc = format!(
            r#"(memory $more 0) (func $realloc (export "realloc") (param i32 i32 i32 i32) (result i32) {body})"#
        );
        bot_lifted("", "", &realloc, "(i32.const 16)", "")
    };
    let spun = call_within(with(&format!("{SPIN} unreachable")), "{}", FUEL).await;
    assert_ended(&spun, Outcome::OutOfFuel, "10000000");
    assert_eq!(spun.usage.fuel, 10_000_000);
    assert_ended(&call(with("unreachable"), "{}").await, Outcome::Trapped, "unreachable");
    let grow = "(drop (memory.grow $more (i32.const 60000))) (i32.const 1024)";
    assert_ended(&call(with(grow), "{}").await, Outcome::OutOfMemory, "134217728");
    let down = "(call $realloc (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))";
    assert_ended(&call(with(&format!("{down} (drop) {down}")), "{}").await, Outcome::StackOverflow, "524288");
    for outside in ["-1", "65536", "65535", "0x7fffffff"] {
        let invocation = call(with(&format!("(i32.const {outside})")), "{}").await;
        assert!(
            matches!(invocation.outcome, Outcome::Trapped | Outcome::InvalidOutput),
            "{outside}: {invocation:?}"
        );
    }
}

/// What runs after the result was given: the result does not count then.
#[tokio::test]
async fn cleaning_up_is_within_the_limits() {
    let after = |body: &str| {
        let fields = format!(
            r#"(memory $more 0)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
            (func (export "after") (param i32) {body})"#
        );
        bot_lifted("", "", &fields, "(i32.const 16)", r#"(post-return (core func $main "after"))"#)
    };
    assert_eq!(call(after(""), "{}").await.outcome, Outcome::Completed);
    let spun = call_within(after(SPIN), "{}", FUEL).await;
    assert_ended(&spun, Outcome::OutOfFuel, "10000000");
    assert_eq!(spun.usage.fuel, 10_000_000);
    let timed = Limits { wall_time_ms: 50, ..fuel(u64::MAX) };
    assert_ended(&call_within(after(SPIN), "{}", timed).await, Outcome::TimedOut, "50 ms");
    assert_ended(&call(after("unreachable"), "{}").await, Outcome::Trapped, "unreachable");
    let grow = "(drop (memory.grow $more (i32.const 60000)))";
    assert_ended(&call(after(grow), "{}").await, Outcome::OutOfMemory, "134217728");
}

/// Imports of `config` and `log` whose memory and `realloc` are a module's of their own.
const HOST: &str = r#"
    (import "ringfence:guest/config@0.1.0" (instance $config
        (export "entries" (func (result (list (tuple string string)))))))
    (import "ringfence:guest/log@0.1.0" (instance $log
        (type $level (enum "trace" "debug" "info" "warn" "error"))
        (export "level" (type $level-name (eq $level)))
        (export "write" (func (param "level" $level-name) (param "message" string)
            (param "fields" (list (tuple string string)))))))
    (core module $shared (memory (export "memory") 320))
    (core instance $shared (instantiate $shared))
    (core func $write (canon lower (func $log "write") (memory (core memory $shared "memory"))))"#;

#[tokio::test]
async fn a_host_call_cannot_be_entered_from_another() {
    // The host asks for room for what it answers with, and there the guest calls the host again.
    let module = r#"(core module $table (table (export "table") 1 funcref) (memory (export "memory") 2)
            (type $realloc (func (param i32 i32 i32 i32) (result i32)))
            (func (export "realloc") (type $realloc)
                (call_indirect (type $realloc) (local.get 0) (local.get 1) (local.get 2) (local.get 3) (i32.const 0))))
        (core instance $table (instantiate $table))
        (core func $entries (canon lower (func $config "entries") (memory (core memory $table "memory"))
            (realloc (core func $table "realloc"))))"#;
    let again = bot_importing(
        &format!("{HOST} {module}"),
        r#"(with "host" (instance (export "entries" (func $entries)) (export "table" (table $table "table"))))"#,
        r#"(import "host" "entries" (func $entries (param i32))) (import "host" "table" (table $table 1 funcref))
           (func $enter (param i32 i32 i32 i32) (result i32) (call $entries (i32.const 0)) (i32.const 64))
           (elem (table $table) (i32.const 0) func $enter)"#,
        "(call $entries (i32.const 0)) (i32.const 16)",
    );
    let config = [("key".to_owned(), "value".to_owned())].into();
    let capabilities = Arc::new(Capabilities { config, ..Capabilities::default() });
    let call = BotCall { capabilities, ..prepared(&RUNTIME, again).await };
    let invocation = RUNTIME.call_bot(call).await.unwrap();
    assert_ended(&invocation, Outcome::Trapped, "cannot leave component instance");
    assert_eq!(invocation.usage.host_calls, 1);
}

#[tokio::test]
async fn what_is_handed_to_the_host_is_bounded_in_every_shape() {
    // One long text, as many small ones as 20 MiB have room for, and one list whose texts all lie in the same place.
    for (name, arguments) in [
        ("long", "(i32.const 0) (i32.const 20000000) (i32.const 0) (i32.const 0)"),
        ("many", "(i32.const 0) (i32.const 0) (i32.const 16) (i32.const 1200000)"),
        ("all the same", "(i32.const 0) (i32.const 0) (i32.const 0x1000) (i32.const 10000)"),
    ] {
        let flood = bot_importing(
            HOST,
            r#"(with "host" (instance (export "write" (func $write)) (export "memory" (memory $shared "memory"))))"#,
            r#"(import "host" "write" (func $write (param i32 i32 i32 i32 i32)))
               (import "host" "memory" (memory $shared 320))"#,
            &format!(
                "(local $at i32) (local.set $at (i32.const 0x1000))
                (loop $next
                    (i32.store $shared (i32.add (local.get $at) (i32.const 4)) (i32.const 4096))
                    (local.set $at (i32.add (local.get $at) (i32.const 16)))
                    (br_if $next (i32.lt_u (local.get $at) (i32.const 0x29000))))
                (call $write (i32.const 0) {arguments}) (i32.const 16)"
            ),
        );
        let invocation = call(flood, "{}").await;
        assert_ended(&invocation, Outcome::HostCallLimit, "one host call");
        assert!(invocation.logs.is_empty(), "{name}");
    }
}

/// Imports of what a program polls with.
const CLOCK: &str = r#"
    (import "wasi:io/poll@0.2.0" (instance $poll
        (export "pollable" (type $pollable (sub resource)))
        (export "poll" (func (param "in" (list (borrow $pollable))) (result (list u32))))))
    (alias export $poll "pollable" (type $pollable))
    (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
        (alias outer 1 $pollable (type $outer))
        (export "pollable" (type $pollable (eq $outer)))
        (export "subscribe-duration" (func (param "when" u64) (result (own $pollable))))))
    (core module $shared (memory (export "memory") 64)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x200000)))
    (core instance $shared (instantiate $shared))
    (core func $subscribe (canon lower (func $clock "subscribe-duration")))
    (core func $poll (canon lower (func $poll "poll") (memory (core memory $shared "memory"))
        (realloc (core func $shared "realloc"))))"#;

fn polling(body: &str) -> Bytes {
    bot_importing(
        CLOCK,
        r#"(with "host" (instance (export "subscribe" (func $subscribe)) (export "poll" (func $poll))
            (export "memory" (memory $shared "memory"))))"#,
        r#"(import "host" "subscribe" (func $subscribe (param i64) (result i32)))
           (import "host" "poll" (func $poll (param i32 i32 i32)))
           (import "host" "memory" (memory $shared 64))"#,
        body,
    )
}

const HOUR_NS: &str = "(i64.const 3600000000000)";

#[tokio::test]
async fn host_resources_are_bounded() {
    let hoard = polling(&forever(&format!("(drop (call $subscribe {HOUR_NS}))")));
    let invocation = call_within(hoard, "{}", Limits { host_calls: 1_000_000, ..FUEL }).await;
    assert_ended(&invocation, Outcome::Trapped, "");
    assert!(invocation.usage.host_calls <= 1025, "{:?}", invocation.usage);
}

#[tokio::test]
async fn waiting_for_many_things_ends_with_the_time() {
    // Five hundred deadlines, each an hour away.
    let patient = polling(&format!(
        "(local $n i32)
        (loop $next
            (i32.store $shared (i32.mul (local.get $n) (i32.const 4)) (call $subscribe {HOUR_NS}))
            (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get $n) (i32.const 500))))
        (call $poll (i32.const 0) (i32.const 500) (i32.const 0x100000)) (i32.const 16)"
    ));
    let limits = Limits { wall_time_ms: 300, ..FUEL };
    let invocation = call_within(patient, "{}", limits).await;
    assert_ended(&invocation, Outcome::TimedOut, "300 ms");
    assert_eq!(invocation.usage.host_calls, 501);
    assert!(
        invocation.usage.wall_us >= 300_000 && invocation.usage.cpu_us < 300_000,
        "{:?}",
        invocation.usage
    );
}

/// The list of what to poll may name the same thing as often as there is room for.
#[tokio::test]
async fn a_long_list_for_one_host_call_is_bounded() {
    let repeated = polling(&format!(
        "(local $n i32) (local $one i32) (local.set $one (call $subscribe (i64.const 0)))
        (loop $next
            (i32.store $shared (i32.mul (local.get $n) (i32.const 4)) (local.get $one))
            (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get $n) (i32.const 500000))))
        {}",
        forever("(call $poll (i32.const 0) (i32.const 500000) (i32.const 0x300000))")
    ));
    let limits = Limits { wall_time_ms: 20_000, ..fuel(1_000_000_000) };
    let begun = Instant::now();
    let invocation = call_within(repeated, "{}", limits).await;
    assert!(
        matches!(invocation.outcome, Outcome::HostCallLimit | Outcome::Trapped),
        "{invocation:?} after {:?}",
        begun.elapsed()
    );
}

/// Resources of the guest's own: by the hundred thousand, and with destructors that misbehave.
#[tokio::test]
async fn a_guests_own_resources_are_bounded() {
    let with = |destructor: &str, body: &str| {
        bot_importing(
            &format!(
                r#"(core module $destroy (func (export "destroy") (param i32) {destructor}))
                (core instance $destroy (instantiate $destroy))
                (type $own (resource (rep i32) (dtor (core func $destroy "destroy"))))
                (core func $new (canon resource.new $own))
                (core func $drop (canon resource.drop $own))"#
            ),
            r#"(with "own" (instance (export "new" (func $new)) (export "drop" (func $drop))))"#,
            r#"(import "own" "new" (func $new (param i32) (result i32)))
               (import "own" "drop" (func $drop (param i32)))"#,
            body,
        )
    };
    let hoard = with("", &forever("(drop (call $new (i32.const 1)))"));
    assert_ended(&call(hoard, "{}").await, Outcome::Trapped, "");
    let churn = with("", &forever("(call $drop (call $new (i32.const 1)))"));
    assert_ended(&call_within(churn, "{}", FUEL).await, Outcome::OutOfFuel, "10000000");
    let once = "(call $drop (call $new (i32.const 1))) (i32.const 16)";
    assert_ended(&call(with("unreachable", once), "{}").await, Outcome::Trapped, "unreachable");
    assert_ended(&call_within(with(SPIN, once), "{}", FUEL).await, Outcome::OutOfFuel, "10000000");
    // What is left over when the guest has answered is not cleaned up by running it again.
    let left = with("unreachable", "(drop (call $new (i32.const 1))) (i32.const 16)");
    assert_eq!(call(left, "{}").await.outcome, Outcome::Completed);
}

#[tokio::test]
async fn every_trap_is_named() {
    let cases = [
        ("", "unreachable", "unreachable"),
        ("", "(i32.div_s (i32.const 1) (i32.const 0))", "divide by zero"),
        ("", "(i32.div_s (i32.const 0x80000000) (i32.const -1))", "integer overflow"),
        ("", "(i32.trunc_f32_s (f32.const nan))", "invalid conversion to integer"),
        ("", "(i32.trunc_f32_s (f32.const 1e30))", "integer overflow"),
        ("", "(i32.load (i32.const -1))", "out of bounds memory access"),
        (
            "",
            "(memory.fill (i32.const 0) (i32.const 0) (i32.const 65537)) (i32.const 16)",
            "out of bounds memory",
        ),
        ("(table $t 1 funcref)", "(table.set $t (i32.const 9) (ref.null func)) (i32.const 16)", "table"),
        ("(table $t 1 funcref)", "(call_indirect $t (result i32) (i32.const 0))", "uninitialized element"),
        ("(table $t 1 funcref)", "(call_indirect $t (result i32) (i32.const 9))", "undefined element"),
        (
            "(table $t funcref (elem $f)) (func $f)",
            "(call_indirect $t (result i32) (i32.const 0))",
            "indirect call type mismatch",
        ),
    ];
    for (fields, body, part) in cases {
        assert_ended(&call(bot(fields, body), "{}").await, Outcome::Trapped, part);
    }
}

/// Counts what guests write.
#[derive(Default)]
struct Writes(Mutex<Vec<String>>);

#[async_trait]
impl KvStore for Writes {
    async fn get(&self, _: &str) -> Result<Option<Vec<u8>>, KvError> {
        Ok(None)
    }

    async fn set(&self, key: &str, _: Vec<u8>) -> Result<(), KvError> {
        // Long enough for a caller to leave meanwhile.
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.0.lock().unwrap().push(key.to_owned());
        Ok(())
    }

    async fn delete(&self, _: &str) -> Result<(), KvError> {
        Ok(())
    }

    async fn compare_and_swap(
        &self,
        _: &str,
        _: Option<Vec<u8>>,
        _: Option<Vec<u8>>,
    ) -> Result<bool, KvError> {
        Ok(false)
    }

    async fn list_keys(&self, _: &str, _: Option<&str>, _: u32) -> Result<Vec<String>, KvError> {
        Ok(Vec::new())
    }
}

/// A bot that writes to its store, does `what`, and writes again.
fn writes_before_and_after(fields: &str, what: &str) -> Bytes {
    bot_importing(
        &format!(
            r#"{HOST}
            (import "wasi:cli/exit@0.2.0" (instance $exit (export "exit" (func (param "status" (result))))))
            (import "ringfence:guest/kv@0.1.0" (instance $kv
                (type $error (variant (case "invalid-key" string) (case "quota-exceeded" string)
                    (case "unavailable" string)))
                (export "error" (type $error-name (eq $error)))
                (export "set" (func (param "key" string) (param "value" (list u8))
                    (result (result (error $error-name)))))))
            (core module $room (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096)))
            (core instance $room (instantiate $room))
            (core func $set (canon lower (func $kv "set") (memory (core memory $shared "memory"))
                (realloc (core func $room "realloc"))))
            (core func $exit (canon lower (func $exit "exit")))"#
        ),
        r#"(with "host" (instance (export "write" (func $write)) (export "set" (func $set))
            (export "exit" (func $exit)) (export "memory" (memory $shared "memory"))))"#,
        &format!(
            r#"(import "host" "write" (func $write (param i32 i32 i32 i32 i32)))
            (import "host" "set" (func $set (param i32 i32 i32 i32 i32)))
            (import "host" "exit" (func $exit (param i32)))
            (import "host" "memory" (memory $shared 320))
            (memory $more 0) (table $table 0 funcref)
            (func $keep (param i32)
                (i32.store8 $shared (i32.const 8) (local.get 0))
                (call $set (i32.const 8) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 64)))
            {fields}"#
        ),
        &format!("(call $keep (i32.const 97)) {what} (call $keep (i32.const 98)) (i32.const 16)"),
    )
}

async fn call_writing(wasm: Bytes, limits: Limits) -> (Invocation<String>, Vec<String>) {
    let store = Arc::new(Writes::default());
    let capabilities =
        Arc::new(Capabilities { kv: Some(store.clone() as Arc<dyn KvStore>), ..Capabilities::default() });
    let call = BotCall { limits, capabilities, ..prepared(&RUNTIME, wasm).await };
    let invocation = RUNTIME.call_bot(call).await.unwrap();
    let written = store.0.lock().unwrap().clone();
    (invocation, written)
}

/// After each refusal not one more instruction of the guest has an effect.
#[tokio::test]
async fn nothing_follows_a_refusal() {
    let log = |bytes: &str| {
        format!("(call $write (i32.const 0) (i32.const 0) {bytes} (i32.const 0) (i32.const 0))")
    };
    let cases = [
        (
            Outcome::OutOfFuel,
            "",
            format!("(memory.fill $shared (i32.const 0) (i32.const 0) (i32.const {}))", 320 << 16),
        ),
        (Outcome::OutOfMemory, "", "(drop (memory.grow $more (i32.const 60000)))".to_owned()),
        (Outcome::OutOfTable, "", "(drop (table.grow $table (ref.null func) (i32.const 90000)))".to_owned()),
        (Outcome::StackOverflow, "(func $down (call $down) (call $down))", "(call $down)".to_owned()),
        (Outcome::LogLimit, "", log("(i32.const 300000)")),
        (Outcome::HostCallLimit, "", log("(i32.const 6000000)")),
        (Outcome::HostCallLimit, "", log("(i32.const 0)").repeat(10)),
        (Outcome::Exited, "", "(call $exit (i32.const 0))".to_owned()),
        (Outcome::Exited, "", "(call $exit (i32.const 1))".to_owned()),
        (Outcome::Trapped, "", "unreachable".to_owned()),
    ];
    for (outcome, fields, what) in cases {
        let limits = Limits { host_calls: 10, ..FUEL };
        let (invocation, written) = call_writing(writes_before_and_after(fields, &what), limits).await;
        assert_ended(&invocation, outcome, "");
        assert_eq!(written, ["a"], "{outcome}");
        assert!(invocation.usage.fuel > 0 && invocation.usage.host_calls >= 1, "{:?}", invocation.usage);
    }
    let (invocation, written) = call_writing(writes_before_and_after("", ""), FUEL).await;
    assert_eq!(
        (invocation.outcome, &written[..]),
        (Outcome::Completed, &["a".to_owned(), "b".to_owned()][..])
    );
}

/// A write that the guest began comes to its end when the guest is ended meanwhile, and nothing follows it.
#[tokio::test]
async fn a_write_is_not_cut_in_half() {
    let store = Arc::new(Writes::default());
    let capabilities =
        Arc::new(Capabilities { kv: Some(store.clone() as Arc<dyn KvStore>), ..Capabilities::default() });
    let call = BotCall { capabilities, ..prepared(&RUNTIME, writes_before_and_after("", "")).await };
    let leaves = tokio::time::sleep(Duration::from_millis(50));
    let invocation = RUNTIME.call_bot_until(call.clone(), leaves).await.unwrap();
    assert_ended(&invocation, Outcome::Cancelled, "cancelled");
    assert!(invocation.usage.fuel > 0 && invocation.usage.host_calls == 1, "{:?}", invocation.usage);
    assert!(store.0.lock().unwrap().is_empty(), "it is being written");

    let timed = BotCall { limits: Limits { wall_time_ms: 50, ..FUEL }, ..call };
    assert_ended(&RUNTIME.call_bot(timed).await.unwrap(), Outcome::TimedOut, "50 ms");
    let begun = Instant::now();
    while store.0.lock().unwrap().len() < 2 {
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", store.0.lock().unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(*store.0.lock().unwrap(), ["a", "a"]);
}
