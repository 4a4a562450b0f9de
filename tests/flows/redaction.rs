//! What clients send does not reach the log.

use reqwest::Method;
use ringfence_testkit::{Agent, Engine, Host, HostOptions, Market, PASSWORD, send};
use serde_json::{Value, json};

use crate::host_with;

const WALLET: &str = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318";
const WRONG_KEY: &str = "rf_live_0000000000000000000000000000000000000000";
const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZ2VudCJ9.dozjgNryP4J3jVmNHl0w5N";

/// None of these may be found.
const SENTINELS: &[&str] = &[
    "127.0.0.1",
    "203.0.113",
    "2001:db8",
    "sesame",
    "4c0883a6",
    "0000000000000000000000000000000000000000",
    "eyJ",
    "dozjgNryP4J3",
];

fn options(format: &str, redacted: &str) -> HostOptions {
    let env =
        [("RINGFENCE_LOG", "trace"), ("RINGFENCE_LOG_FORMAT", format), ("DEBUG_REDACTED_MODE", redacted)];
    HostOptions {
        env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..HostOptions::default()
    }
}

/// Puts secrets and addresses wherever a client can put something.
async fn plant(host: &Host, key: &str) {
    let client = host.client();
    for path in [
        format!("/agents/{key}"),
        format!("/jobs/{WRONG_KEY}"),
        format!("/jobs/0x{WALLET}"),
        format!("/bots/{WALLET}/invoke"),
        format!("/jobs/{JWT}?token={JWT}"),
        "/agents/password=open-sesame".to_owned(),
        "/agents/%22password%22:%22open-sesame%22".to_owned(),
        "/agents/postgres://ada:sesame@203.0.113.77/x".to_owned(),
        "/agents/2001:db8::1234/Bearer%20sesame".to_owned(),
        format!("/ledger/balance?password=sesame&api_key={key}&url=https://ada:sesame@203.0.113.77/"),
    ] {
        let request = client.request(Method::GET, &path, key).header("x-request-id", "2001:db8::1234");
        let _ = send(request).await;
    }
    for bearer in [WRONG_KEY, JWT, WALLET, "sesame"] {
        let body = json!({
            "name": "Eve",
            "password": "open sesame",
            "wallet_address": format!("0x{WALLET}"),
            "more": json!({ "token": JWT, "address": "203.0.113.77" }).to_string(),
        });
        for path in ["/agents", "/jobs", "/bots", "/admin/ledger/deposits"] {
            let request = client.request(Method::POST, path, bearer).json(&body);
            let request = request
                .header("x-forwarded-for", "203.0.113.77, 2001:db8::1234")
                .header("x-request-id", "203.0.113.77")
                .header("cookie", "session=sesame")
                .header("referer", "https://ada:sesame@203.0.113.77/")
                .header("idempotency-key", "sesame");
            let _ = send(request).await;
        }
    }
}

/// The whole main job, with a secret as its content.
async fn job_done(market: &Market) {
    let job = market.funded(json!({ "input": { "password": "open sesame", "peer": "203.0.113.77" } })).await;
    market.claim(&market.worker, &job).await;
    let content = json!({ "private_key": format!("0x{WALLET}") });
    let submission = market.submit(&market.worker, &job, &content).await;
    assert_eq!(market.verdict(&market.worker, &submission).await["status"], "passed");
}

/// Logs in, rightly and wrongly, exchanges tokens, makes a key and a user; what of it must not be found.
async fn use_accounts(host: &Host) -> Vec<String> {
    let client = host.client();
    let tokens = host.first_admin().await;
    let wrong = json!({ "email": "root@operators.test", "password": "a wrong sesame" });
    assert_eq!(client.post("/auth/login", "", &wrong).await.status, 401);
    let refresh = client.post("/auth/refresh", "", &json!({ "refresh_token": tokens.refresh })).await;
    let again = client.post("/auth/refresh", "", &json!({ "refresh_token": tokens.refresh })).await;
    assert_eq!((refresh.status, again.status), (200, 401));
    let tokens = client.log_in("root@operators.test").await;
    let robot =
        client.post("/keys", &tokens.access, &json!({ "name": "robot", "role": "viewer" })).await.expect(201);
    let robot = robot["api_key"].as_str().unwrap().to_owned();
    let _ = client.get("/keys", &robot).await;
    let key = std::fs::read_to_string(host.folder().join("master.key")).unwrap();
    let master = key.lines().find(|line| !line.starts_with('#')).unwrap().to_owned();
    let signature = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    let mut secrets = vec![PASSWORD.to_owned(), master, robot[8..24].to_owned()];
    secrets.extend([&*tokens.access, &*tokens.refresh, refresh.text_at("/refresh_token")].map(signature));
    secrets
}

/// Sets a bot's secret, rightly and wrongly, and has the bot use it.
async fn use_a_bots_secret(host: &Host, market: &Market) {
    let (client, buyer) = (host.client(), &market.buyer);
    let bot = Market::deploy(&client, buyer, "gate", json!({ "grants": { "secrets": ["token"] } })).await;
    let path = format!("/bots/{bot}/secrets/token");
    for (value, status) in [
        (json!("the bot's own sesame"), 204),
        (json!(["the bot's own sesame"]), 422),
        (json!("the bot's own sesame".repeat(500)), 422),
    ] {
        assert_eq!(client.put(&path, &buyer.key, &json!({ "value": value })).await.status, status);
    }
    let input = json!({ "input": { "token": "the bot's own sesame" } });
    let call = client.post(&format!("/bots/{bot}/invoke"), &buyer.key, &input).await;
    assert_eq!(call.body["output"]["open"], true, "{}", call.text);
    let shown = [call.text, client.get(&format!("/bots/{bot}/secrets"), &buyer.key).await.text];
    assert!(shown.iter().all(|text| !text.contains("sesame")), "{shown:?}");
    assert_eq!(host.database().tables_with("own sesame").await, [""; 0]);
}

/// The log but for the line that says where the host listens.
fn log(host: &Host) -> String {
    let log = host.log();
    let (said, rest): (Vec<_>, Vec<_>) =
        log.lines().partition(|line| line.contains("ringfence is listening"));
    assert!(matches!(said.as_slice(), [line] if line.contains("http://127.0.0.1:")), "{said:?}");
    rest.join("\n")
}

async fn nothing_reaches_the_log(format: &str) -> String {
    let host = host_with(Engine::Sqlite, options(format, "true")).await;
    let market = Market::new(&host, "hostile/oracle-accept").await;
    job_done(&market).await;
    use_a_bots_secret(&host, &market).await;
    plant(&host, &market.buyer.key).await;
    let secrets = use_accounts(&host).await;
    let log = log(&host);
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret}");
    }
    let Agent { key, .. } = &market.buyer;
    let random = |key: &str| key.trim_start_matches("rf_live_").get(..8).unwrap().to_owned();
    let keys = [random(key), random(&market.worker.key), random(&market.operator)];
    for sentinel in SENTINELS.iter().copied().chain(keys.iter().map(String::as_str)) {
        assert!(!log.contains(sentinel), "{sentinel}");
    }
    for word in ["DEBUG", "finished processing request", "rf_live_[redacted]", "[address]", "/api/v1/jobs"] {
        assert!(log.contains(word), "{word}");
    }
    log
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_and_addresses_do_not_reach_the_log() {
    let log = nothing_reaches_the_log("human").await;
    assert!(log.lines().count() > 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_logged_as_json_stays_json() {
    let log = nothing_reaches_the_log("json").await;
    for line in log.lines() {
        let record: Value = serde_json::from_str(line).expect(line);
        assert!(record["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
    }
}

/// What the others look for is logged but for the filter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_filter_a_warning_is_logged() {
    let host = host_with(Engine::Sqlite, options("human", "false")).await;
    plant(&host, WRONG_KEY).await;
    let log = log(&host);
    assert!(log.contains("WARN") && log.contains("DEBUG_REDACTED_MODE IS OFF"), "{log}");
    for sentinel in ["203.0.113.77", "2001:db8::1234", "sesame", WALLET, WRONG_KEY, JWT] {
        assert!(log.contains(sentinel), "{sentinel}");
    }
}
