//! OCI layouts of a folder of cases: with their own blobs, or with those of the folder's pool.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rbuild::digest::Digest;
use serde_json::Value;

/// Puts the layout at `from` together at `to`: a copy whose blobs may come from `POOL/blobs`.
pub(crate) fn assemble(pool: &Path, from: &Path, to: &Path) {
    fs::create_dir_all(to.join("blobs/sha256")).unwrap();
    for name in ["index.json", "oci-layout"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
    let index: Value = json(&from.join("index.json"));
    let mut open: Vec<String> = digests(&index);
    while let Some(digest) = open.pop() {
        let place = blob_path(to, &digest);
        if place.exists() {
            continue;
        }
        let own = blob_path(from, &digest);
        let source = if own.exists() { own } else { blob_path(pool, &digest) };
        fs::copy(&source, &place).unwrap_or_else(|error| panic!("{}: {error}", source.display()));
        if let Ok(document) = serde_json::from_slice::<Value>(&fs::read(&place).unwrap()) {
            open.extend(digests(&document));
        }
    }
}

/// Digests of all descriptors of a document.
fn digests(document: &Value) -> Vec<String> {
    let lists = ["manifests", "layers"].iter().filter_map(|key| document[*key].as_array()).flatten();
    let all = lists.chain(document.get("config").filter(|config| config.get("digest").is_some()));
    all.filter_map(|entry| entry["digest"].as_str().map(str::to_owned)).collect()
}

fn blob_path(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs/sha256").join(digest.split_once(':').unwrap().1)
}

/// Reads a JSON file.
pub(crate) fn json(path: &Path) -> Value {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A layout with one entry in its index.
#[derive(Debug)]
pub(crate) struct Layout(pub(crate) PathBuf);

impl Layout {
    pub(crate) fn blob(&self, digest: &str) -> Vec<u8> {
        let path = blob_path(&self.0, digest);
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(Digest::compute(&bytes).as_str(), digest, "{}", path.display());
        bytes
    }

    pub(crate) fn document(&self, digest: &str) -> Value {
        serde_json::from_slice(&self.blob(digest)).unwrap()
    }

    /// The manifest of the last entry.
    pub(crate) fn manifest(&self) -> Value {
        let index = json(&self.0.join("index.json"));
        let entry = index["manifests"].as_array().unwrap().last().unwrap().clone();
        self.document(entry["digest"].as_str().unwrap())
    }

    /// Layer descriptors and the config's, whatever the form of the manifest.
    pub(crate) fn cache(&self) -> (Vec<Value>, Value) {
        let manifest = self.manifest();
        if manifest["config"].is_object() {
            return (manifest["layers"].as_array().unwrap().clone(), manifest["config"].clone());
        }
        let mut entries = manifest["manifests"].as_array().unwrap().clone();
        let config = entries.pop().unwrap();
        (entries, config)
    }

    /// Digests of the manifest's layers.
    pub(crate) fn layers(&self) -> Vec<String> {
        let (layers, _) = self.cache();
        layers.iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
    }

    /// The configuration of an image.
    pub(crate) fn config(&self) -> Value {
        self.document(self.manifest()["config"]["digest"].as_str().unwrap())
    }

    /// What is wrong with the layers: each must have the size and the diff id that are said of it.
    pub(crate) fn unsound(&self) -> Vec<String> {
        let mut seen = BTreeMap::new();
        for layer in self.cache().0 {
            let digest = layer["digest"].as_str().unwrap().to_owned();
            let blob = self.blob(&digest);
            let mut tar = Vec::new();
            let decoded = match layer["mediaType"].as_str().unwrap() {
                kind if kind.ends_with("zstd") => zstd::stream::copy_decode(&blob[..], &mut tar),
                kind if kind.ends_with("gzip") => {
                    std::io::copy(&mut flate2::read::MultiGzDecoder::new(&blob[..]), &mut tar).map(drop)
                }
                _ => std::io::copy(&mut &blob[..], &mut tar).map(drop),
            };
            let told = layer["annotations"]["containerd.io/uncompressed"].as_str().unwrap_or_default();
            let right = decoded.is_ok()
                && Digest::compute(&tar).as_str() == told
                && layer["size"].as_u64() == Some(blob.len() as u64);
            seen.insert(digest, right);
        }
        seen.into_iter().filter(|(_, right)| !right).map(|(digest, _)| format!("layer {digest} is not sound")).collect()
    }
}
