//! Money: deposits that operators book, balances that agents see, and the movements of a job's deal.

use ringfence_model::{AccountId, AgentId, FeeBps, JobId, MicroUsdc, OrgId, Timestamp, TransferId};
use ringfence_store::ledger::{self, Account, AccountKind, Posted, Transfer, TransferKind};
use ringfence_store::{Session, StoreError, Tx, accounts};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::error::{Checks, rules};
use crate::policy::{Action, Resource};
use crate::{Answer, Caller, Control, Denied, Idempotency, IdempotencyError, Internal, Invalid};

/// Money that an operator has received for an agent, outside of the ledger.
#[derive(Debug, Clone, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct NewDeposit {
    /// Whose balance it raises.
    #[garde(skip)]
    #[schema(value_type = String)]
    pub agent_id: AgentId,
    /// How much, in USDC.
    #[garde(custom(rules::positive))]
    #[schema(value_type = String, example = "100.00")]
    pub amount: MicroUsdc,
    /// What names the payment outside: a bank's reference, a transaction hash. 1 to 200 characters. It can be booked
    /// once.
    #[garde(custom(rules::label(200)))]
    #[schema(min_length = 1, max_length = 200)]
    pub external_reference: String,
}

/// A booked deposit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DepositView {
    /// The movement in the ledger.
    #[schema(value_type = String)]
    pub transfer_id: TransferId,
    /// Whose balance was raised.
    #[schema(value_type = String)]
    pub agent_id: AgentId,
    /// By how much.
    #[schema(value_type = String, example = "100.000000")]
    pub amount: MicroUsdc,
    /// What names the payment outside.
    pub external_reference: String,
    /// When it was booked.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// What an agent has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BalanceView {
    /// Whose balance it is; absent for the platform's own.
    #[schema(value_type = Option<String>)]
    pub agent_id: Option<AgentId>,
    /// What can be spent, in USDC. For an operator: the fees that the platform has earned.
    #[schema(value_type = String, example = "80.000000")]
    pub available: MicroUsdc,
}

/// Why a use case of the ledger was refused.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Some fields are not as they must be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The agent does not exist.
    #[error("there is no agent with this id")]
    NoSuchAgent,
    /// This external reference was booked before.
    #[error("a deposit with this external_reference is booked already")]
    AlreadyBooked,
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

/// A movement that did not take place because the payer has too little.
pub(crate) struct InsufficientFunds;

/// One movement to be booked.
pub(crate) struct Movement<'a> {
    pub(crate) kind: TransferKind,
    pub(crate) from: &'a AccountId,
    pub(crate) to: &'a AccountId,
    pub(crate) amount: MicroUsdc,
    pub(crate) job: Option<&'a JobId>,
    /// What the movement is for: a deposit's reference, else the job. With the kind, it can be booked once.
    pub(crate) subject: &'a str,
}

impl Control {
    /// Books a deposit: money comes in from outside and raises an agent's balance.
    ///
    /// # Errors
    /// [`LedgerError::Denied`] for all but operators; [`LedgerError::AlreadyBooked`] for a reference used before.
    pub async fn deposit(
        &self,
        caller: &Caller,
        new: NewDeposit,
        once: Option<&Idempotency>,
    ) -> Result<Answer<DepositView>, LedgerError> {
        let agent = accounts::agent(&mut self.store.reader().await?, &new.agent_id).await?;
        // Whether there is such an agent is told only to those who may book money.
        let org = agent.as_ref().map_or_else(|| caller.org(), |agent| &agent.org_id);
        self.permit(caller, Action::LedgerDeposit, Resource::Agent(org, &new.agent_id)).await?;
        Checks::of(&new).done()?;

        let mut tx = self.store.begin().await?;
        if let Some(answer) = self.begin_once::<LedgerError>(&mut tx, caller, once).await? {
            return Ok(Answer::Replay(answer));
        }
        let agent = accounts::agent(&mut tx, &new.agent_id).await?.ok_or(LedgerError::NoSuchAgent)?;
        let outside = self.platform_account(&mut tx, AccountKind::External).await?;
        let account = self.agent_account(&mut tx, &agent.org_id, &agent.id).await?;
        let transfer = Transfer {
            id: TransferId::new(&*self.clock, &*self.rng),
            org_id: agent.org_id.clone(),
            kind: TransferKind::Deposit,
            debit: outside.id,
            credit: account.id,
            amount: new.amount,
            job_id: None,
            idempotency_id: format!("deposit:{}", new.external_reference),
            external_reference: Some(new.external_reference.clone()),
            created_at: self.clock.now(),
        };
        match ledger::post(&mut tx, &transfer).await? {
            Posted::Posted => {}
            Posted::AlreadyPosted => return Err(LedgerError::AlreadyBooked),
            Posted::InsufficientFunds => {
                return Err(Internal::Invariant("the outside has no lower bound").into());
            }
        }
        let view = DepositView {
            transfer_id: transfer.id,
            agent_id: new.agent_id,
            amount: new.amount,
            external_reference: new.external_reference,
            created_at: transfer.created_at,
        };
        self.finish_once(&mut tx, caller, once, &view).await?;
        let detail = json!({
            "transfer_id": view.transfer_id,
            "amount": view.amount,
            "external_reference": view.external_reference,
        });
        let resource = Resource::Agent(&agent.org_id, &view.agent_id);
        self.audit(&mut tx, caller, Action::LedgerDeposit, resource, detail).await?;
        tx.commit().await?;
        Ok(Answer::New(view))
    }

    /// What the calling agent has; for people and machines, what their org's agents have together, and for the operators'
    /// the fees.
    ///
    /// # Errors
    /// [`LedgerError::Internal`] only.
    pub async fn balance(&self, caller: &Caller) -> Result<BalanceView, LedgerError> {
        self.permit(caller, Action::LedgerBalance, Resource::Org(caller.org())).await?;
        let mut reader = self.store.reader().await?;
        let micros = match caller.agent() {
            Some(agent) => balance(&mut reader, AccountKind::Agent, agent.as_str()).await?,
            None if caller.is_platform() => {
                balance(&mut reader, AccountKind::Fees, caller.org().as_str()).await?
            }
            None => ledger::agents_of_org(&mut reader, caller.org()).await?,
        };
        let available =
            MicroUsdc::from_micros(micros).ok_or(Internal::Invariant("an agent's balance is below zero"))?;
        Ok(BalanceView { agent_id: caller.agent().cloned(), available })
    }

    pub(crate) async fn agent_account(
        &self,
        tx: &mut Tx,
        org: &OrgId,
        agent: &AgentId,
    ) -> Result<Account, Internal> {
        self.account(tx, org, AccountKind::Agent, agent.as_str()).await
    }

    pub(crate) async fn escrow_account(
        &self,
        tx: &mut Tx,
        org: &OrgId,
        job: &JobId,
    ) -> Result<Account, Internal> {
        self.account(tx, org, AccountKind::Escrow, job.as_str()).await
    }

    async fn platform_account(&self, tx: &mut Tx, kind: AccountKind) -> Result<Account, Internal> {
        let platform = OrgId::platform();
        self.account(tx, &platform, kind, platform.as_str()).await
    }

    async fn account(
        &self,
        tx: &mut Tx,
        org: &OrgId,
        kind: AccountKind,
        owner: &str,
    ) -> Result<Account, Internal> {
        let account = Account {
            id: AccountId::new(&*self.clock, &*self.rng),
            org_id: org.clone(),
            kind,
            owner_id: owner.to_owned(),
            balance_micros: 0,
        };
        Ok(ledger::ensure_account(tx, &account).await?)
    }

    /// Books a movement of a job's deal, once.
    pub(crate) async fn book(
        &self,
        tx: &mut Tx,
        org: &OrgId,
        movement: Movement<'_>,
    ) -> Result<Result<(), InsufficientFunds>, Internal> {
        let transfer = Transfer {
            id: TransferId::new(&*self.clock, &*self.rng),
            org_id: org.clone(),
            kind: movement.kind,
            debit: movement.from.clone(),
            credit: movement.to.clone(),
            amount: movement.amount,
            job_id: movement.job.cloned(),
            idempotency_id: format!("{}:{}", movement.kind.as_str(), movement.subject),
            external_reference: None,
            created_at: self.clock.now(),
        };
        match ledger::post(tx, &transfer).await? {
            Posted::Posted => Ok(Ok(())),
            Posted::InsufficientFunds => Ok(Err(InsufficientFunds)),
            Posted::AlreadyPosted => Err(Internal::Invariant("a job's movement was booked before")),
        }
    }

    /// Empties a job's escrow: the worker's part and the platform's.
    pub(crate) async fn pay_out(
        &self,
        tx: &mut Tx,
        (buyer_org, job, fee): (&OrgId, &JobId, FeeBps),
        (worker_org, worker): (&OrgId, &AgentId),
    ) -> Result<ringfence_model::FeeSplit, Internal> {
        let escrow = self.escrow_account(tx, buyer_org, job).await?;
        let held = MicroUsdc::from_micros(escrow.balance_micros);
        let held = held.ok_or(Internal::Invariant("an escrow is below zero"))?;
        let split = fee.split(held);
        let worker = self.agent_account(tx, worker_org, worker).await?;
        let fees = self.platform_account(tx, AccountKind::Fees).await?;
        for (kind, to, amount) in
            [(TransferKind::Payout, &worker.id, split.payout), (TransferKind::Fee, &fees.id, split.fee)]
        {
            if amount > MicroUsdc::ZERO {
                let movement =
                    Movement { kind, from: &escrow.id, to, amount, job: Some(job), subject: job.as_str() };
                let booked = self.book(tx, buyer_org, movement).await?;
                booked
                    .map_err(|InsufficientFunds| Internal::Invariant("an escrow holds less than it does"))?;
            }
        }
        Ok(split)
    }

    /// Gives a job's escrow back to its buyer; how much that was.
    pub(crate) async fn refund(
        &self,
        tx: &mut Tx,
        org: &OrgId,
        job: &JobId,
        buyer: &AgentId,
    ) -> Result<MicroUsdc, Internal> {
        let escrow = self.escrow_account(tx, org, job).await?;
        let held = MicroUsdc::from_micros(escrow.balance_micros);
        let held = held.ok_or(Internal::Invariant("an escrow is below zero"))?;
        if held > MicroUsdc::ZERO {
            let account = self.agent_account(tx, org, buyer).await?;
            let movement = Movement {
                kind: TransferKind::Refund,
                from: &escrow.id,
                to: &account.id,
                amount: held,
                job: Some(job),
                subject: job.as_str(),
            };
            let booked = self.book(tx, org, movement).await?;
            booked.map_err(|InsufficientFunds| Internal::Invariant("an escrow holds less than it does"))?;
        }
        Ok(held)
    }
}

async fn balance(session: &mut Session, kind: AccountKind, owner: &str) -> Result<i64, StoreError> {
    Ok(ledger::account(session, kind, owner).await?.map_or(0, |account| account.balance_micros))
}
