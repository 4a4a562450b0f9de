//! Directories of bots, from the grant to the deletion.

use std::time::Duration;

use ringfence_testkit::{Agent, Client, Engine, Market, expect_problem, guest, on_both_engines};
use serde_json::{Value, json};

use crate::host;

on_both_engines!(files_live_as_long_as_their_bot);

fn grant(volume: &str, path: &str, access: &str, quota_bytes: u64) -> Value {
    json!({ "volume": volume, "path": path, "access": access, "quota_bytes": quota_bytes })
}

fn data(quota_bytes: u64) -> Value {
    json!({ "grants": { "directories": [grant("data", "/data", "read_write", quota_bytes)] } })
}

async fn invoke(client: &Client, owner: &Agent, bot: &str, input: Value) -> Value {
    let called = client.post(&format!("/bots/{bot}/invoke"), &owner.key, &json!({ "input": input })).await;
    called.expect(200)
}

async fn output(client: &Client, owner: &Agent, bot: &str, input: Value) -> Value {
    let called = invoke(client, owner, bot, input).await;
    assert_eq!(called["outcome"], "completed", "{called}");
    called["output"].clone()
}

async fn files_live_as_long_as_their_bot(engine: Engine) {
    let mut host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "ada").await;
    let bot = Market::deploy(&client, &ada, "files", data(1000)).await;
    let write = json!({ "do": "write", "path": "/data/a/kept.txt", "text": "kept" });
    let read = json!({ "do": "read", "path": "/data/a/kept.txt" });
    assert_eq!(output(&client, &ada, &bot, write).await, json!({ "written": { "bytes": 4 } }));
    let volumes = host.folder().join("data/volumes");
    let volumes = if volumes.exists() { volumes } else { host.folder().join("volumes") };
    assert!(volumes.join(&bot).join("data/a/kept.txt").exists(), "{}", volumes.display());

    // Another version, and another start of the host, find them again.
    let changes = json!({ "grants": { "directories": [grant("data", "/data", "read_only", 1000)] } });
    let changed = client.patch(&format!("/bots/{bot}"), &ada.key, &changes).await.expect(200);
    assert_eq!(changed["grants"], changes["grants"]);
    assert_eq!(output(&client, &ada, &bot, read.clone()).await, json!({ "text": "kept" }));
    let refused = invoke(&client, &ada, &bot, json!({ "do": "delete", "path": "/data/a/kept.txt" })).await;
    assert_eq!(refused["failure_code"], "not_permitted", "{refused}");
    host.kill();
    host.restart().await;
    let client = host.client();
    assert_eq!(output(&client, &ada, &bot, read.clone()).await, json!({ "text": "kept" }));

    // Another bot of the same owner with the same grants has volumes of its own.
    let other =
        Market::deploy(&client, &ada, "files", json!({ "name": "other", "grants": data(1000)["grants"] }))
            .await;
    let listed = output(&client, &ada, &other, json!({ "do": "list", "path": "/data" })).await;
    assert_eq!(listed, json!({ "entries": [] }));
    let reach = json!({ "do": "read", "path": format!("/data/../../{bot}/data/a/kept.txt") });
    assert!(invoke(&client, &ada, &other, reach).await["failure_code"].is_string());

    // A folder of a bot that is not known here is not ours to remove; one of a deleted bot is, whenever it is found.
    let _ = client.delete(&format!("/bots/{bot}"), &ada.key).await.expect(204);
    assert!(!volumes.join(&bot).exists());
    assert!(volumes.join(&other).exists());
    let unknown = volumes.join("bot_01890000000070008000000000000000");
    for left in
        [volumes.join(&bot).join("data/left"), volumes.join(format!(".removed-{bot}/data")), unknown.clone()]
    {
        std::fs::create_dir_all(left).unwrap();
    }
    host.kill();
    host.restart().await;
    for _ in 0..500 {
        if !volumes.join(&bot).exists() && !volumes.join(format!(".removed-{bot}")).exists() {
            assert!(unknown.exists() && volumes.join(&other).exists());
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("what a deleted bot had left was not removed");
}

#[tokio::test]
async fn grants_of_directories_are_checked() {
    let host = host(Engine::Sqlite).await;
    let client = host.client();
    let ada = Market::register(&client, "ada").await;
    let digest = client.upload(&ada.key, guest("files")).await.expect(201)["digest"].clone();
    let refused = async |directories: Value, field: &str| {
        let bot = json!({ "name": "files", "component": digest, "grants": { "directories": directories } });
        let answer = client.post("/bots", &ada.key, &bot).await;
        expect_problem(&answer, 422, "invalid_fields");
        let fields = answer.body["errors"].to_string();
        assert!(fields.contains(field), "{directories}: {fields}");
    };
    let element = "grants.directories[0]";
    refused(json!([grant("No", "/data", "read_only", 1)]), &format!("{element}.volume")).await;
    refused(json!([grant("../up", "/data", "read_only", 1)]), &format!("{element}.volume")).await;
    refused(json!([grant("data", "data", "read_only", 1)]), &format!("{element}.path")).await;
    refused(json!([grant("data", "/a/../b", "read_only", 1)]), &format!("{element}.path")).await;
    refused(json!([grant("data", "/data", "read_only", 0)]), &format!("{element}.quota_bytes")).await;
    refused(json!([grant("data", "/data", "read_only", (1 << 30) + 1)]), &format!("{element}.quota_bytes"))
        .await;
    let twice = json!([grant("a", "/data", "read_only", 1), grant("b", "/data/in", "read_only", 1)]);
    refused(twice, "grants.directories").await;
    let oracle = client.upload(&ada.key, guest("hostile/oracle-accept")).await.expect(201)["digest"].clone();
    let bot = json!({ "name": "oracle", "component": oracle, "grants": data(1)["grants"] });
    let answer = client.post("/bots", &ada.key, &bot).await;
    expect_problem(&answer, 422, "invalid_fields");
    assert!(answer.body["errors"].to_string().contains("grants.directories"), "{:?}", answer.body);
}

#[tokio::test]
async fn parallel_calls_of_a_bot_share_its_quota() {
    let host = host(Engine::Sqlite).await;
    let client = host.client();
    let ada = Market::register(&client, "ada").await;
    let bot = Market::deploy(&client, &ada, "hostile/escape", data(10_000)).await;
    let appends = |name: &str| {
        let append = json!({ "try": "append", "path": format!("/data/{name}"), "bytes": 700 });
        invoke(&client, &ada, &bot, Value::Array(vec![append; 10]))
    };
    let (one, other) = tokio::join!(appends("one"), appends("other"));
    let called = [one, other];
    let done = called
        .iter()
        .flat_map(|called| called["output"].as_array().unwrap().clone())
        .filter(|said| said == "ok done");
    assert_eq!(done.count(), 14, "14 × 700 fit into 10,000 bytes");
}
