//! The documents describe what there is: every route, every security requirement, every schema that is named.

use ringfence_testkit::{Engine, expect_problem, send};
use serde_json::Value;

use crate::host;

/// What anyone may call. Everything else asks for a key or a token.
const OPEN: &[&str] =
    &["get /health", "post /api/v1/agents", "post /api/v1/auth/login", "post /api/v1/auth/refresh"];

/// Whether an operation is documented as one for which nothing needs to be proved.
fn is_open(operation: &Value) -> bool {
    let Some(ways) = operation.get("security") else { return true };
    ways.as_array().unwrap().iter().any(|way| way.as_object().unwrap().is_empty())
}

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
    assert!(operations.len() >= 54, "{}", operations.len());
    for (method, path, operation) in operations {
        let name = format!("{method} {path}");
        let open = OPEN.contains(&name.as_str());
        assert_eq!(is_open(&operation), open, "{name}: what is documented of its key");
        let concrete = path
            .replace("{agent_id}", "agent_01JZ0000000000000000000000")
            .replace("{bot_id}", "bot_01JZ0000000000000000000000")
            .replace("{task_id}", "job_01JZ0000000000000000000000")
            .replace("{submission_id}", "sub_01JZ0000000000000000000000")
            .replace("{invocation_id}", "inv_01JZ0000000000000000000000")
            .replace("{user_id}", "user_01JZ0000000000000000000000")
            .replace("{key_id}", "key_01JZ0000000000000000000000")
            .replace("{withdrawal_id}", "xfer_01JZ0000000000000000000000")
            .replace("{policy_id}", "policy_01JZ0000000000000000000000")
            .replace("{name}", "token")
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

/// What anything can be refused with is documented everywhere, beside an operation's own refusals.
#[tokio::test]
async fn every_operation_documents_what_it_may_be_refused_with() {
    let host = host(Engine::Sqlite).await;
    let document = host.client().get("//openapi.json", "").await.expect(200);
    for (method, path, operation) in operations(&document) {
        let name = format!("{method} {path}");
        let expect = |status: &str, codes: &[&str]| {
            let refusal = &operation["responses"][status];
            let description = refusal["description"].as_str().unwrap_or_default();
            for code in codes {
                assert!(description.contains(&format!("`{code}`")), "{name}: {status} without {code}");
            }
            let schema = &refusal["content"]["application/problem+json"]["schema"]["$ref"];
            assert_eq!(schema, "#/components/schemas/Problem", "{name}: {status}");
        };
        let statuses = operation["responses"].as_object().unwrap().keys();
        for refused in statuses.filter(|status| status.as_str() >= "400") {
            expect(refused, &[]);
        }
        if operation.get("security").is_some() {
            expect("401", &["unauthorized", "token_expired"]);
            expect("403", &["forbidden", "operator_only", "scope_missing", "forbidden_by_policy"]);
        }
        if name != "get /health" {
            expect("429", &["rate_limited"]);
            expect("500", &["internal"]);
            expect("503", &["database_busy"]);
        }
        if operation.get("requestBody").is_some() {
            expect("400", &["malformed_json"]);
            expect("408", &["request_timeout"]);
            expect("413", &["body_too_large"]);
            expect("415", &["unsupported_media_type"]);
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
