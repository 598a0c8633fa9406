//! The digests of sources (cache specification 2.2): `H("buildkit.source.v0:" + K)`, `K` telling what was resolved.

use serde::{Deserialize, Serialize};

use super::{hash, is_default};
use crate::digest::{ChainId, DiffId, Digest};
use crate::image::Platform;
use crate::solver::CacheDigest;

/// An image that was resolved, from a registry or an OCI layout; its name is not in the key.
#[derive(Debug, Clone, Copy)]
pub struct ImageKey<'a> {
    /// Digest the reference resolved to: of an index, or of a manifest.
    pub digest: &'a Digest,
    /// Platform asked for.
    pub platform: &'a Platform,
    /// Number of layers used; 0 for all.
    pub layer_limit: usize,
    /// Its config.
    pub config: &'a [u8],
}

/// Returns the two digests of an image: by what it resolved to, and by its layers.
pub fn image(key: &ImageKey<'_>) -> Vec<CacheDigest> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Json<'a> {
        digest: &'a Digest,
        #[serde(rename = "OS")]
        os: &'a str,
        arch: &'a str,
        #[serde(skip_serializing_if = "is_default")]
        variant: &'a str,
        #[serde(rename = "OSVersion", skip_serializing_if = "is_default")]
        os_version: &'a str,
        #[serde(rename = "OSFeatures", skip_serializing_if = "is_default")]
        os_features: &'a [String],
        #[serde(skip_serializing_if = "is_default")]
        limit: usize,
    }
    let first = hash(&Json {
        digest: key.digest,
        os: &key.platform.os,
        arch: &key.platform.architecture,
        variant: &key.platform.variant,
        os_version: &key.platform.os_version,
        os_features: &key.platform.os_features,
        limit: key.layer_limit,
    });
    let layers = layers_key(key.config, key.layer_limit);
    [Some(first), layers].into_iter().flatten().map(|digest| stable(digest.as_str())).collect()
}

/// Returns the chain id of an image's layers; none for an image without layers.
fn layers_key(config: &[u8], limit: usize) -> Option<Digest> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        rootfs: RootFs,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct RootFs {
        r#type: String,
        diff_ids: Option<Vec<DiffId>>,
    }
    let Ok(Config { rootfs }) = serde_json::from_slice(config) else { return Some(Digest::compute(config)) };
    let mut diff_ids = rootfs.diff_ids.unwrap_or_default();
    if limit > 0 {
        diff_ids.truncate(limit);
    }
    ChainId::of(&diff_ids).filter(|_| rootfs.r#type == "layers").map(|chain| chain.0)
}

/// A directory of the caller: read again in every build, so its digest is random and only content counts.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct LocalKey<'a> {
    /// Identity of the build.
    #[serde(rename = "SessionID")]
    pub session_id: &'a str,
    /// Patterns of what is sent; none for all.
    pub include_patterns: Option<&'a [String]>,
    /// Patterns of what is not sent.
    pub exclude_patterns: Option<&'a [String]>,
    /// Paths that are sent with what they link to.
    pub follow_paths: Option<&'a [String]>,
}

/// Returns the digest of a local directory by its name.
pub fn local(name: &str, key: &LocalKey<'_>) -> CacheDigest {
    CacheDigest::Random(Digest::compute(format!("buildkit.source.v0:session:{name}:{}", hash(key))))
}

/// A file from a web server; its URL is not in the key.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HttpKey<'a> {
    /// Name of the file.
    pub filename: &'a str,
    /// Permission bits asked for, or 0.
    pub perm: u32,
    /// Owner.
    #[serde(rename = "UID")]
    pub uid: u32,
    /// Group.
    #[serde(rename = "GID")]
    pub gid: u32,
    /// Digest of its bytes.
    pub checksum: &'a Digest,
    /// `Last-Modified` as `Mon, 02 Jan 2006 15:04:05 GMT`; empty when not told or not asked.
    #[serde(skip_serializing_if = "is_default")]
    pub last_mod_time: &'a str,
    /// Name of the secret used.
    #[serde(skip_serializing_if = "is_default")]
    pub auth_header_secret: &'a str,
    /// Header fields sent.
    #[serde(skip_serializing_if = "is_default")]
    pub header: &'a [HeaderField<'a>],
}

/// A header field of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HeaderField<'a> {
    /// Name.
    pub name: &'a str,
    /// Value.
    pub value: &'a str,
}

/// Returns the digest of a file from a web server.
pub fn http(key: &HttpKey<'_>) -> CacheDigest {
    stable(hash(key).as_str())
}

/// A commit.
#[derive(Debug, Clone, Copy, Default)]
pub struct GitKey<'a> {
    /// Hex digits of the commit; of an annotated tag itself only if the git directory is kept.
    pub commit: &'a str,
    /// Whether `.git` is kept.
    pub keep_git_dir: bool,
    /// Full name of the ref, `refs/heads/main`; empty if not known.
    pub reference: &'a str,
    /// Directory used.
    pub subdir: &'a str,
    /// Whether submodules are left out.
    pub skip_submodules: bool,
    /// Times of the files; empty or `checkout` for those of the checkout.
    pub mtime: &'a str,
    /// Whether it is checked out as a bundle.
    pub bundle: bool,
}

/// Returns the digest of a commit.
pub fn git(key: &GitKey<'_>) -> CacheDigest {
    let mut text = key.commit.to_owned();
    if key.keep_git_dir {
        text.push_str(".git");
        if !key.reference.is_empty() {
            text.push_str(&format!("#{}", key.reference));
        }
    }
    if !key.subdir.is_empty() {
        text.push_str(&format!(":{}", key.subdir));
    }
    if key.skip_submodules {
        text.push_str("(skip-submodules)");
    }
    if !matches!(key.mtime, "" | "checkout") {
        text.push_str(&format!("(mtime={})", key.mtime));
    }
    if key.bundle {
        text.push_str("(bundle)");
    }
    stable(&text)
}

/// A blob of a registry or OCI layout, as a file.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct BlobKey<'a> {
    /// Its digest.
    pub digest: &'a Digest,
    /// Name of the file.
    pub filename: &'a str,
    /// Permission bits asked for, or 0.
    pub perm: u32,
    /// Owner.
    #[serde(rename = "UID")]
    pub uid: u32,
    /// Group.
    #[serde(rename = "GID")]
    pub gid: u32,
}

/// Returns the digest of a blob.
pub fn blob(key: &BlobKey<'_>) -> CacheDigest {
    stable(hash(key).as_str())
}

fn stable(key: &str) -> CacheDigest {
    CacheDigest::Stable(Digest::compute(format!("buildkit.source.v0:{key}")))
}
