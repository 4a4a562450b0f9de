//! Calls are recorded beside them: what a crash may lose of that, and what it may not.

use ringfence_testkit::{Client, Engine, Host, Market, on_both_engines};
use serde_json::{Value, json};

use crate::host;

on_both_engines!(a_crash_loses_records_of_the_last_moments_and_nothing_else, a_stop_loses_nothing);

const CALLS: usize = 40;

/// Has the bot keep a note, and says when.
async fn note(client: &Client, key: &str, bot: &str, number: usize, durable: bool) -> String {
    let input = json!({ "do": "add", "name": number.to_string(), "text": "kept" });
    let call = json!({ "input": input, "durable": durable });
    let answer = client.post(&format!("/bots/{bot}/invoke"), key, &call).await.expect(200);
    assert_eq!(answer["outcome"], "completed", "{answer}");
    answer["invocation_id"].as_str().unwrap().to_owned()
}

async fn recorded(client: &Client, key: &str, bot: &str) -> Vec<Value> {
    let list = client.get(&format!("/bots/{bot}/invocations?limit=200"), key).await.expect(200);
    list["invocations"].as_array().unwrap().clone()
}

/// The sums of the day are written with the calls: they speak of as many.
async fn sums_agree(host: &Host, calls: usize) {
    let sql = format!(
        "UPDATE usage_by_day SET calls = calls WHERE calls = {calls} AND completed = {calls} AND fuel > 0"
    );
    assert_eq!(host.database().meddle(&sql).await, Ok(1), "usage_by_day does not have {calls} calls");
}

async fn a_crash_loses_records_of_the_last_moments_and_nothing_else(engine: Engine) {
    let mut host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let grants = json!({ "grants": { "kv": { "quota_bytes": 100_000 } } });
    let bot = Market::deploy(&client, &ada, "notes", grants).await;
    let mut durable = Vec::new();
    for number in 0..CALLS {
        let keep = number % 10 == 0;
        let id = note(&client, &ada.key, &bot, number, keep).await;
        durable.extend(keep.then_some(id));
    }
    host.kill();
    host.restart().await;
    let client = host.client();
    let found = recorded(&client, &ada.key, &bot).await;
    for id in &durable {
        assert!(found.iter().any(|call| call["invocation_id"] == **id), "{id} was durable");
    }
    sums_agree(&host, found.len()).await;
    // What the calls did was answered, so it is there, whatever became of their records.
    let list = json!({ "input": { "do": "list" } });
    let notes = client.post(&format!("/bots/{bot}/invoke"), &ada.key, &list).await.expect(200);
    assert_eq!(notes["output"]["notes"].as_array().map(Vec::len), Some(CALLS), "{notes}");
}

async fn a_stop_loses_nothing(engine: Engine) {
    let mut host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let bot = Market::deploy(&client, &ada, "echo", json!({})).await;
    let calls = (0..CALLS).map(|number| {
        let (client, path, key) = (client.clone(), format!("/bots/{bot}/invoke"), ada.key.clone());
        async move { client.post(&path, &key, &json!({ "input": number })).await.expect(200) }
    });
    futures::future::join_all(calls).await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(host.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(host.wait().await, "it ends well");
    host.restart().await;
    assert_eq!(recorded(&host.client(), &ada.key, &bot).await.len(), CALLS);
    sums_agree(&host, CALLS).await;
}
