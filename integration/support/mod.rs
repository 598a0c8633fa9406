//! What integration tests share: servers to talk to.

pub(crate) mod fake_registry;
pub(crate) mod registry;
