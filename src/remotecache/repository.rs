//! A cache in a registry: `type=registry,ref=…`.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream;

use super::RemoteCacheError;
use super::place::{Chunks, Place};
use crate::image::{Descriptor, Reference, media};
use crate::registry::{Client, RegistryError};

/// A cache in a registry.
#[derive(Debug)]
pub struct RepositoryPlace {
    client: Arc<Client>,
    reference: Reference,
    name: String,
}

impl RepositoryPlace {
    /// Names the cache of a reference.
    pub fn new(client: Arc<Client>, reference: &Reference) -> Self {
        let reference = reference.clone().with_default_tag();
        Self { client, name: reference.to_string(), reference }
    }
}

impl Place for RepositoryPlace {
    fn name(&self) -> &str {
        &self.name
    }

    fn root(&self) -> BoxFuture<'_, Result<(Descriptor, Bytes), RemoteCacheError>> {
        Box::pin(async { Ok(self.client.manifest(&self.reference).await?) })
    }

    fn document<'a>(
        &'a self,
        descriptor: &'a Descriptor,
        limit: u64,
    ) -> BoxFuture<'a, Result<Bytes, RemoteCacheError>> {
        Box::pin(async move {
            if !media::is_manifest(&descriptor.media_type) && !media::is_index(&descriptor.media_type) {
                return Ok(self.client.small_blob(&self.reference, descriptor, limit).await?);
            }
            if descriptor.size > limit {
                return Err(RegistryError::TooLarge { what: descriptor.digest.to_string(), limit }.into());
            }
            let (_, bytes) =
                self.client.manifest(&self.reference.clone().with_digest(descriptor.digest.clone())).await?;
            Ok(bytes)
        })
    }

    fn blob<'a>(&'a self, descriptor: &'a Descriptor) -> BoxFuture<'a, Result<Chunks, RemoteCacheError>> {
        Box::pin(async move {
            let blob = self.client.blob(&self.reference, descriptor).await?;
            let chunks = stream::try_unfold(blob, |mut blob| async move {
                let chunk = blob.chunk().await?;
                Ok(chunk.map(|chunk| (chunk, blob)))
            });
            Ok(chunks.boxed())
        })
    }

    fn at_once(&self) -> usize {
        self.client.blobs_at_once()
    }

    fn repository(&self) -> Option<&Reference> {
        Some(&self.reference)
    }
}
