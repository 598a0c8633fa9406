//! `cacheconfig.v0`: the JSON of an exported cache (cache specification 3.5).
//!
//! Member order, what is left out and how times are written are BuildKit's, so that equal graphs have equal bytes; encoding
//! goes through [`crate::image::canonical`].

use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::digest::Digest;
use crate::image::canonical;

/// Media type of the document.
pub const MEDIA_TYPE: &str = crate::image::media::CACHE_CONFIG;

/// Layers and records.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CacheConfig {
    /// Layers that results are made of.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<CacheLayer>,
    /// Records.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<CacheRecord>,
}

impl CacheConfig {
    /// Returns the document's bytes.
    pub fn encode(&self) -> Vec<u8> {
        canonical::to_vec(self)
    }
}

/// A blob on top of another layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheLayer {
    /// Its digest.
    pub blob: Digest,
    /// Index of the layer below, -1 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub parent: i64,
    /// What backends without manifests must know of the blob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<LayerAnnotations>,
}

/// What a manifest would say of a blob.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LayerAnnotations {
    /// Its media type.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// Digest of the tar.
    #[serde(rename = "diffID", skip_serializing_if = "String::is_empty")]
    pub diff_id: String,
    /// Its size.
    #[serde(skip_serializing_if = "is_zero")]
    pub size: i64,
    /// When it was made.
    pub created_at: Timestamp,
}

/// One way to reach a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheRecord {
    /// Results as the topmost of their layers.
    #[serde(default, rename = "layers", deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<CacheResult>,
    /// Results as lists of layers.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub chains: Vec<ChainedResult>,
    /// The record's digest.
    pub digest: Digest,
    /// Per input, the records it is reached from.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Vec<CacheInput>>,
}

/// A result whose layers are a layer and those below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheResult {
    /// Index of the topmost layer.
    #[serde(default)]
    pub layer: i64,
    /// When it was saved.
    #[serde(default)]
    pub created_at: Timestamp,
}

/// A result whose layers are listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainedResult {
    /// Indexes of the layers, bottom first.
    #[serde(default, deserialize_with = "or_default")]
    pub layers: Vec<i64>,
    /// When it was saved.
    #[serde(default)]
    pub created_at: Timestamp,
}

/// A link to a record of an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheInput {
    /// What of the input is used; none for all of it, and for content keys.
    #[serde(default, deserialize_with = "or_none", skip_serializing_if = "Option::is_none")]
    pub selector: Option<Digest>,
    /// Index of the record.
    #[serde(default)]
    pub link: i64,
}

/// A time as Go writes it: RFC 3339 with as many digits as are needed. Go's zero time stands for none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(OffsetDateTime);

impl Timestamp {
    /// Returns the time of the system's clock; none for what no clock can say.
    pub fn system(self) -> SystemTime {
        self.0.into()
    }

    /// Returns whether it is written in UTC.
    pub fn is_utc(self) -> bool {
        self.0.offset().is_utc()
    }

    /// Returns the time as text.
    pub fn text(self) -> String {
        self.0.format(&Rfc3339).unwrap_or_else(|_| Self::default().text())
    }
}

impl Default for Timestamp {
    fn default() -> Self {
        // Days from year 1 to 1970, in seconds.
        Self(OffsetDateTime::from_unix_timestamp(-62_135_596_800).expect("the first second of year 1"))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let nanos = match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => i128::try_from(since.as_nanos()).unwrap_or(i128::MAX),
            Err(before) => -i128::try_from(before.duration().as_nanos()).unwrap_or(i128::MAX),
        };
        OffsetDateTime::from_unix_timestamp_nanos(nanos).map_or_else(|_| Self::default(), Self)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        OffsetDateTime::parse(&text, &Rfc3339)
            .map(Self)
            .map_err(|_| de::Error::custom("a time that is none of RFC 3339"))
    }
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// Go writes an empty list as `null` where nobody tells it not to.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

fn or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Digest>, D::Error> {
    let text = Option::<std::borrow::Cow<'de, str>>::deserialize(deserializer)?.unwrap_or_default();
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(de::Error::custom) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_gos() {
        let digest = Digest::compute("a");
        let text = format!(
            r#"{{"layers":[{{"blob":"{digest}","parent":-1}},{{"blob":"{digest}"}}],"records":[{{"layers":[{{"layer":1,"createdAt":"2026-11-20T13:58:18.5+01:00"}}],"digest":"{digest}"}},{{"chains":[{{"layers":[1,0],"createdAt":"0001-01-01T00:00:00Z"}}],"digest":"{digest}","inputs":[[{{"link":0}},{{"selector":"{digest}","link":1}}]]}}]}}"#
        );
        let config: CacheConfig = serde_json::from_str(&text).expect("config");
        assert_eq!(String::from_utf8(config.encode()).expect("utf-8"), text);
        assert_eq!(config.records[1].chains[0].created_at, Timestamp::default());
        assert_eq!(Timestamp::from(config.records[0].results[0].created_at.system()).text(), "2026-11-20T12:58:18.5Z");
        assert_eq!(Timestamp::from(Timestamp::default().system()), Timestamp::default());
    }

    #[test]
    fn what_go_leaves_out_is_read() {
        let digest = Digest::compute("a");
        let text = format!(r#"{{"layers":null,"records":[{{"digest":"{digest}","inputs":[[{{"selector":""}}]]}}]}}"#);
        let config: CacheConfig = serde_json::from_str(&text).expect("config");
        assert_eq!(config.records[0].inputs, [[CacheInput { selector: None, link: 0 }]]);
        assert!(serde_json::from_str::<CacheConfig>(r#"{"records":[{"digest":"random:x"}]}"#).is_err());
    }
}
