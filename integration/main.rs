//! The integration tests: the real binary against real parts.

mod exec;
mod support;
