//! ringfence-runtime
