//! The LLB ops as the solver's ops.
