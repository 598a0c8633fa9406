//! `imagetools create`: a new image of images that are there.
//!
//! Order: all sources are read, then put together, then what the new one lists is copied to each repository, then it gets its
//! names there: nobody sees a name whose content is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::try_join_all;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::copy::Way;
use super::location::Location;
use super::{Fetched, shelf};
use crate::diag::{Diagnostic, Kind};
use crate::digest::Digest;
use crate::driver::steps::{Shown, Steps};
use crate::driver::{Setup, canceled};
use crate::export::destination;
use crate::export::merge::{self, Entry, MergeOptions, Merged};
use crate::image::{Descriptor, ImageConfig, Platform};
use crate::progress::Sink;
use crate::registry::{CONFIG_LIMIT, Client, Document};

/// What a new image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A name.
    Name(Location),
    /// A digest in the repository that all others name.
    Digest(Digest),
    /// What is to be said of a manifest of that repository.
    Descriptor(Box<Entry>),
}

/// What is to be made.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    /// Of what, in this order.
    pub sources: Vec<Source>,
    /// Its names.
    pub tags: Vec<Location>,
    /// How it is put together.
    pub options: MergeOptions,
    /// Whether it is only shown.
    pub dry_run: bool,
    /// File for what came of it.
    pub metadata_file: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Digest of the image.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A source with the repository it is in.
struct Placed {
    name: Location,
    said: Option<Entry>,
}

/// Makes an image of images.
///
/// # Errors
///
/// The first thing that could not be had, put together or stored.
pub async fn create(
    setup: Setup,
    request: CreateRequest,
    sink: Arc<dyn Sink>,
    cancel: CancellationToken,
) -> Result<Created, Diagnostic> {
    if let Some(path) = &request.metadata_file {
        destination::check_file(path).map_err(|error| Diagnostic::from_error(&error))?;
    }
    tokio::select! {
        created = run(setup, request, sink) => created,
        () = cancel.cancelled() => Err(canceled()),
    }
}

async fn run(setup: Setup, request: CreateRequest, sink: Arc<dyn Sink>) -> Result<Created, Diagnostic> {
    let client = setup.client()?;
    let placed = place(&request.sources, &request.tags)?;
    let sources = try_join_all(placed.iter().map(|source| read(&client, source))).await?;
    let merged = merge::merge(&sources, &request.options).map_err(|error| Diagnostic::from_error(&error))?;
    let created = Created { digest: merged.entry.digest.clone(), bytes: merged.bytes.clone() };
    if request.dry_run {
        return Ok(created);
    }
    for tag in &request.tags {
        check_digest(tag, &created.digest)?;
    }
    let from: Vec<&Location> = placed.iter().map(|source| &source.name).collect();
    let mut repositories: BTreeMap<String, Vec<&Location>> = BTreeMap::new();
    for tag in &request.tags {
        repositories.entry(tag.name()).or_default().push(tag);
    }
    let steps = Steps::new(sink);
    for (repository, tags) in &repositories {
        push(&client, &steps, (repository, tags), &merged, &from).await?;
    }
    if let Some(path) = &request.metadata_file {
        let names = repositories.into_keys().collect::<Vec<_>>().join(",");
        let text = json!({"containerimage.descriptor": merged.entry, "image.name": names});
        let bytes = serde_json::to_vec_pretty(&text).expect("plain data with string keys");
        destination::write_file(path, &bytes).map_err(|error| Diagnostic::from_error(&error))?;
    }
    Ok(created)
}

/// A digest of a target is what must come out.
fn check_digest(tag: &Location, digest: &Digest) -> Result<(), Diagnostic> {
    match tag.digest() {
        Some(wanted) if wanted != digest => {
            let told = Diagnostic::new(Kind::Usage, format!("the new image is {digest}, and {tag} wants another"));
            Err(told.hinted("leave out the digest, or name a tag"))
        }
        _ => Ok(()),
    }
}

/// Finds the repositories of sources that name none.
fn place(sources: &[Source], tags: &[Location]) -> Result<Vec<Placed>, Diagnostic> {
    let named = || sources.iter().filter_map(|source| if let Source::Name(name) = source { Some(name) } else { None });
    let repositories: BTreeSet<String> = named().chain(tags).map(Location::name).collect();
    let default = named().chain(tags).next().filter(|_| repositories.len() == 1);
    let in_default = |digest: &Digest, said: Option<Entry>| match default {
        Some(name) => Ok(Placed { name: name.beside(digest), said }),
        None => {
            let problem = if repositories.is_empty() { "no repository is" } else { "several repositories are" };
            let text = format!("{problem} named, so it is not known where {digest} is");
            Err(Diagnostic::new(Kind::Usage, text).hinted(format!("write `REPOSITORY@{digest}`")))
        }
    };
    let place = |source: &Source| match source {
        Source::Name(name) => Ok(Placed { name: name.clone(), said: None }),
        Source::Digest(digest) => in_default(digest, None),
        Source::Descriptor(entry) => in_default(&entry.digest, Some((**entry).clone())),
    };
    sources.iter().map(place).collect()
}

/// Reads a source; of a manifest its configuration too, which knows the platform.
async fn read(client: &Arc<Client>, source: &Placed) -> Result<merge::Source, Diagnostic> {
    let Fetched { mut entry, bytes, document } = shelf::fetch(client, &source.name).await?;
    if let Some(said) = &source.said {
        entry = entry.overlaid(said).map_err(|error| Diagnostic::from_error(&error))?;
    }
    if let Document::Manifest(manifest) = &document {
        let platform = entry.platform.take().unwrap_or_default();
        let whole = !platform.os.is_empty() && !platform.architecture.is_empty();
        entry.platform = Some(match whole {
            true => platform,
            false => completed(platform, &shelf::small(client, &source.name, &manifest.config, CONFIG_LIMIT).await?),
        });
    }
    Ok(merge::Source { entry, bytes })
}

/// Takes from a configuration what is not known of the platform.
fn completed(platform: Platform, config: &[u8]) -> Platform {
    // What is no configuration of an image, such as an artifact's, knows no platform.
    let config: ImageConfig = serde_json::from_slice(config).unwrap_or_default();
    let own = Platform { variant: config.variant, ..Platform::new(&config.os, &config.architecture) }.normalized();
    let mut platform = platform;
    if platform.architecture.is_empty() {
        platform.architecture = own.architecture;
        if platform.variant.is_empty() {
            platform.variant = own.variant;
        }
    }
    if platform.os.is_empty() {
        platform.os = own.os;
    }
    platform
}

async fn push(
    client: &Arc<Client>,
    steps: &Steps,
    (repository, tags): (&str, &[&Location]),
    merged: &Merged,
    from: &[&Location],
) -> Result<(), Diagnostic> {
    let work = |step: crate::driver::steps::Step| async move {
        for (entry, source) in &merged.parts {
            Way { client, from: from[*source], to: tags[0], step: &step }.copy(entry).await.map_err(Shown)?;
        }
        for tag in tags {
            let part = format!("pushing {} to {tag}", merged.entry.digest);
            let bytes: bytes::Bytes = merged.bytes.clone().into();
            let entry = Descriptor::of(&merged.entry.media_type, &bytes);
            let pushed = async { shelf::name(client, tag, (&entry, &bytes)).await.map_err(Shown) };
            step.part(&part, pushed).await?;
        }
        Ok(())
    };
    steps.run(&format!("[internal] pushing {repository}"), work).await.map_err(|Shown(diagnostic)| diagnostic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Location {
        Location::parse(text).expect(text)
    }

    fn digest() -> Digest {
        Digest::compute(b"x")
    }

    #[test]
    fn digests_are_of_the_one_repository_that_is_named() {
        let told = |sources: &[Source], tags: &[&str]| {
            let tags: Vec<Location> = tags.iter().map(|tag| name(tag)).collect();
            place(sources, &tags).map(|placed| placed.iter().map(|p| p.name.to_string()).collect::<Vec<_>>())
        };
        let bare = Source::Digest(digest());
        let at = |repository: &str| format!("{repository}@{}", digest());
        assert_eq!(told(std::slice::from_ref(&bare), &["r.io/a:1", "r.io/a:2"]).expect("placed"), [at("r.io/a")]);
        let named = Source::Name(name("r.io/a:x"));
        let both = [named, bare.clone()];
        assert_eq!(told(&both, &[]).expect("placed"), ["r.io/a:x".to_owned(), at("r.io/a")]);
        for (sources, tags) in [(&both[..], &["r.io/b"][..]), (&both[1..], &[])] {
            let error = told(sources, tags).expect_err("no repository");
            assert!(error.hints[0].contains("REPOSITORY@sha256:"), "{error:?}");
        }
    }

    #[test]
    fn a_configuration_fills_in_what_is_not_known() {
        let config = br#"{"os":"linux","architecture":"arm64","variant":"v8"}"#;
        assert_eq!(completed(Platform::default(), config).to_string(), "linux/arm64");
        let known = Platform { architecture: "arm".into(), variant: "v7".into(), ..Platform::default() };
        assert_eq!(completed(known, config).to_string(), "linux/arm/v7");
        assert_eq!(completed(Platform::default(), b"\x00").to_string(), "unknown");
    }
}
