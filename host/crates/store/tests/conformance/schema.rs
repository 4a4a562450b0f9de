//! The statements, the migrations and the plans.

use ringfence_model::MicroUsdc;
use ringfence_store::Store;
use ringfence_store::jobs::{self, JobFilter, JobSort};
use ringfence_testkit::{Engine, on_both_engines, root};
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _, SqlSafeStr as _, SqliteConnection,
};

use crate::fixture::Fixture;

on_both_engines!(every_statement_can_be_prepared, migrating_again_changes_nothing, listings_use_an_index);

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
    assert!(statements.len() > 60, "{}", statements.len());
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
                    status: asked(0).then_some(ringfence_model::JobStatus::Funded),
                    buyer_id: asked(1).then(|| fixture.buyer.id.clone()),
                    worker_id: asked(2).then(|| fixture.worker.id.clone()),
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
        let database = ringfence_testkit::Database::new(engine).await;
        let (a, b, c) = tokio::join!(
            Store::connect(database.url()),
            Store::connect(database.url()),
            Store::connect(database.url())
        );
        assert!(a.is_ok() && b.is_ok() && c.is_ok());
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
        let plan = plan(&fixture, &sql, &filter).await;
        assert!(plan.contains("INDEX jobs_by") || plan.contains("Index Scan"), "{sql}\n{plan}");
        assert!(!plan.contains("TEMP B-TREE") && !plan.contains("Sort"), "{sql}\n{plan}");
    }
}

async fn plan(fixture: &Fixture, sql: &str, filter: &JobFilter) -> String {
    let url = fixture.database.url();
    if url.starts_with("postgres") {
        let mut connection = PgConnection::connect(url).await.unwrap();
        // An empty table is read whole whatever there is; what is asked here is whether it could be otherwise.
        sqlx::query("SET enable_seqscan = off").execute(&mut connection).await.unwrap();
        sqlx::query("SET enable_bitmapscan = off").execute(&mut connection).await.unwrap();
        let mut literal = sql.to_owned();
        let values = [
            filter.status.map(|status| format!("'{status}'")),
            filter.buyer_id.as_ref().map(|id| format!("'{id}'")),
            filter.artifact_type.as_ref().map(|kind| format!("'{kind}'")),
            filter.min_price.map(|price| price.as_micros().to_string()),
            filter.max_price.map(|price| price.as_micros().to_string()),
            filter.worker_id.as_ref().map(|id| format!("'{id}'")),
            Some("50".to_owned()),
            Some("0".to_owned()),
        ];
        for (number, value) in values.into_iter().flatten().enumerate() {
            literal = literal.replace(&format!("${}", number + 1), &value);
        }
        let rows = sqlx::query(AssertSqlSafe(format!("EXPLAIN {literal}")))
            .fetch_all(&mut connection)
            .await
            .unwrap();
        rows.iter().map(|row| row.get::<String, _>(0) + "\n").collect()
    } else {
        let mut connection = SqliteConnection::connect(url).await.unwrap();
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let rows = sqlx::query(explain).fetch_all(&mut connection).await.unwrap();
        rows.iter().map(|row| row.get::<String, _>("detail") + "\n").collect()
    }
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
