use std::fmt::Debug;

use crate::{Step, Verdict};

/// Makes a verdict from named checks.
///
/// Each check is a step of the verdict, in the order in which it ran. The score is the share of the
/// weights that passed, rounded down; the submission passes when all checks do, or when the score
/// reaches [`Checks::pass_at`] and every [`Checks::require`]d check passed. The reason is the first check
/// that failed.
#[derive(Debug, Default)]
pub struct Checks {
    steps: Vec<Step>,
    weight_total: u64,
    weight_passed: u64,
    pass_at: Option<u8>,
    required_failed: bool,
}

impl Checks {
    /// No checks yet, and all of them have to pass.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets a submission pass with a score of `score` or more, though some checks failed.
    pub fn pass_at(&mut self, score: u8) -> &mut Self {
        self.pass_at = Some(score.min(100));
        self
    }

    /// A check of weight 1: `Ok` says what was found, `Err` what was expected and what was found.
    /// Returns whether it passed, so that a later check can be left out.
    pub fn check(
        &mut self,
        name: impl Into<String>,
        outcome: Result<impl Into<String>, impl Into<String>>,
    ) -> bool {
        self.weighted(1, name, outcome)
    }

    /// A check that counts `weight` times as much as one of weight 1.
    pub fn weighted(
        &mut self,
        weight: u32,
        name: impl Into<String>,
        outcome: Result<impl Into<String>, impl Into<String>>,
    ) -> bool {
        let passed = outcome.is_ok();
        let detail = match outcome {
            Ok(detail) => detail.into(),
            Err(detail) => detail.into(),
        };
        self.weight_total += u64::from(weight);
        self.weight_passed += if passed { u64::from(weight) } else { 0 };
        self.steps.push(Step { name: name.into(), passed, detail });
        passed
    }

    /// A check without which nothing passes, whatever [`Checks::pass_at`] says.
    pub fn require(
        &mut self,
        name: impl Into<String>,
        outcome: Result<impl Into<String>, impl Into<String>>,
    ) -> bool {
        let passed = self.weighted(1, name, outcome);
        self.required_failed |= !passed;
        passed
    }

    /// A check of weight 1 that two values are equal.
    pub fn equal<T: PartialEq + Debug>(&mut self, name: impl Into<String>, expected: &T, found: &T) -> bool {
        let outcome = if expected == found {
            Ok(format!("found {found:?}"))
        } else {
            Err(format!("expected {expected:?}, found {found:?}"))
        };
        self.check(name, outcome)
    }

    /// The verdict on what was checked. Without any check, nothing was shown to be right: it fails.
    pub fn verdict(self) -> Verdict {
        let share = (self.weight_passed * 100).checked_div(self.weight_total).unwrap_or(0);
        let score = u8::try_from(share).unwrap_or(100);
        let failed = self.steps.iter().filter(|step| !step.passed).count();
        let passed = !self.steps.is_empty()
            && !self.required_failed
            && (failed == 0 || self.pass_at.is_some_and(|pass_at| score >= pass_at));
        let total = self.steps.len();
        let reason = match self.steps.iter().find(|step| !step.passed) {
            None if total == 0 => "nothing was checked".to_owned(),
            None => format!("all {total} checks passed"),
            Some(step) => format!("{}: {} ({failed} of {total} checks failed)", step.name, step.detail),
        };
        Verdict { score, passed, reason, steps: self.steps }
    }
}
