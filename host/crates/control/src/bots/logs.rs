//! The lines of a bot, across its calls.

use ringfence_model::{BotId, InvocationId, SubmissionStatus, Timestamp};
use ringfence_runtime::{Level, Stream};
use ringfence_store::{Session, invocations, logs, submissions};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::LogLineView;
use crate::error::Checks;
use crate::policy::Action;
use crate::{BotError, Caller, Control, Internal};

/// How many calls one request looks at.
const MAX_CALLS: u32 = 500;
/// How many bytes of lines, as they were charged, one request looks at.
const MAX_BYTES: u64 = 8 << 20;
/// The longest text that is looked for, in characters.
const MAX_CONTAINS: usize = 200;

/// Which lines.
#[derive(Debug, Clone, Default)]
pub struct LogFilter {
    /// Only these and those that matter more.
    pub level: Option<Level>,
    /// Only from there.
    pub stream: Option<Stream>,
    /// Only those in whose message, or in one of whose fields, this text is.
    pub contains: Option<String>,
}

impl LogFilter {
    pub(crate) fn check(&self, checks: &mut Checks) {
        let fits = self.contains.as_ref().is_none_or(|text| text.chars().count() <= MAX_CONTAINS);
        checks.require(fits, "contains", format!("must have at most {MAX_CONTAINS} characters"));
    }

    /// Whether a line is asked for.
    pub(crate) fn admits(&self, line: &LogLineView) -> bool {
        let level = || Level::ALL.into_iter().find(|level| level.as_str() == line.level);
        self.level.is_none_or(|least| level().is_none_or(|level| level >= least))
            && self.stream.is_none_or(|stream| stream.as_str() == line.stream)
            && self.contains.as_ref().is_none_or(|text| {
                let has = |part: &String| part.contains(text.as_str());
                has(&line.message) || line.fields.iter().any(|(key, value)| has(key) || has(value))
            })
    }
}

/// Which lines of a bot to list.
#[derive(Debug, Clone, Default)]
pub struct ListLogs {
    /// Of all lines.
    pub filter: LogFilter,
    /// Only from this time on.
    pub from: Option<Timestamp>,
    /// Only before this time.
    pub to: Option<Timestamp>,
    /// How many at most.
    pub limit: u32,
    /// What the page before gave.
    pub page_token: Option<String>,
}

/// A line, and where it is from.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BotLogLineView {
    /// The call that wrote it.
    #[schema(value_type = String)]
    pub invocation_id: InvocationId,
    /// Its number among the lines of the call that were kept, from 0.
    pub line: u32,
    /// When it was written: when the call was taken on, and as long after that as the guest had run. So time that the call
    /// has waited for an instance is not in it.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// The line.
    #[serde(flatten)]
    pub text: LogLineView,
}

impl BotLogLineView {
    pub(crate) fn new(call: &InvocationId, started_at: Timestamp, line: usize, text: LogLineView) -> Self {
        let time = started_at.plus(std::time::Duration::from_micros(text.at_us));
        Self { invocation_id: call.clone(), line: u32::try_from(line).unwrap_or(u32::MAX), time, text }
    }
}

/// Lines of a bot.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct BotLogs {
    /// The lines. Those of the call that began last come first, and of a call the last one.
    pub lines: Vec<BotLogLineView>,
    /// Gets the next lines; absent where there are no more. There may be fewer lines than were asked for, or none, and more
    /// behind: a request looks at so many calls and no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// A place between lines: behind it are those lines of the call whose numbers are less, and earlier calls.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    started_at: Timestamp,
    call: InvocationId,
    line: u32,
}

impl Place {
    /// Before the first call that began before this time.
    fn before(time: Timestamp) -> Self {
        Self { started_at: time, call: InvocationId::least_at(Timestamp::EPOCH), line: 0 }
    }

    fn parse(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let place = Self {
            started_at: Timestamp::from_micros(parts.next()?.parse().ok()?),
            call: parts.next()?.parse().ok()?,
            line: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(place)
    }

    fn token(&self) -> String {
        format!("{}.{}.{}", self.started_at.as_micros(), self.call, self.line)
    }
}

impl Control {
    /// The lines of a bot's calls, the newest first. Of an oracle those of runs whose submission has not passed are left
    /// out.
    ///
    /// # Errors
    /// [`BotError::NotFound`], [`BotError::Invalid`].
    pub async fn bot_logs(&self, caller: &Caller, id: &BotId, list: &ListLogs) -> Result<BotLogs, BotError> {
        self.own_bot(caller, id, Action::InvocationsRead).await?;
        let mut checks = Checks::default();
        list.filter.check(&mut checks);
        let place = match &list.page_token {
            None => Some(Place::before(list.to.unwrap_or(Timestamp::MAX))),
            Some(token) => Place::parse(token),
        };
        checks.require(place.is_some(), "page_token", "is not one that a page gave");
        checks.done()?;
        let Some(place) = place else { return Err(BotError::NotFound) };
        self.recorder.caught_up().await;
        let mut reader = self.store.reader().await?;
        let longest = std::time::Duration::from_millis(self.runtime.maximum().wall_time_ms);
        let since = list.from.map_or(Timestamp::EPOCH, |from| from.minus(longest));
        let mut walk = Walk { list, lines: Vec::new(), bytes: 0 };
        let mut next = None;
        // The call that the page before ended in has to be found again, so one begins with it.
        let mut calls = Vec::new();
        if place.line > 0
            && let Some(call) = logs::call(&mut reader, id, &place.call).await?
        {
            calls.push((call, usize::try_from(place.line).unwrap_or(usize::MAX)));
        }
        let before = (place.started_at, &place.call);
        let found = logs::calls(&mut reader, id, before, since, MAX_CALLS).await?;
        let full = found.len() >= MAX_CALLS as usize;
        calls.extend(found.into_iter().map(|call| (call, usize::MAX)));
        let mut last = None;
        for (call, below) in &calls {
            if let Some(line) = walk.call(&mut reader, call, *below).await? {
                next = Some(Place { started_at: call.started_at, call: call.id.clone(), line });
                break;
            }
            last = Some(Place { started_at: call.started_at, call: call.id.clone(), line: 0 });
        }
        let next = next.or(last.filter(|_| full));
        Ok(BotLogs { lines: walk.lines, next_page_token: next.map(|place| place.token()) })
    }
}

/// One request's way through calls.
struct Walk<'a> {
    list: &'a ListLogs,
    lines: Vec<BotLogLineView>,
    bytes: u64,
}

impl Walk<'_> {
    /// Takes the lines of a call whose numbers are less than `below`. If the request has enough before it is through, the
    /// number of lines that are left.
    async fn call(
        &mut self,
        reader: &mut Session,
        call: &logs::Logged,
        below: usize,
    ) -> Result<Option<u32>, BotError> {
        if call.log_bytes == 0 || is_sealed(reader, call).await? {
            return Ok(None);
        }
        if self.bytes > 0 && self.bytes.saturating_add(call.log_bytes) > MAX_BYTES {
            return Ok(Some(u32::try_from(below).unwrap_or(u32::MAX)));
        }
        self.bytes += call.log_bytes;
        let lines = kept_lines(reader, &call.id).await?;
        for (number, text) in lines.into_iter().enumerate().take(below).rev() {
            let line = BotLogLineView::new(&call.id, call.started_at, number, text);
            if !self.admits(&line) {
                continue;
            }
            if self.lines.len() >= self.list.limit as usize {
                return Ok(Some(u32::try_from(number + 1).unwrap_or(u32::MAX)));
            }
            self.lines.push(line);
        }
        Ok(None)
    }

    fn admits(&self, line: &BotLogLineView) -> bool {
        self.list.filter.admits(&line.text)
            && self.list.from.is_none_or(|from| line.time >= from)
            && self.list.to.is_none_or(|to| line.time < to)
    }
}

/// Whether a call is about a submission that has not passed.
pub(super) async fn is_sealed(reader: &mut Session, call: &logs::Logged) -> Result<bool, BotError> {
    let Some(submission) = &call.submission_id else { return Ok(false) };
    Ok(submissions::status(reader, submission).await? != Some(SubmissionStatus::Passed))
}

/// The lines of a call that are kept.
pub(crate) async fn kept_lines(
    reader: &mut Session,
    call: &InvocationId,
) -> Result<Vec<LogLineView>, BotError> {
    let lines = invocations::logs(reader, call).await?;
    Ok(lines.map(serde_json::from_value).transpose().map_err(Internal::from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_back() {
        let place = Place {
            started_at: Timestamp::from_micros(7),
            call: InvocationId::least_at(Timestamp::from_micros(7_000)),
            line: 3,
        };
        assert_eq!(Place::parse(&place.token()), Some(place.clone()));
        for bad in ["", "7", "x.y.z", &format!("{}.1", place.token()), "7.inv_1.3"] {
            assert_eq!(Place::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_filter_takes_what_matters_as_much_or_more() {
        let line = LogLineView {
            at_us: 0,
            stream: "stderr".to_owned(),
            level: "warn".to_owned(),
            message: "No such order".to_owned(),
            fields: [("id".to_owned(), "42".to_owned())].into(),
        };
        let admits = |filter: LogFilter| filter.admits(&line);
        assert!(admits(LogFilter::default()));
        for (level, expected) in [(Level::Info, true), (Level::Warn, true), (Level::Error, false)] {
            assert_eq!(admits(LogFilter { level: Some(level), ..LogFilter::default() }), expected);
        }
        for (stream, expected) in [(Stream::Stderr, true), (Stream::Stdout, false)] {
            assert_eq!(admits(LogFilter { stream: Some(stream), ..LogFilter::default() }), expected);
        }
        for (text, expected) in [("such", true), ("42", true), ("Such", false)] {
            assert_eq!(
                admits(LogFilter { contains: Some(text.to_owned()), ..LogFilter::default() }),
                expected
            );
        }
    }
}
