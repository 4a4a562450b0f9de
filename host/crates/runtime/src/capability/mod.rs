//! What a guest can ask of its host, one file for each interface of `wit/`.

pub(crate) mod clock;
pub(crate) mod config;
pub(crate) mod kv;
pub(crate) mod log;
