//! Components that are refused when they are uploaded, and what they are told.

use bytes::Bytes;
use ringfence_runtime::{CallError, InvalidComponent, Kind, PrepareError, Runtime, RuntimeConfig};

use crate::guests::{RUNTIME, bot, bot_importing, built, prepared, runtime, tenant, wat};

async fn refusal(wasm: impl Into<Bytes>) -> InvalidComponent {
    refusal_by(&RUNTIME, wasm).await
}

async fn refusal_by(host: &Runtime, wasm: impl Into<Bytes>) -> InvalidComponent {
    match host.prepare(wasm.into(), &tenant()).await.expect_err("the component is not valid") {
        PrepareError::Invalid(error) => error,
        other => panic!("{other}"),
    }
}

#[track_caller]
fn assert_refusal(error: &InvalidComponent, code: &str, part: &str) {
    assert_eq!(error.code(), code, "{error:?}");
    assert!(error.to_string().contains(part), "{:?} has no {part:?}", error.to_string());
}

#[tokio::test]
async fn bytes_that_are_no_component() {
    assert_refusal(&refusal("").await, "component_empty", "empty");
    assert_refusal(&refusal("hello").await, "not_wasm", "\\0asm");
    assert_refusal(&refusal("(component)").await, "not_wasm", "text format");
    assert_refusal(&refusal(b"\x1f\x8b\x08\0".as_slice()).await, "not_wasm", "gzip");
    assert_refusal(&refusal(b"PK\x03\x04".as_slice()).await, "not_wasm", "zip");
    assert_refusal(&refusal(b"\0asm".as_slice()).await, "component_malformed", "cut off");
    assert_refusal(&refusal(b"\0asm\x07\0\x07\0".as_slice()).await, "component_malformed", "version");
    assert_refusal(&refusal(wat("(module)")).await, "core_module", "wasm32-wasip2");
}

#[tokio::test]
async fn a_component_that_is_cut_off_or_changed() {
    let echo = built("echo");
    for end in [9, 100, 5000, echo.len() - 1] {
        assert_refusal(&refusal(echo.slice(..end)).await, "component_malformed", "not valid");
    }
    let mut changed = echo.to_vec();
    let middle = changed.len() / 2;
    changed[middle..middle + 64].fill(0xff);
    let error = refusal(changed).await;
    assert_eq!(error.code(), "component_malformed", "{error}");
}

#[tokio::test]
async fn a_component_that_is_too_large() {
    let echo = built("echo");
    let small = runtime(RuntimeConfig { max_component_bytes: 1000, slots: 1, ..RuntimeConfig::default() });
    let error = refusal_by(&small, echo.clone()).await;
    assert_refusal(&error, "component_too_large", &echo.len().to_string());
    assert_refusal(&error, "component_too_large", "1000");
}

#[tokio::test]
async fn exports_that_make_no_world() {
    assert_refusal(&refusal(wat("(component)")).await, "no_known_world", "exports nothing");
    let other = r#"(component
        (core module $m (func (export "run")))
        (core instance $i (instantiate $m))
        (func (export "run") (canon lift (core func $i "run"))))"#;
    assert_refusal(&refusal(wat(other)).await, "no_known_world", "`run`");
    let wrong_type = other.replace("(func (export \"run\") (canon", "(func (export \"handle\") (canon");
    assert_refusal(&refusal(wat(&wrong_type)).await, "wrong_export", "handle");
    let not_a_function = r#"(component (instance $i) (export "evaluate" (instance $i)))"#;
    assert_refusal(&refusal(wat(not_a_function)).await, "wrong_export", "evaluate");
    let both = wrong_type.replace(
        "(canon lift (core func $i \"run\")))",
        "(canon lift (core func $i \"run\")))
        (func (export \"evaluate\") (canon lift (core func $i \"run\")))",
    );
    assert_refusal(&refusal(wat(&both)).await, "two_worlds", "both");
}

#[tokio::test]
async fn unknown_imports_are_all_named() {
    let error = refusal(bot_importing(
        r#"(import "ringfence:guest/teleport@0.1.0" (instance))
           (import "ringfence:guest/log@0.2.0" (instance))
           (import "acme:bank/vault@1.0.0" (instance))
           (import "wasi:nn/graph@0.2.0" (instance))
           (import "wasi:cli/environment@0.3.0" (instance))
           (import "helper" (func))"#,
        "",
        "",
        "(i32.const 16)",
    ))
    .await;
    let InvalidComponent::UnknownImports { kind: Kind::Bot, names } = &error else { panic!("{error:?}") };
    assert_eq!(
        *names,
        [
            "ringfence:guest/teleport@0.1.0",
            "ringfence:guest/log@0.2.0",
            "acme:bank/vault@1.0.0",
            "wasi:nn/graph@0.2.0",
            "wasi:cli/environment@0.3.0",
            "helper"
        ]
    );
    assert_refusal(&error, "unknown_imports", "`acme:bank/vault@1.0.0`");
}

#[tokio::test]
async fn an_import_of_the_wrong_type_is_refused() {
    let error = refusal(bot_importing(
        r#"(import "ringfence:guest/config@0.1.0" (instance (export "get" (func (param "key" u32)))))"#,
        "",
        "",
        "(i32.const 16)",
    ))
    .await;
    assert_refusal(&error, "wrong_import", "config");
    let error = refusal(bot_importing(
        r#"(import "wasi:cli/environment@0.2.0" (instance (export "become-root" (func))))"#,
        "",
        "",
        "(i32.const 16)",
    ))
    .await;
    assert_refusal(&error, "wrong_import", "become-root");
}

#[tokio::test]
async fn features_that_are_off_are_refused() {
    for (feature, field) in [
        ("threads", r#"(memory $shared 1 1 shared)"#),
        ("memory64", r#"(memory $wide i64 1)"#),
        ("gc", r#"(type $pair (struct (field i32)))"#),
        ("exceptions", r#"(tag $oops)"#),
    ] {
        let error = refusal(bot(field, "(i32.const 16)")).await;
        assert_eq!(error.code(), "unsupported_feature", "{feature}: {error}");
    }
}

/// What the pool does not have for every slot is refused here, so that no call ever finds the pool short.
#[tokio::test]
async fn needing_more_than_the_pool_gives_is_refused_by_dimension() {
    let many = |count: usize, field: &str| field.repeat(count);
    let instances = "(core module $small) (core instance (instantiate $small))".to_owned()
        + &many(64, "(core instance (instantiate $small))");
    let memories_apart =
        "(core module $one (memory 1)) ".to_owned() + &many(4, "(core instance (instantiate $one))");
    let tables_apart = "(core module $ten (table 1 funcref) (table 1 funcref)) ".to_owned()
        + &many(9, "(core instance (instantiate $ten))");
    let refused = [
        ("core instances", bot_importing(&instances, "", "", "(i32.const 16)")),
        ("memories", bot(&many(4, "(memory 1)"), "(i32.const 16)")),
        ("memories", bot_importing(&memories_apart, "", "", "(i32.const 16)")),
        ("tables", bot(&many(17, "(table 1 funcref)"), "(i32.const 16)")),
        ("tables", bot_importing(&tables_apart, "", "", "(i32.const 16)")),
        ("memory", bot("(memory $huge 32768)", "(i32.const 16)")),
        ("table elements", bot("(table 200000 funcref)", "(i32.const 16)")),
        ("instance state", bot(&many(200_000, "(global i32 (i32.const 0))"), "(i32.const 16)")),
    ];
    for (expected, wasm) in refused {
        let error = refusal(wasm).await;
        let InvalidComponent::NeedsTooMuch { dimension, .. } = &error else {
            panic!("{expected}: {error:?}")
        };
        assert_eq!(*dimension, expected, "{error}");
    }
}

#[tokio::test]
async fn a_component_is_described() {
    let echo = built("echo");
    let info = RUNTIME.prepare(echo.clone(), &tenant()).await.unwrap();
    assert_eq!((info.kind, info.size_bytes), (Kind::Bot, echo.len() as u64));
    assert!(info.digest.to_string().starts_with("sha256:"));
    assert!(info.imports.iter().any(|name| name.starts_with("wasi:cli/environment@0.2.")));
    assert!(info.capabilities.is_empty(), "{:?}", info.capabilities);

    let chatty = RUNTIME.prepare(built("hostile/chatty"), &tenant()).await.unwrap();
    assert_eq!(chatty.capabilities, ["config"]);
    let oracle = RUNTIME.prepare(built("hostile/oracle-accept"), &tenant()).await.unwrap();
    assert_eq!(oracle.kind, Kind::Oracle);
}

/// Tool chains for JavaScript import `wasi:http` in any case. It links, and calling it is a trap.
#[tokio::test]
async fn http_links_and_is_denied() {
    let caller = bot_importing(
        r#"(import "wasi:http/types@0.2.3" (instance $http
               (export "fields" (type $fields (sub resource)))
               (export "[constructor]fields" (func (result (own $fields))))))
           (core func $new (canon lower (func $http "[constructor]fields")))"#,
        r#"(with "http" (instance (export "new" (func $new))))"#,
        r#"(import "http" "new" (func $new (result i32)))"#,
        "(if (i32.eq (local.get 3) (i32.const 4)) (then (drop (call $new)))) (i32.const 16)",
    );
    let unused = crate::guests::call(caller.clone(), "{}").await;
    assert_eq!(unused.outcome.as_str(), "completed", "{unused:?}");
    let used = crate::guests::call(caller, "null").await;
    assert_eq!(used.outcome.as_str(), "trapped", "{used:?}");
    assert!(used.detail.unwrap().contains("`wasi:http/types@0.2.3#[constructor]fields` was called"));
}

#[tokio::test]
async fn what_was_refused_cannot_be_called() {
    let core = wat("(module)");
    assert!(RUNTIME.prepare(core.clone(), &tenant()).await.is_err());
    let mut call = prepared(&RUNTIME, built("echo")).await;
    call.digest = ringfence_runtime::Digest::of(&core);
    assert_eq!(RUNTIME.call_bot(call.clone()).await, Err(CallError::UnknownComponent(call.digest)));
}
