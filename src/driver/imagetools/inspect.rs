//! `imagetools inspect`: what a name leads to.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::try_join_all;

use super::attestations::{self, Attested};
use super::location::Location;
use super::{Fetched, shelf};
use crate::diag::Diagnostic;
use crate::driver::Setup;
use crate::export::merge::{Entry, Listing};
use crate::image::{ImageConfig, Platform};
use crate::registry::{CONFIG_LIMIT, Client, Document};

/// Annotations of what belongs to an image and is none: the image's digest.
pub(super) const REFERENCES: [&str; 2] = ["com.docker.reference.digest", "vnd.docker.reference.digest"];
/// Images of an index whose configurations are read.
const MOST: usize = 100;

/// What a name leads to.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// The name, with its tag.
    pub name: Location,
    /// What points to the manifest or index.
    pub entry: Entry,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What it lists, if it is an index.
    pub listing: Option<Listing>,
    /// The configurations by platform, where they were asked for.
    pub images: BTreeMap<String, ImageConfig>,
    /// What is attested of them, where it was asked for.
    pub attested: Attested,
}

/// What is wanted of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// The manifest or index.
    Manifest,
    /// The configurations too.
    Images,
    /// What is attested too.
    Attestations,
}

/// Looks at an image.
///
/// # Errors
///
/// If it cannot be had.
pub async fn inspect(setup: Setup, name: Location, wanted: Wanted) -> Result<Inspected, Diagnostic> {
    let client = setup.client()?;
    let fetched = shelf::fetch(&client, &name).await?;
    let listing = match fetched.document {
        Document::Index(_) => Some(Listing::parse(&fetched.bytes).map_err(|error| Diagnostic::from_error(&error))?),
        Document::Manifest(_) => None,
    };
    let read = match wanted {
        Wanted::Images | Wanted::Attestations => configurations(&client, &name, &fetched, listing.as_ref()).await?,
        Wanted::Manifest => Vec::new(),
    };
    let attested = match (&listing, wanted) {
        (Some(listing), Wanted::Attestations) => {
            let images: Vec<(String, Entry)> =
                read.iter().map(|read| (read.platform.clone(), read.entry.clone())).collect();
            attestations::read(&client, &name, listing, &images).await?
        }
        _ => Attested::default(),
    };
    let images = read.into_iter().map(|read| (read.platform, read.config)).collect();
    Ok(Inspected { name, entry: fetched.entry, bytes: fetched.bytes, listing, images, attested })
}

/// An image whose configuration was read.
struct Read {
    platform: String,
    entry: Entry,
    config: ImageConfig,
}

async fn configurations(
    client: &Arc<Client>,
    name: &Location,
    fetched: &Fetched,
    listing: Option<&Listing>,
) -> Result<Vec<Read>, Diagnostic> {
    let Some(listing) = listing else {
        return Ok(configuration(client, name, fetched, None).await?.into_iter().collect());
    };
    let belongs = |entry: &Entry| REFERENCES.iter().any(|key| entry.annotations.contains_key(*key));
    let images = listing.manifests.iter().filter(|entry| !entry.is_index() && !belongs(entry));
    let reads = images.take(MOST).map(|entry| async move {
        let place = name.beside(&entry.digest);
        let fetched = shelf::fetch(client, &place).await?;
        configuration(client, &place, &fetched, entry.platform.as_ref()).await
    });
    Ok(try_join_all(reads).await?.into_iter().flatten().collect())
}

async fn configuration(
    client: &Arc<Client>,
    name: &Location,
    fetched: &Fetched,
    platform: Option<&Platform>,
) -> Result<Option<Read>, Diagnostic> {
    let Document::Manifest(manifest) = &fetched.document else { return Ok(None) };
    let bytes = shelf::small(client, name, &manifest.config, CONFIG_LIMIT).await?;
    // An artifact's configuration is none of an image.
    let config: ImageConfig = serde_json::from_slice(&bytes).unwrap_or_default();
    let own = Platform { variant: config.variant.clone(), ..Platform::new(&config.os, &config.architecture) };
    let platform = platform.unwrap_or(&own).clone().normalized().to_string();
    Ok(Some(Read { platform, entry: fetched.entry.clone(), config }))
}
