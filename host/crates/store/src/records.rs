//! Finished calls, written many at a time: what each was, its lines, and the sums of the day.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use ringfence_model::{BotId, OrgId};
use sqlx::AssertSqlSafe;

use crate::invocations::{COLUMNS, Invocation, Usage};
use crate::session::{Arg, args};
use crate::statements::parameters;
use crate::{Session, StoreError};

/// A call as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The call.
    pub call: Invocation,
    /// What it wrote, a JSON array; `None` if it wrote nothing.
    pub lines: Option<String>,
}

/// A statement that writes so many rows. To SQLite `$1` is a name, and to ask for the name of each parameter it looks
/// from the first on: with hundreds of them that would take longer than all the rest. `?` has no name.
struct Batch {
    rows: usize,
    sqlite: String,
    postgres: String,
}

/// A statement for 64 rows, one for 8 and one for 1: any number is made of them, and each is prepared once a connection.
type Batches = LazyLock<[Batch; 3]>;

static INSERT: Batches = LazyLock::new(|| batches(&format!("INSERT INTO invocations ({COLUMNS})"), 25, ""));

static INSERT_LOGS: Batches =
    LazyLock::new(|| batches("INSERT INTO invocation_logs (invocation_id, org_id, lines)", 3, ""));

static ADD_USAGE: Batches = LazyLock::new(|| {
    let insert =
        "INSERT INTO usage_by_day (org_id, day, bot_id, calls, completed, peak_memory_bytes, fuel, wall_us,
        cpu_us, host_calls, log_bytes, input_bytes, output_bytes, egress_sent_bytes, egress_received_bytes,
        llm_input_tokens, llm_output_tokens)";
    let add = "ON CONFLICT (org_id, day, bot_id) DO UPDATE SET
        calls = usage_by_day.calls + excluded.calls,
        completed = usage_by_day.completed + excluded.completed,
        peak_memory_bytes = CASE WHEN excluded.peak_memory_bytes > usage_by_day.peak_memory_bytes
            THEN excluded.peak_memory_bytes ELSE usage_by_day.peak_memory_bytes END,
        fuel = usage_by_day.fuel + excluded.fuel,
        wall_us = usage_by_day.wall_us + excluded.wall_us,
        cpu_us = usage_by_day.cpu_us + excluded.cpu_us,
        host_calls = usage_by_day.host_calls + excluded.host_calls,
        log_bytes = usage_by_day.log_bytes + excluded.log_bytes,
        input_bytes = usage_by_day.input_bytes + excluded.input_bytes,
        output_bytes = usage_by_day.output_bytes + excluded.output_bytes,
        egress_sent_bytes = usage_by_day.egress_sent_bytes + excluded.egress_sent_bytes,
        egress_received_bytes = usage_by_day.egress_received_bytes + excluded.egress_received_bytes,
        llm_input_tokens = usage_by_day.llm_input_tokens + excluded.llm_input_tokens,
        llm_output_tokens = usage_by_day.llm_output_tokens + excluded.llm_output_tokens";
    batches(insert, 17, add)
});

fn batches(insert: &str, columns: usize, then: &str) -> [Batch; 3] {
    [64, 8, 1].map(|rows| {
        let sqlite = vec![format!("({})", vec!["?"; columns].join(", ")); rows].join(", ");
        let statement = |values: &str| format!("{insert} VALUES {values} {then}");
        Batch { rows, sqlite: statement(&sqlite), postgres: statement(&parameters(rows, columns)) }
    })
}

/// Keeps calls and their lines, and adds them to the sums of their day.
///
/// # Errors
/// Those of the database; then nothing may be committed.
pub async fn insert(s: &mut Session, records: &[Record]) -> Result<(), StoreError> {
    keep(s, records).await?;
    // In one order on every host: two that add to the same rows never wait for each other in a circle.
    let mut sums = BTreeMap::<_, Sum>::new();
    for Record { call, .. } in records {
        sums.entry((&call.org_id, day_of(call), &call.bot_id)).or_default().add(call);
    }
    write_sums(s, sums).await
}

/// Adds the run of an oracle, which is kept, to the sums of its day: whatever else the transaction does is done before, for
/// all runs of the oracle meet there.
///
/// # Errors
/// Those of the database; then nothing may be committed.
pub async fn add_run(s: &mut Session, call: &Invocation, passed: bool) -> Result<(), StoreError> {
    let mut sum = Sum { calls: 1, ..Sum::default() };
    if passed {
        sum.add_use(call);
    }
    write_sums(s, BTreeMap::from([((&call.org_id, day_of(call), &call.bot_id), sum)])).await
}

/// Keeps calls and their lines.
///
/// # Errors
/// Those of the database; then nothing may be committed.
pub async fn keep(s: &mut Session, records: &[Record]) -> Result<(), StoreError> {
    write(s, &INSERT, records.iter().map(|record| call_args(&record.call)).collect()).await?;
    let lines = records.iter().filter_map(|record| {
        let lines = record.lines.as_ref()?;
        Some(args![&record.call.id, &record.call.org_id, lines])
    });
    write(s, &INSERT_LOGS, lines.collect()).await
}

async fn write_sums(s: &mut Session, sums: BTreeMap<(&OrgId, i64, &BotId), Sum>) -> Result<(), StoreError> {
    let rows = sums.into_iter().map(|((org, day, bot), sum)| {
        let usage = &sum.usage;
        let mut row = args![
            org,
            day,
            bot,
            int(sum.calls),
            int(sum.completed),
            int(usage.peak_memory_bytes),
            int(usage.fuel)
        ];
        row.extend(amounts(usage));
        row
    });
    write(s, &ADD_USAGE, rows.collect()).await
}

#[derive(Default)]
struct Sum {
    calls: u64,
    completed: u64,
    usage: Usage,
}

impl Sum {
    /// Adds a call. Of one about a submission, what it used could carry the work to a buyer who has not paid for it, and
    /// so could a sum: it is counted, and added only where the submission has passed ([`add_run`]).
    fn add(&mut self, call: &Invocation) {
        self.calls += 1;
        if call.submission_id.is_none() {
            self.add_use(call);
        }
    }

    fn add_use(&mut self, call: &Invocation) {
        self.completed += u64::from(call.outcome == "completed");
        let (sum, usage) = (&mut self.usage, &call.usage);
        sum.peak_memory_bytes = sum.peak_memory_bytes.max(usage.peak_memory_bytes);
        for (sum, more) in [
            (&mut sum.fuel, usage.fuel),
            (&mut sum.wall_us, usage.wall_us),
            (&mut sum.cpu_us, usage.cpu_us),
            (&mut sum.host_calls, usage.host_calls),
            (&mut sum.log_bytes, usage.log_bytes),
            (&mut sum.input_bytes, usage.input_bytes),
            (&mut sum.output_bytes, usage.output_bytes),
            (&mut sum.egress_sent_bytes, usage.egress_sent_bytes),
            (&mut sum.egress_received_bytes, usage.egress_received_bytes),
            (&mut sum.llm_input_tokens, usage.llm_input_tokens),
            (&mut sum.llm_output_tokens, usage.llm_output_tokens),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

/// The midnight in UTC before a call, in microseconds.
fn day_of(call: &Invocation) -> i64 {
    const DAY_US: i64 = 86_400_000_000;
    let at = call.started_at.as_micros();
    at - at.rem_euclid(DAY_US)
}

/// Writes any number of rows.
async fn write(s: &mut Session, batches: &'static [Batch; 3], rows: Vec<Vec<Arg>>) -> Result<(), StoreError> {
    let mut rows = rows.into_iter();
    for batch in batches {
        let sql = if s.is_postgres() { &batch.postgres } else { &batch.sqlite };
        while rows.len() >= batch.rows {
            let args = rows.by_ref().take(batch.rows).flatten().collect();
            let sql = AssertSqlSafe(sql.as_str());
            if batch.rows == 1 {
                s.execute(sql, args).await?
            } else {
                s.execute_many(sql, args).await?
            };
        }
    }
    Ok(())
}

fn call_args(call: &Invocation) -> Vec<Arg> {
    let mut row = args![
        &call.id,
        &call.org_id,
        &call.bot_id,
        call.bot_version,
        &call.component_digest,
        call.submission_id.as_ref(),
        &call.outcome,
        call.detail.as_ref(),
        &call.input_digest,
        call.output_digest.as_ref(),
        &call.limits,
        &call.engine,
        call.started_at,
        int(call.usage.peak_memory_bytes),
        int(call.usage.fuel),
    ];
    row.extend(amounts(&call.usage));
    row
}

/// What is added up, after the fuel, in the order of the columns.
fn amounts(usage: &Usage) -> [Arg; 10] {
    [
        usage.wall_us,
        usage.cpu_us,
        usage.host_calls,
        usage.log_bytes,
        usage.input_bytes,
        usage.output_bytes,
        usage.egress_sent_bytes,
        usage.egress_received_bytes,
        usage.llm_input_tokens,
        usage.llm_output_tokens,
    ]
    .map(|amount| int(amount).into())
}

fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
