use crate::{InvalidTransition, words};

words! {
    /// The state of a job. Drawn in `docs/state-machines.md`.
    JobStatus ("job status") {
        /// Posted, not paid for yet.
        Open = "open",
        /// Its price lies in escrow; workers may claim and submit.
        Funded = "funded",
        /// A submission passed; the escrow goes to its worker and the platform.
        Resolved = "resolved",
        /// Its time ran out; the escrow went back to the buyer.
        Expired = "expired",
        /// The buyer called it off; the escrow, if any, went back.
        Cancelled = "cancelled",
    }
}

words! {
    /// What can happen to a job.
    JobEvent ("job event") {
        /// The price is moved into escrow.
        Fund = "fund",
        /// A submission passes.
        Resolve = "resolve",
        /// The deadline passes.
        Expire = "expire",
        /// The buyer cancels.
        Cancel = "cancel",
    }
}

impl JobStatus {
    /// The state after `event`.
    ///
    /// # Errors
    /// [`InvalidTransition`] if the event cannot happen in this state.
    pub fn transition(self, event: JobEvent) -> Result<Self, InvalidTransition> {
        match (self, event) {
            (Self::Open, JobEvent::Fund) => Ok(Self::Funded),
            (Self::Open | Self::Funded, JobEvent::Cancel) => Ok(Self::Cancelled),
            (Self::Open | Self::Funded, JobEvent::Expire) => Ok(Self::Expired),
            (Self::Funded, JobEvent::Resolve) => Ok(Self::Resolved),
            _ => Err(InvalidTransition { from: self.as_str(), event: event.as_str() }),
        }
    }

    /// Whether nothing can happen to the job any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        JobEvent::ALL.iter().all(|event| self.transition(*event).is_err())
    }
}

words! {
    /// The state of a submission. Drawn in `docs/state-machines.md`.
    SubmissionStatus ("submission status") {
        /// Waiting for, or in front of, the oracle.
        Judging = "judging",
        /// The oracle accepted it, and it was the first.
        Passed = "passed",
        /// The oracle did not accept it, or could not judge it.
        Failed = "failed",
        /// The job ended before it was judged.
        Closed = "closed",
    }
}

words! {
    /// What can happen to a submission.
    SubmissionEvent ("submission event") {
        /// The oracle accepts it.
        Pass = "pass",
        /// The oracle refuses it, or cannot judge it.
        Fail = "fail",
        /// The job ends first.
        Close = "close",
    }
}

impl SubmissionStatus {
    /// The state after `event`.
    ///
    /// # Errors
    /// [`InvalidTransition`] once the submission was judged or closed.
    pub fn transition(self, event: SubmissionEvent) -> Result<Self, InvalidTransition> {
        match (self, event) {
            (Self::Judging, SubmissionEvent::Pass) => Ok(Self::Passed),
            (Self::Judging, SubmissionEvent::Fail) => Ok(Self::Failed),
            (Self::Judging, SubmissionEvent::Close) => Ok(Self::Closed),
            _ => Err(InvalidTransition { from: self.as_str(), event: event.as_str() }),
        }
    }
}

words! {
    /// How a job's escrow stands, once the job was funded.
    EscrowStatus ("escrow status") {
        /// It waits for a verdict, the expiry or the buyer; or, once the job is resolved, for a payout that has failed.
        Held = "held",
        /// Nothing moves it until a person has decided: its oracle keeps failing to judge, or a party disagrees.
        Disputed = "disputed",
        /// It went to the worker and the platform.
        Released = "released",
        /// It went back to the buyer.
        Refunded = "refunded",
    }
}

words! {
    /// Who may see a job.
    Visibility ("visibility") {
        /// Everyone on the market.
        Public = "public",
        /// The buyer's org, and the agents that it invites.
        Private = "private",
    }
}

words! {
    /// What became of a resolved job's payout.
    PayoutStatus ("payout status") {
        /// To be paid.
        Pending = "pending",
        /// Booked.
        Success = "success",
        /// Tried, and not paid.
        Failed = "failed",
        /// Not to be paid: settled on a chain, and the worker has no wallet.
        Skipped = "skipped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_ends_once() {
        for status in [JobStatus::Resolved, JobStatus::Expired, JobStatus::Cancelled] {
            assert!(status.is_final(), "{status}");
        }
        assert!(!JobStatus::Open.is_final() && !JobStatus::Funded.is_final());
    }

    #[test]
    fn only_a_funded_job_pays() {
        for status in JobStatus::ALL {
            assert_eq!(
                status.transition(JobEvent::Resolve).is_ok(),
                *status == JobStatus::Funded,
                "{status}"
            );
        }
    }

    #[test]
    fn a_verdict_is_given_once() {
        for status in SubmissionStatus::ALL {
            for event in SubmissionEvent::ALL {
                assert_eq!(
                    status.transition(*event).is_ok(),
                    *status == SubmissionStatus::Judging,
                    "{status} {event}"
                );
            }
        }
    }

    #[test]
    fn words_read_back() {
        for status in JobStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(*status));
        }
        let error = "done".parse::<JobStatus>().unwrap_err();
        assert!(error.to_string().contains("open, funded, resolved, expired, cancelled"), "{error}");
    }
}
