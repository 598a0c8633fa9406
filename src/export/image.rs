//! The documents of an image: configurations, manifests, and an index where there are several platforms.
//!
//! In: [`ImageResult`]s. Out: an [`Image`]: every document with its digest, and the layers they need. Nothing is read or
//! written. Invariant: documents are listed so that each comes after all it points to.

use std::collections::BTreeMap;

use serde::Serialize;

use super::annotations::{self, Annotation, Target};
use super::{ExportError, ExportLayer, ImageResult, complete};
use crate::digest::Digest;
use crate::image::media::{self, Compression};
use crate::image::{Descriptor, Index, Manifest, Platform};

/// Which family of media types documents and layers get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaTypes {
    /// Those of the OCI.
    Oci,
    /// Docker's older ones.
    Docker,
}

/// Where the epoch of an export comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EpochChoice {
    /// From the build.
    #[default]
    Build,
    /// There is none, even if the build had one.
    None,
    /// This one, in seconds.
    At(i64),
}

impl EpochChoice {
    /// Returns the epoch that holds, given the build's.
    pub fn resolve(self, build: Option<i64>) -> Option<i64> {
        match self {
            Self::Build => build,
            Self::None => None,
            Self::At(seconds) => Some(seconds),
        }
    }
}

/// How layers are to be compressed; for whoever packs them before the export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompressionChoice {
    /// The wanted compression of new layers; the default if none.
    pub kind: Option<Compression>,
    /// Its level.
    pub level: Option<i32>,
    /// Whether layers of base images are converted too.
    pub force: bool,
}

/// Settings common to all exports of images.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageOptions {
    /// Media types; the exporter's default if none.
    pub media_types: Option<MediaTypes>,
    /// Compression of the layers.
    pub compression: CompressionChoice,
    /// Annotations.
    pub annotations: Vec<Annotation>,
    /// The epoch.
    pub epoch: EpochChoice,
}

/// A manifest, index or configuration, ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// What points to it.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// An image of one platform inside an [`Image`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformImage {
    /// The platform.
    pub platform: Platform,
    /// Its configuration.
    pub config: Document,
    /// Its manifest; the descriptor carries platform and annotations only inside an index.
    pub manifest: Document,
    /// Its layers, bottom first, with their media types.
    pub layers: Vec<(Descriptor, ExportLayer)>,
}

/// A whole image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What names point to: the manifest, or the index.
    pub root: Document,
    /// The images of the platforms, in the order of the build.
    pub platforms: Vec<PlatformImage>,
    /// When it was made: the newest `created` of its configurations, RFC 3339.
    pub created: Option<String>,
}

impl Image {
    /// Returns all documents once, each after those it points to.
    pub fn documents(&self) -> Vec<&Document> {
        let mut seen = std::collections::BTreeSet::new();
        let inner = self.platforms.iter().flat_map(|platform| [&platform.config, &platform.manifest]);
        inner.chain(std::iter::once(&self.root)).filter(|d| seen.insert(&d.descriptor.digest)).collect()
    }

    /// Returns all layers once, in order of first use.
    pub fn layers(&self) -> Vec<&(Descriptor, ExportLayer)> {
        let mut seen = std::collections::BTreeSet::new();
        self.platforms.iter().flat_map(|platform| &platform.layers).filter(|l| seen.insert(&l.0.digest)).collect()
    }

    /// Returns the digest of the configuration, if the image is no index.
    pub fn config_digest(&self) -> Option<&Digest> {
        match &self.platforms[..] {
            [only] if only.manifest.descriptor.digest == self.root.descriptor.digest => {
                Some(&only.config.descriptor.digest)
            }
            _ => None,
        }
    }

    /// Returns the descriptor of the whole as archives, layouts and metadata files give it: with the time it was made.
    pub fn described(&self) -> Descriptor {
        let mut descriptor = self.root.descriptor.clone();
        if let Some(created) = &self.created {
            let key = "org.opencontainers.image.created".to_owned();
            descriptor.annotations.entry(key).or_insert_with(|| created.clone());
        }
        descriptor
    }
}

/// Whether an image of one platform gets an index too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A manifest.
    Single,
    /// An index of manifests.
    Multi,
}

/// Makes the documents of an image.
pub fn assemble(
    results: &[ImageResult],
    shape: Shape,
    default_types: MediaTypes,
    options: &ImageOptions,
) -> Result<Image, ExportError> {
    let types = options.media_types.unwrap_or(default_types);
    let platforms: Vec<Platform> = results.iter().map(|result| result.platform.clone()).collect();
    annotations::check(&options.annotations, &platforms, types == MediaTypes::Oci, shape == Shape::Multi)?;
    if shape == Shape::Single && results.len() != 1 {
        return Err(ExportError::options(format!("an image of {} platforms needs an index", results.len())));
    }
    let images: Vec<PlatformImage> =
        results.iter().map(|result| platform_image(result, types, options)).collect::<Result<_, _>>()?;
    let created = images.iter().filter_map(|image| created(&image.config.bytes)).max();
    let root = match (shape, &images[..]) {
        (Shape::Single, [only]) => only.manifest.clone(),
        _ => index(&images, types, &options.annotations),
    };
    Ok(Image { root, platforms: images, created })
}

fn created(config: &[u8]) -> Option<String> {
    let config: BTreeMap<String, serde_json::Value> = serde_json::from_slice(config).ok()?;
    config.get("created")?.as_str().map(str::to_owned)
}

fn platform_image(
    result: &ImageResult,
    types: MediaTypes,
    options: &ImageOptions,
) -> Result<PlatformImage, ExportError> {
    let (manifest_type, config_type) = match types {
        MediaTypes::Oci => (media::OCI_MANIFEST, media::OCI_CONFIG),
        MediaTypes::Docker => (media::DOCKER_MANIFEST, media::DOCKER_CONFIG),
    };
    let bytes = complete::complete(result, options.epoch.resolve(result.epoch))?;
    let config = Document { descriptor: Descriptor::of(config_type, &bytes), bytes };
    let layers: Vec<(Descriptor, ExportLayer)> = result
        .layers
        .iter()
        .map(|layer| {
            (Descriptor::new(layer_type(layer.compression, types), layer.digest.clone(), layer.size), layer.clone())
        })
        .collect();
    let platform = Some(&result.platform);
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(manifest_type.into()),
        config: config.descriptor.clone(),
        layers: layers.iter().map(|(descriptor, _)| descriptor.clone()).collect(),
        annotations: annotations::select(&options.annotations, Target::Manifest, platform),
    };
    let bytes = indented(&manifest);
    let mut descriptor = Descriptor::of(manifest_type, &bytes);
    descriptor.annotations = annotations::select(&options.annotations, Target::ManifestDescriptor, platform);
    descriptor.platform = Some(result.platform.clone());
    Ok(PlatformImage { platform: result.platform.clone(), config, manifest: Document { descriptor, bytes }, layers })
}

fn index(images: &[PlatformImage], types: MediaTypes, list: &[Annotation]) -> Document {
    let media_type = match types {
        MediaTypes::Oci => media::OCI_INDEX,
        MediaTypes::Docker => media::DOCKER_INDEX,
    };
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type.into()),
        manifests: images.iter().map(|image| image.manifest.descriptor.clone()).collect(),
        annotations: annotations::select(list, Target::Index, None),
    };
    let bytes = indented(&index);
    let mut descriptor = Descriptor::of(media_type, &bytes);
    descriptor.annotations = annotations::select(list, Target::IndexDescriptor, None);
    Document { descriptor, bytes }
}

fn layer_type(compression: Compression, types: MediaTypes) -> &'static str {
    match types {
        MediaTypes::Oci => compression.oci_layer(),
        MediaTypes::Docker => compression.docker_layer(),
    }
}

/// Manifests and indexes are indented by two blanks, as BuildKit writes them, so that their digests are the same.
fn indented<T: Serialize>(document: &T) -> Vec<u8> {
    let text = serde_json::to_string_pretty(document).expect("plain data with string keys");
    // Go escapes these wherever they stand, and they stand in strings only.
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026").into_bytes()
}
