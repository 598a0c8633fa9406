//! Images from registries.
//!
//! In: references. Out: [`ResolvedImage`]s, snapshot chains. On disk: manifests, configurations and layer blobs in the
//! store, so that what is known by digest is not asked for again.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};

use super::layers::{self, Reporter};
use super::select::{self, Contents, ResolvedImage};
use super::{SourceError, blob};
use crate::digest::Digest;
use crate::image::{Descriptor, Platform, Reference};
use crate::registry::{Client, MANIFEST_LIMIT, RegistryError, document};
use crate::snapshot::{Chain, Snapshots};
use crate::store::{Store, StoreError};

/// Resolves and pulls images of registries.
#[derive(Debug, Clone)]
pub struct ImageSource {
    client: Arc<Client>,
    store: Arc<Store>,
    snapshots: Arc<Snapshots>,
}

impl ImageSource {
    /// Puts a source together.
    pub fn new(client: Arc<Client>, store: Arc<Store>, snapshots: Arc<Snapshots>) -> Self {
        Self { client, store, snapshots }
    }

    /// Finds the image of a reference for a platform.
    pub async fn resolve(&self, reference: &Reference, platform: &Platform) -> Result<ResolvedImage, SourceError> {
        let reference = reference.clone().with_default_tag();
        let remote = Remote { client: &self.client, store: &self.store };
        select::resolve(&remote, &reference, platform).await
    }

    /// Makes the layers of an image available as snapshots; those that are there already are not fetched.
    pub async fn pull(&self, image: &ResolvedImage, reporter: &Reporter) -> Result<Chain, SourceError> {
        let remote = Remote { client: &self.client, store: &self.store };
        layers::pull(&remote, &self.store, &self.snapshots, image, reporter).await
    }

    /// Brings the blob of one layer of an image into the store.
    pub async fn fetch(&self, image: &ResolvedImage, layer: &Descriptor) -> Result<(), SourceError> {
        blob::fetch(&Remote { client: &self.client, store: &self.store }, &self.store, image, layer).await
    }
}

struct Remote<'a> {
    client: &'a Arc<Client>,
    store: &'a Arc<Store>,
}

impl Contents for Remote<'_> {
    fn root<'a>(&'a self, reference: &'a Reference) -> BoxFuture<'a, Result<(Descriptor, Bytes), SourceError>> {
        Box::pin(async move {
            if let Some(digest) = &reference.digest
                && let Some(bytes) = stored(self.store, digest, MANIFEST_LIMIT)
                && let Ok((media_type, _)) = document::parse(&bytes, None)
            {
                return Ok((Descriptor::of(media_type, &bytes), bytes));
            }
            let (descriptor, bytes) = self.client.manifest(reference).await?;
            keep(self.store, &descriptor.digest, &bytes)?;
            Ok((descriptor, bytes))
        })
    }

    fn document<'a>(
        &'a self,
        reference: &'a Reference,
        descriptor: &'a Descriptor,
        limit: u64,
    ) -> BoxFuture<'a, Result<Bytes, SourceError>> {
        Box::pin(async move {
            if let Some(bytes) = stored(self.store, &descriptor.digest, limit) {
                return Ok(bytes);
            }
            let bytes = fetch(self.client, reference, descriptor, limit).await?;
            keep(self.store, &descriptor.digest, &bytes)?;
            Ok(bytes)
        })
    }

    fn blob<'a>(
        &'a self,
        reference: &'a Reference,
        descriptor: &'a Descriptor,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<Bytes, SourceError>>, SourceError>> {
        Box::pin(async move {
            let blob = self.client.blob(reference, descriptor).await?;
            let stream = stream::try_unfold(blob, |mut blob| async move {
                let chunk = blob.chunk().await?;
                Ok(chunk.map(|chunk| (chunk, blob)))
            });
            Ok(stream.boxed())
        })
    }

    fn at_once(&self) -> usize {
        self.client.blobs_at_once()
    }

    fn has_others(&self, reference: &Reference) -> bool {
        self.client.has_mirrors(&reference.registry)
    }
}

/// Manifests are asked for as manifests: registries keep them apart from blobs.
async fn fetch(
    client: &Arc<Client>,
    reference: &Reference,
    descriptor: &Descriptor,
    limit: u64,
) -> Result<Bytes, SourceError> {
    use crate::image::media;
    if !media::is_manifest(&descriptor.media_type) && !media::is_index(&descriptor.media_type) {
        return Ok(client.small_blob(reference, descriptor, limit).await?);
    }
    if descriptor.size > limit {
        return Err(RegistryError::TooLarge { what: descriptor.digest.to_string(), limit }.into());
    }
    let (_, bytes) = client.manifest(&reference.clone().with_digest(descriptor.digest.clone())).await?;
    let actual = bytes.len() as u64;
    if actual != descriptor.size {
        let (digest, expected) = (descriptor.digest.clone(), descriptor.size);
        return Err(RegistryError::Size { digest, expected, actual }.into());
    }
    Ok(bytes)
}

/// Reads a document of the store; one that is damaged counts as absent.
fn stored(store: &Store, digest: &Digest, limit: u64) -> Option<Bytes> {
    let (file, size) = store.blob(digest).ok()??;
    if size > limit {
        return None;
    }
    let mut content = Vec::new();
    file.take(limit).read_to_end(&mut content).ok()?;
    (Digest::compute(&content) == *digest).then(|| content.into())
}

fn keep(store: &Store, digest: &Digest, bytes: &Bytes) -> Result<(), SourceError> {
    let failed = |source| SourceError::Store { digest: digest.clone(), source };
    let mut writer = store.writer().map_err(failed)?;
    writer.write_all(bytes).map_err(|source| failed(StoreError::Write { source }))?;
    writer.commit(Some((digest, bytes.len() as u64))).map_err(failed).map(drop)
}
