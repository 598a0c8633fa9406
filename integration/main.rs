//! The integration tests: the real binary against real parts.

mod export;
mod registry;
mod support;
