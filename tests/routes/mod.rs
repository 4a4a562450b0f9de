mod access;
mod agents;
mod auth;
mod bodies;
mod bots;
mod components;
mod connections;
mod escalation;
mod health;
mod jobs;
mod keys;
mod ledger;
mod logs;
mod mass_assignment;
mod openapi;
mod secrets;
mod sizes;
mod submissions;
mod usage;
mod world;

use ringfence_testkit::{Client, expect_problem};
use serde_json::json;

/// What every route that needs a key does without a good one.
async fn refuses_without_a_key(client: &Client, method: reqwest::Method, path: &str) {
    let forged = format!("rf_live_{}", "0".repeat(38));
    for key in ["", "nonsense", &forged] {
        let request = client.request(method.clone(), path, key);
        let answer = ringfence_testkit::send(request.json(&json!({}))).await;
        expect_problem(&answer, 401, "unauthorized");
        assert!(answer.headers.contains_key("www-authenticate"));
    }
}
