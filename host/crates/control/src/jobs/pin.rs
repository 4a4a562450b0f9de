//! The pin: what judges a job, written down when the job is funded.

use std::collections::BTreeMap;

use ringfence_model::{BotId, Sha256};
use ringfence_runtime::Limits;
use ringfence_store::jobs::Job;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Internal;

/// An oracle that judges a job, as it was when the job was funded. It has no grants: whatever its bot was given since, it
/// judges without network, store, secrets and language models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OraclePinView {
    /// The oracle.
    #[schema(value_type = String)]
    pub bot_id: BotId,
    /// Its version then.
    pub version: u32,
    /// Its component.
    #[schema(value_type = String)]
    pub component: Sha256,
    /// Its configuration.
    pub config: BTreeMap<String, String>,
    /// What each evaluation may use.
    #[schema(value_type = Object)]
    pub limits: Limits,
}

/// The pin as it is stored: with what nobody may know before the job has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredPin")]
pub(crate) struct OraclePin {
    /// Those that judge: one, for now.
    pub(crate) oracles: Vec<OraclePinView>,
    /// How many of them have to pass a submission.
    pub(crate) quorum: u32,
    /// The least score with which a submission passes.
    pub(crate) min_score: u8,
    /// Whether submissions are looked through before an oracle reads them.
    pub(crate) guard: bool,
    /// 32 bytes in hexadecimal: the oracle's randomness derives from it and from the submission, so that a worker
    /// cannot search for a submission that is lucky.
    pub(crate) seed_secret: String,
}

impl OraclePin {
    /// The oracle that judges.
    pub(crate) fn oracle(&self) -> Result<&OraclePinView, Internal> {
        self.oracles.first().ok_or(Internal::Invariant("a pin names an oracle"))
    }
}

/// What can stand in the database.
#[derive(Deserialize)]
#[serde(untagged)]
enum StoredPin {
    /// What is written now.
    Now { oracles: Vec<OraclePinView>, quorum: u32, min_score: u8, guard: bool, seed_secret: String },
    /// Of jobs that were funded before a job could have several oracles.
    Before {
        #[serde(flatten)]
        oracle: OraclePinView,
        seed_secret: String,
    },
}

impl From<StoredPin> for OraclePin {
    fn from(stored: StoredPin) -> Self {
        match stored {
            StoredPin::Now { oracles, quorum, min_score, guard, seed_secret } => {
                Self { oracles, quorum, min_score, guard, seed_secret }
            }
            StoredPin::Before { oracle, seed_secret } => {
                Self { oracles: vec![oracle], quorum: 1, min_score: 0, guard: false, seed_secret }
            }
        }
    }
}

/// What judges a job, from the funding on.
pub(crate) fn pin_of(job: &Job) -> Result<Option<OraclePin>, Internal> {
    Ok(job.oracle_pin.clone().map(serde_json::from_value).transpose()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stored() -> serde_json::Value {
        let limits = serde_json::to_value(Limits::default()).unwrap();
        json!({
            "bot_id": "bot_01KAJ2Y3Z4A5B6C7D8E9F0G1H2", "version": 3,
            "component": Sha256::of(b"code").to_string(), "config": { "a": "b" }, "limits": limits,
        })
    }

    #[test]
    fn what_was_stored_before_is_read() {
        let mut before = stored();
        before["seed_secret"] = json!("00ff");
        let pin: OraclePin = serde_json::from_value(before).unwrap();
        let now = json!({
            "oracles": [stored()], "quorum": 1, "min_score": 0, "guard": false, "seed_secret": "00ff",
        });
        assert_eq!(serde_json::to_value(&pin).unwrap(), now);
        assert_eq!(serde_json::from_value::<OraclePin>(now).unwrap(), pin);
    }

    #[test]
    fn what_is_neither_is_refused() {
        for bad in [json!({}), stored(), json!({ "oracles": [], "seed_secret": "" })] {
            assert!(serde_json::from_value::<OraclePin>(bad).is_err());
        }
    }
}
