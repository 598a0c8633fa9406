//! Results to where the user wants them, image by image and tree by tree.
//!
//! In: a solved build. Out: what the exporters write, then the metadata files, which are written last so that they speak only
//! of what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::blobs::BuildBlobs;
use super::caches::{self, Caches};
use super::held::Extent;
use super::packer::{Packer, Packing};
use super::steps::{Shown, Step};
use super::uploader::Whom;
use super::{Build, Outcome, Setup};
use crate::diag::{Diagnostic, Kind};
use crate::digest::Digest;
use crate::export::archive::{self, Archive};
use crate::export::destination::{self, OutputFile};
use crate::export::image::{Document, EpochChoice, Shape};
use crate::export::load::Loader;
use crate::export::metadata::Metadata;
use crate::export::push::{Naming, PushEvent, Pusher};
use crate::export::spec::{ArchiveFormat, Dest, ImageTarget, PushTarget, TreeTarget};
use crate::export::stop::Stop;
use crate::export::{
    Blobs, ExportError, ExportLayer, ExportSpec, Image, ImageOptions, ImageResult, MediaTypes, assemble,
};
use crate::export::{checked, files, layout, tree, treetar};
use crate::frontend::{Lowered, PlatformResult};
use crate::image::media::Compression;
use crate::image::{Platform, Reference};
use crate::layer::Toc;
use crate::ops::Tree;
use crate::progress::{Event, Warning};
use crate::remotecache::{Place, RemoteLayer, spec};
use crate::snapshot::{Chain, LayerId, View};
use crate::solver::Exported;
use crate::source::ResolvedImage;

/// Finds out before anything is built whether all outputs can be written, and removes the id of an earlier image.
pub(super) fn check(setup: &Setup) -> Result<(), Diagnostic> {
    let wrap = |error: ExportError| Diagnostic::from_error(&error);
    if let Some(path) = &setup.iidfile {
        destination::remove_file(path).map_err(wrap)?;
    }
    // What lies in a directory that an output makes can be looked at only then.
    let mut made: Vec<&Path> = Vec::new();
    for export in &setup.exports {
        match export {
            ExportSpec::Load(_) => {
                Loader::find(&setup.search_path, &setup.workspaces).map_err(wrap)?;
            }
            ExportSpec::Archive { dest: Dest::File(path), .. } | ExportSpec::Tar { dest: Dest::File(path), .. } => {
                check_file(path, &made)?;
            }
            ExportSpec::Layout { dest, .. } | ExportSpec::Local { dest, .. } => {
                if !made.iter().any(|dir| dest.starts_with(dir)) {
                    destination::check_directory(dest).map_err(wrap)?;
                }
                made.push(dest);
            }
            ExportSpec::Image(_) | ExportSpec::Archive { .. } | ExportSpec::Tar { .. } | ExportSpec::CacheOnly => {}
        }
    }
    setup.iidfile.iter().chain(&setup.metadata_file).try_for_each(|path| check_file(path, &made))
}

/// Finds out before any step runs whether all outputs can hold the platforms that are built.
pub(super) fn check_platforms(setup: &Setup, lowered: &Lowered) -> Result<(), Diagnostic> {
    let one_only = |export: &&ExportSpec| {
        matches!(export, ExportSpec::Load(_) | ExportSpec::Archive { format: ArchiveFormat::Docker, .. })
    };
    match setup.exports.iter().find(one_only) {
        Some(_) if lowered.results.len() > 1 => {
            let platforms: Vec<String> = lowered.results.iter().map(|result| result.platform.to_string()).collect();
            let text = format!("docker's image format holds one platform, and not {}", platforms.join(", "));
            let hint = "choose one with `--platform`, push them with `--push`, or write `--output type=oci,dest=image.tar`, \
                        which a docker with the containerd image store loads too";
            Err(Diagnostic::new(Kind::Usage, text).hinted(hint))
        }
        _ => Ok(()),
    }
}

fn check_file(path: &Path, made: &[&Path]) -> Result<(), Diagnostic> {
    if made.iter().any(|dir| path.starts_with(dir)) {
        return Ok(());
    }
    destination::check_file(path).map_err(|error| Diagnostic::from_error(&error))
}

/// Returns whether any output wants layers as blobs.
pub(super) fn need_blobs(setup: &Setup) -> bool {
    setup.exports.iter().any(|export| image_of(export).is_some())
}

/// Returns in what forms outputs want layers; where none wants any, in that of the first cache.
pub(super) fn packings(setup: &Setup) -> BTreeSet<Packing> {
    let outputs: BTreeSet<Packing> =
        setup.exports.iter().filter_map(image_of).map(|target| target.options.compression.into()).collect();
    if outputs.is_empty() {
        return setup.caches_to.first().map(|cache| cache.layers.into()).into_iter().collect();
    }
    outputs
}

/// Returns whether all outputs can do with layers that are only named, and can be made again where these prove to be lost.
pub(super) fn take_handles(setup: &Setup) -> bool {
    let takes = |export: &ExportSpec| match export {
        ExportSpec::Local { .. } | ExportSpec::Tar { .. } => false,
        ExportSpec::Archive { dest: Dest::Stdout, .. } => false,
        other => image_of(other).is_none_or(|image| !image.options.compression.force),
    };
    setup.exports.iter().all(takes)
}

fn image_of(export: &ExportSpec) -> Option<&ImageTarget> {
    match export {
        ExportSpec::Image(push) => Some(&push.image),
        ExportSpec::Archive { image, .. } | ExportSpec::Layout { image, .. } | ExportSpec::Load(image) => Some(image),
        ExportSpec::Local { .. } | ExportSpec::Tar { .. } | ExportSpec::CacheOnly => None,
    }
}

/// What a solve left.
pub(super) struct Solved {
    /// One tree per platform.
    pub(super) trees: Vec<Tree>,
    /// The records, where a cache is to be exported.
    pub(super) records: Exported<Tree>,
    /// Repositories that hold layers of the images the build started from, for mounting on push.
    pub(super) origins: BTreeMap<Digest, Vec<Reference>>,
}

/// Lists the repositories of the images of registries that a build resolved, by layer.
pub(super) fn origins(resolved: &BTreeMap<(String, Platform), ResolvedImage>) -> BTreeMap<Digest, Vec<Reference>> {
    let mut origins: BTreeMap<Digest, Vec<Reference>> = BTreeMap::new();
    let of_registries = resolved.iter().filter(|((name, _), _)| name.starts_with("docker-image://"));
    for (_, image) in of_registries {
        let place = Reference { tag: None, digest: None, ..image.reference.clone() };
        for layer in &image.manifest.layers {
            let known = origins.entry(layer.digest.clone()).or_default();
            if !known.contains(&place) {
                known.push(place.clone());
            }
        }
    }
    origins
}

/// Runs all outputs, one after the other, and writes the metadata files.
pub(super) async fn export(
    build: &Build,
    lowered: &Lowered,
    solved: &Solved,
    (packer, blobs): (&Packer, &Arc<BuildBlobs>),
    stop: Stop,
) -> Result<Outcome, Diagnostic> {
    solved.trees.iter().for_each(|tree| blobs.add(tree));
    let readable: Arc<dyn Blobs> = Arc::new(stop.blobs(Arc::clone(blobs)));
    let exporter = Exporter { build, lowered, solved, packer, blobs: readable, own: blobs, stop };
    let mut metadata = Metadata::new();
    for spec in &build.setup.exports {
        exporter.one(spec, &mut metadata).await?;
    }
    let wrap = |error: ExportError| Diagnostic::from_error(&error);
    let image_id = metadata.image_id().map(str::to_owned);
    if let (Some(path), Some(id)) = (&build.setup.iidfile, &image_id) {
        destination::write_file(path, id.as_bytes()).map_err(wrap)?;
    }
    if let Some(path) = &build.setup.metadata_file {
        destination::write_file(path, &metadata.to_json()).map_err(wrap)?;
    }
    Ok(Outcome { image_id })
}

/// An image to be made: the step's name, names and options, and the media types where the options name none.
struct Job<'a> {
    name: String,
    target: &'a ImageTarget,
    types: MediaTypes,
    /// Names that the image gets.
    named: &'a [Reference],
}

struct Exporter<'a> {
    build: &'a Build,
    lowered: &'a Lowered,
    solved: &'a Solved,
    packer: &'a Packer,
    blobs: Arc<dyn Blobs>,
    own: &'a Arc<BuildBlobs>,
    stop: Stop,
}

impl Exporter<'_> {
    async fn one(&self, spec: &ExportSpec, metadata: &mut Metadata) -> Result<(), Diagnostic> {
        match spec {
            ExportSpec::CacheOnly => Ok(()),
            ExportSpec::Image(push) => {
                let named = if push.by_digest { &[] } else { &push.image.names[..] };
                let name = "exporting to image".into();
                let job = Job { name, target: &push.image, types: MediaTypes::Oci, named };
                self.image(&job, metadata, |image, step| self.push(image, push, step)).await
            }
            ExportSpec::Layout { dest, image: target } => {
                let name = format!("exporting to oci image layout {}", dest.display());
                let job = Job { name, target, types: MediaTypes::Oci, named: &target.names };
                self.image(&job, metadata, |image, _| self.layout(image, target, dest)).await
            }
            ExportSpec::Archive { format, dest, image: target } => {
                let (name, types) = match format {
                    ArchiveFormat::Oci => ("exporting to oci image format", MediaTypes::Oci),
                    ArchiveFormat::Docker => ("exporting to docker image format", MediaTypes::Docker),
                };
                let job = Job { name: name.into(), target, types, named: &target.names };
                self.image(&job, metadata, |image, step| self.archive(image, &job, (*format, dest), step)).await
            }
            ExportSpec::Load(target) => {
                let name = "exporting to docker image format".into();
                let job = Job { name, target, types: MediaTypes::Docker, named: &target.names };
                self.image(&job, metadata, |image, step| self.load(image, target, step)).await
            }
            ExportSpec::Local { dest, tree } => self.local(dest, tree).await,
            ExportSpec::Tar { dest, tree } => self.tar(dest, tree).await,
        }
    }

    /// Makes an image's documents and hands it on.
    async fn image<F: Future<Output = Result<(), Diagnostic>>>(
        &self,
        job: &Job<'_>,
        metadata: &mut Metadata,
        write: impl Fn(Arc<Image>, Step) -> F,
    ) -> Result<(), Diagnostic> {
        let work = |step: Step| async move {
            let (image, written) = self.attempt(job, &step, &write).await?;
            if written.is_ok() || !self.remove_damaged(Arc::clone(&image)).await.map_err(Shown)? {
                return written.map(|()| image);
            }
            // What was damaged is gone, and is made or fetched anew; twice would be a disk that is broken.
            let (image, written) = self.attempt(job, &step, &write).await?;
            if written.is_err() {
                self.remove_damaged(Arc::clone(&image)).await.map_err(Shown)?;
            }
            written.map(|()| image)
        };
        let image = self.build.steps.run(&job.name, work).await.map_err(|Shown(diagnostic)| diagnostic)?;
        metadata.add_image(&image, &job.target.names);
        Ok(())
    }

    async fn attempt<F: Future<Output = Result<(), Diagnostic>>>(
        &self,
        job: &Job<'_>,
        step: &Step,
        write: &impl Fn(Arc<Image>, Step) -> F,
    ) -> Result<(Arc<Image>, Result<(), Shown>), Shown> {
        let packing = job.target.options.compression.into();
        let results = step.part("exporting layers", self.results(packing)).await?;
        let image = Arc::new(self.assemble(&results, job.types, &job.target.options).map_err(Shown)?);
        report_documents(&image, step);
        for name in job.named {
            step.over(&format!("naming to {name}"), 0, SystemTime::now());
        }
        let written = write(Arc::clone(&image), step.clone()).await.map_err(Shown);
        Ok((image, written))
    }

    /// Removes the layers that turned out to be damaged, and returns whether there were any. One is seldom alone: all are
    /// looked at.
    async fn remove_damaged(&self, image: Arc<Image>) -> Result<bool, Diagnostic> {
        if !self.own.take_damaged() {
            return Ok(false);
        }
        let blobs = Arc::clone(&self.blobs);
        blocking(move || {
            checked::reject_damaged(&image, &*blobs);
            Ok(())
        })
        .await?;
        self.own.take_damaged();
        self.packer.forget();
        Ok(true)
    }

    async fn layout(&self, image: Arc<Image>, target: &ImageTarget, dest: &Path) -> Result<(), Diagnostic> {
        let (names, dest, blobs) = (target.names.clone(), dest.to_owned(), Arc::clone(&self.blobs));
        blocking(move || layout::write(&image, &names, &*blobs, &dest)).await
    }

    fn assemble(
        &self,
        results: &[ImageResult],
        types: MediaTypes,
        options: &ImageOptions,
    ) -> Result<Image, Diagnostic> {
        let shape = if self.lowered.multi_platform { Shape::Multi } else { Shape::Single };
        assemble(results, shape, types, options).map_err(|error| Diagnostic::from_error(&error))
    }

    async fn results(&self, packing: Packing) -> Result<Vec<ImageResult>, Shown> {
        let mut results = Vec::new();
        for (at, (result, tree)) in self.lowered.results.iter().zip(&self.solved.trees).enumerate() {
            results.push(self.image_result(at, (result, tree), packing).await.map_err(Shown)?);
        }
        Ok(results)
    }

    async fn image_result(
        &self,
        at: usize,
        (result, tree): (&PlatformResult, &Tree),
        packing: Packing,
    ) -> Result<ImageResult, Diagnostic> {
        let mut layers = Vec::new();
        match tree {
            Tree::Lazy(lazy) => layers.extend(lazy.layers.iter().map(|layer| self.lazy_layer(layer, &lazy.place))),
            tree => {
                for layer in self.chain(tree)?.layers() {
                    layers.push(self.layer(*layer, packing).await?);
                }
            }
        }
        let inline_cache = self.inline_cache(at, &layers, packing).await?;
        Ok(ImageResult {
            platform: result.platform.clone(),
            config: result.config.clone(),
            base_config: result.base_config.clone(),
            layers,
            epoch: result.epoch,
            inline_cache,
        })
    }

    /// An image whose cache cannot be made is an image all the same, unless the user wants that to be an error.
    async fn inline_cache(
        &self,
        at: usize,
        layers: &[ExportLayer],
        packing: Packing,
    ) -> Result<Option<Vec<u8>>, Diagnostic> {
        let wanted = self.build.setup.caches_to.iter().find(|target| target.store == spec::Store::Inline);
        // Results without content are no targets of the solver.
        let tree_at = self.lowered.results[..at].iter().filter(|result| result.definition.result.is_some()).count();
        let Some(target) = wanted else { return Ok(None) };
        let Solved { records, origins, .. } = self.solved;
        let (build, packer, blobs, stop) = (self.build, self.packer, self.own, &self.stop);
        let caches = Caches { build, records, packer, blobs, origins, stop, extent: Extent::Whole };
        let digests: Vec<Digest> = layers.iter().map(|layer| layer.digest.clone()).collect();
        let made = caches.inline(tree_at, &digests, packing).await;
        made.or_else(|diagnostic| {
            if caches::must_be_written(&build.setup, target) {
                return Err(diagnostic.while_doing("failed to export the cache"));
            }
            let text = format!("the image carries no cache: {}", diagnostic.message);
            build.sink.send(Event::Warning(Warning::notice(text)));
            Ok(None)
        })
    }

    fn lazy_layer(&self, layer: &RemoteLayer, place: &Arc<dyn Place>) -> ExportLayer {
        let mut origins = self.solved.origins.get(&layer.descriptor.digest).cloned().unwrap_or_default();
        origins.extend(place.repository().map(|name| Reference { tag: None, digest: None, ..name.clone() }));
        ExportLayer {
            diff_id: layer.diff_id.clone(),
            digest: layer.descriptor.digest.clone(),
            size: layer.descriptor.size,
            compression: Compression::of_layer(&layer.descriptor.media_type).unwrap_or_default(),
            created: layer.created.clone(),
            description: layer.description.clone(),
            origins,
            toc: Toc::read(&layer.descriptor.annotations),
        }
    }

    async fn layer(&self, layer: LayerId, packing: Packing) -> Result<ExportLayer, Diagnostic> {
        let blob = self.packer.blob(layer, packing).await?;
        let info = self.build.stations.snapshots.info(layer).map_err(|error| Diagnostic::from_error(&error))?;
        let origins = self.solved.origins.get(&blob.digest).cloned().unwrap_or_default();
        Ok(ExportLayer {
            diff_id: blob.diff_id,
            digest: blob.digest,
            size: blob.size,
            compression: blob.compression,
            created: info.created,
            description: info.description,
            toc: blob.toc,
            origins,
        })
    }

    fn chain(&self, tree: &Tree) -> Result<Chain, Diagnostic> {
        match tree {
            Tree::Layers(chain) => Ok(chain.clone()),
            Tree::Context(_) => {
                Err(Diagnostic::new(Kind::Dockerfile, "a build context cannot be the result of a build"))
            }
            Tree::Lazy(_) => Err(Diagnostic::new(Kind::Build, "the layers of the result were not fetched")),
        }
    }

    async fn push(&self, image: Arc<Image>, target: &PushTarget, step: Step) -> Result<(), Diagnostic> {
        if !target.push {
            return Ok(());
        }
        let reporter = step.clone();
        let observer = Arc::new(move |event| match event {
            PushEvent::Sent { blob, current, total } => reporter.progress(&format!("pushing {blob}"), current, total),
            PushEvent::Blob { blob, how } => tracing::debug!("push of {blob}: {how:?}"),
            PushEvent::Part { id, started, completed } => reporter.status(&id, started, completed),
        });
        let client = Arc::clone(&self.build.stations.client);
        let pusher = Pusher { client, blobs: Arc::clone(&self.blobs), observer };
        let naming = if target.by_digest { Naming::Digest } else { Naming::Tags };
        let names = &target.image.names;
        let settled = self.packer.uploader().settle(Whom::Image);
        pusher.push_after(settled, &image, names, naming).await.map_err(|error| Diagnostic::from_error(&error))
    }

    async fn archive(
        &self,
        image: Arc<Image>,
        job: &Job<'_>,
        (format, dest): (ArchiveFormat, &Dest),
        step: Step,
    ) -> Result<(), Diagnostic> {
        let (names, dest, blobs) = (job.target.names.clone(), dest.clone(), Arc::clone(&self.blobs));
        let stop = self.stop.clone();
        let work = move || {
            if dest == Dest::Stdout {
                // What was written there cannot be taken back and written again.
                checked::check(&image, &*blobs)?;
            }
            let archive = Archive { image: &image, names: &names, format };
            to_dest(&dest, &stop, |out, shown| archive::write(&archive, &*blobs, out, shown))
        };
        step.part("sending tarball", async { blocking(work).await.map_err(Shown) }).await.map_err(|Shown(d)| d)
    }

    async fn load(&self, image: Arc<Image>, target: &ImageTarget, step: Step) -> Result<(), Diagnostic> {
        let loader = Loader::find(&self.build.setup.search_path, &self.build.setup.workspaces)
            .map_err(|error| Diagnostic::from_error(&error))?;
        let loader = if self.build.setup.own_namespace { loader.in_own_namespace() } else { loader };
        let (names, blobs, stop) = (target.names.clone(), Arc::clone(&self.blobs), self.stop.clone());
        let part = format!("importing to {}", loader.name);
        let work = move || {
            let archive = Archive { image: &image, names: &names, format: ArchiveFormat::Docker };
            loader.load(&archive, &*blobs, &stop).map(|said| tracing::debug!(%said, "loaded"))
        };
        step.part(&part, async { blocking(work).await.map_err(Shown) }).await.map_err(|Shown(d)| d)
    }

    async fn local(&self, dest: &Path, target: &TreeTarget) -> Result<(), Diagnostic> {
        let name = format!("exporting to client directory {}", dest.display());
        let work = |step: Step| async move {
            let started = SystemTime::now();
            let (views, trees) = self.views().map_err(Shown)?;
            let (dest, target, epoch) = (dest.to_owned(), self.split(*target), self.epoch(target.epoch));
            let stop = self.stop.clone();
            let written = blocking(move || {
                let _views = views;
                files::write(&trees, &dest, &target, epoch, &stop)
            });
            let written = written.await.map_err(Shown)?;
            step.over("copying files", written.bytes, started);
            for path in &written.skipped {
                let text = format!("left out {}: devices and sockets are not written to a directory", path.display());
                self.build.sink.send(Event::Warning(Warning::notice(text)));
            }
            Ok(())
        };
        self.build.steps.run(&name, work).await.map_err(|Shown(diagnostic)| diagnostic)
    }

    async fn tar(&self, dest: &Dest, target: &TreeTarget) -> Result<(), Diagnostic> {
        let work = |step: Step| async move {
            let (views, trees) = self.views().map_err(Shown)?;
            let (dest, target, epoch) = (dest.clone(), self.split(*target), self.epoch(target.epoch));
            let stop = self.stop.clone();
            let written = blocking(move || {
                let _views = views;
                to_dest(&dest, &stop, |out, shown| treetar::write(&trees, &target, epoch, out, shown))
            });
            step.part("sending tarball", async { written.await.map_err(Shown) }).await
        };
        self.build.steps.run("exporting to client tarball", work).await.map_err(|Shown(diagnostic)| diagnostic)
    }

    /// Each platform has a directory of its own where several were asked for, or one as if it were several.
    fn split(&self, target: TreeTarget) -> TreeTarget {
        TreeTarget { platform_split: target.platform_split.or(Some(self.lowered.multi_platform)), ..target }
    }

    fn epoch(&self, choice: EpochChoice) -> Option<i64> {
        choice.resolve(self.lowered.results.first().and_then(|result| result.epoch))
    }

    fn views(&self) -> Result<(Vec<View>, Vec<tree::Tree>), Diagnostic> {
        let (mut views, mut trees) = (Vec::new(), Vec::new());
        for (result, tree) in self.lowered.results.iter().zip(&self.solved.trees) {
            let view =
                self.build.stations.snapshots.view(&self.chain(tree)?).map_err(|e| Diagnostic::from_error(&e))?;
            let failed = |e: io::Error| Diagnostic::new(Kind::Machine, format!("failed to open the result: {e}"));
            trees.push(tree::Tree { platform: result.platform.clone(), root: view.dir().reopen().map_err(failed)? });
            views.push(view);
        }
        Ok((views, trees))
    }
}

/// Logs must be able to tell which manifests and configs a build made.
fn report_documents(image: &Image, step: &Step) {
    let report = |kind: &str, document: &Document| {
        step.over(&format!("exporting {kind} {}", document.descriptor.digest), 0, SystemTime::now());
    };
    for platform in &image.platforms {
        report("manifest", &platform.manifest);
        report("config", &platform.config);
    }
    if !image.platforms.iter().any(|platform| platform.manifest.descriptor.digest == image.root.descriptor.digest) {
        report("manifest list", &image.root);
    }
}

/// Opens the destination, has it written and gives it its name.
fn to_dest(
    dest: &Dest,
    stop: &Stop,
    write: impl FnOnce(&mut dyn Write, &Path) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    match dest {
        Dest::Stdout => {
            let mut out = io::BufWriter::with_capacity(1 << 20, io::stdout().lock());
            let shown = Path::new("standard output");
            write(&mut stop.writer(&mut out), shown)?;
            out.flush().map_err(ExportError::write(shown))
        }
        Dest::File(path) => {
            let mut out = io::BufWriter::with_capacity(1 << 20, OutputFile::create(path)?);
            write(&mut stop.writer(&mut out), path)?;
            out.into_inner().map_err(|error| ExportError::write(path)(error.into_error()))?.commit()
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ExportError> + Send + 'static,
) -> Result<T, Diagnostic> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| Diagnostic::from_error(&error)),
        Err(error) => Err(Diagnostic::new(Kind::Build, format!("an exporting thread ended unexpectedly: {error}"))),
    }
}
