//! A bot that cleans a messy CSV of orders and sums it per customer and month.
//!
//! The rules are the buyer's: `../data/rubric.md`, repeated in the README. `row.rs` reads one line by
//! them, this file adds up.

mod row;

use std::collections::{BTreeMap, HashSet};

use ringfence::{Failure, log};
use serde::{Deserialize, Serialize};

use row::{Row, Status};

/// What the bot is asked to do.
#[derive(Deserialize)]
#[serde(from = "Asked")]
pub struct Orders {
    /// The CSV text, header first.
    pub csv: String,
}

/// Asked by a call, or by a job of the market, which has the orders as its input.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected `csv`, or a `job` with it in its `input`")]
enum Asked {
    Call(Csv),
    Work { job: Job },
}

#[derive(Deserialize)]
struct Job {
    input: Csv,
}

#[derive(Deserialize)]
struct Csv {
    csv: String,
}

impl From<Asked> for Orders {
    fn from(asked: Asked) -> Self {
        let (Asked::Call(Csv { csv }) | Asked::Work { job: Job { input: Csv { csv } } }) = asked;
        Self { csv }
    }
}

/// What it answers.
#[derive(Debug, Serialize)]
pub struct Report {
    /// One entry for each customer and month, in that order.
    pub rows: Vec<Sum>,
    /// What became of the rows.
    pub counts: Counts,
    /// The sum over all of `rows`.
    pub grand_total_cents: i64,
    /// The rows that are no orders, in the order of their lines.
    pub rejected: Vec<Rejected>,
}

/// What one customer ordered in one month.
#[derive(Debug, PartialEq, Serialize)]
pub struct Sum {
    pub customer: String,
    /// `YYYY-MM`
    pub month: String,
    pub orders: u64,
    pub total_cents: i64,
}

/// `rows_read` is the sum of the others.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Counts {
    pub rows_read: u64,
    pub kept: u64,
    pub duplicates: u64,
    pub cancelled: u64,
    pub rejected: u64,
}

/// A row that is no order.
#[derive(Debug, PartialEq, Serialize)]
pub struct Rejected {
    /// 1 is the header's.
    pub line: u64,
    pub reason: &'static str,
}

#[ringfence::bot]
pub fn handle(orders: Orders) -> Result<Report, Failure> {
    let mut lines = (1..).zip(orders.csv.trim_start_matches('\u{feff}').split('\n'));
    let header = lines.next().map_or("", |(_, line)| line.trim());
    if header != row::HEADER {
        return Err(Failure::bad_input(format!("the first line is `{header}`, and not `{}`", row::HEADER)));
    }

    let mut counts = Counts::default();
    let mut rejected = Vec::new();
    let mut seen = HashSet::new();
    let mut sums = BTreeMap::<(String, String), (u64, i64)>::new();
    for (line, text) in lines.filter(|(_, text)| !text.trim().is_empty()) {
        counts.rows_read += 1;
        match row::read(text) {
            Err(reason) => {
                counts.rejected += 1;
                rejected.push(Rejected { line, reason });
            }
            Ok(Row { order_id, .. }) if seen.contains(&order_id) => counts.duplicates += 1,
            Ok(Row { order_id, customer, month, status, cents }) => {
                seen.insert(order_id);
                if status == Status::Cancelled {
                    counts.cancelled += 1;
                    continue;
                }
                counts.kept += 1;
                let (orders, total) = sums.entry((customer, month)).or_default();
                *orders += 1;
                *total =
                    total.checked_add(cents).ok_or_else(|| Failure::bad_input("the sums are too large"))?;
            }
        }
    }

    log::info!("summed the orders"; rows = counts.rows_read, kept = counts.kept, rejected = counts.rejected);
    let grand_total_cents = sums
        .values()
        .try_fold(0_i64, |sum, (_, cents)| sum.checked_add(*cents))
        .ok_or_else(|| Failure::bad_input("the sums are too large"))?;
    let rows = sums
        .into_iter()
        .map(|((customer, month), (orders, total_cents))| Sum { customer, month, orders, total_cents })
        .collect();
    Ok(Report { rows, counts, grand_total_cents, rejected })
}

#[cfg(test)]
mod tests;
