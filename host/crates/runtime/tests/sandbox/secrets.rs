//! Capabilities: secrets, through the guest that asks for one.

use std::sync::Arc;

use ringfence_runtime::{BotCall, CallError, Capabilities, Invocation, Secrets};

use crate::guests::{RUNTIME, built, prepared, tenant};

/// Asks the guest whether this token is the secret of the name.
async fn gate(name: &str, token: &str, secrets: Secrets) -> Invocation<String> {
    let config = [("secret".to_owned(), name.to_owned())].into();
    let capabilities = Capabilities { config, secrets: Some(secrets), ..Capabilities::default() };
    let call = BotCall {
        input: format!(r#"{{"token":"{token}"}}"#),
        capabilities: Arc::new(capabilities),
        ..prepared(&RUNTIME, built("gate")).await
    };
    RUNTIME.call_bot(call).await.unwrap()
}

fn secrets() -> Secrets {
    [("token".to_owned(), Some("open sesame".into())), ("unset".to_owned(), None)].into()
}

#[tokio::test]
async fn a_guest_gets_what_was_granted() {
    let right = gate("token", "open sesame", secrets()).await;
    assert_eq!(right.output.as_deref(), Some(r#"{"open":true}"#), "{right:?}");
    let wrong = gate("token", "open barley", secrets()).await;
    assert_eq!(wrong.output.as_deref(), Some(r#"{"open":false}"#), "{wrong:?}");
}

#[tokio::test]
async fn what_it_does_not_get_is_named() {
    let long = "x".repeat(1000);
    for (name, code, shown) in [
        ("unset", "secret_unavailable", "`unset`"),
        ("other", "secret_not_granted", "`other`"),
        ("Token", "secret_not_granted", "`Token`"),
        ("", "secret_not_granted", "``"),
        (&long, "secret_not_granted", "xxx`"),
    ] {
        let failure = gate(name, "open sesame", secrets()).await.failure.unwrap();
        assert_eq!(failure.code, code, "{failure:?}");
        assert!(failure.message.contains(shown) && failure.message.len() < 300, "{failure:?}");
        assert!(!failure.message.contains("sesame"));
    }
}

#[tokio::test]
async fn without_the_grant_nothing_starts() {
    let call = prepared(&RUNTIME, built("gate")).await;
    assert_eq!(RUNTIME.prepare(built("gate"), &tenant()).await.unwrap().capabilities, ["config", "secrets"]);
    assert_eq!(RUNTIME.call_bot(call).await, Err(CallError::MissingGrant { capability: "secrets" }));
}

#[test]
fn no_value_can_be_shown() {
    assert!(!format!("{:?}", secrets()).contains("sesame"));
}
