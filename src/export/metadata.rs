//! What scripts read after a build: `--metadata-file` and `--iidfile`, with the keys and the form buildx gives them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::image::Image;
use crate::image::Reference;

/// Facts about a finished build, by buildx's names.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metadata(BTreeMap<String, Value>);

impl Metadata {
    /// Starts with nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fact.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.into(), value.into());
    }

    /// Adds what is known of an exported image and the names it got.
    pub fn add_image(&mut self, image: &Image, names: &[Reference]) {
        self.set("containerimage.digest", image.root.descriptor.digest.as_str());
        if let Some(digest) = image.config_digest() {
            self.set("containerimage.config.digest", digest.as_str());
        }
        let descriptor = serde_json::to_value(image.described()).expect("plain data with string keys");
        self.set("containerimage.descriptor", descriptor);
        if !names.is_empty() {
            let names: Vec<String> = names.iter().map(Reference::to_string).collect();
            self.set("image.name", names.join(","));
        }
    }

    /// Returns the content of a metadata file.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(&self.0).expect("plain data with string keys")
    }

    /// Returns the content of an image id file: the digest of the configuration, or of an image that has several.
    pub fn image_id(&self) -> Option<&str> {
        let digest = self.0.get("containerimage.config.digest").or_else(|| self.0.get("containerimage.digest"))?;
        digest.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::image::tests::single;

    #[test]
    fn buildxs_keys() {
        let image = single(b"layer");
        let mut metadata = Metadata::new();
        metadata.set("buildx.build.ref", "default/default/x");
        metadata.add_image(&image, &["app:1".parse().expect("name")]);
        let json: serde_json::Value = serde_json::from_slice(&metadata.to_json()).expect("json");
        assert_eq!(json["containerimage.digest"], image.root.descriptor.digest.as_str());
        assert_eq!(json["containerimage.descriptor"]["size"], image.root.bytes.len());
        assert_eq!(json["image.name"], "docker.io/library/app:1");
        assert_eq!(metadata.image_id(), image.config_digest().map(|digest| digest.as_str()));
        let text = String::from_utf8(metadata.to_json()).expect("utf-8");
        assert!(
            text.starts_with("{\n  \"buildx.build.ref\": \"default/default/x\",\n  \"containerimage.config.digest\"")
        );
    }
}
