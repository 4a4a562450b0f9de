use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::http::StatusCode;
use futures::FutureExt as _;
use tokio::runtime::Handle;

use crate::Problem;

/// Runs a use case to its end whether the client waits for it or not, so that one that hangs up never cuts it in half: what
/// is left then goes on in a task of its own.
pub(crate) async fn detached<T, E>(
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, Problem>
where
    T: Send + 'static,
    E: Send + 'static,
    Problem: From<E>,
{
    use tracing::Instrument as _;
    let work = AssertUnwindSafe(work.in_current_span()).catch_unwind();
    match ToItsEnd(Some(Box::pin(work))).await {
        Ok(result) => Ok(result?),
        Err(_) => {
            tracing::error!("a use case panicked");
            Err(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "Something went wrong on the host. The host's log has it under this request id.",
            ))
        }
    }
}

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

struct ToItsEnd<T: Send + 'static>(Option<Work<T>>);

impl<T: Send + 'static> Future for ToItsEnd<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(work) = &mut self.0 else { return Poll::Pending };
        let polled = work.as_mut().poll(context);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

impl<T: Send + 'static> Drop for ToItsEnd<T> {
    fn drop(&mut self) {
        if let (Some(work), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_comes_to_its_end() {
        let (done, is_done) = oneshot::channel();
        let work = detached(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let _ = done.send(());
            Ok::<_, Problem>(())
        });
        assert!(tokio::time::timeout(Duration::from_millis(1), work).await.is_err());
        is_done.await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_is_a_problem() {
        let problem = detached(async { panic!("on purpose") as Result<(), Problem> }).await.unwrap_err();
        assert_eq!(
            axum::response::IntoResponse::into_response(problem).status(),
            StatusCode::INTERNAL_SERVER_ERROR
        );
    }
}
