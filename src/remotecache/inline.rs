//! A cache inside an image's configuration: `moby.buildkit.cache.v0` (cache specification 3.8).
//!
//! In and out: records whose layers are those of the image, by position.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::RemoteCacheError;
use super::config::{CacheConfig, CacheLayer, CacheRecord, ChainedResult, Timestamp};
use super::manifest::is_time;
use super::read::RemoteLayer;
use super::write::Written;
use crate::digest::{DiffId, Digest};
use crate::image::media::Compression;
use crate::image::{Descriptor, ImageConfig, Manifest, canonical};
use crate::layer::Toc;

#[derive(Deserialize)]
struct Carrier {
    #[serde(default, rename = "moby.buildkit.cache.v0")]
    cache: Option<String>,
}

/// Reads the cache in an image's configuration, as a config of its own with the image's layers; none if there is none.
pub(super) fn decode(
    bytes: &[u8],
    manifest: &Manifest,
) -> Result<Option<(CacheConfig, Vec<RemoteLayer>)>, RemoteCacheError> {
    let invalid = |error: &dyn std::fmt::Display| RemoteCacheError::invalid(format!("the image's cache: {error}"));
    let carrier: Carrier = serde_json::from_slice(bytes).map_err(|e| invalid(&e))?;
    let Some(cache) = carrier.cache.filter(|cache| !cache.is_empty()) else { return Ok(None) };
    let records = STANDARD.decode(cache).map_err(|e| invalid(&e))?;
    let records: Option<Vec<CacheRecord>> = serde_json::from_slice(&records).map_err(|e| invalid(&e))?;
    let config: ImageConfig = serde_json::from_slice(bytes).map_err(|e| invalid(&e))?;
    if config.rootfs.diff_ids.len() != manifest.layers.len() {
        tracing::debug!("an image is left out whose configuration and manifest differ in their number of layers");
        return Ok(None);
    }
    let mut history = config.history.iter().filter(|entry| !entry.empty_layer);
    let mut layers = Vec::new();
    for (descriptor, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
        let told = history.next().cloned().unwrap_or_default();
        let created = told.created.filter(|text| is_time(text));
        layers.push(layer(descriptor, diff_id, created, told.created_by)?);
    }
    let chain = layers.iter().enumerate().map(|(number, layer): (usize, &RemoteLayer)| CacheLayer {
        blob: layer.descriptor.digest.clone(),
        parent: number as i64 - 1,
        annotations: None,
    });
    Ok(Some((CacheConfig { layers: chain.collect(), records: records.unwrap_or_default() }, layers)))
}

fn layer(
    descriptor: &Descriptor,
    diff_id: &DiffId,
    created: Option<String>,
    description: String,
) -> Result<RemoteLayer, RemoteCacheError> {
    let unknown = || RemoteCacheError::invalid(format!("{:?} is no layer", descriptor.digest));
    let compression = Compression::of_layer(&descriptor.media_type).ok_or_else(unknown)?;
    let descriptor = Descriptor {
        annotations: Toc::read(&descriptor.annotations).iter().flat_map(Toc::annotations).collect(),
        ..Descriptor::new(compression.oci_layer(), descriptor.digest.clone(), descriptor.size)
    };
    Ok(RemoteLayer { descriptor, diff_id: diff_id.clone(), created, description })
}

/// Returns the records of a config as an image of these layers carries them, or none if none of them leads to its layers.
///
/// What is no stack of the image's lowest layers is listed layer by layer; BuildKit writes no time for it.
pub fn encode(written: &Written, image: &[Digest]) -> Option<Vec<u8>> {
    let mut places: BTreeMap<&Digest, usize> = BTreeMap::new();
    for (place, digest) in image.iter().enumerate() {
        places.insert(digest, place);
    }
    let mut any = false;
    let mut records = written.config.records.clone();
    for record in &mut records {
        let mut results = Vec::new();
        for mut result in std::mem::take(&mut record.results) {
            let blobs = blobs(written, result.layer);
            let Some(list) = blobs.iter().map(|blob| places.get(blob).map(|place| *place as i64)).collect() else {
                continue;
            };
            any = true;
            if blobs.len() <= image.len() && blobs.iter().zip(image).all(|(blob, layer)| *blob == layer) {
                result.layer = blobs.len() as i64 - 1;
                results.push(result);
            } else {
                record.chains.push(ChainedResult { layers: list, created_at: Timestamp::default() });
            }
        }
        record.results = results;
    }
    any.then(|| canonical::to_vec(&records))
}

/// Returns the blobs of a result, bottom first.
fn blobs(written: &Written, top: i64) -> Vec<&Digest> {
    let layers = &written.config.layers;
    let below = |number: &usize| usize::try_from(layers[*number].parent).ok();
    let mut found: Vec<&Digest> =
        std::iter::successors(usize::try_from(top).ok(), below).map(|number| &layers[number].blob).collect();
    found.reverse();
    found
}
