//! Takes secrets and addresses out of text before it reaches a log.
//!
//! Whoever logs should not hand a secret over in the first place; this is the net below. It goes by shape, so it errs
//! on the side of hiding too much, and it reads a whole record at once, so that nothing slips through between fields.

mod shape;
mod value;
mod writer;

use std::borrow::Cow;

pub(crate) use writer::Redacting;

use shape::{Found, Kind, Shapes};

/// Stands where a secret stood.
const REDACTED: &str = "[redacted]";
/// Stands where an IP address stood.
const ADDRESS: &str = "[address]";

/// The text without secrets and without IP addresses: what a log may hold.
pub(crate) fn redact(text: &str) -> Cow<'_, str> {
    Redaction::of(text, true)
}

/// The text without secrets: for the person at the terminal, who needs to see which address is meant.
pub(crate) fn redact_secrets(text: &str) -> Cow<'_, str> {
    Redaction::of(text, false)
}

/// What is written of a text, as far as it has been read.
struct Redaction<'a> {
    text: &'a str,
    addresses: bool,
    written: String,
    /// Up to where the text is written or left out.
    done: usize,
}

impl<'a> Redaction<'a> {
    fn of(text: &'a str, addresses: bool) -> Cow<'a, str> {
        // Rather no log than one that is not looked through.
        let Some(shapes) = Shapes::get() else { return Cow::Borrowed(REDACTED) };
        let mut redaction = Self { text, addresses, written: String::new(), done: 0 };
        let mut at = 0;
        while let Some(found) = shapes.find(text, at) {
            // What was found begins with an ASCII character, so one byte on is the next character.
            at = redaction.hide(&found).max(found.start + 1);
        }
        if redaction.done == 0 {
            return Cow::Borrowed(text);
        }
        redaction.written.push_str(text.get(redaction.done..).unwrap_or_default());
        Cow::Owned(redaction.written)
    }

    /// Writes what stands for a part of the text, and what came before it.
    fn replace(&mut self, from: usize, to: usize, with: &str) {
        if to <= self.done || from == to {
            return;
        }
        // One that begins inside the one before only makes that one longer.
        if from >= self.done {
            self.written.push_str(self.text.get(self.done..from).unwrap_or_default());
            self.written.push_str(with);
        }
        self.done = to;
    }

    /// Hides what was found; where to go on looking.
    fn hide(&mut self, found: &Found<'_>) -> usize {
        let Found { kind, start, end, .. } = *found;
        match kind {
            Kind::Digest => {}
            Kind::ApiKey => {
                let prefix = end - found.tail.len();
                self.replace(prefix, end, REDACTED);
            }
            Kind::Whole => self.replace(start, end, REDACTED),
            Kind::Hexadecimal => {
                self.replace(start, end, REDACTED);
                // Its last digits may be the first ones of something else.
                return end - 4;
            }
            Kind::Pem => return self.hide_pem(start, end),
            Kind::Field => return self.hide_field(found),
            Kind::Bearer => return self.hide_value(end, ""),
            Kind::Basic => return self.hide_basic(end),
            Kind::Url => return self.hide_user(end, value::user_end(self.text, end)),
            Kind::EncodedUrl => return self.hide_user(end, value::encoded_user_end(self.text, end)),
            Kind::V4 | Kind::V6 => return self.hide_address(found),
        }
        end
    }

    fn hide_pem(&mut self, start: usize, end: usize) -> usize {
        let end = value::pem_end(self.text, end);
        self.replace(start, end, REDACTED);
        end
    }

    fn hide_field(&mut self, found: &Found<'_>) -> usize {
        let rest = self.text.get(found.end..).unwrap_or_default();
        let head = self.text.get(found.start..found.end).unwrap_or_default();
        // `token::verify` is a path in a program.
        if head.ends_with(':') && rest.starts_with(':') {
            return found.end;
        }
        if value::has_many_words(head) && !rest.starts_with(['"', '\'', '\\', '(', '[', '{']) {
            let end = value::line_end(self.text, found.end);
            self.replace(found.end, end, REDACTED);
            return end;
        }
        // A bare value in JSON, such as a number, is replaced by a string as its name is one.
        self.hide_value(found.end, found.tail)
    }

    fn hide_value(&mut self, from: usize, quote: &str) -> usize {
        let value = value::read(self.text, from);
        if value.quoted || quote.is_empty() {
            self.replace(value.start, value.end, REDACTED);
        } else {
            self.replace(value.start, value.end, &format!("{quote}{REDACTED}{quote}"));
        }
        value.end
    }

    /// "Basic" is a word as well: what follows it has to look like Base64.
    fn hide_basic(&mut self, from: usize) -> usize {
        let value = value::read(self.text, from);
        let text = self.text.get(value.start..value.end).unwrap_or_default();
        if text.len() < 4 || text.bytes().all(|byte| byte.is_ascii_lowercase()) {
            return from;
        }
        self.replace(value.start, value.end, REDACTED);
        value.end
    }

    fn hide_user(&mut self, from: usize, to: Option<usize>) -> usize {
        let Some(to) = to else { return from };
        self.replace(from, to, REDACTED);
        to
    }

    fn hide_address(&mut self, found: &Found<'_>) -> usize {
        if !self.addresses || (found.kind == Kind::V6 && shape::is_program_path(self.text, found)) {
            // What looks like a part of it may be the beginning of something that is to be hidden.
            return found.start + 1;
        }
        let (mut start, mut end) = (found.start, found.end);
        let before = self.text.get(..start).unwrap_or_default();
        if before.ends_with('[') && self.text.get(end..).unwrap_or_default().starts_with(']') {
            (start, end) = (start - 1, end + 1);
        }
        self.replace(start, end, ADDRESS);
        found.last_group()
    }
}

#[cfg(test)]
mod tests;
