//! Every route that takes a JSON body, with a body that it takes: what several tests go through.

use reqwest::Method;
use ringfence_testkit::{Host, Market, guest};
use serde_json::{Value, json};

/// A route, and a request that succeeds once all those before it have.
pub(super) struct Route {
    pub(super) method: Method,
    /// The path as the OpenAPI document has it, under `/api/v1`.
    pub(super) template: &'static str,
    pub(super) path: String,
    pub(super) key: String,
    pub(super) body: Value,
    /// The objects in the body, by their JSON pointers.
    pub(super) objects: &'static [&'static str],
    /// What answers it.
    pub(super) status: u16,
    /// How many bytes the body may have; nothing where it is what the operator sets.
    pub(super) limit: Option<usize>,
}

const TOP: &[&str] = &[""];
const BOT: &[&str] = &["", "/grants", "/grants/kv", "/limits"];

/// All of them, in an order in which they succeed.
pub(super) async fn routes(host: &Host) -> Vec<Route> {
    let market = Market::new(host, "hostile/oracle-accept").await;
    let client = &market.client;
    let (buyer, worker) = (&market.buyer, &market.worker);
    let bot = Market::deploy(client, buyer, "echo", json!({})).await;
    let echo = client.upload(&buyer.key, guest("echo")).await.expect(200);
    let job = market.post(json!({})).await;
    let cancelled = market.post(json!({})).await;
    let deploy = json!({
        "name": "another", "component": echo["digest"], "config": { "role": "may be a key" },
        "grants": { "kv": { "quota_bytes": 9 } }, "limits": { "fuel": 9_000_000 },
    });
    let change = json!({ "grants": { "kv": { "quota_bytes": 9 } }, "limits": { "fuel": 9_000_000 } });
    let deposit = json!({ "agent_id": buyer.id, "amount": "1", "external_reference": "one" });
    let (post, patch) = (Method::POST, Method::PATCH);
    let (few_fields, one_bot, next_to_nothing) = (Some(65_536), Some(262_144), Some(1024));
    let route = |method: &Method, template: &'static str, key: &str, body: Value, status, limit| Route {
        method: method.clone(),
        template,
        path: template
            .replace("{agent_id}", &buyer.id)
            .replace("{bot_id}", &bot)
            .replace("{task_id}", if template.ends_with("/cancel") { &cancelled } else { &job }),
        key: key.to_owned(),
        objects: if body.get("grants").is_some() { BOT } else { TOP },
        body,
        status,
        limit,
    };
    vec![
        route(&post, "/agents", "", json!({ "name": "Eve" }), 201, few_fields),
        route(&patch, "/agents/{agent_id}", &buyer.key, json!({ "name": "B." }), 200, few_fields),
        route(&post, "/bots", &buyer.key, deploy, 201, one_bot),
        route(&patch, "/bots/{bot_id}", &buyer.key, change, 200, one_bot),
        route(&post, "/bots/{bot_id}/invoke", &buyer.key, json!({ "input": 1 }), 200, None),
        route(&post, "/jobs", &buyer.key, market.job(json!({})), 201, None),
        route(&post, "/jobs/{task_id}/fund", &buyer.key, json!({}), 200, next_to_nothing),
        route(&post, "/jobs/{task_id}/claim", &worker.key, json!({}), 201, next_to_nothing),
        route(&post, "/jobs/{task_id}/submit", &worker.key, json!({ "content": 1 }), 202, None),
        route(&post, "/jobs/{task_id}/cancel", &buyer.key, json!({}), 200, next_to_nothing),
        route(&post, "/admin/ledger/deposits", &market.operator, deposit, 201, few_fields),
    ]
}
