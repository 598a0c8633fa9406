//! Keeps what the steps of a build are made of, and says why they ran.
//!
//! In: what ops tell while the solver asks them, definitions, the solver's report. Out: a record in the state directory and, where
//! it is asked for, a report. Nothing here can fail a build: what cannot be kept is one notice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::graph;
use super::imports::Said;
use super::request::{ContextSource, DockerfileSource, Request};
use super::setup::Stations;
use super::{Build, Lowered};
use crate::checksum::{Entry, Selector};
use crate::diag::{Diagnostic, Kind, chain};
use crate::digest::Digest;
use crate::dockerfile::instruction::InstructionKind;
use crate::dockerfile::lint::{CheckOptions, Linter};
use crate::explain::files::{File, Writer};
use crate::explain::{self, BuildRecord, Ingredient, Report, Step, StepInput, StepOutcome};
use crate::frontend::sounds_secret;
use crate::image::Platform;
use crate::llb::{OpKind, Vertex};
use crate::ops::{ListFiles, Witness, Worker, keys};
use crate::progress::{Event, Sink, Warning};
use crate::remotecache::explained::BuildNote;
use crate::solver::{Outcome, VertexReport};
use crate::store::Store;
use crate::store::explain::{Explanations, HistoryLimits};
use crate::sys::dir;

/// Where a report is left for who asked for it.
pub type Explained = Arc<Mutex<Option<Report>>>;

/// What the store of the state directory calls itself, and what it is called to users.
const OWN: (&str, &str) = ("local", "the state directory");

/// What is built, as records of one project are found again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Directory or address of the context.
    pub context: String,
    /// Path of the Dockerfile; empty if it has none of its own.
    pub dockerfile: String,
    /// The stage; empty for the last.
    pub target: String,
}

impl Project {
    /// Makes the name of a project out of what the user named.
    pub fn new(context: &str, file: Option<&Path>, target: &str) -> Self {
        let directory = Path::new(context).is_dir().then(|| real(Path::new(context)));
        let default = || directory.as_ref().map(|directory| directory.join("Dockerfile"));
        let dockerfile = file.map(real).or_else(default).unwrap_or_default();
        let context = directory.unwrap_or_else(|| PathBuf::from(context));
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        Self { context: text(context), dockerfile: text(dockerfile), target: target.to_owned() }
    }

    fn of(request: &Request) -> Self {
        let option = |name: &str| request.options.get(name).map_or("", String::as_str);
        let context = match &request.context {
            ContextSource::Directory(path) => path.to_string_lossy().into_owned(),
            ContextSource::StdinTar { .. } | ContextSource::Empty => "-".into(),
            ContextSource::Remote => option("context").to_owned(),
        };
        let file = match &request.dockerfile {
            DockerfileSource::File(path) => Some(path.as_path()),
            DockerfileSource::Default | DockerfileSource::Inline(_) => None,
        };
        Self::new(&context, file, option("target"))
    }

    fn key(&self) -> String {
        let text = format!("{}\0{}\0{}", self.context, self.dockerfile, self.target);
        Digest::compute(text).hex()[..16].to_owned()
    }
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}

/// What ops have told.
#[derive(Debug, Default)]
struct Told {
    contents: BTreeMap<(Digest, usize), (Digest, Option<String>)>,
    resolved: BTreeMap<Digest, String>,
    faults: Vec<String>,
}

/// Keeps what the steps of a build are made of.
pub(super) struct Recorder {
    store: Arc<Store>,
    folder: Explanations,
    project: Project,
    before: Option<BuildRecord>,
    told: Mutex<Told>,
    /// What a cache says of the build it is of.
    foreign: OnceLock<BuildNote>,
    /// What this build was made of, once that is known.
    made: Mutex<Option<BuildRecord>>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("project", &self.project).finish_non_exhaustive()
    }
}

impl Recorder {
    /// Opens the folder of records and reads that of the last build; none, and a notice, if it cannot be had.
    pub(super) fn open(stations: &Stations, request: &Request, sink: &dyn Sink) -> Option<Arc<Self>> {
        let store = Arc::clone(&stations.store);
        let project = Project::of(request);
        let opened = Explanations::open(&store).and_then(|folder| Ok((folder.newest(&project.key())?, folder)));
        let (newest, folder) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                notice(sink, &chain(&error));
                return None;
            }
        };
        // One that another version wrote is none to compare with.
        let before = newest.and_then(|bytes| BuildRecord::read(&bytes).ok());
        Some(Arc::new(Self {
            store,
            folder,
            project,
            before,
            told: Mutex::default(),
            foreign: OnceLock::new(),
            made: Mutex::default(),
        }))
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the record of a build that was solved, and the report if that is asked for.
    pub(super) fn keep(
        &self,
        build: &Build,
        caches: &[String],
        (lowered, worker): (&Lowered, &Worker),
        vertices: &[VertexReport],
    ) {
        let mut record = self.record(build, lowered, worker, vertices);
        record.caches = caches.iter().map(|name| shown(name)).collect();
        let before = self.before.as_ref().or(self.foreign.get().map(|foreign| &foreign.record));
        if let Some(before) = before {
            explain::complete(&mut record, before);
        }
        let report = explain::compare(&record, before, &|name| self.list(name));
        *self.made.lock().unwrap_or_else(PoisonError::into_inner) = Some(record.clone());
        if let Some(explained) = &build.setup.explained {
            *explained.lock().unwrap_or_else(PoisonError::into_inner) = Some(report.clone());
        }
        record.report = Some(report);
        if let Err(fault) = self.save(&record, build.setup.history) {
            self.told().faults.push(fault);
        }
        if let Some(fault) = self.told().faults.first() {
            notice(&*build.sink, fault);
        }
    }

    /// Compares with what a cache says where nothing of its own is known, as in CI; what cannot be read is told of if asked.
    pub(super) fn compare_with(&self, said: &Said, asked: bool, sink: &dyn Sink) {
        if self.before.is_some() {
            return;
        }
        match BuildNote::decode(&said.text) {
            Ok(mut foreign) => {
                foreign.record.id = format!("that wrote {}", said.cache);
                // It is asked once a build.
                let _ = self.foreign.set(foreign);
            }
            Err(error) if asked => {
                let text = format!("nothing to compare with in the cache {}: {}", said.cache, chain(&error));
                sink.send(Event::Warning(Warning::notice(text)));
            }
            Err(error) => tracing::debug!("{}", chain(&error)),
        }
    }

    fn list(&self, name: &str) -> Option<Vec<u8>> {
        let foreign = || Some(self.foreign.get()?.lists.get(name)?.clone().into_bytes());
        self.folder.list(name).ok().flatten().or_else(foreign)
    }

    /// Returns what is said of this build beside its cache.
    pub(super) fn said(&self) -> Option<String> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        BuildNote::new(&made, |name| self.list(name)).encode()
    }

    fn save(&self, record: &BuildRecord, limits: HistoryLimits) -> Result<(), String> {
        let bytes = record.write().map_err(|error| chain(&error))?;
        let saved = self.folder.save(&self.store, (&self.project.key(), &record.id), &bytes);
        saved.and_then(|()| self.folder.trim(limits, SystemTime::now())).map_err(|error| chain(&error))
    }

    fn record(&self, build: &Build, lowered: &Lowered, worker: &Worker, vertices: &[VertexReport]) -> BuildRecord {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut record = BuildRecord::new(id(&self.project, now.as_nanos()));
        record.no_cache = build.request.options.get("no-cache").map(|stages| match stages.as_str() {
            "" => "--no-cache".into(),
            stages => format!("--no-cache-filter={stages}"),
        });
        let variables = Declared::of(&build.dockerfile.1);
        let known: BTreeMap<&Digest, (&Arc<Vertex>, &Platform)> = lowered
            .results
            .iter()
            .rev()
            .flat_map(|result| result.definition.vertices.iter().map(|v| (&v.digest, (v, &result.platform))))
            .collect();
        let told = self.told();
        let vertices: Vec<&VertexReport> =
            vertices.iter().filter(|report| known.contains_key(&report.vertex)).collect();
        let places: BTreeMap<&Digest, usize> = vertices.iter().enumerate().map(|(at, v)| (&v.vertex, at)).collect();
        for report in vertices {
            let Some((vertex, platform)) = known.get(&report.vertex) else { continue };
            let mut ingredients = keys::ingredients(vertex, platform);
            ingredients.extend(resolved(vertex, platform, worker, &told));
            let mut step = step(report, vertex, &places, &told);
            step.platform = if lowered.results.len() > 1 { platform.to_string() } else { String::new() };
            step.ingredients = ingredients.into_iter().map(|ingredient| variables.name(ingredient)).collect();
            record.steps.push(step);
        }
        record
    }
}

impl Witness for Recorder {
    fn content(
        &self,
        (step, input): (&Digest, usize),
        content: &Digest,
        selectors: &[Selector],
        files: &ListFiles<'_>,
    ) {
        // Lists hold paths, so the same content elsewhere is another list.
        let name = Digest::compute(format!("{content}\n{selectors:?}")).hex()[..32].to_owned();
        let kept = if self.folder.has_list(&name) { Ok(()) } else { self.keep_list(&name, files) };
        let mut told = self.told();
        let files = match kept {
            Ok(()) => Some(name),
            Err(fault) => {
                told.faults.push(fault);
                None
            }
        };
        told.contents.insert((step.clone(), input), (content.clone(), files));
    }

    fn resolved(&self, step: &Digest, to: String) {
        self.told().resolved.insert(step.clone(), to);
    }
}

impl Recorder {
    fn keep_list(&self, name: &str, files: &ListFiles<'_>) -> Result<(), String> {
        let mut list = Writer::default();
        let mut add = |entry: &Entry, digest: &Digest| list.add(&entry.path, file(entry, digest));
        files(&mut add).map_err(|error| chain(&error))?;
        self.folder.save_list(&self.store, name, &list.finish()).map_err(|error| chain(&error))
    }
}

fn file<'a>(entry: &Entry, digest: &'a Digest) -> File<'a> {
    let (kind, mode) = match entry.stat.kind() {
        dir::Kind::File => ('f', entry.stat.permissions()),
        dir::Kind::Directory => ('d', entry.stat.permissions()),
        // Permissions of links do not count.
        dir::Kind::Symlink => ('l', 0o777),
        dir::Kind::Fifo => ('p', entry.stat.permissions()),
        dir::Kind::CharDevice => ('c', entry.stat.permissions()),
        dir::Kind::BlockDevice => ('b', entry.stat.permissions()),
        dir::Kind::Socket => ('s', entry.stat.permissions()),
    };
    let size = if kind == 'f' { entry.stat.size } else { 0 };
    File { kind, mode, uid: entry.stat.uid, gid: entry.stat.gid, size, digest: digest.hex() }
}

fn notice(sink: &dyn Sink, why: &str) {
    sink.send(Event::Warning(Warning::notice(format!("what this build was made of is not recorded: {why}"))));
}

fn id(project: &Project, nanoseconds: u128) -> String {
    Digest::compute(format!("{}\0{nanoseconds}\0{}", project.key(), std::process::id())).hex()[..12].to_owned()
}

fn shown(store: &str) -> String {
    if store == OWN.0 { OWN.1.into() } else { store.to_owned() }
}

fn step(report: &VertexReport, vertex: &Vertex, places: &BTreeMap<&Digest, usize>, told: &Told) -> Step {
    let input = |(at, input): (usize, &crate::llb::Input)| {
        let (content, files) = match told.contents.get(&(report.vertex.clone(), at)) {
            Some((content, files)) => (Some(content.clone()), files.clone()),
            None => (None, None),
        };
        Some(StepInput {
            step: *places.get(&input.digest)?,
            output: usize::try_from(input.index).ok()?,
            content,
            files,
        })
    };
    let outcome = match report.outcome {
        Outcome::Ran => StepOutcome::Ran,
        Outcome::Cached => StepOutcome::Cached,
        Outcome::Covered => StepOutcome::Covered,
        Outcome::Failed => StepOutcome::Failed,
        Outcome::Canceled => StepOutcome::Canceled,
        Outcome::NotReached => StepOutcome::NotReached,
    };
    let matched = report.outputs.iter().find_map(|output| output.matched.as_ref());
    Step {
        name: explain::redact(&graph::name_of(vertex)).into_owned(),
        platform: String::new(),
        outcome,
        ignore_cache: vertex.metadata.ignore_cache,
        source: matches!(vertex.op.kind, Some(OpKind::Source(_))),
        cache: matched.filter(|_| outcome == StepOutcome::Cached).map(|(store, _)| shown(store)),
        ingredients: Vec::new(),
        inputs: vertex.op.inputs.iter().enumerate().filter_map(input).collect(),
    }
}

/// What a source resolved to, as far as it is part of the key.
fn resolved(vertex: &Vertex, platform: &Platform, worker: &Worker, told: &Told) -> Option<Ingredient> {
    let Some(OpKind::Source(op)) = &vertex.op.kind else { return None };
    let platform = vertex.op.platform.clone().unwrap_or_else(|| platform.clone()).normalized();
    let base = |name: &str, value: String| Some(Ingredient::new(explain::Kind::Base, name, value));
    if let Some(image) = worker.resolved.get(&(op.identifier.clone(), platform)) {
        return base("base image", image.digest.to_string());
    }
    let name = if op.identifier.starts_with("git:") { "commit" } else { "download" };
    told.resolved.get(&vertex.digest).and_then(|to| base(name, to.clone()))
}

/// Which instruction declares a variable.
#[derive(Debug, Default)]
struct Declared {
    args: BTreeSet<String>,
    envs: BTreeSet<String>,
}

impl Declared {
    fn of(dockerfile: &str) -> Self {
        let mut declared = Self::default();
        let mut linter = Linter::new(CheckOptions::default());
        // It was parsed before; if it cannot be, no ARG is known.
        let Ok(file) = crate::dockerfile::parse::parse("", dockerfile.as_bytes(), &mut linter) else { return declared };
        for instruction in file.stages.iter().flat_map(|stage| &stage.instructions) {
            match &instruction.kind {
                InstructionKind::Arg(args) => declared.args.extend(args.iter().map(|(name, _)| name.clone())),
                InstructionKind::Env(pairs) => declared.envs.extend(pairs.iter().map(|pair| pair.key.clone())),
                _ => {}
            }
        }
        declared
    }

    /// Says of a variable where it comes from, and hides a value that sounds secret.
    fn name(&self, mut ingredient: Ingredient) -> Ingredient {
        if ingredient.kind != explain::Kind::Env {
            return ingredient;
        }
        ingredient.kind = match (self.args.contains(&ingredient.name), self.envs.contains(&ingredient.name)) {
            (true, true) => explain::Kind::Variable,
            (true, false) => explain::Kind::Arg,
            (false, _) => explain::Kind::Env,
        };
        if sounds_secret(&ingredient.name) { ingredient.hide() } else { ingredient }
    }
}

/// Returns the report of the last build of a project, or compares that build with another one.
///
/// # Errors
///
/// When there is no such build, or it cannot be read.
pub fn last(root: &Path, project: &Project, against: Option<&str>) -> Result<Report, Diagnostic> {
    let failed = |error: io::Error| {
        let text = format!("failed to read what is recorded in {}: {}", root.display(), chain(&error));
        Diagnostic::new(Kind::Machine, text)
    };
    let folder = Explanations::read_only(root).map_err(failed)?;
    let newest = match &folder {
        Some(folder) => folder.newest(&project.key()).map_err(failed)?,
        None => None,
    };
    let (Some(folder), Some(newest)) = (folder, newest) else {
        let text = format!("no build of {} is recorded in {}", project.context, root.display());
        let hint =
            "say the same context, -f, --target and --root as for the build; `rbuild --explain` builds and explains";
        return Err(Diagnostic::new(Kind::Usage, text).hinted(hint));
    };
    let read = |bytes: &[u8], name: &str| {
        let wrong = |error| Diagnostic::new(Kind::Usage, format!("failed to read build {name}: {}", chain(&error)));
        BuildRecord::read(bytes).map_err(wrong)
    };
    let mut now = read(&newest, "that was last")?;
    let other = match against {
        Some(name) => read(&named(&folder, name).map_err(failed)?.ok_or_else(|| absent(name))?, name)?,
        None => match now.report.take() {
            Some(report) => return Ok(report),
            None => BuildRecord::new(String::new()),
        },
    };
    Ok(explain::compare(&now, Some(&other), &|name| folder.list(name).ok().flatten()))
}

fn absent(name: &str) -> Diagnostic {
    let text = format!("there is no build {name:?}: neither is it the id of one that is recorded, nor a file");
    Diagnostic::new(Kind::Usage, text).hinted("`rbuild explain` shows the ids of the last build and of the one before")
}

fn named(folder: &Explanations, name: &str) -> io::Result<Option<Vec<u8>>> {
    if let Some(found) = folder.build(name)? {
        return Ok(Some(found));
    }
    match std::fs::read(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}
