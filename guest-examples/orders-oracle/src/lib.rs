//! The oracle of the job "clean these orders and sum them per customer and month".
//!
//! It reads the job's input by the rules of `../data/rubric.md` with code of its own (`expected.rs` shares
//! nothing with the bot's), and compares every part of a submission with what it found: form, order,
//! accounting of rows, rejected rows, and sums by customer, by month, by both, and in all.

mod expected;

use std::collections::BTreeMap;
use std::fmt::Display;

use ringfence::{Checks, Failure, Job, Submission, Verdict};
use serde::Deserialize;

use expected::{Cells, Expected};

/// The job's input.
#[derive(Deserialize)]
pub struct Input {
    csv: String,
}

/// What a worker delivers. Numbers that don't fit are as wrong as words.
#[derive(Deserialize)]
pub struct Report {
    rows: Vec<Row>,
    counts: BTreeMap<String, i64>,
    grand_total_cents: i64,
    rejected: Vec<Rejected>,
}

#[derive(Deserialize)]
struct Row {
    customer: String,
    month: String,
    orders: i64,
    total_cents: i64,
}

#[derive(Deserialize)]
struct Rejected {
    line: i64,
    reason: String,
}

#[ringfence::oracle]
pub fn evaluate(job: Job<Input>, submission: Submission<Report>) -> Result<Verdict, Failure> {
    let expected =
        Expected::from_csv(&job.input.csv).map_err(|error| Failure::new("bad_job_input", error))?;
    let report = submission.content;
    let found: Vec<_> =
        report.rows.iter().map(|row| (&row.customer, &row.month, row.orders, row.total_cents)).collect();
    let found_total: i128 = found.iter().map(|(.., cents)| i128::from(*cents)).sum();

    let mut checks = Checks::new();
    checks.check("each row is written as agreed", form(&report.rows));
    checks.check("rows are ordered by customer and month, each once", order(&report.rows));
    checks.weighted(2, "counts account for the rows of the input", counts(&expected, &report.counts));
    checks.weighted(2, "rejected rows and their reasons", rejected(&expected, &report.rejected));
    checks.check(
        "the grand total is the sum of the rows",
        same("the sum of the rows", found_total, "grand_total_cents", i128::from(report.grand_total_cents)),
    );

    let by_customer = |customer: &str, _: &str| customer.to_owned();
    let by_month = |_: &str, month: &str| month.to_owned();
    let by_both = |customer: &str, month: &str| format!("{customer}, {month}");
    let sums = |key: &dyn Fn(&str, &str) -> String| {
        let found = found.iter().map(|(customer, month, orders, cents)| {
            (key(customer, month), (i128::from(*orders), i128::from(*cents)))
        });
        compare(&expected.sums(key), &collect(found))
    };
    checks.weighted(3, "orders and sum of each customer", sums(&by_customer));
    checks.weighted(3, "orders and sum of each month", sums(&by_month));
    checks.weighted(3, "orders and sum of each customer and month", sums(&by_both));
    checks.weighted(
        3,
        "the grand total",
        same("expected cents", expected.total_cents(), "found cents", i128::from(report.grand_total_cents)),
    );
    Ok(checks.verdict())
}

type Outcome = Result<String, String>;

fn form(rows: &[Row]) -> Outcome {
    for (number, row) in (1..).zip(rows) {
        let fault = if expected::customer(&row.customer).as_deref() != Some(&row.customer) {
            "its customer is not in the agreed writing"
        } else if !expected::is_month(&row.month) {
            "its month is not YYYY-MM"
        } else if row.orders < 1 || row.total_cents < 0 {
            "orders has to be 1 or more, and total_cents 0 or more"
        } else {
            continue;
        };
        return Err(format!("row {number} ({}, {}): {fault}", shown(&row.customer), shown(&row.month)));
    }
    Ok(format!("{} rows", rows.len()))
}

fn order(rows: &[Row]) -> Outcome {
    let key = |row: &Row| (row.customer.clone(), row.month.clone());
    match rows.iter().zip(rows.iter().skip(1)).find(|(row, next)| key(row) >= key(next)) {
        None => Ok("in order".to_owned()),
        Some((row, next)) => Err(format!(
            "{}, {} comes before {}, {}",
            shown(&row.customer),
            shown(&row.month),
            shown(&next.customer),
            shown(&next.month)
        )),
    }
}

fn counts(expected: &Expected, found: &BTreeMap<String, i64>) -> Outcome {
    let differences: Vec<String> = expected
        .counts()
        .into_iter()
        .filter(|(name, count)| found.get(*name) != Some(count))
        .map(|(name, count)| match found.get(name) {
            Some(found) => format!("{name}: expected {count}, found {found}"),
            None => format!("{name}: expected {count}, found none"),
        })
        .collect();
    if differences.is_empty() { Ok("all as in the input".to_owned()) } else { Err(differences.join("; ")) }
}

fn rejected(expected: &Expected, found: &[Rejected]) -> Outcome {
    let expected: Vec<(i64, &str)> =
        expected.rejected.iter().map(|(line, reason)| (*line, *reason)).collect();
    let found: Vec<(i64, &str)> = found.iter().map(|row| (row.line, row.reason.as_str())).collect();
    let say = |row: Option<&(i64, &str)>| match row {
        Some((line, reason)) => format!("line {line} ({})", shown(reason)),
        None => "no more".to_owned(),
    };
    match (0..expected.len().max(found.len())).find(|index| expected.get(*index) != found.get(*index)) {
        None => Ok(format!("{} rows", found.len())),
        Some(index) => Err(format!(
            "entry {}: expected {}, found {}",
            index + 1,
            say(expected.get(index)),
            say(found.get(index))
        )),
    }
}

fn same<T: PartialEq + Display>(left: &str, a: T, right: &str, b: T) -> Outcome {
    let text = format!("{left}: {a}, {right}: {b}");
    if a == b { Ok(text) } else { Err(text) }
}

fn collect(sums: impl Iterator<Item = (String, (i128, i128))>) -> Cells {
    let mut cells = Cells::new();
    for (key, (orders, cents)) in sums {
        let cell = cells.entry(key).or_default();
        *cell = (cell.0 + orders, cell.1 + cents);
    }
    cells
}

fn compare(expected: &Cells, found: &Cells) -> Outcome {
    let keys: std::collections::BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let mut different = keys.iter().filter(|key| expected.get(**key) != found.get(**key));
    let say = |cell: Option<&(i128, i128)>| match cell {
        Some((orders, cents)) => format!("{orders} orders of {cents} cents"),
        None => "none".to_owned(),
    };
    match different.next() {
        None => Ok(format!("all {} right", expected.len())),
        Some(key) => Err(format!(
            "{} of {} are wrong; the first is {}: expected {}, found {}",
            different.count() + 1,
            keys.len(),
            shown(key),
            say(expected.get(*key)),
            say(found.get(*key))
        )),
    }
}

/// A worker's text in a sentence: quoted, and not longer than a sentence bears.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    if short.len() < text.len() { format!("{short:?}…") } else { format!("{short:?}") }
}
