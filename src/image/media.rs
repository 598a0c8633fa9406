//! Media types of manifests, configs and layers (OCI image-spec 1.1, media-types.md; Docker image manifest v2.2).

use oci_spec::image::MediaType;

/// An OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An OCI image configuration.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// An uncompressed OCI layer.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// A gzip-compressed OCI layer.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// A zstd-compressed OCI layer.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// A Docker image manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// A Docker manifest list.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// A Docker image configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// A gzip-compressed Docker layer.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// An uncompressed Docker layer.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// A zstd-compressed layer in a Docker manifest, as containerd names it.
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

/// The records of BuildKit's build cache, in the place of a configuration.
pub const CACHE_CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";

/// How the bytes of a layer blob are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Compression {
    /// A plain tar.
    Uncompressed,
    /// gzip (RFC 1952).
    #[default]
    Gzip,
    /// gzip whose files can be read one by one. No media type states it: it is named where layers are made, and read as gzip.
    Estargz,
    /// zstd (RFC 8878).
    Zstd,
}

impl Compression {
    /// Returns the OCI media type of a layer compressed this way.
    pub fn oci_layer(self) -> &'static str {
        match self {
            Compression::Uncompressed => OCI_LAYER,
            Compression::Gzip | Compression::Estargz => OCI_LAYER_GZIP,
            Compression::Zstd => OCI_LAYER_ZSTD,
        }
    }

    /// Returns the Docker media type of a layer compressed this way.
    pub fn docker_layer(self) -> &'static str {
        match self {
            Compression::Uncompressed => DOCKER_LAYER,
            Compression::Gzip | Compression::Estargz => DOCKER_LAYER_GZIP,
            Compression::Zstd => DOCKER_LAYER_ZSTD,
        }
    }

    /// Returns the compression a layer media type states, or none for a type that is no layer.
    ///
    /// Non-distributable layers, deprecated by the specification, are read like ordinary ones; their `urls` are ignored.
    pub fn of_layer(media_type: &str) -> Option<Self> {
        match MediaType::from(media_type) {
            MediaType::ImageLayer | MediaType::ImageLayerNonDistributable => Some(Compression::Uncompressed),
            MediaType::ImageLayerGzip | MediaType::ImageLayerNonDistributableGzip => Some(Compression::Gzip),
            MediaType::ImageLayerZstd | MediaType::ImageLayerNonDistributableZstd => Some(Compression::Zstd),
            MediaType::Other(other) => docker_layer(&other),
            _ => None,
        }
    }
}

fn docker_layer(media_type: &str) -> Option<Compression> {
    match media_type {
        DOCKER_LAYER => Some(Compression::Uncompressed),
        DOCKER_LAYER_GZIP | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Some(Compression::Gzip),
        DOCKER_LAYER_ZSTD => Some(Compression::Zstd),
        _ => None,
    }
}

/// Returns whether the type is a manifest of one image.
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
}

/// Returns whether the type is a list of manifests.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_INDEX)
}
