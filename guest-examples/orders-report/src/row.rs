//! One line of the CSV, by the rules of `data/rubric.md`.

pub const HEADER: &str = "order_id,customer,date,status,amount";

/// A well-formed row.
#[derive(Debug, PartialEq)]
pub struct Row {
    pub order_id: String,
    pub customer: String,
    /// `YYYY-MM`
    pub month: String,
    pub status: Status,
    pub cents: i64,
}

#[derive(Debug, PartialEq)]
pub enum Status {
    Counts,
    Cancelled,
}

/// Reads a line, or says which rule it breaks first.
pub fn read(line: &str) -> Result<Row, &'static str> {
    let fields = fields(line).ok_or("field_count")?;
    let [order_id, customer, date, status, amount] = fields.as_slice() else { return Err("field_count") };
    Ok(Row {
        order_id: self::order_id(order_id).ok_or("order_id")?,
        customer: self::customer(customer).ok_or("customer")?,
        month: month(date).ok_or("date")?,
        status: self::status(status).ok_or("status")?,
        cents: cents(amount).ok_or("amount")?,
    })
}

fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = line.trim();
    loop {
        let (field, after) = match rest.trim_start().strip_prefix('"') {
            Some(quoted) => {
                let (field, after) = unquote(quoted)?;
                let after = after.trim_start();
                if !after.is_empty() && !after.starts_with(',') {
                    return None;
                }
                (field, after)
            }
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        fields.push(field.trim().to_owned());
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Some(fields),
        }
    }
}

/// The text up to the closing quote, and what comes after it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"')?;
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None => return Some((field, rest)),
        }
    }
}

fn order_id(text: &str) -> Option<String> {
    let id = text.to_ascii_uppercase();
    let digits = id.strip_prefix("ORD-")?;
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(id)
}

fn customer(text: &str) -> Option<String> {
    let words: Vec<String> = text.split_whitespace().map(capitalized).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

fn capitalized(word: &str) -> String {
    let word = word.to_lowercase();
    let mut letters = word.chars();
    letters.next().map(|first| capital(first).into_iter().chain(letters).collect()).unwrap_or_default()
}

/// The letter's capital, if that is one letter: `ß` stays as it is.
fn capital(letter: char) -> Option<char> {
    let mut capitals = letter.to_uppercase();
    if capitals.len() == 1 { capitals.next() } else { Some(letter) }
}

fn month(text: &str) -> Option<String> {
    let (year, month, day) = if text.contains('-') {
        let [year, month, day] = parts(text, '-')?;
        (digits(year, 4)?, digits(month, 2)?, digits(day, 2)?)
    } else if text.contains('.') {
        let [day, month, year] = parts(text, '.')?;
        (digits(year, 4)?, digits(month, 2)?, digits(day, 2)?)
    } else if text.contains('/') {
        let [month, day, year] = parts(text, '/')?;
        (digits(year, 4)?, digits(month, 2)?, digits(day, 2)?)
    } else {
        let [day, month, year] = parts(text, ' ')?;
        (digits(year, 4)?, named_month(month)?, digits(day, 1).or_else(|| digits(day, 2))?)
    };
    let last = match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    (1..=last).contains(&day).then(|| format!("{year:04}-{month:02}"))
}

fn parts(text: &str, separator: char) -> Option<[&str; 3]> {
    let parts: Vec<&str> = text.split(separator).collect();
    parts.try_into().ok()
}

/// A number of exactly `count` digits.
fn digits(text: &str, count: usize) -> Option<u32> {
    (text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

fn named_month(text: &str) -> Option<u32> {
    let names = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let index = names.iter().position(|name| text.eq_ignore_ascii_case(name))?;
    u32::try_from(index + 1).ok()
}

fn status(text: &str) -> Option<Status> {
    match text.to_ascii_lowercase().as_str() {
        "paid" | "shipped" => Some(Status::Counts),
        "cancelled" | "canceled" => Some(Status::Cancelled),
        _ => None,
    }
}

fn cents(text: &str) -> Option<i64> {
    let number = without_currency(text);
    let (whole, cents) = match number.len().checked_sub(3).and_then(|at| number.split_at_checked(at)) {
        Some((whole, cents)) if cents.starts_with(['.', ',']) => (whole, Some(cents)),
        _ => (number, None),
    };
    let separator = whole.chars().find(|letter| !letter.is_ascii_digit());
    let euros = match separator {
        None => whole.to_owned(),
        Some(separator) => {
            let is_decimal_mark = cents.is_some_and(|cents| cents.starts_with(separator));
            if !matches!(separator, '.' | ',' | '\'' | ' ') || is_decimal_mark {
                return None;
            }
            let groups: Vec<&str> = whole.split(separator).collect();
            let (first, others) = groups.split_first()?;
            if !(1..=3).contains(&first.len()) || others.iter().any(|group| group.len() != 3) {
                return None;
            }
            groups.concat()
        }
    };
    let cents = cents.map_or("00", |cents| &cents[1..]);
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (all_digits(&euros) && all_digits(cents)).then(|| format!("{euros}{cents}").parse().ok())?
}

fn without_currency(text: &str) -> &str {
    for sign in ["€", "EUR"] {
        let (head, tail) =
            (text.get(..sign.len()), text.len().checked_sub(sign.len()).and_then(|at| text.get(at..)));
        if head.is_some_and(|head| head.eq_ignore_ascii_case(sign)) {
            return text[sign.len()..].trim_start();
        }
        if tail.is_some_and(|tail| tail.eq_ignore_ascii_case(sign)) {
            return text[..text.len() - sign.len()].trim_end();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        for (text, expected) in [
            ("1.234,50", Some(123_450)),
            ("1,234.50", Some(123_450)),
            ("1'234.50 €", Some(123_450)),
            ("eur1 234,50", Some(123_450)),
            ("1.234", Some(123_400)),
            ("12.345.678", Some(1_234_567_800)),
            ("7", Some(700)),
            ("0.05", Some(5)),
            ("12,5", None),
            ("-3.00", None),
            ("1.23.45", None),
            ("1.234.50", None),
            ("1,2345.00", None),
            ("1234,567.00", None),
            (",50", None),
            ("€", None),
            ("€5 EUR", None),
            ("$12.00", None),
            ("é12", None),
            ("", None),
        ] {
            assert_eq!(cents(text), expected, "{text}");
        }
    }

    #[test]
    fn dates() {
        for (text, expected) in [
            ("2025-03-07", Some("2025-03")),
            ("07.03.2025", Some("2025-03")),
            ("03/07/2025", Some("2025-03")),
            ("7 mar 2025", Some("2025-03")),
            ("29 Feb 2024", Some("2024-02")),
            ("29 Feb 2025", None),
            ("31.04.2025", None),
            ("2025-13-01", None),
            ("7.3.2025", None),
            ("2025/03/07", None),
            ("", None),
        ] {
            assert_eq!(month(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn quotes() {
        let row = |text| fields(text).map(|fields| fields.join("|"));
        assert_eq!(row(r#"a, "b, ""c""" ,d"e,"#).as_deref(), Some(r#"a|b, "c"|d"e|"#));
        assert_eq!(row(r#"a,"b"c"#), None);
        assert_eq!(row(r#"a,"b"#), None);
    }
}
