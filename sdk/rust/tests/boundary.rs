//! What an author sees of the contract, over the JSON boundary.

use ringfence::testing::Host;
use ringfence::{Checks, Failure, Job, Submission, Task, Verdict, kv};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Orders {
    orders: Vec<Order>,
}

#[derive(Deserialize)]
struct Order {
    cents: i64,
}

#[derive(Serialize)]
struct Total {
    invocation: String,
    total_cents: i64,
}

#[ringfence::bot]
fn add_up(task: Task<Orders>) -> Result<Total, Failure> {
    ringfence::log::info!("adding {} orders", task.input.orders.len(); id = task.id, unit = "cents");
    if task.input.orders.is_empty() {
        return Err(Failure::new("nothing_to_do", "there are no orders"));
    }
    let total_cents = task.input.orders.iter().map(|order| order.cents).sum();
    Ok(Total { invocation: task.id, total_cents })
}

mod counting {
    use super::*;

    #[ringfence::bot]
    fn count(by: u64) -> Result<u64, kv::Error> {
        let count = kv::get_json::<u64>("count")?.unwrap_or(0) + by;
        kv::set_json("count", &count)?;
        Ok(count)
    }

    #[test]
    fn what_is_stored_lives_on_until_the_store_is_full() {
        let host = Host::new().with_kv("count", "41").with_kv_max_bytes(64 + 7);
        assert_eq!(host.call(count, "1").unwrap(), 42);
        assert_eq!(host.kv("count").unwrap(), b"42");
        assert_eq!(host.call(count, "100").unwrap_err().code, "kv_quota_exceeded");
        assert_eq!(kv::list_keys("c", None).unwrap(), ["count"]);
        assert!(kv::list_keys("c", Some("count")).unwrap().is_empty());
        assert_eq!(kv::compare_and_swap("count", Some(b"41"), Some(b"0")), Ok(false));
        assert_eq!(kv::compare_and_swap("count", Some(b"42"), None), Ok(true));
        assert_eq!(kv::compare_and_swap("count", None, Some(b"7")), Ok(true));
        assert_eq!(kv::update_json("count", |count: Option<u8>| count.unwrap() + 1), Ok(8));
        let full = kv::update_json("count", |count: Option<u64>| count.unwrap() + 1000);
        assert!(matches!(full, Err(kv::Error::QuotaExceeded(_))), "{full:?}");
        assert_eq!(host.kv("count").unwrap(), b"8");
        assert!(matches!(kv::get(""), Err(kv::Error::InvalidKey(_))));
        assert!(Host::new().kv("count").is_none(), "a new host starts afresh");
    }
}

mod asking {
    use ringfence::http::{Error, Request, Response};

    use super::*;

    #[ringfence::bot]
    fn rate(url: String) -> Result<f64, Failure> {
        let request = Request::post(url).json(&["EUR"])?;
        let rates = request.send()?.success()?.json::<Vec<f64>>()?;
        rates.first().copied().ok_or_else(|| Failure::new("no_rate", "the answer is empty"))
    }

    #[test]
    fn requests_are_answered_by_the_test() {
        let host = Host::new().with_http(|request| match request.url.as_str() {
            "https://rates.test/" => {
                assert_eq!(
                    (request.method.as_str(), request.body.as_slice()),
                    ("POST", br#"["EUR"]"#.as_slice())
                );
                assert_eq!(request.headers, [("content-type".to_owned(), "application/json".to_owned())]);
                Ok(Response::new(200, "[0.5]"))
            }
            "https://gone.test/" => Ok(Response::new(410, "")),
            "https://words.test/" => Ok(Response::new(200, r#"["many"]"#)),
            url => Err(Error::Failed(format!("nobody is at {url}"))),
        });
        assert_eq!(host.call(rate, r#""https://rates.test/""#).unwrap(), 0.5);
        for (url, code) in [
            ("https://gone.test/", "http_status"),
            ("https://words.test/", "http_not_json"),
            ("https://else.test/", "http_failed"),
        ] {
            assert_eq!(host.call(rate, &format!("{url:?}")).unwrap_err().code, code);
        }
        let host = Host::new();
        assert_eq!(host.call(rate, r#""https://rates.test/""#).unwrap_err().code, "http_denied");
    }
}

mod judging {
    use super::*;

    #[ringfence::oracle]
    fn judge(job: Job<Vec<i64>>, submission: Submission<i64>) -> Result<Verdict, Failure> {
        let mut checks = Checks::new();
        checks.equal("the sum is right", &job.input.iter().sum(), &submission.content);
        checks.weighted(3, "it is even", (submission.content % 2 == 0).then_some("even").ok_or("it is odd"));
        Ok(checks.verdict())
    }

    #[test]
    fn good_and_bad_work_get_a_verdict() {
        let host = Host::new();
        let good = host.judge(judge, Some("[1, 3]"), "4").unwrap();
        assert!(good.passed && good.score == 100, "{good:?}");
        assert_eq!(good.reason, "all 2 checks passed");
        let bad = host.judge(judge, Some("[1, 3]"), "6").unwrap();
        assert!(!bad.passed && bad.score == 75, "{bad:?}");
        assert_eq!(bad.reason, "the sum is right: expected 4, found 6 (1 of 2 checks failed)");
        assert_eq!(bad.steps.len(), 2);
    }

    #[test]
    fn unreadable_work_is_a_verdict_and_an_unreadable_job_is_not() {
        let host = Host::new();
        let verdict = host.judge(judge, Some("[1]"), r#"{"sum": 1}"#).unwrap();
        assert!(
            !verdict.passed && verdict.score == 0 && verdict.reason.contains("invalid type: map"),
            "{verdict:?}"
        );
        for input in [None, Some("{}")] {
            assert_eq!(host.judge(judge, input, "1").unwrap_err().code, "bad_job_input");
        }
    }
}

#[test]
fn a_bot_sees_its_input_and_its_id() {
    let host = Host::new();
    let output = host.call(add_up, r#"{"orders": [{"cents": 1}, {"cents": 2}]}"#).unwrap();
    assert_eq!(output.to_string(), r#"{"invocation":"inv_test","total_cents":3}"#);
    let line = host.logs().remove(0);
    assert_eq!(line.message, "adding 2 orders");
    assert_eq!(
        line.fields,
        [("id".to_owned(), "inv_test".to_owned()), ("unit".to_owned(), "cents".to_owned())]
    );
}

#[test]
fn bad_input_names_the_place() {
    let failure = Host::new().call(add_up, r#"{"orders": [{"cents": 1}, {"cents": "x"}]}"#).err().unwrap();
    assert_eq!(failure.code, "bad_input");
    assert!(failure.message.contains("at `orders[1].cents`: invalid type: string"), "{failure}");
}

#[test]
fn an_authors_failure_reaches_the_caller() {
    let failure = Host::new().call(add_up, r#"{"orders": []}"#).err().unwrap();
    assert_eq!(failure, Failure::new("nothing_to_do", "there are no orders"));
}

#[test]
fn a_lenient_oracle_still_requires_what_it_requires() {
    let outcome = |passed: bool| if passed { Ok("fine") } else { Err("not fine") };
    for (required, expected) in [(true, true), (false, false)] {
        let mut checks = Checks::new();
        checks.pass_at(50).require("must", outcome(required));
        checks.check("should", outcome(false));
        checks.check("could", outcome(true));
        let verdict = checks.verdict();
        assert_eq!(verdict.passed, expected, "{verdict:?}");
    }
    assert!(!Checks::new().verdict().passed, "nothing was shown to be right");
}

#[test]
fn configuration_says_what_is_missing_or_wrong() {
    let _host = Host::new().with_config("limit", "ten");
    assert_eq!(ringfence::config::require("name").unwrap_err().code, "not_configured");
    assert_eq!(ringfence::config::parse_or("limit", 1_u32).unwrap_err().code, "bad_config");
    assert_eq!(ringfence::config::parse_or("other", 1_u32).unwrap(), 1);
    assert_eq!(ringfence::config::entries().len(), 1);
}
