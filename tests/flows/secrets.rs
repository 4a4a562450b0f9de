//! The master key and what is sealed under it.

use std::process::Output;

use ringfence_testkit::{
    Client, Engine, Host, HostOptions, Market, PASSWORD, Tokens, expect_problem, on_both_engines,
};
use serde_json::json;

use crate::{host, host_with};

on_both_engines!(
    the_master_key_is_rotated,
    a_signing_key_is_rotated,
    a_wrong_master_key_is_named,
    a_key_from_the_environment,
    nothing_is_in_the_clear,
    a_bots_secret_is_sealed_in_its_place,
);

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn new_key() -> String {
    let program = env!("CARGO_BIN_EXE_ringfence");
    let made = std::process::Command::new(program).args(["keys", "generate"]).output().unwrap();
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

async fn is_in(client: &Client, tokens: &Tokens) -> bool {
    client.get("/auth/me", &tokens.access).await.status == 200
}

fn keys_in(host: &Host) -> Vec<String> {
    let text = std::fs::read_to_string(host.folder().join("master.key")).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

async fn the_master_key_is_rotated(engine: Engine) {
    let mut host = host(engine).await;
    let tokens = host.first_admin().await;
    let before = keys_in(&host);
    let rotated = host.command(&["keys", "rotate"], "");
    assert!(
        rotated.status.success() && said(&rotated).contains("2 secrets are sealed"),
        "{}",
        said(&rotated)
    );
    let after = keys_in(&host);
    assert_eq!((after.len(), &after[1..]), (2, &before[..]));
    // The host that runs goes on with what it has.
    assert!(is_in(&host.client(), &tokens).await);
    host.kill();
    host.restart().await;
    assert!(is_in(&host.client(), &tokens).await, "nobody is logged out");
    let dropped = host.command(&["keys", "rotate", "--forget-old"], "");
    assert!(dropped.status.success(), "{}", said(&dropped));
    assert_eq!(keys_in(&host), after[..1]);
    host.kill();
    host.restart().await;
    assert!(is_in(&host.client(), &tokens).await);
    assert!(host.command(&["audit", "verify"], "").status.success());
    // One rotation at a time.
    std::fs::write(host.folder().join("master.rotating"), "").unwrap();
    let second = host.command(&["keys", "rotate"], "");
    assert!(
        !second.status.success() && said(&second).contains("another rotation is running"),
        "{}",
        said(&second)
    );
    std::fs::remove_file(host.folder().join("master.rotating")).unwrap();
    assert_eq!(keys_in(&host).len(), 1);
}

async fn a_signing_key_is_rotated(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let old = host.first_admin().await;
    expect_problem(&client.post_empty("/admin/signing-keys", &host.operator_key()).await, 403, "forbidden");
    assert_eq!(client.post_empty("/admin/signing-keys", &old.access).await.status, 204);
    let new = client.log_in("root@operators.test").await;
    let header = |tokens: &Tokens| tokens.access.split('.').next().unwrap().to_owned();
    assert_ne!(header(&old), header(&new), "another kid");
    assert!(is_in(&client, &old).await && is_in(&client, &new).await);
    // Another host has not seen the new key yet, and learns of it by a token that names it.
    if engine == Engine::Postgres {
        let other = host.another().await;
        assert_eq!(client.post_empty("/admin/signing-keys", &old.access).await.status, 204);
        let newest = client.log_in("root@operators.test").await;
        assert!(is_in(&other.client(), &newest).await && is_in(&other.client(), &old).await);
    }
    let forget = client.post("/admin/signing-keys", &new.access, &json!({ "forget_old": true })).await;
    assert_eq!(forget.status, 204, "{}", forget.text);
    assert!(!is_in(&client, &old).await && !is_in(&client, &new).await);
    assert!(is_in(&client, &client.log_in("root@operators.test").await).await);
    let newest = client.log_in("root@operators.test").await;
    let by_command = host.command(&["keys", "rotate-signing"], "");
    assert!(by_command.status.success(), "{}", said(&by_command));
    assert!(is_in(&client, &newest).await);
    // A host that runs learns by itself that the keys are forgotten.
    let forgotten = host.command(&["keys", "rotate-signing", "--forget-old"], "");
    assert!(forgotten.status.success(), "{}", said(&forgotten));
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    assert!(!is_in(&client, &newest).await);
    let refresh = client.post("/auth/refresh", "", &json!({ "refresh_token": newest.refresh })).await;
    expect_problem(&refresh, 401, "invalid_refresh_token");
}

async fn a_wrong_master_key_is_named(engine: Engine) {
    let mut host = host(engine).await;
    host.kill();
    let file = host.folder().join("master.key");
    let right = std::fs::read_to_string(&file).unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    // None, where there must be one: it is not made anew.
    std::fs::remove_file(&file).unwrap();
    let refused = host.command(&serve, "");
    assert!(
        !refused.status.success() && said(&refused).contains("sealed under a master key"),
        "{}",
        said(&refused)
    );
    assert!(!file.exists());
    // Another one.
    let secret = new_key();
    std::fs::write(&file, &secret).unwrap();
    let refused = host.command(&serve, "");
    assert!(
        !refused.status.success() && said(&refused).contains("which this host does not have"),
        "{}",
        said(&refused)
    );
    assert!(!said(&refused).contains(&secret));
    for (text, problem) in [
        ("changeme\n", "not 32 bytes"),
        ("", "no master key"),
        ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", "placeholder"),
    ] {
        std::fs::write(&file, text).unwrap();
        let refused = host.command(&serve, "");
        assert!(!refused.status.success() && said(&refused).contains(problem), "{text}: {}", said(&refused));
    }
    std::fs::write(&file, right).unwrap();
    host.restart().await;
}

async fn a_key_from_the_environment(engine: Engine) {
    let key = new_key();
    let options =
        HostOptions { env: vec![("RINGFENCE_MASTER_KEY".to_owned(), key)], ..HostOptions::default() };
    let host = host_with(engine, options).await;
    let tokens = host.first_admin().await;
    assert!(is_in(&host.client(), &tokens).await && !host.folder().join("master.key").exists());
    let both = host.command(&["audit", "verify", "--master-key-file", "/nowhere"], "");
    assert!(!both.status.success() && said(&both).contains("give one of them"), "{}", said(&both));
}

/// Neither the keys that sign and chain, nor passwords, nor API keys stand in the database as they are.
async fn nothing_is_in_the_clear(engine: Engine) {
    let host = host(engine).await;
    let tokens = host.first_admin().await;
    let store = ringfence_store::Store::connect(host.database().url()).await.unwrap();
    let secrets = ringfence_store::secrets::page(&mut store.reader().await.unwrap(), "", 9).await.unwrap();
    assert_eq!(secrets.len(), 2);
    assert!(secrets.iter().all(|secret| secret.sealed.len() >= 80 && secret.master_key_id.len() == 12));
    let user = ringfence_store::users::by_email(&mut store.reader().await.unwrap(), "root@operators.test")
        .await
        .unwrap();
    assert!(!user.unwrap().password_hash.contains(PASSWORD));
    for shown in
        [format!("{secrets:?}"), format!("{:?}", host.client().get("/users", &tokens.access).await.text)]
    {
        assert!(!shown.contains(&secrets[0].sealed) && !shown.contains("$argon2"), "{shown}");
    }
}

/// It goes with the master key, and opens nowhere but where it was set.
async fn a_bots_secret_is_sealed_in_its_place(engine: Engine) {
    let mut host = host(engine).await;
    let ada = Market::register(&host.client(), "Ada").await;
    let grants = json!({ "grants": { "secrets": ["token", "other"] } });
    let bot = Market::deploy(&host.client(), &ada, "gate", grants.clone()).await;
    let mut second = grants;
    second["name"] = json!("second");
    let second = Market::deploy(&host.client(), &ada, "gate", second).await;
    let set = async |client: Client, name: &str, value: &str| {
        let path = format!("/bots/{bot}/secrets/{name}");
        let set = client.put(&path, &ada.key, &json!({ "value": value })).await;
        assert_eq!(set.status, 204, "{}", set.text);
    };
    let said = async |client: Client, bot: &str, token: &str| {
        let input = json!({ "input": { "token": token } });
        let call = client.post(&format!("/bots/{bot}/invoke"), &ada.key, &input).await.expect(200);
        call["output"]["open"]
            .as_bool()
            .map_or_else(|| call["failure_code"].to_string(), |open| open.to_string())
    };
    set(host.client(), "token", "the first sesame").await;
    set(host.client(), "other", "the other sesame").await;
    for value in ["the first sesame", "the other sesame", "sesame"] {
        assert_eq!(host.database().tables_with(value).await, [""; 0], "{value}");
    }
    assert_eq!(said(host.client(), &bot, "the first sesame").await, "true");

    for more in [&[][..], &["--forget-old"]] {
        let rotated = host.command(&[&["keys", "rotate"], more].concat(), "");
        assert!(rotated.status.success(), "{rotated:?}");
        host.kill();
        host.restart().await;
        assert_eq!(said(host.client(), &bot, "the first sesame").await, "true", "{more:?}");
    }

    let swap = format!(
        "UPDATE secrets SET sealed = (SELECT sealed FROM secrets WHERE id = '{bot}/other') WHERE id = '{bot}/token'"
    );
    assert_eq!(host.database().meddle(&swap).await, Ok(1));
    assert_eq!(said(host.client(), &bot, "the other sesame").await, "\"secret_unavailable\"");
    let moved = format!(
        "UPDATE secrets SET id = REPLACE(id, '{bot}', '{second}'), kind = REPLACE(kind, '{bot}', '{second}')
            WHERE id = '{bot}/other'"
    );
    assert_eq!(host.database().meddle(&moved).await, Ok(1));
    let other = json!({ "config": { "secret": "other" } });
    let _ = host.client().patch(&format!("/bots/{second}"), &ada.key, &other).await.expect(200);
    assert_eq!(said(host.client(), &second, "the other sesame").await, "\"secret_unavailable\"");
    let log = host.log();
    assert!(log.contains("bot's secret cannot be opened") && !log.contains("sesame"), "{log}");
    set(host.client(), "token", "the last sesame").await;
    assert_eq!(said(host.client(), &bot, "the last sesame").await, "true", "a new value mends it");
}
