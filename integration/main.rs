//! The integration tests: the real binary against real parts.
