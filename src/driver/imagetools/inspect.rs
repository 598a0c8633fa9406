//! `imagetools inspect`: what a name leads to.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::try_join_all;

use super::{Fetched, fetch};
use crate::diag::Diagnostic;
use crate::driver::Setup;
use crate::export::merge::{Entry, Listing};
use crate::image::{ImageConfig, Platform, Reference};
use crate::registry::{CONFIG_LIMIT, Client, Document};

/// An annotation of what belongs to an image and is none.
const REFERENCE: &str = "vnd.docker.reference.digest";
/// Images of an index whose configurations are read.
const MOST: usize = 100;

/// What a name leads to.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// The name, with its tag.
    pub name: Reference,
    /// What points to the manifest or index.
    pub entry: Entry,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What it lists, if it is an index.
    pub listing: Option<Listing>,
    /// The configurations by platform, where they were asked for.
    pub images: BTreeMap<String, ImageConfig>,
}

/// Whether the configurations are wanted too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Images {
    /// They are.
    Wanted,
    /// The manifest or index is enough.
    Unwanted,
}

/// Looks at an image.
///
/// # Errors
///
/// If it cannot be had.
pub async fn inspect(setup: Setup, name: Reference, images: Images) -> Result<Inspected, Diagnostic> {
    let (client, name) = (setup.client()?, name.with_default_tag());
    let fetched = fetch(&client, &name).await?;
    let listing = match fetched.document {
        Document::Index(_) => Some(Listing::parse(&fetched.bytes).map_err(|error| Diagnostic::from_error(&error))?),
        Document::Manifest(_) => None,
    };
    let images = match images {
        Images::Wanted => configurations(&client, &name, &fetched, listing.as_ref()).await?,
        Images::Unwanted => BTreeMap::new(),
    };
    Ok(Inspected { name, entry: fetched.entry, bytes: fetched.bytes, listing, images })
}

async fn configurations(
    client: &Arc<Client>,
    name: &Reference,
    fetched: &Fetched,
    listing: Option<&Listing>,
) -> Result<BTreeMap<String, ImageConfig>, Diagnostic> {
    let Some(listing) = listing else {
        return Ok(configuration(client, name, fetched, None).await?.into_iter().collect());
    };
    let images =
        listing.manifests.iter().filter(|entry| !entry.is_index() && !entry.annotations.contains_key(REFERENCE));
    let reads = images.take(MOST).map(|entry| async move {
        let place = Reference { tag: None, digest: Some(entry.digest.clone()), ..name.clone() };
        let fetched = fetch(client, &place).await?;
        configuration(client, &place, &fetched, entry.platform.as_ref()).await
    });
    Ok(try_join_all(reads).await?.into_iter().flatten().collect())
}

async fn configuration(
    client: &Arc<Client>,
    name: &Reference,
    fetched: &Fetched,
    platform: Option<&Platform>,
) -> Result<Option<(String, ImageConfig)>, Diagnostic> {
    let Document::Manifest(manifest) = &fetched.document else { return Ok(None) };
    let bytes = client.small_blob(name, &manifest.config, CONFIG_LIMIT).await;
    let bytes = bytes.map_err(|error| Diagnostic::from_error(&error))?;
    // An artifact's configuration is none of an image.
    let config: ImageConfig = serde_json::from_slice(&bytes).unwrap_or_default();
    let own = Platform { variant: config.variant.clone(), ..Platform::new(&config.os, &config.architecture) };
    Ok(Some((platform.unwrap_or(&own).clone().normalized().to_string(), config)))
}
