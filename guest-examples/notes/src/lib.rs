//! A bot that remembers: notes in the key-value store, a limit from the configuration, and a line in the
//! log for each change.
//!
//! Input: `{"do": "add", "name": "milk", "text": "two litres"}`, `{"do": "get", "name": "milk"}`,
//! `{"do": "remove", "name": "milk"}`, `{"do": "list"}` or `{"do": "count"}` (adds one to a counter).
//! Configuration: `max_notes` (100).

use ringfence::{Failure, config, kv, log};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Ask {
    Add { name: String, text: String },
    Get { name: String },
    Remove { name: String },
    List,
    Count,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Added { notes: usize },
    Note { name: String, text: String },
    Removed,
    Notes(Vec<String>),
    Count(u64),
}

const PREFIX: &str = "note/";

#[ringfence::bot]
fn handle(ask: Ask) -> Result<Answer, Failure> {
    match ask {
        Ask::Add { name, text } => {
            let key = format!("{PREFIX}{name}");
            let others = kv::list_keys(PREFIX, None)?.into_iter().filter(|other| *other != key).count();
            let max_notes = config::parse_or("max_notes", 100_usize)?;
            if others >= max_notes {
                return Err(Failure::new("too_many_notes", format!("there are {max_notes} notes already")));
            }
            kv::set(&key, &text)?;
            log::info!("added a note"; name = name, bytes = text.len());
            Ok(Answer::Added { notes: others + 1 })
        }
        Ask::Get { name } => match kv::get(&format!("{PREFIX}{name}"))? {
            Some(text) => Ok(Answer::Note { name, text: String::from_utf8_lossy(&text).into_owned() }),
            None => Err(Failure::new("not_found", format!("there is no note `{name}`"))),
        },
        Ask::Remove { name } => {
            kv::delete(&format!("{PREFIX}{name}"))?;
            log::info!("removed a note"; name = name);
            Ok(Answer::Removed)
        }
        Ask::List => {
            let keys = kv::list_keys(PREFIX, None)?;
            Ok(Answer::Notes(
                keys.iter().filter_map(|key| key.strip_prefix(PREFIX)).map(str::to_owned).collect(),
            ))
        }
        Ask::Count => {
            // Also right when several calls count at once.
            let count = kv::update_json("count", |count: Option<u64>| count.unwrap_or(0) + 1)?;
            Ok(Answer::Count(count))
        }
    }
}

#[cfg(test)]
mod tests {
    use ringfence::testing::Host;

    use super::*;

    fn add(name: &str) -> Result<Answer, Failure> {
        handle(Ask::Add { name: name.to_owned(), text: "text".to_owned() })
    }

    #[test]
    fn notes_are_kept_and_listed() {
        let host = Host::new();
        assert_eq!(add("b"), Ok(Answer::Added { notes: 1 }));
        assert_eq!(add("a"), Ok(Answer::Added { notes: 2 }));
        assert_eq!(add("a"), Ok(Answer::Added { notes: 2 }));
        assert_eq!(handle(Ask::List), Ok(Answer::Notes(vec!["a".to_owned(), "b".to_owned()])));
        assert_eq!(host.kv("note/a").unwrap(), b"text");
        assert_eq!(host.logs().len(), 3);
        assert_eq!(host.call(handle, r#"{"do": "remove", "name": "a"}"#).unwrap(), "removed");
        assert_eq!(host.call(handle, r#"{"do": "get", "name": "a"}"#).unwrap_err().code, "not_found");
    }

    #[test]
    fn the_owner_sets_the_limit() {
        let _host = Host::new().with_config("max_notes", "1");
        assert!(add("a").is_ok());
        assert_eq!(add("b").unwrap_err().code, "too_many_notes");
    }

    #[test]
    fn it_counts_on() {
        let host = Host::new().with_kv("count", "41");
        assert_eq!(host.call(handle, r#"{"do": "count"}"#).unwrap().to_string(), r#"{"count":42}"#);
    }
}
