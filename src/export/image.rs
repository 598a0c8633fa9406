//! The documents of an image: configurations, manifests, and an index where there are several platforms.
//!
//! In: [`ImageResult`]s. Out: an [`Image`]: every document with its digest, and the layers they need. Nothing is read or
//! written. Invariant: documents are listed so that each comes after all it points to.

use std::collections::BTreeMap;

use super::annotations::{self, Annotation, Target};
use super::{ExportError, ExportLayer, ImageResult, complete};
use crate::digest::Digest;
use crate::image::media::{self, Compression};
use crate::image::{Descriptor, Index, Manifest, Platform, canonical};
use crate::layer::Toc;

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
            let key = crate::image::layout::CREATED.to_owned();
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
    // What is to be said of an eStargz layer is said in annotations, which only the OCI's documents have.
    let is_estargz = options.compression.kind == Some(Compression::Estargz);
    let types = options.media_types.unwrap_or(if is_estargz { MediaTypes::Oci } else { default_types });
    let platforms: Vec<Platform> = results.iter().map(|result| result.platform.clone()).collect();
    annotations::check(&options.annotations, &platforms, types == MediaTypes::Oci, shape == Shape::Multi)?;
    if shape == Shape::Single && results.len() != 1 {
        return Err(ExportError::options(format!("an image of {} platforms needs an index", results.len())));
    }
    let images: Vec<PlatformImage> =
        results.iter().map(|result| platform_image(result, types, options)).collect::<Result<_, _>>()?;
    let created = complete::latest(images.iter().filter_map(|image| created(&image.config.bytes)));
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
    let layers: Vec<(Descriptor, ExportLayer)> =
        result.layers.iter().map(|layer| (described(layer, types), layer.clone())).collect();
    let platform = Some(&result.platform);
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(manifest_type.into()),
        config: config.descriptor.clone(),
        layers: layers.iter().map(|(descriptor, _)| descriptor.clone()).collect(),
        annotations: annotations::select(&options.annotations, Target::Manifest, platform),
    };
    let bytes = canonical::to_indented(&manifest);
    let mut descriptor = Descriptor::of(manifest_type, &bytes);
    descriptor.annotations = annotations::select(&options.annotations, Target::ManifestDescriptor, platform);
    descriptor.platform = Some(result.platform.clone());
    Ok(PlatformImage { platform: result.platform.clone(), config, manifest: Document { descriptor, bytes }, layers })
}

fn described(layer: &ExportLayer, types: MediaTypes) -> Descriptor {
    let descriptor = Descriptor::new(layer_type(layer.compression, types), layer.digest.clone(), layer.size);
    // Docker's documents know no annotations.
    let toc = layer.toc.as_ref().filter(|_| types == MediaTypes::Oci);
    Descriptor { annotations: toc.into_iter().flat_map(Toc::annotations).collect(), ..descriptor }
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
    let bytes = canonical::to_indented(&index);
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::digest::DiffId;
    use crate::image::{History, ImageConfig};

    fn golden(case: &str, file: &str) -> Vec<u8> {
        let path = format!("{}/testdata/export/{case}/{file}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(&path).expect(&path)
    }

    /// Takes an image apart into what the frontend gave and what the layers tell: the first history entry is the base's.
    fn apart(case: &str) -> ImageResult {
        let mut config: ImageConfig = serde_json::from_slice(&golden(case, "config.json")).expect("config");
        let manifest: Manifest = serde_json::from_slice(&golden(case, "manifest.json")).expect("manifest");
        let whole: serde_json::Value = serde_json::from_slice(&golden(case, "config.json")).expect("config");
        let base_config = Some(ImageConfig { history: config.history[..1].to_vec(), ..ImageConfig::default() });
        let times: Vec<_> = config.history.iter().filter(|h| !h.empty_layer).map(|h| h.created.clone()).collect();
        let layers = manifest.layers.iter().zip(&config.rootfs.diff_ids).zip(times);
        let layers = layers.map(|((layer, diff_id), created)| ExportLayer {
            diff_id: diff_id.clone(),
            digest: layer.digest.clone(),
            size: layer.size,
            compression: Compression::of_layer(&layer.media_type).expect("layer"),
            created,
            description: String::new(),
            origins: Vec::new(),
            toc: None,
        });
        let layers = layers.collect();
        config.created = None;
        config.rootfs.diff_ids.truncate(1);
        config.history[1..].iter_mut().for_each(|entry| entry.created = None);
        let inline_cache = whole
            .get("moby.buildkit.cache.v0")
            .and_then(|v| v.as_str())
            .map(|text| base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).expect("base64"));
        let platform = Platform::new("linux", "amd64");
        ImageResult { platform, config, base_config, layers, epoch: None, inline_cache }
    }

    /// A small image for the tests of the exporters.
    pub(in crate::export) fn sample(content: &[u8]) -> ImageResult {
        let digest = Digest::compute(content);
        let mut config = ImageConfig { architecture: "amd64".into(), os: "linux".into(), ..ImageConfig::default() };
        config.history.push(History { created_by: "COPY <a> & b".into(), ..History::default() });
        let layer = ExportLayer {
            diff_id: DiffId(digest.clone()),
            digest,
            size: content.len() as u64,
            compression: Compression::Uncompressed,
            created: Some("2026-01-02T03:04:05.600Z".into()),
            description: "COPY".into(),
            origins: Vec::new(),
            toc: None,
        };
        let platform = Platform::new("linux", "amd64");
        ImageResult { platform, config, base_config: None, layers: vec![layer], epoch: None, inline_cache: None }
    }

    pub(in crate::export) fn single(content: &[u8]) -> Image {
        assemble(&[sample(content)], Shape::Single, MediaTypes::Oci, &ImageOptions::default()).expect("image")
    }

    #[test]
    fn config_and_manifest_are_buildkits_bytes() {
        let image = assemble(&[apart("inline-cache")], Shape::Single, MediaTypes::Oci, &ImageOptions::default());
        let image = image.expect("image");
        let config = String::from_utf8(image.platforms[0].config.bytes.clone()).expect("utf-8");
        assert_eq!(config, String::from_utf8(golden("inline-cache", "config.json")).expect("utf-8"));
        let manifest = String::from_utf8(image.root.bytes.clone()).expect("utf-8");
        assert_eq!(manifest, String::from_utf8(golden("inline-cache", "manifest.json")).expect("utf-8"));
    }

    #[test]
    fn metadata_entries_take_the_times_of_layers() {
        let image = assemble(&[apart("run-chain")], Shape::Single, MediaTypes::Oci, &ImageOptions::default());
        let image = image.expect("image");
        let config: serde_json::Value = serde_json::from_slice(&image.platforms[0].config.bytes).expect("json");
        let expected: serde_json::Value = serde_json::from_slice(&golden("run-chain", "config.json")).expect("json");
        assert_eq!(config, expected);
        let manifest: Manifest = serde_json::from_slice(&golden("run-chain", "manifest.json")).expect("manifest");
        assert_eq!(manifest.config.digest, image.platforms[0].config.descriptor.digest);
    }

    fn config(result: &ImageResult, options: &ImageOptions) -> ImageConfig {
        let image = assemble(std::slice::from_ref(result), Shape::Single, MediaTypes::Oci, options).expect("image");
        serde_json::from_slice(&image.platforms[0].config.bytes).expect("config")
    }

    #[test]
    fn an_epoch_clamps_all_but_the_base_image() {
        let mut result = apart("run-chain");
        let epoch = 1_500_000_000;
        result.epoch = Some(epoch);
        let clamped = config(&result, &ImageOptions::default());
        assert_eq!(clamped.history[0].created.as_deref(), Some("2024-01-01T00:00:00Z"));
        assert!(clamped.history[1..].iter().all(|h| h.created.as_deref() == Some("2017-07-14T02:40:00Z")));
        assert_eq!(clamped.created.as_deref(), Some("2017-07-14T02:40:00Z"));
        let none = ImageOptions { epoch: EpochChoice::None, ..ImageOptions::default() };
        assert_eq!(config(&result, &none).created.as_deref(), Some("2026-11-20T13:58:05.743164736Z"));
        result.base_config = None;
        let all = config(&result, &ImageOptions::default());
        assert_eq!(all.history[0].created.as_deref(), Some("2017-07-14T02:40:00Z"));
    }

    #[test]
    fn history_and_layers_are_brought_into_line() {
        let mut result = sample(b"layer");
        result.config.history = vec![History::default(), History::default()];
        let flags: Vec<bool> =
            config(&result, &ImageOptions::default()).history.iter().map(|h| h.empty_layer).collect();
        assert_eq!(flags, [false, true]);
        result.config.history.clear();
        let made = config(&result, &ImageOptions::default()).history;
        assert_eq!((made[0].created_by.as_str(), made[0].comment.as_str()), ("COPY", "buildkit.exporter.image.v0"));
        assert_eq!(made[0].created.as_deref(), Some("2026-01-02T03:04:05.6Z"));
        result.layers.clear();
        let image = assemble(&[result], Shape::Single, MediaTypes::Oci, &ImageOptions::default()).expect("image");
        let text = String::from_utf8(image.platforms[0].config.bytes.clone()).expect("utf-8");
        assert_eq!(
            text,
            r#"{"architecture":"amd64","config":{},"created":null,"history":null,"os":"linux","rootfs":{"type":"layers","diff_ids":null}}"#
        );
    }

    #[test]
    fn an_index_lists_platforms_with_their_annotations() {
        let amd = sample(b"one");
        let mut arm = sample(b"two");
        arm.platform = "linux/arm64".parse().expect("platform");
        let annotation = |attribute: &str| annotations::parse(attribute, "v").expect("annotation").expect("valid");
        let options = ImageOptions {
            annotations: vec![
                annotation("annotation-index.i"),
                annotation("annotation-manifest-descriptor[linux/arm64].d"),
                annotation("annotation.m"),
            ],
            ..ImageOptions::default()
        };
        let results = [amd.clone(), arm];
        let image = assemble(&results, Shape::Multi, MediaTypes::Oci, &options).expect("image");
        let index: Index = serde_json::from_slice(&image.root.bytes).expect("index");
        assert_eq!(index.media_type.as_deref(), Some(media::OCI_INDEX));
        assert_eq!(index.annotations.keys().collect::<Vec<_>>(), ["i"]);
        let platforms: Vec<String> =
            index.manifests.iter().filter_map(|m| m.platform.as_ref().map(Platform::to_string)).collect();
        assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
        assert!(index.manifests[0].annotations.is_empty() && index.manifests[1].annotations.contains_key("d"));
        let manifest: Manifest = serde_json::from_slice(&image.platforms[0].manifest.bytes).expect("manifest");
        assert_eq!(manifest.annotations.keys().collect::<Vec<_>>(), ["m"]);
        assert_eq!(image.config_digest(), None);
        let one = assemble(&[amd], Shape::Single, MediaTypes::Oci, &options);
        assert!(matches!(one, Err(ExportError::Options { .. })), "index annotations without an index");
    }

    #[test]
    fn dockers_media_types() {
        let options = ImageOptions::default();
        let image = assemble(&[sample(b"x")], Shape::Single, MediaTypes::Docker, &options).expect("image");
        let manifest: Manifest = serde_json::from_slice(&image.root.bytes).expect("manifest");
        assert_eq!(manifest.media_type.as_deref(), Some(media::DOCKER_MANIFEST));
        assert_eq!(manifest.config.media_type, media::DOCKER_CONFIG);
        assert_eq!(manifest.layers[0].media_type, media::DOCKER_LAYER);
    }

    #[test]
    fn e17_labels_and_env_stay_data() {
        let mut result = sample(b"x");
        result.config.config.labels.insert("rbuild.output\n".into(), "type=local,dest=/".into());
        result.config.config.env.push("A=b\nC=d".into());
        result.config.config.volumes.insert("/../../../etc".into());
        let written = config(&result, &ImageOptions::default());
        assert_eq!(written.config, result.config.config);
    }
}
