//! Calls while they run, for whoever follows them. Nothing is kept here of bots that nobody follows.
//!
//! A call's lines are held as long as it runs, where the sandbox holds them anyway; those of a call that has ended only if
//! they are few. A follower reads them at its own pace: what it has not read by then it finds in the database.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringfence_model::{BotId, InvocationId, OrgId, Timestamp};
use ringfence_runtime::{Level, LogLine, LogOptions};
use tokio::sync::watch;

use crate::LogLineView;

/// Followers on this host.
const MAX_FOLLOWERS: usize = 128;
/// Followers of one org on this host.
const MAX_FOLLOWERS_OF_ORG: usize = 16;
/// Calls of a bot that a follower can be behind.
const MAX_BEGUN: usize = 256;
/// Lines of a call that has ended are held if they take no more than this, in bytes.
const MAX_HELD_BYTES: usize = 8 << 10;
/// How many lines are read at a time.
const LINES_AT_A_TIME: usize = 64;

/// The calls of this host that are followed.
pub(crate) struct Live {
    /// How many follow something: what each call looks at first.
    followers: AtomicUsize,
    held: Mutex<Held>,
    closed: watch::Sender<bool>,
}

#[derive(Default)]
struct Held {
    bots: HashMap<BotId, (Arc<BotCalls>, usize)>,
    orgs: HashMap<OrgId, usize>,
}

/// The calls of a bot that have begun since it is followed.
pub(crate) struct BotCalls {
    begun: Mutex<Begun>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Begun {
    /// The number of the first call that is still held.
    first: u64,
    calls: VecDeque<Arc<LiveCall>>,
}

/// A call that is followed, or could be.
pub(crate) struct LiveCall {
    pub(crate) id: InvocationId,
    pub(crate) started_at: Timestamp,
    state: Mutex<CallState>,
}

#[derive(Default)]
struct CallState {
    lines: Vec<Arc<LogLineView>>,
    /// How many there were in all.
    written: usize,
    bytes: usize,
    ended: Option<Ended>,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Its outcome; `None` if it did not begin.
    pub(crate) outcome: Option<String>,
}

/// What there is to read of a call.
pub(crate) struct Read {
    pub(crate) lines: Vec<Arc<LogLineView>>,
    /// Whether there are more lines now.
    pub(crate) more: bool,
    /// How it ended, if it has.
    pub(crate) ended: Option<Ended>,
    /// Whether it has ended and lines are left that are not held any more.
    pub(crate) left: bool,
}

/// Why there is no place for a follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Org,
    Host,
}

impl Live {
    pub(crate) fn new() -> Self {
        Self { followers: AtomicUsize::new(0), held: Mutex::default(), closed: watch::Sender::new(false) }
    }

    /// A call begins. It ends when what is returned is dropped.
    pub(crate) fn begin(&self, bot: &BotId, id: &InvocationId, started_at: Timestamp) -> Followed {
        if self.followers.load(Ordering::Relaxed) == 0 {
            return Followed(None);
        }
        let Some(bot) = lock(&self.held).bots.get(bot).map(|(calls, _)| Arc::clone(calls)) else {
            return Followed(None);
        };
        let call = LiveCall { id: id.clone(), started_at, state: Mutex::default() };
        let call = Arc::new(call);
        {
            let mut begun = lock(&bot.begun);
            if begun.calls.len() >= MAX_BEGUN {
                begun.calls.pop_front();
                begun.first += 1;
            }
            begun.calls.push_back(Arc::clone(&call));
        }
        bot.changed.send_replace(());
        Followed(Some((bot, call)))
    }

    /// A place to follow a bot from.
    pub(crate) fn follow(self: &Arc<Self>, org: &OrgId, bot: &BotId) -> Result<Follower, Full> {
        let mut held = lock(&self.held);
        if self.followers.load(Ordering::Relaxed) >= MAX_FOLLOWERS {
            return Err(Full::Host);
        }
        let of_org = held.orgs.entry(org.clone()).or_default();
        if *of_org >= MAX_FOLLOWERS_OF_ORG {
            return Err(Full::Org);
        }
        *of_org += 1;
        self.followers.fetch_add(1, Ordering::Relaxed);
        let (calls, followers) = held.bots.entry(bot.clone()).or_insert_with(|| {
            (Arc::new(BotCalls { begun: Mutex::default(), changed: watch::Sender::new(()) }), 0)
        });
        *followers += 1;
        let calls = Arc::clone(calls);
        drop(held);
        let (changed, closed) = (calls.changed.subscribe(), self.closed.subscribe());
        Ok(Follower {
            live: Arc::clone(self),
            org: org.clone(),
            bot: bot.clone(),
            calls,
            next: 0,
            changed,
            closed,
        })
    }

    /// Ends whatever is followed, now and later: the host stops.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }
}

/// A call that is followed, or not.
pub(crate) struct Followed(Option<(Arc<BotCalls>, Arc<LiveCall>)>);

impl Followed {
    /// What the sandbox is to do with the call's lines.
    pub(crate) fn options(&self, min_level: Option<Level>) -> LogOptions {
        let follow = self.0.as_ref().map(|(bot, call)| {
            let (bot, call) = (Arc::clone(bot), Arc::clone(call));
            Arc::new(move |_: usize, line: &LogLine| {
                call.write(line);
                bot.changed.send_replace(());
            }) as ringfence_runtime::LineSink
        });
        LogOptions { min_level, follow }
    }

    /// The call has ended and been handed to the recorder.
    pub(crate) fn end(mut self, outcome: Option<&str>) {
        self.conclude(outcome);
    }

    fn conclude(&mut self, outcome: Option<&str>) {
        let Some((bot, call)) = self.0.take() else { return };
        let mut state = lock(&call.state);
        state.ended = Some(Ended { outcome: outcome.map(str::to_owned) });
        if state.bytes > MAX_HELD_BYTES {
            state.lines = Vec::new();
        }
        drop(state);
        bot.changed.send_replace(());
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.conclude(None);
    }
}

impl LiveCall {
    fn write(&self, line: &LogLine) {
        let view = Arc::new(LogLineView::from(line.clone()));
        let fields: usize = line.fields.iter().map(|(key, value)| key.len() + value.len()).sum();
        let mut state = lock(&self.state);
        state.bytes += line.message.len() + fields + size_of::<LogLineView>();
        state.written += 1;
        state.lines.push(view);
    }

    /// The lines from this number on.
    pub(crate) fn read(&self, next: usize) -> Read {
        let state = lock(&self.state);
        let lines: Vec<_> = state.lines.iter().skip(next).take(LINES_AT_A_TIME).cloned().collect();
        let read = next + lines.len();
        let more = read < state.lines.len();
        let left = state.ended.is_some() && !more && read < state.written;
        Read { lines, more, ended: state.ended.clone().filter(|_| !more), left }
    }

    pub(crate) fn is_running(&self) -> bool {
        lock(&self.state).ended.is_none()
    }
}

/// A follower's place; free again when this is dropped.
pub(crate) struct Follower {
    live: Arc<Live>,
    org: OrgId,
    bot: BotId,
    calls: Arc<BotCalls>,
    /// The number of the next call that has begun.
    next: u64,
    pub(crate) changed: watch::Receiver<()>,
    pub(crate) closed: watch::Receiver<bool>,
}

impl Follower {
    /// The next call that has begun, and how many were missed before it.
    pub(crate) fn next_begun(&mut self) -> Option<(Arc<LiveCall>, u64)> {
        let begun = lock(&self.calls.begun);
        let missed = begun.first.saturating_sub(self.next);
        let next = self.next.max(begun.first);
        let place = usize::try_from(next - begun.first).ok()?;
        let call = begun.calls.get(place)?;
        self.next = next + 1;
        Some((Arc::clone(call), missed))
    }

    /// A call that has begun, if it is still held.
    pub(crate) fn find(&self, id: &InvocationId) -> Option<Arc<LiveCall>> {
        lock(&self.calls.begun).calls.iter().find(|call| call.id == *id).map(Arc::clone)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut held = lock(&self.live.held);
        self.live.followers.fetch_sub(1, Ordering::Relaxed);
        if let Some(of_org) = held.orgs.get_mut(&self.org) {
            *of_org -= 1;
            if *of_org == 0 {
                held.orgs.remove(&self.org);
            }
        }
        if let Some((_, followers)) = held.bots.get_mut(&self.bot) {
            *followers -= 1;
            if *followers == 0 {
                held.bots.remove(&self.bot);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use ringfence_model::{ManualClock, SeededRng};
    use ringfence_runtime::Stream;

    use super::*;

    struct World {
        live: Arc<Live>,
        clock: ManualClock,
        rng: SeededRng,
        org: OrgId,
        bot: BotId,
    }

    impl World {
        fn new() -> Self {
            let (clock, rng) = (ManualClock::new(Timestamp::EPOCH), SeededRng::new(1));
            let (org, bot) = (OrgId::new(&clock, &rng), BotId::new(&clock, &rng));
            Self { live: Arc::new(Live::new()), clock, rng, org, bot }
        }

        fn begin(&self) -> Followed {
            let id = InvocationId::new(&self.clock, &self.rng);
            self.live.begin(&self.bot, &id, Timestamp::EPOCH)
        }

        fn follow(&self) -> Result<Follower, Full> {
            self.live.follow(&self.org, &self.bot)
        }
    }

    fn write(call: &Followed, message: &str) {
        let (stream, level) = (Stream::Stdout, Level::Info);
        let line = LogLine { at_us: 1, stream, level, message: message.to_owned(), fields: Vec::new() };
        call.options(None).follow.unwrap()(0, &line);
    }

    fn messages(read: &Read) -> Vec<&str> {
        read.lines.iter().map(|line| line.message.as_str()).collect()
    }

    #[test]
    fn what_nobody_follows_is_not_held() {
        let world = World::new();
        assert!(world.begin().options(None).follow.is_none());
        let mut follower = world.follow().unwrap();
        let call = world.begin();
        write(&call, "a");
        let (found, missed) = follower.next_begun().unwrap();
        assert_eq!((messages(&found.read(0)), missed), (vec!["a"], 0));
        assert!(follower.next_begun().is_none());
        drop(follower);
        assert!(world.begin().options(None).follow.is_none());
        let held = lock(&world.live.held);
        assert!(held.bots.is_empty() && held.orgs.is_empty(), "nothing is left of it");
    }

    #[test]
    fn a_call_is_read_from_any_line_until_it_has_ended() {
        let world = World::new();
        let mut follower = world.follow().unwrap();
        let call = world.begin();
        write(&call, "a");
        write(&call, "b");
        let (found, _) = follower.next_begun().unwrap();
        assert_eq!(messages(&found.read(1)), ["b"]);
        assert!(found.is_running() && found.read(2).ended.is_none());
        call.end(Some("completed"));
        let read = found.read(1);
        assert_eq!((messages(&read), read.left), (vec!["b"], false));
        assert_eq!(read.ended, Some(Ended { outcome: Some("completed".to_owned()) }));
        // One that never began.
        drop(world.begin());
        let (found, _) = follower.next_begun().unwrap();
        assert_eq!(found.read(0).ended, Some(Ended { outcome: None }));
    }

    #[test]
    fn many_lines_of_a_call_that_has_ended_are_left_to_the_database() {
        let world = World::new();
        let mut follower = world.follow().unwrap();
        let call = world.begin();
        write(&call, "a");
        write(&call, &"b".repeat(MAX_HELD_BYTES));
        call.end(Some("completed"));
        let (found, _) = follower.next_begun().unwrap();
        let read = found.read(1);
        assert!(read.lines.is_empty() && read.left && read.ended.is_some());
        assert!(!found.read(2).left, "who has read all needs nothing of it");
    }

    #[test]
    fn who_is_slow_is_told_what_it_has_missed() {
        let world = World::new();
        let mut follower = world.follow().unwrap();
        drop(world.begin());
        assert_eq!(follower.next_begun().unwrap().1, 0);
        for _ in 0..MAX_BEGUN + 3 {
            drop(world.begin());
        }
        assert_eq!(follower.next_begun().unwrap().1, 3);
        assert_eq!(follower.next_begun().unwrap().1, 0);
    }

    #[test]
    fn there_are_so_many_places_and_no_more() {
        let world = World::new();
        let all: Vec<_> = (0..MAX_FOLLOWERS_OF_ORG).map(|_| world.follow().unwrap()).collect();
        assert_eq!(world.follow().err(), Some(Full::Org));
        let mut others = Vec::new();
        while others.len() + all.len() < MAX_FOLLOWERS {
            let org = OrgId::new(&world.clock, &world.rng);
            others.push(world.live.follow(&org, &world.bot).unwrap());
        }
        let org = OrgId::new(&world.clock, &world.rng);
        assert_eq!(world.live.follow(&org, &world.bot).err(), Some(Full::Host));
        others.pop();
        assert!(world.live.follow(&org, &world.bot).is_ok());
    }
}
