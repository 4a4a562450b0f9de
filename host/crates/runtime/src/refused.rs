//! What the compiler has refused, so that the same upload again costs nothing.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::component::InvalidComponent;
use crate::digest::Digest;

/// Refusals that are remembered; the least recently asked for go first. The longest has 16 KiB of text.
const MAX_REMEMBERED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);

/// How long that is remembered which may have been the machine's fault: it was busy, or short of memory.
const UNLUCKY_FOR: Duration = Duration::from_secs(300);

/// Components that were refused, in memory: a host that starts anew, perhaps with another engine or other limits, asks
/// its compiler again.
pub(crate) struct Refused {
    components: Mutex<LruCache<Digest, Refusal>>,
    unlucky_for: Duration,
}

struct Refusal {
    error: InvalidComponent,
    until: Option<Instant>,
}

impl Default for Refused {
    fn default() -> Self {
        Self { components: Mutex::new(LruCache::new(MAX_REMEMBERED)), unlucky_for: UNLUCKY_FOR }
    }
}

impl Refused {
    /// Why this component was refused, if it was and trying again makes no sense yet.
    pub(crate) fn get(&self, digest: &Digest) -> Option<InvalidComponent> {
        let mut components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
        let refusal = components.get(digest)?;
        if refusal.until.is_some_and(|until| until <= Instant::now()) {
            components.pop(digest);
            return None;
        }
        Some(refusal.error.clone())
    }

    /// It will be refused again, whenever it is tried.
    pub(crate) fn for_good(&self, digest: Digest, error: &InvalidComponent) {
        self.put(digest, error, None);
    }

    /// It was refused, and might not be another time.
    pub(crate) fn for_now(&self, digest: Digest, error: &InvalidComponent) {
        self.put(digest, error, Instant::now().checked_add(self.unlucky_for));
    }

    fn put(&self, digest: Digest, error: &InvalidComponent, until: Option<Instant>) {
        let mut components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
        components.put(digest, Refusal { error: error.clone(), until });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u32) -> Digest {
        Digest::of(&number.to_le_bytes())
    }

    #[test]
    fn the_least_recently_asked_for_is_forgotten() {
        let refused = Refused::default();
        let last = u32::try_from(MAX_REMEMBERED.get()).unwrap();
        for number in 0..last {
            refused.for_good(digest(number), &InvalidComponent::TwoWorlds);
        }
        assert_eq!(refused.get(&digest(0)), Some(InvalidComponent::TwoWorlds));
        refused.for_good(digest(last), &InvalidComponent::Empty);
        assert_eq!(refused.get(&digest(0)), Some(InvalidComponent::TwoWorlds));
        assert_eq!(refused.get(&digest(1)), None);
        assert_eq!(refused.get(&digest(last)), Some(InvalidComponent::Empty));
    }

    #[test]
    fn bad_luck_is_forgotten_after_a_while() {
        let refused = Refused::default();
        refused.for_now(digest(1), &InvalidComponent::TwoWorlds);
        assert_eq!(refused.get(&digest(1)), Some(InvalidComponent::TwoWorlds));
        let refused = Refused { unlucky_for: Duration::ZERO, ..Refused::default() };
        refused.for_now(digest(1), &InvalidComponent::TwoWorlds);
        refused.for_good(digest(2), &InvalidComponent::TwoWorlds);
        assert_eq!(refused.get(&digest(1)), None);
        assert_eq!(refused.get(&digest(2)), Some(InvalidComponent::TwoWorlds));
    }
}
