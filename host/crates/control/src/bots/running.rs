//! How many instances of each bot run on this host.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringfence_model::BotId;

/// The bots that run, each with the number of its instances.
#[derive(Clone, Default)]
pub(crate) struct Running(Arc<Mutex<HashMap<BotId, u64>>>);

/// One instance, until it is dropped.
pub(super) struct Instance {
    running: Running,
    bot: BotId,
}

impl Running {
    /// Counts one instance more; `None` if the bot has as many as it may.
    pub(super) fn begin(&self, bot: &BotId, instances: u64) -> Option<Instance> {
        let mut running = self.lock();
        let count = running.entry(bot.clone()).or_default();
        if *count >= instances {
            return None;
        }
        *count += 1;
        Some(Instance { running: self.clone(), bot: bot.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<BotId, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let mut running = self.running.lock();
        if let Some(count) = running.get_mut(&self.bot) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.bot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ringfence_model::{SeededRng, SystemClock};

    use super::*;

    #[test]
    fn a_bot_has_as_many_as_it_may_and_nothing_is_kept_of_those_that_rest() {
        let (running, rng) = (Running::default(), SeededRng::new(1));
        let [bot, other] = [(); 2].map(|()| BotId::new(&SystemClock, &rng));
        let first = running.begin(&bot, 2);
        let second = running.begin(&bot, 2);
        assert!(first.is_some() && second.is_some());
        assert!(running.begin(&bot, 2).is_none() && running.begin(&other, 2).is_some());
        drop(first);
        assert!(running.begin(&bot, 2).is_some());
        drop(second);
        assert!(running.lock().is_empty());
    }
}
