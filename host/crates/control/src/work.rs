//! Bots that work by themselves: a funded job is told to those whose market grant fits, and each claims, works and hands in
//! as the agent for which it works, by the same use cases as everybody else.
//!
//! A bot hands in once for a job at most, however often its host crashes: a task that had claimed before looks for a
//! submission first, and the submission has one idempotency key for the task.

use std::time::{Duration, Instant};

use ringfence_model::{BotId, JobId, Sha256, Timestamp, Visibility};
use ringfence_store::jobs::{self, Job};
use ringfence_store::market_bots::{self, DayBudget};
use ringfence_store::queue::{self, Leased};
use ringfence_store::{Tx, submissions};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::bots::{Deployed, MarketGrant};
use crate::caller::{Identity, KeyBounds, Quotas};
use crate::worker::{Done, TaskKind};
use crate::{
    BotError, Caller, Control, Denied, Idempotency, IdempotencyError, Internal, InvokedBot, JobError,
    NewSubmission, Origin, SubmissionError,
};

/// What a bot may do as the agent for which it works.
pub(crate) const SCOPES: [&str; 2] = ["jobs:read", "jobs:work"];
/// How many bots are told of a job.
const TOLD: u32 = 20;
/// How often a bot is called for a job.
const TRIES: u32 = 2;
/// How long after a call that failed it is called again, and how long it waits for what is busy.
const AGAIN: Duration = Duration::from_secs(1);
/// The largest result that is handed in, in bytes: as over HTTP.
const MAX_CONTENT_BYTES: usize = 4 << 20;
const DAY_MICROS: i64 = 24 * 3600 * 1_000_000;

/// How far a task has come, written down before each step that must not be forgotten.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Progress {
    /// Calls that have begun.
    tries: u32,
    /// Whether it may have claimed the job: a claim that is there is its own then.
    claimed: bool,
}

/// What the guest is given.
#[derive(Serialize)]
struct Given<'a> {
    job: GivenJob<'a>,
}

#[derive(Serialize)]
struct GivenJob<'a> {
    task_id: &'a JobId,
    title: &'a str,
    description: &'a str,
    rubric: &'a str,
    artifact_type: &'a str,
    price: ringfence_model::MicroUsdc,
    input: Option<&'a RawValue>,
}

/// One call of a bot for a job.
struct Try<'a> {
    task: &'a Leased,
    bot: &'a Deployed,
    job: &'a Job,
    caller: Caller,
    /// Before this try.
    before: Progress,
    /// The day out of which it is paid.
    day: Timestamp,
}

/// Why a step of the work did not come to its end.
enum Stopped {
    /// The market, or the bot's owner, does not want it.
    Refused(String),
    /// Not now, and nobody's fault.
    Busy(Duration),
    /// The host's fault.
    Internal(Internal),
}

impl Control {
    /// Tells bots of a job in the transaction that funds it: those of other orgs that work on what it wants. Whether there
    /// are any.
    pub(crate) async fn tell_bots(&self, tx: &mut Tx, job: &Job) -> Result<bool, Internal> {
        if job.visibility != Visibility::Public {
            return Ok(false);
        }
        let now = self.clock.now();
        let bots = market_bots::to_tell(tx, &job.artifact_type, &job.org_id, job.id.as_str(), TOLD).await?;
        for bot in &bots {
            let subject = format!("{}:{}", bot.bot_id, job.id);
            let payload = serde_json::to_value(Progress::default())?;
            self.enqueue(tx, TaskKind::Work, &bot.org_id, &subject, now, payload).await?;
        }
        Ok(!bots.is_empty())
    }

    /// Lets a bot work on the job that `task` is about. What the market or the owner does not want ends the task quietly.
    pub(crate) async fn work_on_job(&self, task: &Leased) -> Result<Done, Internal> {
        let subject = task.subject_id.split_once(':');
        let ids = subject.and_then(|(bot, job)| Some((bot.parse().ok()?, job.parse().ok()?)));
        let (bot, job): (BotId, JobId) = ids.ok_or(Internal::Invariant("work is about a bot and a job"))?;
        let before: Progress = serde_json::from_value(task.payload.clone())?;
        let bot = match self.deployed(&bot).await {
            Ok(bot) => bot.ok_or(Internal::Invariant("a bot vanished"))?,
            Err(error) => return Err(internal_of_bot(error)),
        };
        let mut reader = self.store.reader().await?;
        let job = jobs::get(&mut reader, &job).await?.ok_or(Internal::Invariant("a job vanished"))?;
        let Some(grant) = bot.market.as_ref().filter(|grant| wants(&bot, grant, &job)) else {
            return Ok(Done::Finished);
        };
        if self.takes_work(&job).is_err() {
            return Ok(Done::Finished);
        }
        let has_submitted =
            submissions::attempts(&mut reader, &job.id, &grant.agent_id).await?.last_attempt > 0;
        drop(reader);
        if before.claimed && has_submitted {
            return Ok(Done::Finished);
        }
        let now = self.clock.now();
        let one = Try {
            task,
            bot: &bot,
            job: &job,
            caller: worker(&bot, grant),
            before,
            day: Timestamp::from_micros(now.as_micros() - now.as_micros() % DAY_MICROS),
        };
        if before.tries >= TRIES {
            return self.end_work(&one).await;
        }
        match self.begin_try(&one, grant).await? {
            Some(true) => {}
            // Its day is used up.
            Some(false) => return self.end_work(&one).await,
            None => return Ok(Done::Lost),
        }
        match self.claimed_call(&one).await {
            Ok(called) => {
                let left = bot.limits.fuel.saturating_sub(fuel_of(&called));
                self.return_fuel(&one, left).await?;
                self.hand_in(&one, called).await
            }
            // It was not called: that was no try.
            Err(stopped) => {
                // A claim that was refused is not its own.
                let claimed = before.claimed || !matches!(stopped, Stopped::Refused(_));
                self.undo_try(&one, claimed).await?;
                match stopped {
                    Stopped::Refused(why) => {
                        tracing::debug!(bot = %bot.row.id, job = %job.id, why, "a bot does not work on a job");
                        Ok(Done::Finished)
                    }
                    Stopped::Busy(after) => Ok(Done::Again { after, why: "busy".to_owned() }),
                    Stopped::Internal(error) => Err(error),
                }
            }
        }
    }

    /// Writes down that a call begins, and takes it out of the bot's day; `Some(false)` if that has not enough left, `None` if
    /// another attempt has the task.
    async fn begin_try(&self, one: &Try<'_>, grant: &MarketGrant) -> Result<Option<bool>, Internal> {
        let mut tx = self.store.begin().await?;
        let begun = Progress { tries: one.before.tries + 1, claimed: true };
        if !queue::note(&mut tx, &one.task.id, one.task.attempt, &serde_json::to_value(begun)?).await? {
            return Ok(None);
        }
        let budget = DayBudget { attempts: grant.max_attempts_per_day, fuel: grant.max_fuel_per_day };
        let (id, fuel) = (&one.bot.row.id, one.bot.limits.fuel);
        if !market_bots::reserve(&mut tx, id, one.day, fuel, budget).await? {
            return Ok(Some(false));
        }
        tx.commit().await?;
        Ok(Some(true))
    }

    /// Claims the job, unless that was done before, and calls the bot.
    async fn claimed_call(&self, one: &Try<'_>) -> Result<InvokedBot, Stopped> {
        match self.claim_job(&one.caller, &one.job.id, None).await {
            Err(JobError::AlreadyClaimed) if one.before.claimed => {}
            claimed => {
                claimed.map_err(stopped_by_job)?;
            }
        }
        let input = match self.job_input(&one.caller, &one.job.id).await {
            Ok(input) => Some(input.0),
            Err(JobError::NoInput) => None,
            Err(error) => return Err(stopped_by_job(error)),
        };
        let job = GivenJob {
            task_id: &one.job.id,
            title: &one.job.title,
            description: &one.job.description,
            rubric: &one.job.rubric,
            artifact_type: &one.job.artifact_type,
            price: one.job.price,
            input: input.as_deref(),
        };
        let given = serde_json::value::to_raw_value(&Given { job })
            .map_err(|error| Stopped::Internal(error.into()))?;
        // Written down before the work is handed in: what was used for it is known then.
        self.call(one.bot, &given, true, std::future::pending()).await.map_err(stopped_by_bot)
    }

    /// Hands in what the bot returned, if it did.
    async fn hand_in(&self, one: &Try<'_>, called: InvokedBot) -> Result<Done, Internal> {
        let content = called.output.filter(|content| content.get().len() <= MAX_CONTENT_BYTES);
        let Some(content) = content else {
            if one.before.tries + 1 < TRIES {
                let why = called.invocation.outcome.unwrap_or_default();
                return Ok(Done::Again { after: AGAIN, why });
            }
            return self.unclaim(one).await;
        };
        let new = NewSubmission { worker_id: None, content };
        // Whatever it returns another time: there is one submission.
        let key = one.task.subject_id.clone();
        let once = Idempotency { request: Sha256::of(key.as_bytes()), key };
        match self.submit(&one.caller, &one.job.id, new, Some(&once)).await {
            Ok(_) => Ok(Done::Finished),
            Err(SubmissionError::Job(error)) => match stopped_by_job(error) {
                Stopped::Refused(_) => self.unclaim(one).await,
                Stopped::Busy(after) => Ok(Done::Again { after, why: "busy".to_owned() }),
                Stopped::Internal(error) => Err(error),
            },
            Err(_) => self.unclaim(one).await,
        }
    }

    /// Ends the task, and the claim if it has made one.
    async fn end_work(&self, one: &Try<'_>) -> Result<Done, Internal> {
        if one.before.claimed { self.unclaim(one).await } else { Ok(Done::Finished) }
    }

    async fn unclaim(&self, one: &Try<'_>) -> Result<Done, Internal> {
        match self.unclaim_job(&one.caller, &one.job.id, None).await.map_err(stopped_by_job) {
            Err(Stopped::Internal(error)) => Err(error),
            // It has been given back, or it is too late for that.
            _ => Ok(Done::Finished),
        }
    }

    /// Takes back that a call has begun.
    async fn undo_try(&self, one: &Try<'_>, claimed: bool) -> Result<(), Internal> {
        let mut tx = self.store.begin().await?;
        let progress = Progress { tries: one.before.tries, claimed };
        if !queue::note(&mut tx, &one.task.id, one.task.attempt, &serde_json::to_value(progress)?).await? {
            return Ok(());
        }
        let (id, fuel) = (&one.bot.row.id, one.bot.limits.fuel);
        market_bots::give_back(&mut tx, id, one.day, 1, fuel).await?;
        Ok(tx.commit().await?)
    }

    /// Gives back to the bot's day what a call has left of its fuel.
    async fn return_fuel(&self, one: &Try<'_>, fuel: u64) -> Result<(), Internal> {
        let mut tx = self.store.begin().await?;
        market_bots::give_back(&mut tx, &one.bot.row.id, one.day, 0, fuel).await?;
        Ok(tx.commit().await?)
    }
}

/// Whether the job is one that the bot was granted to work on.
fn wants(bot: &Deployed, grant: &MarketGrant, job: &Job) -> bool {
    bot.check().is_ok() && grant.artifact_types.contains(&job.artifact_type) && job.org_id != bot.row.org_id
}

/// The bot, as the agent for which it works, with no more than work needs.
fn worker(bot: &Deployed, grant: &MarketGrant) -> Caller {
    let identity = Identity::Bot { id: bot.row.id.clone(), agent: grant.agent_id.clone() };
    let scopes = SCOPES.map(str::to_owned).into();
    let bounds = KeyBounds { scopes, quotas: Quotas::default(), expires_at: None };
    Caller::new(identity, bot.row.org_id.clone(), Some(bounds), Origin::default(), Instant::now())
}

fn fuel_of(called: &InvokedBot) -> u64 {
    called.invocation.usage.as_ref().map_or(0, |usage| usage.fuel)
}

fn stopped_by_job(error: JobError) -> Stopped {
    match error {
        JobError::Internal(error) | JobError::Denied(Denied::Internal(error)) => Stopped::Internal(error),
        JobError::Idempotency(IdempotencyError::Running) => Stopped::Busy(AGAIN),
        refused => Stopped::Refused(refused.to_string()),
    }
}

fn stopped_by_bot(error: BotError) -> Stopped {
    match error {
        BotError::Internal(error) | BotError::Denied(Denied::Internal(error)) => Stopped::Internal(error),
        BotError::Busy { retry_after } => Stopped::Busy(retry_after),
        BotError::TooManyInstances(_) => Stopped::Busy(AGAIN),
        refused => Stopped::Refused(refused.to_string()),
    }
}

fn internal_of_bot(error: BotError) -> Internal {
    match stopped_by_bot(error) {
        Stopped::Internal(error) => error,
        _ => Internal::Invariant("a bot cannot be read"),
    }
}
