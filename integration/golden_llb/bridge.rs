//! Answers from the table of images, and from ignore files beside a case.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rbuild::frontend::{Answer, Bridge, BridgeError, ResolveMode, ResolvedImage};
use rbuild::image::{ImageConfig, Platform, Reference};
use rbuild::llb::SourceOp;
use serde_json::Value;

/// One row of `images.json`.
#[derive(Debug, Clone, serde::Deserialize)]
struct Image {
    digest: String,
    index: bool,
    configs: Vec<Value>,
}

/// The table, and the folder of the case.
#[derive(Debug)]
pub(crate) struct Table {
    images: BTreeMap<String, Image>,
    case: PathBuf,
    /// What is asked of URLs and repositories: seconds since 1970.
    times: BTreeMap<String, i64>,
}

impl Table {
    pub(crate) fn read(folder: &Path, case: &Path, http: Option<&Value>) -> Self {
        // Folders without images of their own share those beside them.
        let own = folder.join("images.json");
        let shared = folder.join("../llb/images.json");
        let text = std::fs::read(if own.exists() { own } else { shared }).expect("images.json");
        let images = serde_json::from_slice(&text).expect("table of images");
        Self { images, case: case.to_owned(), times: times(http) }
    }

    fn find(&self, key: &str, platform: &Platform) -> Result<ResolvedImage, BridgeError> {
        let image = self.images.get(key).ok_or_else(|| BridgeError::remote(format!("{key}: not found")))?;
        let config = match image.index {
            false => image.configs.first(),
            true => best(&image.configs, platform),
        };
        let none = || BridgeError::remote("no match for platform in manifest: not found");
        let config = serde_json::to_vec(config.ok_or_else(none)?).expect("config");
        Ok(ResolvedImage { digest: image.digest.parse().expect("digest"), config })
    }
}

/// Reads answers about URLs: a time, or an object with one, as a number or as text.
fn times(http: Option<&Value>) -> BTreeMap<String, i64> {
    let Some(Value::Object(entries)) = http else { return BTreeMap::new() };
    let entries = entries.iter().filter_map(|(url, value)| Some((url.clone(), seconds(value)?)));
    entries.collect()
}

fn seconds(value: &Value) -> Option<i64> {
    use time::format_description::well_known::{Rfc2822, Rfc3339};
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => {
            let time = time::OffsetDateTime::parse(text, &Rfc3339);
            let time = time.or_else(|_| time::OffsetDateTime::parse(&text.replace("GMT", "+0000"), &Rfc2822));
            Some(time.expect("a time").unix_timestamp())
        }
        Value::Object(members) => {
            let modified = members.iter().find(|(name, _)| name.to_lowercase().contains("modified"));
            modified.and_then(|(_, value)| seconds(value))
        }
        _ => None,
    }
}

fn best<'c>(configs: &'c [Value], platform: &Platform) -> Option<&'c Value> {
    let rank = |config: &Value| {
        let config: ImageConfig = serde_json::from_value(config.clone()).expect("config");
        let have = Platform {
            os: config.os,
            architecture: config.architecture,
            variant: config.variant,
            os_version: config.os_version,
            ..Platform::default()
        };
        have.rank_for(platform)
    };
    configs.iter().filter_map(|c| Some((rank(c)?, c))).min_by_key(|(rank, _)| *rank).map(|(_, c)| c)
}

impl Bridge for Table {
    fn resolve_image<'a>(
        &'a self,
        reference: &'a Reference,
        platform: &'a Platform,
        _: ResolveMode,
    ) -> Answer<'a, ResolvedImage> {
        Box::pin(async move { self.find(&reference.to_string(), platform) })
    }

    fn resolve_oci_layout<'a>(
        &'a self,
        store: &'a str,
        reference: &'a Reference,
        platform: &'a Platform,
    ) -> Answer<'a, ResolvedImage> {
        Box::pin(async move {
            let digest = reference.digest.as_ref().expect("digest");
            self.find(&format!("oci-layout://{store}@{digest}"), platform)
        })
    }

    fn read_ignore<'a>(&'a self, local: &'a str, names: &'a [String]) -> Answer<'a, Option<(String, Vec<u8>)>> {
        let folder = match local {
            "context" | "dockerfile" => self.case.clone(),
            other => self.case.join("local").join(other),
        };
        Box::pin(async move {
            let found = names.iter().find_map(|n| Some((n.clone(), std::fs::read(folder.join(n)).ok()?)));
            Ok(found)
        })
    }

    fn source_time<'a>(&'a self, source: &'a SourceOp) -> Answer<'a, Option<i64>> {
        Box::pin(async move { Ok(self.times.get(&source.identifier).copied()) })
    }

    fn http_head<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<u8>> {
        Box::pin(async move { Ok(Vec::new()) })
    }
}
