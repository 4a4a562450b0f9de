//! Starts and upgrades: code that is there is not made again, and what a new engine lacks is compiled ahead of the calls.
//! Another engine's code is this one's under another engine's name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringfence_testkit::{Engine, Host, Market, guest, on_both_engines};
use serde_json::json;

use crate::host;

on_both_engines!(
    a_restart_compiles_nothing,
    precompiled_beside_an_older_host,
    a_new_engine_compiles_in_the_background
);

const BOTS: [&str; 3] = ["echo", "notes", "orders-report"];

/// How often a compiler has answered, by the log.
fn compilations(host: &Host) -> usize {
    host.log().matches("compiled a component").count()
}

fn code(host: &Host) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(host.folder().join("compiled")).unwrap().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "cwasm"))
        .collect()
}

fn by_another_engine(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap().to_str().unwrap();
    path.with_file_name(format!("{}-0123456789abcdef.cwasm", name.split_once('-').unwrap().0))
}

fn as_if_by_another_engine(host: &Host) -> BTreeSet<PathBuf> {
    let own = code(host);
    own.iter().for_each(|path| std::fs::rename(path, by_another_engine(path)).unwrap());
    own
}

async fn deployed(host: &Host, market: &Market) -> Vec<String> {
    let mut bots = Vec::new();
    for name in BOTS {
        let grants =
            if name == "notes" { json!({ "grants": { "kv": { "quota_bytes": 1000 } } }) } else { json!({}) };
        bots.push(Market::deploy(&host.client(), &market.worker, name, grants).await);
    }
    bots
}

/// Whatever they make of it: what counts is that they run.
async fn all_answer(host: &Host, market: &Market, bots: &[String]) {
    let client = host.client();
    for bot in bots {
        let path = format!("/bots/{bot}/invoke");
        let _ = client.post(&path, &market.worker.key, &json!({ "input": {} })).await.expect(200);
    }
}

async fn a_restart_compiles_nothing(engine: Engine) {
    let mut host = host(engine).await;
    let market = Market::new(&host, "hostile/oracle-accept").await;
    let bots = deployed(&host, &market).await;
    let before = compilations(&host);
    assert_eq!(before, 4);
    host.kill();
    host.restart().await;
    all_answer(&host, &market, &bots).await;
    let market = Market { client: host.client(), ..market };
    let job = market.funded(json!({})).await;
    market.claim(&market.worker, &job).await;
    let submission = market.submit(&market.worker, &job, &json!(1)).await;
    assert_eq!(market.verdict(&market.worker, &submission).await["status"], "passed");
    assert_eq!(compilations(&host), before, "{}", host.log());
}

async fn precompiled_beside_an_older_host(engine: Engine) {
    let mut host = host(engine).await;
    let market = Market::new(&host, "hostile/oracle-accept").await;
    let bots = deployed(&host, &market).await;
    // The oracle is another one by now than that which the job is pinned to.
    let job = market.funded(json!({})).await;
    let other = host.client().upload(&market.buyer.key, guest("orders-oracle")).await;
    let change = json!({ "component": other.text_at("/digest") });
    let _ = host
        .client()
        .patch(&format!("/bots/{}", market.oracle), &market.buyer.key, &change)
        .await
        .expect(200);
    // And one component is not deployed.
    let _ = host.client().upload(&market.buyer.key, guest("orders-report-naive")).await.expect(201);

    let own = as_if_by_another_engine(&host);
    assert_eq!(own.len(), 6);
    let done = host.command(&["precompile"], "");
    let (said, progress) = (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap());
    assert!(done.status.success(), "{progress}");
    assert_eq!(said, "5 compiled, 0 were there, 0 failed\n");
    assert!(progress.contains("1 of 5: sha256:") && progress.contains("5 of 5: sha256:"), "{progress}");
    let now = code(&host);
    assert_eq!(own.intersection(&now).count(), 5);
    assert!(own.iter().all(|path| now.contains(&by_another_engine(path))), "the older engine's code stays");
    let again = host.command(&["precompile"], "");
    assert_eq!(String::from_utf8(again.stdout).unwrap(), "0 compiled, 5 were there, 0 failed\n");

    all_answer(&host, &market, &bots).await;
    let before = compilations(&host);
    host.kill();
    host.restart().await;
    let market = Market { client: host.client(), ..market };
    all_answer(&host, &market, &bots).await;
    market.claim(&market.worker, &job).await;
    let submission = market.submit(&market.worker, &job, &json!(1)).await;
    assert_eq!(market.verdict(&market.worker, &submission).await["status"], "passed");
    assert_eq!(compilations(&host), before, "{}", host.log());
}

async fn a_new_engine_compiles_in_the_background(engine: Engine) {
    let mut host = host(engine).await;
    let market = Market::new(&host, "hostile/oracle-accept").await;
    let bots = deployed(&host, &market).await;
    host.kill();
    let own = as_if_by_another_engine(&host);
    host.restart().await;
    let begun = Instant::now();
    while !own.is_subset(&code(&host)) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", host.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let log = host.log();
    assert!(log.contains("has no code for this engine"), "{log}");
    all_answer(&host, &market, &bots).await;
    assert_eq!(compilations(&host), 2 * 4, "{}", host.log());
    assert!(own.iter().all(|path| by_another_engine(path).exists()), "the older engine's code stays");
}

#[test]
fn there_is_nothing_to_precompile_without_a_database() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ringfence"));
    command.arg("precompile").arg("--data-dir").arg(folder.path()).env_remove("DATABASE_URL");
    let refused = command.output().unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("cannot be opened"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is made");
}
