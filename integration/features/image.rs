//! An image as rbuild left it: in a directory, in an archive, or in a registry.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{text, tool};
use crate::support::build::Project;

/// An OCI layout on disk.
pub(super) struct Layout(pub(super) PathBuf);

impl Layout {
    /// Builds a project into a new layout.
    pub(super) fn built(project: &Project, args: &[&str]) -> Self {
        let dir = project.home().join("layout");
        // What an earlier build left there is another image.
        let _ = fs::remove_dir_all(&dir);
        let output = format!("type=oci,tar=false,dest={}", dir.display());
        let _ = project.build(&[&["-o", output.as_str()], args].concat()).success();
        Self(dir)
    }

    /// Unpacks an archive beside itself.
    pub(super) fn unpacked(archive: &Path) -> Self {
        let dir = archive.with_extension("unpacked");
        fs::create_dir_all(&dir).unwrap();
        tool("tar", &["-C", text(&dir), "-xf", text(archive)]);
        Self(dir)
    }

    /// A document by its digest.
    pub(super) fn blob(&self, digest: &Value) -> Vec<u8> {
        let hex = digest.as_str().unwrap().strip_prefix("sha256:").unwrap();
        fs::read(self.0.join("blobs/sha256").join(hex)).unwrap()
    }

    /// A JSON document by its digest.
    pub(super) fn document(&self, digest: &Value) -> Value {
        serde_json::from_slice(&self.blob(digest)).unwrap()
    }

    /// `index.json`.
    pub(super) fn index(&self) -> Value {
        serde_json::from_slice(&fs::read(self.0.join("index.json")).unwrap()).unwrap()
    }

    /// What the index names first: a manifest, or an index.
    pub(super) fn root(&self) -> Value {
        self.document(&self.index()["manifests"][0]["digest"])
    }

    /// The digest of what the index names first.
    pub(super) fn digest(&self) -> String {
        self.index()["manifests"][0]["digest"].as_str().unwrap().to_owned()
    }

    /// The configuration of an image for one platform.
    pub(super) fn config(&self) -> Value {
        self.document(&self.root()["config"]["digest"])
    }

    /// The digests of the layers.
    pub(super) fn layers(&self) -> Vec<String> {
        let layers = self.root()["layers"].as_array().unwrap().clone();
        layers.iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
    }

    /// Names in one layer, as tar lists them.
    pub(super) fn listing(&self, layer: usize) -> String {
        let digest = self.layers()[layer].replace("sha256:", "");
        tool("tar", &["-tzvf", text(&self.0.join("blobs/sha256").join(digest)), "--numeric-owner"])
    }
}
