//! The manifest of a cache: an image manifest, an OCI index or a Docker list, told apart by what is in them (cache
//! specification 3.6).
//!
//! In and out: layers and the config's descriptor. Invariants: written bytes are Go's; a layer whose tar has no known digest is
//! as good as absent, as nothing could verify it.

use std::collections::BTreeMap;

use super::RemoteCacheError;
use super::config;
use super::explained;
use super::read::RemoteLayer;
use crate::digest::{DiffId, Digest};
use crate::image::media::{self, Compression};
use crate::image::{Descriptor, Index, Manifest, canonical};
use crate::layer::Toc;
use crate::registry::{Document, document};

const UNCOMPRESSED: &str = "containerd.io/uncompressed";
const CREATED: &str = "buildkit/createdat";
const DESCRIPTION: &str = "buildkit/description";

/// How a cache is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// A manifest like that of an image, which every registry takes.
    #[default]
    Image,
    /// An OCI index of layers.
    Index,
    /// A Docker manifest list of layers.
    DockerList,
}

/// Returns the manifest and its media type.
pub fn encode(
    form: Form,
    layers: &[RemoteLayer],
    config: &Descriptor,
    annotations: BTreeMap<String, String>,
) -> (&'static str, Vec<u8>) {
    let descriptors = layers.iter().map(|layer| descriptor(form, layer));
    match form {
        Form::Image => {
            let manifest = Manifest {
                schema_version: 2,
                media_type: Some(media::OCI_MANIFEST.into()),
                config: config.clone(),
                layers: descriptors.collect(),
                annotations,
            };
            (media::OCI_MANIFEST, canonical::to_vec(&manifest))
        }
        Form::Index | Form::DockerList => {
            let media_type = if form == Form::Index { media::OCI_INDEX } else { media::DOCKER_INDEX };
            let index = Index {
                schema_version: 2,
                media_type: Some(media_type.into()),
                manifests: descriptors.chain([config.clone()]).collect(),
                // Docker's list has none.
                annotations: if form == Form::Index { annotations } else { BTreeMap::new() },
            };
            (media_type, canonical::to_vec(&index))
        }
    }
}

fn descriptor(form: Form, layer: &RemoteLayer) -> Descriptor {
    let toc = Toc::read(&layer.descriptor.annotations);
    let annotations = toc.iter().flat_map(Toc::annotations).collect();
    let mut descriptor = Descriptor { annotations, platform: None, ..layer.descriptor.clone() };
    if let Some(compression) = Compression::of_layer(&descriptor.media_type).filter(|_| form == Form::DockerList) {
        descriptor.media_type = compression.docker_layer().into();
    }
    descriptor.annotations.insert(UNCOMPRESSED.into(), layer.diff_id.0.to_string());
    if let Some(created) = &layer.created {
        descriptor.annotations.insert(CREATED.into(), created.clone());
    }
    descriptor
}

/// What a manifest says: that it is a cache's, with its config and layers, or that it is something else.
#[derive(Debug)]
pub enum Content {
    /// A cache.
    Cache {
        /// The config.
        config: Descriptor,
        /// Layers by digest.
        layers: BTreeMap<Digest, RemoteLayer>,
        /// What is said of the build it is of, unread.
        explained: Option<String>,
    },
    /// An image.
    Image(Manifest),
    /// An index of images.
    Images(Vec<Descriptor>),
}

/// Reads a manifest.
pub fn decode(bytes: &[u8], stated: Option<&str>) -> Result<Content, RemoteCacheError> {
    let parsed = document::parse(bytes, stated).map_err(|source| RemoteCacheError::Document { source })?;
    match parsed.1 {
        Document::Manifest(manifest) if manifest.config.media_type == config::MEDIA_TYPE => {
            let explained = manifest.annotations.get(explained::ANNOTATION).cloned();
            Ok(Content::Cache { layers: layers(&manifest.layers), config: manifest.config, explained })
        }
        Document::Manifest(manifest) => Ok(Content::Image(*manifest)),
        Document::Index(index) => {
            let found = index.manifests.iter().find(|entry| entry.media_type == config::MEDIA_TYPE).cloned();
            Ok(match found {
                Some(config) => {
                    let explained = index.annotations.get(explained::ANNOTATION).cloned();
                    Content::Cache { layers: layers(&index.manifests), config, explained }
                }
                None => Content::Images(index.manifests),
            })
        }
    }
}

fn layers(descriptors: &[Descriptor]) -> BTreeMap<Digest, RemoteLayer> {
    let known = descriptors.iter().filter_map(layer);
    known.map(|layer| (layer.descriptor.digest.clone(), layer)).collect()
}

fn layer(descriptor: &Descriptor) -> Option<RemoteLayer> {
    let compression = Compression::of_layer(&descriptor.media_type)?;
    let note = |key: &str| descriptor.annotations.get(key).cloned();
    let diff_id = match note(UNCOMPRESSED) {
        Some(text) => text.parse().ok()?,
        None if compression == Compression::Uncompressed => descriptor.digest.clone(),
        None => return None,
    };
    Some(RemoteLayer {
        descriptor: Descriptor {
            annotations: Toc::read(&descriptor.annotations).iter().flat_map(Toc::annotations).collect(),
            ..Descriptor::new(compression.oci_layer(), descriptor.digest.clone(), descriptor.size)
        },
        diff_id: DiffId(diff_id),
        created: note(CREATED).filter(|text| is_time(text)),
        description: note(DESCRIPTION).unwrap_or_default(),
    })
}

/// What goes into an image's history must be a time there.
pub(super) fn is_time(text: &str) -> bool {
    time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(kind: &str, content: &[u8]) -> RemoteLayer {
        RemoteLayer {
            descriptor: Descriptor::of(kind, content),
            diff_id: DiffId(Digest::compute(content)),
            created: Some("2026-01-02T03:04:05.6Z".into()),
            description: String::new(),
        }
    }

    #[test]
    fn all_forms_are_read_as_written() {
        let written = [sample(media::OCI_LAYER_GZIP, b"a"), sample(media::OCI_LAYER_ZSTD, b"b")];
        let own = Descriptor::of(config::MEDIA_TYPE, b"{}");
        for form in [Form::Image, Form::Index, Form::DockerList] {
            let said = BTreeMap::from([(explained::ANNOTATION.to_owned(), "said".to_owned())]);
            let (media_type, bytes) = encode(form, &written, &own, said);
            let read = decode(&bytes, Some(media_type));
            let Ok(Content::Cache { config, layers, explained }) = read else { panic!("{form:?}") };
            assert_eq!(config, own);
            assert_eq!(explained.is_some(), form != Form::DockerList);
            assert!(written.iter().all(|layer| layers.get(&layer.descriptor.digest) == Some(layer)), "{form:?}");
        }
    }

    #[test]
    fn layers_that_cannot_be_verified_are_none() {
        let mut gzip = Descriptor::of(media::OCI_LAYER_GZIP, b"a");
        assert_eq!(layer(&gzip), None);
        gzip.annotations.insert(UNCOMPRESSED.into(), "sha256:short".into());
        assert_eq!(layer(&gzip), None);
        assert!(layer(&Descriptor::of(media::OCI_LAYER, b"a")).is_some());
        assert_eq!(layer(&Descriptor::of("text/plain", b"a")), None);
    }
}
