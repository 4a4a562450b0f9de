use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use lru::LruCache;

use super::LEASE;

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
}
