//! What the tests share: projects to build, users to build as, trees to run in, servers to talk to.

pub(crate) mod build;
pub(crate) mod canary;
pub(crate) mod debian;
pub(crate) mod engine;
pub(crate) mod fake_registry;
pub(crate) mod git;
pub(crate) mod image;
pub(crate) mod registry;
pub(crate) mod rootfs;
pub(crate) mod rootless;
pub(crate) mod runtime;
pub(crate) mod table;
pub(crate) mod tree;
