//! Writes what a build solved as caches for others: into directories, registries, and the image's own configuration.
//!
//! In: the solver's records, what `--cache-to` names. Out: documents and layers, through the exporters of images, as a cache has
//! the shape of one. The image is written first; a cache that cannot be written is a warning unless the user wants it to be an
//! error.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::blobs::BuildBlobs;
use super::held::{Extent, Held, Others};
use super::packer::{Packer, Packing};
use super::steps::{Shown, Step};
use super::uploader::Whom;
use super::{Build, Setup};
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
use crate::remotecache::manifest::{self, Form};
use crate::remotecache::merge;
use crate::remotecache::spec::{LayerChoice, Store};
use crate::remotecache::write::{self, Times, Written};
use crate::remotecache::{ExportTarget, Imported, Mode, RemoteLayer, config, inline};
use crate::snapshot::{Chain, LayerId};
use crate::solver::{Exported, ItemId, RecordGraph};

/// Larger configs are refused by BuildKit.
const BUILDKIT_LIMIT: usize = 1 << 20;

/// Configs up to this size are in the manifest of a registry's cache too: that takes less time than to ask for them.
const EMBEDDED: usize = 64 << 10;

/// Writers of one directory that may be quicker, one after the other, before it is written over what they wrote.
const WRITERS: usize = 64;

/// Times what cannot be had is left out before a cache is given up: what is left out costs the next build, not this one.
const ATTEMPTS: usize = 16;

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

/// Returns whether a failure of this cache is one of the build.
pub(super) fn must_be_written(setup: &Setup, target: &ExportTarget) -> bool {
    setup.cache_strict || target.ignore_error == Some(false)
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
            let (Some(name), Some(held)) = (title(&target.store), held) else { continue };
            let work = |step: Step| async move { self.write(target, held, &step).await };
            let Err(Shown(diagnostic)) = self.build.steps.run(&name, work).await else {
                self.sweep(&target.store).await;
                continue;
            };
            if must_be_written(&self.build.setup, target) {
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

    /// Makes the layers of a cache and writes it, in parts that are called as by BuildKit.
    async fn write(&self, target: &ExportTarget, held: &Held, step: &Step) -> Result<(), Shown> {
        let graph = step.part("preparing build cache for export", self.layers_for(target)).await?;
        step.part("sending cache export", self.write_rest(target, held, graph, step)).await
    }

    async fn layers_for(&self, target: &ExportTarget) -> Result<RecordGraph<Vec<RemoteLayer>>, Shown> {
        self.layers(self.records.graph.clone(), target.mode, target.layers.into()).await.map_err(Shown)
    }

    /// Writes a cache; results whose layers cannot be had are left out of it.
    async fn write_rest(
        &self,
        target: &ExportTarget,
        held: &Held,
        mut graph: RecordGraph<Vec<RemoteLayer>>,
        step: &Step,
    ) -> Result<(), Shown> {
        let (mut left_out, mut is_repacked) = (0, false);
        let mut attempts = 0;
        while let Err(failed) = self.write_graph(target, held, &graph, step).await {
            attempts += 1;
            if attempts == ATTEMPTS {
                return Err(failed);
            }
            if self.blobs.take_damaged() && !std::mem::replace(&mut is_repacked, true) {
                // What was damaged is gone, and is made or fetched anew.
                self.packer.forget();
                graph = self.layers_for(target).await?;
                continue;
            }
            let (rest, lost) = without(graph, &self.blobs.lost().await);
            if lost == 0 || rest.items().all(|(_, item)| item.result.is_none()) {
                return Err(failed);
            }
            (graph, left_out) = (rest, left_out + lost);
        }
        if left_out > 0 {
            self.warn(format!("{left_out} results were left out of the cache, as their layers can no longer be had"));
        }
        Ok(())
    }

    async fn write_graph(
        &self,
        target: &ExportTarget,
        held: &Held,
        graph: &RecordGraph<Vec<RemoteLayer>>,
        step: &Step,
    ) -> Result<(), Shown> {
        let own = write::write(graph, &self.times(&[]));
        if own.layers.is_empty() {
            // What little a failed build leaves is no news.
            if self.records.targets.iter().any(|items| !items.is_empty()) {
                self.warn("no cache was exported: no step has a result to keep".into());
            }
            return Ok(());
        }
        for _ in 0..WRITERS {
            let others = held.others(self.extent).await;
            let merged = self.merged(target, graph, (&own, &others));
            if let Some(is_written) = self.written(target, merged, &others, step).await.map_err(Shown)? {
                return if is_written { Ok(()) } else { continue };
            }
            break;
        }
        self.send(target, own, &Over::Any, step).await.map(drop).map_err(Shown)
    }

    /// Writes what is merged; none if it cannot be had in whole, as layers that another build has written may be gone.
    async fn written(
        &self,
        target: &ExportTarget,
        (written, is_merged): (Written, bool),
        others: &Others,
        step: &Step,
    ) -> Result<Option<bool>, Diagnostic> {
        match self.send(target, written, &Over::Only(others.digest.clone()), step).await {
            Err(diagnostic) if is_merged => {
                tracing::debug!("what another build wrote is not merged: {}", diagnostic.message);
                Ok(None)
            }
            sent => sent.map(Some),
        }
    }

    /// Returns whether it was written: it is not where another build has just written something else.
    async fn send(
        &self,
        target: &ExportTarget,
        written: Written,
        over: &Over,
        step: &Step,
    ) -> Result<bool, Diagnostic> {
        let (image, started) = (Arc::new(self.image(target, written)), SystemTime::now());
        let is_written = match &target.store {
            Store::Inline => true,
            Store::Local { dest, tag, .. } => self.local(Arc::clone(&image), dest, (tag, over)).await?,
            // A registry replaces whatever there is.
            Store::Registry { reference, .. } => {
                self.push(Arc::clone(&image), reference).await?;
                true
            }
        };
        if is_written {
            report(&image, target.form, (step, started));
        }
        Ok(is_written)
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
        let written = write::write(&self.layers(graph, Mode::Min, packing).await?, &self.times(&[]));
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
        let mut failed = None;
        for (make, results) in [(true, first), (mode == Mode::Max, rest)] {
            for (id, tree) in results {
                match self.stack(tree, make, packing).await {
                    Ok(layers) => found.extend(layers.filter(|layers| !layers.is_empty()).map(|l| (id.clone(), l))),
                    Err(diagnostic) if diagnostic.kind == Kind::DiskFull => return Err(diagnostic),
                    Err(diagnostic) => failed = failed.or(Some(diagnostic)),
                }
            }
        }
        match failed {
            Some(diagnostic) if found.is_empty() => return Err(diagnostic),
            Some(diagnostic) => self.warn(format!("not all results are in the cache: {}", diagnostic.message)),
            None => {}
        }
        Ok(graph.map(|id, _| found.remove(id)))
    }

    /// Returns how times are written that others wrote.
    fn times(&self, others: &[Imported]) -> Times {
        let imported = self.build.stations.learnt.times.get().cloned().unwrap_or_default();
        imported.into_iter().chain(others.iter().flat_map(Imported::times)).collect()
    }

    /// Adds what others wrote, and says whether there was any; where the whole would be too large for BuildKit it stays out.
    fn merged(
        &self,
        target: &ExportTarget,
        graph: &RecordGraph<Vec<RemoteLayer>>,
        (own, others): (&Written, &Others),
    ) -> (Written, bool) {
        if others.caches.is_empty() {
            return (own.clone(), false);
        }
        let mut graph = graph.clone();
        others.caches.iter().for_each(|cache| merge::merge(&mut graph, cache));
        let written = write::write(&graph, &self.times(&others.caches));
        let Documents { config, manifest } = Documents::of(target.form, &written, (BTreeMap::new(), false));
        let is_small = config.bytes.len().max(manifest.bytes.len()) <= BUILDKIT_LIMIT;
        if is_small { (written, true) } else { (own.clone(), false) }
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
        // BuildKit does not say of what was converted when it was made.
        let pulled = info.pulled();
        let is_converted = !pulled.is_empty() && pulled.iter().all(|known| known.digest != blob.digest);
        Ok(Some(RemoteLayer {
            descriptor: Descriptor {
                annotations: blob.toc.iter().flat_map(Toc::annotations).collect(),
                ..Descriptor::new(blob.compression.oci_layer(), blob.digest, blob.size)
            },
            diff_id: blob.diff_id,
            created: info.created.filter(|_| !(packing.is_forced() && is_converted)),
            description: info.description,
        }))
    }

    /// Gives a cache the shape of an image, for the exporters.
    fn image(&self, target: &ExportTarget, written: Written) -> Image {
        let is_remote = matches!(target.store, Store::Registry { .. });
        let extras = (self.annotations(target), is_remote);
        let Documents { config, manifest } = Documents::of(target.form, &written, extras);
        if config.bytes.len().max(manifest.bytes.len()) > BUILDKIT_LIMIT {
            let text = "the exported cache has so many records or layers that BuildKit will not read it (over 1 MiB)";
            self.warn(text.into());
        }
        let layers = written.layers.into_iter().map(|layer| self.export_layer(layer)).collect();
        let platform = PlatformImage { platform: Platform::host(), config, manifest: manifest.clone(), layers };
        Image { root: manifest, platforms: vec![platform], created: None }
    }

    /// Mode min says nothing of steps whose results stay private, so nothing is said there of what they are made of.
    fn annotations(&self, target: &ExportTarget) -> BTreeMap<String, String> {
        let recorder = self.build.recorder.as_ref().filter(|_| target.mode == Mode::Max && target.explain);
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
        let suspects = self.build.stations.learnt.damaged.found();
        let work = move || layout::write_tagged(&image, (&tag, &over), (&*blobs, &suspects), &dest);
        match tokio::task::spawn_blocking(work).await {
            Ok(written) => written.map_err(|error| Diagnostic::from_error(&error)),
            Err(error) => Err(Diagnostic::new(Kind::Build, format!("an exporting thread ended unexpectedly: {error}"))),
        }
    }

    async fn push(&self, image: Arc<Image>, reference: &Reference) -> Result<(), Diagnostic> {
        let client = Arc::clone(&self.build.stations.client);
        let pusher = Pusher { client, blobs: self.readable(), observer: Arc::new(|_| ()) };
        let settled = self.packer.uploader().settle(Whom::Cache);
        let pushed = pusher.push_after(settled, &image, std::slice::from_ref(reference), Naming::Tags).await;
        pushed.map_err(|error| Diagnostic::from_error(&error))
    }
}

/// What is written of a cache besides its layers.
struct Documents {
    config: Document,
    manifest: Document,
}

impl Documents {
    /// Makes them; a small config is in the manifest too if it `embeds`. What is not needed stays out where BuildKit could not
    /// read the manifest with it.
    fn of(form: Form, written: &Written, (annotations, embeds): (BTreeMap<String, String>, bool)) -> Self {
        let document = |kind: &str, bytes: Vec<u8>| Document { descriptor: Descriptor::of(kind, &bytes), bytes };
        let config = document(config::MEDIA_TYPE, written.config.encode());
        let encode = |config: &Descriptor, annotations| {
            let (kind, bytes) = manifest::encode(form, &written.layers, config, annotations);
            document(kind, bytes)
        };
        // Docker's list knows no such thing.
        let embeds = embeds && form != Form::DockerList && config.bytes.len() <= EMBEDDED;
        let embedding = config.descriptor.clone().embedding(&config.bytes);
        let described = if embeds { &embedding } else { &config.descriptor };
        let choices = [(described, annotations.clone()), (&config.descriptor, annotations)];
        let fits = |document: &Document| document.bytes.len() <= BUILDKIT_LIMIT;
        let fitting = choices.into_iter().map(|(config, annotations)| encode(config, annotations)).find(fits);
        let manifest = fitting.unwrap_or_else(|| encode(&config.descriptor, BTreeMap::new()));
        Self { config, manifest }
    }
}

/// Leaves out results with layers that are lost, and counts them.
fn without(graph: RecordGraph<Vec<RemoteLayer>>, lost: &BTreeSet<Digest>) -> (RecordGraph<Vec<RemoteLayer>>, usize) {
    let mut count = 0;
    let graph = graph.map(|_, layers| {
        let is_lost = layers.iter().any(|layer| lost.contains(&layer.descriptor.digest));
        count += usize::from(is_lost);
        (!is_lost).then_some(layers)
    });
    (graph, count)
}

/// The step, as BuildKit words it; none for what is no step of its own.
fn title(store: &Store) -> Option<String> {
    match store {
        Store::Inline => None,
        Store::Local { dest, .. } => Some(format!("exporting cache to client directory {}", dest.display())),
        Store::Registry { reference, .. } => Some(format!("exporting cache to registry {reference}")),
    }
}

/// Tells what a cache is made of.
fn report(image: &Image, form: Form, (step, started): (&Step, SystemTime)) {
    for (layer, _) in image.layers() {
        step.over(&format!("writing layer {}", layer.digest), 0, started);
    }
    for platform in &image.platforms {
        step.over(&format!("writing config {}", platform.config.descriptor.digest), 0, started);
    }
    let kind = if form == Form::Image { "cache image manifest" } else { "cache manifest" };
    step.over(&format!("writing {kind} {}", image.root.descriptor.digest), 0, started);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::DiffId;
    use crate::image::media;
    use crate::remotecache::config::{CacheConfig, CacheLayer};

    fn of(layers: usize, said: usize, embeds: bool) -> Documents {
        let layer = |number: usize| RemoteLayer {
            descriptor: Descriptor::of(media::OCI_LAYER_GZIP, number.to_string().as_bytes()),
            diff_id: DiffId(Digest::compute(number.to_string())),
            created: None,
            description: String::new(),
        };
        let layers: Vec<RemoteLayer> = (0..layers).map(layer).collect();
        let blob = |layer: &RemoteLayer| layer.descriptor.digest.clone();
        let named = layers.iter().map(|layer| CacheLayer { blob: blob(layer), parent: -1, annotations: None });
        let config = CacheConfig { layers: named.collect(), records: Vec::new() };
        let written = Written { layers, config };
        let annotations = BTreeMap::from([(explained::ANNOTATION.to_owned(), "A".repeat(said))]);
        Documents::of(Form::Image, &written, (annotations, embeds))
    }

    #[test]
    fn what_is_said_of_a_build_makes_no_manifest_too_large() {
        let has_note =
            |documents: &Documents| String::from_utf8_lossy(&documents.manifest.bytes).contains(explained::ANNOTATION);
        assert!(has_note(&of(2_000, 300 << 10, true)));
        let large = of(3_000, 384 << 10, true);
        assert!(!has_note(&large) && large.manifest.bytes.len() <= BUILDKIT_LIMIT, "{}", large.manifest.bytes.len());
        assert!(of(5_000, 0, true).manifest.bytes.len() > BUILDKIT_LIMIT, "which is told");
    }

    #[test]
    fn small_configs_are_in_the_manifest_too() {
        let embedded = |layers, embeds| {
            let documents = of(layers, 0, embeds);
            let Ok(manifest::Content::Cache { config, .. }) = manifest::decode(&documents.manifest.bytes, None) else {
                panic!("no cache")
            };
            assert_eq!(Descriptor { data: None, ..config.clone() }, documents.config.descriptor);
            assert_eq!(config.data.is_some(), config.embedded().is_some());
            config.embedded().map(|bytes| bytes == documents.config.bytes)
        };
        assert_eq!((embedded(10, true), embedded(10, false), embedded(2_000, true)), (Some(true), None, None));
    }
}
