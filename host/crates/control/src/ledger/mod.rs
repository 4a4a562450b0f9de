//! Money: what operators book, what agents see of it, and the movements of a job's deal.

mod deposits;
mod freeze;
mod payouts;
mod solvency;
mod statements;
mod withdrawals;

use ringfence_model::{AccountId, AgentId, JobId, MicroUsdc, OrgId, Timestamp, TransferId};
use ringfence_store::jobs::Job;
use ringfence_store::ledger::{
    self, Account, AccountKind, Operation, Posted, Transfer, TransferKind, TransferPhase,
};
use ringfence_store::{StoreError, Tx, accounts};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::policy::{Action, Resource};
use crate::{Caller, Control, Denied, FieldError, IdempotencyError, Internal, Invalid};

pub use deposits::{DepositView, NewDeposit};
pub use freeze::{AccountView, NewFreeze};
pub(crate) use payouts::{Retried, excess_of};
pub use solvency::{LedgerCheckView, NewReport, ReportedView, SolvencyView};
pub use statements::{ListTransfers, StatementPage, TransferView};
pub use withdrawals::{NewWithdrawal, WithdrawalEnd, WithdrawalView};

/// What an agent has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BalanceView {
    /// Whose balance it is; absent for the platform's own.
    #[schema(value_type = Option<String>)]
    pub agent_id: Option<AgentId>,
    /// What can be spent, in USDC: the balance without what is reserved. For an operator: the fees that the platform has
    /// earned.
    #[schema(value_type = String, example = "80.000000")]
    pub available: MicroUsdc,
    /// What withdrawals will take that are under way.
    #[schema(value_type = String, example = "0.000000")]
    pub reserved: MicroUsdc,
    /// Whether operators have frozen the account; absent where it is a sum of several.
    pub frozen: Option<bool>,
}

/// Why a use case of the ledger was refused.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Some fields are not as they must be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The agent that the body names does not exist.
    #[error("there is no agent with this id")]
    NoSuchAgent,
    /// The agent that the path or the query names does not exist for the caller.
    #[error("there is no agent with this id")]
    AgentNotFound,
    /// This external reference was booked before.
    #[error("a deposit with this external_reference is booked already")]
    AlreadyBooked,
    /// As before, told of a withdrawal.
    #[error("this external_reference is used already")]
    ReferenceUsed,
    /// The account has less than is to be withdrawn.
    #[error("{available} USDC are available, {amount} USDC were asked for")]
    InsufficientBalance {
        /// What can be spent.
        available: MicroUsdc,
        /// What was asked for.
        amount: MicroUsdc,
    },
    /// The account is frozen.
    #[error("the account is frozen: {reason}")]
    Frozen {
        /// The operator's reason.
        reason: String,
    },
    /// No such withdrawal.
    #[error("there is no withdrawal with this id")]
    NoSuchWithdrawal,
    /// The withdrawal was posted or voided before.
    #[error("the withdrawal is `{phase}`")]
    WithdrawalEnded {
        /// What became of it.
        phase: TransferPhase,
    },
    /// The client's idempotency key stands in the way.
    #[error(transparent)]
    Idempotency(#[from] IdempotencyError),
    /// The caller may not.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Not the caller's fault.
    #[error(transparent)]
    Internal(#[from] Internal),
}

impl From<StoreError> for LedgerError {
    fn from(error: StoreError) -> Self {
        Self::Internal(error.into())
    }
}

/// Why a movement did not take place.
pub(crate) enum NotMoved {
    /// The payer has too little.
    InsufficientFunds,
    /// An account is frozen.
    Frozen,
}

/// One movement to be booked.
#[derive(Clone, Copy)]
pub(crate) struct Movement<'a> {
    pub(crate) kind: TransferKind,
    pub(crate) from: &'a AccountId,
    pub(crate) to: &'a AccountId,
    pub(crate) amount: MicroUsdc,
    /// The job whose it is. With the kind, it can be booked once.
    pub(crate) job: &'a JobId,
}

impl Control {
    /// What the calling agent has; for people and machines, what their org's agents have together, and for the operators'
    /// the fees.
    ///
    /// # Errors
    /// [`LedgerError::Internal`] only.
    pub async fn balance(&self, caller: &Caller) -> Result<BalanceView, LedgerError> {
        self.permit(caller, Action::LedgerBalance, Resource::Org(caller.org())).await?;
        let mut reader = self.store.reader().await?;
        let one = match caller.agent() {
            Some(agent) => Some((AccountKind::Agent, agent.as_str())),
            None if caller.is_platform() => Some((AccountKind::Fees, caller.org().as_str())),
            None => None,
        };
        let (balance, reserved, frozen) = match one {
            Some((kind, owner)) => {
                let account = ledger::account(&mut reader, kind, owner).await?;
                account.map_or((0, 0, Some(false)), |account| {
                    (account.balance_micros, account.reserved_micros, Some(account.frozen.is_some()))
                })
            }
            None => {
                let (balance, reserved) = ledger::agents_of_org(&mut reader, caller.org()).await?;
                (balance, reserved, None)
            }
        };
        Ok(BalanceView {
            agent_id: caller.agent().cloned(),
            available: amount(balance.saturating_sub(reserved))?,
            reserved: amount(reserved)?,
            frozen,
        })
    }

    pub(crate) async fn agent_account(
        &self,
        tx: &mut Tx,
        org: &OrgId,
        agent: &AgentId,
    ) -> Result<Account, Internal> {
        let [account] = self.accounts(tx, [(org, AccountKind::Agent, agent.as_str())]).await?;
        Ok(account)
    }

    /// The operator's reason for freezing an agent's account; nothing if it is not frozen.
    async fn why_frozen(&self, tx: &mut Tx, org: &OrgId, agent: &AgentId) -> Result<String, Internal> {
        let account = self.agent_account(tx, org, agent).await?;
        Ok(account.frozen.map(|frozen| frozen.reason).unwrap_or_default())
    }

    /// The account of a job's buyer, and the job's escrow.
    pub(crate) async fn buyer_and_escrow(&self, tx: &mut Tx, job: &Job) -> Result<[Account; 2], Internal> {
        let (buyer, escrow) = (job.buyer_id.as_str(), job.id.as_str());
        let wanted = [(AccountKind::Agent, buyer), (AccountKind::Escrow, escrow)];
        self.accounts(tx, wanted.map(|(kind, owner)| (&job.org_id, kind, owner))).await
    }

    async fn platform_account(&self, tx: &mut Tx, kind: AccountKind) -> Result<Account, Internal> {
        let platform = OrgId::platform();
        let [account] = self.accounts(tx, [(&platform, kind, platform.as_str())]).await?;
        Ok(account)
    }

    /// One to four accounts, by org, kind and owner.
    async fn accounts<const N: usize>(
        &self,
        tx: &mut Tx,
        wanted: [(&OrgId, AccountKind, &str); N],
    ) -> Result<[Account; N], Internal> {
        let wanted = wanted.map(|(org, kind, owner)| {
            let id = AccountId::new(&*self.clock, &*self.rng);
            Account::empty(id, org.clone(), kind, owner.to_owned())
        });
        Ok(ledger::ensure_accounts(tx, wanted).await?)
    }

    /// Books a movement of a job's deal, once.
    pub(crate) async fn book(
        &self,
        tx: &mut Tx,
        org: &OrgId,
        movement: Movement<'_>,
    ) -> Result<Result<(), NotMoved>, Internal> {
        let transfer = self.transfer_of(org, movement);
        moved(ledger::post(tx, &transfer).await?)
    }

    fn transfer_of(&self, org: &OrgId, movement: Movement<'_>) -> Transfer {
        Transfer {
            id: TransferId::new(&*self.clock, &*self.rng),
            org_id: org.clone(),
            kind: movement.kind,
            phase: TransferPhase::Single,
            pending_id: None,
            debit: movement.from.clone(),
            credit: movement.to.clone(),
            amount: movement.amount,
            job_id: Some(movement.job.clone()),
            idempotency_id: format!("{}:{}", movement.kind.as_str(), movement.job),
            external_reference: None,
            created_at: self.clock.now(),
        }
    }

    /// The agent that an operator names, for an action that only operators have: whether there is such an agent is told to
    /// no one else.
    async fn named_agent(
        &self,
        caller: &Caller,
        action: Action,
        id: &AgentId,
    ) -> Result<Option<accounts::Agent>, LedgerError> {
        let agent = accounts::agent(&mut self.store.reader().await?, id).await?;
        let org = agent.as_ref().map_or_else(|| caller.org(), |agent| &agent.org_id);
        self.permit(caller, action, Resource::Agent(org, id)).await?;
        Ok(agent)
    }

    /// Deposits or withdrawals, newest first, and what gets the next page.
    async fn operations(
        &self,
        caller: &Caller,
        kind: (TransferKind, TransferPhase),
        limit: u32,
        page_token: Option<&str>,
    ) -> Result<(Vec<Operation>, Option<String>), LedgerError> {
        self.permit(caller, Action::LedgerRead, Resource::Org(&OrgId::platform())).await?;
        let mut reader = self.store.reader().await?;
        let before = match page_token {
            None => newest(),
            Some(token) => {
                let id: TransferId = token.parse().map_err(|_| bad_token())?;
                let last = ledger::operation(&mut reader, kind.0, &id).await?.ok_or_else(bad_token)?;
                (last.transfer.created_at, id.to_string())
            }
        };
        let before = (before.0, before.1.as_str());
        let mut found = ledger::operations(&mut reader, kind, before, limit.saturating_add(1)).await?;
        let next = cut(&mut found, limit, |last| last.transfer.id.to_string());
        Ok((found, next))
    }
}

fn moved(posted: Posted) -> Result<Result<(), NotMoved>, Internal> {
    match posted {
        Posted::Posted => Ok(Ok(())),
        Posted::InsufficientFunds => Ok(Err(NotMoved::InsufficientFunds)),
        Posted::Frozen => Ok(Err(NotMoved::Frozen)),
        Posted::AlreadyPosted => Err(Internal::Invariant("a job's movement was booked before")),
    }
}

/// A balance of an account that is never below zero.
fn amount(micros: i64) -> Result<MicroUsdc, Internal> {
    MicroUsdc::from_micros(micros).ok_or(Internal::Invariant("a balance is below zero"))
}

/// Before this place in the order of transfers are all of them.
fn newest() -> (Timestamp, String) {
    (Timestamp::from_micros(i64::MAX), String::new())
}

/// One more than is shown was read: takes it away again, and says what gets the next page if it was there.
fn cut<T>(found: &mut Vec<T>, limit: u32, token: impl Fn(&T) -> String) -> Option<String> {
    let shown = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = found.len() > shown;
    found.truncate(shown);
    found.last().filter(|_| more).map(token)
}

fn bad_token() -> LedgerError {
    let message = "is not one that a page gave".to_owned();
    Invalid(vec![FieldError { field: "page_token".to_owned(), message }]).into()
}
