//! Every route that takes a JSON body, with a body that it takes: what several tests go through.

use reqwest::Method;
use ringfence_testkit::{Host, Market, PASSWORD, guest};
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
    /// Of the fields that nobody may give themselves, those that stand in its schema: here an admin gives them to others.
    pub(super) given: &'static [&'static str],
    /// What answers it.
    pub(super) status: u16,
    /// How many bytes the body may have; nothing where it is what the operator sets.
    pub(super) limit: Option<usize>,
}

const TOP: &[&str] = &[""];
const BOT: &[&str] = &["", "/grants", "/grants/http", "/grants/kv", "/limits"];

const FEW_FIELDS: Option<usize> = Some(65_536);
const ONE_BOT: Option<usize> = Some(262_144);
const NEXT_TO_NOTHING: Option<usize> = Some(1024);

/// All of them, in an order in which they succeed.
pub(super) async fn routes(host: &Host) -> Vec<Route> {
    let market = Market::new(host, "hostile/oracle-accept").await;
    let mut routes = of_the_market(&market).await;
    routes.extend(of_accounts(host, &market).await);
    routes
}

/// A route; its path is the template until the parameters are filled in.
fn route(
    (method, template): (&str, &'static str),
    key: &str,
    body: Value,
    (status, limit): (u16, Option<usize>),
) -> Route {
    Route {
        method: Method::from_bytes(method.as_bytes()).unwrap(),
        template,
        path: template.to_owned(),
        key: key.to_owned(),
        objects: if body.get("grants").is_some() { BOT } else { TOP },
        given: &[],
        body,
        status,
        limit,
    }
}

/// Fills in what the paths name.
fn filled(routes: Vec<Route>, things: &[(&str, &str)]) -> Vec<Route> {
    let fill = |route: Route| {
        let path = things.iter().fold(route.path, |path, (parameter, id)| path.replace(parameter, id));
        Route { path, ..route }
    };
    routes.into_iter().map(fill).collect()
}

async fn of_the_market(market: &Market) -> Vec<Route> {
    let client = &market.client;
    let (buyer, worker) = (market.buyer.key.as_str(), market.worker.key.as_str());
    let bot = Market::deploy(client, &market.buyer, "echo", json!({})).await;
    let echo = client.upload(buyer, guest("echo")).await.expect(200);
    let job = market.post(json!({})).await;
    let cancelled = format!("/jobs/{}/cancel", market.post(json!({})).await);
    let left = market.funded(json!({})).await;
    market.claim(&market.worker, &left).await;
    let left = format!("/jobs/{left}/unclaim");
    let faulty = Market::deploy(client, &market.buyer, "hostile/oracle-fault", json!({})).await;
    let disputed = format!("/admin/jobs/{}/dispute/resolve", market.disputed(&faulty, "1").await);
    let ruling = json!({ "outcome": "refund", "reason": "It is broken." });
    let deploy = json!({
        "name": "another", "component": echo["digest"], "config": { "role": "may be a key" },
        "grants": { "http": { "hosts": ["a.test"] }, "kv": { "quota_bytes": 9 } }, "limits": { "fuel": 9_000_000 },
    });
    let change = json!({
        "grants": { "http": { "hosts": ["*.a.test"] }, "kv": { "quota_bytes": 9 } }, "limits": { "fuel": 9_000_000 },
    });
    let refunded = format!("/jobs/{}/refund", market.funded(json!({ "price": "1" })).await);
    let _ = client.post_empty(&refunded.replace("refund", "cancel"), buyer).await.expect(200);
    let overpaid = format!("/jobs/{}/refund-excess", market.overpaid(json!({ "price": "1" }), "2").await);
    let cold = Market::register(client, "Cold").await;
    let unpaid = format!("/jobs/{}/retry-payout", market.unpaid(&cold, json!({ "price": "1" })).await);
    market.unfreeze(&cold).await;
    let (posted, voided) =
        (market.withdrawal(&market.buyer, "1").await, market.withdrawal(&market.buyer, "1").await);
    let deposit = json!({ "agent_id": market.buyer.id, "amount": "1", "external_reference": "one" });
    let withdrawal = json!({ "agent_id": market.buyer.id, "amount": "1", "external_reference": "two" });
    let operator = market.operator.as_str();
    let routes = vec![
        route(("POST", "/agents"), "", json!({ "name": "Eve" }), (201, FEW_FIELDS)),
        route(("PATCH", "/agents/{agent_id}"), buyer, json!({ "name": "B." }), (200, FEW_FIELDS)),
        route(("POST", "/bots"), buyer, deploy, (201, ONE_BOT)),
        route(("PATCH", "/bots/{bot_id}"), buyer, change, (200, ONE_BOT)),
        route(("PUT", "/bots/{bot_id}/secrets/{name}"), buyer, json!({ "value": "x" }), (204, FEW_FIELDS)),
        route(("POST", "/bots/{bot_id}/invoke"), buyer, json!({ "input": 1 }), (200, None)),
        route(("POST", "/jobs"), buyer, market.job(json!({})), (201, None)),
        route(("PATCH", "/jobs/{task_id}"), buyer, json!({ "title": "Another" }), (200, None)),
        route(("POST", "/jobs/{task_id}/fund"), buyer, json!({}), (200, NEXT_TO_NOTHING)),
        route(("POST", "/jobs/{task_id}/claim"), worker, json!({}), (201, NEXT_TO_NOTHING)),
        route(("POST", "/jobs/{task_id}/unclaim"), worker, json!({}), (200, NEXT_TO_NOTHING)),
        route(("POST", "/jobs/{task_id}/submit"), worker, json!({ "content": 1 }), (202, None)),
        route(("POST", "/jobs/{task_id}/cancel"), buyer, json!({}), (200, NEXT_TO_NOTHING)),
        route(("POST", "/jobs/{task_id}/refund"), buyer, json!({}), (200, NEXT_TO_NOTHING)),
        route(("POST", "/jobs/{task_id}/refund-excess"), buyer, json!({}), (200, NEXT_TO_NOTHING)),
        route(("POST", "/admin/jobs/{task_id}/retry-payout"), operator, json!({}), (200, NEXT_TO_NOTHING)),
        route(("POST", "/admin/ledger/deposits"), operator, deposit, (201, FEW_FIELDS)),
        route(("POST", "/admin/ledger/withdrawals"), operator, withdrawal, (201, FEW_FIELDS)),
        route(
            ("POST", "/admin/ledger/withdrawals/{withdrawal_id}/post"),
            operator,
            json!({}),
            (200, NEXT_TO_NOTHING),
        ),
        route(
            ("POST", "/admin/ledger/withdrawals/{withdrawal_id}/void"),
            operator,
            json!({}),
            (200, NEXT_TO_NOTHING),
        ),
        route(
            ("POST", "/admin/agents/{agent_id}/freeze"),
            operator,
            json!({ "reason": "Asked for." }),
            (200, FEW_FIELDS),
        ),
        route(("POST", "/admin/agents/{agent_id}/unfreeze"), operator, json!({}), (200, NEXT_TO_NOTHING)),
        route(
            ("POST", "/admin/ledger/reported-balance"),
            operator,
            json!({ "amount": "1" }),
            (201, FEW_FIELDS),
        ),
        route(("POST", "/admin/jobs/{task_id}/dispute/resolve"), operator, ruling, (200, FEW_FIELDS)),
    ];
    let things = [
        ("/jobs/{task_id}/refund-excess", overpaid.as_str()),
        ("/jobs/{task_id}/refund", refunded.as_str()),
        ("/jobs/{task_id}/retry-payout", unpaid.as_str()),
        ("{withdrawal_id}/post", &format!("{posted}/post")),
        ("{withdrawal_id}/void", &format!("{voided}/void")),
        ("/jobs/{task_id}/cancel", cancelled.as_str()),
        ("/jobs/{task_id}/unclaim", &left),
        ("/admin/jobs/{task_id}/dispute/resolve", disputed.as_str()),
        ("{agent_id}", &market.buyer.id),
        ("{bot_id}", &bot),
        ("{name}", "token"),
        ("{task_id}", &job),
    ];
    filled(routes, &things)
}

async fn of_accounts(host: &Host, market: &Market) -> Vec<Route> {
    let client = &market.client;
    let root = &host.first_admin().await.access;
    let org = client.who_is(root).await["org_id"].as_str().unwrap().to_owned();
    let email = "ada@example.test";
    let ada_id = client.make_user(root, (&org, "viewer"), email).await;
    let (ada, leaving) = (client.log_in(email).await, client.log_in(email).await);
    let agent = Market::register(client, "Agent").await;
    let key = client.who_is(&agent.key).await["key_id"].as_str().unwrap().to_owned();
    let text = "forbid (principal, action == Ringfence::Action::\"policies:read\", resource);";
    let policy = json!({ "name": "first", "text": text });
    let first = client.post("/admin/policies", root, &policy).await.expect(201);
    let login = json!({ "email": email, "password": PASSWORD });
    let refresh = json!({ "refresh_token": ada.refresh });
    let password = json!({ "current_password": PASSWORD, "new_password": "another long password" });
    let user = json!({ "email": "eve@example.test", "name": "Eve", "role": "viewer", "password": PASSWORD });
    let key_of_a_machine = json!({ "name": "a machine's", "role": "viewer" });
    let second = json!({ "name": "second", "text": text });
    let routes = vec![
        route(("POST", "/auth/login"), "", login, (200, FEW_FIELDS)),
        route(("POST", "/auth/refresh"), "", refresh, (200, FEW_FIELDS)),
        route(("POST", "/auth/logout"), &leaving.access, json!({}), (204, NEXT_TO_NOTHING)),
        route(("POST", "/auth/password"), &ada.access, password, (200, FEW_FIELDS)),
        route(("POST", "/admin/signing-keys"), root, json!({}), (204, NEXT_TO_NOTHING)),
        Route { given: &["role", "org_id"], ..route(("POST", "/users"), root, user, (201, FEW_FIELDS)) },
        Route {
            given: &["role"],
            ..route(("PATCH", "/users/{user_id}"), root, json!({ "name": "Ada L." }), (200, FEW_FIELDS))
        },
        Route {
            given: &["role", "scopes"],
            ..route(("POST", "/keys"), root, key_of_a_machine, (201, FEW_FIELDS))
        },
        route(
            ("PUT", "/admin/keys/{key_id}/limits"),
            root,
            json!({ "reads_per_minute": 9 }),
            (200, NEXT_TO_NOTHING),
        ),
        route(("POST", "/agents/{agent_id}/rotate-key"), &agent.key, json!({}), (200, NEXT_TO_NOTHING)),
        route(("POST", "/admin/policies"), root, second, (201, FEW_FIELDS)),
        route(
            ("PATCH", "/admin/policies/{policy_id}"),
            root,
            json!({ "description": "The first." }),
            (200, FEW_FIELDS),
        ),
    ];
    let things = [
        ("{agent_id}", agent.id.as_str()),
        ("{user_id}", &ada_id),
        ("{key_id}", &key),
        ("{policy_id}", first["policy_id"].as_str().unwrap()),
    ];
    filled(routes, &things)
}
