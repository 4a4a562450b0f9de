//! A bot that keeps files: nothing but the standard library, in a directory that its owner has granted.
//!
//! Input: `{"do": "write", "path": "/data/notes/milk.txt", "text": "two litres"}` (makes the folders on the way),
//! `{"do": "read", "path": "/data/notes/milk.txt"}`, `{"do": "list", "path": "/data/notes"}` or
//! `{"do": "delete", "path": "/data/notes"}` (a folder with all that is in it).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ringfence::Failure;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Ask {
    Write { path: PathBuf, text: String },
    Read { path: PathBuf },
    List { path: PathBuf },
    Delete { path: PathBuf },
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Written { bytes: usize },
    Text(String),
    Entries(Vec<Entry>),
    Deleted,
}

#[derive(Debug, PartialEq, Serialize)]
struct Entry {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

#[ringfence::bot]
fn handle(ask: Ask) -> Result<Answer, Failure> {
    let path = match &ask {
        Ask::Write { path, .. } | Ask::Read { path } | Ask::List { path } | Ask::Delete { path } => {
            path.clone()
        }
    };
    carry_out(ask).map_err(|error| {
        let code = match error.kind() {
            io::ErrorKind::NotFound => "not_found",
            io::ErrorKind::PermissionDenied => "not_permitted",
            io::ErrorKind::StorageFull => "quota_exceeded",
            _ => "io_error",
        };
        Failure::new(code, format!("{}: {error}", path.display()))
    })
}

fn carry_out(ask: Ask) -> io::Result<Answer> {
    match ask {
        Ask::Write { path, text } => {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(path, &text)?;
            Ok(Answer::Written { bytes: text.len() })
        }
        Ask::Read { path } => fs::read_to_string(path).map(Answer::Text),
        Ask::List { path } => entries(&path).map(Answer::Entries),
        Ask::Delete { path } => {
            if path.is_dir() {
                fs::remove_dir_all(path)?
            } else {
                fs::remove_file(path)?
            }
            Ok(Answer::Deleted)
        }
    }
}

fn entries(path: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        let name = entry.file_name().to_string_lossy().into_owned();
        entries.push(Entry { name, bytes: meta.is_file().then_some(meta.len()) });
    }
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_listed_read_and_deleted() {
        let folder = std::env::temp_dir().join(format!("files-{}", std::process::id()));
        let path = folder.join("a/b.txt");
        assert_eq!(
            handle(Ask::Write { path: path.clone(), text: "text".to_owned() }),
            Ok(Answer::Written { bytes: 4 })
        );
        assert_eq!(handle(Ask::Read { path: path.clone() }), Ok(Answer::Text("text".to_owned())));
        let listed = handle(Ask::List { path: folder.join("a") });
        assert_eq!(listed, Ok(Answer::Entries(vec![Entry { name: "b.txt".to_owned(), bytes: Some(4) }])));
        assert_eq!(handle(Ask::Delete { path: folder }), Ok(Answer::Deleted));
        assert_eq!(handle(Ask::Read { path }).unwrap_err().code, "not_found");
    }
}
