//! The same job as `orders-report`, done plausibly and wrongly: money as floating point with every comma
//! taken for a thousands separator, and orders that were sent twice counted twice. The oracle says so.

use std::collections::BTreeMap;

use ringfence::Failure;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
pub struct Orders {
    pub csv: String,
}

#[derive(Serialize)]
pub struct Report {
    pub rows: Vec<Sum>,
    pub counts: Counts,
    pub grand_total_cents: i64,
    pub rejected: Vec<Rejected>,
}

#[derive(Serialize)]
pub struct Sum {
    pub customer: String,
    pub month: String,
    pub orders: u64,
    pub total_cents: i64,
}

#[derive(Default, Serialize)]
pub struct Counts {
    pub rows_read: u64,
    pub kept: u64,
    pub duplicates: u64,
    pub cancelled: u64,
    pub rejected: u64,
}

#[derive(Serialize)]
pub struct Rejected {
    pub line: usize,
    pub reason: &'static str,
}

#[ringfence::bot]
pub fn handle(orders: Orders) -> Result<Report, Failure> {
    let mut counts = Counts::default();
    let mut rejected = Vec::new();
    let mut sums = BTreeMap::<(String, String), (u64, i64)>::new();
    for (index, line) in orders.csv.lines().enumerate().skip(1).filter(|(_, line)| !line.trim().is_empty()) {
        counts.rows_read += 1;
        match read(line) {
            Err(reason) => rejected.push(Rejected { line: index + 1, reason }),
            Ok((_, _, _, status)) if status.starts_with("cancel") => counts.cancelled += 1,
            Ok((customer, month, cents, _)) => {
                counts.kept += 1;
                let (orders, total) = sums.entry((customer, month)).or_default();
                *orders += 1;
                *total += cents;
            }
        }
    }
    counts.rejected = rejected.len() as u64;
    let grand_total_cents = sums.values().map(|(_, cents)| cents).sum();
    let rows = sums
        .into_iter()
        .map(|((customer, month), (orders, total_cents))| Sum { customer, month, orders, total_cents })
        .collect();
    Ok(Report { rows, counts, grand_total_cents, rejected })
}

/// Customer, month, cents and status of a line.
fn read(line: &str) -> Result<(String, String, i64, String), &'static str> {
    let mut quoted = false;
    let fields: Vec<String> = line
        .split(|letter| {
            quoted ^= letter == '"';
            letter == ',' && !quoted
        })
        .map(|field| field.trim().trim_matches('"').trim().to_lowercase())
        .collect();
    let [_, customer, date, status, amount] = fields.as_slice() else { return Err("field_count") };
    if customer.is_empty() {
        return Err("customer");
    }
    let words: Vec<String> = customer.split_whitespace().map(capitalized).collect();
    let cents = cents(amount).ok_or("amount")?;
    Ok((words.join(" "), month(date).ok_or("date")?, cents, status.clone()))
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn month(date: &str) -> Option<String> {
    let parts: Vec<&str> = date.split(['-', '.', '/', ' ']).collect();
    let [first, second, third] = parts.as_slice() else { return None };
    let months = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let (year, month) = match months.iter().position(|name| name == second) {
        Some(index) => (*third, index + 1),
        None if date.contains('-') => (*first, second.parse().ok()?),
        None if date.contains('/') => (*third, first.parse().ok()?),
        None => (*third, second.parse().ok()?),
    };
    (1..=12).contains(&month).then(|| format!("{year}-{month:02}"))
}

fn cents(amount: &str) -> Option<i64> {
    let number: String = amount.chars().filter(|letter| letter.is_ascii_digit() || *letter == '.').collect();
    Some((number.parse::<f64>().ok()? * 100.0).round() as i64)
}
