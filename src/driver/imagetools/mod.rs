//! Images that are in registries and OCI layouts already: put together to new ones, and looked at; what `docker buildx imagetools`
//! does.
//!
//! In: names, digests, descriptors. Out: an index under new names, with all it needs beside it; or what a name leads to.
//! Nothing is kept on this machine but what goes to a directory that is named.

pub mod attestations;
mod copy;
pub mod create;
pub mod inspect;
pub mod location;
mod shelf;

use crate::export::merge::Entry;
use crate::registry::Document;

pub use create::{CreateRequest, Created, Source, create};
pub use inspect::{Inspected, inspect};
pub use location::Location;

/// A manifest or index with its bytes.
#[derive(Debug, Clone)]
struct Fetched {
    entry: Entry,
    bytes: Vec<u8>,
    document: Document,
}
