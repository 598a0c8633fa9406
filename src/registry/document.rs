//! Manifests and indexes from foreign hands: what they must look like to be used.
//!
//! In: bytes and the media types said of them. Out: [`Document`]. Invariant: a document has one meaning: the type in its
//! body, its `Content-Type` and its descriptor agree, it has the members of that type only, and no member twice
//! (OCI distribution-spec GHSA-mc8v-mgrf-8f4m).

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::digest::Digest;
use crate::image::{Descriptor, Index, Manifest, media};

/// Largest manifest or index that is read.
pub const MANIFEST_LIMIT: u64 = 4 << 20;
/// Largest image configuration that is read.
pub const CONFIG_LIMIT: u64 = 8 << 20;
/// Most layers of an image; overlayfs stacks 500.
const LAYERS_LIMIT: usize = 1000;

/// Most layers of a cache, which are not stacked all at once.
const CACHE_LAYERS_LIMIT: usize = 10_000;

/// A manifest or index that is not usable.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not the JSON it should be.
    #[error("not a valid document: {reason}")]
    Json {
        /// What is wrong.
        reason: String,
    },
    /// Types that do not agree.
    #[error("its media type is {stated} by one account and {found} by another")]
    Types {
        /// By one.
        stated: String,
        /// By the other.
        found: String,
    },
    /// Members of two kinds of documents.
    #[error("it could be read as a manifest and as an index")]
    Ambiguous,
    /// A kind that is not known.
    #[error("unknown media type {media_type}")]
    Unknown {
        /// The type.
        media_type: String,
    },
    /// More than is read.
    #[error("it has {count} {what}, more than {limit}")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// A size that no file can have.
    #[error("{digest} has impossible size {size}")]
    Size {
        /// The content.
        digest: Digest,
        /// The size.
        size: u64,
    },
}

/// What a reference can lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Box<Manifest>),
    /// Several.
    Index(Index),
}

/// Reads a document; `stated` is its type by the descriptor or header that led to it.
pub fn parse(bytes: &[u8], stated: Option<&str>) -> Result<(String, Document), DocumentError> {
    let json = |e: serde_json::Error| DocumentError::Json { reason: super::url::foreign_text(&e.to_string()) };
    let outline: Outline = serde_json::from_slice(bytes).map_err(json)?;
    let media_type = outline.media_type(bytes, stated)?;
    let document = match (media::is_index(&media_type), media::is_manifest(&media_type)) {
        (true, _) => Document::Index(serde_json::from_slice(bytes).map_err(json)?),
        (_, true) => Document::Manifest(Box::new(serde_json::from_slice(bytes).map_err(json)?)),
        _ => return Err(DocumentError::Unknown { media_type: super::url::foreign_text(&media_type) }),
    };
    check(&document)?;
    Ok((media_type, document))
}

fn check(document: &Document) -> Result<(), DocumentError> {
    let descriptors: Vec<&Descriptor> = match document {
        Document::Manifest(m) => std::iter::once(&m.config).chain(&m.layers).collect(),
        Document::Index(i) => i.manifests.iter().collect(),
    };
    let is_cache = descriptors.iter().any(|descriptor| descriptor.media_type == media::CACHE_CONFIG);
    let limit = if is_cache { CACHE_LAYERS_LIMIT } else { LAYERS_LIMIT };
    if descriptors.len() > limit + 1 {
        return Err(DocumentError::Count { what: "entries", count: descriptors.len(), limit });
    }
    let impossible = |d: &&&Descriptor| i64::try_from(d.size).is_err();
    match descriptors.iter().find(impossible) {
        Some(d) => Err(DocumentError::Size { digest: d.digest.clone(), size: d.size }),
        None => Ok(()),
    }
}

/// The names of a document's members; reading it proves that no object in the document has a member twice.
struct Outline(BTreeSet<String>);

impl Outline {
    fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    fn media_type(&self, bytes: &[u8], stated: Option<&str>) -> Result<String, DocumentError> {
        #[derive(serde::Deserialize)]
        struct Typed {
            #[serde(rename = "mediaType")]
            media_type: Option<String>,
        }
        // Go reads member names regardless of case; a document that relies on it means different things to different readers.
        const NAMES: [&str; 6] = ["mediaType", "manifests", "layers", "config", "schemaVersion", "fsLayers"];
        if self.0.iter().any(|have| NAMES.iter().any(|n| n.eq_ignore_ascii_case(have) && n != have)) {
            return Err(DocumentError::Ambiguous);
        }
        let (index, manifest) = (self.has("manifests"), self.has("layers") || self.has("config"));
        if index && manifest || self.has("fsLayers") {
            return Err(DocumentError::Ambiguous);
        }
        let typed: Typed = serde_json::from_slice(bytes).map_err(|e| DocumentError::Json { reason: e.to_string() })?;
        let stated = stated.map(|s| s.split(';').next().unwrap_or(s).trim().to_owned());
        // Servers that know no better say these of any file; they state nothing.
        let stated = stated
            .filter(|s| !matches!(s.as_str(), "" | "application/json" | "application/octet-stream" | "text/plain"));
        let media_type = match (typed.media_type, stated) {
            (Some(body), Some(stated)) if body != stated => {
                let shown = super::url::foreign_text;
                return Err(DocumentError::Types { stated: shown(&stated), found: shown(&body) });
            }
            (Some(found), _) | (None, Some(found)) => found,
            (None, None) => if index { media::OCI_INDEX } else { media::OCI_MANIFEST }.to_owned(),
        };
        let contradicts = media::is_index(&media_type) && manifest || media::is_manifest(&media_type) && index;
        if contradicts { Err(DocumentError::Ambiguous) } else { Ok(media_type) }
    }
}

impl<'de> Deserialize<'de> for Outline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members).map(Outline)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = BTreeSet<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut names = BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            map.next_value::<Unique>()?;
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format_args!("member {name:?} occurs twice")));
            }
        }
        Ok(names)
    }
}

/// Any JSON value in which no object has a member twice.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Unique)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_str<E>(self, _: &str) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Unique, A::Error> {
        while seq.next_element::<Unique>()?.is_some() {}
        Ok(Unique)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Unique, A::Error> {
        Members.visit_map(map).map(|_| Unique)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn descriptor(kind: &str) -> String {
        format!(r#"{{"mediaType":"{kind}","digest":"sha256:{}","size":1}}"#, "a".repeat(64))
    }

    fn manifest(media_type: &str, layers: &str) -> String {
        let config = descriptor(media::OCI_CONFIG);
        format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{config},"layers":{layers}}}"#)
    }

    fn index(media_type: &str, manifests: &str) -> String {
        format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}","manifests":{manifests}}}"#)
    }

    #[test]
    fn reads_good_documents() {
        let untyped = manifest("", "[]").replace(r#""mediaType":"","#, "");
        for (text, stated) in [
            (manifest(media::OCI_MANIFEST, "[]"), Some(media::OCI_MANIFEST)),
            (manifest(media::DOCKER_MANIFEST, "[]"), None),
            (index(media::OCI_INDEX, "[]"), Some(media::OCI_INDEX)),
            (index(media::DOCKER_INDEX, "[]"), Some("application/json; charset=utf-8")),
            (untyped.clone(), None),
            (untyped, Some(media::OCI_MANIFEST)),
        ] {
            parse(text.as_bytes(), stated).expect(&text);
        }
    }

    #[test]
    fn r6_documents_of_two_meanings_are_refused() {
        let both = index(media::OCI_INDEX, "[]").replace("}", r#","layers":[]}"#);
        let both_manifest = manifest(media::OCI_MANIFEST, "[]").replacen('{', r#"{"manifests":[],"#, 1);
        let twice = manifest(media::OCI_MANIFEST, "[]").replacen('{', r#"{"layers":[],"#, 1);
        let deep = index(media::OCI_INDEX, &format!("[{}]", descriptor(media::OCI_MANIFEST)))
            .replace(r#""size":1"#, r#""size":1,"annotations":{"a":"1","a":"2"}"#);
        let cased = index(media::OCI_INDEX, "[]").replacen('{', r#"{"Layers":[],"#, 1);
        for (text, stated) in [
            (both, None),
            (both_manifest, None),
            (twice, None),
            (deep, None),
            (cased, None),
            (manifest(media::OCI_INDEX, "[]"), None),
            (index(media::OCI_MANIFEST, "[]"), None),
            (manifest(media::OCI_MANIFEST, "[]"), Some(media::OCI_INDEX)),
            (index(media::OCI_INDEX, "[]"), Some(media::OCI_MANIFEST)),
            (manifest(media::OCI_MANIFEST, "[]"), Some(media::DOCKER_MANIFEST)),
            (manifest("application/x-unknown", "[]"), None),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.into(), None),
        ] {
            assert!(parse(text.as_bytes(), stated).is_err(), "{text} as {stated:?}");
        }
    }

    #[test]
    fn r7_malformed_documents_are_refused() {
        let layer = |from: &str, to: &str| {
            manifest(media::OCI_MANIFEST, &format!("[{}]", descriptor(media::OCI_LAYER_GZIP).replace(from, to)))
        };
        let good = format!("sha256:{}", "a".repeat(64));
        let many = vec![descriptor(media::OCI_LAYER_GZIP); LAYERS_LIMIT + 1].join(",");
        for text in [
            layer(&good, "sha256:../../x"),
            layer(&good, &good.to_uppercase()),
            layer(&good, &good[..good.len() - 1]),
            layer(&good, "md5:d41d8cd98f00b204e9800998ecf8427e"),
            layer(&good, ""),
            layer(r#""size":1"#, r#""size":-1"#),
            layer(r#""size":1"#, r#""size":9223372036854775808"#),
            layer(r#""size":1"#, r#""size":null"#),
            manifest(media::OCI_MANIFEST, "null"),
            manifest(media::OCI_MANIFEST, "[null]"),
            manifest(media::OCI_MANIFEST, &format!("[{many}]")),
            index(media::OCI_INDEX, "null"),
            "null".into(),
            "[]".into(),
            "".into(),
            "[".repeat(100_000),
            format!("{}{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000)),
        ] {
            assert!(parse(text.as_bytes(), None).is_err(), "{}", &text[..text.len().min(300)]);
        }
    }

    #[test]
    fn a_cache_may_have_more_layers_than_an_image() {
        let cache = |count: usize| {
            let layers = vec![descriptor(media::OCI_LAYER_GZIP); count].join(",");
            manifest(media::OCI_MANIFEST, &format!("[{layers}]")).replace(media::OCI_CONFIG, media::CACHE_CONFIG)
        };
        assert!(parse(cache(CACHE_LAYERS_LIMIT).as_bytes(), None).is_ok());
        assert!(parse(cache(CACHE_LAYERS_LIMIT + 1).as_bytes(), None).is_err());
        assert!(
            parse(cache(LAYERS_LIMIT + 1).replace(media::CACHE_CONFIG, media::OCI_CONFIG).as_bytes(), None).is_err()
        );
    }

    proptest! {
        #[test]
        fn never_panics(text in r#"(\{|\}|\[|\]|:|,|"mediaType"|"layers"|"manifests"|"config"|null|1|"x"){0,40}"#) {
            let _ = parse(text.as_bytes(), None);
        }
    }
}
