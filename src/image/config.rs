//! The image configuration with Docker's extensions (OCI image-spec 1.1, config.md; moby `image-spec` extensions).
//!
//! Field order is the order Go's encoder writes, since a config that BuildKit wrote and one written here must be the same
//! bytes. Unknown fields of a base image's config are dropped, as BuildKit does.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::DiffId;

/// An image configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// When the image was made, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "null_default")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub author: String,
    /// CPU architecture, Go's name.
    #[serde(deserialize_with = "null_default")]
    pub architecture: String,
    /// CPU variant.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub variant: String,
    /// Operating system, Go's name.
    #[serde(deserialize_with = "null_default")]
    pub os: String,
    /// Version of the operating system.
    #[serde(rename = "os.version", skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub os_version: String,
    /// Required features of the operating system.
    #[serde(rename = "os.features", skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub os_features: Vec<String>,
    /// What a container of this image starts with.
    #[serde(deserialize_with = "null_default")]
    pub config: ContainerConfig,
    /// The layers.
    #[serde(deserialize_with = "null_default")]
    pub rootfs: RootFs,
    /// How each layer came to be.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub history: Vec<History>,
}

/// What a container starts with.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// User and optional group.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub user: String,
    /// Ports as `80/tcp`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", with = "set_as_object")]
    pub exposed_ports: BTreeSet<String>,
    /// Environment as `NAME=value`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub env: Vec<String>,
    /// Program that always runs.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub entrypoint: Vec<String>,
    /// Program, or arguments of the entrypoint.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub cmd: Vec<String>,
    /// Paths that hold volumes.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", with = "set_as_object")]
    pub volumes: BTreeSet<String>,
    /// Working directory.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub working_dir: String,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub labels: BTreeMap<String, String>,
    /// Signal that stops a container.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub stop_signal: String,
    /// Whether `cmd` is already escaped (a Windows notion that BuildKit sets on Linux too).
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_default")]
    pub args_escaped: bool,
    /// Health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Instructions that run when the image is a base.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub on_build: Vec<String>,
    /// Shell of shell-form instructions.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub shell: Vec<String>,
}

/// A health check; durations in nanoseconds, 0 meaning inherit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub test: Vec<String>,
    /// Time between checks.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Time after which a check has failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Time a container has to start.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between checks while starting.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make a container unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// The layers of an image, bottom first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "WrittenRootFs", into = "WrittenRootFs")]
pub struct RootFs {
    /// Always `layers`.
    pub kind: String,
    /// Digests of the uncompressed layers; written as `null` when there are none, as Go does.
    pub diff_ids: Vec<DiffId>,
    /// Whether no layers are written as `[]`, because the image it was read from did; Go keeps the difference.
    pub empty_list: bool,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct WrittenRootFs {
    #[serde(rename = "type", deserialize_with = "null_default")]
    kind: String,
    diff_ids: Option<Vec<DiffId>>,
}

impl From<WrittenRootFs> for RootFs {
    fn from(written: WrittenRootFs) -> Self {
        let empty_list = written.diff_ids.as_ref().is_some_and(Vec::is_empty);
        Self { kind: written.kind, diff_ids: written.diff_ids.unwrap_or_default(), empty_list }
    }
}

impl From<RootFs> for WrittenRootFs {
    fn from(rootfs: RootFs) -> Self {
        let written = !rootfs.diff_ids.is_empty() || rootfs.empty_list;
        Self { kind: rootfs.kind, diff_ids: written.then_some(rootfs.diff_ids) }
    }
}

/// How one layer, or one change of the configuration, came to be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// When, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By which instruction.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub created_by: String,
    /// By whom.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub author: String,
    /// By which program.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub comment: String,
    /// Whether it made no layer.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_default")]
    pub empty_layer: bool,
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// Go writes `null` for absent lists and maps; read it as empty.
fn null_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Sets are written as `{"member":{}}`.
mod set_as_object {
    use std::collections::{BTreeMap, BTreeSet};

    use serde::de::IgnoredAny;
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(serde::Serialize)]
    struct Empty {}

    pub(super) fn serialize<S: Serializer>(set: &BTreeSet<String>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(set.iter().map(|member| (member, Empty {})))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<String>, D::Error> {
        let map = Option::<BTreeMap<String, IgnoredAny>>::deserialize(deserializer)?.unwrap_or_default();
        Ok(map.into_keys().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_nulls_and_writes_gos_order() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Volumes":{"/b":{},"/a":{}},"Labels":null,"Unknown":1},"rootfs":{"type":"layers","diff_ids":null},"history":null}"#;
        let config: ImageConfig = serde_json::from_str(text).expect("valid config");
        let written = serde_json::to_string(&config).expect("plain data");
        let expected = r#"{"architecture":"amd64","os":"linux","config":{"Volumes":{"/a":{},"/b":{}}},"rootfs":{"type":"layers","diff_ids":null}}"#;
        assert_eq!(written, expected);
    }

    #[test]
    fn keeps_an_empty_list_of_layers() {
        for text in [r#"{"type":"layers","diff_ids":[]}"#, r#"{"type":"layers","diff_ids":null}"#] {
            let rootfs: RootFs = serde_json::from_str(text).expect("valid rootfs");
            assert_eq!(serde_json::to_string(&rootfs).expect("plain data"), text);
        }
    }
}
