//! Following a bot, or one of its calls, live.
//!
//! A follower sends `begin`, `line` and `end` of each call, its lines in order, none twice. Calls of this host are read while
//! they run ([`live`](crate::live)); those of other hosts, and those that began before anyone followed, are looked for in
//! the database each second and come whole. Each event's id says what had been sent when it was: all calls up to the newest,
//! but for those that are named with the number of their next line. With the last id a client goes on where it was.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use ringfence_model::{BotId, InvocationId, Timestamp};
use ringfence_store::bots::Bot;
use ringfence_store::components::ComponentKind;
use ringfence_store::{invocations, logs};
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::logs::{BotLogLineView, LogFilter, kept_lines};
use crate::access::LEASE;
use crate::error::Checks;
use crate::live::{Follower, Full, LiveCall};
use crate::policy::{Action, Resource};
use crate::{BotError, Caller, Control, Denied, Internal, LogLineView};

/// The longest that anyone follows without asking again.
pub const MAX_FOLLOW: Duration = Duration::from_secs(3600);
/// Calls that are sent at the same time; others wait their turn.
const MAX_OPEN: usize = 64;
/// Events that wait for the client.
const MAX_WAITING: usize = 16;
/// How often the database is asked for calls of other hosts.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many of the newest calls are looked at then.
const LOOK_AT: u32 = 512;
/// Calls of which is known that they need not be sent.
const SEEN: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// How long a call may take besides its own time: to get an instance, to be compiled for, to be recorded.
const SLACK: Duration = Duration::from_secs(120);

/// What to follow.
#[derive(Debug, Clone)]
pub struct FollowLogs {
    /// The bot.
    pub bot_id: BotId,
    /// One call of it; all that begin from now on if none is named.
    pub invocation_id: Option<InvocationId>,
    /// Which lines.
    pub filter: LogFilter,
    /// The id of the last event that the client has, if it goes on.
    pub last_event_id: Option<String>,
    /// For how long at most.
    pub at_most: Duration,
}

/// Something to tell a follower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowEvent {
    /// Where to go on behind it.
    pub id: Option<String>,
    /// `begin`, `line`, `end`, `dropped` or `close`.
    pub name: &'static str,
    /// A JSON object.
    pub data: String,
}

/// Why a follower ends.
enum Over {
    /// All that was asked for was sent.
    Done,
    /// The client has gone.
    Gone,
    /// The client is told why.
    Closed(&'static str),
    Failed(BotError),
}

impl<E: Into<BotError>> From<E> for Over {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// A call that is being sent.
struct Open {
    /// The number of the next line.
    next: usize,
    begun: bool,
    source: Source,
}

enum Source {
    Live(Arc<LiveCall>),
    Kept {
        started_at: Timestamp,
        outcome: String,
    },
    /// It runs elsewhere, or is being recorded.
    Awaited,
}

/// What had been sent when an event was.
#[derive(Debug, Default, PartialEq, Eq)]
struct Cursor {
    newest: Option<InvocationId>,
    /// The next line of each call that was being sent; `None` if it had not begun.
    open: BTreeMap<InvocationId, Option<usize>>,
}

impl Cursor {
    /// The newest call, and the others each with its next line, without the prefixes of their ids.
    fn parse(text: &str) -> Option<Self> {
        let call = |ulid: &str| format!("inv_{ulid}").parse::<InvocationId>().ok();
        let mut parts = text.split('.');
        let newest = parts.next()?;
        let newest = if newest.is_empty() { None } else { Some(call(newest)?) };
        let mut open = BTreeMap::new();
        for part in parts {
            let (ulid, next) = part.split_once(':')?;
            let next = if next == "-" { None } else { Some(next.parse().ok()?) };
            open.insert(call(ulid)?, next);
        }
        (open.len() <= MAX_OPEN).then_some(Self { newest, open })
    }
}

impl Control {
    /// Follows a bot's calls, or one call, as they run. What is received ends when the call ends, the time is over, the
    /// caller may not any more, or the host stops; a last event `close` says which.
    ///
    /// # Errors
    /// [`BotError::NotFound`], [`BotError::NoSuchInvocation`] for a call that is neither kept nor can be running,
    /// [`BotError::Sealed`], [`BotError::NotFollowable`], [`BotError::TooManyFollowers`].
    pub async fn follow_logs(
        &self,
        caller: &Caller,
        follow: FollowLogs,
    ) -> Result<mpsc::Receiver<FollowEvent>, BotError> {
        let bot = self.own_bot(caller, &follow.bot_id, Action::InvocationsRead).await?;
        let mut checks = Checks::default();
        follow.filter.check(&mut checks);
        let cursor = follow.last_event_id.as_deref().map_or(Some(Cursor::default()), Cursor::parse);
        checks.require(cursor.is_some(), "Last-Event-ID", "is not the id of an event");
        checks.done()?;
        let Some(cursor) = cursor else { return Err(BotError::NotFound) };
        match &follow.invocation_id {
            Some(call) => self.can_be_followed(&bot, call).await?,
            None if bot.kind == ComponentKind::Oracle => return Err(BotError::NotFollowable),
            None => {}
        }
        let place = self.live.follow(&bot.org_id, &bot.id);
        let place = place.map_err(|full| BotError::TooManyFollowers { on_host: full == Full::Host })?;
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        let begun_at = self.clock.now();
        let resumed = follow.last_event_id.is_some();
        let sending = Sending {
            control: self.clone(),
            caller: caller.clone(),
            bot,
            filter: follow.filter,
            call: follow.invocation_id,
            place,
            sender,
            confirmed_at: caller.proved_at(),
            until: tokio::time::Instant::now() + follow.at_most.min(MAX_FOLLOW),
            since: begun_at,
            newest: cursor.newest.clone(),
            open: BTreeMap::new(),
            seen: LruCache::new(SEEN),
        };
        tokio::spawn(sending.run(cursor, resumed));
        Ok(receiver)
    }

    /// Whether a call is there to be followed: kept and open, or young enough to be running.
    async fn can_be_followed(&self, bot: &Bot, id: &InvocationId) -> Result<(), BotError> {
        self.recorder.settled().await;
        let mut reader = self.store.reader().await?;
        let kept = logs::call(&mut reader, &bot.id, id).await?;
        if let Some(call) = kept {
            return if super::logs::is_sealed(&mut reader, &call).await? {
                Err(BotError::Sealed)
            } else {
                Ok(())
            };
        }
        let now = self.clock.now();
        let may_run = id.made_at() <= now.plus(SLACK) && id.made_at() >= now.minus(self.longest_call());
        let elsewhere = invocations::get(&mut reader, id).await?.is_some();
        if may_run && !elsewhere && bot.kind == ComponentKind::Bot {
            return Ok(());
        }
        Err(BotError::NoSuchInvocation)
    }

    /// How long after its id was made a call can still be running or waiting to be recorded.
    fn longest_call(&self) -> Duration {
        Duration::from_millis(self.runtime.maximum().wall_time_ms) + SLACK
    }
}

/// A follower at work.
struct Sending {
    control: Control,
    caller: Caller,
    bot: Bot,
    filter: LogFilter,
    call: Option<InvocationId>,
    place: Follower,
    sender: mpsc::Sender<FollowEvent>,
    /// When it was found out last that the caller may.
    confirmed_at: Instant,
    until: tokio::time::Instant,
    /// Calls that began before this time are not looked for in the database.
    since: Timestamp,
    newest: Option<InvocationId>,
    open: BTreeMap<InvocationId, Open>,
    /// Calls that are being sent, were, or are not to be.
    seen: LruCache<InvocationId, ()>,
}

impl Sending {
    async fn run(mut self, cursor: Cursor, resumed: bool) {
        let over = match self.begin(cursor, resumed).await {
            Ok(()) => self.work().await.err().unwrap_or(Over::Done),
            Err(over) => over,
        };
        let reason = match over {
            Over::Done | Over::Gone => return,
            Over::Closed(reason) => reason,
            Over::Failed(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a follower of logs is cut off");
                "failed"
            }
        };
        let data = json!({ "reason": reason }).to_string();
        let _ = self.sender.try_send(FollowEvent { id: None, name: "close", data });
    }

    async fn begin(&mut self, cursor: Cursor, resumed: bool) -> Result<(), Over> {
        for (id, next) in cursor.open {
            let open = Open { next: next.unwrap_or(0), begun: next.is_some(), source: Source::Awaited };
            self.adopt(id, open);
        }
        if let Some(id) = self.call.clone() {
            // Of another call's cursor nothing is meant.
            self.open.retain(|open, _| *open == id);
            self.open.entry(id).or_insert(Open { next: 0, begun: false, source: Source::Awaited });
        }
        for (id, open) in &mut self.open {
            if let Some(live) = self.place.find(id) {
                open.source = Source::Live(live);
            }
        }
        let longest = self.control.longest_call();
        if self.call.is_none() {
            let floor = cursor.newest;
            while let Some((call, _)) = self.place.next_begun() {
                // Who begins to follow now gets the calls that run; who goes on, all that are newer.
                let wanted = if resumed {
                    floor.as_ref().is_none_or(|floor| call.id > *floor)
                } else {
                    call.is_running()
                };
                if wanted && !self.seen.contains(&call.id) {
                    let open = Open { next: 0, begun: false, source: Source::Live(Arc::clone(&call)) };
                    self.adopt(call.id.clone(), open);
                } else {
                    self.seen.put(call.id.clone(), ());
                }
            }
            let from = floor.as_ref().filter(|_| resumed).map_or(self.since, InvocationId::made_at);
            self.since = from.minus(longest);
            self.control.recorder.settled().await;
            for call in self.newest_calls().await? {
                if !resumed || floor.as_ref().is_some_and(|floor| call.id <= *floor) {
                    self.seen.put(call.id, ());
                }
            }
        }
        self.look().await
    }

    async fn work(&mut self) -> Result<(), Over> {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.take_begun().await?;
            self.send_all().await?;
            if self.call.is_some() && self.open.is_empty() {
                return Ok(());
            }
            let looks = tokio::select! {
                _ = self.place.changed.changed() => false,
                _ = look.tick() => true,
                () = self.sender.closed() => return Err(Over::Gone),
                _ = self.place.closed.wait_for(|closed| *closed) => return Err(Over::Closed("stopping")),
                () = tokio::time::sleep_until(self.until) => return Err(Over::Closed("time_over")),
            };
            if looks {
                self.confirm().await?;
                self.look().await?;
            }
        }
    }

    fn adopt(&mut self, id: InvocationId, open: Open) {
        self.seen.put(id.clone(), ());
        self.newest = Some(self.newest.take().map_or_else(|| id.clone(), |newest| newest.max(id.clone())));
        self.open.insert(id, open);
    }

    /// Takes on calls that have begun on this host.
    async fn take_begun(&mut self) -> Result<(), Over> {
        while self.call.is_none() && self.open.len() < MAX_OPEN {
            let Some((call, missed)) = self.place.next_begun() else { break };
            if missed > 0 {
                self.send("dropped", None, &json!({ "calls": missed })).await?;
            }
            if !self.seen.contains(&call.id) {
                let open = Open { next: 0, begun: false, source: Source::Live(Arc::clone(&call)) };
                self.adopt(call.id.clone(), open);
            }
        }
        Ok(())
    }

    /// The newest calls of the bot that are kept, the newest first.
    async fn newest_calls(&self) -> Result<Vec<logs::Logged>, Over> {
        let mut reader = self.control.store.reader().await?;
        let first = InvocationId::least_at(Timestamp::EPOCH);
        let before = (Timestamp::MAX, &first);
        Ok(logs::calls(&mut reader, &self.bot.id, before, self.since, LOOK_AT).await?)
    }

    /// Looks in the database for what is awaited, and for calls that this host does not know.
    async fn look(&mut self) -> Result<(), Over> {
        let now = self.control.clock.now();
        let longest = self.control.longest_call();
        let awaited = self.open.iter().filter(|(_, open)| matches!(open.source, Source::Awaited));
        let awaited: Vec<_> = awaited.map(|(id, _)| id.clone()).collect();
        for id in awaited {
            let mut reader = self.control.store.reader().await?;
            let kept = logs::call(&mut reader, &self.bot.id, &id).await?;
            drop(reader);
            match kept {
                Some(call) if call.submission_id.is_none() || self.call.is_some() => {
                    let (started_at, outcome) = (call.started_at, call.outcome);
                    if let Some(open) = self.open.get_mut(&id) {
                        open.source = Source::Kept { started_at, outcome };
                    }
                }
                None if id.made_at() >= now.minus(longest) => {}
                _ => self.send_end(&id, None).await?,
            }
        }
        if self.call.is_some() || self.open.len() >= MAX_OPEN {
            return Ok(());
        }
        let found = self.newest_calls().await?;
        let new = found.into_iter().rev().filter(|call| call.submission_id.is_none());
        let new: Vec<_> = new.filter(|call| !self.seen.contains(&call.id)).collect();
        if new.is_empty() {
            self.since = self.since.max(now.minus(longest));
        }
        for call in new {
            if self.open.len() < MAX_OPEN {
                let source = Source::Kept { started_at: call.started_at, outcome: call.outcome };
                self.adopt(call.id, Open { next: 0, begun: false, source });
            }
        }
        Ok(())
    }

    /// Sends what there is of every call.
    async fn send_all(&mut self) -> Result<(), Over> {
        let ids: Vec<_> = self.open.keys().cloned().collect();
        for id in ids {
            self.send_call(&id).await?;
        }
        Ok(())
    }

    async fn send_call(&mut self, id: &InvocationId) -> Result<(), Over> {
        loop {
            let Some(open) = self.open.get(id) else { return Ok(()) };
            let next = open.next;
            match &open.source {
                Source::Awaited => return Ok(()),
                Source::Kept { started_at, outcome } => {
                    let (started_at, outcome) = (*started_at, outcome.clone());
                    return self.send_kept(id, started_at, Some(&outcome)).await;
                }
                Source::Live(call) => {
                    let call = Arc::clone(call);
                    self.send_begin(id, call.started_at).await?;
                    let read = call.read(next);
                    for line in &read.lines {
                        self.send_line(id, call.started_at, (**line).clone()).await?;
                    }
                    if read.more {
                        continue;
                    }
                    let Some(ended) = read.ended else { return Ok(()) };
                    if read.left {
                        self.control.recorder.settled().await;
                        return self.send_kept(id, call.started_at, ended.outcome.as_deref()).await;
                    }
                    return self.send_end(id, ended.outcome.as_deref()).await;
                }
            }
        }
    }

    /// Sends what is left of a call that has ended.
    async fn send_kept(
        &mut self,
        id: &InvocationId,
        started_at: Timestamp,
        outcome: Option<&str>,
    ) -> Result<(), Over> {
        self.send_begin(id, started_at).await?;
        let next = self.open.get(id).map_or(0, |open| open.next);
        let mut reader = self.control.store.reader().await?;
        let lines = kept_lines(&mut reader, id).await?;
        // The client may be slow.
        drop(reader);
        for line in lines.into_iter().skip(next) {
            self.send_line(id, started_at, line).await?;
        }
        self.send_end(id, outcome).await
    }

    async fn send_begin(&mut self, id: &InvocationId, started_at: Timestamp) -> Result<(), Over> {
        let Some(open) = self.open.get_mut(id).filter(|open| !open.begun) else { return Ok(()) };
        open.begun = true;
        let data = json!({ "invocation_id": id, "started_at": started_at });
        self.send("begin", Some(self.cursor()), &data).await
    }

    async fn send_line(
        &mut self,
        id: &InvocationId,
        started_at: Timestamp,
        text: LogLineView,
    ) -> Result<(), Over> {
        let Some(open) = self.open.get_mut(id) else { return Ok(()) };
        let number = open.next;
        open.next += 1;
        if !self.filter.admits(&text) {
            return Ok(());
        }
        let line = BotLogLineView::new(id, started_at, number, text);
        self.send("line", Some(self.cursor()), &line).await
    }

    async fn send_end(&mut self, id: &InvocationId, outcome: Option<&str>) -> Result<(), Over> {
        self.open.remove(id);
        let data = json!({ "invocation_id": id, "outcome": outcome });
        self.send("end", Some(self.cursor()), &data).await
    }

    /// What will have been sent with the next event.
    fn cursor(&self) -> String {
        let ulid = |id: &InvocationId| id.as_str().trim_start_matches("inv_").to_owned();
        let mut text = self.newest.as_ref().map(ulid).unwrap_or_default();
        for (id, open) in &self.open {
            let next = if open.begun { open.next.to_string() } else { "-".to_owned() };
            text.push_str(&format!(".{}:{next}", ulid(id)));
        }
        text
    }

    async fn send(
        &mut self,
        name: &'static str,
        id: Option<String>,
        data: &impl Serialize,
    ) -> Result<(), Over> {
        // Whatever is sent, it was found out less than half a lease ago that the caller may see it.
        if self.confirmed_at.elapsed() >= LEASE / 2 {
            self.confirm().await?;
        }
        let data = serde_json::to_string(data).map_err(Internal::from)?;
        let event = FollowEvent { id, name, data };
        tokio::select! {
            sent = self.sender.send(event) => sent.map_err(|_| Over::Gone),
            _ = self.place.closed.wait_for(|closed| *closed) => Err(Over::Closed("stopping")),
            () = tokio::time::sleep_until(self.until) => Err(Over::Closed("time_over")),
        }
    }

    /// That the caller still may. What is denied is in the audit log, once.
    async fn confirm(&mut self) -> Result<(), Over> {
        let asked_at = Instant::now();
        let resource = Resource::Bot(&self.bot);
        match self.control.permit(&self.caller, Action::InvocationsRead, resource).await {
            Ok(()) => {
                self.confirmed_at = asked_at;
                Ok(())
            }
            Err(Denied::Internal(error)) => Err(BotError::from(error).into()),
            Err(_) => Err(Over::Closed("unauthorized")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back() {
        let id = |at| InvocationId::least_at(Timestamp::from_micros(at * 1000));
        let ulid = |at| id(at).as_str().trim_start_matches("inv_").to_owned();
        let text = format!("{}.{}:7.{}:-", ulid(3), ulid(1), ulid(2));
        let open = BTreeMap::from([(id(1), Some(7)), (id(2), None)]);
        assert_eq!(Cursor::parse(&text), Some(Cursor { newest: Some(id(3)), open }));
        assert_eq!(Cursor::parse(""), Some(Cursor::default()));
        let many: String = (0..65).map(|at| format!(".{}:0", ulid(at))).collect();
        for bad in ["x", &format!("{}.x:1", ulid(1)), &format!("{}.{}", ulid(1), ulid(2)), &many] {
            assert_eq!(Cursor::parse(bad), None, "{bad}");
        }
    }
}
