//! The layers of the images that a build starts from, as their manifests name them.
//!
//! In: resolved images. Out: for a pulled layer, its blob, which is fetched again where it is gone or was found damaged.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::digest::ChainId;
use crate::image::media::Compression;
use crate::image::{Descriptor, Platform};
use crate::layer::BlobInfo;
use crate::source::{ImageSource, OciLayout, ResolvedImage, SourceError};
use crate::store::Store;

/// The layers by the stack they are on top of.
pub(super) struct Bases {
    images: ImageSource,
    layouts: Vec<Arc<OciLayout>>,
    store: Arc<Store>,
    layers: BTreeMap<ChainId, Vec<Base>>,
}

/// A layer as one image has it.
#[derive(Clone)]
pub(super) struct Base {
    /// Its blob.
    pub(super) blob: BlobInfo,
    descriptor: Descriptor,
    image: Arc<ResolvedImage>,
    from_layout: bool,
}

impl fmt::Debug for Bases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bases").field("layers", &self.layers.keys()).finish_non_exhaustive()
    }
}

impl Bases {
    /// Lists the layers of images by source identifier and platform.
    pub(super) fn new(
        resolved: &BTreeMap<(String, Platform), ResolvedImage>,
        layouts: &BTreeMap<String, Arc<OciLayout>>,
        images: ImageSource,
        store: Arc<Store>,
    ) -> Self {
        let mut layers: BTreeMap<ChainId, Vec<Base>> = BTreeMap::new();
        for ((name, _), image) in resolved {
            let image = Arc::new(image.clone());
            for (chain_id, base) in layers_of(&image, name.starts_with("oci-layout://")) {
                let known = layers.entry(chain_id).or_default();
                if known.iter().all(|other| other.blob.digest != base.blob.digest) {
                    known.push(base);
                }
            }
        }
        Self { images, layouts: layouts.values().cloned().collect(), store, layers }
    }

    /// Returns what images of this build have on top of that stack.
    pub(super) fn of(&self, chain_id: Option<&ChainId>) -> &[Base] {
        chain_id.and_then(|id| self.layers.get(id)).map_or(&[], Vec::as_slice)
    }

    /// Brings a blob into the store, from where its image is.
    pub(super) async fn fetch(&self, base: &Base) -> Result<(), SourceError> {
        if !base.from_layout {
            return self.images.fetch(&base.image, &base.descriptor).await;
        }
        let mut failure = None;
        for layout in &self.layouts {
            match layout.fetch(&self.store, &base.image, &base.descriptor).await {
                Ok(()) => return Ok(()),
                Err(error) => failure = Some(error),
            }
        }
        // An image of a layout was resolved in one of them.
        failure.map_or(Ok(()), Err)
    }
}

fn layers_of(image: &Arc<ResolvedImage>, from_layout: bool) -> Vec<(ChainId, Base)> {
    let diff_ids = image.config.rootfs.diff_ids.iter();
    let layers = image.chain_ids().into_iter().zip(image.manifest.layers.iter().zip(diff_ids));
    let base = |(chain_id, (descriptor, diff_id)): (ChainId, (&Descriptor, _))| {
        let compression = Compression::of_layer(&descriptor.media_type).unwrap_or_default();
        let (digest, size) = (descriptor.digest.clone(), descriptor.size);
        let blob = BlobInfo { diff_id: crate::digest::DiffId::clone(diff_id), digest, size, compression, toc: None };
        (chain_id, Base { blob, descriptor: descriptor.clone(), image: Arc::clone(image), from_layout })
    };
    layers.map(base).collect()
}
