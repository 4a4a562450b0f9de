//! The audit log: what is in it, who reads it, and that nobody changes it unseen.

use ringfence_testkit::{Engine, Host, Market, expect_problem, on_both_engines};
use serde_json::{Value, json};

use crate::host;

on_both_engines!(
    deeds_and_refusals_are_written_down,
    an_org_reads_its_own,
    parallel_writers_make_one_chain,
    a_changed_chain_is_found_out,
);

async fn entries(host: &Host, key: &str, query: &str) -> Vec<Value> {
    let answer = host.client().get(&format!("/audit?{query}"), key).await.expect(200);
    answer["entries"].as_array().unwrap().clone()
}

async fn deeds_and_refusals_are_written_down(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let admin = host.first_admin().await;
    let operator = host.operator_key();
    let ada = Market::register(&client, "Ada").await;
    let deposit = json!({ "agent_id": ada.id, "amount": "1", "external_reference": "one" });
    let booked = client.post("/admin/ledger/deposits", &operator, &deposit).await;
    let entry = &entries(&host, &operator, "action=ledger:deposit").await[0];
    assert_eq!((entry["outcome"].as_str(), entry["resource"].as_str()), (Some("done"), Some(&*ada.id)));
    assert_eq!(entry["request_id"].as_str(), booked.headers["x-request-id"].to_str().ok());
    assert_eq!(
        (entry["address"].as_str(), entry["detail"]["amount"].as_str()),
        (Some("127.0.0.1"), Some("1.000000"))
    );
    assert!(entry["actor"].as_str().unwrap().starts_with("key_"), "{entry}");
    assert_ne!(entry["resource_org_id"], entry["org_id"]);

    // What was refused; in the log of whoever tried.
    expect_problem(&client.post("/admin/ledger/deposits", &ada.key, &deposit).await, 403, "operator_only");
    expect_problem(
        &client.post("/keys", &operator, &json!({ "name": "x", "role": "viewer" })).await,
        403,
        "forbidden",
    );
    let denied = entries(&host, &operator, "outcome=denied").await;
    assert_eq!((denied.len(), denied[0]["action"].as_str()), (1, Some("keys:create")));

    // Logins, good and bad, and what was done on the command line. What was typed in is not in it.
    let wrong = json!({ "email": "root@operators.test", "password": "sentinel-password" });
    expect_problem(&client.post("/auth/login", "", &wrong).await, 401, "wrong_credentials");
    let unknown = json!({ "email": "sentinel@example.org", "password": "sentinel-password" });
    expect_problem(&client.post("/auth/login", "", &unknown).await, 401, "wrong_credentials");
    let logins = entries(&host, &admin.access, "action=sessions:login").await;
    let outcomes: Vec<_> = logins.iter().map(|entry| entry["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["failed", "failed", "done"]);
    assert_eq!(logins[0]["resource"], "unknown account");
    let made = entries(&host, &admin.access, "actor=command").await;
    assert_eq!((made.len(), made[0]["action"].as_str()), (1, Some("users:create")));
    let all = entries(&host, &admin.access, "limit=200").await;
    assert!(!json!(all).to_string().contains("sentinel"), "{all:?}");

    // Doing something again under the same Idempotency-Key is one deed.
    let two = json!({ "agent_id": ada.id, "amount": "2", "external_reference": "two" });
    for _ in 0..2 {
        let _ = client.post_once("/admin/ledger/deposits", &operator, "same", &two).await.expect(201);
    }
    assert_eq!(entries(&host, &operator, "action=ledger:deposit").await.len(), 2);
}

async fn an_org_reads_its_own(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let admin = host.first_admin().await;
    let market = Market::new(&host, "hostile/oracle-accept").await;
    market.post(json!({})).await;
    let (buyer, worker) = (&market.buyer, &market.worker);
    let org = client.get(&format!("/agents/{}", buyer.id), &buyer.key).await.text_at("/org_id").to_owned();
    let other =
        client.get(&format!("/agents/{}", worker.id), &worker.key).await.text_at("/org_id").to_owned();
    let boss = client.new_user(&admin, "boss@example.org", "admin", Some(&org)).await;
    let own = entries(&host, &boss.access, "limit=200").await;
    let actions: Vec<_> = own.iter().rev().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(
        actions,
        ["agents:register", "components:upload", "bots:create", "jobs:create", "sessions:login"]
    );
    expect_problem(&client.get(&format!("/audit?org_id={other}"), &boss.access).await, 404, "org_not_found");
    // What it tries with another org's agent does not tell it whose that is.
    let foreign = json!({ "agent_id": worker.id, "amount": "1", "external_reference": "x" });
    expect_problem(
        &client.post("/admin/ledger/deposits", &boss.access, &foreign).await,
        403,
        "operator_only",
    );
    let tried = client.get("/audit?action=ledger:deposit", &boss.access).await.expect(200);
    assert!(
        tried["entries"][0]["resource_org_id"].is_null() && !tried.to_string().contains(&other),
        "{tried}"
    );
    expect_problem(&client.get("/audit", &buyer.key).await, 403, "forbidden");
    assert_eq!(entries(&host, &admin.access, &format!("org_id={other}")).await.len(), 1);

    // Page by page, nothing twice and nothing left out.
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/audit?limit=2{token}"), &boss.access).await.expect(200);
        seen.extend(page["entries"].as_array().unwrap().iter().map(|entry| entry["seq"].as_u64().unwrap()));
        let Some(next) = page["next_page_token"].as_str() else { break };
        token = format!("&page_token={next}");
    }
    // The two refusals have come since.
    assert_eq!(seen, (1..=u64::try_from(own.len()).unwrap() + 2).rev().collect::<Vec<_>>());
    let at = own[2]["at"].as_str().unwrap();
    let since = entries(&host, &boss.access, &format!("since={at}&until=2100-01-01T00:00:00Z")).await;
    assert_eq!(since.len(), 5, "{since:?}");
    for bad in ["outcome=maybe", "limit=0", "limit=201", "page_token=x", "since=yesterday", "colour=red"] {
        assert_eq!(client.get(&format!("/audit?{bad}"), &boss.access).await.status, 422, "{bad}");
    }
}

fn verify(host: &Host) -> (bool, String) {
    let output = host.command(&["audit", "verify"], "");
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

async fn parallel_writers_make_one_chain(engine: Engine) {
    let host = host(engine).await;
    let other = match engine {
        Engine::Postgres => Some(host.another().await),
        Engine::Sqlite => None,
    };
    let here = host.client();
    let there = other.as_ref().map_or_else(|| here.clone(), Host::client);
    let ada = Market::register(&here, "Ada").await;
    let path = format!("/agents/{}", ada.id);
    let (change, refused) = (json!({ "name": "Ada" }), json!({ "name": "x", "role": "viewer" }));
    let deeds = (0..30).map(|number| {
        let client = if number % 2 == 0 { &here } else { &there };
        let (path, key, change, refused) = (&path, &ada.key, &change, &refused);
        async move {
            match number % 3 {
                0 => client.post("/keys", key, refused).await.status,
                _ => client.patch(path, key, change).await.status,
            }
        }
    });
    let codes = futures::future::join_all(deeds).await;
    assert!(codes.iter().all(|code| matches!(code, 200 | 403)), "{codes:?}");
    let org = here.get(&path, &ada.key).await.text_at("/org_id").to_owned();
    let (good, said) = verify(&host);
    assert!(good && said.contains(&format!("{org}: 31 entries")), "{said}");
}

async fn a_changed_chain_is_found_out(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let mut orgs = Vec::new();
    for name in ["changed", "removed", "swapped", "cut", "endless"] {
        let agent = Market::register(&client, name).await;
        let path = format!("/agents/{}", agent.id);
        for number in 0..4 {
            let _ = client
                .patch(&path, &agent.key, &json!({ "name": format!("{name} {number}") }))
                .await
                .expect(200);
        }
        orgs.push(client.get(&path, &agent.key).await.text_at("/org_id").to_owned());
    }
    let (good, said) = verify(&host);
    assert!(good && orgs.iter().all(|org| said.contains(&format!("{org}: 5 entries"))), "{said}");
    let [changed, removed, swapped, cut, endless] = &orgs[..] else { panic!("five orgs") };

    // The database refuses it by itself.
    let database = host.database();
    for sql in ["UPDATE audit_log SET actor = 'me'", "DELETE FROM audit_log"] {
        assert!(database.meddle(sql).await.unwrap_err().contains("append-only"), "{sql}");
    }
    // Somebody who may change the schema can go on.
    let without = match engine {
        Engine::Sqlite => {
            &["DROP TRIGGER audit_log_is_not_changed", "DROP TRIGGER audit_log_is_not_deleted"][..]
        }
        Engine::Postgres => &["ALTER TABLE audit_log DISABLE TRIGGER USER"],
    };
    for sql in without {
        database.meddle(sql).await.unwrap();
    }
    for sql in [
        format!("UPDATE audit_log SET address = '192.0.2.1' WHERE org_id = '{changed}' AND seq = 3"),
        format!("DELETE FROM audit_log WHERE org_id = '{removed}' AND seq = 2"),
        format!("UPDATE audit_log SET seq = 90 WHERE org_id = '{swapped}' AND seq = 2"),
        format!("UPDATE audit_log SET seq = 2 WHERE org_id = '{swapped}' AND seq = 3"),
        format!("UPDATE audit_log SET seq = 3 WHERE org_id = '{swapped}' AND seq = 90"),
        format!("DELETE FROM audit_log WHERE org_id = '{cut}' AND seq = 5"),
        format!("UPDATE audit_log SET actor = 'me' WHERE org_id = '{endless}' AND seq = 4"),
        format!("DELETE FROM audit_heads WHERE org_id = '{endless}'"),
    ] {
        database.meddle(&sql).await.unwrap();
    }
    let (good, said) = verify(&host);
    assert!(!good, "{said}");
    for expected in [
        format!("{changed}: BROKEN: entry 3 was changed (2 entries before it are good)"),
        format!("{removed}: BROKEN: entry 2 is missing (1 entries before it are good)"),
        format!("{swapped}: BROKEN: entry 2 does not follow on the entry before it"),
        format!("{cut}: BROKEN: the chain ends at entry 4, and the recorded end is entry 5"),
        format!("{endless}: BROKEN: entry 4 was changed"),
    ] {
        assert!(said.contains(&expected), "{expected} in\n{said}");
    }
}
