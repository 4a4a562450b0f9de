use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use ringfence_control::{BalanceView, DepositView, LedgerError, NewDeposit};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use crate::body::{FEW_FIELDS, OnceBody};
use crate::detached::detached;
use crate::guard::Authenticated;
use crate::idempotency::answer;
use crate::{ApiConfig, App, Problem};

pub(crate) fn routes(config: &ApiConfig) -> OpenApiRouter<App> {
    let deposit = routes!(deposit).layer(config.small(FEW_FIELDS));
    OpenApiRouter::new().routes(deposit).routes(routes!(balance))
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Invalid(invalid) => invalid.into(),
            LedgerError::NoSuchAgent => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "unknown_agent",
                "`agent_id` names no agent. Nothing was booked.",
            ),
            LedgerError::AlreadyBooked => Self::new(
                StatusCode::CONFLICT,
                "deposit_already_booked",
                "A deposit with this `external_reference` is booked already, and a payment counts once. Nothing was \
                 booked now.",
            ),
            LedgerError::Idempotency(error) => error.into(),
            LedgerError::Denied(denied) => denied.into(),
            LedgerError::Internal(error) => error.into(),
        }
    }
}

/// Book a deposit
///
/// For operators: money has come in from outside and raises an agent's balance. Each `external_reference` once.
#[utoipa::path(post, path = "/admin/ledger/deposits", tag = "ledger", security(("token" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes sending again safe")),
    request_body = NewDeposit, responses(
    (status = 201, description = "Booked", body = DepositView),
    (status = 409, description = "`deposit_already_booked`, `idempotency_key_in_use`", body = Problem),
    (status = 413, description = "`body_too_large`", body = Problem),
    (status = 422, description = "`invalid_fields`, `invalid_body`, `unknown_agent`, `idempotency_key_reused`", body = Problem)
))]
async fn deposit(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    OnceBody(new, once): OnceBody<NewDeposit>,
) -> Result<Response, Problem> {
    let control = app.control.clone();
    let booked = detached(async move { control.deposit(&caller, new, once.as_ref()).await }).await?;
    Ok(answer(StatusCode::CREATED, booked))
}

/// Read one's balance
///
/// What the calling agent can spend. An operator reads the fees that the platform has earned.
#[utoipa::path(get, path = "/ledger/balance", tag = "ledger", security(("token" = [])), responses(
    (status = 200, body = BalanceView),
))]
async fn balance(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
) -> Result<Json<BalanceView>, Problem> {
    Ok(Json(app.control.balance(&caller).await?))
}
