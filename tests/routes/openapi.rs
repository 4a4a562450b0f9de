//! The documents describe what there is: every route, every security requirement, every schema that is named.

use ringfence_testkit::{Engine, expect_problem, send};
use serde_json::Value;

use crate::host;

/// What anyone may call. Everything else asks for a key.
const OPEN: &[&str] = &["get /health", "post /api/v1/agents"];

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if ["get", "post", "put", "patch", "delete"].contains(&method.as_str()) {
                found.push((method.clone(), path.clone(), operation.clone()));
            }
        }
    }
    found
}

#[tokio::test]
async fn every_operation_is_served_and_guarded_as_it_says() {
    let host = host(Engine::Sqlite).await;
    let client = host.client();
    let document = client.get("//openapi.json", "").await.expect(200);
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    let operations = operations(&document);
    assert!(operations.len() >= 24, "{}", operations.len());
    for (method, path, operation) in operations {
        let name = format!("{method} {path}");
        let open = OPEN.contains(&name.as_str());
        assert_eq!(operation.get("security").is_none(), open, "{name}: what is documented of its key");
        let concrete = path
            .replace("{agent_id}", "agent_01JZ0000000000000000000000")
            .replace("{bot_id}", "bot_01JZ0000000000000000000000")
            .replace("{task_id}", "job_01JZ0000000000000000000000")
            .replace("{submission_id}", "sub_01JZ0000000000000000000000")
            .replace("{invocation_id}", "inv_01JZ0000000000000000000000")
            .replace("{digest}", &format!("sha256:{}", "0".repeat(64)));
        assert!(!concrete.contains('{'), "{name}: a parameter that this test does not know");
        let method = reqwest::Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
        let answer = send(client.request(method, &format!("/{concrete}"), "")).await;
        if open {
            assert_ne!(answer.status, 401, "{name}");
        } else {
            expect_problem(&answer, 401, "unauthorized");
        }
        for field in ["summary", "tags", "responses"] {
            assert!(operation.get(field).is_some() || open, "{name} has no {field}");
        }
    }
}

#[tokio::test]
async fn there_is_a_page_and_every_reference_leads_somewhere() {
    let host = host(Engine::Sqlite).await;
    let page = host.client().get("//docs", "").await;
    assert_eq!(page.status, 200);
    assert!(page.headers["content-type"].to_str().unwrap().starts_with("text/html"));
    let document = host.client().get("//openapi.json", "").await;
    for reference in document.text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(document.body.pointer(reference).is_some(), "{reference}");
    }
    expect_problem(&host.client().get("//nothing/here", "").await, 404, "no_such_route");
}
