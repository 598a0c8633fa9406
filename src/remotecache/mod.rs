//! Caches outside the state directory: read from where they lie, and written in BuildKit's format.
//!
//! ```text
//! --cache-from text ─▶ spec ─▶ Place (local, repository) ─▶ manifest ─▶ config ─▶ read::Imported ─▶ solver's stores (ops)
//! solver's records with layers (+ merge: what another writer left) ─▶ write::Written ─▶ manifest::encode ─▶ directory or repository (driver, export)
//!                                              └──▶ inline::encode ─▶ an image's configuration
//! ```
//!
//! In: foreign bytes; records and layers of a solve. Out: graphs the solver can ask; documents with BuildKit's bytes.
//! Invariants: what is read may be anything and is at worst an error, which callers take for a miss; equal records and layers
//! give equal bytes; layers themselves are not looked at here: they are verified by who unpacks or sends them.
//!
//! What a local cache leaves on disk is an OCI layout: `oci-layout`, `index.json` (an entry per tag), `blobs/sha256/…`; it is
//! written like that of an image.

pub mod config;
mod error;
pub mod explained;
mod import;
pub mod inline;
pub mod local;
pub mod manifest;
pub mod merge;
pub mod patient;
pub mod place;
pub mod read;
pub mod repository;
pub mod spec;
pub mod write;

#[cfg(test)]
mod round_trip;
#[cfg(test)]
mod tests;

pub use error::RemoteCacheError;
pub use import::import;
pub use place::Place;
pub use read::{Imported, RemoteLayer};
pub use spec::{ExportTarget, ImportSpec, Mode};
