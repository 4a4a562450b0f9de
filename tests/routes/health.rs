use ringfence_testkit::{Engine, HostOptions, on_both_engines};

use crate::{host, host_with};

on_both_engines!(says_that_all_is_well, says_so_in_development_mode);

#[tokio::test]
async fn a_request_keeps_its_id_if_it_is_plain() {
    let host = host(Engine::Sqlite).await;
    for (sent, kept) in [("abc-1", true), ("a b", false), (&"x".repeat(65) as &str, false)] {
        let request =
            host.client().request(reqwest::Method::GET, "//health", "").header("x-request-id", sent);
        let answer = ringfence_testkit::send(request).await;
        let id = answer.headers["x-request-id"].to_str().unwrap();
        assert_eq!(id == sent, kept, "{sent} → {id}");
        assert!(!id.is_empty());
    }
}

async fn says_that_all_is_well(engine: Engine) {
    let host = host(engine).await;
    let answer = host.client().get("//health", "").await;
    assert!(!answer.headers.contains_key("x-dev-mode"));
    let body = answer.expect(200);
    assert_eq!(body["status"], "ok");
    assert_eq!(body["dev_mode"], false);
}

async fn says_so_in_development_mode(engine: Engine) {
    let env = vec![("DEV_MODE".to_owned(), "true".to_owned())];
    let host = host_with(engine, HostOptions { env, ..HostOptions::default() }).await;
    let answer = host.client().get("//health", "").await;
    assert_eq!(answer.headers["x-dev-mode"], "true");
    assert_eq!(answer.expect(200)["dev_mode"], true);
    let problem = host.client().get("/jobs", "").await;
    assert_eq!((problem.status, &problem.headers["x-dev-mode"]), (401, &"true".parse().unwrap()));
    assert!(host.log().contains("DEV_MODE ENABLED"), "{}", host.log());
}
