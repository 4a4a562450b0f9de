use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{Client, Host, guest};

/// An agent and its key.
#[derive(Debug, Clone)]
pub struct Agent {
    /// `agent_…`
    pub id: String,
    /// `rf_live_…`
    pub key: String,
}

/// A host with a buyer who has an oracle and 100 USDC, and a worker.
pub struct Market {
    /// Speaks with the host.
    pub client: Client,
    /// The operator's key.
    pub operator: String,
    /// Posts and pays.
    pub buyer: Agent,
    /// Works.
    pub worker: Agent,
    /// The buyer's oracle.
    pub oracle: String,
}

impl Market {
    /// Sets it up, with the oracle of this guest.
    ///
    /// # Panics
    /// If a step is refused.
    pub async fn new(host: &Host, oracle: &str) -> Self {
        let (client, operator) = (host.client(), host.operator_key());
        let buyer = Self::register(&client, "Buyer").await;
        let worker = Self::register(&client, "Worker").await;
        let oracle_id = Self::deploy(&client, &buyer, oracle, json!({})).await;
        let market = Self { client, operator, buyer, worker, oracle: oracle_id };
        market.deposit(&market.buyer, "100").await;
        market
    }

    /// A new agent.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn register(client: &Client, name: &str) -> Agent {
        let agent = client.post("/agents", "", &json!({ "name": name })).await;
        assert_eq!(agent.status, 201, "{}", agent.text);
        Agent { id: agent.text_at("/agent_id").to_owned(), key: agent.text_at("/api_key").to_owned() }
    }

    /// Uploads and deploys a guest, with these grants, limits and configuration; its id.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn deploy(client: &Client, owner: &Agent, name: &str, more: Value) -> String {
        let component = client.upload(&owner.key, guest(name)).await;
        assert!(matches!(component.status, 200 | 201), "{}", component.text);
        let mut bot = json!({ "name": name.replace('/', "-"), "component": component.text_at("/digest") });
        bot.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let bot = client.post("/bots", &owner.key, &bot).await;
        assert_eq!(bot.status, 201, "{}", bot.text);
        bot.text_at("/bot_id").to_owned()
    }

    /// Books a deposit under a reference of its own.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn deposit(&self, agent: &Agent, amount: &str) {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let deposit = json!({ "agent_id": agent.id, "amount": amount, "external_reference": format!("ref-{}-{number}", agent.id) });
        let _ = self.client.post("/admin/ledger/deposits", &self.operator, &deposit).await.expect(201);
    }

    /// Reserves a withdrawal under a reference of its own; its id.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn withdrawal(&self, agent: &Agent, amount: &str) -> String {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let reference = format!("out-{}-{number}", agent.id);
        let new = json!({ "agent_id": agent.id, "amount": amount, "external_reference": reference });
        let made = self.client.post("/admin/ledger/withdrawals", &self.operator, &new).await;
        assert_eq!(made.status, 201, "{}", made.text);
        made.text_at("/withdrawal_id").to_owned()
    }

    /// What an agent has; the operator's is the platform's fees.
    ///
    /// # Panics
    /// If the host does not say.
    pub async fn balance(&self, key: &str) -> String {
        self.client.get("/ledger/balance", key).await.text_at("/available").to_owned()
    }

    /// A job as the tests want it: 10 USDC, judged by the market's oracle. `more` adds or replaces fields.
    #[must_use]
    pub fn job(&self, more: Value) -> Value {
        let mut job = json!({ "title": "A job", "rubric": "Anything goes.", "price": "10", "artifact_type": "json", "oracle": self.oracle });
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        job
    }

    /// Posts a job; its id.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn post(&self, more: Value) -> String {
        let job = self.client.post("/jobs", &self.buyer.key, &self.job(more)).await;
        assert_eq!(job.status, 201, "{}", job.text);
        job.text_at("/task_id").to_owned()
    }

    /// Posts and funds a job; its id.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn funded(&self, more: Value) -> String {
        let job = self.post(more).await;
        let _ = self.client.post_empty(&format!("/jobs/{job}/fund"), &self.buyer.key).await.expect(200);
        job
    }

    /// Posts a job and funds it with more than its price; its id.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn overpaid(&self, more: Value, amount: &str) -> String {
        let job = self.post(more).await;
        let funding = json!({ "amount": amount });
        let _ = self.client.post(&format!("/jobs/{job}/fund"), &self.buyer.key, &funding).await.expect(200);
        job
    }

    /// Freezes an agent's account.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn freeze(&self, agent: &Agent) {
        let path = format!("/admin/agents/{}/freeze", agent.id);
        let frozen =
            self.client.post(&path, &self.operator, &json!({ "reason": "a test" })).await.expect(200);
        assert_eq!(frozen["frozen"], true);
    }

    /// Lets an agent's account go again.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn unfreeze(&self, agent: &Agent) {
        let path = format!("/admin/agents/{}/unfreeze", agent.id);
        assert_eq!(self.client.post_empty(&path, &self.operator).await.expect(200)["frozen"], false);
    }

    /// A job that this worker has won while its account was frozen, as it is still: its payout has failed.
    ///
    /// # Panics
    /// If a step is refused.
    pub async fn unpaid(&self, worker: &Agent, more: Value) -> String {
        let job = self.funded(more).await;
        self.claim(worker, &job).await;
        self.freeze(worker).await;
        let submission = self.submit(worker, &job, &json!("work")).await;
        assert_eq!(self.verdict(worker, &submission).await["status"], "passed");
        job
    }

    /// Claims a job.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn claim(&self, worker: &Agent, job: &str) {
        let _ = self.client.post_empty(&format!("/jobs/{job}/claim"), &worker.key).await.expect(201);
    }

    /// Submits; the submission's id.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn submit(&self, worker: &Agent, job: &str, content: &Value) -> String {
        let submission = self
            .client
            .post(&format!("/jobs/{job}/submit"), &worker.key, &json!({ "content": content }))
            .await;
        assert_eq!(submission.status, 202, "{}", submission.text);
        submission.text_at("/submission_id").to_owned()
    }

    /// A job of this price that is disputed, because its oracle, which is this one, fails to judge whatever it reads.
    ///
    /// # Panics
    /// If it is not disputed in the end.
    pub async fn disputed(&self, oracle: &str, price: &str) -> String {
        let job = self.funded(json!({ "oracle": oracle, "price": price })).await;
        self.claim(&self.worker, &job).await;
        for attempt in 0..3 {
            let submission = self.submit(&self.worker, &job, &json!(attempt)).await;
            let _ = self.verdict(&self.worker, &submission).await;
        }
        let state = self.client.get(&format!("/jobs/{job}"), &self.buyer.key).await;
        assert_eq!(state.text_at("/escrow_status"), "disputed");
        job
    }

    /// Waits for the verdict; the submission as its worker sees it.
    ///
    /// # Panics
    /// If there is none within a minute.
    pub async fn verdict(&self, worker: &Agent, submission: &str) -> Value {
        let begun = Instant::now();
        loop {
            let answer =
                self.client.get(&format!("/submissions/{submission}"), &worker.key).await.expect(200);
            if answer["status"] != "judging" {
                return answer;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "no verdict within a minute: {answer}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
