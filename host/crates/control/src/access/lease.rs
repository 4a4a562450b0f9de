use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use lru::LruCache;

use super::LEASE;
use crate::Internal;

/// What was read a moment ago. An entry is good for [`LEASE`], counted from before it was read.
pub(crate) struct Leased<K, V>(Mutex<Held<K, V>>);

struct Held<K, V> {
    entries: LruCache<K, (Instant, V)>,
    /// Raised when everything is forgotten: what was being read at that moment is not kept.
    forgotten: u64,
}

impl<K: Hash + Eq + Clone, V: Clone> Leased<K, V> {
    pub(crate) fn new(kept: usize) -> Self {
        let entries = LruCache::new(NonZeroUsize::new(kept).unwrap_or(NonZeroUsize::MIN));
        Self(Mutex::new(Held { entries, forgotten: 0 }))
    }

    /// What is known of `key`, read anew if it must be, and since when it is known. What is not there is not remembered: whoever makes keys up must
    /// not push out those of others.
    pub(crate) async fn get<E, F: Future<Output = Result<Option<V>, E>>>(
        &self,
        key: &K,
        read: impl FnOnce() -> F,
    ) -> Result<Option<(V, Instant)>, E> {
        let begun = {
            let mut held = self.held();
            if let Some((read_at, value)) = held.entries.get(key)
                && read_at.elapsed() < LEASE
            {
                return Ok(Some((value.clone(), *read_at)));
            }
            held.forgotten
        };
        let read_at = Instant::now();
        let value = read().await?;
        let mut held = self.held();
        if let Some(value) = &value
            && held.forgotten == begun
        {
            held.entries.put(key.clone(), (read_at, value.clone()));
        }
        Ok(value.map(|value| (value, read_at)))
    }

    /// Whether `key` is known at this moment.
    pub(super) fn holds(&self, key: &K) -> bool {
        self.held().entries.peek(key).is_some_and(|(read_at, _)| read_at.elapsed() < LEASE)
    }

    pub(crate) fn forget(&self) {
        let mut held = self.held();
        held.entries.clear();
        held.forgotten = held.forgotten.wrapping_add(1);
    }

    fn held(&self) -> MutexGuard<'_, Held<K, V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thing that every host holds, such as its signing keys: read when the host starts, and anew when it is too old.
pub(crate) struct Renewed<T> {
    /// What was read, and when: counted from before it was read.
    held: RwLock<(T, Instant)>,
    /// Held by whoever reads; in it, when that failed last.
    renewing: tokio::sync::Mutex<Option<Instant>>,
}

impl<T: Clone> Renewed<T> {
    pub(crate) fn new(value: T, read_at: Instant) -> Self {
        Self { held: RwLock::new((value, read_at)), renewing: tokio::sync::Mutex::default() }
    }

    /// What is held, whatever its age.
    pub(crate) fn held(&self) -> T {
        self.read().0
    }

    /// What is held, as it was this long ago at most. If it is older, `read` makes the new one of it.
    ///
    /// # Errors
    /// Those of `read`; [`Internal::Unavailable`] for whoever has waited for somebody else's `read` that failed.
    pub(crate) async fn at_most<F: Future<Output = Result<T, Internal>>>(
        &self,
        age: Duration,
        read: impl FnOnce(T) -> F,
    ) -> Result<T, Internal> {
        let (value, read_at) = self.read();
        if read_at.elapsed() < age {
            return Ok(value);
        }
        // One request reads; the others wait for what it finds.
        let asked_at = Instant::now();
        let mut failed_at = self.renewing.lock().await;
        let (value, read_at) = self.read();
        if read_at.elapsed() < age {
            return Ok(value);
        }
        // Whoever has waited for somebody else's failure does not try it again at once.
        if failed_at.is_some_and(|failed_at| failed_at >= asked_at) {
            return Err(Internal::Unavailable);
        }
        let read_at = Instant::now();
        let value = read(value).await.inspect_err(|_| *failed_at = Some(Instant::now()))?;
        *failed_at = None;
        self.set(value.clone(), read_at);
        Ok(value)
    }

    /// Lets whoever asks next for what is at most [`LEASE`] old read it anew.
    pub(crate) fn forget(&self) {
        if let Some(long_ago) = Instant::now().checked_sub(LEASE) {
            self.set(self.held(), long_ago);
        }
    }

    fn read(&self) -> (T, Instant) {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, value: T, read_at: Instant) {
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = (value, read_at);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    async fn read(cache: &Leased<u8, u8>, value: u8) -> Option<u8> {
        cache.get(&1, || async { Ok::<_, Infallible>(Some(value)) }).await.unwrap().map(|(value, _)| value)
    }

    #[tokio::test]
    async fn what_was_read_is_good_until_it_is_forgotten() {
        let cache = Leased::new(10);
        assert_eq!(read(&cache, 1).await, Some(1));
        assert_eq!(read(&cache, 2).await, Some(1));
        cache.forget();
        assert_eq!(read(&cache, 3).await, Some(3));
    }

    #[tokio::test]
    async fn what_was_being_read_when_all_was_forgotten_is_not_kept() {
        let cache = Leased::new(10);
        let late = cache.get(&1, || async {
            cache.forget();
            Ok::<_, Infallible>(Some(1))
        });
        assert_eq!(late.await.unwrap().unwrap().0, 1);
        assert_eq!(read(&cache, 2).await, Some(2));
    }

    #[tokio::test]
    async fn it_is_read_again_when_its_time_is_over() {
        let cache = Leased::new(10);
        assert_eq!(read(&cache, 1).await, Some(1));
        tokio::time::sleep(LEASE).await;
        assert_eq!(read(&cache, 2).await, Some(2));
    }

    #[tokio::test]
    async fn what_was_renewed_is_held_until_it_is_too_old() {
        let number = Renewed::new(1, Instant::now());
        let next = async |held| Ok(held + 1);
        assert_eq!(number.at_most(Duration::MAX, next).await.unwrap(), 1);
        assert_eq!(number.at_most(Duration::ZERO, next).await.unwrap(), 2);
        assert_eq!(number.held(), 2);
        assert_eq!(number.at_most(Duration::MAX, next).await.unwrap(), 2);
        number.forget();
        assert_eq!(number.at_most(LEASE, next).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn who_waits_for_a_failure_does_not_read_again() {
        let number = Renewed::new(1, Instant::now());
        let fails = async |_| {
            tokio::task::yield_now().await;
            Err(Internal::Invariant("not now"))
        };
        let (one, other) = tokio::join!(
            number.at_most(Duration::ZERO, fails),
            number.at_most(Duration::ZERO, async |_| panic!("must not be asked")),
        );
        assert!(matches!(one, Err(Internal::Invariant(_))), "{one:?}");
        assert!(matches!(other, Err(Internal::Unavailable)), "{other:?}");
        // Whoever comes later does.
        assert_eq!(number.at_most(Duration::ZERO, async |held| Ok(held + 1)).await.unwrap(), 2);
    }
}
