//! ringfence-sdk
