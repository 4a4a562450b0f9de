//! kill −9 between any two statements of what moves money: asked again under the same `Idempotency-Key`, it is done once.

use ringfence_testkit::{Engine, Host, HostOptions, Market, on_both_engines};
use serde_json::{Value, json};

use crate::{host_with, ledger_holds};

on_both_engines!(
    g06_a_retry_with_a_crash_at_every_point_pays_once,
    g22_an_excess_with_a_crash_at_every_point_comes_back_once,
    m19_a_withdrawal_with_a_crash_at_every_point_leaves_once,
);

/// A host that crashes when a file says so.
struct Crashing {
    host: Host,
    market: Market,
    folder: tempfile::TempDir,
}

impl Crashing {
    async fn new(engine: Engine) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let env =
            vec![("RINGFENCE_CRASH_FILE".to_owned(), folder.path().join("crash").display().to_string())];
        let host = host_with(engine, HostOptions { env, ..HostOptions::default() }).await;
        let market = Market::new(&host, "hostile/oracle-accept").await;
        market.deposit(&market.buyer, "9900").await;
        Self { host, market, folder }
    }

    /// POSTs with a crash at the `point`th point, until it is answered; whether there was a crash.
    async fn post(&mut self, point: usize, path: &str, key: &str) -> (bool, Value) {
        let file = self.folder.path().join("crash");
        std::fs::write(&file, point.to_string()).unwrap();
        for _ in 0..2 {
            let request = self.market.client.request(reqwest::Method::POST, path, key);
            let request = request.header("idempotency-key", path).json(&json!({}));
            if let Ok(answer) = request.send().await {
                let status = answer.status().as_u16();
                let text = answer.text().await.unwrap_or_default();
                if status == 200 && serde_json::from_str::<Value>(&text).is_ok() {
                    let crashed = !file.exists();
                    let _ = std::fs::remove_file(&file);
                    return (crashed, serde_json::from_str(&text).unwrap());
                }
                assert_eq!(text, "", "cut off, not refused");
            }
            self.host.kill();
            self.host.restart().await;
            self.market.client = self.host.client();
        }
        panic!("{path} is not answered after a crash at point {point}");
    }
}

/// More crashes than there are points would be a mistake of the test.
const MANY: usize = 200;

async fn g06_a_retry_with_a_crash_at_every_point_pays_once(engine: Engine) {
    let mut crashing = Crashing::new(engine).await;
    let (worker, operator) = (crashing.market.worker.clone(), crashing.market.operator.clone());
    let mut paid = 0;
    for point in 1..MANY {
        let job = crashing.market.unpaid(&worker, json!({ "price": "1" })).await;
        crashing.market.unfreeze(&worker).await;
        let path = format!("/admin/jobs/{job}/retry-payout");
        let (crashed, job) = crashing.post(point, &path, &operator).await;
        assert_eq!(job["payout_status"], "success", "point {point}");
        paid += 1;
        if !crashed {
            break;
        }
    }
    assert!(paid > 10, "there are statements that no crash came before: {paid}");
    assert_eq!(crashing.market.balance(&worker.key).await, money(paid * 800_000));
    assert_eq!(crashing.market.balance(&operator).await, money(paid * 200_000));
    ledger_holds(&crashing.host).await;
}

async fn g22_an_excess_with_a_crash_at_every_point_comes_back_once(engine: Engine) {
    let mut crashing = Crashing::new(engine).await;
    let buyer = crashing.market.buyer.clone();
    let mut returned = 0;
    for point in 1..MANY {
        let job = crashing.market.overpaid(json!({ "price": "1" }), "3").await;
        let path = format!("/jobs/{job}/refund-excess");
        let (crashed, job) = crashing.post(point, &path, &buyer.key).await;
        assert_eq!(job["excess_refunded"], "2.000000", "point {point}");
        returned += 1;
        if !crashed {
            break;
        }
    }
    assert!(returned > 10, "there are statements that no crash came before: {returned}");
    assert_eq!(crashing.market.balance(&buyer.key).await, money(10_000_000_000 - returned * 1_000_000));
    ledger_holds(&crashing.host).await;
}

async fn m19_a_withdrawal_with_a_crash_at_every_point_leaves_once(engine: Engine) {
    let mut crashing = Crashing::new(engine).await;
    let (buyer, operator) = (crashing.market.buyer.clone(), crashing.market.operator.clone());
    let mut left = 0;
    for point in 1..MANY {
        let id = crashing.market.withdrawal(&buyer, "1").await;
        let path = format!("/admin/ledger/withdrawals/{id}/post");
        let (crashed, withdrawal) = crashing.post(point, &path, &operator).await;
        assert_eq!(withdrawal["status"], "posted", "point {point}");
        left += 1;
        if !crashed {
            break;
        }
    }
    assert!(left > 8, "there are statements that no crash came before: {left}");
    let balance = crashing.market.client.get("/ledger/balance", &buyer.key).await;
    assert_eq!(balance.text_at("/available"), money(10_000_000_000 - left * 1_000_000));
    assert_eq!(balance.text_at("/reserved"), "0.000000");
    ledger_holds(&crashing.host).await;
}

fn money(micros: i64) -> String {
    ringfence_model::MicroUsdc::from_micros(micros).unwrap().to_string()
}
