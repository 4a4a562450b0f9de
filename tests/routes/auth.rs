//! Logging in, staying logged in, logging out; and tokens that are not good.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ringfence_testkit::{Client, Engine, Host, HostOptions, PASSWORD, expect_problem, on_both_engines};
use serde_json::{Value, json};

use crate::{host, host_with};

on_both_engines!(
    a_user_logs_in_and_out,
    a_refresh_token_is_good_once,
    forged_tokens_are_refused,
    nothing_tells_whether_there_is_an_account,
    a_password_is_changed,
    what_was_hashed_elsewhere_is_taken_over,
    a_user_is_changed_at_once,
    an_org_keeps_an_admin,
    logins_are_limited,
);

async fn refresh(client: &Client, token: &str) -> ringfence_testkit::Answer {
    client.post("/auth/refresh", "", &json!({ "refresh_token": token })).await
}

async fn a_user_logs_in_and_out(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let tokens = host.first_admin().await;
    let me = client.get("/auth/me", &tokens.access).await.expect(200);
    assert_eq!((me["kind"].as_str(), me["role"].as_str()), (Some("user"), Some("admin")), "{me}");
    assert!(me.get("scopes").is_none() && me["session_id"].as_str().unwrap().starts_with("sess_"), "{me}");
    // The address in another spelling is the same address.
    let again = client.log_in(" Root@Operators.TEST ").await;

    assert_eq!(client.post_empty("/auth/logout", &tokens.access).await.status, 204);
    expect_problem(&client.get("/auth/me", &tokens.access).await, 401, "unauthorized");
    expect_problem(&refresh(&client, &tokens.refresh).await, 401, "invalid_refresh_token");
    let _ = client.get("/auth/me", &again.access).await.expect(200);

    let third = client.log_in("root@operators.test").await;
    let everywhere = client.post("/auth/logout", &again.access, &json!({ "everywhere": true })).await;
    assert_eq!(everywhere.status, 204);
    expect_problem(&client.get("/auth/me", &third.access).await, 401, "unauthorized");
    expect_problem(&client.post_empty("/auth/logout", &host.operator_key()).await, 403, "users_only");
}

async fn a_refresh_token_is_good_once(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let first = host.first_admin().await;
    let second = refresh(&client, &first.refresh).await;
    assert_eq!(second.status, 200, "{}", second.text);
    let (access, next) = (second.text_at("/access_token"), second.text_at("/refresh_token"));
    assert_ne!(next, first.refresh);
    let _ = client.get("/auth/me", access).await.expect(200);

    // Somebody else comes with the one that was exchanged: the family ends, whoever has which of it.
    expect_problem(&refresh(&client, &first.refresh).await, 401, "refresh_token_reused");
    expect_problem(&refresh(&client, next).await, 401, "invalid_refresh_token");
    expect_problem(&client.get("/auth/me", access).await, 401, "unauthorized");
    expect_problem(&client.get("/auth/me", &first.access).await, 401, "unauthorized");

    // Of twenty that exchange one token at once, one gets new ones.
    let tokens = client.log_in("root@operators.test").await;
    let at_once = (0..20).map(|_| refresh(&client, &tokens.refresh));
    let answers = futures::future::join_all(at_once).await;
    let good = answers.iter().filter(|answer| answer.status == 200).count();
    assert!(good <= 1, "{good} exchanges of one token");
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 401)));
}

/// The parts of a token, decoded.
fn parts(token: &str) -> (Value, Value) {
    let part = |at: usize| {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(at).unwrap()).unwrap()).unwrap()
    };
    (part(0), part(1))
}

fn base64(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

fn signed(header: &Value, claims: &Value, key: &[u8]) -> String {
    let message = format!("{}.{}", base64(header), base64(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

async fn forged_tokens_are_refused(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let tokens = host.first_admin().await;
    let (header, claims) = parts(&tokens.access);
    assert_eq!((header["alg"].as_str(), claims["aud"].as_str()), (Some("HS256"), Some("ringfence-api")));
    let with = |value: &Value, field: &str, new: Value| {
        let mut value = value.clone();
        value[field] = new;
        value
    };
    let unsigned = |header: &Value| format!("{}.{}.", base64(header), base64(&claims));
    let signature = tokens.access.rsplit('.').next().unwrap();
    let admin = with(&claims, "sub", json!("user_01JZ0000000000000000000000"));
    let key = b"a key that is not ours, 32 bytes";
    let forged = [
        unsigned(&with(&header, "alg", json!("none"))),
        unsigned(&with(&header, "alg", json!("None"))),
        unsigned(&header),
        signed(&header, &claims, key),
        signed(&header, &claims, b""),
        signed(&with(&header, "alg", json!("HS512")), &claims, key),
        signed(&with(&header, "alg", json!("RS256")), &claims, key),
        signed(&with(&header, "kid", json!("skey_01JZ0000000000000000000000")), &claims, key),
        signed(&with(&header, "kid", json!("../../etc/passwd")), &claims, key),
        // Other claims under the signature of these.
        format!("{}.{}.{signature}", base64(&header), base64(&admin)),
        tokens.access[..tokens.access.len() - 1].to_owned(),
        tokens.access.rsplit_once('.').unwrap().0.to_owned(),
        format!("{}.", tokens.access.rsplit_once('.').unwrap().0),
        format!("{}x", tokens.access),
        format!("{}.{}", tokens.access, signature),
        "eyJ".repeat(1000),
        "..".to_owned(),
        // A refresh token is no access token.
        tokens.refresh.clone(),
    ];
    for token in &forged {
        expect_problem(&client.get("/auth/me", token).await, 401, "unauthorized");
    }
    expect_problem(&refresh(&client, &tokens.access).await, 401, "invalid_refresh_token");
    for token in &forged[..forged.len() - 1] {
        expect_problem(&refresh(&client, token).await, 401, "invalid_refresh_token");
    }
    let twice = client.request(reqwest::Method::GET, "/auth/me", &tokens.access);
    let twice = ringfence_testkit::send(twice.header("authorization", "Bearer x")).await;
    expect_problem(&twice, 401, "unauthorized");
    let _ = client.get("/auth/me", &tokens.access).await.expect(200);
}

async fn nothing_tells_whether_there_is_an_account(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let admin = host.first_admin().await;
    client.new_user(&admin, "off@example.org", "user", None).await;
    let users = client.get("/users", &admin.access).await.expect(200);
    let off = users["users"][1]["user_id"].as_str().unwrap();
    let _ =
        client.patch(&format!("/users/{off}"), &admin.access, &json!({ "disabled": true })).await.expect(200);
    let mut answers = Vec::new();
    for (email, password) in [
        ("nobody@example.org", PASSWORD),
        ("root@operators.test", "a wrong password"),
        ("root@operators.test", ""),
        ("off@example.org", PASSWORD),
        ("not an address", PASSWORD),
        ("'; DROP TABLE users; --", PASSWORD),
    ] {
        let begun = Instant::now();
        let answer = client.post("/auth/login", "", &json!({ "email": email, "password": password })).await;
        // All wait for the same moment, which is later than any test of a password ends.
        assert!(begun.elapsed() >= Duration::from_secs(1), "{email}: {:?}", begun.elapsed());
        expect_problem(&answer, 401, "wrong_credentials");
        answers.push(answer.body["detail"].as_str().unwrap().to_owned());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

async fn a_password_is_changed(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let (here, elsewhere) = (host.first_admin().await, host.client().log_in("root@operators.test").await);
    let change = |current: &str, new: &str| json!({ "current_password": current, "new_password": new });
    let new = "another battery, another staple";
    let wrong = client.post("/auth/password", &here.access, &change("not this one", new)).await;
    expect_problem(&wrong, 401, "wrong_credentials");
    let failed = client.get("/audit?action=account:change&outcome=failed", &here.access).await.expect(200);
    assert_eq!(failed["entries"].as_array().unwrap().len(), 1, "{failed}");
    let short = client.post("/auth/password", &here.access, &change(PASSWORD, "too short")).await;
    expect_problem(&short, 422, "invalid_fields");
    let done = client.post("/auth/password", &here.access, &change(PASSWORD, new)).await;
    assert_eq!(done.status, 200, "{}", done.text);
    let _ = client.get("/auth/me", done.text_at("/access_token")).await.expect(200);
    // Whoever has taken a token has nothing any more.
    expect_problem(&client.get("/auth/me", &here.access).await, 401, "unauthorized");
    expect_problem(&refresh(&client, &here.refresh).await, 401, "invalid_refresh_token");
    expect_problem(&client.get("/auth/me", &elsewhere.access).await, 401, "unauthorized");
    let old = client
        .post("/auth/login", "", &json!({ "email": "root@operators.test", "password": PASSWORD }))
        .await;
    expect_problem(&old, 401, "wrong_credentials");
    client.log_in_with("root@operators.test", new).await;
}

/// The hash of the password as `crypt(3)` makes it with bcrypt at a cost of 4.
const BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG";

async fn stored_hash(host: &Host, email: &str) -> String {
    let store = ringfence_store::Store::connect(host.database().url()).await.unwrap();
    let user = ringfence_store::users::by_email(&mut store.reader().await.unwrap(), email).await.unwrap();
    user.unwrap().password_hash
}

async fn what_was_hashed_elsewhere_is_taken_over(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let admin = host.first_admin().await;
    let user = json!({ "email": "old@example.org", "name": "Old", "role": "user", "password_hash": BCRYPT });
    let _ = client.post("/users", &admin.access, &user).await.expect(201);
    assert_eq!(stored_hash(&host, "old@example.org").await, BCRYPT);
    let wrong =
        client.post("/auth/login", "", &json!({ "email": "old@example.org", "password": "wrong one" })).await;
    expect_problem(&wrong, 401, "wrong_credentials");
    // Both of two first logins at once are right, whichever of them replaces the hash.
    tokio::join!(client.log_in("old@example.org"), client.log_in("old@example.org"));
    let now = stored_hash(&host, "old@example.org").await;
    assert!(now.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{now}");
    client.log_in("old@example.org").await;
    assert_eq!(stored_hash(&host, "old@example.org").await, now, "it is replaced once");

    for (bad, field) in [
        (
            json!({ "password_hash": "$2b$31$abcdefghijklmnopqrstuuWQe1IuS5fQhB1j7p1aQyBCr0Jj6Wz2e" }),
            "password_hash",
        ),
        (json!({ "password_hash": "plain text" }), "password_hash"),
        (json!({}), "password"),
        (json!({ "password": PASSWORD, "password_hash": BCRYPT }), "password"),
        (json!({ "password": "eleven char" }), "password"),
    ] {
        let mut user = json!({ "email": "new@example.org", "name": "New", "role": "user" });
        user.as_object_mut().unwrap().extend(bad.as_object().unwrap().clone());
        let answer = client.post("/users", &admin.access, &user).await;
        expect_problem(&answer, 422, "invalid_fields");
        assert_eq!(answer.body["errors"][0]["field"], field, "{}", answer.text);
    }
}

async fn a_user_is_changed_at_once(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let admin = host.first_admin().await;
    let user = client.new_user(&admin, "ada@example.org", "operator", None).await;
    let id = client.get("/auth/me", &user.access).await.expect(200)["id"].as_str().unwrap().to_owned();
    let path = format!("/users/{id}");
    let _ = client.get("/users", &user.access).await.expect(200);
    let changed = client.patch(&path, &admin.access, &json!({ "role": "viewer" })).await.expect(200);
    assert_eq!(changed["role"], "viewer");
    expect_problem(&client.get("/users", &user.access).await, 403, "forbidden");
    let taken = json!({ "email": "ADA@example.org", "name": "Ada", "role": "user", "password": PASSWORD });
    expect_problem(&client.post("/users", &admin.access, &taken).await, 409, "email_taken");

    let _ = client.patch(&path, &admin.access, &json!({ "disabled": true })).await.expect(200);
    expect_problem(&client.get("/auth/me", &user.access).await, 401, "unauthorized");
    expect_problem(&refresh(&client, &user.refresh).await, 401, "invalid_refresh_token");
    let _ = client.patch(&path, &admin.access, &json!({ "disabled": false })).await.expect(200);
    expect_problem(&client.get("/auth/me", &user.access).await, 401, "unauthorized");
    let again = client.log_in("ada@example.org").await;
    assert_eq!(client.delete(&path, &admin.access).await.status, 204);
    expect_problem(&client.get("/auth/me", &again.access).await, 401, "unauthorized");
    expect_problem(&client.get(&path, &admin.access).await, 404, "user_not_found");
    let _ = client.post("/users", &admin.access, &taken).await.expect(201);
}

async fn an_org_keeps_an_admin(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let first = host.first_admin().await;
    let id = |me: Value| format!("/users/{}", me["id"].as_str().unwrap());
    let own = id(client.get("/auth/me", &first.access).await.expect(200));
    for change in [json!({ "role": "viewer" }), json!({ "disabled": true })] {
        expect_problem(&client.patch(&own, &first.access, &change).await, 409, "last_admin");
    }
    expect_problem(&client.delete(&own, &first.access).await, 409, "last_admin");
    // Of two who remove each other at once, one stays.
    let second = client.new_user(&first, "second@example.org", "admin", None).await;
    let other = id(client.get("/auth/me", &second.access).await.expect(200));
    let (one, two) = tokio::join!(client.delete(&other, &first.access), client.delete(&own, &second.access));
    let done = [&one, &two].iter().filter(|answer| answer.status == 204).count();
    assert_eq!(done, 1, "{} {}", one.text, two.text);
}

async fn logins_are_limited(engine: Engine) {
    let options = HostOptions {
        env: vec![
            ("RINGFENCE_LOGINS_PER_MINUTE".to_owned(), "3".to_owned()),
            ("RINGFENCE_TRUSTED_PROXIES".to_owned(), "127.0.0.0/8".to_owned()),
        ],
        ..HostOptions::default()
    };
    let host = host_with(engine, options).await;
    let client = host.client();
    let _ = host.first_admin().await;
    let login = |address: &'static str, email: &'static str, password: &'static str| {
        let request =
            client.request(reqwest::Method::POST, "/auth/login", "").header("x-forwarded-for", address);
        ringfence_testkit::send(request.json(&json!({ "email": email, "password": password })))
    };
    // From three addresses, into one account: the right password does not help any more.
    for address in ["192.0.2.1", "192.0.2.2"] {
        expect_problem(&login(address, "root@operators.test", "wrong").await, 401, "wrong_credentials");
    }
    let limited = login("192.0.2.3", "root@operators.test", PASSWORD).await;
    expect_problem(&limited, 429, "rate_limited");
    assert!(limited.headers["retry-after"].to_str().unwrap().parse::<u32>().unwrap() <= 20);
    // From one address, into many accounts; whether there are any does not matter.
    for email in ["a@example.org", "b@example.org", "c@example.org"] {
        expect_problem(&login("192.0.2.9", email, "wrong").await, 401, "wrong_credentials");
    }
    let limited = login("192.0.2.9", "d@example.org", "wrong").await;
    expect_problem(&limited, 429, "rate_limited");
    assert_eq!(limited.headers["ratelimit-policy"], "\"logins\";q=3;w=60");
}
