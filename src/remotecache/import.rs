//! A cache from where it lies to graphs that can be asked.
//!
//! In: a [`Place`]. Out: one graph per cache there: a cache manifest has one, an image that carries its cache one per platform.

use std::collections::BTreeMap;

use super::RemoteCacheError;
use super::inline;
use super::manifest::{self, Content};
use super::place::Place;
use super::read::{self, CONFIG_LIMIT, Imported};
use crate::image::{Descriptor, Manifest, media};
use crate::registry::MANIFEST_LIMIT;

/// Platforms of an image whose caches are read.
const IMAGES: usize = 32;
/// Indexes in indexes that are followed.
const DEPTH: usize = 3;

/// Reads the caches of a place.
pub async fn import(place: &dyn Place) -> Result<Vec<Imported>, RemoteCacheError> {
    let (descriptor, bytes) = place.root().await?;
    let stated = Some(descriptor.media_type.as_str()).filter(|kind| !kind.is_empty());
    match manifest::decode(&bytes, stated)? {
        Content::Cache { config, layers, explained } => {
            let bytes = match config.embedded() {
                Some(bytes) => bytes.into(),
                None => place.document(&config, CONFIG_LIMIT).await?,
            };
            let mut imported = Imported::new(read::parse(&bytes)?, layers)?;
            imported.explained = explained;
            Ok(vec![imported])
        }
        Content::Image(manifest) => Ok(image(place, &manifest).await?.into_iter().collect()),
        Content::Images(entries) => images(place, entries).await,
    }
}

async fn images(place: &dyn Place, entries: Vec<Descriptor>) -> Result<Vec<Imported>, RemoteCacheError> {
    let known = |d: &Descriptor| media::is_manifest(&d.media_type) || media::is_index(&d.media_type);
    let level = |entries: Vec<Descriptor>, depth: usize| entries.into_iter().filter(known).map(move |e| (e, depth));
    let mut open: Vec<(Descriptor, usize)> = level(entries, 1).collect();
    let (mut found, mut failed) = (Vec::new(), None);
    for _ in 0..IMAGES {
        let Some((entry, depth)) = open.pop() else { break };
        let bytes = place.document(&entry, MANIFEST_LIMIT).await?;
        match manifest::decode(&bytes, Some(&entry.media_type))? {
            // One platform's image says nothing of the others.
            Content::Image(manifest) => match image(place, &manifest).await {
                Ok(cache) => found.extend(cache),
                Err(error @ RemoteCacheError::Silent { .. }) => return Err(error),
                Err(error) => failed = failed.or(Some(error)),
            },
            Content::Images(entries) if depth < DEPTH => open.extend(level(entries, depth + 1)),
            Content::Images(_) | Content::Cache { .. } => {}
        }
    }
    match failed {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

/// Reads the cache in an image's configuration; none if there is none.
async fn image(place: &dyn Place, manifest: &Manifest) -> Result<Option<Imported>, RemoteCacheError> {
    if !matches!(manifest.config.media_type.as_str(), media::OCI_CONFIG | media::DOCKER_CONFIG) {
        return Ok(None);
    }
    let bytes = place.document(&manifest.config, crate::registry::CONFIG_LIMIT).await?;
    let Some((config, layers)) = inline::decode(&bytes, manifest)? else { return Ok(None) };
    let layers: BTreeMap<_, _> = layers.into_iter().map(|layer| (layer.descriptor.digest.clone(), layer)).collect();
    Imported::new(config, layers).map(Some)
}
