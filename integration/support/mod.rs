//! What the tests share: projects to build, users to build as, trees to run in, servers to talk to.

pub(crate) mod build;
pub(crate) mod canary;
pub(crate) mod debian;
pub(crate) mod emulation;
pub(crate) mod engine;
pub(crate) mod fake_registry;
pub(crate) mod fault_proxy;
pub(crate) mod gate;
pub(crate) mod git;
pub(crate) mod image;
pub(crate) mod lab;
pub(crate) mod nginx;
pub(crate) mod pki;
pub(crate) mod registry;
pub(crate) mod rootfs;
pub(crate) mod rootless;
pub(crate) mod runtime;
pub(crate) mod script;
pub(crate) mod table;
pub(crate) mod terminal;
pub(crate) mod tls_server;
pub(crate) mod token_server;
pub(crate) mod tree;
