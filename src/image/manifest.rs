//! Manifests, indexes and the descriptors they are made of (OCI image-spec 1.1, manifest.md, image-index.md).
//!
//! Member order is that of Go's structs, and annotations are ordered, so that equal values have equal bytes and digests.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::Platform;
use crate::digest::Digest;

/// Points to content by digest and size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the content.
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
    /// Remarks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The content itself in base64, where it is small (OCI image-spec 1.1, descriptor `data`); see [`Descriptor::embedded`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Platform of the manifest pointed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// Makes a descriptor with no annotation and no platform.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.into(), digest, size, annotations: BTreeMap::new(), data: None, platform: None }
    }

    /// Describes `content` itself.
    pub fn of(media_type: impl Into<String>, content: &[u8]) -> Self {
        Self::new(media_type, Digest::compute(content), content.len() as u64)
    }

    /// Returns the same with the content it points to in it.
    #[must_use]
    pub fn embedding(self, content: &[u8]) -> Self {
        Self { data: Some(STANDARD.encode(content)), ..self }
    }

    /// Returns the content that is in the descriptor, if it is what the descriptor points to.
    pub fn embedded(&self) -> Option<Vec<u8>> {
        let content = STANDARD.decode(self.data.as_ref()?).ok()?;
        let is_meant = content.len() as u64 == self.size && self.digest == Digest::compute(&content);
        is_meant.then_some(content)
    }
}

/// One image: its configuration and layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Media type of this document; may be absent in OCI's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, bottom first.
    pub layers: Vec<Descriptor>,
    /// Remarks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Several manifests, usually one a platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Media type of this document; may be absent in OCI's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The manifests.
    pub manifests: Vec<Descriptor>,
    /// Remarks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_in_a_descriptor_counts_if_it_is_what_is_meant() {
        let plain = Descriptor::of("text/plain", b"content");
        assert_eq!(plain.embedded(), None);
        let embedding = plain.clone().embedding(b"content");
        assert_eq!(embedding.embedded().as_deref(), Some(&b"content"[..]));
        let text =
            serde_json::to_string(&Descriptor { platform: Some(Platform::host()), ..embedding.clone() }).expect("json");
        let places = ["\"size\"", "\"data\":\"Y29udGVudA==\"", "\"platform\""].map(|key| text.find(key).expect(key));
        assert!(places.is_sorted(), "{text}");
        for wrong in [plain.clone().embedding(b"consent"), plain.embedding(b"content\n")] {
            assert_eq!(wrong.embedded(), None, "{wrong:?}");
        }
        for wrong in ["", "Y29udGVudA", "no base64", "\u{e9}"] {
            assert_eq!(Descriptor { data: Some(wrong.into()), ..embedding.clone() }.embedded(), None, "{wrong:?}");
        }
    }
}
