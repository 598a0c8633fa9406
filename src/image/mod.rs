//! The vocabulary of images: configuration, manifests, platforms, references, and the one JSON encoder for all of them.
//!
//! In: bytes from registries, layouts and archives. Out: typed values, and bytes again through [`canonical`].
//! Invariant: the same value always gives the same bytes; maps are ordered, nothing depends on a clock or a thread.

pub mod canonical;
pub mod config;
pub mod layout;
pub mod manifest;
pub mod media;
pub mod platform;
pub mod reference;

pub use config::{ContainerConfig, Healthcheck, History, ImageConfig, RootFs};
pub use manifest::{Descriptor, Index, Manifest};
pub use platform::Platform;
pub use reference::Reference;
