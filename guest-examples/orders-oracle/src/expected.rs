//! What the rules of `data/rubric.md` make of a CSV.

use std::collections::{BTreeMap, BTreeSet};

/// Orders and cents by some key.
pub type Cells = BTreeMap<String, (i128, i128)>;

/// The right result, in a form that is easy to compare with.
#[derive(Default)]
pub struct Expected {
    kept: Vec<Order>,
    duplicates: i64,
    cancelled: i64,
    /// Line and reason, by line.
    pub rejected: Vec<(i64, &'static str)>,
}

struct Order {
    id: String,
    customer: String,
    month: String,
    cancelled: bool,
    cents: i128,
}

impl Expected {
    /// Reads the whole input. An error means that the job is no job for this oracle.
    pub fn from_csv(csv: &str) -> Result<Self, String> {
        let mut expected = Self::default();
        let mut ids = BTreeSet::new();
        for (index, line) in csv.strip_prefix('\u{feff}').unwrap_or(csv).split('\n').enumerate() {
            if index == 0 {
                if line.trim() != "order_id,customer,date,status,amount" {
                    return Err("the CSV's first line is not the header that the rubric names".to_owned());
                }
            } else if line.chars().any(|letter| !letter.is_whitespace()) {
                match Order::read(line) {
                    Err(reason) => {
                        expected.rejected.push((i64::try_from(index).unwrap_or(i64::MAX) + 1, reason))
                    }
                    Ok(order) if !ids.insert(order.id.clone()) => expected.duplicates += 1,
                    Ok(order) if order.cancelled => expected.cancelled += 1,
                    Ok(order) => expected.kept.push(order),
                }
            }
        }
        Ok(expected)
    }

    /// Every count that a result has to give, by its name.
    pub fn counts(&self) -> [(&'static str, i64); 5] {
        let length = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
        let (kept, rejected) = (length(self.kept.len()), length(self.rejected.len()));
        [
            ("rows_read", kept + self.duplicates + self.cancelled + rejected),
            ("kept", kept),
            ("duplicates", self.duplicates),
            ("cancelled", self.cancelled),
            ("rejected", rejected),
        ]
    }

    /// Orders and cents by a key made of customer and month.
    pub fn sums(&self, key: &dyn Fn(&str, &str) -> String) -> Cells {
        let mut cells = Cells::new();
        for order in &self.kept {
            let cell = cells.entry(key(&order.customer, &order.month)).or_default();
            cell.0 += 1;
            cell.1 += order.cents;
        }
        cells
    }

    pub fn total_cents(&self) -> i128 {
        self.kept.iter().map(|order| order.cents).sum()
    }
}

impl Order {
    fn read(line: &str) -> Result<Self, &'static str> {
        let fields = split(line).filter(|fields| fields.len() == 5).ok_or("field_count")?;
        let field = |index: usize| fields.get(index).map(String::as_str).unwrap_or_default();
        let (id, status) = (field(0).to_uppercase(), field(3).to_lowercase());
        let number = id.strip_prefix("ORD-").unwrap_or_default();
        if number.is_empty() || number.chars().any(|letter| !letter.is_ascii_digit()) {
            return Err("order_id");
        }
        let customer = customer(field(1)).ok_or("customer")?;
        let month = month(field(2)).ok_or("date")?;
        if !["paid", "shipped", "cancelled", "canceled"].contains(&status.as_str()) {
            return Err("status");
        }
        let cents = cents(field(4)).ok_or("amount")?;
        Ok(Self { id, customer, month, cancelled: status.starts_with('c'), cents })
    }
}

/// Where in a line the reader is.
#[derive(Clone, Copy, PartialEq)]
enum At {
    /// Before a field's first character.
    Start,
    Plain,
    Quoted,
    /// After a quote inside quotes: it ends them, or is the first of two.
    Quote,
    /// After the closing quote and whitespace.
    End,
}

/// The fields of a line, or nothing if its quotes are broken.
fn split(line: &str) -> Option<Vec<String>> {
    let (mut fields, mut field, mut at) = (Vec::new(), String::new(), At::Start);
    for letter in line.chars() {
        at = match (at, letter) {
            (At::Start | At::Plain | At::Quote | At::End, ',') => {
                fields.push(std::mem::take(&mut field).trim().to_owned());
                At::Start
            }
            (At::Start, '"') => {
                field.clear();
                At::Quoted
            }
            (At::Quoted, '"') => At::Quote,
            (At::Quote, '"') => {
                field.push('"');
                At::Quoted
            }
            (At::Quote | At::End, space) if space.is_whitespace() => At::End,
            (At::Quote | At::End, _) => return None,
            (at, letter) => {
                field.push(letter);
                if at == At::Start && !letter.is_whitespace() { At::Plain } else { at }
            }
        };
    }
    fields.push(field.trim().to_owned());
    (at != At::Quoted).then_some(fields)
}

/// A customer's name in the agreed writing.
pub fn customer(text: &str) -> Option<String> {
    let mut name = String::new();
    let mut capital_next = true;
    let mut space_next = false;
    for letter in text.trim().to_lowercase().chars() {
        if letter.is_whitespace() {
            space_next = true;
            capital_next = true;
            continue;
        }
        if std::mem::take(&mut space_next) {
            name.push(' ');
        }
        let capitals: Vec<char> = letter.to_uppercase().collect();
        match (std::mem::take(&mut capital_next), capitals.as_slice()) {
            (true, [capital]) => name.push(*capital),
            // No capital is due, or this letter has none that is one letter.
            _ => name.push(letter),
        }
    }
    (!name.is_empty()).then_some(name)
}

/// Whether a text is a month as the result has them.
pub fn is_month(text: &str) -> bool {
    month(&format!("{text}-01")).as_deref() == Some(text)
}

fn month(text: &str) -> Option<String> {
    // The shape decides which writing it is; then the parts stand at known places.
    let shape: String = text
        .chars()
        .map(|letter| match letter {
            '0'..='9' => '9',
            'a'..='z' | 'A'..='Z' => 'a',
            other => other,
        })
        .collect();
    let (year, month, day) = match shape.as_str() {
        "9999-99-99" => (text.get(0..4)?, text.get(5..7)?.to_owned(), text.get(8..10)?),
        "99.99.9999" => (text.get(6..10)?, text.get(3..5)?.to_owned(), text.get(0..2)?),
        "99/99/9999" => (text.get(6..10)?, text.get(0..2)?.to_owned(), text.get(3..5)?),
        "9 aaa 9999" => (text.get(6..10)?, named(text.get(2..5)?)?, text.get(0..1)?),
        "99 aaa 9999" => (text.get(7..11)?, named(text.get(3..6)?)?, text.get(0..2)?),
        _ => return None,
    };
    let (whole_year, number, day): (u32, usize, u32) =
        (year.parse().ok()?, month.parse().ok()?, day.parse().ok()?);
    let leap =
        whole_year.is_multiple_of(400) || (whole_year.is_multiple_of(4) && !whole_year.is_multiple_of(100));
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = *lengths.get(number.checked_sub(1)?)?;
    (day >= 1 && day <= length).then(|| format!("{year}-{month}"))
}

/// The two digits of an English month.
fn named(name: &str) -> Option<String> {
    let at = "janfebmaraprmayjunjulaugsepoctnovdec".find(&name.to_ascii_lowercase())?;
    at.is_multiple_of(3).then(|| format!("{:02}", at / 3 + 1))
}

fn cents(text: &str) -> Option<i128> {
    let lower = text.to_lowercase();
    let number = ["€", "eur"]
        .iter()
        .find_map(|sign| lower.strip_prefix(sign).or_else(|| lower.strip_suffix(sign)))
        .unwrap_or(&lower)
        .trim();

    // Digits in runs, each with the character before it.
    let mut runs: Vec<(char, String)> = vec![('\0', String::new())];
    for letter in number.chars() {
        match (letter.is_ascii_digit(), runs.last_mut()) {
            (true, Some((_, digits))) => digits.push(letter),
            _ => runs.push((letter, String::new())),
        }
    }
    let decimal = runs.pop_if(|(mark, digits)| matches!(mark, '.' | ',') && digits.len() == 2);
    let (first, groups) = runs.split_first()?;
    let separator = groups.first().map(|(separator, _)| *separator);
    let grouped = groups.iter().all(|(mark, digits)| Some(*mark) == separator && digits.len() == 3);
    let separated = separator.is_none_or(|separator| {
        ".,' ".contains(separator)
            && first.1.len() <= 3
            && decimal.as_ref().is_none_or(|(mark, _)| *mark != separator)
    });
    if first.1.is_empty() || !grouped || !separated {
        return None;
    }
    let euros: i128 = runs.iter().map(|(_, digits)| digits.as_str()).collect::<String>().parse().ok()?;
    let rest: i128 = decimal.map_or(Some(0), |(_, digits)| digits.parse().ok())?;
    // The bound keeps sums of any number of rows within a JSON reader's reach, and an `i64`.
    euros.checked_mul(100)?.checked_add(rest).filter(|cents| *cents <= i128::from(i64::MAX))
}
