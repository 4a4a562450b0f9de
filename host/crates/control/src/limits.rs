//! Rate limits: how many requests a minute a principal, or an address that has not proved who it is, may make.
//!
//! Each host counts in memory, by the generic cell rate algorithm. Where several hosts work on one database, a host also
//! takes cells out of a common account there, a block at a time, and spends them from memory. What is taken is spent
//! within [`BLOCK_GOOD_FOR`], so that all hosts together let through at most the limit and a block for each host more.

use std::net::{IpAddr, Ipv6Addr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use lru::LruCache;
use ringfence_model::Sha256;
use ringfence_store::rates;

use crate::{Caller, Control};

/// A limit is so many requests in this time.
const WINDOW: Duration = Duration::from_secs(60);
/// A block is this part of a limit.
const BLOCKS: u32 = 12;
/// How long cells that were taken out of the common account can be spent.
const BLOCK_GOOD_FOR: Duration = Duration::from_secs(5);
/// How many principals and addresses are counted at a time. Whoever was not seen for the longest is forgotten first.
const KEPT: usize = 100_000;

/// What is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitGroup {
    /// Requests that read.
    Reads,
    /// Requests that change something.
    Writes,
    /// Requests without a credential, by address.
    Anonymous,
    /// Logins and exchanges of tokens: by address, and by account.
    Logins,
    /// Credentials that were not accepted, by address.
    Failures,
}

impl LimitGroup {
    /// The name, as in `RateLimit-Policy`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reads => "reads",
            Self::Writes => "writes",
            Self::Anonymous => "anonymous",
            Self::Logins => "logins",
            Self::Failures => "failures",
        }
    }
}

/// Requests a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// That read, by a principal.
    pub reads_per_minute: NonZeroU32,
    /// That change something, by a principal.
    pub writes_per_minute: NonZeroU32,
    /// Without a credential, and with a wrong one, by an address.
    pub anonymous_per_minute: NonZeroU32,
    /// Logins, by an address, and into an account.
    pub logins_per_minute: NonZeroU32,
}

impl Default for RateLimits {
    fn default() -> Self {
        let of = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Self {
            reads_per_minute: of(60),
            writes_per_minute: of(20),
            anonymous_per_minute: of(60),
            logins_per_minute: of(10),
        }
    }
}

/// Who is counted.
#[derive(Debug, Clone, Copy)]
pub enum Counted<'a> {
    /// Whoever has proved who it is.
    Caller(&'a Caller),
    /// An address; of IPv6, the network of 64 bits.
    Address(IpAddr),
    /// An account, by what one logs in with, whether there is such an account or not.
    Account(&'a str),
}

/// What is left of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitState {
    /// What is counted.
    pub group: LimitGroup,
    /// Requests a minute.
    pub limit: u32,
    /// Requests that can be made at once.
    pub remaining: u32,
    /// Until the whole limit is there again.
    pub full_after: Duration,
}

/// A request was one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {} {} a minute", self.state.limit, self.state.group.as_str())]
pub struct Limited {
    /// What is left.
    pub state: LimitState,
    /// When the next one can be made.
    pub retry_after: Duration,
}

type Local = RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>;

pub(crate) struct Limits {
    defaults: RateLimits,
    /// By the names of their accounts in the database.
    buckets: Mutex<LruCache<String, Arc<Bucket>>>,
}

/// What one principal may do of one group.
struct Bucket {
    limit: NonZeroU32,
    local: Local,
    shared: tokio::sync::Mutex<Shared>,
}

/// What this host has of the common account.
#[derive(Default)]
struct Shared {
    cells: u32,
    good_until: Option<Instant>,
    /// There is nothing in the account until then.
    empty_until: Option<Instant>,
}

impl Limits {
    pub(crate) fn new(defaults: RateLimits) -> Self {
        let kept = NonZeroUsize::new(KEPT).unwrap_or(NonZeroUsize::MIN);
        Self { defaults, buckets: Mutex::new(LruCache::new(kept)) }
    }

    fn limit(&self, who: Counted<'_>, group: LimitGroup) -> NonZeroU32 {
        let own = match (who, group) {
            (Counted::Caller(caller), LimitGroup::Reads) => caller.quotas().reads_per_minute,
            (Counted::Caller(caller), LimitGroup::Writes) => caller.quotas().writes_per_minute,
            _ => None,
        };
        own.and_then(NonZeroU32::new).unwrap_or(match group {
            LimitGroup::Reads => self.defaults.reads_per_minute,
            LimitGroup::Writes => self.defaults.writes_per_minute,
            LimitGroup::Anonymous | LimitGroup::Failures => self.defaults.anonymous_per_minute,
            LimitGroup::Logins => self.defaults.logins_per_minute,
        })
    }

    /// The bucket, and the name of its account in the database.
    fn bucket(&self, who: Counted<'_>, group: LimitGroup) -> (Arc<Bucket>, String) {
        let limit = self.limit(who, group);
        let name = match who {
            // Keys with the same limit have one account, so that more keys are not more requests. All others have the
            // group's limit, so the name alone says how large the bucket is.
            Counted::Caller(caller) => format!("{} {limit}", caller.principal()),
            Counted::Address(address) => network(address).to_string(),
            // Not what was typed in, which ends up in a table.
            Counted::Account(account) => Sha256::of(account.as_bytes()).to_string(),
        };
        let account = format!("{} {name}", group.as_str());
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.get_or_insert_ref(account.as_str(), || Arc::new(Bucket::new(limit)));
        (Arc::clone(bucket), account)
    }
}

impl Bucket {
    fn new(limit: NonZeroU32) -> Self {
        let local = RateLimiter::direct(Quota::per_minute(limit)).with_middleware();
        Self { limit, local, shared: tokio::sync::Mutex::default() }
    }

    fn period(&self) -> Duration {
        WINDOW.checked_div(self.limit.get()).unwrap_or(WINDOW)
    }

    fn state(&self, group: LimitGroup, remaining: u32) -> LimitState {
        let limit = self.limit.get();
        let full_after = self.period().saturating_mul(limit.saturating_sub(remaining));
        LimitState { group, limit, remaining, full_after }
    }

    fn limited(&self, group: LimitGroup, retry_after: Duration) -> Limited {
        Limited { state: self.state(group, 0), retry_after }
    }
}

impl Control {
    /// Counts a request.
    ///
    /// # Errors
    /// [`Limited`] if it is one too many: then nothing is to be done for it.
    pub async fn limit(&self, who: Counted<'_>, group: LimitGroup) -> Result<LimitState, Limited> {
        let (bucket, account) = self.limits.bucket(who, group);
        self.count(&bucket, group, &account).await
    }

    async fn count(&self, bucket: &Bucket, group: LimitGroup, account: &str) -> Result<LimitState, Limited> {
        let left = match bucket.local.check() {
            Ok(snapshot) => bucket.state(group, snapshot.remaining_burst_capacity()),
            Err(until) => {
                let wait = until.wait_time_from(DefaultClock::default().now());
                return Err(bucket.limited(group, wait));
            }
        };
        if self.store.is_shared() {
            self.take_shared(bucket, group, account).await?;
        }
        Ok(left)
    }

    /// Whether the last request of this kind was one too many, and the next would be too. Counts nothing.
    #[must_use]
    pub fn exhausted(&self, who: Counted<'_>, group: LimitGroup) -> Option<Limited> {
        let (bucket, _) = self.limits.bucket(who, group);
        let shared = bucket.shared.try_lock().ok()?;
        let wait = shared.empty_until?.checked_duration_since(Instant::now())?;
        Some(bucket.limited(group, wait))
    }

    /// Notes that a credential was refused.
    ///
    /// # Errors
    /// [`Limited`] if there were too many: until its time is over, [`Self::exhausted`] says so too.
    pub async fn count_failure(&self, address: IpAddr) -> Result<(), Limited> {
        let group = LimitGroup::Failures;
        let (bucket, account) = self.limits.bucket(Counted::Address(address), group);
        let counted = self.count(&bucket, group, &account).await;
        if let Err(limited) = &counted {
            bucket.shared.lock().await.empty_until = Instant::now().checked_add(limited.retry_after);
        }
        counted.map(drop)
    }

    async fn take_shared(&self, bucket: &Bucket, group: LimitGroup, account: &str) -> Result<(), Limited> {
        let mut shared = bucket.shared.lock().await;
        let now = Instant::now();
        if let Some(wait) = shared.empty_until.and_then(|until| until.checked_duration_since(now)) {
            return Err(bucket.limited(group, wait));
        }
        if shared.cells > 0 && shared.good_until.is_some_and(|until| until > now) {
            shared.cells -= 1;
            return Ok(());
        }
        let block = (bucket.limit.get() / BLOCKS).max(1);
        // A block that is too large may still leave room for one.
        for cells in [block, 1] {
            let taken = async {
                // On a shared database this connection writes as well, and each statement commits itself.
                let mut session = self.store.reader().await?;
                let cost = bucket.period().saturating_mul(cells);
                rates::take(&mut session, account, self.clock.now(), cost, WINDOW).await
            };
            match taken.await {
                Ok(None) => {
                    shared.cells = cells - 1;
                    shared.good_until = now.checked_add(BLOCK_GOOD_FOR);
                    return Ok(());
                }
                Ok(Some(_)) if cells > 1 => {}
                Ok(Some(wait)) => {
                    shared.empty_until = now.checked_add(wait);
                    return Err(bucket.limited(group, wait));
                }
                Err(error) => {
                    // This host's own limit holds all the same, and what the request wants of the database will fail too.
                    tracing::warn!(%error, "the common rate limit could not be read");
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// What counts as one client: an IPv4 address, or the 64 bits of IPv6 that a provider gives to one household.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_household_is_one_client() {
        let of = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
    }

    #[test]
    fn a_limit_is_used_up_and_comes_back() {
        let bucket = Bucket::new(NonZeroU32::new(3).unwrap());
        for left in [2, 1, 0] {
            assert_eq!(bucket.local.check().unwrap().remaining_burst_capacity(), left);
        }
        let wait = bucket.local.check().unwrap_err().wait_time_from(DefaultClock::default().now());
        assert!(wait > Duration::from_secs(15) && wait <= Duration::from_secs(20), "{wait:?}");
        assert_eq!(bucket.state(LimitGroup::Reads, 1).full_after, Duration::from_secs(40));
    }
}
