//! Writes what a build solved as caches for others: into directories, registries, and the image's own configuration.
//!
//! In: the solver's records, what `--cache-to` names. Out: documents and layers, through the exporters of images, as a cache has
//! the shape of one. The image is written first; a cache that cannot be written is a warning unless the user wants it to be an
//! error.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::Build;
use super::blobs::BuildBlobs;
use super::held::{Extent, Held, Others};
use super::packer::{Packer, Packing};
use super::steps::{Shown, Step};
use crate::diag::{Diagnostic, Kind};
use crate::digest::Digest;
use crate::export::image::{Document, PlatformImage};
use crate::export::layout::{self, Over};
use crate::export::push::{Naming, Pusher};
use crate::export::stop::Stop;
use crate::export::{Blobs, ExportLayer, ExportSpec, Image};
use crate::image::media::Compression;
use crate::image::{Descriptor, Platform, Reference};
use crate::layer::Toc;
use crate::ops::Tree;
use crate::progress::{Event, Warning};
use crate::remotecache::explained;
use crate::remotecache::manifest;
use crate::remotecache::merge;
use crate::remotecache::spec::{LayerChoice, Store};
use crate::remotecache::write::{self, Written};
use crate::remotecache::{ExportTarget, Mode, RemoteLayer, config, inline};
use crate::snapshot::{Chain, LayerId};
use crate::solver::{Exported, ItemId, RecordGraph};

/// Larger configs are refused by BuildKit.
const BUILDKIT_LIMIT: usize = 1 << 20;

/// Writers of one directory that may be quicker, one after the other, before it is written over what they wrote.
const WRITERS: usize = 64;

/// The records of a build, ready to be written.
pub(super) struct Caches<'a> {
    pub(super) build: &'a Build,
    pub(super) records: &'a Exported<Tree>,
    pub(super) packer: &'a Packer,
    pub(super) blobs: &'a Arc<BuildBlobs>,
    /// Repositories that hold layers, for mounting on push.
    pub(super) origins: &'a BTreeMap<Digest, Vec<Reference>>,
    pub(super) stop: &'a Stop,
    /// Whether that is all there is to tell.
    pub(super) extent: Extent,
}

impl From<LayerChoice> for Packing {
    fn from(choice: LayerChoice) -> Self {
        Self::new(choice.kind, choice.level, choice.force)
    }
}

/// Returns whether the layers of every step are wanted.
pub(super) fn need_all(targets: &[ExportTarget]) -> bool {
    targets.iter().any(|target| target.mode == Mode::Max)
}

/// Returns whether layers must be here in a form they may not have elsewhere.
pub(super) fn need_bytes(targets: &[ExportTarget]) -> bool {
    targets.iter().any(|target| target.layers.force)
}

impl Caches<'_> {
    /// Writes all caches but those inside images.
    ///
    /// # Errors
    ///
    /// That of a cache whose failure the user wants to know as one of the build.
    pub(super) async fn write_all(&self) -> Result<(), Diagnostic> {
        for (target, held) in self.build.setup.caches_to.iter().zip(&self.build.held) {
            let (Some((name, part)), Some(held)) = (titles(&target.store), held) else { continue };
            let work = |step: Step| async move { step.part(&part, self.write(target, held)).await };
            let Err(Shown(diagnostic)) = self.build.steps.run(&name, work).await else {
                self.sweep(&target.store).await;
                continue;
            };
            if self.build.setup.cache_strict || target.ignore_error == Some(false) {
                return Err(diagnostic.while_doing("failed to export the cache"));
            }
            self.warn(format!("the cache was not exported: {}", diagnostic.message));
        }
        Ok(())
    }

    /// Removes what the directory of a cache no longer needs, where that is asked for.
    async fn sweep(&self, store: &Store) {
        let Store::Local { dest, reset: true, .. } = store else { return };
        let place = dest.clone();
        let swept = match tokio::task::spawn_blocking(move || layout::sweep(&place)).await {
            Ok(Ok(true)) => return,
            Ok(Ok(false)) => "another build writes there".to_owned(),
            Ok(Err(error)) => crate::diag::chain(&error),
            Err(error) => error.to_string(),
        };
        self.warn(format!("nothing was removed from the cache {}: {swept}", dest.display()));
    }

    fn warn(&self, text: String) {
        self.build.sink.send(Event::Warning(Warning::notice(text)));
    }

    async fn write(&self, target: &ExportTarget, held: &Held) -> Result<(), Shown> {
        let graph = self.layers(self.records.graph.clone(), target.mode, target.layers.into()).await.map_err(Shown)?;
        let own = write::write(&graph);
        if own.layers.is_empty() {
            // What little a failed build leaves is no news.
            if self.records.targets.iter().any(|items| !items.is_empty()) {
                self.warn("no cache was exported: no step has a result to keep".into());
            }
            return Ok(());
        }
        for _ in 0..WRITERS {
            let others = held.others(self.extent).await;
            let merged = merged(&graph, &own, &others);
            if let Some(is_written) = self.written(target, merged, &others).await.map_err(Shown)? {
                return if is_written { Ok(()) } else { continue };
            }
            break;
        }
        self.send(target, own, &Over::Any).await.map(drop).map_err(Shown)
    }

    /// Writes what is merged; none if it cannot be had in whole, as layers that another build has written may be gone.
    async fn written(
        &self,
        target: &ExportTarget,
        (written, is_merged): (Written, bool),
        others: &Others,
    ) -> Result<Option<bool>, Diagnostic> {
        match self.send(target, written, &Over::Only(others.digest.clone())).await {
            Err(diagnostic) if is_merged => {
                tracing::debug!("what another build wrote is not merged: {}", diagnostic.message);
                Ok(None)
            }
            sent => sent.map(Some),
        }
    }

    /// Returns whether it was written: it is not where another build has just written something else.
    async fn send(&self, target: &ExportTarget, written: Written, over: &Over) -> Result<bool, Diagnostic> {
        let image = Arc::new(self.image(target, written));
        match &target.store {
            Store::Inline => Ok(true),
            Store::Local { dest, tag, .. } => self.local(image, dest, (tag, over)).await,
            // A registry replaces whatever there is.
            Store::Registry { reference, .. } => self.push(image, reference).await.map(|()| true),
        }
    }

    /// Returns the records for an image to carry: of one target, and only those whose layers the image has.
    pub(super) async fn inline(
        &self,
        target: usize,
        image: &[Digest],
        packing: Packing,
    ) -> Result<Option<Vec<u8>>, Diagnostic> {
        let graph = match self.records.targets.len() {
            1 => self.records.graph.clone(),
            _ => self.records.of_target(target),
        };
        let written = write::write(&self.layers(graph, Mode::Min, packing).await?);
        Ok(inline::encode(&written, image))
    }

    /// Turns results into layers: those of the targets, and of all in mode max, are made; of others those that are there.
    async fn layers(
        &self,
        graph: RecordGraph<Tree>,
        mode: Mode,
        packing: Packing,
    ) -> Result<RecordGraph<Vec<RemoteLayer>>, Diagnostic> {
        let targets: BTreeSet<&ItemId> = self.records.targets.iter().flatten().collect();
        let results = graph.items().filter_map(|(id, item)| Some((id, &item.result.as_ref()?.1)));
        // Those of the targets first: what they make is there for the others.
        let (first, rest): (Vec<_>, Vec<_>) = results.partition(|(id, _)| targets.contains(id));
        let mut found: BTreeMap<ItemId, Vec<RemoteLayer>> = BTreeMap::new();
        for (make, results) in [(true, first), (mode == Mode::Max, rest)] {
            for (id, tree) in results {
                if let Some(layers) = self.stack(tree, make, packing).await?.filter(|layers| !layers.is_empty()) {
                    found.insert(id.clone(), layers);
                }
            }
        }
        Ok(graph.map(|id, _| found.remove(id)))
    }

    async fn stack(&self, tree: &Tree, make: bool, packing: Packing) -> Result<Option<Vec<RemoteLayer>>, Diagnostic> {
        match tree {
            Tree::Context(_) => Ok(None),
            Tree::Lazy(lazy) => {
                self.blobs.add(tree);
                Ok(Some(lazy.layers.clone()))
            }
            Tree::Layers(chain) => self.packed(chain, make, packing).await,
        }
    }

    async fn packed(
        &self,
        chain: &Chain,
        make: bool,
        packing: Packing,
    ) -> Result<Option<Vec<RemoteLayer>>, Diagnostic> {
        let mut layers = Vec::new();
        for layer in chain.layers() {
            match self.layer(*layer, make, packing).await? {
                Some(layer) => layers.push(layer),
                None => return Ok(None),
            }
        }
        Ok(Some(layers))
    }

    async fn layer(&self, layer: LayerId, make: bool, packing: Packing) -> Result<Option<RemoteLayer>, Diagnostic> {
        let blob = match make {
            true => Some(self.packer.blob(layer, packing).await?),
            false => self.packer.known(layer, packing).await?,
        };
        let Some(blob) = blob else { return Ok(None) };
        let info = self.build.stations.snapshots.info(layer).map_err(|error| Diagnostic::from_error(&error))?;
        Ok(Some(RemoteLayer {
            descriptor: Descriptor {
                annotations: blob.toc.iter().flat_map(Toc::annotations).collect(),
                ..Descriptor::new(blob.compression.oci_layer(), blob.digest, blob.size)
            },
            diff_id: blob.diff_id,
            created: info.created,
            description: info.description,
        }))
    }

    /// Gives a cache the shape of an image, for the exporters.
    fn image(&self, target: &ExportTarget, written: Written) -> Image {
        let bytes = written.config.encode();
        if bytes.len() > BUILDKIT_LIMIT {
            self.warn("the exported cache has so many records that BuildKit will not read it (over 1 MiB)".into());
        }
        let config = Document { descriptor: Descriptor::of(config::MEDIA_TYPE, &bytes), bytes };
        let (media_type, bytes) =
            manifest::encode(target.form, &written.layers, &config.descriptor, self.annotations(target.mode));
        let manifest = Document { descriptor: Descriptor::of(media_type, &bytes), bytes };
        let layers = written.layers.into_iter().map(|layer| self.export_layer(layer)).collect();
        let platform = PlatformImage { platform: Platform::host(), config, manifest: manifest.clone(), layers };
        Image { root: manifest, platforms: vec![platform], created: None }
    }

    /// Mode min says nothing of steps whose results stay private, so nothing is said there of what they are made of.
    fn annotations(&self, mode: Mode) -> BTreeMap<String, String> {
        let recorder = self.build.recorder.as_ref().filter(|_| mode == Mode::Max);
        let said = recorder.and_then(|recorder| recorder.said());
        said.map(|text| (explained::ANNOTATION.to_owned(), text)).into_iter().collect()
    }

    fn export_layer(&self, layer: RemoteLayer) -> (Descriptor, ExportLayer) {
        let known = self.origins.get(&layer.descriptor.digest).into_iter().flatten().cloned();
        // The image was pushed before, and with it most of these layers; where one was not, the registry says so.
        let origins: Vec<Reference> = known.chain(self.pushed_to()).collect();
        let export = ExportLayer {
            diff_id: layer.diff_id,
            digest: layer.descriptor.digest.clone(),
            size: layer.descriptor.size,
            compression: Compression::of_layer(&layer.descriptor.media_type).unwrap_or_default(),
            created: layer.created,
            description: layer.description,
            origins,
            toc: Toc::read(&layer.descriptor.annotations),
        };
        (layer.descriptor, export)
    }

    fn pushed_to(&self) -> impl Iterator<Item = Reference> {
        let pushed = self.build.setup.exports.iter().filter_map(|export| match export {
            ExportSpec::Image(target) if target.push => target.image.names.first(),
            _ => None,
        });
        pushed.map(|name| Reference { tag: None, digest: None, ..name.clone() })
    }

    fn readable(&self) -> Arc<dyn Blobs> {
        Arc::new(self.stop.blobs(Arc::clone(self.blobs)))
    }

    async fn local(&self, image: Arc<Image>, dest: &Path, (tag, over): (&str, &Over)) -> Result<bool, Diagnostic> {
        let (dest, tag, over, blobs) = (dest.to_owned(), tag.to_owned(), over.clone(), self.readable());
        let work = move || layout::write_tagged(&image, (&tag, &over), &*blobs, &dest);
        match tokio::task::spawn_blocking(work).await {
            Ok(written) => written.map_err(|error| Diagnostic::from_error(&error)),
            Err(error) => Err(Diagnostic::new(Kind::Build, format!("an exporting thread ended unexpectedly: {error}"))),
        }
    }

    async fn push(&self, image: Arc<Image>, reference: &Reference) -> Result<(), Diagnostic> {
        let client = Arc::clone(&self.build.stations.client);
        let pusher = Pusher { client, blobs: self.readable(), observer: Arc::new(|_| ()) };
        let pushed = pusher.push(&image, std::slice::from_ref(reference), Naming::Tags).await;
        pushed.map_err(|error| Diagnostic::from_error(&error))
    }
}

/// Adds what others wrote, and says whether there was any; where the whole would be too large for BuildKit it stays out.
fn merged(graph: &RecordGraph<Vec<RemoteLayer>>, own: &Written, others: &Others) -> (Written, bool) {
    if others.caches.is_empty() {
        return (own.clone(), false);
    }
    let mut graph = graph.clone();
    others.caches.iter().for_each(|cache| merge::merge(&mut graph, cache));
    let written = write::write(&graph);
    if written.config.encode().len() > BUILDKIT_LIMIT { (own.clone(), false) } else { (written, true) }
}

/// The step and its part, as BuildKit words them; none for what is no step of its own.
fn titles(store: &Store) -> Option<(String, String)> {
    match store {
        Store::Inline => None,
        Store::Local { dest, .. } => Some((
            format!("exporting cache to client directory {}", dest.display()),
            "preparing build cache for export".into(),
        )),
        Store::Registry { reference, .. } => {
            Some((format!("exporting cache to registry {reference}"), "preparing build cache for export".into()))
        }
    }
}
