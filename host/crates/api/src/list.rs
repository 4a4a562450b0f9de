use ringfence_control::{FieldError, Invalid};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::Problem;

/// Which part of a list.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Slice {
    /// How many at most, 1 to 200.
    #[serde(default = "fifty")]
    #[param(default = 50, minimum = 1, maximum = 200)]
    pub(crate) limit: u32,
    /// How many to leave out before.
    #[serde(default)]
    #[param(default = 0)]
    pub(crate) offset: u32,
}

pub(crate) const fn fifty() -> u32 {
    50
}

impl Slice {
    pub(crate) fn checked(self) -> Result<Self, Problem> {
        checked_limit(self.limit)?;
        Ok(self)
    }
}

/// That a part of a list is asked for that a list gives.
pub(crate) fn checked_limit(limit: u32) -> Result<u32, Problem> {
    if (1..=200).contains(&limit) {
        Ok(limit)
    } else {
        let message = "must be 1 to 200".to_owned();
        Err(Invalid(vec![FieldError { field: "limit".to_owned(), message }]).into())
    }
}

/// Declares the answer of a listing: the part under its own name, and how long the whole is.
macro_rules! list_answer {
    ($(#[$doc:meta])* $name:ident { $items:ident: $item:ty }) => {
        $(#[$doc])*
        #[derive(Debug, serde::Serialize, utoipa::ToSchema)]
        pub(crate) struct $name {
            /// The part.
            $items: Vec<$item>,
            /// How many there are in all. Jobs, claims, submissions, ranked agents, transfers and calls are counted
            /// up to 1,000: that many stands for as many or more.
            total: u64,
            /// How many were asked for.
            limit: u32,
            /// How many were left out before.
            offset: u32,
        }

        impl $name {
            pub(crate) fn new(page: ringfence_control::Page<$item>, slice: crate::list::Slice) -> axum::Json<Self> {
                axum::Json(Self { $items: page.items, total: page.total, limit: slice.limit, offset: slice.offset })
            }
        }
    };
}
pub(crate) use list_answer;
