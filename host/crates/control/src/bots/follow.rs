//! Following a bot, or one of its calls, live.
//!
//! A follower sends `begin`, `line` and `end` of each call, its lines in order, none twice. Calls of this host are read while
//! they run ([`live`](crate::live)); those of other hosts, and those that began before anyone followed, are looked for in
//! the database each second and come whole. Each event's id says what had been sent when it was: all calls up to the newest,
//! but for those that are named with the number of their next line. With the last id a client goes on where it was.

use std::collections::BTreeMap;
use std::time::Duration;

use lru::LruCache;
use ringfence_model::{BotId, InvocationId};
use ringfence_store::bots::Bot;
use ringfence_store::components::ComponentKind;
use ringfence_store::{invocations, logs};
use tokio::sync::mpsc;

use super::cursor::Cursor;
use super::logs::LogFilter;
use super::sending::{SEEN, Sending};
use crate::error::Checks;
use crate::live::Full;
use crate::policy::Action;
use crate::{BotError, Caller, Control};

/// The longest that anyone follows without asking again.
pub const MAX_FOLLOW: Duration = Duration::from_secs(3600);
/// Events that wait for the client.
const MAX_WAITING: usize = 16;
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
        let last = follow.last_event_id.as_deref().filter(|id| !id.is_empty());
        let cursor = last.map_or(Some(Cursor::default()), Cursor::parse);
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
        let resumed = last.is_some();
        let mut sending = Sending {
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
            asked: None,
            seen: LruCache::new(SEEN),
        };
        let begun = sending.begin(cursor, resumed).await;
        tokio::spawn(sending.run(begun));
        Ok(receiver)
    }

    /// Whether a call is there to be followed: kept and open, or young enough to be running.
    async fn can_be_followed(&self, bot: &Bot, id: &InvocationId) -> Result<(), BotError> {
        self.recorder.caught_up().await;
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
    pub(super) fn longest_call(&self) -> Duration {
        Duration::from_millis(self.runtime.maximum().wall_time_ms) + SLACK
    }
}
