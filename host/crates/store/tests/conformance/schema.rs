//! The statements, the migrations and the plans.

use std::collections::BTreeSet;

use ringfence_model::{AgentId, BotId, MicroUsdc, Role, Timestamp};
use ringfence_store::jobs::{self, JobFilter, JobSort};
use ringfence_store::{Store, keys, kv};
use ringfence_testkit::{Database, Engine, on_both_engines, root};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _, SqlSafeStr as _, SqliteConnection,
};

use crate::fixture::Fixture;

on_both_engines!(
    every_statement_can_be_prepared,
    migrating_again_changes_nothing,
    what_was_there_before_a_step_is_kept,
    listings_use_an_index,
    no_statement_looks_at_every_row,
);

async fn prepare(fixture: &Fixture, statements: Vec<(String, String)>) {
    let url = fixture.database.url();
    if url.starts_with("postgres") {
        let mut connection = PgConnection::connect(url).await.unwrap();
        for (name, sql) in statements {
            let prepared = connection.prepare(AssertSqlSafe(sql).into_sql_str()).await;
            prepared.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    } else {
        let mut connection = SqliteConnection::connect(url).await.unwrap();
        for (name, sql) in statements {
            let prepared = connection.prepare(AssertSqlSafe(sql).into_sql_str()).await;
            prepared.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}

async fn every_statement_can_be_prepared(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let mut statements: Vec<_> = ringfence_store::all_statements()
        .into_iter()
        .map(|(name, sql)| (name.to_owned(), sql.to_owned()))
        .collect();
    assert!(statements.len() >= 125, "{}", statements.len());
    statements.extend(every_filter(&fixture).into_iter().flat_map(|filter| {
        [false, true].map(|many| (format!("{filter:?}"), jobs::list_statement(&filter, many)))
    }));
    prepare(&fixture, statements).await;
}

/// Every combination of filters, orders and directions: 2⁶ × 3 × 2.
fn every_filter(fixture: &Fixture) -> Vec<JobFilter> {
    let mut filters = Vec::new();
    for bits in 0..64u32 {
        for sort_by in [JobSort::CreatedAt, JobSort::Price, JobSort::Expiry] {
            for descending in [false, true] {
                let asked = |bit: u32| bits & (1 << bit) != 0;
                filters.push(JobFilter {
                    party: None,
                    status: asked(0).then_some(ringfence_model::JobStatus::Funded),
                    buyer_id: asked(1).then(|| fixture.buyer.id.clone()),
                    worker_id: asked(2).then(|| fixture.worker.id.clone()),
                    claims_seen_by: asked(2).then(|| fixture.worker.org_id.clone()),
                    artifact_type: asked(3).then(|| "json".to_owned()),
                    min_price: asked(4).then_some(MicroUsdc::ZERO),
                    max_price: asked(5).then_some(MicroUsdc::MAX),
                    sort_by,
                    descending,
                    limit: 50,
                    offset: 0,
                });
            }
        }
    }
    filters
}

async fn migrating_again_changes_nothing(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let again = Store::connect(fixture.database.url()).await.unwrap();
    let mut reader = again.reader().await.unwrap();
    assert!(ringfence_store::accounts::agent(&mut reader, &fixture.buyer.id).await.unwrap().is_some());
    if engine == Engine::Postgres {
        // Several hosts that start at once on a new database.
        let database = Database::new(engine).await;
        let (a, b, c) = tokio::join!(
            Store::connect(database.url()),
            Store::connect(database.url()),
            Store::connect(database.url())
        );
        assert!(a.is_ok() && b.is_ok() && c.is_ok());
    }
}

/// Keys that were made before keys had roles and scopes.
async fn what_was_there_before_a_step_is_kept(engine: Engine) {
    let database = Database::new(engine).await;
    let text = std::fs::read_to_string(root().join("migrations/0001_initial.sql")).unwrap();
    let kind = MigrationType::Simple;
    let first = Migration::new(1, "initial".into(), kind, AssertSqlSafe(text).into_sql_str(), false);
    let first = Migrator::with_migrations(vec![first]);
    let bot: BotId = "bot_00000000000000000000000000".parse().unwrap();
    let [bytes_a, bytes_bcd] = match engine {
        Engine::Sqlite => ["x'e4'", "x'00ff42'"],
        Engine::Postgres => ["'\\xe4'", "'\\x00ff42'"],
    };
    let (org, agent) = ("org_00000000000000000000000000", "agent_00000000000000000000000000");
    let rows = AssertSqlSafe(format!(
        "INSERT INTO orgs VALUES ('{org}', 'Org', 1);
        INSERT INTO agents VALUES ('{agent}', '{org}', 'Agent', NULL, 1, 1);
        INSERT INTO components (org_id, digest, kind, size_bytes, imports, capabilities, wasm, created_at)
            VALUES ('{org}', 'digest', 'bot', 1, '[]', '[]', {bytes_a}, 1);
        INSERT INTO bots (id, org_id, name, description, kind, version, component_digest, config, grants, limits, status,
            created_at, updated_at) VALUES ('{bot}', '{org}', 'bot', '', 'bot', 1, 'digest', '{{}}', '{{}}', '{{}}', 'running', 1, 1);
        INSERT INTO kv_entries VALUES ('{bot}', '{org}', {bytes_a}, {bytes_bcd}, 1);
        INSERT INTO kv_entries VALUES ('{bot}', '{org}', {bytes_bcd}, {bytes_a}, 1);
        INSERT INTO api_keys VALUES ('key_00000000000000000000000000', '{org}', '{agent}', 'a', 'rf_a', 1, NULL);
        INSERT INTO api_keys VALUES ('key_00000000000000000000000001', '{org}', NULL, 'b', 'rf_b', 2, 3);"
    ));
    if engine == Engine::Postgres {
        let mut connection = PgConnection::connect(database.url()).await.unwrap();
        first.run_direct(None, &mut connection, false).await.unwrap();
        sqlx::raw_sql(rows).execute(&mut connection).await.unwrap();
    } else {
        let url = format!("{}?mode=rwc", database.url());
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        first.run_direct(None, &mut connection, false).await.unwrap();
        sqlx::raw_sql(rows).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
    let store = Store::connect(database.url()).await.unwrap();
    let found = keys::list(&mut store.reader().await.unwrap(), &org.parse().unwrap(), 9, 0).await.unwrap();
    let [operators, agents] = &found.items[..] else { panic!("{found:?}") };
    assert_eq!((operators.agent_id.as_ref(), operators.role), (None, Some(Role::Operator)));
    assert_eq!((operators.name.as_str(), operators.prefix.as_str()), ("first operator key", "rf_b"));
    assert_eq!(operators.revoked_at, Some(Timestamp::from_micros(3)));
    assert_eq!((agents.agent_id.as_ref().map(AgentId::as_str), agents.role), (Some(agent), None));
    assert_eq!((agents.name.as_str(), agents.revoked_at, agents.last_used_at), ("", None, None));
    let used = kv::used_bytes(&mut store.reader().await.unwrap(), &bot).await.unwrap();
    assert_eq!(used, 2 * (1 + 3 + 64), "bytes, not characters");
    for key in [operators, agents] {
        assert_eq!((&key.scopes[..], key.expires_at), (&["*".to_owned()][..], None));
        assert_eq!((key.reads_per_minute, key.writes_per_minute), (None, None));
    }
}

/// With one filter at most, no listing looks at every job and none sorts them. (A range of prices in another order than
/// theirs walks in that order, if many are in it.)
async fn listings_use_an_index(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let single = every_filter(&fixture).into_iter().filter(|filter| {
        let several = [filter.status.is_some(), filter.buyer_id.is_some(), filter.artifact_type.is_some()];
        filter.worker_id.is_none() && several.iter().filter(|asked| **asked).count() <= 1
    });
    for filter in single {
        let prices = filter.min_price.is_some() || filter.max_price.is_some();
        let sql = jobs::list_statement(&filter, prices && filter.sort_by != JobSort::Price);
        listing_uses_an_index(&fixture, &sql).await;
    }
}

/// A listing of jobs finds those that it shows in an index, in their order. The few that it reads are put into it then.
pub(crate) async fn listing_uses_an_index(fixture: &Fixture, sql: &str) {
    uses_an_index(sql, &plan(fixture, sql).await);
    let (_, found) = sql.split_once("WHERE id IN (").unwrap();
    let (found, _) = found.rsplit_once(") ORDER").unwrap();
    let plan = plan(fixture, found).await;
    uses_an_index(found, &plan);
    does_not_sort(found, &plan);
}

async fn no_statement_looks_at_every_row(engine: Engine) {
    // What is put together out of several parts, each of which is read by an index and bounded.
    const SORTED: [&str; 5] = [
        "ledger::booking::ACCOUNTS_OF",
        "ledger::listing::OF_ACCOUNT",
        "ledger::listing::OF_ACCOUNT_AND_KIND",
        "market_bots::FROM_PLACE",
        "queue::NEXT_DUE",
    ];
    let fixture = Fixture::new(engine).await;
    for (name, sql) in ringfence_store::all_statements() {
        let name = name.trim_start_matches("ringfence_store::");
        // To look at every row is what the check of the ledger is for.
        if name.starts_with("ledger::check::") {
            continue;
        }
        let plan = plan(&fixture, sql).await;
        uses_an_index(name, &plan);
        if !SORTED.contains(&name) {
            does_not_sort(name, &plan);
        }
    }
}

pub(crate) fn uses_an_index(sql: &str, plan: &str) {
    for line in plan.lines() {
        // SQLite tells of a walk through a table as of one through an index, or through what a part has found.
        let of_part = |name| plan.contains(&format!("CO-ROUTINE {name}"));
        let walk = line.strip_prefix("SCAN ").is_some_and(|name| !name.contains(" INDEX ") && !of_part(name));
        assert!(!walk && !line.contains("Seq Scan"), "{sql}\n{plan}");
    }
}

pub(crate) fn does_not_sort(sql: &str, plan: &str) {
    assert!(!plan.contains("TEMP B-TREE") && !plan.contains("Sort"), "{sql}\n{plan}");
}

/// How a statement is carried out, whatever its arguments.
pub(crate) async fn plan(fixture: &Fixture, sql: &str) -> String {
    let url = fixture.database.url();
    if url.starts_with("postgres") {
        let mut connection = PgConnection::connect(url).await.unwrap();
        // An empty table is read whole whatever there is; what is asked here is whether it could be otherwise.
        let settings = "SET enable_seqscan = off; SET enable_sort = off; SET plan_cache_mode = force_generic_plan; SET jit = off";
        sqlx::raw_sql(settings).execute(&mut connection).await.unwrap();
        let arguments = (1..).take_while(|number| sql.contains(&format!("${number}"))).count();
        let arguments = vec!["NULL"; arguments].join(", ");
        let prepare = AssertSqlSafe(format!("PREPARE asked AS {sql}"));
        sqlx::raw_sql(prepare).execute(&mut connection).await.unwrap();
        let arguments = if arguments.is_empty() { arguments } else { format!("({arguments})") };
        let explain = AssertSqlSafe(format!("EXPLAIN EXECUTE asked {arguments}"));
        let rows = sqlx::raw_sql(explain).fetch_all(&mut connection).await.unwrap();
        rows.iter().map(|row| row.get::<String, _>(0) + "\n").collect()
    } else {
        let mut connection = SqliteConnection::connect(url).await.unwrap();
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let rows = sqlx::query(explain).fetch_all(&mut connection).await.unwrap();
        rows.iter().map(|row| row.get::<String, _>("detail") + "\n").collect()
    }
}

/// The steps that are written twice end in one schema.
#[tokio::test]
async fn both_engines_end_in_the_same_tables() {
    let (sqlite, postgres) = (Fixture::new(Engine::Sqlite).await, Fixture::new(Engine::Postgres).await);
    let mut sqlite = SqliteConnection::connect(sqlite.database.url()).await.unwrap();
    let mut postgres = PgConnection::connect(postgres.database.url()).await.unwrap();
    // SQLite takes NULL for a primary key unless it is told not to, and the store never writes one.
    let of_sqlite = "SELECT m.name || '.' || c.name || ' ' || lower(c.type)
            || CASE WHEN c.\"notnull\" = 1 OR c.pk > 0 THEN '' ELSE ' or null' END AS what
        FROM sqlite_master m JOIN pragma_table_info(m.name) c
        WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite~_%' ESCAPE '~' AND m.name <> '_sqlx_migrations'
        UNION ALL SELECT 'index ' || name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL";
    let of_postgres = "SELECT table_name || '.' || column_name || ' ' || data_type
            || CASE is_nullable WHEN 'YES' THEN ' or null' ELSE '' END AS what
        FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> '_sqlx_migrations'
        UNION ALL SELECT 'index ' || i.indexname FROM pg_indexes i WHERE i.schemaname = 'public'
            AND i.indexname NOT IN (SELECT conname FROM pg_constraint)";
    let rows = sqlx::query(of_sqlite).fetch_all(&mut sqlite).await.unwrap();
    let of_sqlite: BTreeSet<String> = rows.iter().map(|row| row.get("what")).collect();
    let rows = sqlx::query(of_postgres).fetch_all(&mut postgres).await.unwrap();
    let of_postgres: BTreeSet<String> = rows.iter().map(|row| row.get("what")).collect();
    let one_sided: Vec<_> = of_sqlite.symmetric_difference(&of_postgres).collect();
    assert!(one_sided.is_empty(), "{one_sided:?}");
    assert!(
        of_sqlite.contains("audit_log.seq bigint") && of_sqlite.contains("users.deleted_at bigint or null")
    );
}

#[test]
fn every_migration_on_disk_is_built_in() {
    let portable = files("migrations");
    for engine in ["migrations/sqlite", "migrations/postgres"] {
        let mut on_disk = [portable.clone(), files(engine)].concat();
        on_disk.sort();
        assert_eq!(on_disk, ringfence_store::migration_files(), "{engine}");
    }
}

fn files(folder: &str) -> Vec<String> {
    std::fs::read_dir(root().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".sql"))
        .collect()
}
