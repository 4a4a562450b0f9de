//! The digest that names a component.

pub(crate) use ringfence_model::hex;
pub use ringfence_model::{InvalidDigest, Sha256 as Digest};
