//! The integration tests: the real binary against real parts. How to run them stands in the README.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop with the place")]

mod compare;
mod debian;
mod errors;
mod exec;
mod export;
mod faults;
mod features;
mod fuzz_smoke;
mod layers;
mod ops;
mod registry;
mod security;
mod support;
