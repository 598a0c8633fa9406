//! Where content comes from: images, the build context, web servers, git repositories.
//!
//! ```text
//! reference ─▶ image (registry) ──┐
//! reference ─▶ oci_layout (disk) ─┴▶ select: index → manifest → config, checked ─▶ layers: stream → hash → store
//!                                                                                            └▶ decompress → snapshot
//! ```
//!
//! [`http`] and [`git`] fetch what a URL names into one new layer.
//!
//! In: references and platforms. Out: [`ResolvedImage`]s, and their layers as snapshot chains. Invariant: nothing of an image
//! is adopted before its blob's digest and size, and its layer's diff id, are verified.

mod blob;
mod error;
pub mod git;
pub mod http;
pub mod image;
mod layers;
pub mod local;
pub mod oci_layout;
mod select;

pub use error::SourceError;
pub use image::ImageSource;
pub use layers::{Layer, LayerBlobs, Reporter, pull_layers};
pub use oci_layout::OciLayout;
pub use select::ResolvedImage;

/// Where sources find the secrets they may send.
pub trait SecretLookup: Send + Sync {
    /// Returns the secret of an id.
    fn secret(&self, id: &str) -> Option<&crate::secrets::Secret>;
}
