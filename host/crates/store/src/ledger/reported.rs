//! What operators say that the bank or the wallet really holds.

use ringfence_model::{MicroUsdc, OrgId, ReportId, Timestamp};

use crate::session::args;
use crate::statements::statements;
use crate::{Session, StoreError};

/// A balance as an operator has read it outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// Its id.
    pub id: ReportId,
    /// The operators' org.
    pub org_id: OrgId,
    /// How much is there.
    pub amount: MicroUsdc,
    /// Where it was read.
    pub note: String,
    /// Who says so.
    pub reported_by: String,
    /// When it was said.
    pub created_at: Timestamp,
}

statements! {
    INSERT = "INSERT INTO reported_balances (id, org_id, amount, note, reported_by, created_at)
        VALUES ($1, $2, $3, $4, $5, $6)";
    LATEST = "SELECT id, org_id, amount, note, reported_by, created_at FROM reported_balances
        ORDER BY created_at DESC, id DESC LIMIT 1";
}

/// Writes down what was reported.
///
/// # Errors
/// Those of the database.
pub async fn report(s: &mut Session, reported: &Reported) -> Result<(), StoreError> {
    let row = args![
        &reported.id,
        &reported.org_id,
        reported.amount,
        &reported.note,
        &reported.reported_by,
        reported.created_at,
    ];
    s.execute(INSERT, row).await?;
    Ok(())
}

/// What was reported last.
///
/// # Errors
/// Those of the database.
pub async fn reported(s: &mut Session) -> Result<Option<Reported>, StoreError> {
    s.optional(LATEST, args![], |row| {
        Ok(Reported {
            id: row.parse("id")?,
            org_id: row.parse("org_id")?,
            amount: row.money("amount")?,
            note: row.text("note")?,
            reported_by: row.text("reported_by")?,
            created_at: row.time("created_at")?,
        })
    })
    .await
}
