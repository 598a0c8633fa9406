//! What the tests share.

pub(crate) mod rootfs;
pub(crate) mod rootless;
