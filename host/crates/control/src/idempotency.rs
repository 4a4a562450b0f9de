use ringfence_model::Sha256;
use ringfence_store::{Tx, idempotency};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Caller, Control, Internal};

/// A client's word that two requests are one: the `Idempotency-Key` and what was asked under it.
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// The client's key, 1 to 255 visible ASCII characters.
    pub key: String,
    /// The digest of method, path and body.
    pub request: Sha256,
}

/// The result of a use case, and whether it is that of an earlier, equal request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// The result.
    pub value: T,
    /// Nothing was done now: this is what was answered then.
    pub replayed: bool,
}

/// Why a request with an `Idempotency-Key` was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum IdempotencyError {
    /// The key was used for another request within the last 24 hours.
    #[error("this Idempotency-Key was used for a different request")]
    Mismatch,
    /// The first request with this key is still running.
    #[error("a request with this Idempotency-Key is still running")]
    Running,
}

/// What [`Control::begin_once`] found.
pub(crate) enum Once<T> {
    /// Go on.
    New,
    /// It has been done; this was the answer.
    Done(T),
}

impl Control {
    /// The first statement of a use case's transaction: claims the client's key, or finds the answer given under it.
    pub(crate) async fn begin_once<T, E>(&self, tx: &mut Tx, caller: &Caller, once: Option<&Idempotency>) -> Result<Once<T>, E>
    where
        T: DeserializeOwned,
        E: From<IdempotencyError> + From<Internal>,
    {
        let Some(once) = once else { return Ok(Once::New) };
        let (request, now) = (once.request.to_string(), self.clock.now());
        let begun = idempotency::begin(tx, caller.principal(), &once.key, caller.org(), &request, now).await;
        match begun {
            Ok(idempotency::Begun::New) => Ok(Once::New),
            Ok(idempotency::Begun::Replay(response)) => {
                Ok(Once::Done(serde_json::from_str(&response).map_err(Internal::from)?))
            }
            Ok(idempotency::Begun::Mismatch) => Err(IdempotencyError::Mismatch.into()),
            // The first request holds the key's row until it commits: whoever waits for it in vain gets `Busy`.
            Ok(idempotency::Begun::Running) | Err(ringfence_store::StoreError::Busy(_)) => {
                Err(IdempotencyError::Running.into())
            }
            Err(error) => Err(Internal::from(error).into()),
        }
    }

    /// The last statement before the commit: keeps the answer under the client's key.
    pub(crate) async fn finish_once<T: Serialize>(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        once: Option<&Idempotency>,
        answer: &T,
    ) -> Result<(), Internal> {
        let Some(once) = once else { return Ok(()) };
        let response = serde_json::to_string(answer)?;
        Ok(idempotency::finish(tx, caller.principal(), &once.key, &response).await?)
    }
}

impl<T> Answer<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { value, replayed: false }
    }

    pub(crate) const fn replay(value: T) -> Self {
        Self { value, replayed: true }
    }
}
