//! What is attested of images: the in-toto statements beside them in their index.
//!
//! In: an index. Out: by platform, what `imagetools inspect` of buildx calls `.SBOM` and `.Provenance`. A statement may be wrapped in
//! an envelope with signatures, which are not checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::inspect::REFERENCES;
use super::location::Location;
use super::shelf;
use crate::diag::{Diagnostic, Kind};
use crate::export::merge::{Entry, Listing};
use crate::image::{Descriptor, Manifest};
use crate::registry::{Client, Document};

/// Largest statement that is read.
const LIMIT: u64 = 64 << 20;
/// Manifests with statements that are read of one image.
const MOST: usize = 32;
/// The annotation of a layer that says what its statement states.
const PREDICATE: &str = "in-toto.io/predicate-type";

/// What is attested, by platform.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attested {
    /// Lists of packages: `SPDX`, and `AdditionalSPDXs` where there are several.
    pub sbom: BTreeMap<String, Value>,
    /// How images were made: `SLSA`.
    pub provenance: BTreeMap<String, Value>,
}

/// Reads what an index has of its `images`.
pub(super) async fn read(
    client: &Arc<Client>,
    at: &Location,
    listing: &Listing,
    images: &[(String, Entry)],
) -> Result<Attested, Diagnostic> {
    let mut attested = Attested::default();
    for (platform, image) in images {
        let about = |entry: &&Entry| {
            REFERENCES.iter().any(|key| entry.annotations.get(*key).is_some_and(|d| *d == image.digest.as_str()))
        };
        for entry in listing.manifests.iter().filter(about).take(MOST) {
            let fetched = shelf::fetch(client, &at.beside(&entry.digest)).await?;
            let Document::Manifest(manifest) = &fetched.document else { continue };
            of_image(client, at, manifest, platform, &mut attested).await?;
        }
    }
    Ok(attested)
}

async fn of_image(
    client: &Arc<Client>,
    at: &Location,
    manifest: &Manifest,
    platform: &str,
    attested: &mut Attested,
) -> Result<(), Diagnostic> {
    let mut has_provenance = false;
    for layer in &manifest.layers {
        let kind = layer.annotations.get(PREDICATE).map_or("", String::as_str);
        match kind {
            "https://spdx.dev/Document" if is_statement(layer) => {
                let predicate = predicate(client, at, layer).await?;
                add_sbom(
                    attested.sbom.entry(platform.to_owned()).or_insert_with(|| Value::Object(Map::new())),
                    predicate,
                );
            }
            // The first of a manifest counts.
            kind if kind.starts_with("https://slsa.dev/provenance/") && is_statement(layer) && !has_provenance => {
                has_provenance = true;
                let predicate = predicate(client, at, layer).await?;
                attested.provenance.insert(platform.to_owned(), serde_json::json!({"SLSA": predicate}));
            }
            _ => {}
        }
    }
    Ok(())
}

fn add_sbom(sbom: &mut Value, predicate: Value) {
    let Value::Object(members) = sbom else { return };
    if !members.contains_key("SPDX") {
        members.insert("SPDX".into(), predicate);
        return;
    }
    let more = members.entry("AdditionalSPDXs").or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(more) = more {
        more.push(predicate);
    }
}

fn is_statement(layer: &Descriptor) -> bool {
    layer.media_type == "application/vnd.in-toto+json" || is_envelope(layer)
}

fn is_envelope(layer: &Descriptor) -> bool {
    layer.media_type.starts_with("application/vnd.in-toto.") && layer.media_type.ends_with("+dsse")
}

async fn predicate(client: &Arc<Client>, at: &Location, layer: &Descriptor) -> Result<Value, Diagnostic> {
    let bytes = shelf::small(client, at, layer, LIMIT).await?;
    let told = |why: String| {
        Diagnostic::new(Kind::Remote, format!("the attestation {} of {at} is not readable: {why}", layer.digest))
    };
    if is_envelope(layer) { inside(&bytes).and_then(|inner| parse(&inner)) } else { parse(&bytes) }.map_err(told)
}

/// Returns what a statement states.
///
/// # Errors
///
/// With the reason, if it is none.
pub fn parse(statement: &[u8]) -> Result<Value, String> {
    #[derive(serde::Deserialize)]
    struct Statement {
        #[serde(default)]
        predicate: Value,
    }
    serde_json::from_slice::<Statement>(statement)
        .map(|statement| statement.predicate)
        .map_err(|error| error.to_string())
}

/// Takes a statement out of its envelope (DSSE).
///
/// # Errors
///
/// With the reason, if it is none.
pub fn inside(envelope: &[u8]) -> Result<Vec<u8>, String> {
    #[derive(serde::Deserialize)]
    struct Envelope {
        payload: String,
    }
    let envelope: Envelope = serde_json::from_slice(envelope).map_err(|error| error.to_string())?;
    STANDARD.decode(envelope.payload).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_read_with_and_without_an_envelope() {
        let statement = br#"{"_type":"x","predicate":{"a":[1]}}"#;
        assert_eq!(parse(statement), Ok(serde_json::json!({"a": [1]})));
        let envelope = format!(r#"{{"payload":"{}","signatures":[]}}"#, STANDARD.encode(statement));
        assert_eq!(inside(envelope.as_bytes()), Ok(statement.to_vec()));
        assert_eq!(parse(b"{}"), Ok(Value::Null));
        assert!(parse(b"[").is_err() && inside(b"{}").is_err() && inside(br#"{"payload":"*"}"#).is_err());
    }

    #[test]
    fn lists_of_packages_are_kept_all() {
        let mut sbom = Value::Object(Map::new());
        (1..4).for_each(|n| add_sbom(&mut sbom, n.into()));
        assert_eq!(sbom, serde_json::json!({"SPDX": 1, "AdditionalSPDXs": [2, 3]}));
    }
}
