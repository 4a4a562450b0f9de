//! What an org's calls used, added up.

use std::time::Duration;

use ringfence_model::{BotId, OrgId, Timestamp};
use ringfence_store::usage::{self, Days, Sums};
use ringfence_store::{Session, StoreError};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::Checks;
use crate::policy::{Action, Resource};
use crate::{Caller, Control, Denied, Internal, Invalid, UsageView};

/// The most days that are added up at a time.
const MAX_DAYS: u64 = 366;
/// How many days are added up where the first is not named.
const DEFAULT_DAYS: u32 = 30;

const DAY: Duration = Duration::from_secs(86_400);

/// A day in UTC, such as `2026-11-21`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Day(Timestamp);

impl Day {
    fn of(time: Timestamp) -> Self {
        let micros = time.as_micros();
        Self(Timestamp::from_micros(micros - micros.rem_euclid(86_400_000_000)))
    }
}

impl std::fmt::Display for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = self.0.to_string();
        f.write_str(time.split('T').next().unwrap_or_default())
    }
}

impl From<Day> for String {
    fn from(day: Day) -> Self {
        day.to_string()
    }
}

impl TryFrom<String> for Day {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let time: Option<Timestamp> = format!("{text}T00:00:00Z").parse().ok();
        // One day has one spelling.
        time.map(Self).filter(|day| day.to_string() == text).ok_or("not a day: expected one like 2026-01-31")
    }
}

/// What the rows of usage have in common.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupUsageBy {
    /// The day, in UTC, on which the calls began.
    #[default]
    Day,
    /// The bot.
    Bot,
    /// The org: for the operators alone.
    Org,
    /// Nothing: one row is all.
    None,
}

/// Which usage to add up.
#[derive(Debug, Clone, Default)]
pub struct ListUsage {
    /// Whose; the caller's own org's if none is named.
    pub org_id: Option<OrgId>,
    /// Of this bot alone.
    pub bot_id: Option<BotId>,
    /// The first day; 30 days are added up if none is named.
    pub from: Option<Day>,
    /// The last day; today if none is named.
    pub to: Option<Day>,
    /// What a row adds up.
    pub group_by: GroupUsageBy,
    /// How many rows at most.
    pub limit: u32,
    /// What the page before gave.
    pub page_token: Option<String>,
}

/// What several calls used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct UsageSums {
    /// The day on which they began, in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Date)]
    pub day: Option<Day>,
    /// The bot that was called.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub bot_id: Option<BotId>,
    /// The org whose calls they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub org_id: Option<OrgId>,
    /// How many they were.
    pub calls: u64,
    /// Those whose outcome was `completed`. The runs of an oracle count once their submission has passed.
    pub completed: u64,
    /// What they used: sums, but for `peak_memory_bytes`, which is the most of one call. What the runs of an oracle used
    /// is in it once their submission has passed.
    #[serde(flatten)]
    pub usage: UsageView,
}

/// Usage, and how to get on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct UsageReport {
    /// The first day that was added up.
    #[schema(value_type = String, format = Date)]
    pub from: Day,
    /// The last.
    #[schema(value_type = String, format = Date)]
    pub to: Day,
    /// The rows, in the order of their day or id.
    pub usage: Vec<UsageSums>,
    /// Gets the next rows; absent behind the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// Why usage is not shown.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// Some fields are not as they must be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// For the caller there is no such org.
    #[error("there is no org with this id")]
    NoSuchOrg,
    /// The caller may not.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Not the caller's fault.
    #[error(transparent)]
    Internal(#[from] Internal),
}

impl From<StoreError> for UsageError {
    fn from(error: StoreError) -> Self {
        Self::Internal(error.into())
    }
}

/// Where a page of usage begins, and how much is asked for.
struct Part<'a> {
    org: &'a OrgId,
    bot: Option<&'a BotId>,
    days: Days,
    after: &'a str,
    limit: u32,
}

impl Control {
    /// What calls used, added up by day, bot or org.
    ///
    /// # Errors
    /// [`UsageError::NoSuchOrg`] for another org's, unless the caller belongs to the operators.
    pub async fn usage(&self, caller: &Caller, list: &ListUsage) -> Result<UsageReport, UsageError> {
        let org = list.org_id.as_ref().unwrap_or_else(|| caller.org());
        let own = org == caller.org() && list.group_by != GroupUsageBy::Org;
        if org != caller.org() && !caller.is_platform() {
            return Err(UsageError::NoSuchOrg);
        }
        let action = if own { Action::UsageRead } else { Action::UsageReadAll };
        self.permit(caller, action, Resource::Org(org)).await?;

        let to = list.to.unwrap_or_else(|| Day::of(self.clock.now()));
        let from = list.from.unwrap_or_else(|| Day(to.0.minus(DAY * (DEFAULT_DAYS - 1))));
        let mut checks = Checks::default();
        checks.require(from <= to, "from", "must not lie after `to`");
        let days = to.0.since(from.0).as_secs() / DAY.as_secs() + 1;
        checks.require(days <= MAX_DAYS, "from", format!("must be at most {MAX_DAYS} days up to `to`"));
        let of_all = list.group_by == GroupUsageBy::Org;
        checks.require(!of_all || list.org_id.is_none(), "org_id", "cannot be named with `group_by=org`");
        let of_one = matches!(list.group_by, GroupUsageBy::Day | GroupUsageBy::None);
        let message = "can be named with `group_by=day` or `group_by=none`";
        checks.require(of_one || list.bot_id.is_none(), "bot_id", message);
        let token = list.page_token.as_deref().unwrap_or_default();
        checks.require(is_token(list.group_by, token), "page_token", "is not one that a page gave");
        checks.done()?;

        let part = Part {
            org,
            bot: list.bot_id.as_ref(),
            days: Days { from: from.0, to: to.0 },
            after: token,
            // One more than is shown tells whether there are more.
            limit: list.limit.saturating_add(1),
        };
        self.recorder.caught_up().await;
        let mut usage = read(&mut self.store.reader().await?, list.group_by, part).await?;
        let shown = usize::try_from(list.limit).unwrap_or(usize::MAX);
        let more = usage.len() > shown;
        usage.truncate(shown);
        let next_page_token = usage.last().filter(|_| more).and_then(token_behind);
        Ok(UsageReport { from, to, usage, next_page_token })
    }
}

async fn read(
    reader: &mut Session,
    group_by: GroupUsageBy,
    Part { org, bot, days, after, limit }: Part<'_>,
) -> Result<Vec<UsageSums>, StoreError> {
    Ok(match group_by {
        GroupUsageBy::Day => {
            let behind = Day::try_from(after.to_owned()).map(|day| day.0.plus(DAY));
            let days = Days { from: behind.map_or(days.from, |behind| behind.max(days.from)), ..days };
            let found = usage::by_day(reader, org, bot, days, limit).await?;
            rows(found, |row, day| row.day = Some(Day(day)))
        }
        GroupUsageBy::Bot => {
            let found = usage::by_bot(reader, org, after, days, limit).await?;
            rows(found, |row, bot| row.bot_id = Some(bot))
        }
        GroupUsageBy::Org => {
            let found = usage::by_org(reader, after, days, limit).await?;
            rows(found, |row, org| row.org_id = Some(org))
        }
        GroupUsageBy::None => rows(vec![usage::total(reader, org, bot, days).await?], |_, ()| {}),
    })
}

fn rows<K>(found: Vec<Sums<K>>, name: impl Fn(&mut UsageSums, K)) -> Vec<UsageSums> {
    let row = |sums: Sums<K>| {
        let Sums { key, calls, completed, usage } = sums;
        let usage = usage.into();
        let mut row = UsageSums { day: None, bot_id: None, org_id: None, calls, completed, usage };
        name(&mut row, key);
        row
    };
    found.into_iter().map(row).collect()
}

fn is_token(group_by: GroupUsageBy, token: &str) -> bool {
    token.is_empty()
        || match group_by {
            GroupUsageBy::Day => Day::try_from(token.to_owned()).is_ok(),
            GroupUsageBy::Bot => token.parse::<BotId>().is_ok(),
            GroupUsageBy::Org => token.parse::<OrgId>().is_ok(),
            GroupUsageBy::None => false,
        }
}

fn token_behind(row: &UsageSums) -> Option<String> {
    let day = row.day.map(|day| day.to_string());
    let bot = row.bot_id.as_ref().map(ToString::to_string);
    day.or(bot).or_else(|| row.org_id.as_ref().map(ToString::to_string))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_written_in_one_way() {
        let day = |text: &str| Day::try_from(text.to_owned());
        assert_eq!(day("2026-11-21").unwrap().to_string(), "2026-11-21");
        assert_eq!(day("2028-02-29").unwrap().to_string(), "2028-02-29");
        for bad in
            ["", "2026-02-29", "2026-11-21T00:00:00Z", "20261121", "2026-11", "1969-12-31", "+02026-11-21"]
        {
            assert!(day(bad).is_err(), "{bad}");
        }
        let noon: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        assert_eq!(Day::of(noon).to_string(), "2026-11-21");
    }
}
