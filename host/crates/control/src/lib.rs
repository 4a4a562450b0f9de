//! ringfence-control
