//! The ids of a follower's events.

use std::collections::BTreeMap;

use ringfence_model::InvocationId;

/// Calls that are sent at the same time; others wait their turn.
pub(super) const MAX_OPEN: usize = 64;

/// What had been sent when an event was.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) newest: Option<InvocationId>,
    /// The next line of each call that was being sent; `None` if it had not begun.
    pub(super) open: BTreeMap<InvocationId, Option<usize>>,
}

impl Cursor {
    /// The newest call, and the others each with its next line, without the prefixes of their ids.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let call = |ulid: &str| format!("inv_{ulid}").parse::<InvocationId>().ok();
        let mut parts = text.split('.');
        let newest = parts.next()?;
        let newest = if newest.is_empty() { None } else { Some(call(newest)?) };
        let mut open = BTreeMap::new();
        for part in parts {
            let (ulid, next) = part.split_once(':')?;
            let next = if next == "-" { None } else { Some(next.parse().ok()?) };
            open.insert(call(ulid)?, next);
        }
        (open.len() <= MAX_OPEN).then_some(Self { newest, open })
    }
}

/// The id of an event, as it is parsed.
pub(super) fn text<'a>(
    newest: Option<&InvocationId>,
    open: impl Iterator<Item = (&'a InvocationId, Option<usize>)>,
) -> String {
    let ulid = |id: &InvocationId| id.as_str().trim_start_matches("inv_").to_owned();
    let mut text = newest.map(ulid).unwrap_or_default();
    for (id, next) in open {
        let next = next.map_or_else(|| "-".to_owned(), |next| next.to_string());
        text.push_str(&format!(".{}:{next}", ulid(id)));
    }
    text
}

#[cfg(test)]
mod tests {
    use ringfence_model::Timestamp;

    use super::*;

    #[test]
    fn a_cursor_reads_back() {
        let id = |at: i64| InvocationId::least_at(Timestamp::from_micros(at * 1000));
        let ulid = |at| id(at).as_str().trim_start_matches("inv_").to_owned();
        let text = format!("{}.{}:7.{}:-", ulid(3), ulid(1), ulid(2));
        let open = BTreeMap::from([(id(1), Some(7)), (id(2), None)]);
        assert_eq!(super::text(Some(&id(3)), open.iter().map(|(id, next)| (id, *next))), text);
        assert_eq!(Cursor::parse(&text), Some(Cursor { newest: Some(id(3)), open }));
        assert_eq!(Cursor::parse(""), Some(Cursor::default()));
        let many: String = (0..65).map(|at| format!(".{}:0", ulid(at))).collect();
        for bad in ["x", &format!("{}.x:1", ulid(1)), &format!("{}.{}", ulid(1), ulid(2)), &many] {
            assert_eq!(Cursor::parse(bad), None, "{bad}");
        }
    }
}
