//! Whether what the platform holds covers what it owes, and whether its books are right.

use ringfence_model::{MicroUsdc, OrgId, ReportId, Timestamp};
use ringfence_store::jobs;
use ringfence_store::ledger::{self, AccountKind, Reported};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{LedgerError, amount};
use crate::error::{Checks, rules};
use crate::policy::{Action, Resource};
use crate::{Caller, Control, Internal};

/// What the bank or the wallet really holds, as an operator has read it there.
#[derive(Debug, Clone, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct NewReport {
    /// How much, in USDC.
    #[garde(skip)]
    #[schema(value_type = String, example = "1000.00")]
    pub amount: MicroUsdc,
    /// Where it was read: a statement's number, a block. Up to 500 characters.
    #[serde(default)]
    #[garde(custom(rules::text(0, 500)))]
    #[schema(max_length = 500)]
    pub note: String,
}

/// What was reported last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReportedView {
    /// How much there is.
    #[schema(value_type = String, example = "1000.000000")]
    pub amount: MicroUsdc,
    /// It divided by the liabilities, as `ratio`.
    pub ratio: Option<String>,
    /// Where it was read.
    pub note: String,
    /// Who said so.
    pub reported_by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub reported_at: Timestamp,
}

/// What the platform holds and what it owes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SolvencyView {
    /// What the platform must hold outside, by its books: deposits less posted withdrawals, in USDC. It equals `liabilities`
    /// and `fees` together, by double entry.
    #[schema(value_type = String, example = "1000.000000")]
    pub balance: MicroUsdc,
    /// What it owes: `agents` and `escrow` together.
    #[schema(value_type = String, example = "990.000000")]
    pub liabilities: MicroUsdc,
    /// What agents have, with what withdrawals under way will take.
    #[schema(value_type = String, example = "790.000000")]
    pub agents: MicroUsdc,
    /// What withdrawals under way will take.
    #[schema(value_type = String, example = "0.000000")]
    pub withdrawals_pending: MicroUsdc,
    /// What is in escrow: of funded jobs, and of payouts that have failed.
    #[schema(value_type = String, example = "200.000000")]
    pub escrow: MicroUsdc,
    /// What of it is kept for payouts that have failed, fees included.
    #[schema(value_type = String, example = "0.000000")]
    pub payouts_failed: MicroUsdc,
    /// How many jobs are funded.
    pub funded_jobs: u64,
    /// What the platform has earned.
    #[schema(value_type = String, example = "10.000000")]
    pub fees: MicroUsdc,
    /// `balance` divided by `liabilities`, rounded down to four decimals; absent if there are no liabilities.
    #[schema(example = "1.0101")]
    pub ratio: Option<String>,
    /// What the bank or the wallet really held when an operator last looked.
    pub reported: Option<ReportedView>,
    /// What the operators should know.
    pub warnings: Vec<String>,
}

/// What a look through the ledger has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LedgerCheckView {
    /// Whether everything holds.
    pub ok: bool,
    /// How many accounts were computed anew.
    pub accounts: u64,
    /// From how many transfers.
    pub transfers: u64,
    /// How many jobs' escrows were looked at.
    pub jobs: u64,
    /// What does not hold: of each sort the first hundred.
    pub discrepancies: Vec<String>,
}

impl Control {
    /// What the platform holds and owes, at one moment.
    ///
    /// # Errors
    /// [`LedgerError::Denied`] for all but operators.
    pub async fn solvency(&self, caller: &Caller) -> Result<SolvencyView, LedgerError> {
        self.permit(caller, Action::LedgerRead, Resource::Org(&OrgId::platform())).await?;
        Ok(self.books().await?)
    }

    async fn books(&self) -> Result<SolvencyView, Internal> {
        let mut reader = self.store.snapshot().await?;
        let sums = ledger::sums(&mut reader).await?;
        let funded_jobs = jobs::funded_count(&mut reader).await?;
        let reported = ledger::reported(&mut reader).await?;
        drop(reader);
        let of = |kind: AccountKind| {
            let found = sums.iter().find(|sum| sum.kind == kind);
            found.map_or((0, 0), |sum| (sum.balance_micros, sum.reserved_micros))
        };
        let (agents, withdrawals_pending) = of(AccountKind::Agent);
        let (escrow, payouts_failed) = of(AccountKind::Escrow);
        let balance = amount(0i64.saturating_sub(of(AccountKind::External).0))?;
        let liabilities = amount(agents.saturating_add(escrow))?;
        let mut warnings = Vec::new();
        if let Some(reported) = &reported {
            let (what, at) = (reported.amount, reported.created_at);
            if what < liabilities {
                warnings.push(format!(
                    "The {what} USDC reported at {at} do not cover the liabilities of {liabilities} USDC."
                ));
            } else if what < balance {
                warnings.push(format!(
                    "The {what} USDC reported at {at} are less than the books' {balance} USDC."
                ));
            }
        }
        Ok(SolvencyView {
            balance,
            liabilities,
            agents: amount(agents)?,
            withdrawals_pending: amount(withdrawals_pending)?,
            escrow: amount(escrow)?,
            payouts_failed: amount(payouts_failed)?,
            funded_jobs,
            fees: amount(of(AccountKind::Fees).0)?,
            ratio: ratio(balance, liabilities),
            reported: reported.map(|reported| reported_view(reported, liabilities)),
            warnings,
        })
    }

    /// Writes down what the bank or the wallet really holds.
    ///
    /// # Errors
    /// [`LedgerError::Denied`] for all but operators.
    pub async fn report_balance(&self, caller: &Caller, new: NewReport) -> Result<ReportedView, LedgerError> {
        let platform = OrgId::platform();
        self.permit(caller, Action::LedgerReport, Resource::Org(&platform)).await?;
        Checks::of(&new).done()?;
        let reported = Reported {
            id: ReportId::new(&*self.clock, &*self.rng),
            org_id: platform.clone(),
            amount: new.amount,
            note: new.note,
            reported_by: caller.principal().to_owned(),
            created_at: self.clock.now(),
        };
        let mut tx = self.store.begin().await?;
        ledger::report(&mut tx, &reported).await?;
        let detail = json!({ "amount": reported.amount, "note": reported.note });
        self.audit(&mut tx, caller, Action::LedgerReport, Resource::Org(&platform), detail).await?;
        tx.commit().await?;
        let liabilities = self.books().await?.liabilities;
        Ok(reported_view(reported, liabilities))
    }

    /// Computes the ledger anew and says what does not hold.
    ///
    /// # Errors
    /// [`LedgerError::Denied`] for all but operators.
    pub async fn check_ledger(&self, caller: &Caller) -> Result<LedgerCheckView, LedgerError> {
        self.permit(caller, Action::LedgerRead, Resource::Org(&OrgId::platform())).await?;
        let found = ledger::inspect(&mut self.store.snapshot().await?).await?;
        for discrepancy in &found.discrepancies {
            tracing::error!(%discrepancy, "the ledger does not hold");
        }
        Ok(LedgerCheckView {
            ok: found.discrepancies.is_empty(),
            accounts: found.accounts,
            transfers: found.transfers,
            jobs: found.jobs,
            discrepancies: found.discrepancies.iter().map(ToString::to_string).collect(),
        })
    }
}

fn reported_view(reported: Reported, liabilities: MicroUsdc) -> ReportedView {
    ReportedView {
        amount: reported.amount,
        ratio: ratio(reported.amount, liabilities),
        note: reported.note,
        reported_by: reported.reported_by,
        reported_at: reported.created_at,
    }
}

/// What is held divided by what is owed, rounded down to four decimals; `None` if nothing is owed.
fn ratio(held: MicroUsdc, owed: MicroUsdc) -> Option<String> {
    let parts = i128::from(held.as_micros()) * 10_000;
    let parts = parts.checked_div(i128::from(owed.as_micros()))?;
    Some(format!("{}.{:04}", parts / 10_000, parts % 10_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_rounded_down_to_four_decimals() {
        let of = |held: &str, owed: &str| ratio(held.parse().unwrap(), owed.parse().unwrap());
        assert_eq!(of("100", "100").as_deref(), Some("1.0000"));
        assert_eq!(of("2", "3").as_deref(), Some("0.6666"));
        assert_eq!(of("100", "99").as_deref(), Some("1.0101"));
        assert_eq!(of("0", "5").as_deref(), Some("0.0000"));
        assert_eq!(of("5", "0"), None);
        let most = MicroUsdc::from_micros(i64::MAX).unwrap();
        assert_eq!(ratio(most, "0.000001".parse().unwrap()).as_deref(), Some("9223372036854775807.0000"));
    }
}
