//! ringfence-model
