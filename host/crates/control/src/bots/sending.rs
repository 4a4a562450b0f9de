//! A follower at work: what it sends, and where it has that from.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use ringfence_model::{InvocationId, Timestamp};
use ringfence_store::bots::Bot;
use ringfence_store::logs;
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::cursor::{self, Cursor, MAX_OPEN};
use super::follow::FollowEvent;
use super::logs::{BotLogLineView, LogFilter, kept_lines};
use crate::access::LEASE;
use crate::live::{Follower, LiveCall};
use crate::policy::{Action, Resource};
use crate::{BotError, Caller, Control, Denied, Internal, LogLineView};

/// How often the database is asked for calls of other hosts.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many of the newest calls are looked at then.
const LOOK_AT: u32 = 512;
/// How many of the calls that are awaited are looked for at a time.
const AWAITED_AT_A_TIME: usize = 8;
/// Calls of which is known that they need not be sent.
pub(super) const SEEN: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);

/// Why a follower ends.
pub(super) enum Over {
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
pub(super) struct Open {
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

/// A follower at work.
pub(super) struct Sending {
    pub(super) control: Control,
    pub(super) caller: Caller,
    pub(super) bot: Bot,
    pub(super) filter: LogFilter,
    pub(super) call: Option<InvocationId>,
    pub(super) place: Follower,
    pub(super) sender: mpsc::Sender<FollowEvent>,
    /// When it was found out last that the caller may.
    pub(super) confirmed_at: Instant,
    pub(super) until: tokio::time::Instant,
    /// Calls that began before this time are not looked for in the database.
    pub(super) since: Timestamp,
    pub(super) newest: Option<InvocationId>,
    pub(super) open: BTreeMap<InvocationId, Open>,
    /// The call that was looked for last.
    pub(super) asked: Option<InvocationId>,
    /// Calls that are being sent, were, or are not to be.
    pub(super) seen: LruCache<InvocationId, ()>,
}

impl Sending {
    /// Sends until it is over. `begun` is what [`Self::begin`] came to.
    pub(super) async fn run(mut self, begun: Result<(), Over>) {
        let over = match begun {
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

    /// Finds out where to begin. The client is answered behind this, so that it gets every call that begins after the answer.
    pub(super) async fn begin(&mut self, cursor: Cursor, resumed: bool) -> Result<(), Over> {
        for (id, next) in cursor.open {
            let open = Open { next: next.unwrap_or(0), begun: next.is_some(), source: Source::Awaited };
            self.adopt(id, open);
        }
        if let Some(id) = self.call.clone() {
            // Of another call's cursor nothing is meant.
            self.open.retain(|open, _| *open == id);
            let has_end = resumed && cursor.newest.as_ref() == Some(&id) && self.open.is_empty();
            if has_end {
                return Err(Over::Done);
            }
            self.newest = Some(id.clone());
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
            let from = floor.as_ref().filter(|_| resumed).map_or(self.since, InvocationId::made_at);
            self.since = from.minus(longest);
            self.control.recorder.caught_up().await;
            for call in self.newest_calls().await? {
                if !resumed || floor.as_ref().is_some_and(|floor| call.id <= *floor) {
                    self.note(&call.id);
                }
            }
            // After the look at what is kept: what begins from now on is neither noted there nor here.
            while let Some((call, _)) = self.place.next_begun() {
                // Who begins to follow now gets the calls that run; who goes on, all that are newer.
                let wanted = if resumed {
                    floor.as_ref().is_none_or(|floor| call.id > *floor)
                } else {
                    call.is_running()
                };
                if !wanted {
                    self.note(&call.id);
                } else if !self.seen.contains(&call.id) && self.open.len() < MAX_OPEN {
                    let open = Open { next: 0, begun: false, source: Source::Live(Arc::clone(&call)) };
                    self.adopt(call.id.clone(), open);
                }
            }
        }
        Ok(())
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
        self.note(&id);
        self.open.insert(id, open);
    }

    /// This call is dealt with.
    fn note(&mut self, id: &InvocationId) {
        self.seen.put(id.clone(), ());
        if self.newest.as_ref().is_none_or(|newest| newest < id) {
            self.newest = Some(id.clone());
        }
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
        let mut awaited: Vec<_> = awaited.map(|(id, _)| id.clone()).collect();
        // In turns: whoever names calls that do not exist has each looked for as seldom as others'.
        let asked = awaited.partition_point(|id| self.asked.as_ref().is_some_and(|asked| id <= asked));
        awaited.rotate_left(asked);
        awaited.truncate(AWAITED_AT_A_TIME);
        self.asked = awaited.last().cloned();
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
                        self.control.recorder.caught_up().await;
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
        let open = self.open.iter().map(|(id, open)| (id, open.begun.then_some(open.next)));
        cursor::text(self.newest.as_ref(), open)
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
