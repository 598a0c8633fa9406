//! Where caches lie, to whoever reads them.

use std::fmt::Debug;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use super::RemoteCacheError;
use crate::image::{Descriptor, Reference};
use crate::registry::BLOB_CONNECTIONS;

/// The bytes of a blob; an end without an error means that all came and was verified.
pub type Chunks = BoxStream<'static, Result<Bytes, RemoteCacheError>>;

/// A directory or a repository that holds a cache.
pub trait Place: Send + Sync + Debug {
    /// Returns a name for messages: as the user wrote it, without secrets.
    fn name(&self) -> &str;

    /// Returns the manifest or index of the cache, verified.
    fn root(&self) -> BoxFuture<'_, Result<(Descriptor, Bytes), RemoteCacheError>>;

    /// Returns a document of at most `limit` bytes, verified.
    fn document<'a>(&'a self, descriptor: &'a Descriptor, limit: u64)
    -> BoxFuture<'a, Result<Bytes, RemoteCacheError>>;

    /// Opens a blob.
    fn blob<'a>(&'a self, descriptor: &'a Descriptor) -> BoxFuture<'a, Result<Chunks, RemoteCacheError>>;

    /// Returns how many blobs may be read at once.
    fn at_once(&self) -> usize {
        BLOB_CONNECTIONS
    }

    /// Returns the repository that blobs can be mounted from, if it is one.
    fn repository(&self) -> Option<&Reference> {
        None
    }
}
