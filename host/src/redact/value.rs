//! How far a secret's value goes, after its name was found.

use super::REDACTED;

/// Where a value is, without its quotes.
pub(super) struct Value {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) quoted: bool,
}

/// Words that say how the next one is to be read.
const SCHEMES: &[&str] = &["bearer", "basic", "digest", "token", "negotiate", "apikey", "hmac"];

/// How much of a word before a bracket, as in `Some("…")`, is looked at.
const WRAPPER: usize = 64;

/// How far the end of a user's name and password is looked for where it is not obvious.
const BROKEN_USER: usize = 256;

/// Reads a value: in quotes (themselves escaped, if they stand inside a string), in brackets, or a bare word.
pub(super) fn read(text: &str, from: usize) -> Value {
    let bytes = text.as_bytes();
    let start = from + wrapper(bytes.get(from..).unwrap_or_default());
    let escapes = count(bytes, start, |byte| byte == b'\\');
    let first = start + escapes;
    match bytes.get(first).copied() {
        Some(quote @ (b'"' | b'\'' | b'`')) => {
            let start = first + 1;
            Value { start, end: quoted_end(bytes, start, quote, escapes), quoted: true }
        }
        // Already hidden: the brackets are part of what stands there.
        Some(b'[') if text.get(first..).is_some_and(|rest| rest.starts_with(REDACTED)) => {
            Value { start: from, end: first + REDACTED.len(), quoted: false }
        }
        Some(b'[' | b'{' | b'(') if escapes == 0 => {
            Value { start: from, end: bracket_end(bytes, first), quoted: false }
        }
        _ => bare(text, from),
    }
}

/// Whether the value of this name may consist of several words without quotes.
pub(super) fn has_many_words(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["cookie", "mnemonic", "phrase"].iter().any(|word| name.contains(word))
}

/// The end of the line, or of the string.
pub(super) fn line_end(text: &str, from: usize) -> usize {
    let bytes = text.as_bytes();
    unescaped(bytes, from, from + count(bytes, from, |byte| !matches!(byte, b'"' | b'\n' | b'\r' | 0x1b)))
}

/// The length of what stands before a quote or bracket: `Some`, `HeaderValue`, `Secret `, `b`.
fn wrapper(bytes: &[u8]) -> usize {
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'<' | b'>' | b':');
    let length = bytes.iter().take(WRAPPER).take_while(|byte| word(byte)).count();
    match (bytes.get(length).copied(), bytes.get(length + 1).copied()) {
        (Some(b'(' | b'{' | b'['), _) => length,
        (Some(b' '), Some(b'{')) => length + 1,
        (Some(b'"' | b'\\'), _) if matches!(bytes.get(..length), Some(b"b" | b"r" | b"br" | b"u")) => length,
        _ => 0,
    }
}

fn count(bytes: &[u8], from: usize, wanted: impl Fn(u8) -> bool) -> usize {
    bytes.get(from..).unwrap_or_default().iter().take_while(|byte| wanted(**byte)).count()
}

/// Where a string ends whose opening quote had so many backslashes before it.
///
/// Inside a string inside a string, a quote has 1, then 3, then 7 of them. What belongs to the value has more: it is
/// escaped once again. A quote with fewer ends the string around.
fn quoted_end(bytes: &[u8], start: usize, quote: u8, escapes: usize) -> usize {
    let unit = 2 * (escapes + 1);
    let mut backslashes = 0;
    for (at, byte) in bytes.iter().enumerate().skip(start) {
        if *byte == quote && (backslashes < escapes || backslashes % unit == escapes) {
            // The escapes of the closing quote are not part of the value.
            return at - backslashes.min(escapes);
        }
        backslashes = if *byte == b'\\' { backslashes + 1 } else { 0 };
    }
    // Cut off: all of it may belong to the value.
    bytes.len()
}

/// Where a list, a map or the arguments of a call end.
fn bracket_end(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth, mut escapes) = (start, 0_usize, 0);
    while let Some(byte) = bytes.get(at).copied() {
        match byte {
            b'[' | b'{' | b'(' => depth += 1,
            b']' | b'}' | b')' => depth = depth.saturating_sub(1),
            b'"' => {
                let end = quoted_end(bytes, at + 1, b'"', escapes);
                at = end + count(bytes, end, |byte| byte == b'\\');
            }
            _ => {}
        }
        at = (at + 1).min(bytes.len());
        if depth == 0 {
            return at;
        }
        escapes = if byte == b'\\' { escapes + 1 } else { 0 };
    }
    bytes.len()
}

/// A word without quotes, and the next one if the first only says how to read it.
fn bare(text: &str, from: usize) -> Value {
    let end = word_end(text.as_bytes(), from);
    let word = text.get(from..end).unwrap_or_default();
    if matches!(word, "null" | "true" | "false" | "None" | "none") {
        return Value { start: from, end: from, quoted: false };
    }
    let gap = count(text.as_bytes(), end, |byte| byte == b' ');
    if gap > 0 && SCHEMES.iter().any(|scheme| word.eq_ignore_ascii_case(scheme)) {
        return Value { start: from, end: word_end(text.as_bytes(), end + gap), quoted: false };
    }
    Value { start: from, end, quoted: false }
}

fn word_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(byte) = bytes.get(at).copied() {
        let ends = match byte {
            b' ' | b'\t' | b'\r' | b'\n' | b'"' | b'&' | 0x1b => true,
            // Part of a password, or the end of what it stands in.
            b',' | b';' | b')' | b']' | b'}' | b'>' | b'\'' | b'`' => bytes.get(at + 1).is_none_or(|next| {
                next.is_ascii_whitespace()
                    || matches!(
                        next,
                        b',' | b';' | b')' | b']' | b'}' | b'>' | b'\'' | b'`' | b'"' | b'\\' | b':'
                    )
            }),
            _ => false,
        };
        if ends {
            break;
        }
        at += 1;
    }
    unescaped(bytes, from, at)
}

/// The same end, before the backslashes that belong to a quote there.
fn unescaped(bytes: &[u8], from: usize, end: usize) -> usize {
    if bytes.get(end) != Some(&b'"') {
        return end;
    }
    let value = bytes.get(from..end).unwrap_or_default();
    end - value.iter().rev().take_while(|byte| **byte == b'\\').count()
}

/// Where `user:password` before an `@` ends, after `://`.
pub(super) fn user_end(text: &str, from: usize) -> Option<usize> {
    let rest = text.get(from..)?;
    let stop = |c: char| c.is_whitespace() || matches!(c, '"' | '<' | '>');
    let authority = rest.split(|c: char| stop(c) || matches!(c, '/' | '?' | '#')).next()?;
    if let Some(at) = authority.rfind('@') {
        return Some(from + at);
    }
    // Not a port: a password with a slash in it, which should have been encoded.
    let (_, port) = authority.split_once(':')?;
    if port.is_empty() || port.starts_with(|c: char| c.is_ascii_digit() || c == ':') {
        return None;
    }
    let run = rest.char_indices().take(BROKEN_USER).take_while(|(_, c)| !stop(*c));
    run.filter(|(_, c)| *c == '@').last().map(|(at, _)| from + at)
}

/// The same in a percent-encoded address.
pub(super) fn encoded_user_end(text: &str, from: usize) -> Option<usize> {
    let rest = text.get(from..text.floor_char_boundary(from + BROKEN_USER))?;
    let authority = rest.split(|c: char| c.is_whitespace() || matches!(c, '"' | '<' | '>' | '&')).next()?;
    let end = authority.find("%2F").or_else(|| authority.find("%2f")).unwrap_or(authority.len());
    authority.get(..end)?.rfind("%40").map(|at| from + at)
}

/// Where a private key in PEM ends: after its last line, or where its text does.
pub(super) fn pem_end(text: &str, from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    let string = rest.split('"').next().unwrap_or_default();
    let Some(last) = string.find("-----END") else {
        return unescaped(text.as_bytes(), from, from + string.len());
    };
    let last = last + "-----END".len();
    let line = string.get(last..).unwrap_or_default();
    let dashes = line.find("-----").map_or(line.len(), |at| at + "-----".len());
    unescaped(text.as_bytes(), from, from + last + dashes)
}
