//! ringfence-macros
