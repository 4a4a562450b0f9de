//! What it costs to find out who asks, to count the request and to ask the policies, per request with warm caches; beside
//! a whole call of a bot over HTTP, in the same run.
//!
//! Needs `scripts/build-guests.sh`; run with `cargo bench -p ringfence --bench access`.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark, with generated code"
)]

use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use ringfence_api::ApiConfig;
use ringfence_control::{
    Control, Counted, LimitGroup, Login, MasterKeys, NewAgent, NewPolicy, NewUser, Origin, RateLimits,
    Settings, StoredComponents,
};
use ringfence_model::{Role, SystemClock, SystemRng};
use ringfence_runtime::{Runtime, RuntimeConfig};
use ringfence_store::Store;
use serde_json::{Value, json};

const PASSWORD: &str = "a password of the benchmark";
const EMAIL: &str = "admin@example.org";

/// A host in this process: its use cases, its address, and what gets in.
struct Host {
    control: Control,
    base: String,
    agent_key: String,
    _folder: tempfile::TempDir,
}

async fn host() -> Host {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::connect(&format!("sqlite:{}", folder.path().join("bench.db").display()))
        .await
        .expect("a store");
    let runtime =
        Runtime::new(RuntimeConfig::default(), Arc::new(StoredComponents(store.clone()))).expect("a sandbox");
    let rng = SystemRng::new();
    let master = MasterKeys::parse(&MasterKeys::generate(&rng)).expect("a key");
    let a_lot = NonZeroU32::new(1_000_000).unwrap_or(NonZeroU32::MIN);
    let rate_limits = RateLimits {
        reads_per_minute: a_lot,
        writes_per_minute: a_lot,
        anonymous_per_minute: a_lot,
        logins_per_minute: a_lot,
    };
    let settings = Settings { rate_limits, ..Settings::default() };
    let (control, _) = Control::start(store, runtime, master, Arc::new(SystemClock), Arc::new(rng), settings)
        .await
        .expect("a host");
    let new = NewUser {
        email: EMAIL.to_owned(),
        name: "Admin".to_owned(),
        role: Role::Admin,
        password: Some(PASSWORD.to_owned().into()),
        password_hash: None,
        org_id: None,
    };
    control.create_user_by_command(new).await.expect("an admin");
    let new = NewAgent { name: "Agent".to_owned(), wallet_address: None };
    let agent = control.register_agent(None, &Origin::default(), new).await.expect("an agent");
    let listener = ringfence_api::listen(([127, 0, 0, 1], 0).into()).expect("a port");
    let base = format!("http://{}/api/v1", listener.local_addr().expect("an address"));
    tokio::spawn(ringfence_api::serve(
        listener,
        control.clone(),
        ApiConfig::default(),
        std::future::pending(),
    ));
    Host { control, base, agent_key: agent.api_key.reveal().to_owned(), _folder: folder }
}

impl Host {
    async fn admin_token(&self) -> String {
        let login = Login { email: EMAIL.to_owned(), password: PASSWORD.to_owned().into() };
        self.control.log_in(login, &Origin::default()).await.expect("tokens").access_token
    }

    /// What every request goes through before its own work.
    async fn admit(&self, credential: &str) {
        let origin = Origin { request_id: None, address: Some([127, 0, 0, 1].into()) };
        let caller = self.control.authenticate(credential, origin).await.expect("a caller");
        self.control.limit(Counted::Caller(&caller), LimitGroup::Reads).await.expect("within the limit");
        // The use case that does nothing but ask the policies.
        black_box(self.control.who_am_i(&caller).await.expect("permitted"));
    }

    /// Deploys the echo guest; the URL that calls it.
    async fn deploy(&self, client: &reqwest::Client) -> String {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/guests/echo.wasm");
        let wasm = std::fs::read(path).expect("run scripts/build-guests.sh");
        let upload =
            client.post(format!("{}/components", self.base)).header("content-type", "application/wasm");
        let component = self.send(upload.body(wasm)).await;
        let bot = json!({ "name": "echo", "component": component["digest"] });
        let bot = self.send(client.post(format!("{}/bots", self.base)).json(&bot)).await;
        format!("{}/bots/{}/invoke", self.base, bot["bot_id"].as_str().expect("a bot"))
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Value {
        let answer = request.bearer_auth(&self.agent_key).send().await.expect("an answer");
        let answer = answer.error_for_status().expect("it is done");
        answer.json().await.expect("JSON")
    }
}

/// The median of many single measurements.
async fn median(times: usize, mut measured: impl AsyncFnMut()) -> Duration {
    let mut all = Vec::with_capacity(times);
    for _ in 0..times {
        let begun = Instant::now();
        measured().await;
        all.push(begun.elapsed());
    }
    all.sort_unstable();
    all.get(times / 2).copied().unwrap_or_default()
}

#[expect(clippy::print_stdout, reason = "a benchmark says what it found")]
fn access(criterion: &mut Criterion) {
    let executor = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("an executor");
    let host = executor.block_on(host());
    let client = reqwest::Client::new();
    let call = executor.block_on(host.deploy(&client));
    let token = executor.block_on(host.admin_token());
    let mut group = criterion.benchmark_group("access");
    group.bench_function("key", |bench| {
        bench.to_async(&executor).iter(|| host.admit(&host.agent_key));
    });
    group.bench_function("token", |bench| {
        bench.to_async(&executor).iter(|| host.admit(&token));
    });
    let (key, jwt, whole) = executor.block_on(async {
        let body = json!({ "input": { "text": "hello" } });
        // In turns, so that what disturbs the machine disturbs all three.
        let (mut key, mut jwt, mut whole) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..20 {
            key.push(median(500, async || host.admit(&host.agent_key).await).await);
            jwt.push(median(500, async || host.admit(&token).await).await);
            whole.push(median(100, async || drop(host.send(client.post(&call).json(&body)).await)).await);
        }
        (middle(key), middle(jwt), middle(whole))
    });
    println!(
        "medians: by key {key:?}, by token {jwt:?}, a call of a bot over HTTP {whole:?}: {:.1} % and {:.1} % of it",
        share(key, whole),
        share(jwt, whole)
    );
    executor.block_on(many_policies(&host, &token));
    group.bench_function("key, 50 policies of operators", |bench| {
        bench.to_async(&executor).iter(|| host.admit(&host.agent_key));
    });
    group.finish();
}

/// Fifty policies that concern every action and forbid nothing.
async fn many_policies(host: &Host, token: &str) {
    let admin = host.control.authenticate(token, Origin::default()).await.expect("the admin");
    for number in 0..50 {
        let text = format!("forbid (principal, action, resource) when {{ context.time == {number} }};");
        let new = NewPolicy { name: format!("policy-{number}"), description: String::new(), text };
        host.control.create_policy(&admin, new).await.expect("a policy");
    }
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn share(part: Duration, whole: Duration) -> f64 {
    100.0 * part.as_secs_f64() / whole.as_secs_f64()
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(5)).sample_size(50);
    targets = access
}
criterion_main!(benches);
