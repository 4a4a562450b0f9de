//! The words of the house: typed ids, money, time, secrets and the state machines.
//!
//! Pure: no I/O and nothing async. The only two doors to the outside are [`Clock`] and [`Rng`], passed in
//! by whoever starts the host, so that a test decides what time it is and what is random.

mod api_key;
mod bot;
mod clock;
mod digest;
mod id;
mod job;
mod money;
mod rng;
mod role;
mod wallet;

pub use api_key::{ApiKey, ApiKeyHash, MalformedApiKey};
pub use bot::BotStatus;
pub use clock::{Clock, InvalidTimestamp, ManualClock, SystemClock, Timestamp};
pub use digest::{InvalidDigest, Sha256, hex};
pub use id::{
    AccountId, AgentId, ApiKeyId, BotId, ClaimId, EventId, HostId, InvalidId, InvocationId, JobId, OrgId,
    PolicyId, ReportId, SessionId, SigningKeyId, SubmissionId, TaskId, TransferId, UserId,
};
pub use job::{
    EscrowStatus, JobEvent, JobStatus, PayoutStatus, SubmissionEvent, SubmissionStatus, Visibility,
};
pub use money::{FeeBps, FeeSplit, InvalidMoney, MicroUsdc};
pub use rng::{Rng, SeededRng, SystemRng};
pub use role::Role;
pub use wallet::{InvalidWallet, WalletAddress};

/// A state change that the state machine does not have (see `docs/state-machines.md`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{event}` is not possible while `{from}`")]
pub struct InvalidTransition {
    /// The state that the thing is in.
    pub from: &'static str,
    /// What was asked of it.
    pub event: &'static str,
}

/// A word from the database or from outside that is not one of an enum's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is not a {kind}; expected one of: {expected}")]
pub struct UnknownWord {
    /// What it should have been.
    pub kind: &'static str,
    /// What it was.
    pub word: String,
    /// All that it may be, separated by commas.
    pub expected: String,
}

/// Declares an enum whose variants are stored and shown as fixed words.
#[macro_export]
macro_rules! words {
    ($(#[$doc:meta])* $name:ident ($kind:literal) { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)]
            $variant),+ }

        impl $name {
            /// Every value, in the order of the lifecycle.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in the database and in the API.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::UnknownWord;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err($crate::UnknownWord {
                        kind: $kind,
                        word: word.chars().take(40).collect(),
                        expected: [$($word),+].join(", "),
                    }),
                }
            }
        }
    };
}
