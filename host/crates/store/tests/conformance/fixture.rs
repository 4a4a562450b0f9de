use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringfence_model::*;
use ringfence_store::accounts::{self, Agent, Org};
use ringfence_store::bots::{self, Bot};
use ringfence_store::components::{self, Component, ComponentKind};
use ringfence_store::invocations::{Invocation, Usage};
use ringfence_store::jobs::{self, Job};
use ringfence_store::submissions::{self, Participant, Submission};
use ringfence_store::{Session, Store, Tx};
use ringfence_testkit::{Database, Engine};
use serde_json::json;
use sqlx::Connection as _;

/// A database with a buyer, a worker, an oracle and a bot.
pub(crate) struct Fixture {
    pub(crate) store: Store,
    pub(crate) database: Database,
    pub(crate) clock: ManualClock,
    pub(crate) rng: SeededRng,
    pub(crate) buyer: Agent,
    pub(crate) worker: Agent,
    pub(crate) oracle: Bot,
}

pub(crate) fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

impl Fixture {
    pub(crate) async fn new(engine: Engine) -> Self {
        static SEED: AtomicU64 = AtomicU64::new(1);
        let database = Database::new(engine).await;
        let store = Store::connect(database.url()).await.unwrap();
        let (clock, rng) = (ManualClock::new(start()), SeededRng::new(SEED.fetch_add(1, Ordering::SeqCst)));
        let mut tx = store.begin().await.unwrap();
        let buyer = agent(&mut tx, &clock, &rng, "Buyer").await;
        let worker = agent(&mut tx, &clock, &rng, "Worker").await;
        let component = component(&buyer.org_id, b"oracle", ComponentKind::Oracle);
        assert!(components::insert(&mut tx, &component, b"oracle").await.unwrap());
        let oracle = bot(&clock, &rng, &component, "oracle");
        bots::insert(&mut tx, &oracle).await.unwrap();
        tx.commit().await.unwrap();
        Self { store, database, clock, rng, buyer, worker, oracle }
    }

    pub(crate) async fn tx(&self) -> Tx {
        self.store.begin().await.unwrap()
    }

    pub(crate) async fn reader(&self) -> Session {
        self.store.reader().await.unwrap()
    }

    /// Does to the database what the store would never do.
    pub(crate) async fn meddle(&self, engine: Engine, sql: &'static str) {
        self.try_to_meddle(engine, sql).await.unwrap();
    }

    /// As [`Self::meddle`], where the database may refuse.
    pub(crate) async fn try_to_meddle(&self, engine: Engine, sql: &'static str) -> Result<(), sqlx::Error> {
        match engine {
            Engine::Postgres => {
                let mut connection = sqlx::PgConnection::connect(self.database.url()).await.unwrap();
                sqlx::query(sql).execute(&mut connection).await?;
            }
            Engine::Sqlite => {
                let mut connection = sqlx::SqliteConnection::connect(self.database.url()).await.unwrap();
                sqlx::query(sql).execute(&mut connection).await?;
            }
        }
        Ok(())
    }

    /// The operators' org, which the first start of a host makes.
    pub(crate) async fn platform(&self) -> OrgId {
        let org = Org { id: OrgId::platform(), name: "Platform".to_owned(), created_at: self.now() };
        let mut tx = self.tx().await;
        accounts::insert_org(&mut tx, &org).await.unwrap();
        tx.commit().await.unwrap();
        org.id
    }

    /// `count` hosts on the database: each with connections of its own on PostgreSQL. A file of SQLite has one host.
    pub(crate) async fn hosts(&self, engine: Engine, count: usize) -> Vec<Store> {
        let mut hosts = vec![self.store.clone()];
        while hosts.len() < count {
            hosts.push(match engine {
                Engine::Sqlite => self.store.clone(),
                Engine::Postgres => Store::connect(self.database.url()).await.unwrap(),
            });
        }
        hosts
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Lets a second pass, so that what comes next is later.
    pub(crate) fn tick(&self) {
        self.clock.advance(Duration::from_secs(1));
    }

    pub(crate) fn job(&self, price: i64) -> Job {
        Job {
            id: JobId::new(&self.clock, &self.rng),
            org_id: self.buyer.org_id.clone(),
            buyer_id: self.buyer.id.clone(),
            title: "A job".to_owned(),
            description: "…".to_owned(),
            rubric: "good".to_owned(),
            artifact_type: "json".to_owned(),
            price: MicroUsdc::from_micros(price).unwrap(),
            fee_bps: FeeBps::DEFAULT,
            expiry: self.now().plus(Duration::from_secs(3600)),
            max_submissions: 10,
            max_retries: 3,
            min_reputation: 0,
            visibility: Visibility::Public,
            min_score: 60,
            guard: Some(true),
            status: JobStatus::Open,
            oracle_bot_id: self.oracle.id.clone(),
            oracle_pin: None,
            input_digest: Some(Sha256::of(b"{}")),
            deposit_amount: None,
            escrow_status: None,
            excess_refunded: None,
            refunded_amount: None,
            winning_submission_id: None,
            worker_id: None,
            worker_org_id: None,
            payout_status: None,
            payout_error: None,
            created_at: self.now(),
            updated_at: self.now(),
            funded_at: None,
            ended_at: None,
        }
    }

    /// A funded job that the worker has claimed.
    pub(crate) async fn claimed_job(&self) -> Job {
        let job = self.job(10_000_000);
        let mut tx = self.tx().await;
        jobs::insert(&mut tx, &job, Some("{}")).await.unwrap();
        let pin = json!({ "bot": 1 });
        let funded = jobs::fund(&mut tx, &job.id, &pin, job.price, self.now()).await.unwrap();
        assert!(funded.is_some());
        assert!(submissions::claim(&mut tx, &self.participant(&job)).await.unwrap());
        tx.commit().await.unwrap();
        job
    }

    pub(crate) fn participant(&self, job: &Job) -> Participant {
        Participant {
            id: EventId::new(&self.clock, &self.rng).to_string(),
            job_id: job.id.clone(),
            worker_id: self.worker.id.clone(),
            org_id: self.worker.org_id.clone(),
            buyer_org_id: job.org_id.clone(),
            claimed_at: self.now(),
            unclaimed_at: None,
        }
    }

    pub(crate) fn submission(&self, job: &Job, attempt: u32) -> Submission {
        Submission {
            id: SubmissionId::new(&self.clock, &self.rng),
            job_id: job.id.clone(),
            org_id: self.worker.org_id.clone(),
            buyer_org_id: job.org_id.clone(),
            worker_id: self.worker.id.clone(),
            attempt,
            content: Some(r#"{"b": 2.50, "a": "ü"}"#.to_owned()),
            content_digest: Sha256::of(b"content"),
            status: SubmissionStatus::Judging,
            score: None,
            reason: None,
            steps: None,
            oracle_fault: None,
            invocation_id: None,
            created_at: self.now(),
            judged_at: None,
        }
    }

    /// A call of the oracle.
    pub(crate) fn call(&self) -> Invocation {
        Invocation {
            id: InvocationId::new(&self.clock, &self.rng),
            org_id: self.buyer.org_id.clone(),
            bot_id: self.oracle.id.clone(),
            bot_version: 3,
            component_digest: self.oracle.component_digest,
            submission_id: None,
            outcome: "completed".to_owned(),
            detail: None,
            input_digest: Sha256::of(b"in"),
            output_digest: Some(Sha256::of(b"out")),
            limits: r#"{"fuel":9}"#.into(),
            engine: "e".into(),
            usage: Usage {
                fuel: 1,
                peak_memory_bytes: 2,
                wall_us: 3,
                cpu_us: 4,
                host_calls: 5,
                log_bytes: 6,
                input_bytes: 7,
                output_bytes: 8,
                egress_sent_bytes: 9,
                egress_received_bytes: 10,
                llm_input_tokens: 11,
                llm_output_tokens: 12,
            },
            started_at: self.now(),
        }
    }
}

pub(crate) async fn agent(tx: &mut Tx, clock: &ManualClock, rng: &SeededRng, name: &str) -> Agent {
    let org = Org { id: OrgId::new(clock, rng), name: name.to_owned(), created_at: clock.now() };
    accounts::insert_org(tx, &org).await.unwrap();
    let agent = Agent {
        id: AgentId::new(clock, rng),
        org_id: org.id,
        name: name.to_owned(),
        wallet_address: Some("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed".parse().unwrap()),
        created_at: clock.now(),
        updated_at: clock.now(),
    };
    accounts::insert_agent(tx, &agent).await.unwrap();
    agent
}

pub(crate) fn component(org: &OrgId, wasm: &[u8], kind: ComponentKind) -> Component {
    Component {
        org_id: org.clone(),
        digest: Sha256::of(wasm),
        kind,
        size_bytes: wasm.len() as u64,
        imports: vec!["wasi:cli/exit@0.2.6".to_owned()],
        capabilities: vec!["kv".to_owned()],
        created_at: start(),
    }
}

pub(crate) fn bot(clock: &ManualClock, rng: &SeededRng, component: &Component, name: &str) -> Bot {
    Bot {
        id: BotId::new(clock, rng),
        org_id: component.org_id.clone(),
        name: name.to_owned(),
        description: "does it".to_owned(),
        kind: component.kind,
        version: 1,
        component_digest: component.digest,
        config: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        grants: json!({ "kv": { "quota_bytes": 10 } }),
        limits: json!({ "fuel": 1 }),
        log_keep_days: Some(7),
        log_min_level: Some("warn".to_owned()),
        status: BotStatus::Running,
        created_at: clock.now(),
        updated_at: clock.now(),
    }
}
