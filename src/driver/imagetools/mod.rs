//! Images that are in registries already: put together to new ones, and looked at; what `docker buildx imagetools` does.
//!
//! In: names, digests, descriptors. Out: an index under new names, with all it needs beside it; or what a name leads to.
//! Nothing is kept on this machine.

mod copy;
pub mod create;
pub mod inspect;

use std::sync::Arc;

use crate::diag::{Diagnostic, Kind};
use crate::export::merge::Entry;
use crate::image::Reference;
use crate::registry::{Client, Document, document};

pub use create::{CreateRequest, Created, Source, create};
pub use inspect::{Inspected, inspect};

/// A manifest or index with its bytes.
#[derive(Debug, Clone)]
struct Fetched {
    entry: Entry,
    bytes: Vec<u8>,
    document: Document,
}

/// Gets what a name leads to.
async fn fetch(client: &Arc<Client>, name: &Reference) -> Result<Fetched, Diagnostic> {
    let (descriptor, bytes) = client.manifest(name).await.map_err(|error| Diagnostic::from_error(&error))?;
    let parsed = document::parse(&bytes, Some(&descriptor.media_type));
    let (_, document) = parsed.map_err(|error| Diagnostic::new(Kind::Remote, format!("{name}: {error}")))?;
    Ok(Fetched { entry: descriptor.into(), bytes: bytes.to_vec(), document })
}
