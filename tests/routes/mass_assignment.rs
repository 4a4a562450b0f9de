//! A request sets what its route lets it set and nothing else: an unknown field is refused, wherever it stands.

use std::collections::BTreeSet;

use ringfence_testkit::{Engine, expect_problem, send};
use serde_json::{Value, json};

use super::bodies::routes;
use crate::host;

/// What someone may try to give themselves.
const WANTED: &[&str] = &["role", "org_id", "scopes", "balance", "is_operator", "created_at", "__proto__"];

#[tokio::test]
async fn an_unknown_field_is_refused_on_every_route() {
    let host = host(Engine::Sqlite).await;
    let client = host.client();
    for route in routes(&host).await {
        for pointer in route.objects {
            for wanted in WANTED.iter().filter(|wanted| !route.given.contains(wanted)) {
                let mut body = route.body.clone();
                body.pointer_mut(pointer).unwrap()[*wanted] = json!("admin");
                let request = client.request(route.method.clone(), &route.path, &route.key);
                let answer = send(request.json(&body)).await;
                expect_problem(&answer, 422, "invalid_body");
                let detail = answer.text_at("/detail");
                let told = format!("unknown field `{wanted}`");
                assert!(detail.contains(&told), "{} {pointer}: {detail}", route.template);
            }
        }
        // Nor are its fields taken without their names.
        let row: Vec<_> = route.body.as_object().unwrap().values().collect();
        let request = client.request(route.method.clone(), &route.path, &route.key);
        expect_problem(&send(request.json(&row)).await, 422, "invalid_body");
        // Without them it is taken; so they were the reason, and nothing was done before.
        let request = client.request(route.method.clone(), &route.path, &route.key);
        let answer = send(request.json(&route.body)).await;
        assert_eq!(answer.status, route.status, "{}: {}", route.template, answer.text);
    }
}

#[tokio::test]
async fn no_route_is_left_out() {
    let host = host(Engine::Sqlite).await;
    let document = host.client().get("//openapi.json", "").await.expect(200);
    let mut served = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item
            .as_object()
            .unwrap()
            .keys()
            .filter(|method| ["post", "put", "patch"].contains(&method.as_str()))
        {
            served.insert(format!("{method} {path}"));
        }
    }
    // They take bytes, not JSON.
    for path in ["post /api/v1/components", "post /api/v1/components/check"] {
        assert!(served.remove(path));
    }
    let tested: BTreeSet<_> = routes(&host)
        .await
        .iter()
        .map(|route| format!("{} /api/v1{}", route.method.as_str().to_lowercase(), route.template))
        .collect();
    assert_eq!(served, tested, "a route that takes a body has its row in `bodies.rs`");
}

#[tokio::test]
async fn what_needs_no_body_takes_an_empty_object_and_no_other() {
    let host = host(Engine::Sqlite).await;
    let client = host.client();
    for route in routes(&host).await.iter().filter(|route| route.body == json!({})) {
        let request =
            |body: &'static str| client.request(route.method.clone(), &route.path, &route.key).body(body);
        for body in ["1", "[{}]", "null", "\"x\""] {
            let answer = send(request(body)).await;
            expect_problem(&answer, 422, "invalid_body");
        }
        expect_problem(&send(request("{")).await, 400, "malformed_json");
        let taken: Value = send(request("")).await.expect(route.status);
        assert!(taken.is_object() || route.status == 204);
    }
}
