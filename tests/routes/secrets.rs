use reqwest::Method;
use ringfence_testkit::{Agent, Client, Engine, Market, expect_problem, on_both_engines};
use serde_json::{Value, json};

use super::refuses_without_a_key;
use crate::host;

on_both_engines!(
    a_guest_reads_what_it_was_granted,
    names_and_values_have_their_rules,
    there_are_only_so_many,
    secrets_go_with_their_bot,
);

/// Whether the bot says that this token is its secret; else why it cannot say.
async fn opens(client: &Client, owner: &Agent, bot: &str, token: &str) -> Result<bool, String> {
    let input = json!({ "input": { "token": token } });
    let call = client.post(&format!("/bots/{bot}/invoke"), &owner.key, &input).await.expect(200);
    match call["output"]["open"].as_bool() {
        Some(open) => Ok(open),
        None => Err(call["failure_code"].as_str().unwrap().to_owned()),
    }
}

async fn set(client: &Client, owner: &Agent, bot: &str, name: &str, value: &str) {
    let path = format!("/bots/{bot}/secrets/{name}");
    let set = client.put(&path, &owner.key, &json!({ "value": value })).await;
    assert_eq!((set.status, set.text.as_str()), (204, ""));
}

async fn names(client: &Client, owner: &Agent, bot: &str) -> Vec<String> {
    let list = client.get(&format!("/bots/{bot}/secrets"), &owner.key).await.expect(200);
    assert!(!list.to_string().contains("sesame"), "{list}");
    let name = |secret: &Value| secret["name"].as_str().unwrap().to_owned();
    list["secrets"].as_array().unwrap().iter().map(name).collect()
}

async fn a_guest_reads_what_it_was_granted(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let (ada, bob) = (Market::register(&client, "Ada").await, Market::register(&client, "Bob").await);
    let bot = Market::deploy(&client, &ada, "gate", json!({ "grants": { "secrets": ["token"] } })).await;
    refuses_without_a_key(&client, Method::GET, &format!("/bots/{bot}/secrets")).await;
    assert_eq!(opens(&client, &ada, &bot, "open sesame").await, Err("secret_unavailable".to_owned()));
    set(&client, &ada, &bot, "token", "open sesame").await;
    set(&client, &ada, &bot, "other", "sesame seeds").await;
    assert_eq!(opens(&client, &ada, &bot, "open sesame").await, Ok(true));
    assert_eq!(opens(&client, &ada, &bot, "open barley").await, Ok(false));
    assert_eq!(names(&client, &ada, &bot).await, ["other", "token"]);
    // A new value counts from the answer on, on every host.
    set(&client, &ada, &bot, "token", "new sesame").await;
    assert_eq!(opens(&client, &ada, &bot, "open sesame").await, Ok(false));
    assert_eq!(opens(&client, &ada, &bot, "new sesame").await, Ok(true));
    if engine == Engine::Postgres {
        let other = host.another().await;
        assert_eq!(opens(&other.client(), &ada, &bot, "new sesame").await, Ok(true));
    }
    // What is there and not granted is not read.
    let ungranted = json!({ "config": { "secret": "other" } });
    let _ = client.patch(&format!("/bots/{bot}"), &ada.key, &ungranted).await.expect(200);
    assert_eq!(opens(&client, &ada, &bot, "sesame seeds").await, Err("secret_not_granted".to_owned()));
    let granted = json!({ "grants": { "secrets": ["other"] } });
    let _ = client.patch(&format!("/bots/{bot}"), &ada.key, &granted).await.expect(200);
    assert_eq!(opens(&client, &ada, &bot, "sesame seeds").await, Ok(true));
    // Another bot has its own, and another org none of both.
    let second = json!({ "name": "second", "grants": { "secrets": ["token"] } });
    let second = Market::deploy(&client, &ada, "gate", second).await;
    assert_eq!(names(&client, &ada, &second).await, [""; 0]);
    assert_eq!(opens(&client, &ada, &second, "new sesame").await, Err("secret_unavailable".to_owned()));
    let path = format!("/bots/{bot}/secrets/token");
    for answer in [
        client.get(&format!("/bots/{bot}/secrets"), &bob.key).await,
        client.put(&path, &bob.key, &json!({ "value": "mine" })).await,
        client.delete(&path, &bob.key).await,
    ] {
        expect_problem(&answer, 404, "bot_not_found");
    }
    assert_eq!(client.delete(&path, &ada.key).await.status, 204);
    for gone in [&path, &format!("/bots/{bot}/secrets/a%00b"), &format!("/bots/{bot}/secrets/never")] {
        expect_problem(&client.delete(gone, &ada.key).await, 404, "secret_not_found");
    }
    assert_eq!(names(&client, &ada, &bot).await, ["other"]);
}

async fn names_and_values_have_their_rules(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let grants = |names: Value| json!({ "grants": { "secrets": names } });
    let bot = Market::deploy(&client, &ada, "gate", grants(json!(["token", "token"]))).await;
    let put = async |name: &str, value: Value| {
        client.put(&format!("/bots/{bot}/secrets/{name}"), &ada.key, &json!({ "value": value })).await
    };
    let longest = "n".repeat(64);
    for (name, value) in
        [(longest.as_str(), "x".to_owned()), ("A-b_c.9", "ü".repeat(4096)), ("n", "\0".into())]
    {
        assert_eq!(put(name, json!(value)).await.status, 204, "{name}");
    }
    for name in [&"n".repeat(65), "a%20b", "%C3%BC", "a%2Fb", "%00"] {
        expect_problem(&put(name, json!("open sesame")).await, 422, "invalid_fields");
    }
    for value in ["", &"x".repeat(8193)] {
        let refused = put("token", json!(value)).await;
        expect_problem(&refused, 422, "invalid_fields");
        assert_eq!(refused.body["errors"][0]["field"], "value");
        assert!(!refused.text.contains("xxx"), "a value is not repeated: {}", refused.text);
    }
    for value in [json!(null), json!(7), json!(["open sesame"])] {
        let refused = put("token", value).await;
        expect_problem(&refused, 422, "invalid_body");
        assert!(!refused.text.contains("sesame"), "{}", refused.text);
    }
    let many: Vec<_> = (0..51).map(|number| format!("s{number}")).collect();
    for names in [json!(["a b"]), json!([""]), json!(many)] {
        let refused = client.patch(&format!("/bots/{bot}"), &ada.key, &grants(names)).await;
        expect_problem(&refused, 422, "invalid_fields");
        assert_eq!(refused.body["errors"][0]["field"], "grants.secrets");
    }
    let read = client.get(&format!("/bots/{bot}"), &ada.key).await.expect(200);
    assert_eq!(read["grants"], json!({ "secrets": ["token"] }));
    let oracle = Market::deploy(&client, &ada, "hostile/oracle-accept", json!({})).await;
    let path = format!("/bots/{oracle}/secrets/token");
    expect_problem(&client.put(&path, &ada.key, &json!({ "value": "x" })).await, 422, "invalid_fields");
    let granted = client.patch(&format!("/bots/{oracle}"), &ada.key, &grants(json!(["token"]))).await;
    expect_problem(&granted, 422, "invalid_fields");
}

async fn there_are_only_so_many(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let bot = Market::deploy(&client, &ada, "gate", json!({ "grants": { "secrets": ["s0"] } })).await;
    let put = async |number: u32| {
        let path = format!("/bots/{bot}/secrets/s{number}");
        client.put(&path, &ada.key, &json!({ "value": "open sesame" })).await
    };
    // At the same time, so that each sees what the others have added.
    let answers = futures::future::join_all((0..60).map(put)).await;
    let kept = answers.iter().filter(|answer| answer.status == 204).count();
    for refused in answers.iter().filter(|answer| answer.status != 204) {
        expect_problem(refused, 409, "too_many_secrets");
    }
    let names = names(&client, &ada, &bot).await;
    assert_eq!((kept, names.len()), (50, 50));
    let there = names[0].trim_start_matches('s').parse().unwrap();
    assert_eq!(put(there).await.status, 204, "one that is there can still be changed");
}

async fn secrets_go_with_their_bot(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let bot = Market::deploy(&client, &ada, "gate", json!({ "grants": { "secrets": ["token"] } })).await;
    set(&client, &ada, &bot, "token", "open sesame").await;
    let kept = host.database().tables_with(&format!("{bot}/token")).await;
    assert!(matches!(&kept[..], [table] if table.starts_with("secrets")), "{kept:?}");
    assert_eq!(client.delete(&format!("/bots/{bot}"), &ada.key).await.status, 204);
    assert_eq!(host.database().tables_with(&format!("{bot}/token")).await, [""; 0]);
    let path = format!("/bots/{bot}/secrets/token");
    let late = client.put(&path, &ada.key, &json!({ "value": "open sesame" })).await;
    expect_problem(&late, 409, "bot_terminated");
}
