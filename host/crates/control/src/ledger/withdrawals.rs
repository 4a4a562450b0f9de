//! Withdrawals: money that goes out. In two phases, for it goes outside of the ledger: it is reserved before, and posted
//! when it has left, or voided.

use ringfence_model::{AgentId, MicroUsdc, OrgId, Timestamp, TransferId};
use ringfence_store::ledger::{
    self, AccountKind, Ended, Operation, Posted, Transfer, TransferKind, TransferPhase,
};
use ringfence_store::{Tx, accounts};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{LedgerError, amount};
use crate::error::{Checks, rules};
use crate::policy::{Action, Resource};
use crate::{Answer, Caller, Control, Idempotency, Internal};

/// Money that an operator is about to pay out to an agent, outside of the ledger.
#[derive(Debug, Clone, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct NewWithdrawal {
    /// From whose balance it is taken.
    #[garde(skip)]
    #[schema(value_type = String)]
    pub agent_id: AgentId,
    /// How much, in USDC.
    #[garde(custom(rules::positive))]
    #[schema(value_type = String, example = "40.00")]
    pub amount: MicroUsdc,
    /// What names the payment outside. 1 to 200 characters. It can be used once, for a deposit or a withdrawal.
    #[garde(custom(rules::label(200)))]
    #[schema(min_length = 1, max_length = 200)]
    pub external_reference: String,
}

/// A withdrawal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WithdrawalView {
    /// The withdrawal.
    #[schema(value_type = String)]
    pub withdrawal_id: TransferId,
    /// From whose balance it is taken.
    #[schema(value_type = String)]
    pub agent_id: AgentId,
    /// How much.
    #[schema(value_type = String, example = "40.000000")]
    pub amount: MicroUsdc,
    /// What names the payment outside.
    pub external_reference: String,
    /// `pending`: reserved; `posted`: the money has left; `voided`: it was given free again.
    #[schema(value_type = String, example = "pending")]
    pub status: TransferPhase,
    /// When it was reserved.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was posted or voided.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// What the operator should know: that little is left behind it. In the answers to what moves it.
    pub warnings: Vec<String>,
}

/// How a withdrawal ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithdrawalEnd {
    /// The money has left.
    Post,
    /// It was not paid.
    Void,
}

impl Control {
    /// Reserves money that is about to be paid out.
    ///
    /// # Errors
    /// [`LedgerError::Denied`] for all but operators; [`LedgerError::InsufficientBalance`]; [`LedgerError::Frozen`];
    /// [`LedgerError::ReferenceUsed`].
    pub async fn withdraw(
        &self,
        caller: &Caller,
        new: NewWithdrawal,
        once: Option<&Idempotency>,
    ) -> Result<Answer<WithdrawalView>, LedgerError> {
        self.named_agent(caller, Action::LedgerWithdraw, &new.agent_id).await?;
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
            kind: TransferKind::Withdrawal,
            phase: TransferPhase::Pending,
            pending_id: None,
            debit: account.id,
            credit: outside.id,
            amount: new.amount,
            job_id: None,
            idempotency_id: format!("withdrawal:{}", new.external_reference),
            external_reference: Some(new.external_reference),
            created_at: self.clock.now(),
        };
        match ledger::reserve(&mut tx, &transfer).await? {
            Posted::Posted => {}
            Posted::AlreadyPosted => return Err(LedgerError::ReferenceUsed),
            Posted::InsufficientFunds => {
                // Read again, now that it is locked.
                let account = self.agent_account(&mut tx, &agent.org_id, &agent.id).await?;
                let available = amount(account.available_micros())?;
                return Err(LedgerError::InsufficientBalance { available, amount: new.amount });
            }
            Posted::Frozen => {
                let reason = self.why_frozen(&mut tx, &agent.org_id, &agent.id).await?;
                return Err(LedgerError::Frozen { reason });
            }
        }
        // What is left when this one and all others that are under way have been paid.
        let under_way = ledger::reserved_by_agents(&mut tx).await?;
        let left = self.held_outside(&mut tx).await?.saturating_sub(under_way);
        let warnings = thin(left, new.amount);
        let withdrawal = Operation { transfer, agent_id: new.agent_id, ended: None };
        let view = view(withdrawal, warnings);
        self.finish_once(&mut tx, caller, once, &view).await?;
        let detail = json!({
            "withdrawal_id": view.withdrawal_id,
            "amount": view.amount,
            "external_reference": view.external_reference,
        });
        let resource = Resource::Agent(&agent.org_id, &view.agent_id);
        self.audit(&mut tx, caller, Action::LedgerWithdraw, resource, detail).await?;
        tx.commit().await?;
        Ok(Answer::New(view))
    }

    /// Ends a withdrawal, once: the money has left, or it will not.
    ///
    /// # Errors
    /// [`LedgerError::Denied`] for all but operators; [`LedgerError::NoSuchWithdrawal`]; [`LedgerError::WithdrawalEnded`];
    /// [`LedgerError::Frozen`] for posting from an account that was frozen meanwhile.
    pub async fn end_withdrawal(
        &self,
        caller: &Caller,
        id: &TransferId,
        end: WithdrawalEnd,
        once: Option<&Idempotency>,
    ) -> Result<Answer<WithdrawalView>, LedgerError> {
        self.permit(caller, Action::LedgerWithdraw, Resource::Org(&OrgId::platform())).await?;
        let mut tx = self.store.begin().await?;
        if let Some(answer) = self.begin_once::<LedgerError>(&mut tx, caller, once).await? {
            return Ok(Answer::Replay(answer));
        }
        let found = ledger::operation(&mut tx, TransferKind::Withdrawal, id).await?;
        let mut withdrawal = found.ok_or(LedgerError::NoSuchWithdrawal)?;
        let (ending, now) = (TransferId::new(&*self.clock, &*self.rng), self.clock.now());
        let (ended, phase) = match end {
            WithdrawalEnd::Post => (
                ledger::post_pending(&mut tx, &withdrawal.transfer, ending, now).await?,
                TransferPhase::Posted,
            ),
            WithdrawalEnd::Void => (
                ledger::void_pending(&mut tx, &withdrawal.transfer, ending, now).await?,
                TransferPhase::Voided,
            ),
        };
        let (org, agent) = (withdrawal.transfer.org_id.clone(), withdrawal.agent_id.clone());
        match ended {
            Ended::Ended => {}
            Ended::Already(phase) => return Err(LedgerError::WithdrawalEnded { phase }),
            Ended::Frozen => {
                let reason = self.why_frozen(&mut tx, &org, &agent).await?;
                return Err(LedgerError::Frozen { reason });
            }
        }
        withdrawal.ended = Some((phase, now));
        let warnings = match end {
            WithdrawalEnd::Post => thin(self.held_outside(&mut tx).await?, withdrawal.transfer.amount),
            WithdrawalEnd::Void => Vec::new(),
        };
        let view = view(withdrawal, warnings);
        self.finish_once(&mut tx, caller, once, &view).await?;
        let detail = json!({
            "withdrawal_id": view.withdrawal_id,
            "status": view.status,
            "amount": view.amount,
        });
        self.audit(&mut tx, caller, Action::LedgerWithdraw, Resource::Agent(&org, &agent), detail).await?;
        tx.commit().await?;
        Ok(Answer::New(view))
    }

    /// The withdrawals, newest first.
    ///
    /// # Errors
    /// [`LedgerError::Denied`] for all but operators.
    pub async fn withdrawals(
        &self,
        caller: &Caller,
        limit: u32,
        page_token: Option<&str>,
    ) -> Result<(Vec<WithdrawalView>, Option<String>), LedgerError> {
        let kind = (TransferKind::Withdrawal, TransferPhase::Pending);
        let (found, next) = self.operations(caller, kind, limit, page_token).await?;
        Ok((found.into_iter().map(|withdrawal| view(withdrawal, Vec::new())).collect(), next))
    }

    /// What the platform holds outside, by its books: deposits less withdrawals, in micro-USDC.
    async fn held_outside(&self, tx: &mut Tx) -> Result<i64, Internal> {
        Ok(0i64.saturating_sub(self.platform_account(tx, AccountKind::External).await?.balance_micros))
    }
}

/// Warns of a payment that leaves less than twice its size behind it.
fn thin(left_micros: i64, amount: MicroUsdc) -> Vec<String> {
    if left_micros >= amount.as_micros().saturating_mul(2) {
        return Vec::new();
    }
    let left = MicroUsdc::from_micros(left_micros).unwrap_or(MicroUsdc::ZERO);
    tracing::warn!(%amount, %left, "a payment out leaves less than twice its size");
    vec![format!(
        "This payment of {amount} USDC leaves {left} USDC of what the platform holds: less than twice its size."
    )]
}

fn view(withdrawal: Operation, warnings: Vec<String>) -> WithdrawalView {
    let Operation { transfer, agent_id, ended } = withdrawal;
    WithdrawalView {
        withdrawal_id: transfer.id,
        agent_id,
        amount: transfer.amount,
        external_reference: transfer.external_reference.unwrap_or_default(),
        status: ended.map_or(TransferPhase::Pending, |(phase, _)| phase),
        created_at: transfer.created_at,
        ended_at: ended.map(|(_, at)| at),
        warnings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payment_must_leave_twice_its_size() {
        let amount: MicroUsdc = "10".parse().unwrap();
        assert!(thin(20_000_000, amount).is_empty());
        assert_eq!(thin(19_999_999, amount).len(), 1);
        assert!(thin(-1, amount)[0].contains("leaves 0.000000 USDC"));
        assert_eq!(thin(i64::MAX - 1, MicroUsdc::from_micros(i64::MAX).unwrap()).len(), 1, "no overflow");
    }
}
