//! What calls log: looked through, followed while it is written, and deleted when its time is over.

use std::time::Duration;

use reqwest::{Method, Response};
use ringfence_testkit::{Agent, Client, Engine, Host, HostOptions, Market, expect_problem, on_both_engines};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::refuses_without_a_key;
use crate::{host, host_with};

on_both_engines!(
    lines_are_found_across_calls,
    what_matters_less_is_not_kept,
    lines_arrive_while_the_call_runs,
    a_call_is_followed_to_its_end,
    who_goes_on_misses_nothing_and_gets_nothing_twice,
    who_may_not_any_more_is_cut_off,
    what_is_old_is_deleted
);

/// Longer than any test.
const FOR_EVER: u64 = 250_000;

/// An event as it came.
#[derive(Debug, Clone, PartialEq)]
struct Event {
    id: String,
    name: String,
    data: Value,
}

/// A stream of events.
struct Events {
    answer: Response,
    text: String,
}

impl Events {
    /// Follows, with the id of the last event if it goes on.
    async fn follow(client: &Client, key: &str, path: &str, last: Option<&str>) -> Self {
        let mut request = client.request(Method::GET, path, key);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        Self { answer, text: String::new() }
    }

    /// The next event; `None` if the stream has ended.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                    line.unwrap_or_default().to_owned()
                };
                let event = Event {
                    id: field("id"),
                    name: field("event"),
                    data: serde_json::from_str(&field("data")).unwrap_or_default(),
                };
                self.text = rest.to_owned();
                if event.name.is_empty() {
                    continue;
                }
                return Some(event);
            }
            let more = timeout(Duration::from_secs(30), self.answer.chunk()).await;
            let more = more.expect("an event, or the end").unwrap()?;
            self.text.push_str(std::str::from_utf8(&more).unwrap());
        }
    }

    /// So many events of these calls, each as its name, the number of its call and its line.
    async fn told(&mut self, calls: &[&str], count: usize) -> Vec<Event> {
        let mut told = Vec::new();
        while told.len() < count {
            let event = self.next().await.expect("more events");
            if calls.iter().any(|call| event.data["invocation_id"] == **call) {
                told.push(event);
            }
        }
        told
    }
}

/// Events in short: `begin`, the line's message, `end completed`.
fn short(events: &[Event]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("null").to_owned();
    let one = |event: &Event| match event.name.as_str() {
        "line" => text(&event.data["message"]),
        "end" => format!("end {}", text(&event.data["outcome"])),
        other => other.to_owned(),
    };
    events.iter().map(one).collect()
}

struct World {
    client: Client,
    ada: Agent,
    bot: String,
}

impl World {
    async fn new(host: &Host) -> Self {
        let client = host.client();
        let ada = Market::register(&client, "Ada").await;
        let limits = json!({ "limits": { "wall_time_ms": 300_000 } });
        let bot = Market::deploy(&client, &ada, "hostile/ticker", limits).await;
        Self { client, ada, bot }
    }

    fn path(&self) -> String {
        format!("/bots/{}/logs/follow", self.bot)
    }

    fn path_of(&self, call: &str) -> String {
        format!("/bots/{}/invocations/{call}/logs/follow", self.bot)
    }

    async fn follow(&self, last: Option<&str>) -> Events {
        Events::follow(&self.client, &self.ada.key, &self.path(), last).await
    }

    /// Has the bot write so many lines; the call's id.
    async fn tick(&self, lines: u64) -> String {
        let input = json!({ "input": { "lines": lines } });
        let call = self.client.post(&format!("/bots/{}/invoke", self.bot), &self.ada.key, &input).await;
        assert_eq!(call.body["outcome"], "completed", "{}", call.text);
        call.text_at("/invocation_id").to_owned()
    }

    /// A call that writes a line and does not end.
    fn stay(&self) -> JoinHandle<u16> {
        let (client, key, bot) = (self.client.clone(), self.ada.key.clone(), self.bot.clone());
        let input = json!({ "input": { "lines": 2, "pause_ms": FOR_EVER } });
        tokio::spawn(async move { client.post(&format!("/bots/{bot}/invoke"), &key, &input).await.status })
    }
}

async fn lines_are_found_across_calls(engine: Engine) {
    let host = host(engine).await;
    let world = World::new(&host).await;
    let (client, key) = (&world.client, &world.ada.key);
    let calls = [world.tick(3).await, world.tick(0).await, world.tick(2).await];
    let path = format!("/bots/{}/logs", world.bot);
    let found = async |query: &str| {
        let logs = client.get(&format!("{path}{query}"), key).await.expect(200);
        let lines: Vec<Value> = logs["lines"].as_array().unwrap().clone();
        (lines, logs["next_page_token"].as_str().map(str::to_owned))
    };
    let (lines, next) = found("").await;
    let place =
        |line: &Value| (line["invocation_id"].as_str().unwrap().to_owned(), line["line"].as_u64().unwrap());
    let all: Vec<_> =
        [(2, 1), (2, 0), (0, 2), (0, 1), (0, 0)].map(|(call, line)| (calls[call].clone(), line)).into();
    assert_eq!((lines.iter().map(place).collect::<Vec<_>>(), next), (all.clone(), None));
    assert_eq!((lines[0]["message"].as_str(), lines[0]["stream"].as_str()), (Some("1"), Some("stdout")));
    assert_eq!(lines[0]["level"], "info");

    for limit in [1, 2, 4] {
        let (mut token, mut paged) = (String::new(), Vec::new());
        loop {
            let (lines, next) = found(&format!("?limit={limit}{token}")).await;
            assert!(lines.len() <= limit);
            paged.extend(lines.iter().map(place));
            let Some(next) = next else { break };
            token = format!("&page_token={next}");
        }
        assert_eq!(paged, all, "by {limit}");
    }
    let time = lines[1]["time"].as_str().unwrap();
    for (query, expected) in [
        ("?contains=2".to_owned(), 1),
        ("?contains=9".to_owned(), 0),
        ("?level=info&stream=stdout".to_owned(), 5),
        ("?level=warn".to_owned(), 0),
        ("?stream=stderr".to_owned(), 0),
        (format!("?from={time}"), 2),
        (format!("?to={time}"), 3),
    ] {
        assert_eq!(found(&query).await.0.len(), expected, "{query}");
    }
    let of_call = format!("/bots/{}/invocations/{}/logs", world.bot, calls[0]);
    for (query, expected) in [("", 3), ("?contains=2", 1), ("?level=error", 0)] {
        let logs = client.get(&format!("{of_call}{query}"), key).await.expect(200);
        assert_eq!(logs["lines"].as_array().unwrap().len(), expected, "{query}");
    }

    let long = "x".repeat(201);
    for bad in ["?page_token=1".to_owned(), format!("?contains={long}"), "?limit=0".to_owned()] {
        expect_problem(&client.get(&format!("{path}{bad}"), key).await, 422, "invalid_fields");
    }
    expect_problem(&client.get(&format!("{path}?level=loud"), key).await, 422, "invalid_query");
    let bob = Market::register(client, "Bob").await;
    expect_problem(&client.get(&path, &bob.key).await, 404, "bot_not_found");
    refuses_without_a_key(client, Method::GET, &path).await;
}

async fn what_matters_less_is_not_kept(engine: Engine) {
    let host = host(engine).await;
    let world = World::new(&host).await;
    let (client, key) = (&world.client, &world.ada.key);
    let bot = format!("/bots/{}", world.bot);
    let policy = json!({ "keep_days": 3, "min_level": "warn" });
    let changed = client.patch(&bot, key, &json!({ "logs": policy })).await.expect(200);
    assert_eq!(changed["logs"], policy);
    let call = world.tick(3).await;
    let kept = client.get(&format!("{bot}/invocations/{call}"), key).await.expect(200);
    assert!(kept["usage"]["log_bytes"].as_u64().unwrap() > 0, "it counts all the same");
    assert_eq!(client.get(&format!("{bot}/logs"), key).await.expect(200)["lines"], json!([]));
    let changed = client.patch(&bot, key, &json!({ "logs": {} })).await.expect(200);
    assert_eq!(changed["logs"], json!({}));
    world.tick(1).await;
    assert_eq!(
        client.get(&format!("{bot}/logs"), key).await.expect(200)["lines"].as_array().unwrap().len(),
        1
    );

    for bad in [json!({ "keep_days": 0 }), json!({ "keep_days": 3651 })] {
        expect_problem(&client.patch(&bot, key, &json!({ "logs": bad })).await, 422, "invalid_fields");
    }
    let unknown = client.patch(&bot, key, &json!({ "logs": { "min_level": "loud" } })).await;
    expect_problem(&unknown, 422, "invalid_body");
    let oracle = Market::deploy(client, &world.ada, "hostile/oracle-accept", json!({})).await;
    let refused = client.patch(&format!("/bots/{oracle}"), key, &json!({ "logs": policy })).await;
    expect_problem(&refused, 422, "invalid_fields");
    expect_problem(&client.get(&format!("/bots/{oracle}/logs/follow"), key).await, 409, "not_followable");
}

async fn lines_arrive_while_the_call_runs(engine: Engine) {
    let host = host(engine).await;
    let world = World::new(&host).await;
    let mut events = world.follow(None).await;
    let running = world.stay();
    let begun = events.next().await.unwrap();
    assert_eq!(begun.name, "begin");
    let call = begun.data["invocation_id"].as_str().unwrap().to_owned();
    let line = events.next().await.unwrap();
    assert_eq!(short(std::slice::from_ref(&line)), ["0"]);
    assert_eq!((&line.data["invocation_id"], &line.data["line"]), (&json!(call), &json!(0)));

    // Who comes later gets what was written before.
    let mut late = Events::follow(&world.client, &world.ada.key, &world.path_of(&call), None).await;
    assert_eq!(short(&[late.next().await.unwrap(), late.next().await.unwrap()]), ["begin", "0"]);
    let mut on = world.follow(Some(&line.id)).await;
    let other = world.tick(1).await;
    assert_eq!(short(&events.told(&[&other], 3).await), ["begin", "0", "end completed"]);
    assert_eq!(short(&on.told(&[&other, &call], 3).await), ["begin", "0", "end completed"]);
    assert!(!running.is_finished(), "all of it while the call runs");
    let filtered = format!("{}?contains=1", world.path());
    let mut filtered = Events::follow(&world.client, &world.ada.key, &filtered, None).await;
    let another = world.tick(3).await;
    assert_eq!(short(&filtered.told(&[&another], 3).await), ["begin", "1", "end completed"]);
    running.abort();
}

async fn a_call_is_followed_to_its_end(engine: Engine) {
    let host = host(engine).await;
    let world = World::new(&host).await;
    let (client, key) = (&world.client, &world.ada.key);
    let call = world.tick(3).await;
    let mut events = Events::follow(client, key, &world.path_of(&call), None).await;
    let told = events.told(&[&call], 5).await;
    assert_eq!(short(&told), ["begin", "0", "1", "2", "end completed"]);
    assert_eq!(events.next().await, None, "the stream ends with the call");
    let mut on = Events::follow(client, key, &world.path_of(&call), Some(&told[2].id)).await;
    assert_eq!(short(&on.told(&[&call], 2).await), ["2", "end completed"]);
    assert_eq!(on.next().await, None);
    let mut done = Events::follow(client, key, &world.path_of(&call), Some(&told[4].id)).await;
    assert_eq!(done.next().await, None, "who has the end has all");

    let short_while = format!("{}?max_seconds=1", world.path());
    let mut events = Events::follow(client, key, &short_while, None).await;
    let close = events.next().await.unwrap();
    assert_eq!((close.name.as_str(), &close.data), ("close", &json!({ "reason": "time_over" })));
    assert_eq!(events.next().await, None);

    let old = world.path_of("inv_01JZ0000000000000000000000");
    expect_problem(&client.get(&old, key).await, 404, "invocation_not_found");
    let other = Market::deploy(client, &world.ada, "echo", json!({})).await;
    let crossed = world.path_of(&call).replace(&world.bot, &other);
    expect_problem(&client.get(&crossed, key).await, 404, "invocation_not_found");
    let bob = Market::register(client, "Bob").await;
    for path in [world.path(), world.path_of(&call)] {
        expect_problem(&client.get(&path, &bob.key).await, 404, "bot_not_found");
        expect_problem(&client.get(&format!("{path}?max_seconds=0"), key).await, 422, "invalid_fields");
        refuses_without_a_key(client, Method::GET, &path).await;
        let request = client.request(Method::GET, &path, key).header("last-event-id", "nonsense");
        expect_problem(&ringfence_testkit::send(request).await, 422, "invalid_fields");
    }
}

async fn who_goes_on_misses_nothing_and_gets_nothing_twice(engine: Engine) {
    let host = host(engine).await;
    let world = World::new(&host).await;
    let mut events = world.follow(None).await;
    let running = world.stay();
    let staying = events.next().await.unwrap().data["invocation_id"].as_str().unwrap().to_owned();
    assert_eq!(short(&[events.next().await.unwrap()]), ["0"]);
    let first = world.tick(3).await;
    let told = events.told(&[&first], 5).await;
    drop(events);
    // While nobody follows, and after.
    let second = world.tick(2).await;
    let whole = ["begin", "0", "1", "2", "end completed"];
    for (place, event) in told.iter().enumerate() {
        let mut on = world.follow(Some(&event.id)).await;
        let third = world.tick(1).await;
        let calls = [staying.as_str(), &first, &second, &third];
        // Each call's events come in their order; of which call first, is open.
        let mut rest: Vec<Event> = Vec::new();
        let mut awaited = vec![second.clone(), third.clone()];
        awaited.extend((event.name != "end").then(|| first.clone()));
        while !awaited.is_empty() {
            let next = on.next().await.unwrap();
            awaited.retain(|call| next.name != "end" || next.data["invocation_id"] != **call);
            rest.push(next);
        }
        let of = |call: &str| {
            let of_it: Vec<_> =
                rest.iter().filter(|event| event.data["invocation_id"] == *call).cloned().collect();
            short(&of_it)
        };
        assert_eq!(of(calls[0]), Vec::<String>::new(), "it has written nothing more");
        assert_eq!(of(calls[1]), whole[place + 1..], "after {}", event.name);
        assert_eq!(of(calls[2]), ["begin", "0", "1", "end completed"]);
        assert_eq!(of(calls[3]), ["begin", "0", "end completed"]);
    }
    running.abort();
}

async fn who_may_not_any_more_is_cut_off(engine: Engine) {
    let host = host(engine).await;
    let world = World::new(&host).await;
    let (client, key) = (&world.client, &world.ada.key);
    let made = client.post("/keys", key, &json!({ "name": "further", "agent_id": world.ada.id })).await;
    let further = made.text_at("/api_key").to_owned();
    let mut events = Events::follow(client, &further, &world.path(), None).await;
    let call = world.tick(1).await;
    assert_eq!(events.told(&[&call], 3).await.len(), 3);
    assert_eq!(client.delete(&format!("/keys/{}", made.text_at("/key_id")), key).await.status, 204);
    let unseen = world.tick(1).await;
    let mut last = None;
    while let Some(event) = events.next().await {
        assert_ne!(event.data["invocation_id"], unseen.as_str(), "sent after the key was revoked");
        last = Some(event);
    }
    let last = last.unwrap();
    assert_eq!((last.name.as_str(), &last.data), ("close", &json!({ "reason": "unauthorized" })));
}

/// Makes a call as old as this many days, with its lines: as another one with an earlier id.
async fn age(host: &Host, call: &str, days: u64) -> String {
    let ulid: String = call.trim_start_matches("inv_").into();
    // Of ids from these years the first four digits are what changes within months: enough to be years older.
    let old = format!("inv_01F{}", &ulid[3..]);
    let columns = "org_id, bot_id, bot_version, component_digest, submission_id, outcome, detail, input_digest,
        output_digest, limits, engine, fuel, peak_memory_bytes, wall_us, cpu_us, host_calls, log_bytes, input_bytes,
        output_bytes";
    let micros = days * 86_400_000_000;
    for sql in [
        format!(
            "INSERT INTO invocations (id, started_at, {columns})
                SELECT '{old}', started_at - {micros}, {columns} FROM invocations WHERE id = '{call}'"
        ),
        format!(
            "INSERT INTO invocation_logs (invocation_id, org_id, lines)
                SELECT '{old}', org_id, lines FROM invocation_logs WHERE invocation_id = '{call}'"
        ),
    ] {
        assert_eq!(host.database().meddle(&sql).await, Ok(1), "{sql}");
    }
    old
}

async fn what_is_old_is_deleted(engine: Engine) {
    let args = ["--log-retention-days", "2", "--invocation-retention-days", "0"].map(str::to_owned).to_vec();
    let mut host = host_with(engine, HostOptions { args, ..HostOptions::default() }).await;
    let world = World::new(&host).await;
    let key = world.ada.key.clone();
    let call = world.tick(2).await;
    // What is asked for is recorded.
    let path = |call: &str| format!("/bots/{}/invocations/{call}", world.bot);
    let lines = async |client: &Client, call: &str| {
        let logs = client.get(&format!("{}/logs", path(call)), &key).await.expect(200);
        logs["lines"].as_array().unwrap().len()
    };
    assert_eq!(lines(&world.client, &call).await, 2);
    let old = age(&host, &call, 400).await;
    assert_eq!(lines(&world.client, &old).await, 2);
    host.kill();
    host.restart().await;
    let client = host.client();
    for _ in 0..600 {
        if lines(&client, &old).await == 0 {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((lines(&client, &old).await, lines(&client, &call).await), (0, 2));

    let args = ["--invocation-retention-days", "30"].map(str::to_owned).to_vec();
    host.set_options(HostOptions { args, ..HostOptions::default() });
    host.kill();
    host.restart().await;
    let client = host.client();
    for _ in 0..600 {
        if client.get(&path(&old), &key).await.status == 404 {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    expect_problem(&client.get(&path(&old), &key).await, 404, "invocation_not_found");
    assert_eq!(lines(&client, &call).await, 2);
    assert!(host.log().contains("old calls and logs are deleted"));
}

#[tokio::test]
async fn a_quiet_stream_stays_open_and_a_stop_ends_it() {
    let args = ["--response-write-timeout-seconds", "1", "--request-header-timeout-seconds", "1"];
    let args = args.map(str::to_owned).to_vec();
    let mut host = host_with(Engine::Sqlite, HostOptions { args, ..HostOptions::default() }).await;
    let world = World::new(&host).await;
    let mut events = world.follow(None).await;
    sleep(Duration::from_secs(3)).await;
    let call = world.tick(1).await;
    assert_eq!(short(&events.told(&[&call], 3).await), ["begin", "0", "end completed"]);
    let pid = rustix::process::Pid::from_raw(i32::try_from(host.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let close = events.next().await.unwrap();
    assert_eq!((close.name.as_str(), &close.data), ("close", &json!({ "reason": "stopping" })));
    assert_eq!(events.next().await, None);
    assert!(host.wait().await);
    assert!(!host.log().contains("stopped before everything had ended"), "{}", host.log());
}

#[tokio::test]
async fn there_are_so_many_places_to_follow_from() {
    let host = host(Engine::Sqlite).await;
    let world = World::new(&host).await;
    let mut all = Vec::new();
    for _ in 0..16 {
        all.push(world.follow(None).await);
    }
    let refused = world.client.get(&world.path(), &world.ada.key).await;
    expect_problem(&refused, 429, "too_many_followers");
    assert!(refused.headers.contains_key("retry-after"));
    let bob = World::new(&host).await;
    let _of_another_org = bob.follow(None).await;
    all.pop();
    for _ in 0..600 {
        let request = world.client.request(Method::GET, &world.path(), &world.ada.key);
        if request.send().await.unwrap().status() == 200 {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("the place of who has left is free");
}

/// A call on another host comes when it has ended, whole and once.
#[tokio::test]
async fn what_runs_on_another_host_comes_when_it_has_ended() {
    let host = host(Engine::Postgres).await;
    let world = World::new(&host).await;
    let another = host.another().await;
    let mut events = Events::follow(&another.client(), &world.ada.key, &world.path(), None).await;
    let calls = [world.tick(2).await, world.tick(1).await];
    let told = events.told(&[&calls[0], &calls[1]], 7).await;
    assert_eq!(short(&told), ["begin", "0", "1", "end completed", "begin", "0", "end completed"]);
    let mut on = Events::follow(&another.client(), &world.ada.key, &world.path(), Some(&told[1].id)).await;
    let rest = on.told(&[&calls[0], &calls[1]], 5).await;
    assert_eq!(short(&rest), ["1", "end completed", "begin", "0", "end completed"]);
    let mut one = Events::follow(&another.client(), &world.ada.key, &world.path_of(&calls[1]), None).await;
    assert_eq!(short(&one.told(&[&calls[1]], 3).await), ["begin", "0", "end completed"]);
}
