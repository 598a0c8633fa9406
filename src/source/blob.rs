//! One blob of an image into the store, without unpacking it: for a layer whose files are here and whose blob is not.
//!
//! In: a descriptor. Out: a verified blob in the store.

use std::io::Write as _;
use std::sync::Arc;

use futures_util::StreamExt as _;

use super::SourceError;
use super::select::{Contents, ResolvedImage};
use crate::image::Descriptor;
use crate::store::{Store, StoreError};

/// Fetches the blob of a layer of `image`, from the next host where one gave it wrongly.
pub(super) async fn fetch(
    contents: &dyn Contents,
    store: &Arc<Store>,
    image: &ResolvedImage,
    layer: &Descriptor,
) -> Result<(), SourceError> {
    loop {
        match once(contents, store, image, layer).await {
            Err(error) if error.is_spoiled() => {}
            result => return result,
        }
    }
}

async fn once(
    contents: &dyn Contents,
    store: &Arc<Store>,
    image: &ResolvedImage,
    layer: &Descriptor,
) -> Result<(), SourceError> {
    let failed = |source| SourceError::Store { digest: layer.digest.clone(), source };
    let mut chunks = contents.blob(&image.reference, layer).await?;
    let mut writer = store.writer().map_err(failed)?;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        // The thread is one for waiting; a chunk is small, and this is rare.
        writer.write_all(&chunk).map_err(|source| failed(StoreError::Write { source }))?;
    }
    writer.commit(Some((&layer.digest, layer.size))).map_err(failed).map(drop)
}
