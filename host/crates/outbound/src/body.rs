//! Bodies, counted and timed while they pass. None is held as a whole unless the caller asks for it.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::config::Limits;
use crate::error::{OutboundError, Phase};
use crate::permits::Permit;

/// The body of a request. Its trailers, if it has any, are not sent.
pub type RequestBody = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// A body without content.
pub fn empty() -> RequestBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is there already.
pub fn full(bytes: impl Into<Bytes>) -> RequestBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// What went wrong with the request's body: hyper tells only that something did.
pub(crate) type Failure = OnceLock<OutboundError>;

/// A request's body that ends in an error when it is more than it may be.
pub(crate) struct LimitedBody {
    pub(crate) inner: RequestBody,
    pub(crate) left: u64,
    pub(crate) max_bytes: u64,
    pub(crate) failure: Arc<Failure>,
}

impl LimitedBody {
    fn fail(&self, error: OutboundError) -> Poll<Option<Result<Frame<Bytes>, OutboundError>>> {
        let _ = self.failure.set(error.clone());
        Poll::Ready(Some(Err(error)))
    }
}

impl Body for LimitedBody {
    type Data = Bytes;
    type Error = OutboundError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, OutboundError>>> {
        match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            None => Poll::Ready(None),
            Some(Err(_)) => self.fail(OutboundError::RequestBodyFailed),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => match self.left.checked_sub(data.len() as u64) {
                    Some(left) => {
                        self.left = left;
                        Poll::Ready(Some(Ok(Frame::data(data))))
                    }
                    None => self.fail(OutboundError::RequestBodyTooLarge { max_bytes: self.max_bytes }),
                },
                // Trailers are the last frame.
                Err(_) => Poll::Ready(None),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of a response: a stream that ends in an error when it is more, or takes longer, than it may.
///
/// The connection and the permit are its own. Both are given back when it ends or is dropped.
pub struct ResponseBody {
    incoming: Incoming,
    host: String,
    left: u64,
    max_bytes: u64,
    idle_timeout: Duration,
    /// Runs while somebody waits for the next part.
    idle: Pin<Box<Sleep>>,
    is_waiting: bool,
    total_timeout: Duration,
    total: Pin<Box<Sleep>>,
    failure: Arc<Failure>,
    connection: Option<(AbortOnDropHandle<()>, Permit)>,
}

impl ResponseBody {
    pub(crate) fn new(
        incoming: Incoming,
        host: String,
        limits: &Limits,
        deadline: Instant,
        failure: Arc<Failure>,
        connection: (AbortOnDropHandle<()>, Permit),
    ) -> Result<Self, OutboundError> {
        let max_bytes = limits.response_body_bytes;
        if incoming.size_hint().lower() > max_bytes {
            return Err(OutboundError::ResponseTooLarge { host, max_bytes });
        }
        let connection = (!incoming.is_end_stream()).then_some(connection);
        Ok(Self {
            incoming,
            host,
            left: max_bytes,
            max_bytes,
            idle_timeout: limits.idle_timeout,
            idle: Box::pin(sleep_until(deadline)),
            is_waiting: false,
            total_timeout: limits.total_timeout,
            total: Box::pin(sleep_until(deadline)),
            failure,
            connection,
        })
    }

    /// Reads the body to its end, holding at most `max_bytes` of it.
    ///
    /// # Errors
    /// [`OutboundError::ResponseTooLarge`] if it is more, and what else can go wrong while it comes.
    pub async fn bytes(mut self, max_bytes: u64) -> Result<Bytes, OutboundError> {
        self.max_bytes = self.max_bytes.min(max_bytes);
        self.left = self.left.min(max_bytes);
        let mut whole = BytesMut::new();
        while let Some(frame) = self.frame().await {
            if let Ok(data) = frame?.into_data() {
                whole.extend_from_slice(&data);
            }
        }
        Ok(whole.freeze())
    }

    /// Reads the body to its end as JSON, holding at most `max_bytes` of it.
    ///
    /// # Errors
    /// As [`ResponseBody::bytes`], and [`OutboundError::InvalidResponse`] if it is not the JSON that is expected.
    pub async fn json<T: DeserializeOwned>(self, max_bytes: u64) -> Result<T, OutboundError> {
        let host = self.host.clone();
        let bytes = self.bytes(max_bytes).await?;
        serde_json::from_slice(&bytes).map_err(|_| OutboundError::InvalidResponse {
            host,
            reason: "its body is not the JSON that was expected",
        })
    }

    /// The next part, or why there is none. Ends the connection with the body.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, OutboundError>>> {
        let timed_out = |host: &str, phase, limit| {
            Poll::Ready(Some(Err(OutboundError::TimedOut { host: host.to_owned(), phase, limit })))
        };
        if self.total.as_mut().poll(cx).is_ready() {
            return timed_out(&self.host, Phase::Whole, self.total_timeout);
        }
        let Poll::Ready(part) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            if !self.is_waiting {
                self.is_waiting = true;
                self.idle.as_mut().reset(Instant::now() + self.idle_timeout);
            }
            ready!(self.idle.as_mut().poll(cx));
            return timed_out(&self.host, Phase::NextBytes, self.idle_timeout);
        };
        self.is_waiting = false;
        Poll::Ready(part.map(|part| {
            let frame = part.map_err(|error| self.cause(&error))?;
            let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
            let (host, max_bytes) = (&self.host, self.max_bytes);
            self.left = self
                .left
                .checked_sub(bytes)
                .ok_or_else(|| OutboundError::ResponseTooLarge { host: host.clone(), max_bytes })?;
            Ok(frame)
        }))
    }

    fn cause(&self, error: &hyper::Error) -> OutboundError {
        if let Some(first) = self.failure.get() {
            return first.clone();
        }
        tracing::debug!(host = self.host, error = %error, "a response was not complete");
        let host = self.host.clone();
        let misframed =
            error.source().and_then(|source| source.downcast_ref::<io::Error>()).is_some_and(|source| {
                matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
            });
        if error.is_parse() || misframed {
            return OutboundError::InvalidResponse { host, reason: "its body is not framed as HTTP/1.1" };
        }
        OutboundError::ConnectionLost { host }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = OutboundError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, OutboundError>>> {
        let this = self.get_mut();
        // Without its connection the body is over: it ended, or failed and said so.
        if this.connection.is_none() {
            return Poll::Ready(None);
        }
        let part = ready!(this.poll_part(cx));
        if !matches!(part, Some(Ok(_))) || this.incoming.is_end_stream() {
            this.connection = None;
        }
        Poll::Ready(part)
    }

    fn is_end_stream(&self) -> bool {
        self.connection.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseBody").field("host", &self.host).finish_non_exhaustive()
    }
}
