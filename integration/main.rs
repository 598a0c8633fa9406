//! The integration tests: the real binary against real parts.

mod registry;
mod support;
