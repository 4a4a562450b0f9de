//! The worker: takes leases from the queue and carries out what they are about.

use std::sync::Arc;
use std::time::Duration;

use ringfence_model::{JobEvent, JobId, JobStatus, OrgId, TaskId, Timestamp};
use ringfence_store::queue::{self, Leased, NewItem};
use ringfence_store::{Tx, jobs, submissions};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::jobs::is_disputed;
use crate::retention::Progress;
use crate::{Control, EventName, Internal};

/// How long a lease lasts; it is renewed while the work goes on. After a crash this is how long the work waits.
const LEASE: Duration = Duration::from_secs(10);
/// How often a lease is renewed.
const RENEWAL: Duration = Duration::from_secs(3);
/// How long the worker sleeps at most: on a shared database another host may have put something on the queue.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// How long it sleeps at least: what is due may be locked by another host.
const SHORTEST_SLEEP: Duration = Duration::from_millis(5);
/// How many expiries this host carries out at a time. Each is one short transaction.
const EXPIRY_CONCURRENCY: u32 = 2;
/// How many bots work by themselves at a time on this host.
const WORK_CONCURRENCY: u32 = 4;
/// How many of them may be of one org.
const WORK_PER_ORG: u32 = 2;
/// How often what is kept for a time only is looked through.
const PURGE_EVERY: Duration = Duration::from_secs(600);
/// How often a task is tried that breaks a rule of the house. Then it needs a person, and stays as a dead letter.
const MAX_FAILURES: u32 = 20;

/// What can be on the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaskKind {
    /// Judge a submission.
    Evaluate,
    /// End a job whose time is up.
    Expire,
    /// Let a bot work on a job by itself.
    Work,
}

impl TaskKind {
    const ALL: [Self; 3] = [Self::Evaluate, Self::Expire, Self::Work];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Evaluate => "evaluate",
            Self::Expire => "expire",
            Self::Work => "work",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// How a task ended.
#[derive(Debug)]
pub(crate) enum Done {
    /// There is nothing left to do: take it off the queue.
    Finished,
    /// Its own transaction took it off the queue, or put its next step there.
    Settled,
    /// Someone else has taken it over.
    Lost,
    /// Not now, and nothing went wrong: it begins anew, and its attempts are not counted.
    Anew { after: Duration },
    /// Not now: something went wrong.
    Again { after: Duration, why: String },
}

impl Control {
    /// Puts a task on the queue in the transaction of the change that makes it necessary.
    pub(crate) async fn enqueue(
        &self,
        tx: &mut Tx,
        kind: TaskKind,
        org: &OrgId,
        subject: &str,
        run_at: Timestamp,
        payload: Value,
    ) -> Result<(), Internal> {
        if queue::put(tx, &self.item(kind, org, subject, run_at, payload)).await? {
            Ok(())
        } else {
            Err(Internal::Invariant("a task was queued twice"))
        }
    }

    /// As [`Self::enqueue`], in the place of what is there: who carries that out is late.
    pub(crate) async fn enqueue_anew(
        &self,
        tx: &mut Tx,
        kind: TaskKind,
        org: &OrgId,
        subject: &str,
        run_at: Timestamp,
        payload: Value,
    ) -> Result<(), Internal> {
        Ok(queue::put_anew(tx, &self.item(kind, org, subject, run_at, payload)).await?)
    }

    fn item(&self, kind: TaskKind, org: &OrgId, subject: &str, run_at: Timestamp, payload: Value) -> NewItem {
        NewItem {
            id: TaskId::new(&*self.clock, &*self.rng).to_string(),
            org_id: org.clone(),
            kind: kind.as_str().to_owned(),
            payload,
            subject_id: subject.to_owned(),
            run_at,
            created_at: self.clock.now(),
        }
    }

    /// Moves a task to another time in the transaction of the change that makes it necessary. It may be held just now: who
    /// holds it looks again under the lock of what it is about.
    pub(crate) async fn reschedule(
        &self,
        tx: &mut Tx,
        kind: TaskKind,
        org: &OrgId,
        subject: &str,
        run_at: Timestamp,
    ) -> Result<(), Internal> {
        if !queue::reschedule(tx, kind.as_str(), subject, run_at).await? {
            // Another host has just put it back under another id, which the statement before did not see.
            queue::put(tx, &self.item(kind, org, subject, run_at, json!({}))).await?;
        }
        Ok(())
    }

    /// Works off the queue until `stop` turns true, then lets what has begun come to its end. Each kind of task has
    /// permits of its own: an expiry never waits behind evaluations.
    pub async fn work(self, stop: watch::Receiver<bool>) {
        if let Err(error) = self.take_back().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what this host held before waits for its lease to end"
            );
        }
        let evaluations = self.work_off(TaskKind::Evaluate, self.settings.oracle_concurrency, stop.clone());
        let expiries = self.work_off(TaskKind::Expire, EXPIRY_CONCURRENCY, stop.clone());
        let works = self.work_off(TaskKind::Work, WORK_CONCURRENCY, stop.clone());
        tokio::join!(evaluations, expiries, works, self.forget_old(stop.clone()), self.keep_compiled(stop));
    }

    /// A database that no other host shares holds only this host's leases, from before it was ended: that work begins again
    /// now, and not when they run out.
    async fn take_back(&self) -> Result<(), Internal> {
        if self.store.is_shared() {
            return Ok(());
        }
        let mut tx = self.store.begin().await?;
        for kind in TaskKind::ALL {
            queue::take_back(&mut tx, kind.as_str()).await?;
        }
        Ok(tx.commit().await?)
    }

    async fn work_off(&self, kind: TaskKind, concurrency: u32, mut stop: watch::Receiver<bool>) {
        let bell = match kind {
            TaskKind::Evaluate => &self.evaluation_bell,
            TaskKind::Expire => &self.expiry_bell,
            TaskKind::Work => &self.work_bell,
        };
        let permits = Arc::new(Semaphore::new(concurrency.max(1) as usize));
        let mut running = JoinSet::new();
        while !*stop.borrow() {
            let free = u32::try_from(permits.available_permits()).unwrap_or(u32::MAX);
            let leased = match kind {
                _ if free == 0 => Ok((Vec::new(), None)),
                TaskKind::Evaluate => {
                    self.lease_fairly(kind, free, self.settings.oracle_concurrency_per_org.max(1)).await
                }
                TaskKind::Work => self.lease_fairly(kind, free, WORK_PER_ORG).await,
                TaskKind::Expire => self.lease(kind, free).await,
            };
            let sleep = match leased {
                Ok((leased, next)) => {
                    for task in leased {
                        let Ok(permit) = permits.clone().try_acquire_owned() else { break };
                        let control = self.clone();
                        running.spawn(async move {
                            control.run(&task).await;
                            drop(permit);
                            control.ring(kind);
                        });
                    }
                    next.map_or(LONGEST_SLEEP, |due| {
                        due.since(self.clock.now()).clamp(SHORTEST_SLEEP, LONGEST_SLEEP)
                    })
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "the queue cannot be read");
                    LONGEST_SLEEP
                }
            };
            tokio::select! {
                () = bell.notified() => {}
                () = tokio::time::sleep(sleep) => {}
                _ = stop.changed() => {}
            }
            while let Some(ended) = running.try_join_next() {
                if let Err(error) = ended {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "a task of the queue ended badly"
                    );
                }
            }
        }
        while running.join_next().await.is_some() {}
    }

    /// Lets this host's worker look at once if it would not look by itself before something is `due`.
    pub(crate) fn ring_for(&self, kind: TaskKind, due: Timestamp) {
        if due < self.clock.now().plus(LONGEST_SLEEP) {
            self.ring(kind);
        }
    }

    /// Lets this host's worker look at once whether there is something to do.
    pub(crate) fn ring(&self, kind: TaskKind) {
        match kind {
            TaskKind::Evaluate => self.evaluation_bell.notify_one(),
            TaskKind::Expire => self.expiry_bell.notify_one(),
            TaskKind::Work => self.work_bell.notify_one(),
        }
    }

    async fn forget_old(&self, mut stop: watch::Receiver<bool>) {
        let mut progress = Progress::new();
        while !*stop.borrow() {
            self.purge().await;
            self.delete_old(&mut progress, &stop).await;
            self.sweep_volumes().await;
            tokio::select! {
                () = tokio::time::sleep(PURGE_EVERY) => {}
                _ = stop.changed() => {}
            }
        }
    }

    /// Forgets what is kept for a time only. What fails is tried again the next time.
    async fn purge(&self) {
        let forgotten = async {
            let now = self.clock.now();
            let mut tx = self.store.begin().await?;
            let until = now.minus(ringfence_store::idempotency::KEPT);
            let keys = ringfence_store::idempotency::purge(&mut tx, until).await?;
            let sessions = ringfence_store::sessions::purge(&mut tx, now).await?;
            let limits = ringfence_store::rates::purge(&mut tx, now).await?;
            tx.commit().await?;
            Ok::<_, ringfence_store::StoreError>((keys, sessions, limits))
        };
        match forgotten.await {
            Ok((0, 0, 0)) => {}
            Ok((keys, sessions, limits)) => {
                tracing::info!(
                    keys,
                    sessions,
                    limits,
                    "old idempotency keys, sessions and limits are forgotten"
                );
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "what is old cannot be forgotten");
            }
        }
    }

    /// Takes on what has been due for longest; also says when there is more to do, as far as this host knows.
    async fn lease(&self, kind: TaskKind, limit: u32) -> Result<(Vec<Leased>, Option<Timestamp>), Internal> {
        let mut reader = self.store.reader().await?;
        let now = self.clock.now();
        // Looking costs no write transaction.
        let due = queue::next_due(&mut reader, kind.as_str()).await?;
        if due.is_none_or(|due| due > now) {
            return Ok((Vec::new(), due));
        }
        drop(reader);
        let mut tx = self.store.begin().await?;
        let leased =
            queue::lease(&mut tx, kind.as_str(), self.host_id.as_str(), now, now.plus(LEASE), limit).await?;
        tx.commit().await?;
        let full = leased.len() == limit as usize;
        let next = queue::next_due(&mut self.store.reader().await?, kind.as_str()).await?;
        Ok((leased, next.filter(|_| !full)))
    }

    /// Takes on what is due, shared out between orgs: one that has much to do, or what takes long, does not keep the
    /// others waiting. What its share keeps back is looked at again when some of it is done.
    async fn lease_fairly(
        &self,
        kind: TaskKind,
        limit: u32,
        per_org: u32,
    ) -> Result<(Vec<Leased>, Option<Timestamp>), Internal> {
        let (host, now) = (self.host_id.as_str(), self.clock.now());
        let mut reader = self.store.reader().await?;
        let mut orgs = queue::due_orgs(&mut reader, kind.as_str(), host, now).await?;
        let next = queue::next_due_after(&mut reader, kind.as_str(), now).await?;
        drop(reader);
        orgs.retain(|org| org.running < per_org);
        if orgs.is_empty() {
            return Ok((Vec::new(), next));
        }
        let mut tx = self.store.begin().await?;
        let lease = (host, now, now.plus(LEASE));
        let leased = queue::lease_fairly(&mut tx, kind.as_str(), lease, (limit, per_org), orgs).await?;
        tx.commit().await?;
        let full = leased.len() == limit as usize;
        Ok((leased, next.filter(|_| !full)))
    }

    /// Carries out one task, renewing its lease meanwhile. Losing the lease ends the work at once.
    async fn run(&self, task: &Leased) {
        let result = tokio::select! {
            result = self.carry_out(task) => result,
            () = self.keep_lease(task) => Ok(Done::Lost),
        };
        let written = match result {
            Ok(Done::Settled) => Ok(()),
            Ok(Done::Lost) => {
                tracing::warn!(
                    task = task.id,
                    kind = task.kind,
                    attempt = task.attempt,
                    "the lease was lost"
                );
                Ok(())
            }
            Ok(Done::Finished) => self.settle(task, None).await,
            Ok(Done::Again { after, why }) => self.settle(task, Some((after, why))).await,
            Ok(Done::Anew { after }) => self.begin_anew(task, after).await,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    task = task.id,
                    kind = task.kind,
                    attempt = task.attempt,
                    "a task of the queue failed"
                );
                if task.attempt >= MAX_FAILURES
                    && matches!(error, Internal::Invariant(_) | Internal::Document(_))
                {
                    self.bury(task, &error.to_string()).await
                } else {
                    let after = Duration::from_millis(200 << task.attempt.min(9));
                    self.settle(task, Some((after, error.to_string()))).await
                }
            }
        };
        if let Err(error) = written {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                task = task.id,
                "the queue cannot be written"
            );
        }
    }

    async fn carry_out(&self, task: &Leased) -> Result<Done, Internal> {
        match TaskKind::parse(&task.kind) {
            Some(TaskKind::Evaluate) => self.evaluate(task).await,
            Some(TaskKind::Expire) => self.expire(task).await,
            Some(TaskKind::Work) => self.work_on_job(task).await,
            // A newer host's task: leave it to it.
            None => Ok(Done::Again { after: Duration::from_secs(60), why: "unknown kind".to_owned() }),
        }
    }

    /// Returns when the lease is lost.
    async fn keep_lease(&self, task: &Leased) {
        loop {
            tokio::time::sleep(RENEWAL).await;
            let renewed = async {
                let mut tx = self.store.begin().await?;
                let until = self.clock.now().plus(LEASE);
                let held = queue::extend(&mut tx, &task.id, task.attempt, until).await?;
                tx.commit().await?;
                Ok::<_, ringfence_store::StoreError>(held)
            };
            // A database that does not answer is no reason to stop: the fence is tested again at the end.
            if matches!(renewed.await, Ok(false)) {
                return;
            }
        }
    }

    /// Takes a task off the queue, or puts it back for later.
    async fn settle(&self, task: &Leased, again: Option<(Duration, String)>) -> Result<(), Internal> {
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        match again {
            None => queue::finish(&mut tx, &task.id, task.attempt).await?,
            Some((after, why)) => {
                queue::retry(&mut tx, &task.id, task.attempt, now.plus(after), &why).await?
            }
        };
        Ok(tx.commit().await?)
    }

    async fn bury(&self, task: &Leased, why: &str) -> Result<(), Internal> {
        tracing::error!(task = task.id, kind = task.kind, why, "given up: a dead letter");
        let mut tx = self.store.begin().await?;
        queue::bury(&mut tx, &task.id, task.attempt, why, self.clock.now()).await?;
        Ok(tx.commit().await?)
    }

    /// Ends a job whose time is up, once nothing of it is being judged.
    async fn expire(&self, task: &Leased) -> Result<Done, Internal> {
        let id: JobId =
            task.subject_id.parse().map_err(|_| Internal::Invariant("an expiry is about a job"))?;
        let mut tx = self.store.begin().await?;
        let job = jobs::lock(&mut tx, &id).await?.ok_or(Internal::Invariant("a job vanished"))?;
        if !queue::holds(&mut tx, &task.id, task.attempt).await? {
            return Ok(Done::Lost);
        }
        if job.status.transition(JobEvent::Expire).is_err() {
            return Ok(Done::Finished);
        }
        // When that is decided, the expiry is put on the queue again.
        if is_disputed(&job) {
            return Ok(Done::Finished);
        }
        if job.expiry > self.clock.now() {
            // The buyer has set a later one since. Under the job's lock, for it may be about to set yet another.
            queue::finish(&mut tx, &task.id, task.attempt).await?;
            let (kind, payload) = (TaskKind::Expire, task.payload.clone());
            self.enqueue(&mut tx, kind, &task.org_id, &task.subject_id, job.expiry, payload).await?;
            tx.commit().await?;
            return Ok(Done::Settled);
        }
        if submissions::judging_count(&mut tx, &id).await? > 0 {
            return Ok(Done::Anew { after: Duration::from_secs(1) });
        }
        self.end_unresolved(&mut tx, &job, JobStatus::Expired, EventName::JobExpired).await?;
        tx.commit().await?;
        Ok(Done::Settled)
    }

    /// Puts a task back as if it had never been taken on.
    async fn begin_anew(&self, task: &Leased, after: Duration) -> Result<(), Internal> {
        let Some(kind) = TaskKind::parse(&task.kind) else { return Ok(()) };
        let mut tx = self.store.begin().await?;
        if queue::finish(&mut tx, &task.id, task.attempt).await? {
            let at = self.clock.now().plus(after);
            self.enqueue(&mut tx, kind, &task.org_id, &task.subject_id, at, task.payload.clone()).await?;
        }
        Ok(tx.commit().await?)
    }
}
