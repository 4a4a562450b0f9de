//! Calls are recorded beside the calls: those that end together share a transaction.
//!
//! A call has its place in the queue before it begins, so a database that cannot keep up is told to callers before
//! anything runs, and what waits is bounded in number and in bytes. What a crash can lose is what waits at that moment:
//! records and usage of the last moments, in the tenant's favour, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use ringfence_store::records::{self, Record};
use ringfence_store::{Store, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// What may wait to be written: so many records, of up to [`UNIT_BYTES`] each. One with more lines takes more places.
const PLACES: usize = 16_384;
const UNIT_BYTES: usize = 4 << 10;

/// How many records share a transaction at most.
const MOST_AT_ONCE: usize = 512;

/// How long the first record waits for others to share its transaction, unless somebody waits for it: a transaction
/// writes the same few pages for one record as for a hundred.
const GATHER: Duration = Duration::from_millis(10);

/// How long a call waits for a place before it begins.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long what was refused because the database was busy waits before it is tried again, at first and at most.
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Where finished calls are handed in. The task behind it ends when this is dropped and everything is written.
pub(crate) struct Recorder {
    places: Arc<Semaphore>,
    queue: mpsc::UnboundedSender<Item>,
}

/// A place in the queue, for one call.
pub(crate) struct Place(OwnedSemaphorePermit);

/// The queue did not move in time.
#[derive(Debug)]
pub(crate) struct Full;

enum Item {
    Record {
        record: Box<Record>,
        _place: Place,
        written: Option<oneshot::Sender<()>>,
    },
    /// Answered when everything that came before is written.
    Mark(oneshot::Sender<()>),
}

impl Item {
    const fn is_awaited(&self) -> bool {
        matches!(self, Self::Mark(_) | Self::Record { written: Some(_), .. })
    }
}

impl Recorder {
    pub(crate) fn start(store: Store) -> Self {
        let (queue, items) = mpsc::unbounded_channel();
        tokio::spawn(write_all(store, items));
        Self { places: Arc::new(Semaphore::new(PLACES)), queue }
    }

    /// A place for a call that is about to begin.
    pub(crate) async fn place(&self) -> Result<Place, Full> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(Place(place));
        }
        let place = tokio::time::timeout(PATIENCE, Arc::clone(&self.places).acquire_owned()).await;
        place.ok().and_then(Result::ok).map(Place).ok_or(Full)
    }

    /// Hands in a finished call. Returns when it is in the queue, or, if it is to be durable, when it is written.
    pub(crate) async fn record(&self, mut place: Place, record: Record, durable: bool) {
        // It is in memory already: this only holds back the next calls for as long as much waits.
        let more = record.lines.as_ref().map_or(0, |lines| lines.len() / UNIT_BYTES).min(PLACES / 2);
        if let Ok(more) = u32::try_from(more)
            && more > 0
            && let Ok(places) = Arc::clone(&self.places).acquire_many_owned(more).await
        {
            place.0.merge(places);
        }
        let (written, done) = if durable { Some(oneshot::channel()).unzip() } else { (None, None) };
        let _ = self.queue.send(Item::Record { record: Box::new(record), _place: place, written });
        if let Some(done) = done {
            let _ = done.await;
        }
    }

    /// As [`Self::settled`], for whoever reads what was recorded: waits no longer than a call does for a place, for a
    /// database that takes no writes may still be read.
    pub(crate) async fn caught_up(&self) {
        let _ = tokio::time::timeout(PATIENCE, self.settled()).await;
    }

    /// Returns when everything that was handed in before is written.
    pub(crate) async fn settled(&self) {
        if self.places.available_permits() == PLACES {
            return;
        }
        let (mark, passed) = oneshot::channel();
        if self.queue.send(Item::Mark(mark)).is_ok() {
            let _ = passed.await;
        }
    }
}

async fn write_all(store: Store, mut items: mpsc::UnboundedReceiver<Item>) {
    let mut taken = Vec::with_capacity(MOST_AT_ONCE);
    while items.recv_many(&mut taken, MOST_AT_ONCE).await > 0 {
        let _ = tokio::time::timeout(GATHER, gather(&mut items, &mut taken)).await;
        let (mut records, mut held, mut told) = (Vec::with_capacity(taken.len()), Vec::new(), Vec::new());
        for item in taken.drain(..) {
            match item {
                Item::Record { record, _place, written } => {
                    records.push(*record);
                    held.push(_place);
                    told.extend(written);
                }
                Item::Mark(mark) => told.push(mark),
            }
        }
        write(&store, records).await;
        drop(held);
        for waiting in told {
            let _ = waiting.send(());
        }
    }
}

/// Takes what comes, until somebody waits for it or it is enough. Whenever it is dropped, what it took is in `taken`.
async fn gather(items: &mut mpsc::UnboundedReceiver<Item>, taken: &mut Vec<Item>) {
    let mut looked_at = 0;
    loop {
        if taken.len() >= MOST_AT_ONCE || taken.iter().skip(looked_at).any(Item::is_awaited) {
            return;
        }
        looked_at = taken.len();
        let room = MOST_AT_ONCE - looked_at;
        if items.recv_many(taken, room).await == 0 {
            return;
        }
    }
}

/// Writes records in one transaction, for as long as it takes. What the database will never take is left out and logged: it
/// must not keep everything behind it from being written.
async fn write(store: &Store, records: Vec<Record>) {
    let mut pause = PAUSE;
    loop {
        match try_write(store, &records).await {
            Ok(()) => return,
            Err(error) if is_of_the_record(&error) => break,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    calls = records.len(),
                    "calls wait to be recorded"
                );
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
    if let [record] = records.as_slice() {
        tracing::error!(invocation = %record.call.id, "a call cannot be recorded and is left out");
        return;
    }
    for record in records {
        Box::pin(write(store, vec![record])).await;
    }
}

/// Whether trying again would end the same way.
fn is_of_the_record(error: &StoreError) -> bool {
    matches!(error, StoreError::Conflict(_) | StoreError::Refused(_) | StoreError::Corrupt { .. })
}

async fn try_write(store: &Store, records: &[Record]) -> Result<(), StoreError> {
    if records.is_empty() {
        return Ok(());
    }
    let mut tx = store.begin().await?;
    records::insert(&mut tx, records).await?;
    tx.commit().await
}
