use std::future::Future;

use axum::http::StatusCode;

use crate::Problem;

/// Runs a use case that changes something in a task of its own, so that a client that hangs up never cuts it in half.
pub(crate) async fn detached<T, E>(
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, Problem>
where
    T: Send + 'static,
    E: Send + 'static,
    Problem: From<E>,
{
    use tracing::Instrument as _;
    match tokio::spawn(work.in_current_span()).await {
        Ok(result) => Ok(result?),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a use case ended badly");
            Err(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "Something went wrong on the host. The host's log has it under this request id.",
            ))
        }
    }
}
