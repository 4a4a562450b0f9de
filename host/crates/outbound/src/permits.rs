//! How many requests there are at once, in all and of each org.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringfence_model::OrgId;

use crate::error::OutboundError;

/// Requests take seconds as a rule: when one was too many, there is room again after about that.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Nobody waits here: a request that is one too many is refused, and its caller knows best what to do then.
#[derive(Debug)]
pub(crate) struct Permits {
    max: u32,
    max_per_org: u32,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    all: u32,
    /// Only orgs that hold one.
    by_org: HashMap<OrgId, u32>,
}

/// The right to one request, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    permits: Arc<Permits>,
    org: OrgId,
}

impl Permits {
    pub(crate) fn new(max: u32, max_per_org: u32) -> Self {
        Self { max, max_per_org, held: Mutex::default() }
    }

    pub(crate) fn take(self: &Arc<Self>, org: &OrgId) -> Result<Permit, OutboundError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let of_org = held.by_org.get(org).copied().unwrap_or(0);
        if of_org >= self.max_per_org || held.all >= self.max {
            let of_org = of_org >= self.max_per_org;
            return Err(OutboundError::TooMany { of_org, retry_after: RETRY_AFTER });
        }
        held.all += 1;
        held.by_org.insert(org.clone(), of_org + 1);
        Ok(Permit { permits: Arc::clone(self), org: org.clone() })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut held = self.permits.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.all = held.all.saturating_sub(1);
        if let Some(of_org) = held.by_org.get_mut(&self.org) {
            *of_org = of_org.saturating_sub(1);
            if *of_org == 0 {
                held.by_org.remove(&self.org);
            }
        }
    }
}
