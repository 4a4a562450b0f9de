//! Long random histories of everything that moves money, against a small model of it. One after the other, where the model
//! says of each step whether it is taken and what everyone has afterwards; and eight at once, where the ledger has to hold at
//! every moment and in the end everything has come out of escrow.
//!
//! What failed is replayed with `RINGFENCE_TEST_SEED`, which a failure prints: the same steps; where there are eight at once,
//! not the same moments.

use std::time::{Duration, Instant};

use ringfence_model::{MicroUsdc, Rng as _, SeededRng, SystemRng};
use ringfence_testkit::{Agent, Client, Engine, Market, on_both_engines};
use serde_json::{Value, json};

use crate::{host, ledger_holds};

on_both_engines!(a_history_is_as_the_model_says, eight_histories_at_once_keep_the_ledger);

/// Steps of the history that is compared with the model.
const STEPS: usize = 150;
/// Drivers at once, and the steps of each.
const DRIVERS: u64 = 8;
const STEPS_AT_ONCE: usize = 40;
/// Attempts of a worker at a job, and of all workers.
const ATTEMPTS: u32 = 2;
const SUBMISSIONS: u32 = 4;
/// Faults of an oracle, one after the other, that lead to a dispute.
const FAULTS: u32 = 3;

/// Chance, and the seed that it comes from; says so if the test fails.
struct Chance {
    seed: u64,
    /// Whether this is the seed to replay with.
    told: bool,
    rng: SeededRng,
}

impl Chance {
    fn new() -> Self {
        let seed = std::env::var("RINGFENCE_TEST_SEED").ok().map(|seed| seed.parse().unwrap());
        let seed = seed.unwrap_or_else(|| {
            let mut bytes = [0; 4];
            SystemRng::new().fill(&mut bytes);
            u32::from_le_bytes(bytes).into()
        });
        Self { seed, told: true, rng: SeededRng::new(seed) }
    }

    fn of(seed: u64) -> Self {
        Self { seed, told: false, rng: SeededRng::new(seed) }
    }

    /// A number below `bound`.
    fn below(&self, bound: usize) -> usize {
        let mut bytes = [0; 8];
        self.rng.fill(&mut bytes);
        usize::try_from(u64::from_le_bytes(bytes) % bound as u64).unwrap()
    }
}

impl Drop for Chance {
    fn drop(&mut self) {
        if self.told && std::thread::panicking() {
            #[allow(clippy::print_stderr, reason = "what a failed test shows")]
            {
                eprintln!("replay with RINGFENCE_TEST_SEED={}", self.seed);
            }
        }
    }
}

fn usdc(micros: i64) -> String {
    MicroUsdc::from_micros(micros).unwrap().to_string()
}

/// What the oracle will say of a submission: it believes what it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Pass,
    Fail,
    Fault,
}

impl Told {
    fn content(self) -> Value {
        match self {
            Self::Pass => json!({ "score": 90, "passed": true }),
            Self::Fail => json!({ "score": 10, "passed": false }),
            Self::Fault => json!("neither"),
        }
    }
}

/// One agent as the model sees it.
struct Party {
    agent: Agent,
    available: i64,
    frozen: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    Open,
    Funded,
    Disputed,
    Unpaid,
    Ended,
}

/// One worker's part in a job.
#[derive(Clone, Default)]
struct Part {
    claimed: bool,
    counted: u32,
    faulted: u32,
}

struct Job {
    id: String,
    buyer: usize,
    price: i64,
    fee_bps: i64,
    stands: Stands,
    excess: i64,
    parts: Vec<Part>,
    faults_in_a_row: u32,
    winner: usize,
}

impl Job {
    fn fee(&self) -> i64 {
        self.price * self.fee_bps / 10_000
    }
}

struct Withdrawal {
    id: String,
    party: usize,
    amount: i64,
}

/// The market, as it should be.
struct Model {
    client: Client,
    operator: String,
    oracles: Vec<String>,
    parties: Vec<Party>,
    jobs: Vec<Job>,
    withdrawals: Vec<Withdrawal>,
    fees: i64,
    booked: usize,
}

/// The first two are buyers, the rest are workers.
const BUYERS: usize = 2;
const PARTIES: usize = 5;

impl Model {
    async fn new(market: &Market) -> Self {
        let client = market.client.clone();
        let (mut parties, mut oracles) = (Vec::new(), Vec::new());
        for number in 0..PARTIES {
            let agent = Market::register(&client, &format!("Agent {number}")).await;
            if number < BUYERS {
                oracles.push(Market::deploy(&client, &agent, "hostile/oracle-obey", json!({})).await);
            }
            parties.push(Party { agent, available: 0, frozen: false });
        }
        let operator = market.operator.clone();
        let (jobs, withdrawals) = (Vec::new(), Vec::new());
        Self { client, operator, oracles, parties, jobs, withdrawals, fees: 0, booked: 0 }
    }

    async fn ask(&self, path: &str, key: &str, body: &Value) -> (bool, Value) {
        let answer = self.client.post(path, key, body).await;
        assert!(answer.status < 500, "{path} {body}: {}", answer.text);
        (answer.status < 300, answer.body)
    }

    fn key(&self, party: usize) -> &str {
        &self.parties[party].agent.key
    }

    /// One step, chosen by chance; what was done, for the message of a failure.
    async fn step(&mut self, chance: &Chance) -> String {
        let (party, job) =
            (chance.below(PARTIES), self.jobs.len().checked_sub(1).map(|_| chance.below(self.jobs.len())));
        let amount = 1 + i64::try_from(chance.below(20_000_000)).unwrap();
        match (chance.below(16), job) {
            (0, _) => self.deposit(party, amount).await,
            (1 | 2, _) | (_, None) => self.post(party % BUYERS, 1 + amount / 4, chance).await,
            (3 | 4, Some(job)) => self.fund(job, if chance.below(3) == 0 { amount / 2 } else { 0 }).await,
            (5 | 6, Some(job)) => self.claim(job, party).await,
            (7, Some(job)) => self.unclaim(job, party).await,
            (8..=11, Some(job)) => {
                let told = [Told::Pass, Told::Fail, Told::Fault, Told::Fault][chance.below(4)];
                self.submit(job, party, told).await
            }
            (12, Some(job)) if chance.below(3) == 0 => self.cancel(job).await,
            (12, Some(job)) => self.excess(job).await,
            (13, _) => self.withdraw(party, amount / 2, chance.below(2) == 0).await,
            (14, _) => self.freeze(party).await,
            (_, Some(job)) => self.mend(job, chance.below(2) == 0).await,
        }
    }

    async fn deposit(&mut self, party: usize, amount: i64) -> String {
        self.booked += 1;
        let body = json!({ "agent_id": self.parties[party].agent.id, "amount": usdc(amount), "external_reference": format!("in {}", self.booked) });
        let (taken, answer) = self.ask("/admin/ledger/deposits", &self.operator, &body).await;
        assert!(taken, "{answer}");
        self.parties[party].available += amount;
        format!("deposit {} for {party}", usdc(amount))
    }

    async fn post(&mut self, buyer: usize, price: i64, chance: &Chance) -> String {
        let fee_bps = [0_i64, 1, 333, 2000, 10_000][chance.below(5)];
        let body = json!({ "title": "A job", "rubric": "Anything goes.", "price": usdc(price), "artifact_type": "json",
            "oracle": self.oracles[buyer], "fee_bps": fee_bps, "max_retries": ATTEMPTS - 1, "max_submissions": SUBMISSIONS });
        let (taken, answer) = self.ask("/jobs", self.key(buyer), &body).await;
        assert!(taken, "{answer}");
        let id = answer["task_id"].as_str().unwrap().to_owned();
        let parts = vec![Part::default(); PARTIES];
        let stands = Stands::Open;
        self.jobs.push(Job {
            id,
            buyer,
            price,
            fee_bps,
            stands,
            excess: 0,
            parts,
            faults_in_a_row: 0,
            winner: 0,
        });
        format!("{buyer} posts a job for {}", usdc(price))
    }

    async fn fund(&mut self, job: usize, excess: i64) -> String {
        let it = &self.jobs[job];
        let (buyer, amount) = (it.buyer, it.price + excess);
        let expected = it.stands == Stands::Open
            && !self.parties[buyer].frozen
            && self.parties[buyer].available >= amount;
        let body = json!({ "amount": usdc(amount) });
        let (taken, answer) = self.ask(&format!("/jobs/{}/fund", it.id), self.key(buyer), &body).await;
        assert_eq!(taken, expected, "{answer}");
        if taken {
            self.parties[buyer].available -= amount;
            (self.jobs[job].stands, self.jobs[job].excess) = (Stands::Funded, excess);
        }
        format!("job {job} is funded with {}: {taken}", usdc(amount))
    }

    async fn claim(&mut self, job: usize, party: usize) -> String {
        let it = &self.jobs[job];
        let expected = it.stands == Stands::Funded && it.buyer != party && !it.parts[party].claimed;
        let (taken, answer) = self.ask(&format!("/jobs/{}/claim", it.id), self.key(party), &json!({})).await;
        assert_eq!(taken, expected, "{answer}");
        self.jobs[job].parts[party].claimed |= taken;
        format!("{party} claims job {job}: {taken}")
    }

    async fn unclaim(&mut self, job: usize, party: usize) -> String {
        let it = &self.jobs[job];
        if it.stands == Stands::Disputed {
            return "nothing".to_owned();
        }
        let expected = it.stands == Stands::Funded && it.parts[party].claimed;
        let (taken, answer) =
            self.ask(&format!("/jobs/{}/unclaim", it.id), self.key(party), &json!({})).await;
        assert_eq!(taken, expected, "{answer}");
        self.jobs[job].parts[party].claimed &= !taken;
        format!("{party} gives job {job} back: {taken}")
    }

    async fn submit(&mut self, job: usize, party: usize, told: Told) -> String {
        let it = &self.jobs[job];
        let part = &it.parts[party];
        let counted: u32 = it.parts.iter().map(|part| part.counted).sum();
        let room = part.counted < ATTEMPTS && counted < SUBMISSIONS && part.faulted < 10;
        let expected = it.stands == Stands::Funded && part.claimed && room;
        let body = json!({ "content": told.content() });
        let (taken, answer) = self.ask(&format!("/jobs/{}/submit", it.id), self.key(party), &body).await;
        assert_eq!(taken, expected, "{answer}");
        if taken {
            let submission = answer["submission_id"].as_str().unwrap().to_owned();
            self.judged(party, &submission, told).await;
            self.verdict(job, party, told);
        }
        format!("{party} submits {told:?} to job {job}: {taken}")
    }

    async fn judged(&self, party: usize, submission: &str, told: Told) {
        let begun = Instant::now();
        loop {
            let answer =
                self.client.get(&format!("/submissions/{submission}"), self.key(party)).await.expect(200);
            match answer["status"].as_str() {
                Some("judging") => {}
                Some("passed") => return assert_eq!(told, Told::Pass, "{answer}"),
                Some("failed") => {
                    return assert_eq!(told == Told::Fault, !answer["oracle_fault"].is_null(), "{answer}");
                }
                _ => panic!("{answer}"),
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "no verdict: {answer}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn verdict(&mut self, job: usize, party: usize, told: Told) {
        let it = &mut self.jobs[job];
        match told {
            Told::Fault => {
                it.parts[party].faulted += 1;
                it.faults_in_a_row += 1;
                if it.faults_in_a_row == FAULTS {
                    it.stands = Stands::Disputed;
                }
            }
            Told::Fail => {
                it.parts[party].counted += 1;
                it.faults_in_a_row = 0;
            }
            Told::Pass => {
                it.winner = party;
                self.parties[it.buyer].available += std::mem::take(&mut it.excess);
                it.stands = Stands::Unpaid;
                // Without a payout there is nothing that a frozen account could keep out.
                if !self.parties[party].frozen || it.fee() == it.price {
                    self.paid(job);
                }
            }
        }
    }

    fn paid(&mut self, job: usize) {
        let it = &mut self.jobs[job];
        it.stands = Stands::Ended;
        self.parties[it.winner].available += it.price - it.fee();
        self.fees += it.fee();
    }

    /// The escrow goes back to the buyer.
    fn given_back(&mut self, job: usize) {
        let it = &mut self.jobs[job];
        if it.stands != Stands::Open {
            self.parties[it.buyer].available += it.price + std::mem::take(&mut it.excess);
        }
        it.stands = Stands::Ended;
    }

    async fn cancel(&mut self, job: usize) -> String {
        let it = &self.jobs[job];
        let expected = matches!(it.stands, Stands::Open | Stands::Funded);
        let (taken, answer) =
            self.ask(&format!("/jobs/{}/cancel", it.id), self.key(it.buyer), &json!({})).await;
        assert_eq!(taken, expected, "{answer}");
        if taken {
            self.given_back(job);
        }
        format!("job {job} is cancelled: {taken}")
    }

    async fn excess(&mut self, job: usize) -> String {
        let it = &self.jobs[job];
        if it.stands == Stands::Disputed {
            return "nothing".to_owned();
        }
        let expected = it.stands == Stands::Funded && it.excess > 0;
        let (taken, answer) =
            self.ask(&format!("/jobs/{}/refund-excess", it.id), self.key(it.buyer), &json!({})).await;
        assert_eq!(taken, expected, "{answer}");
        if taken {
            let it = &mut self.jobs[job];
            self.parties[it.buyer].available += std::mem::take(&mut it.excess);
        }
        format!("the excess of job {job} is given back: {taken}")
    }

    async fn withdraw(&mut self, party: usize, amount: i64, end: bool) -> String {
        if let (true, Some(withdrawal)) = (end, self.withdrawals.pop()) {
            let post = !self.parties[withdrawal.party].frozen;
            let path =
                format!("/admin/ledger/withdrawals/{}/{}", withdrawal.id, if post { "post" } else { "void" });
            let (taken, answer) = self.ask(&path, &self.operator, &json!({})).await;
            assert!(taken, "{answer}");
            if !post {
                self.parties[withdrawal.party].available += withdrawal.amount;
            }
            return format!("a withdrawal of {} is ended: left {post}", withdrawal.party);
        }
        let amount = amount.max(1);
        self.booked += 1;
        let it = &self.parties[party];
        let expected = !it.frozen && it.available >= amount;
        let body = json!({ "agent_id": it.agent.id, "amount": usdc(amount), "external_reference": format!("out {}", self.booked) });
        let (taken, answer) = self.ask("/admin/ledger/withdrawals", &self.operator, &body).await;
        assert_eq!(taken, expected, "{answer}");
        if taken {
            let id = answer["withdrawal_id"].as_str().unwrap().to_owned();
            self.parties[party].available -= amount;
            self.withdrawals.push(Withdrawal { id, party, amount });
        }
        format!("{party} withdraws {}: {taken}", usdc(amount))
    }

    async fn freeze(&mut self, party: usize) -> String {
        let (what, body) = match self.parties[party].frozen {
            true => ("unfreeze", json!({})),
            false => ("freeze", json!({ "reason": "A test." })),
        };
        let path = format!("/admin/agents/{}/{what}", self.parties[party].agent.id);
        let (taken, answer) = self.ask(&path, &self.operator, &body).await;
        assert!(taken, "{answer}");
        self.parties[party].frozen = !self.parties[party].frozen;
        format!("{what} {party}")
    }

    /// What operators do about a job that does not end by itself.
    async fn mend(&mut self, job: usize, refund: bool) -> String {
        let it = &self.jobs[job];
        if it.stands == Stands::Disputed {
            let outcome = if refund { "refund" } else { "resume" };
            let body = json!({ "outcome": outcome, "reason": "A test." });
            let (taken, answer) =
                self.ask(&format!("/admin/jobs/{}/dispute/resolve", it.id), &self.operator, &body).await;
            assert!(taken, "{answer}");
            if refund {
                self.given_back(job);
            } else {
                (self.jobs[job].stands, self.jobs[job].faults_in_a_row) = (Stands::Funded, 0);
            }
            return format!("the dispute of job {job} ends: {outcome}");
        }
        let expected = it.stands == Stands::Unpaid && !self.parties[it.winner].frozen;
        let (taken, answer) =
            self.ask(&format!("/admin/jobs/{}/retry-payout", it.id), &self.operator, &json!({})).await;
        assert_eq!(taken, expected, "{answer}");
        if taken {
            self.paid(job);
        }
        format!("the payout of job {job} is tried again: {taken}")
    }

    /// Brings everything to its end.
    async fn end(&mut self) {
        for party in 0..PARTIES {
            if self.parties[party].frozen {
                let _ = self.freeze(party).await;
            }
        }
        while !self.withdrawals.is_empty() {
            let _ = self.withdraw(0, 1, true).await;
        }
        for job in 0..self.jobs.len() {
            match self.jobs[job].stands {
                Stands::Disputed | Stands::Unpaid => drop(self.mend(job, true).await),
                Stands::Open | Stands::Funded => drop(self.cancel(job).await),
                Stands::Ended => {}
            }
        }
    }

    /// That everyone has what the model says.
    async fn compare(&self, after: &str) {
        let available =
            async |key: &str| self.client.get("/ledger/balance", key).await.text_at("/available").to_owned();
        for (number, party) in self.parties.iter().enumerate() {
            assert_eq!(
                available(&party.agent.key).await,
                usdc(party.available),
                "of {number}, after: {after}"
            );
        }
        assert_eq!(available(&self.operator).await, usdc(self.fees), "the fees, after: {after}");
    }
}

async fn a_history_is_as_the_model_says(engine: Engine) {
    let chance = Chance::new();
    let host = host(engine).await;
    let market = Market::new(&host, "hostile/oracle-obey").await;
    let mut model = Model::new(&market).await;
    let mut history = Vec::new();
    for step in 0..STEPS {
        let done = model.step(&chance).await;
        history.push(done.clone());
        model.compare(&format!("{:#?}", history)).await;
        if step % 10 == 0 {
            ledger_holds(&host).await;
        }
    }
    model.end().await;
    model.compare("everything was ended").await;
    ledger_holds(&host).await;
}

/// One of several that act at once: it does not know what the others did, so that it is refused is no fault.
async fn drive(
    client: Client,
    operator: String,
    agents: Vec<Agent>,
    oracles: Vec<String>,
    seed: u64,
) -> Vec<String> {
    let chance = Chance::of(seed);
    let mut jobs: Vec<(String, usize)> = Vec::new();
    let ask = async |path: String, key: &str, body: Value| {
        let answer = client.post(&path, key, &body).await;
        assert!(answer.status < 500 || answer.status == 503, "{path} {body}: {}", answer.text);
        answer.body
    };
    for step in 0..STEPS_AT_ONCE {
        let (party, amount) = (chance.below(PARTIES), i64::try_from(1 + chance.below(5_000_000)).unwrap());
        let key = &agents[party].key;
        if jobs.is_empty() || chance.below(6) == 0 {
            let buyer = party % BUYERS;
            let body = json!({ "title": "A job", "rubric": "Anything goes.", "price": usdc(amount), "artifact_type": "json",
                "oracle": oracles[buyer], "max_retries": 20 });
            let job = ask("/jobs".to_owned(), &agents[buyer].key, body).await;
            // A database that is busy takes no job.
            jobs.extend(job["task_id"].as_str().map(|id| (id.to_owned(), buyer)));
            if jobs.is_empty() {
                continue;
            }
        }
        // Everybody's: the newest jobs on the market.
        let listed = client.get("/jobs?limit=10", key).await.expect(200);
        let listed = listed["jobs"].as_array().unwrap();
        let job = &listed[chance.below(listed.len())];
        let id = job["task_id"].as_str().unwrap();
        let buyer =
            agents.iter().find(|agent| job["buyer_id"] == agent.id.as_str()).map(|agent| agent.key.as_str());
        let buyer = buyer.unwrap_or(key);
        let told = [Told::Pass, Told::Fail, Told::Fault][chance.below(3)];
        let reference = format!("{seed}-{step}");
        let _ = match chance.below(13) {
            0..=2 => {
                ask(format!("/jobs/{id}/fund"), buyer, json!({ "amount": usdc(amount + 5_000_000) })).await
            }
            3 | 4 => ask(format!("/jobs/{id}/claim"), key, json!({})).await,
            5..=7 => ask(format!("/jobs/{id}/submit"), key, json!({ "content": told.content() })).await,
            8 => ask(format!("/jobs/{id}/cancel"), buyer, json!({})).await,
            9 => ask(format!("/jobs/{id}/refund-excess"), buyer, json!({})).await,
            10 => ask(format!("/jobs/{id}/unclaim"), key, json!({})).await,
            11 => {
                let what = if chance.below(2) == 0 { "freeze" } else { "unfreeze" };
                let body = if what == "freeze" { json!({ "reason": "A test." }) } else { json!({}) };
                ask(format!("/admin/agents/{}/{what}", agents[party].id), &operator, body).await
            }
            _ => {
                let body = json!({ "agent_id": agents[party].id, "amount": usdc(amount), "external_reference": reference });
                let made = ask("/admin/ledger/withdrawals".to_owned(), &operator, body).await;
                match made["withdrawal_id"].as_str() {
                    Some(id) => {
                        let end = if chance.below(2) == 0 { "post" } else { "void" };
                        ask(format!("/admin/ledger/withdrawals/{id}/{end}"), &operator, json!({})).await
                    }
                    None => made,
                }
            }
        };
    }
    jobs.into_iter().map(|(job, _)| job).collect()
}

async fn eight_histories_at_once_keep_the_ledger(engine: Engine) {
    let chance = Chance::new();
    let host = host(engine).await;
    let market = Market::new(&host, "hostile/oracle-obey").await;
    let mut model = Model::new(&market).await;
    for party in 0..PARTIES {
        let _ = model.deposit(party, 200_000_000).await;
    }
    let agents: Vec<Agent> = model.parties.iter().map(|party| party.agent.clone()).collect();
    let drivers = (0..DRIVERS).map(|driver| {
        let (client, operator) = (market.client.clone(), market.operator.clone());
        tokio::spawn(drive(
            client,
            operator,
            agents.clone(),
            model.oracles.clone(),
            chance.seed * 100 + driver,
        ))
    });
    let mut drivers = std::pin::pin!(futures::future::join_all(drivers.collect::<Vec<_>>()));
    // At every moment, not only at the end.
    let jobs: Vec<String> = loop {
        tokio::select! {
            ended = &mut drivers => break ended.into_iter().flat_map(Result::unwrap).collect(),
            () = tokio::time::sleep(Duration::from_millis(200)) => ledger_holds(&host).await,
        }
    };
    for agent in &agents {
        let _ = market
            .client
            .post(&format!("/admin/agents/{}/unfreeze", agent.id), &market.operator, &json!({}))
            .await;
    }
    for job in &jobs {
        let begun = Instant::now();
        loop {
            let found = market.client.get(&format!("/jobs/{job}"), &market.operator).await.expect(200);
            let buyer = agents.iter().find(|agent| found["buyer_id"] == agent.id.as_str()).unwrap();
            let (path, key, body) = match (found["status"].as_str(), found["escrow_status"].as_str()) {
                (_, Some("disputed")) => {
                    let body = json!({ "outcome": "refund", "reason": "A test." });
                    (format!("/admin/jobs/{job}/dispute/resolve"), &market.operator, body)
                }
                (Some("resolved"), _) if found["payout_status"] == "failed" => {
                    (format!("/admin/jobs/{job}/retry-payout"), &market.operator, json!({}))
                }
                (Some("open" | "funded"), _) => (format!("/jobs/{job}/cancel"), &buyer.key, json!({})),
                _ => break,
            };
            let answer = market.client.post(&path, key, &body).await;
            // What is judged just now cannot be cancelled.
            assert!(answer.status < 500, "{}", answer.text);
            assert!(begun.elapsed() < Duration::from_secs(60), "{job} does not end: {found}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    ledger_holds(&host).await;
}
