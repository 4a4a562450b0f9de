//! Accounts as operators see them, and freezing them.

use ringfence_model::{AgentId, MicroUsdc, OrgId, Timestamp};
use ringfence_store::ledger::{self, Account, AccountKind, Frozen};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{LedgerError, amount};
use crate::error::{Checks, rules};
use crate::policy::{Action, Resource};
use crate::{Caller, Control, Internal};

/// Why an account is to be frozen.
#[derive(Debug, Clone, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct NewFreeze {
    /// 1 to 500 characters, for the operators and the audit log.
    #[garde(custom(rules::text(1, 500)))]
    #[schema(min_length = 1, max_length = 500)]
    pub reason: String,
}

/// An agent's account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccountView {
    /// Whose it is.
    #[schema(value_type = String)]
    pub agent_id: AgentId,
    /// The agent's org.
    #[schema(value_type = String)]
    pub org_id: OrgId,
    /// What came in less what went out, in USDC.
    #[schema(value_type = String, example = "80.000000")]
    pub balance: MicroUsdc,
    /// What of it withdrawals will take that are under way.
    #[schema(value_type = String, example = "0.000000")]
    pub reserved: MicroUsdc,
    /// What of it can be spent.
    #[schema(value_type = String, example = "80.000000")]
    pub available: MicroUsdc,
    /// Whether it is frozen: nothing is withdrawn, no job is funded from it, and payouts to it fail.
    pub frozen: bool,
    /// Why, if it is.
    pub frozen_reason: Option<String>,
    /// Since when, if it is.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub frozen_at: Option<Timestamp>,
}

impl Control {
    /// An agent's account.
    ///
    /// # Errors
    /// [`LedgerError::Denied`] for all but operators.
    pub async fn account_of(&self, caller: &Caller, id: &AgentId) -> Result<AccountView, LedgerError> {
        let agent = self.named_agent(caller, Action::LedgerRead, id).await?;
        let agent = agent.ok_or(LedgerError::AgentNotFound)?;
        let account =
            ledger::account(&mut self.store.reader().await?, AccountKind::Agent, id.as_str()).await?;
        Ok(view(id, &agent.org_id, account.as_ref())?)
    }

    /// Freezes an agent's account, for as long as it is not let go. Again, with another reason, is no error.
    ///
    /// # Errors
    /// [`LedgerError::Denied`] for all but operators.
    pub async fn freeze(
        &self,
        caller: &Caller,
        id: &AgentId,
        new: NewFreeze,
    ) -> Result<AccountView, LedgerError> {
        self.set_frozen(caller, id, Some(new)).await
    }

    /// Lets an agent's account go again. If it is not frozen, nothing changes.
    ///
    /// # Errors
    /// As [`Self::freeze`].
    pub async fn unfreeze(&self, caller: &Caller, id: &AgentId) -> Result<AccountView, LedgerError> {
        self.set_frozen(caller, id, None).await
    }

    async fn set_frozen(
        &self,
        caller: &Caller,
        id: &AgentId,
        new: Option<NewFreeze>,
    ) -> Result<AccountView, LedgerError> {
        let agent = self.named_agent(caller, Action::LedgerFreeze, id).await?;
        if let Some(new) = &new {
            Checks::of(new).done()?;
        }
        let agent = agent.ok_or(LedgerError::AgentNotFound)?;
        let frozen = new.map(|new| Frozen { since: self.clock.now(), reason: new.reason });
        let mut tx = self.store.begin().await?;
        let account = self.agent_account(&mut tx, &agent.org_id, id).await?;
        ledger::freeze(&mut tx, &account.id, frozen.as_ref()).await?;
        let account = ledger::account(&mut tx, AccountKind::Agent, id.as_str()).await?;
        let view = view(id, &agent.org_id, account.as_ref())?;
        let detail = json!({ "frozen": view.frozen, "reason": view.frozen_reason });
        let resource = Resource::Agent(&agent.org_id, id);
        self.audit(&mut tx, caller, Action::LedgerFreeze, resource, detail).await?;
        tx.commit().await?;
        Ok(view)
    }
}

/// An account that was never used is not there yet, and holds nothing.
fn view(id: &AgentId, org: &OrgId, account: Option<&Account>) -> Result<AccountView, Internal> {
    let frozen = account.and_then(|account| account.frozen.clone());
    Ok(AccountView {
        agent_id: id.clone(),
        org_id: org.clone(),
        balance: amount(account.map_or(0, |account| account.balance_micros))?,
        reserved: amount(account.map_or(0, |account| account.reserved_micros))?,
        available: amount(account.map_or(0, Account::available_micros))?,
        frozen: frozen.is_some(),
        frozen_at: frozen.as_ref().map(|frozen| frozen.since),
        frozen_reason: frozen.map(|frozen| frozen.reason),
    })
}
