//! What is left of a request's body when its answer is there: it is let come for a moment, and forgotten. Most clients read no
//! answer before they have sent everything; and a connection that is closed with half a request on it looks, to a client that
//! keeps it for the next one, like a host that hangs up.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Error;
use axum::body::{Body, BodyDataStream, HttpBody as _};
use axum::extract::Request;
use bytes::Bytes;
use futures::{Stream, StreamExt as _};

/// How long the rest is let come. Then the connection is closed.
const LINGER: Duration = Duration::from_secs(1);

/// What the system takes of a client at once: a smaller body is sent before anything can be refused.
const SMALL: u64 = 16 << 10;

/// A body of which nothing is lost when nobody wants it any more.
struct Lingering(Option<BodyDataStream>);

/// Lets the rest of the request's body come when it is dropped unread.
pub(crate) fn linger(request: Request) -> Request {
    if request.body().size_hint().upper().is_some_and(|bytes| bytes <= SMALL) {
        return request;
    }
    request.map(|body| Body::from_stream(Lingering(Some(body.into_data_stream()))))
}

impl Stream for Lingering {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(body) = &mut self.0 else { return Poll::Ready(None) };
        let polled = body.poll_next_unpin(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.0 = None;
        }
        polled
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let (Some(mut rest), Ok(executor)) = (self.0.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let rest = async move { while let Some(Ok(_)) = rest.next().await {} };
        executor.spawn(tokio::time::timeout(LINGER, rest));
    }
}
