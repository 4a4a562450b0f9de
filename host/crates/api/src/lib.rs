//! ringfence-api
