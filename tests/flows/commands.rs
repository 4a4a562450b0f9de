//! The program itself: how it starts, refuses to start, and stops.

use std::process::{Command, Output};

use ringfence_testkit::{Engine, HostOptions, Market, on_both_engines};
use serde_json::json;

use crate::{host, host_with};

on_both_engines!(it_stops_when_it_is_asked_to, a_lost_operator_key_is_replaced);

fn ringfence(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringfence")).args(args).env_remove("DATABASE_URL").output().unwrap()
}

async fn it_stops_when_it_is_asked_to(engine: Engine) {
    let mut host = host(engine).await;
    let market = Market::new(&host, "hostile/oracle-accept").await;
    let job = market.funded(json!({})).await;
    market.claim(&market.worker, &job).await;
    let submission = market.submit(&market.worker, &job, &json!(1)).await;
    assert!(Command::new("kill").arg(host.pid().to_string()).status().unwrap().success());
    assert!(host.wait().await, "it ends well");
    host.restart().await;
    let market = Market { client: host.client(), ..market };
    assert_eq!(
        market.verdict(&market.worker, &submission).await["status"],
        "passed",
        "before or after: once"
    );
    assert_eq!(market.balance(&market.worker.key).await, "8.000000");
}

async fn a_lost_operator_key_is_replaced(engine: Engine) {
    let host = host(engine).await;
    let made = host.command(&["operator-key"], "");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let key = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    assert_ne!(key, host.operator_key());
    let ada = Market::register(&host.client(), "Ada").await;
    for (key, reference) in [(key, "a"), (host.operator_key(), "b")] {
        let deposit = json!({ "agent_id": ada.id, "amount": "1", "external_reference": reference });
        let _ = host.client().post("/admin/ledger/deposits", &key, &deposit).await.expect(201);
    }
}

#[test]
fn what_is_for_development_is_refused_in_production() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    for (flag, name) in [("--dev-mode", "DEV_MODE"), ("--debug-redacted-mode=false", "DEBUG_REDACTED_MODE")] {
        let refused = ringfence(&["serve", "--data-dir", folder, flag, "--environment", "production"]);
        assert!(!refused.status.success());
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains(name) && said.contains("production"), "{said}");
    }
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0, "nothing is made");
}

#[test]
fn a_failed_start_does_not_show_the_password_of_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    // What cannot be read as a filter is quoted. The address is for the person at the terminal.
    let log = "info=postgres://ada:open-sesame@203.0.113.77/x";
    let refused = ringfence(&["serve", "--data-dir", folder, "--log", log]);
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("203.0.113.77") && !said.contains("sesame"), "{said}");
}

#[test]
fn what_cannot_work_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    for (args, hint) in [
        (vec!["--database-url", "mysql://x"], "`sqlite:` or `postgres:`"),
        (vec!["--database-url", "postgres://nobody@127.0.0.1:1/x"], "cannot be opened"),
        (vec!["--listen", "nowhere"], "--listen"),
        (vec!["--platform-fee-bps", "10001"], "--platform-fee-bps"),
    ] {
        let mut all = vec!["serve", "--data-dir", folder];
        all.extend(args);
        let refused = ringfence(&all);
        assert!(!refused.status.success());
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains(hint), "{all:?}: {said}");
    }
}

#[tokio::test]
async fn files_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let host = host_with(Engine::Sqlite, HostOptions::default()).await;
    let database = host.database().url().strip_prefix("sqlite:").unwrap().into();
    let files = ["operator.key", "master.key", "compiled"].map(|name| host.folder().join(name));
    for path in files.into_iter().chain([database]) {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
    }
}
