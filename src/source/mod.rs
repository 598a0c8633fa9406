//! Where content comes from: images, the build context.

pub mod local;
