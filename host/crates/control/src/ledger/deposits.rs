//! Deposits: money that has come in, booked by operators.

use ringfence_model::{AgentId, MicroUsdc, Timestamp, TransferId};
use ringfence_store::accounts;
use ringfence_store::ledger::{self, AccountKind, Operation, Posted, Transfer, TransferKind, TransferPhase};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::LedgerError;
use crate::error::{Checks, rules};
use crate::policy::{Action, Resource};
use crate::{Answer, Caller, Control, Idempotency, Internal};

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
        self.named_agent(caller, Action::LedgerDeposit, &new.agent_id).await?;
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
            phase: TransferPhase::Single,
            pending_id: None,
            debit: outside.id,
            credit: account.id,
            amount: new.amount,
            job_id: None,
            idempotency_id: format!("deposit:{}", new.external_reference),
            external_reference: Some(new.external_reference),
            created_at: self.clock.now(),
        };
        match ledger::post(&mut tx, &transfer).await? {
            Posted::Posted => {}
            Posted::AlreadyPosted => return Err(LedgerError::AlreadyBooked),
            Posted::InsufficientFunds | Posted::Frozen => {
                return Err(Internal::Invariant("the outside has no lower bound and is never frozen").into());
            }
        }
        let view = view(Operation { transfer, agent_id: new.agent_id, ended: None });
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

    /// The deposits, newest first.
    ///
    /// # Errors
    /// [`LedgerError::Denied`] for all but operators.
    pub async fn deposits(
        &self,
        caller: &Caller,
        limit: u32,
        page_token: Option<&str>,
    ) -> Result<(Vec<DepositView>, Option<String>), LedgerError> {
        let kind = (TransferKind::Deposit, TransferPhase::Single);
        let (found, next) = self.operations(caller, kind, limit, page_token).await?;
        Ok((found.into_iter().map(view).collect(), next))
    }
}

fn view(deposit: Operation) -> DepositView {
    DepositView {
        transfer_id: deposit.transfer.id,
        agent_id: deposit.agent_id,
        amount: deposit.transfer.amount,
        external_reference: deposit.transfer.external_reference.unwrap_or_default(),
        created_at: deposit.transfer.created_at,
    }
}
