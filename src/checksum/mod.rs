//! Content digests of paths in a tree, BuildKit's, byte for byte: the part of a cache key that says what files hold.
//!
//! In: a directory, what of it counts, and selectors. Out: one digest over all selectors. The digest of a file covers its
//! header (mode, owner, size, type, link, attributes; never times) and its bytes; the digest of a directory covers its
//! header and, by name, the digests of what is in it. Links are followed inside the tree only, never by the kernel.
//!
//! A [`Tree`] reads a directory at most once and hashes a file at most once, on all cores. It remembers the metadata each
//! file had while its bytes were read, so that a copy can tell that it copies what was hashed. Of a file that
//! grows, such as the log of this very build in its context, the bytes that were there when it was looked at are hashed and copied.

mod error;
mod glob;
mod header;
mod index;
#[cfg(test)]
mod model;
mod parallel;
mod scan;
mod select;
#[cfg(test)]
mod tests;
mod tree;

pub use error::ChecksumError;
pub use parallel::spread;
pub use select::{Selector, content_digest, dedupe, files_of, scratch_digest};
pub use tree::{Entry, Ids, SharedIndex, Tree};

/// What of a context counts: its ignore rules.
pub type Filter = crate::pattern::Matcher;
