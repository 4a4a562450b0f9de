//! Private jobs, claims that are given back, and what is kept of agents' work.

use std::time::Duration;

use ringfence_model::*;
use ringfence_store::accounts::Agent;
use ringfence_store::jobs::{self, Job, JobFilter, JobSort};
use ringfence_store::queue::{self, NewItem};
use ringfence_store::reputation::{self, Change, JobOutcome, Outcome, Ranking};
use ringfence_store::submissions::{self, Judgement};
use ringfence_store::{Store, StoreError, bots, parties};
use ringfence_testkit::{Database, Engine, on_both_engines, root};
use serde_json::json;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqlSafeStr as _, SqliteConnection};

use crate::fixture::{self, Fixture};
use crate::schema::listing_uses_an_index;

on_both_engines!(
    a_job_changes_while_it_has_not_ended,
    claims_are_given_back,
    private_jobs_are_their_parties,
    private_jobs_are_listed_by_an_index,
    reputation_adds_up,
    agents_are_ranked,
    work_moves_to_another_time,
    a_bot_that_is_held_is_not_changed,
    what_was_done_before_is_counted,
);

async fn a_job_changes_while_it_has_not_ended(engine: Engine) {
    let f = Fixture::new(engine).await;
    let job = f.job(10);
    let mut tx = f.tx().await;
    jobs::insert(&mut tx, &job, None).await.unwrap();
    let changed = Job {
        title: "New".to_owned(),
        description: "d".to_owned(),
        rubric: "r".to_owned(),
        expiry: job.expiry.plus(Duration::from_secs(9)),
        max_submissions: 7,
        max_retries: 8,
        min_reputation: 9,
        updated_at: f.now().plus(Duration::from_secs(1)),
        ..job.clone()
    };
    assert!(jobs::update(&mut tx, &changed).await.unwrap());
    assert_eq!(jobs::get(&mut tx, &job.id).await.unwrap(), Some(changed.clone()));
    assert!(jobs::fund(&mut tx, &job.id, &json!({}), job.price, f.now()).await.unwrap().is_some());
    assert!(!jobs::update(&mut tx, &changed).await.unwrap(), "it is not open any more");
    let funded = Job { status: JobStatus::Funded, ..changed };
    assert!(jobs::update(&mut tx, &funded).await.unwrap());
    let (cancelled, from) = (JobStatus::Cancelled, JobStatus::Funded);
    assert!(jobs::end(&mut tx, &job.id, cancelled, from, None, f.now()).await.unwrap());
    let ended = Job { status: cancelled, ..funded };
    assert!(!jobs::update(&mut tx, &ended).await.unwrap(), "an end is an end");
}

async fn claims_are_given_back(engine: Engine) {
    let f = Fixture::new(engine).await;
    let job = f.claimed_job().await;
    let mut tx = f.tx().await;
    let (id, worker) = (&job.id, &f.worker.id);
    let submission = f.submission(&job, 1);
    submissions::insert(&mut tx, &submission).await.unwrap();
    let standing = submissions::standing(&mut tx, id, worker).await.unwrap();
    assert_eq!((standing.judging, standing.failed, standing.counted), (1, 0, 1));
    assert_eq!(submissions::failed_claims(&mut tx, id).await.unwrap(), []);
    let mut judgement = Judgement {
        score: Some(1),
        reason: "r".to_owned(),
        steps: None,
        oracle_fault: None,
        invocation_id: None,
    };
    let failed = SubmissionStatus::Failed;
    assert!(submissions::judged(&mut tx, &submission.id, failed, &judgement, f.now()).await.unwrap());
    let faulted = f.submission(&job, 2);
    submissions::insert(&mut tx, &faulted).await.unwrap();
    judgement.oracle_fault = Some("trapped".to_owned());
    assert!(submissions::judged(&mut tx, &faulted.id, failed, &judgement, f.now()).await.unwrap());
    let standing = submissions::standing(&mut tx, id, worker).await.unwrap();
    assert_eq!((standing.judging, standing.failed, standing.counted), (0, 1, 1));
    let who = (worker.clone(), f.worker.org_id.clone());
    assert_eq!(submissions::failed_claims(&mut tx, id).await.unwrap(), [who]);
    f.tick();
    assert!(submissions::unclaim(&mut tx, id, worker, f.now()).await.unwrap());
    assert!(!submissions::unclaim(&mut tx, id, worker, f.now()).await.unwrap(), "once");
    assert!(!submissions::is_participant(&mut tx, id, worker).await.unwrap());
    assert_eq!(submissions::failed_claims(&mut tx, id).await.unwrap(), []);
    assert!(submissions::claim(&mut tx, &f.participant(&job)).await.unwrap(), "it can claim again");
    let page = submissions::participants(&mut tx, id, None, 10, 0).await.unwrap();
    let rows: Vec<_> = page.items.iter().map(|row| (row.participant.unclaimed_at, row.attempts)).collect();
    assert_eq!(rows, [(Some(f.now()), 2), (None, 2)]);
}

/// A private job of the fixture's buyer, with these invited.
async fn private_job(f: &Fixture, invited: &[&Agent]) -> Job {
    let job = Job { visibility: Visibility::Private, ..f.job(10) };
    let mut tx = f.tx().await;
    jobs::insert(&mut tx, &job, None).await.unwrap();
    for agent in invited.iter().copied().chain([&f.buyer]) {
        assert!(parties::add(&mut tx, &job.id, &agent.id, &agent.org_id).await.unwrap());
        assert!(!parties::add(&mut tx, &job.id, &agent.id, &agent.org_id).await.unwrap(), "once");
    }
    tx.commit().await.unwrap();
    f.tick();
    job
}

fn shared_with(org: &OrgId) -> JobFilter {
    JobFilter {
        party: Some(org.clone()),
        status: None,
        buyer_id: None,
        worker_id: None,
        claims_seen_by: None,
        artifact_type: None,
        min_price: None,
        max_price: None,
        sort_by: JobSort::CreatedAt,
        descending: true,
        limit: 10,
        offset: 0,
    }
}

async fn private_jobs_are_their_parties(engine: Engine) {
    let f = Fixture::new(engine).await;
    let mut tx = f.tx().await;
    let stranger = fixture::agent(&mut tx, &f.clock, &f.rng, "Stranger").await;
    let sibling = fixture::agent(&mut tx, &f.clock, &f.rng, "Sibling").await;
    tx.commit().await.unwrap();
    // Of the worker's org, as far as the parties go.
    let sibling = Agent { org_id: f.worker.org_id.clone(), ..sibling };
    let first = private_job(&f, &[&f.worker, &sibling]).await;
    let second = private_job(&f, &[&f.worker]).await;
    let mut reader = f.reader().await;
    assert_eq!(parties::number(&mut reader, &first.id).await.unwrap(), 3);
    for (agent, is_party) in [(&f.buyer, true), (&f.worker, true), (&stranger, false)] {
        assert_eq!(parties::is_party(&mut reader, &first.id, &agent.id).await.unwrap(), is_party);
        assert_eq!(parties::is_org_party(&mut reader, &first.id, &agent.org_id).await.unwrap(), is_party);
        assert_eq!(parties::sees(&mut reader, &first.id, &agent.org_id).await.unwrap(), is_party);
        let listed = jobs::list(&mut reader, &shared_with(&agent.org_id)).await.unwrap();
        let found: Vec<_> = listed.items.iter().map(|job| &job.id).collect();
        let expected = if is_party { vec![&second.id, &first.id] } else { vec![] };
        assert_eq!((found, listed.total), (expected.clone(), expected.len() as u64), "each once");
    }
    let all = JobFilter { party: None, ..shared_with(&f.buyer.org_id) };
    assert_eq!(jobs::list(&mut reader, &all).await.unwrap().total, 0);
    let public = f.claimed_job().await;
    assert!(parties::sees(&mut reader, &public.id, &stranger.org_id).await.unwrap());
    assert_eq!(jobs::list(&mut reader, &shared_with(&f.buyer.org_id)).await.unwrap().total, 2);
    let part = JobFilter { descending: false, limit: 1, offset: 1, ..shared_with(&f.worker.org_id) };
    assert_eq!(jobs::list(&mut reader, &part).await.unwrap().items[0].id, second.id);
}

async fn private_jobs_are_listed_by_an_index(engine: Engine) {
    let f = Fixture::new(engine).await;
    let org = shared_with(&f.buyer.org_id);
    for filter in [
        org.clone(),
        JobFilter { descending: false, ..org.clone() },
        JobFilter { status: Some(JobStatus::Funded), buyer_id: Some(f.buyer.id.clone()), ..org.clone() },
        JobFilter { artifact_type: Some("json".to_owned()), min_price: Some(MicroUsdc::ZERO), ..org },
    ] {
        let sql = jobs::list_statement(&filter, false);
        listing_uses_an_index(&f, &sql).await;
    }
}

fn micros(amount: i64) -> MicroUsdc {
    MicroUsdc::from_micros(amount).unwrap()
}

async fn reputation_adds_up(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (id, org) = (&f.worker.id, &f.worker.org_id);
    let mut tx = f.tx().await;
    assert_eq!(reputation::get(&mut tx, id).await.unwrap(), None);
    assert_eq!(reputation::rate(&mut tx, id).await.unwrap(), None);
    let paid = Change { spent: micros(5), ..Change::default() };
    reputation::add(&mut tx, id, org, &paid).await.unwrap();
    assert_eq!(reputation::rate(&mut tx, id).await.unwrap(), None, "nothing was won or failed");
    let won = Change { jobs_won: 1, submissions_passed: 1, earned: micros(8), ..Change::default() };
    let failed = Change { jobs_failed: 1, submissions_failed: 2, ..Change::default() };
    for (change, rate) in [(&won, 100), (&failed, 50), (&failed, 33), (&won, 50)] {
        reputation::add(&mut tx, id, org, change).await.unwrap();
        assert_eq!(reputation::rate(&mut tx, id).await.unwrap(), Some(rate), "rounded down");
    }
    let corrected = Change { jobs_won: 1, jobs_failed: -1, ..Change::default() };
    reputation::add(&mut tx, id, org, &corrected).await.unwrap();
    let all = reputation::get(&mut tx, id).await.unwrap().unwrap();
    assert_eq!((all.jobs_won, all.jobs_failed, all.completion_rate), (3, 1, Some(75)));
    assert_eq!((all.submissions_passed, all.submissions_failed), (2, 4));
    assert_eq!((all.earned, all.spent, all.name.as_str()), (micros(16), micros(5), "Worker"));
    tx.commit().await.unwrap();
    let mut tx = f.tx().await;
    let below = Change { jobs_failed: -2, ..Change::default() };
    let refused = reputation::add(&mut tx, id, org, &below).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    drop(tx);
    // However much it is: a verdict never fails by it.
    f.meddle(engine, "UPDATE reputation SET earned = 9223372036854775800").await;
    let mut tx = f.tx().await;
    reputation::add(&mut tx, id, org, &won).await.unwrap();
    drop(tx);

    let job = f.claimed_job().await;
    let outcome = |job: &Job, outcome| Outcome {
        job_id: job.id.clone(),
        agent_id: id.clone(),
        org_id: org.clone(),
        outcome,
        earned: micros(8),
        visibility: job.visibility,
        ended_at: f.now(),
    };
    let hidden = private_job(&f, &[&f.worker]).await;
    let mut tx = f.tx().await;
    let failed = Outcome { earned: MicroUsdc::ZERO, ..outcome(&job, JobOutcome::Failed) };
    assert!(
        !reputation::won_after_all(&mut tx, &outcome(&job, JobOutcome::Won)).await.unwrap(),
        "not failed"
    );
    assert!(reputation::keep_outcome(&mut tx, &failed).await.unwrap());
    for again in [JobOutcome::Failed, JobOutcome::Won] {
        assert!(!reputation::keep_outcome(&mut tx, &outcome(&job, again)).await.unwrap(), "once");
    }
    let [finished] = &reputation::history(&mut tx, id, 20).await.unwrap()[..] else { panic!("one") };
    assert_eq!((finished.outcome, finished.earned), (JobOutcome::Failed, MicroUsdc::ZERO));
    assert!(reputation::won_after_all(&mut tx, &outcome(&job, JobOutcome::Won)).await.unwrap());
    assert!(!reputation::won_after_all(&mut tx, &outcome(&job, JobOutcome::Won)).await.unwrap(), "once");
    assert!(reputation::keep_outcome(&mut tx, &outcome(&hidden, JobOutcome::Won)).await.unwrap());
    let history = reputation::history(&mut tx, id, 20).await.unwrap();
    let [finished] = &history[..] else { panic!("public ones: {history:?}") };
    assert_eq!((&finished.job_id, finished.outcome, finished.earned), (&job.id, JobOutcome::Won, micros(8)));
    assert_eq!((finished.title.as_str(), finished.ended_at), ("A job", f.now()));
}

async fn agents_are_ranked(engine: Engine) {
    let f = Fixture::new(engine).await;
    let mut tx = f.tx().await;
    for (name, jobs_won, jobs_failed, earned) in
        [("a", 3, 1, 3), ("b", 2, 0, 10), ("c", 1, 0, 20), ("d", 0, 1, 0), ("e", 0, 0, 99)]
    {
        let agent = fixture::agent(&mut tx, &f.clock, &f.rng, name).await;
        let change = Change { jobs_won, jobs_failed, earned: micros(earned), ..Change::default() };
        reputation::add(&mut tx, &agent.id, &agent.org_id, &change).await.unwrap();
        f.tick();
    }
    for (by, limit, offset, expected) in [
        (Ranking::Earned, 10, 0, "cbad"),
        (Ranking::JobsWon, 10, 0, "abcd"),
        (Ranking::CompletionRate, 10, 0, "bcad"),
        (Ranking::CompletionRate, 2, 1, "ca"),
    ] {
        let page = reputation::ranked(&mut tx, by, limit, offset).await.unwrap();
        let names: String = page.items.iter().map(|agent| agent.name.as_str()).collect();
        assert_eq!((names.as_str(), page.total), (expected, 4), "{by:?}");
    }
}

async fn work_moves_to_another_time(engine: Engine) {
    let f = Fixture::new(engine).await;
    let item = NewItem {
        id: "task".to_owned(),
        org_id: f.buyer.org_id.clone(),
        kind: "expire".to_owned(),
        payload: json!({}),
        subject_id: "job".to_owned(),
        run_at: f.now(),
        created_at: f.now(),
    };
    let later = f.now().plus(Duration::from_secs(60));
    let mut tx = f.tx().await;
    assert!(!queue::reschedule(&mut tx, "expire", "job", later).await.unwrap(), "there is none");
    assert!(queue::put(&mut tx, &item).await.unwrap());
    assert!(queue::reschedule(&mut tx, "expire", "job", later).await.unwrap());
    assert_eq!(queue::next_due(&mut tx, "expire").await.unwrap(), Some(later));
    let until = f.now().plus(Duration::from_secs(10));
    assert_eq!(queue::lease(&mut tx, "expire", "host", f.now(), until, 9).await.unwrap(), []);
    assert_eq!(
        queue::lease(&mut tx, "expire", "host", later, later.plus(Duration::from_secs(9)), 9)
            .await
            .unwrap()
            .len(),
        1
    );
}

/// On SQLite a transaction is alone anyway.
async fn a_bot_that_is_held_is_not_changed(engine: Engine) {
    let f = Fixture::new(engine).await;
    let mut one = f.tx().await;
    assert_eq!(bots::hold(&mut one, &f.oracle.id).await.unwrap().as_ref(), Some(&f.oracle));
    if engine == Engine::Sqlite {
        return;
    }
    let mut two = f.tx().await;
    assert_eq!(bots::hold(&mut two, &f.oracle.id).await.unwrap().as_ref(), Some(&f.oracle), "by several");
    drop(two);
    let mut three = f.tx().await;
    let waits = tokio::time::timeout(Duration::from_millis(300), bots::lock(&mut three, &f.oracle.id)).await;
    assert!(waits.is_err(), "whoever would delete it waits");
}

/// A market that was there before reputation.
async fn what_was_done_before_is_counted(engine: Engine) {
    let database = Database::new(engine).await;
    let before = |name: &String| name.as_str() < "0011";
    let steps = ringfence_store::migration_files().into_iter().filter(before).map(|file| {
        let (version, name) = file.trim_end_matches(".sql").split_once('_').unwrap();
        let folder = if engine == Engine::Sqlite { "sqlite" } else { "postgres" };
        let path = root().join("migrations").join(&file);
        let own = root().join("migrations").join(folder).join(&file);
        let text = std::fs::read_to_string(path).or_else(|_| std::fs::read_to_string(own)).unwrap();
        let (version, name) = (version.parse().unwrap(), name.to_owned().into());
        Migration::new(version, name, MigrationType::Simple, AssertSqlSafe(text).into_sql_str(), false)
    });
    let steps = Migrator::with_migrations(steps.collect::<Vec<_>>());
    let id = |kind: &str, number: u32| format!("{kind}_{number:026}");
    let (buyer, one, two) = (id("agent", 1), id("agent", 2), id("agent", 3));
    let (org, bot) = (id("org", 1), id("bot", 1));
    let mut rows = vec![format!("INSERT INTO orgs VALUES ('{org}', 'Org', 1)")];
    for agent in [&buyer, &one, &two, &id("agent", 4)] {
        rows.push(format!("INSERT INTO agents VALUES ('{agent}', '{org}', 'Agent', NULL, 1, 1)"));
    }
    let byte = if engine == Engine::Sqlite { "x'00'" } else { "'\\x00'" };
    rows.push(format!(
        "INSERT INTO components (org_id, digest, kind, size_bytes, imports, capabilities, wasm, created_at)
            VALUES ('{org}', 'digest', 'oracle', 1, '[]', '[]', {byte}, 1)"
    ));
    rows.push(format!(
        "INSERT INTO bots (id, org_id, name, description, kind, version, component_digest, config, grants, limits, status,
            created_at, updated_at) VALUES ('{bot}', '{org}', 'b', '', 'oracle', 1, 'digest', '{{}}', '{{}}', '{{}}', 'running', 1, 1)"
    ));
    // Resolved, expired, and two that are still funded: with one attempt, and with several.
    let jobs = [("resolved", 3), ("expired", 3), ("funded", 0), ("funded", 3)];
    for (number, (status, max_retries)) in (1..).zip(jobs) {
        let winner = if status == "resolved" {
            format!("'sub', '{one}', '{org}'")
        } else {
            "NULL, NULL, NULL".to_owned()
        };
        rows.push(format!(
            "INSERT INTO jobs (id, org_id, buyer_id, title, description, rubric, artifact_type, price, fee_bps, expiry,
                max_submissions, max_retries, status, oracle_bot_id, winning_submission_id, worker_id, worker_org_id,
                created_at, updated_at, ended_at) VALUES ('{}', '{org}', '{buyer}', 'Job {number}', '', 'r', 'json', 10, 2000, 9,
                100, {max_retries}, '{status}', '{bot}', {winner}, 1, 5, {})",
            id("job", number),
            if status == "funded" { "NULL" } else { "5" }
        ));
        for (place, worker) in [&one, &two].into_iter().enumerate() {
            rows.push(format!(
                "INSERT INTO participants VALUES ('{}', '{}', '{worker}', '{org}', '{org}', 1, NULL)",
                id("claim", number * 10 + place as u32),
                id("job", number)
            ));
        }
    }
    // The first wins job 1 after a failure; the second fails once everywhere, but at job 4 by the oracle's fault.
    let mut next = 0;
    for (job, worker, attempt, status, fault) in [
        (1, &one, 1, "failed", "NULL"),
        (1, &one, 2, "passed", "NULL"),
        (1, &two, 1, "failed", "NULL"),
        (2, &two, 1, "failed", "NULL"),
        (3, &two, 1, "failed", "NULL"),
        (4, &two, 1, "failed", "'trapped'"),
        (4, &one, 1, "failed", "NULL"),
    ] {
        next += 1;
        rows.push(format!(
            "INSERT INTO submissions (id, job_id, org_id, buyer_org_id, worker_id, attempt, content, content_digest, status,
                oracle_fault, created_at, judged_at) VALUES ('{}', '{}', '{org}', '{org}', '{worker}', {attempt}, '1', 'd',
                '{status}', {fault}, 2, {})",
            id("sub", next),
            id("job", job),
            10 + next
        ));
    }
    for (account, kind, owner) in [("a", "escrow", id("job", 1)), ("b", "agent", one.clone())] {
        rows.push(format!("INSERT INTO ledger_accounts (id, org_id, kind, owner_id, balance) VALUES ('{account}', '{org}', '{kind}', '{owner}', 0)"));
    }
    rows.push(format!(
        "INSERT INTO ledger_transfers (id, org_id, kind, debit_account_id, credit_account_id, amount, job_id, idempotency_id,
            created_at) VALUES ('x', '{org}', 'payout', 'a', 'b', 8, '{}', 'payout:1', 1)",
        id("job", 1)
    ));
    let rows = AssertSqlSafe(rows.join(";\n"));
    if engine == Engine::Postgres {
        let mut connection = PgConnection::connect(database.url()).await.unwrap();
        steps.run_direct(None, &mut connection, false).await.unwrap();
        sqlx::raw_sql(rows).execute(&mut connection).await.unwrap();
    } else {
        let url = format!("{}?mode=rwc", database.url());
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        steps.run_direct(None, &mut connection, false).await.unwrap();
        sqlx::raw_sql(rows).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
    let store = Store::connect(database.url()).await.unwrap();
    let mut reader = store.reader().await.unwrap();
    let mut found = Vec::new();
    for agent in [&one, &two, &buyer] {
        let row = reputation::get(&mut reader, &agent.parse().unwrap()).await.unwrap().unwrap();
        let submissions = (row.submissions_passed, row.submissions_failed);
        let money = (row.earned.as_micros(), row.spent.as_micros());
        found.push(((row.jobs_won, row.jobs_failed), row.completion_rate, submissions, money));
    }
    assert_eq!(
        found,
        [
            ((1, 0), Some(100), (1, 2), (8, 0)),
            ((0, 2), Some(0), (0, 3), (0, 0)),
            ((0, 0), None, (0, 0), (0, 10)),
        ]
    );
    assert_eq!(reputation::get(&mut reader, &id("agent", 4).parse().unwrap()).await.unwrap(), None);
    let history = reputation::history(&mut reader, &two.parse().unwrap(), 20).await.unwrap();
    let ended: Vec<_> = history.iter().map(|job| (job.title.as_str(), job.ended_at.as_micros())).collect();
    assert_eq!(ended, [("Job 3", 15), ("Job 2", 5)]);
}
