use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use ringfence_control::{
    AccountView, BalanceView, DepositView, LedgerCheckView, LedgerError, ListTransfers, NewDeposit,
    NewFreeze, NewReport, NewWithdrawal, ReportedView, SolvencyView, StatementPage, TransferKind,
    TransferPhase, WithdrawalEnd, WithdrawalView,
};
use ringfence_model::{AgentId, JobId, Timestamp, TransferId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use crate::body::{FEW_FIELDS, JsonBody, NEXT_TO_NOTHING, Once, OnceBody, PathOf, QueryOf};
use crate::detached::detached;
use crate::guard::Authenticated;
use crate::idempotency::answer;
use crate::list::{checked_limit, fifty};
use crate::{ApiConfig, App, Problem};

pub(crate) fn routes(config: &ApiConfig) -> OpenApiRouter<App> {
    let (small, tiny) = (config.small(FEW_FIELDS), config.small(NEXT_TO_NOTHING));
    OpenApiRouter::new()
        .routes(routes!(deposit, deposits).layer(small))
        .routes(routes!(withdraw, withdrawals).layer(small))
        .routes(routes!(post_withdrawal).layer(tiny))
        .routes(routes!(void_withdrawal).layer(tiny))
        .routes(routes!(account))
        .routes(routes!(freeze).layer(small))
        .routes(routes!(unfreeze).layer(tiny))
        .routes(routes!(report).layer(small))
        .routes(routes!(check))
        .routes(routes!(solvency))
        .routes(routes!(balance))
        .routes(routes!(transfers))
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
            LedgerError::AgentNotFound => {
                Self::new(StatusCode::NOT_FOUND, "agent_not_found", "There is no agent with this id.")
            }
            LedgerError::AlreadyBooked => Self::new(
                StatusCode::CONFLICT,
                "deposit_already_booked",
                "A deposit with this `external_reference` is booked already, and a payment counts once. Nothing was \
                 booked now.",
            ),
            LedgerError::ReferenceUsed => Self::new(
                StatusCode::CONFLICT,
                "external_reference_used",
                "A deposit or a withdrawal with this `external_reference` is there already, and a payment counts once. \
                 Nothing was reserved now.",
            ),
            LedgerError::InsufficientBalance { available, amount } => Self::new(
                StatusCode::CONFLICT,
                "insufficient_balance",
                format!(
                    "{amount} USDC are to be withdrawn and {available} USDC are available. Nothing was reserved."
                ),
            ),
            LedgerError::Frozen { reason } => Self::new(
                StatusCode::CONFLICT,
                "account_frozen",
                format!(
                    "The account is frozen ({reason}), and nothing leaves it. Unfreeze it with POST \
                     /api/v1/admin/agents/{{agent_id}}/unfreeze first. Nothing was changed."
                ),
            ),
            LedgerError::NoSuchWithdrawal => Self::new(
                StatusCode::NOT_FOUND,
                "withdrawal_not_found",
                "There is no withdrawal with this id.",
            ),
            LedgerError::WithdrawalEnded { phase } => {
                let code = match phase {
                    TransferPhase::Voided => "withdrawal_voided",
                    _ => "withdrawal_posted",
                };
                let detail =
                    format!("The withdrawal is `{phase}` already, and it ends once. Nothing was changed.");
                Self::new(StatusCode::CONFLICT, code, detail)
            }
            LedgerError::Idempotency(error) => error.into(),
            LedgerError::Denied(denied) => denied.into(),
            LedgerError::Internal(error) => error.into(),
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct PageQuery {
    /// How many at most, 1 to 200.
    #[serde(default = "fifty")]
    #[param(default = 50, minimum = 1, maximum = 200)]
    limit: u32,
    /// What the page before this one gave as `next_page_token`.
    page_token: Option<String>,
}

impl PageQuery {
    fn checked(self) -> Result<(u32, Option<String>), Problem> {
        Ok((checked_limit(self.limit)?, self.page_token))
    }
}

/// Deposits.
#[derive(Serialize, ToSchema)]
struct DepositList {
    /// Newest first.
    deposits: Vec<DepositView>,
    /// Gets the next page; absent behind the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

/// Withdrawals.
#[derive(Serialize, ToSchema)]
struct WithdrawalList {
    /// Newest first.
    withdrawals: Vec<WithdrawalView>,
    /// Gets the next page; absent behind the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
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

/// List deposits
///
/// For operators.
#[utoipa::path(get, path = "/admin/ledger/deposits", tag = "ledger", security(("token" = [])), params(PageQuery), responses(
    (status = 200, body = DepositList),
    (status = 403, description = "`operator_only`", body = Problem),
    (status = 422, description = "`invalid_query`, `invalid_fields`", body = Problem)
))]
async fn deposits(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<DepositList>, Problem> {
    let (limit, token) = query.checked()?;
    let (deposits, next_page_token) = app.control.deposits(&caller, limit, token.as_deref()).await?;
    Ok(Json(DepositList { deposits, next_page_token }))
}

/// Reserve a withdrawal
///
/// For operators: money is about to be paid out, outside of the ledger. It can no longer be spent; when it has left, `post`
/// the withdrawal, or `void` it. Each `external_reference` once. `warnings` tells if little is left behind it.
#[utoipa::path(post, path = "/admin/ledger/withdrawals", tag = "ledger", security(("token" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes sending again safe")),
    request_body = NewWithdrawal, responses(
    (status = 201, description = "Reserved", body = WithdrawalView),
    (status = 403, description = "`operator_only`", body = Problem),
    (status = 409, description = "`insufficient_balance`, `account_frozen`, `external_reference_used`, \
        `idempotency_key_in_use`", body = Problem),
    (status = 413, description = "`body_too_large`", body = Problem),
    (status = 422, description = "`invalid_fields`, `invalid_body`, `unknown_agent`, `idempotency_key_reused`", body = Problem)
))]
async fn withdraw(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    OnceBody(new, once): OnceBody<NewWithdrawal>,
) -> Result<Response, Problem> {
    let control = app.control.clone();
    let reserved = detached(async move { control.withdraw(&caller, new, once.as_ref()).await }).await?;
    Ok(answer(StatusCode::CREATED, reserved))
}

/// List withdrawals
///
/// For operators.
#[utoipa::path(get, path = "/admin/ledger/withdrawals", tag = "ledger", security(("token" = [])), params(PageQuery), responses(
    (status = 200, body = WithdrawalList),
    (status = 403, description = "`operator_only`", body = Problem),
    (status = 422, description = "`invalid_query`, `invalid_fields`", body = Problem)
))]
async fn withdrawals(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<WithdrawalList>, Problem> {
    let (limit, token) = query.checked()?;
    let (withdrawals, next_page_token) = app.control.withdrawals(&caller, limit, token.as_deref()).await?;
    Ok(Json(WithdrawalList { withdrawals, next_page_token }))
}

/// Post a withdrawal
///
/// For operators: the money has left.
#[utoipa::path(post, path = "/admin/ledger/withdrawals/{withdrawal_id}/post", tag = "ledger", security(("token" = [])),
    params(("withdrawal_id" = String, Path, description = "`xfer_…`"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes sending again safe")), responses(
    (status = 200, description = "Posted", body = WithdrawalView),
    (status = 403, description = "`operator_only`", body = Problem),
    (status = 404, description = "`withdrawal_not_found`, `no_such_id`", body = Problem),
    (status = 409, description = "`withdrawal_posted`, `withdrawal_voided`, `account_frozen`, `idempotency_key_in_use`", body = Problem),
    (status = 413, description = "`body_too_large`", body = Problem),
    (status = 422, description = "`invalid_body`, `idempotency_key_reused`", body = Problem)
))]
async fn post_withdrawal(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<TransferId>,
    Once(once): Once,
) -> Result<Response, Problem> {
    let (control, end) = (app.control.clone(), WithdrawalEnd::Post);
    let ended =
        detached(async move { control.end_withdrawal(&caller, &id, end, once.as_ref()).await }).await?;
    Ok(answer(StatusCode::OK, ended))
}

/// Void a withdrawal
///
/// For operators: the money was not paid out, and can be spent again.
#[utoipa::path(post, path = "/admin/ledger/withdrawals/{withdrawal_id}/void", tag = "ledger", security(("token" = [])),
    params(("withdrawal_id" = String, Path, description = "`xfer_…`"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes sending again safe")), responses(
    (status = 200, description = "Voided", body = WithdrawalView),
    (status = 403, description = "`operator_only`", body = Problem),
    (status = 404, description = "`withdrawal_not_found`, `no_such_id`", body = Problem),
    (status = 409, description = "`withdrawal_posted`, `withdrawal_voided`, `idempotency_key_in_use`", body = Problem),
    (status = 413, description = "`body_too_large`", body = Problem),
    (status = 422, description = "`invalid_body`, `idempotency_key_reused`", body = Problem)
))]
async fn void_withdrawal(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<TransferId>,
    Once(once): Once,
) -> Result<Response, Problem> {
    let (control, end) = (app.control.clone(), WithdrawalEnd::Void);
    let ended =
        detached(async move { control.end_withdrawal(&caller, &id, end, once.as_ref()).await }).await?;
    Ok(answer(StatusCode::OK, ended))
}

/// Read an agent's account
///
/// For operators.
#[utoipa::path(get, path = "/admin/ledger/accounts/{agent_id}", tag = "ledger", security(("token" = [])),
    params(("agent_id" = String, Path, description = "`agent_…`")), responses(
    (status = 200, body = AccountView),
    (status = 403, description = "`operator_only`", body = Problem),
    (status = 404, description = "`agent_not_found`, `no_such_id`", body = Problem)
))]
async fn account(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<AgentId>,
) -> Result<Json<AccountView>, Problem> {
    Ok(Json(app.control.account_of(&caller, &id).await?))
}

/// Freeze an account
///
/// For operators: nothing is withdrawn from it, no job is funded from it, and payouts to it fail, until it is unfrozen. Refunds
/// and deposits still come in.
#[utoipa::path(post, path = "/admin/agents/{agent_id}/freeze", tag = "ledger", security(("token" = [])),
    params(("agent_id" = String, Path, description = "`agent_…`")), request_body = NewFreeze, responses(
    (status = 200, description = "Frozen", body = AccountView),
    (status = 403, description = "`operator_only`", body = Problem),
    (status = 404, description = "`agent_not_found`, `no_such_id`", body = Problem),
    (status = 413, description = "`body_too_large`", body = Problem),
    (status = 422, description = "`invalid_fields`, `invalid_body`", body = Problem)
))]
async fn freeze(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<AgentId>,
    JsonBody(new): JsonBody<NewFreeze>,
) -> Result<Json<AccountView>, Problem> {
    let control = app.control.clone();
    Ok(Json(detached(async move { control.freeze(&caller, &id, new).await }).await?))
}

/// Unfreeze an account
///
/// For operators. Payouts that have failed meanwhile are made with `retry-payout`.
#[utoipa::path(post, path = "/admin/agents/{agent_id}/unfreeze", tag = "ledger", security(("token" = [])),
    params(("agent_id" = String, Path, description = "`agent_…`")), responses(
    (status = 200, description = "Not frozen", body = AccountView),
    (status = 403, description = "`operator_only`", body = Problem),
    (status = 404, description = "`agent_not_found`, `no_such_id`", body = Problem),
    (status = 413, description = "`body_too_large`", body = Problem),
    (status = 422, description = "`invalid_body`", body = Problem)
))]
async fn unfreeze(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<AgentId>,
    Once(_once): Once,
) -> Result<Json<AccountView>, Problem> {
    let control = app.control.clone();
    Ok(Json(detached(async move { control.unfreeze(&caller, &id).await }).await?))
}

/// Report a balance
///
/// For operators: what the bank or the wallet really holds, for `GET /platform/solvency` to compare with.
#[utoipa::path(post, path = "/admin/ledger/reported-balance", tag = "ledger", security(("token" = [])),
    request_body = NewReport, responses(
    (status = 201, description = "Written down", body = ReportedView),
    (status = 403, description = "`operator_only`", body = Problem),
    (status = 413, description = "`body_too_large`", body = Problem),
    (status = 422, description = "`invalid_fields`, `invalid_body`", body = Problem)
))]
async fn report(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    JsonBody(new): JsonBody<NewReport>,
) -> Result<(StatusCode, Json<ReportedView>), Problem> {
    let control = app.control.clone();
    let reported = detached(async move { control.report_balance(&caller, new).await }).await?;
    Ok((StatusCode::CREATED, Json(reported)))
}

/// Check the ledger
///
/// For operators: computes every balance anew from all transfers, at one moment, and says what does not hold. As `ringfence
/// ledger check`.
#[utoipa::path(get, path = "/admin/ledger/check", tag = "ledger", security(("token" = [])), responses(
    (status = 200, body = LedgerCheckView),
    (status = 403, description = "`operator_only`", body = Problem)
))]
async fn check(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
) -> Result<Json<LedgerCheckView>, Problem> {
    Ok(Json(app.control.check_ledger(&caller).await?))
}

/// Read the platform's solvency
///
/// For operators: what the platform must hold, by its books, what it owes, and what was reported that it really holds.
#[utoipa::path(get, path = "/platform/solvency", tag = "ledger", security(("token" = [])), responses(
    (status = 200, body = SolvencyView),
    (status = 403, description = "`operator_only`", body = Problem)
))]
async fn solvency(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
) -> Result<Json<SolvencyView>, Problem> {
    Ok(Json(app.control.solvency(&caller).await?))
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

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct TransferQuery {
    /// Whose account: an agent of one's org, an operator any. An agent reads its own, and need not say so.
    #[param(value_type = Option<String>)]
    agent_id: Option<AgentId>,
    /// Only `deposit`, `withdrawal`, `fund`, `payout`, `refund` or `excess`.
    #[param(value_type = Option<String>)]
    kind: Option<TransferKind>,
    /// Only this job's.
    #[param(value_type = Option<String>)]
    task_id: Option<JobId>,
    /// Only from this time on.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Only before this time.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// How many at most, 1 to 200.
    #[serde(default = "fifty")]
    #[param(default = 50, minimum = 1, maximum = 200)]
    limit: u32,
    /// What the page before this one gave as `next_page_token`.
    page_token: Option<String>,
}

/// List transfers
///
/// The statement of an agent's account, newest first. The amounts of the transfers that move money (`single` and `posted`),
/// those `in` less those `out`, come to its balance.
#[utoipa::path(get, path = "/ledger/transfers", tag = "ledger", security(("token" = [])), params(TransferQuery), responses(
    (status = 200, body = StatementPage),
    (status = 403, description = "`forbidden`", body = Problem),
    (status = 404, description = "`agent_not_found`", body = Problem),
    (status = 422, description = "`invalid_query`, `invalid_fields`", body = Problem)
))]
async fn transfers(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    QueryOf(query): QueryOf<TransferQuery>,
) -> Result<Json<StatementPage>, Problem> {
    let limit = checked_limit(query.limit)?;
    let list = ListTransfers {
        agent_id: query.agent_id,
        kind: query.kind,
        job_id: query.task_id,
        since: query.since,
        until: query.until,
        limit,
        page_token: query.page_token,
    };
    Ok(Json(app.control.statement(&caller, &list).await?))
}
