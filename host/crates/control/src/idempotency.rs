use ringfence_model::Sha256;
use ringfence_store::{Tx, idempotency};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{Caller, Control, Internal};

/// A client's word that two requests are one: the `Idempotency-Key` and what was asked under it.
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// The client's key, 1 to 255 visible ASCII characters.
    pub key: String,
    /// The digest of method, path and body.
    pub request: Sha256,
}

/// The answer of a use case that an `Idempotency-Key` can guard.
#[derive(Debug, Clone)]
pub enum Answer<T> {
    /// It was done now.
    New(T),
    /// Nothing was done now: an earlier, equal request was answered with this, to the byte.
    Replay(Box<RawValue>),
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

impl Control {
    /// The first statement of a use case's transaction: claims the client's key, or finds the answer given under it.
    pub(crate) async fn begin_once<E>(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        once: Option<&Idempotency>,
    ) -> Result<Option<Box<RawValue>>, E>
    where
        E: From<IdempotencyError> + From<Internal>,
    {
        let Some(once) = once else { return Ok(None) };
        let (request, now) = (once.request.to_string(), self.clock.now());
        let begun = idempotency::begin(tx, caller.principal(), &once.key, caller.org(), &request, now).await;
        match begun {
            Ok(idempotency::Begun::New) => Ok(None),
            Ok(idempotency::Begun::Replay(response)) => {
                Ok(Some(RawValue::from_string(response).map_err(Internal::from)?))
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
