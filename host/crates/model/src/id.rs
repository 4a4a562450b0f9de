use crate::{Clock, Rng, Timestamp};

/// A text that is not an id of the kind that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a {kind} id: expected `{prefix}_` and 26 letters and digits, like {prefix}_01JZ0000000000000000000000"
)]
pub struct InvalidId {
    kind: &'static str,
    prefix: &'static str,
}

macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $kind:literal) => {
        $(#[$doc])*
        ///
        /// A ULID behind a prefix: ids made later sort later. Two of one host's never meet: 80 bits of each
        /// are random.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// A new id.
            #[must_use]
            pub fn new(clock: &dyn Clock, rng: &dyn Rng) -> Self {
                Self(format!(concat!($prefix, "_{}"), fresh_ulid(clock, rng)))
            }

            /// The id as it is stored and shown.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let ulid = text.strip_prefix(concat!($prefix, "_"));
                if ulid.is_some_and(is_canonical_ulid) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidId { kind: $kind, prefix: $prefix })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

typed_id!(/// An organization: the tenant that a row belongs to.
    OrgId, "org", "organization");
typed_id!(/// An agent: a market identity.
    AgentId, "agent", "agent");
typed_id!(/// An API key (its row, not its secret).
    ApiKeyId, "key", "API key");
typed_id!(/// A bot or an oracle: a named deployment of a component.
    BotId, "bot", "bot");
typed_id!(/// One call into one sandboxed instance.
    InvocationId, "inv", "invocation");
typed_id!(/// A job; the API calls it `task_id`.
    JobId, "job", "job");
typed_id!(/// One attempt by one worker at a job.
    SubmissionId, "sub", "submission");
typed_id!(/// An account in the ledger.
    AccountId, "acct", "account");
typed_id!(/// A movement of money in the ledger.
    TransferId, "xfer", "transfer");
typed_id!(/// What an operator has reported of the world outside.
    ReportId, "report", "report");
typed_id!(/// A worker's claim on a job.
    ClaimId, "claim", "claim");
typed_id!(/// A piece of work on the queue.
    TaskId, "task", "task");
typed_id!(/// A host process, from its start to its end: whose leases these are.
    HostId, "host", "host");
typed_id!(/// A person who logs in.
    UserId, "user", "user");
typed_id!(/// A login, from the password to the logout.
    SessionId, "sess", "session");
typed_id!(/// A rule that operators have added to the permission matrix.
    PolicyId, "policy", "policy");
typed_id!(/// A key under which tokens are signed: the `kid` of their headers.
    SigningKeyId, "skey", "signing key");
typed_id!(/// Something that happened, in the outbox.
    EventId, "evt", "event");

impl OrgId {
    /// The operators' org, the same on every installation: it owns the platform's accounts.
    #[must_use]
    pub fn platform() -> Self {
        Self("org_00000000000000000000000000".to_owned())
    }
}

impl InvocationId {
    /// The least id that a call can have which begins at this time, in whole milliseconds.
    #[must_use]
    pub fn least_at(time: Timestamp) -> Self {
        Self(format!("inv_{}", ulid::Ulid::from_parts(millis(time), 0)))
    }

    /// When the id was made, in whole milliseconds.
    #[must_use]
    pub fn made_at(&self) -> Timestamp {
        let ulid = self.0.strip_prefix("inv_").and_then(|ulid| ulid::Ulid::from_string(ulid).ok());
        let millis = ulid.map_or(0, |ulid| ulid.timestamp_ms());
        Timestamp::from_micros(i64::try_from(millis).unwrap_or(i64::MAX).saturating_mul(1000))
    }
}

fn millis(time: Timestamp) -> u64 {
    u64::try_from(time.as_micros() / 1000).unwrap_or(0)
}

fn fresh_ulid(clock: &dyn Clock, rng: &dyn Rng) -> ulid::Ulid {
    let mut random = [0; 16];
    rng.fill(&mut random);
    ulid::Ulid::from_parts(millis(clock.now()), u128::from_le_bytes(random))
}

/// Upper-case only: one id has one spelling.
fn is_canonical_ulid(text: &str) -> bool {
    ulid::Ulid::from_string(text).is_ok() && text.bytes().all(|byte| !byte.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ManualClock, SeededRng};

    #[test]
    fn an_id_reads_back_and_no_other_kind_does() {
        let id = JobId::new(&ManualClock::new(Timestamp::EPOCH), &SeededRng::new(1));
        assert_eq!(id.as_str().parse::<JobId>().unwrap(), id);
        assert!(id.as_str().parse::<BotId>().is_err());
    }

    #[test]
    fn the_platform_has_a_proper_id() {
        assert_eq!(OrgId::platform().as_str().parse(), Ok(OrgId::platform()));
    }

    #[test]
    fn texts_that_are_not_ids_are_refused() {
        for text in [
            "",
            "job_",
            "job",
            "job_01JZ",
            "job_01jz0000000000000000000000",
            "job_01JZ000000000000000000000'",
        ] {
            assert!(text.parse::<JobId>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_id_tells_when_it_was_made() {
        let made_at = "2026-11-21T12:00:00.123Z".parse().unwrap();
        let id = InvocationId::new(&ManualClock::new(made_at), &SeededRng::new(1));
        assert_eq!((id.made_at(), InvocationId::least_at(made_at).made_at()), (made_at, made_at));
        assert!(InvocationId::least_at(made_at) < id);
        assert!(id < InvocationId::least_at(made_at.plus(std::time::Duration::from_millis(1))));
    }

    #[test]
    fn later_ids_sort_later() {
        let (clock, rng) = (ManualClock::new(Timestamp::EPOCH), SeededRng::new(1));
        let first = EventId::new(&clock, &rng);
        clock.advance(std::time::Duration::from_millis(1));
        assert!(first < EventId::new(&clock, &rng));
    }
}
