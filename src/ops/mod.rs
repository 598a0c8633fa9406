//! The LLB ops as the solver's ops.

pub mod keys;
