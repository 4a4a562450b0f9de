//! Two orgs and the operators with everyone who can call, and requests that succeed for those who may.

use std::sync::atomic::{AtomicU32, Ordering};

use reqwest::Method;
use ringfence_testkit::{Agent, Answer, Client, Host, Market, PASSWORD, guest, send};
use serde_json::{Value, json};

/// A hash of some password: making a user by it costs no time.
const HASH: &str = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

/// Someone who calls.
pub(super) struct Caller {
    pub(super) name: &'static str,
    /// A key or a token; nothing for nobody.
    pub(super) credential: String,
    /// What it can name as its own.
    pub(super) who: Who,
}

pub(super) enum Who {
    User { email: &'static str },
    Agent { id: String, oracle: String },
    Key,
}

pub(super) struct World {
    /// The agents `g` of both orgs: A's is the buyer, B's is the worker.
    pub(super) market: Market,
    pub(super) client: Client,
    /// The token of the operators' admin.
    pub(super) root: String,
    pub(super) org_a: String,
    pub(super) org_b: String,
    pub(super) operators: String,
    pub(super) callers: Vec<Caller>,
    things: Things,
}

/// What is there from the beginning, of org A or of the operators, by its parameter's name.
struct Things {
    /// An oracle that fails to judge whatever it reads.
    faulty: String,
    bot_id: String,
    invocation_id: String,
    /// Of a component that no other org has.
    digest: String,
    /// Of a component that every org has.
    common: String,
    /// With an input, claimed by the worker.
    task_id: String,
    submission_id: String,
    key_id: String,
    user_id: String,
    policy_id: String,
}

/// What can be had once, such as a name.
fn fresh(what: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{}", NUMBER.fetch_add(1, Ordering::SeqCst))
}

fn new_user(org: &str) -> Value {
    let email = format!("{}@example.test", fresh("someone"));
    json!({ "email": email, "name": "Someone", "role": "viewer", "org_id": org, "password_hash": HASH })
}

fn new_policy() -> Value {
    let text =
        "forbid (principal, action, resource is Ringfence::Bot) when { resource.name == \"nobody's\" };";
    json!({ "name": fresh("policy"), "text": text })
}

/// Makes a job one that org A can pay for often.
fn cheap() -> Value {
    json!({ "price": "1", "input": [1, 2, 3] })
}

impl World {
    pub(super) async fn new(host: &Host) -> Self {
        let market = Market::new(host, "hostile/oracle-accept").await;
        market.deposit(&market.buyer, "900").await;
        let (client, root) = (host.client(), host.first_admin().await.access);
        let org_a = org_of(&client, &market.buyer.key).await;
        let org_b = org_of(&client, &market.worker.key).await;
        let operators = org_of(&client, &root).await;
        let things = Things::new(&market, &root, &org_a).await;
        let mut world = Self { market, client, root, org_a, org_b, operators, callers: Vec::new(), things };
        world.callers = world.everyone().await;
        world
    }

    /// The callers, in the order of the table's columns.
    async fn everyone(&self) -> Vec<Caller> {
        let (client, market) = (&self.client, &self.market);
        let admin_a = self.user("A's admin", &self.org_a, "admin-a@example.test").await;
        let admin_b = self.user("B's admin", &self.org_b, "admin-b@example.test").await;
        let second = client.post("/agents", &admin_a.credential, &json!({ "name": "Second" })).await;
        let second = Agent { id: second.text_at("/agent_id").into(), key: second.text_at("/api_key").into() };
        let bots = json!({ "name": "for bots", "role": "admin", "scopes": ["bots:read"] });
        let bots = client.post("/keys", &admin_a.credential, &bots).await.expect(201);
        let oracle_b = Market::deploy(client, &market.worker, "hostile/oracle-accept", json!({})).await;
        for key in [&market.worker.key, &self.root] {
            let _ = client.upload(key, guest("echo")).await.expect(201);
        }
        let root = Who::User { email: "root@operators.test" };
        vec![
            admin_a,
            self.user("A's operator", &self.org_a, "operator-a@example.test").await,
            self.user("A's user", &self.org_a, "user-a@example.test").await,
            self.user("A's viewer", &self.org_a, "viewer-a@example.test").await,
            agent("A's agent", &market.buyer, &market.oracle),
            agent("A's second agent", &second, &market.oracle),
            admin_b,
            agent("B's agent", &market.worker, &oracle_b),
            caller("the operators' admin", &self.root, root),
            caller("the operators' key", &market.operator, Who::Key),
            self.user("the operators' viewer", &self.operators, "viewer-o@example.test").await,
            caller("A's key for bots", bots["api_key"].as_str().unwrap(), Who::Key),
            caller("nobody", "", Who::Key),
        ]
    }

    /// A user who has logged in. Its address begins with its role.
    async fn user(&self, name: &'static str, org: &str, email: &'static str) -> Caller {
        let role = email.split('-').next().unwrap();
        self.client.make_user(&self.root, (org, role), email).await;
        caller(name, &self.client.log_in(email).await.access, Who::User { email })
    }

    /// The digest of a component that every org has and that needs no grant.
    pub(super) fn common_component(&self) -> &str {
        &self.things.common
    }

    /// Asks for an operation as a caller who may would ask.
    pub(super) async fn ask(&self, operation: &str, caller: &Caller) -> Answer {
        let (method, template) = operation.split_once(' ').unwrap();
        let mut path = template.to_owned();
        for part in template.split('{').skip(1) {
            let parameter = part.split('}').next().unwrap();
            path = path.replace(&format!("{{{parameter}}}"), &self.target(operation, parameter).await);
        }
        if path == "/health" {
            path = "//health".to_owned();
        }
        let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
        let request = self.client.request(method, &path, &self.credential(operation, caller).await);
        send(match self.body(operation, caller).await {
            _ if operation.starts_with("post /components") => {
                request.header("content-type", "application/wasm").body(guest("echo"))
            }
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    }

    /// The caller's, or one that may be used up.
    async fn credential(&self, operation: &str, caller: &Caller) -> String {
        match &caller.who {
            Who::User { email } if operation == "post /auth/logout" => self.client.log_in(email).await.access,
            _ => caller.credential.clone(),
        }
    }

    /// What a path names: something that is there, or something new where the operation uses it up.
    async fn target(&self, operation: &str, parameter: &str) -> String {
        let (market, things) = (&self.market, &self.things);
        match (operation, parameter) {
            // Of two changes at a time, one is refused.
            ("patch /bots/{bot_id}" | "delete /bots/{bot_id}", _) => new_bot(market).await,
            ("patch /jobs/{task_id}" | "post /jobs/{task_id}/fund" | "post /jobs/{task_id}/cancel", _) => {
                market.post(cheap()).await
            }
            ("post /jobs/{task_id}/claim", _) => market.funded(cheap()).await,
            ("post /jobs/{task_id}/unclaim" | "post /jobs/{task_id}/submit", _) => claimed_job(market).await,
            ("post /jobs/{task_id}/refund", _) => cancelled_job(market).await,
            ("post /jobs/{task_id}/refund-excess", _) => market.overpaid(cheap(), "2").await,
            ("post /admin/jobs/{task_id}/retry-payout", _) => unpaid_job(market).await,
            ("post /admin/agents/{agent_id}/freeze" | "post /admin/agents/{agent_id}/unfreeze", _) => {
                Market::register(&self.client, "Cold").await.id
            }
            (_, "withdrawal_id") => market.withdrawal(&market.buyer, "0.01").await,
            ("post /admin/jobs/{task_id}/dispute/resolve", _) => market.disputed(&things.faulty, "1").await,
            ("delete /keys/{key_id}", _) => new_key(market).await,
            ("delete /users/{user_id}", _) => {
                made(&self.client, "/users", &self.root, &new_user(&self.org_a), "/user_id").await
            }
            ("delete /admin/policies/{policy_id}", _) => {
                made(&self.client, "/admin/policies", &self.root, &new_policy(), "/policy_id").await
            }
            ("delete /bots/{bot_id}/secrets/{name}", "name") => {
                let name = fresh("secret");
                let path = format!("/bots/{}/secrets/{name}", things.bot_id);
                let set = self.client.put(&path, &market.buyer.key, &json!({ "value": "x" })).await;
                assert_eq!(set.status, 204, "{}", set.text);
                name
            }
            (_, "name") => "token".to_owned(),
            (_, "org_id") => self.org_a.clone(),
            (_, "agent_id") => market.buyer.id.clone(),
            (_, "bot_id") => things.bot_id.clone(),
            (_, "invocation_id") => things.invocation_id.clone(),
            (_, "digest") => things.digest.clone(),
            (_, "task_id") => things.task_id.clone(),
            (_, "submission_id") => things.submission_id.clone(),
            (_, "key_id") => things.key_id.clone(),
            (_, "user_id") => things.user_id.clone(),
            (_, "policy_id") => things.policy_id.clone(),
            _ => panic!("{operation}: {parameter} is a parameter that this test does not know"),
        }
    }

    async fn body(&self, operation: &str, caller: &Caller) -> Option<Value> {
        let market = &self.market;
        Some(match operation {
            "post /auth/login" => json!({ "email": "viewer-a@example.test", "password": PASSWORD }),
            "post /auth/refresh" => {
                json!({ "refresh_token": self.client.log_in("viewer-a@example.test").await.refresh })
            }
            "post /auth/password" => json!({ "current_password": PASSWORD, "new_password": PASSWORD }),
            "post /users" => {
                let mut user = new_user("");
                user.as_object_mut().unwrap().remove("org_id");
                user
            }
            "patch /users/{user_id}" => json!({ "name": "Somebody" }),
            "post /keys" => match &caller.who {
                Who::Agent { id, .. } => json!({ "name": "further", "agent_id": id }),
                _ => json!({ "name": "service", "role": "viewer" }),
            },
            "put /admin/keys/{key_id}/limits" => json!({ "writes_per_minute": 1_000_000 }),
            "post /agents" => json!({ "name": "Eve" }),
            "patch /agents/{agent_id}" => json!({ "name": "Buyer" }),
            // The key before goes on, for it is needed again.
            "post /agents/{agent_id}/rotate-key" => json!({ "grace_seconds": 86_400 }),
            "post /bots" => json!({ "name": fresh("bot"), "component": self.things.common }),
            "patch /bots/{bot_id}" => json!({ "description": "Changed." }),
            "put /bots/{bot_id}/secrets/{name}" => json!({ "value": "open sesame" }),
            "post /bots/{bot_id}/invoke" => json!({ "input": 1 }),
            "post /jobs" => match &caller.who {
                Who::Agent { oracle, .. } => market.job(json!({ "oracle": oracle })),
                _ => market.job(json!({})),
            },
            "patch /jobs/{task_id}" => json!({ "title": "Changed" }),
            "post /jobs/{task_id}/submit" => json!({ "content": 1 }),
            "post /admin/ledger/deposits" => {
                json!({ "agent_id": market.buyer.id, "amount": "1", "external_reference": fresh("reference") })
            }
            "post /admin/ledger/withdrawals" => {
                json!({ "agent_id": market.buyer.id, "amount": "0.01", "external_reference": fresh("reference") })
            }
            "post /admin/agents/{agent_id}/freeze" => json!({ "reason": "Asked for." }),
            "post /admin/ledger/reported-balance" => json!({ "amount": "1000" }),
            "post /admin/jobs/{task_id}/dispute/resolve" => {
                json!({ "outcome": "refund", "reason": "It is broken." })
            }
            "post /admin/policies" => new_policy(),
            "patch /admin/policies/{policy_id}" => json!({ "description": "Still harmless." }),
            _ => return None,
        })
    }
}

impl Things {
    async fn new(market: &Market, root: &str, org_a: &str) -> Self {
        let (client, buyer) = (&market.client, &market.buyer);
        let bot_id = Market::deploy(client, buyer, "echo", json!({})).await;
        let call = client.post(&format!("/bots/{bot_id}/invoke"), &buyer.key, &json!({ "input": 1 })).await;
        let common = client.upload(&buyer.key, guest("echo")).await;
        let digest = client.upload(&buyer.key, guest("hostile/trap")).await;
        let judged = claimed_job(market).await;
        let faulty = Market::deploy(client, buyer, "hostile/oracle-fault", json!({})).await;
        Self {
            faulty,
            bot_id,
            invocation_id: call.text_at("/invocation_id").to_owned(),
            digest: digest.text_at("/digest").to_owned(),
            common: common.text_at("/digest").to_owned(),
            task_id: claimed_job(market).await,
            submission_id: market.submit(&market.worker, &judged, &json!(1)).await,
            key_id: client.who_is(&buyer.key).await["key_id"].as_str().unwrap().to_owned(),
            user_id: made(client, "/users", root, &new_user(org_a), "/user_id").await,
            policy_id: made(client, "/admin/policies", root, &new_policy(), "/policy_id").await,
        }
    }
}

fn caller(name: &'static str, credential: &str, who: Who) -> Caller {
    Caller { name, credential: credential.to_owned(), who }
}

fn agent(name: &'static str, agent: &Agent, oracle: &str) -> Caller {
    caller(name, &agent.key, Who::Agent { id: agent.id.clone(), oracle: oracle.to_owned() })
}

async fn org_of(client: &Client, key: &str) -> String {
    client.who_is(key).await["org_id"].as_str().unwrap().to_owned()
}

async fn made(client: &Client, path: &str, key: &str, body: &Value, id: &str) -> String {
    let made = client.post(path, key, body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    made.text_at(id).to_owned()
}

async fn new_bot(market: &Market) -> String {
    let component = market.client.upload(&market.buyer.key, guest("echo")).await.expect(200);
    let bot = json!({ "name": fresh("bot"), "component": component["digest"] });
    made(&market.client, "/bots", &market.buyer.key, &bot, "/bot_id").await
}

async fn new_key(market: &Market) -> String {
    let key = json!({ "name": "further", "agent_id": market.buyer.id });
    made(&market.client, "/keys", &market.buyer.key, &key, "/key_id").await
}

async fn claimed_job(market: &Market) -> String {
    let job = market.funded(cheap()).await;
    market.claim(&market.worker, &job).await;
    job
}

async fn cancelled_job(market: &Market) -> String {
    let job = market.funded(cheap()).await;
    let _ = market.client.post_empty(&format!("/jobs/{job}/cancel"), &market.buyer.key).await.expect(200);
    job
}

/// A job whose payout has failed, and would not now.
async fn unpaid_job(market: &Market) -> String {
    let worker = Market::register(&market.client, "Cold").await;
    let job = market.unpaid(&worker, cheap()).await;
    market.unfreeze(&worker).await;
    job
}
