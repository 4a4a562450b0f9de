//! The chain of an org's entries: how each is bound to the one before it, and the search for the first that is not.

use ring::hmac;
use ringfence_model::{OrgId, hex};
use ringfence_store::Store;
use ringfence_store::audit::{self, Entry};
use serde::{Deserialize, Serialize};

use crate::Internal;
use crate::access::audit_key;
use crate::secrets::MasterKeys;

/// The HMAC over an entry. Each field goes in with its length, so that no two entries read alike.
pub(super) fn link(key: &hmac::Key, entry: &Entry) -> String {
    let mut context = hmac::Context::with_key(key);
    let mut add = |field: Option<&str>| match field {
        Some(text) => {
            context.update(&(text.len() as u64).to_be_bytes());
            context.update(text.as_bytes());
        }
        // No text is this long.
        None => context.update(&u64::MAX.to_be_bytes()),
    };
    add(Some("ringfence audit 1"));
    add(Some(entry.org_id.as_str()));
    add(Some(&entry.seq.to_string()));
    add(Some(&entry.at.as_micros().to_string()));
    add(Some(&entry.actor));
    add(entry.credential.as_deref());
    add(Some(&entry.action));
    add(Some(&entry.resource));
    add(Some(entry.resource_org_id.as_str()));
    add(Some(&entry.outcome));
    add(entry.request_id.as_deref());
    add(entry.address.as_deref());
    add(Some(&entry.detail));
    add(Some(&entry.previous_hash));
    hex(context.sign().as_ref())
}

/// What is wrong with a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum BrokenLink {
    /// The place is empty.
    #[error("entry {seq} is missing")]
    Missing {
        /// The place.
        seq: u64,
    },
    /// The entry is not what was written.
    #[error("entry {seq} was changed")]
    Changed {
        /// The place.
        seq: u64,
    },
    /// The entry does not follow on the one before it.
    #[error("entry {seq} does not follow on the entry before it")]
    Unlinked {
        /// The place.
        seq: u64,
    },
    /// The chain goes on behind the end that is recorded, or ends before it.
    #[error("the chain ends at entry {found}, and the recorded end is entry {recorded}")]
    End {
        /// Where it ends.
        found: u64,
        /// Where it should end.
        recorded: u64,
    },
}

/// What came of looking through an org's chain.
#[derive(Debug, Clone)]
pub struct ChainReport {
    /// Whose it is.
    pub org_id: OrgId,
    /// How many entries are as they were written.
    pub entries: u64,
    /// The hash of the last of them: kept elsewhere, it shows later that nothing was cut off.
    pub hash: String,
    /// The first thing that is wrong.
    pub broken: Option<BrokenLink>,
}

/// Looks through the audit log of every org. Hosts may go on writing meanwhile.
///
/// # Errors
/// [`Internal`] if the database fails, or its audit key cannot be opened.
pub async fn verify_audit(store: &Store, master: &MasterKeys) -> Result<Vec<ChainReport>, Internal> {
    let key = audit_key(store, master).await?;
    let mut reports = Vec::new();
    let mut last = String::new();
    loop {
        let orgs = audit::orgs(&mut store.reader().await?, &last).await?;
        let Some(end) = orgs.last() else { return Ok(reports) };
        last = end.to_string();
        for org in orgs {
            let report = verify_chain(store, &key, org).await?;
            // An org to which nothing was done has no chain.
            if report.entries > 0 || report.broken.is_some() {
                reports.push(report);
            }
        }
    }
}

async fn verify_chain(store: &Store, key: &hmac::Key, org: OrgId) -> Result<ChainReport, Internal> {
    // The end first: what is appended from here on lies behind it.
    let head = audit::head(&mut store.reader().await?, &org).await?;
    let mut report = ChainReport { org_id: org, entries: 0, hash: String::new(), broken: None };
    loop {
        let entries = audit::after(&mut store.reader().await?, &report.org_id, report.entries, 500).await?;
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            report.broken = broken(key, &entry, &report);
            if report.broken.is_some() {
                return Ok(report);
            }
            (report.entries, report.hash) = (entry.seq, entry.hash);
            if report.entries == head.seq && report.hash != head.hash {
                report.broken = Some(BrokenLink::Changed { seq: entry.seq });
                return Ok(report);
            }
        }
    }
    // What was appended since moved the end as well.
    let now = audit::head(&mut store.reader().await?, &report.org_id).await?;
    if report.entries < head.seq || report.entries > now.seq {
        report.broken = Some(BrokenLink::End { found: report.entries, recorded: now.seq });
    }
    Ok(report)
}

fn broken(key: &hmac::Key, entry: &Entry, before: &ChainReport) -> Option<BrokenLink> {
    let expected = before.entries.saturating_add(1);
    if entry.seq != expected {
        Some(BrokenLink::Missing { seq: expected })
    } else if entry.previous_hash != before.hash {
        Some(BrokenLink::Unlinked { seq: entry.seq })
    } else if link(key, entry) != entry.hash {
        Some(BrokenLink::Changed { seq: entry.seq })
    } else {
        None
    }
}
