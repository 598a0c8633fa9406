//! Definitions to the solver's graph, and the solver's news to progress events.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::diag::{self, Diagnostic, Kind, LineRange};
use crate::digest::Digest;
use crate::frontend::Lowered;
use crate::image::{Descriptor, Platform};
use crate::llb::{self, Definition, OpKind};
use crate::ops::{self, Tree, Worker};
use crate::progress::{Event, Sink, Vertex, Warning};
use crate::solver::{self, CacheError, Completion, Graph, Observer};
use crate::source::ResolvedImage;

/// Images that the frontend resolved, by source identifier and platform.
type Resolved = BTreeMap<(String, Platform), ResolvedImage>;

/// Adds the vertices of a definition to the graph.
///
/// # Errors
///
/// With the vertex that this version cannot run, or that contradicts the others.
pub(super) fn add<'d>(
    graph: &mut Graph<Tree>,
    worker: &Arc<Worker>,
    definition: &'d Definition,
    platform: &Platform,
) -> Result<(), (&'d llb::Vertex, Diagnostic)> {
    for vertex in &definition.vertices {
        add_one(graph, worker, vertex, platform).map_err(|error| (&**vertex, error))?;
    }
    Ok(())
}

fn add_one(
    graph: &mut Graph<Tree>,
    worker: &Arc<Worker>,
    vertex: &llb::Vertex,
    platform: &Platform,
) -> Result<(), Diagnostic> {
    let failed = |message: String| Diagnostic::new(Kind::Build, message);
    let op = ops::op_of(worker, vertex, platform).map_err(|error| Diagnostic::from_error(&error))?;
    let inputs = vertex.op.inputs.iter().map(edge).collect::<Option<_>>();
    let added = graph.add(solver::Vertex {
        digest: vertex.digest.clone(),
        name: name_of(vertex),
        op,
        inputs: inputs.ok_or_else(|| failed("an input has a negative index".into()))?,
        ignore_cache: vertex.metadata.ignore_cache,
    });
    added.map_err(|error| failed(error.to_string()))
}

/// Lists the platforms that steps are for.
pub(super) fn run_platforms(lowered: &Lowered) -> Vec<Platform> {
    let vertices =
        lowered.results.iter().flat_map(|result| result.definition.vertices.iter().map(move |v| (v, result)));
    let runs = vertices.filter(|(vertex, _)| matches!(vertex.op.kind, Some(OpKind::Exec(_))));
    runs.map(|(vertex, result)| vertex.op.platform.clone().unwrap_or_else(|| result.platform.clone())).collect()
}

/// Finds the platforms of the images that steps start from; what starts from nothing holds programs of who knows which.
pub(super) fn base_platforms(lowered: &Lowered, resolved: &Resolved) -> BTreeMap<Digest, Platform> {
    let mut found: BTreeMap<Digest, Platform> = BTreeMap::new();
    for result in &lowered.results {
        // Inputs come before what reads them.
        for vertex in &result.definition.vertices {
            let platform = match &vertex.op.kind {
                Some(OpKind::Source(_)) => image_of(vertex, &result.platform, resolved).map(|image| &image.platform),
                _ => bases(vertex).into_iter().find_map(|i| found.get(&vertex.op.inputs.get(i)?.digest)),
            };
            if let Some(platform) = platform.cloned() {
                found.insert(vertex.digest.clone(), platform);
            }
        }
    }
    found
}

/// Returns the solver's edge of an LLB input.
pub(super) fn edge(input: &llb::Input) -> Option<solver::Edge> {
    Some(solver::Edge { vertex: input.digest.clone(), output: usize::try_from(input.index).ok()? })
}

/// Returns the lines a step comes from; a source has those of the first step that reads it.
pub(super) fn lines_of<'d>(
    step: &Digest,
    definitions: impl Iterator<Item = &'d Definition> + Clone,
) -> Option<Vec<LineRange>> {
    let vertices = || definitions.clone().flat_map(|definition| &definition.vertices).filter(|v| !v.lines.is_empty());
    let reads = |vertex: &&Arc<llb::Vertex>| vertex.op.inputs.iter().any(|input| input.digest == *step);
    let own = vertices().find(|vertex| vertex.digest == *step);
    own.or_else(|| vertices().find(reads)).map(|vertex| vertex.lines.clone())
}

/// Returns the name a step is shown with.
pub(super) fn name_of(vertex: &llb::Vertex) -> String {
    let named = vertex.metadata.description.get("llb.customname").cloned();
    let name = named.unwrap_or_else(|| match &vertex.op.kind {
        Some(OpKind::Source(source)) => source.identifier.clone(),
        _ => vertex.digest.to_string(),
    });
    let name = without_credentials(&name);
    // What a command does with a URL is its own.
    if matches!(vertex.op.kind, Some(OpKind::Exec(_))) { name } else { without_query_values(&name) }
}

/// Returns the identifier of a source as it may be shown.
pub(super) fn shown_identifier(identifier: &str) -> String {
    without_query_values(&without_credentials(identifier))
}

/// Parts of queries that say which files of a repository are meant.
const PLAIN: [&str; 10] =
    ["ref", "tag", "branch", "subdir", "commit", "checksum", "submodules", "keep-git-dir", "mtime", "fetch-by-commit"];

/// Drops the values of the queries of the URLs of web servers in a text, as they may be tokens or signatures.
fn without_query_values(text: &str) -> String {
    text.split_inclusive(' ')
        .map(|word| if word.contains("://") { without_values(word) } else { word.into() })
        .collect()
}

fn without_values(word: &str) -> String {
    let (url, blank) = word.split_at(word.trim_end().len());
    let (url, fragment) = url.find('#').map_or((url, ""), |at| url.split_at(at));
    let Some((path, query)) = url.split_once('?') else { return word.to_owned() };
    let shown = query.split('&').map(|part| match part.split_once('=') {
        Some((name, value)) if !PLAIN.contains(&name) && !value.is_empty() => format!("{name}=…"),
        _ => part.to_owned(),
    });
    format!("{path}?{}{fragment}{blank}", shown.collect::<Vec<_>>().join("&"))
}

/// Drops user and password of the URLs of web servers in a text.
fn without_credentials(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        let end = after.find(|c: char| matches!(c, '/' | '?' | '#' | '"') || c.is_whitespace()).unwrap_or(after.len());
        let secret = before.ends_with("http://") || before.ends_with("https://");
        let skipped = after[..end].rfind('@').filter(|_| secret).unwrap_or(0);
        if skipped > 0 {
            shown.push('…');
        }
        rest = &after[skipped..];
    }
    shown.push_str(rest);
    shown
}

/// Returns the steps whose layers are part of the result: those below it through what they change, not what they read.
pub(super) fn result_steps(definition: &Definition) -> BTreeSet<Digest> {
    let by_digest: BTreeMap<&Digest, &Arc<llb::Vertex>> = definition.vertices.iter().map(|v| (&v.digest, v)).collect();
    let mut steps = BTreeSet::new();
    let mut open: Vec<Digest> = definition.result.iter().map(|edge| edge.vertex.clone()).collect();
    while let Some(digest) = open.pop() {
        let Some(vertex) = by_digest.get(&digest) else { continue };
        if steps.insert(digest) {
            open.extend(bases(vertex).into_iter().filter_map(|i| vertex.op.inputs.get(i)).map(|i| i.digest.clone()));
        }
    }
    steps
}

/// Lists the layers of the images that the results start from, each once.
pub(super) fn result_bases<'a>(lowered: &'a Lowered, resolved: &'a Resolved) -> Vec<&'a Descriptor> {
    let mut layers: Vec<&Descriptor> = Vec::new();
    for result in &lowered.results {
        let steps = result_steps(&result.definition);
        let vertices = result.definition.vertices.iter().filter(|vertex| steps.contains(&vertex.digest));
        for layer in vertices.filter_map(|v| image_of(v, &result.platform, resolved)).flat_map(|i| &i.manifest.layers) {
            if layers.iter().all(|known| known.digest != layer.digest) {
                layers.push(layer);
            }
        }
    }
    layers
}

/// Returns the image that a vertex pulls.
fn image_of<'a>(vertex: &llb::Vertex, platform: &Platform, resolved: &'a Resolved) -> Option<&'a ResolvedImage> {
    let Some(OpKind::Source(op)) = &vertex.op.kind else { return None };
    let platform = vertex.op.platform.as_ref().unwrap_or(platform).clone().normalized();
    resolved.get(&(op.identifier.clone(), platform))
}

/// Indexes of the inputs whose layers stay in a vertex's result.
fn bases(vertex: &llb::Vertex) -> Vec<usize> {
    let indexes: Vec<i64> = match &vertex.op.kind {
        Some(OpKind::Exec(op)) => op.mounts.iter().filter(|m| m.dest == "/").map(|m| m.input).collect(),
        Some(OpKind::File(op)) => op.actions.iter().map(|action| action.input).collect(),
        Some(OpKind::Merge(op)) => op.inputs.clone(),
        Some(OpKind::Diff(op)) => vec![op.upper],
        Some(OpKind::Source(_)) | None => Vec::new(),
    };
    indexes.into_iter().filter_map(|index| usize::try_from(index).ok()).collect()
}

/// Turns the solver's news into events.
pub(super) struct ProgressObserver {
    sink: Arc<dyn Sink>,
    vertices: Mutex<BTreeMap<Digest, Vertex>>,
    /// Caches that something was told of: one that is damaged seldom lacks one layer alone.
    told: Mutex<BTreeSet<String>>,
}

impl fmt::Debug for ProgressObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgressObserver").finish_non_exhaustive()
    }
}

impl ProgressObserver {
    /// Knows the vertices of the definitions; one that several have is shown as it is in the first.
    pub(super) fn new<'a>(sink: Arc<dyn Sink>, definitions: impl Iterator<Item = &'a Definition>) -> Self {
        let mut vertices = BTreeMap::new();
        for vertex in definitions.flat_map(|definition| &definition.vertices) {
            vertices.entry(vertex.digest.clone()).or_insert_with(|| shown(vertex));
        }
        Self { sink, vertices: Mutex::new(vertices), told: Mutex::default() }
    }

    fn update(&self, digest: &Digest, change: impl FnOnce(&mut Vertex)) {
        let mut vertices = self.vertices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(vertex) = vertices.get_mut(digest) {
            change(vertex);
            self.sink.send(Event::Vertex(vertex.clone()));
        }
    }
}

fn shown(vertex: &llb::Vertex) -> Vertex {
    Vertex {
        digest: vertex.digest.clone(),
        inputs: vertex.op.inputs.iter().map(|input| input.digest.clone()).collect(),
        name: name_of(vertex),
        started: None,
        completed: None,
        cached: false,
        error: String::new(),
    }
}

impl Observer for ProgressObserver {
    fn started(&self, vertex: &Digest) {
        let now = SystemTime::now();
        self.update(vertex, |vertex| {
            vertex.started = Some(now);
            vertex.completed = None;
        });
    }

    fn completed(&self, vertex: &Digest, completion: Completion<'_>) {
        let now = SystemTime::now();
        self.update(vertex, |vertex| {
            vertex.started.get_or_insert(now);
            vertex.completed = Some(now);
            vertex.cached = matches!(completion, Completion::Cached);
            vertex.error = match completion {
                Completion::Cached | Completion::Ran => String::new(),
                Completion::Failed(error) => {
                    std::error::Error::source(error).map_or_else(|| error.to_string(), diag::chain)
                }
                Completion::Canceled => "canceled".into(),
            };
        });
    }

    fn notice(&self, error: &CacheError) {
        let text = diag::chain(error);
        if self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(error.store.clone()) {
            self.sink.send(Event::Warning(Warning::notice(text)));
        } else {
            tracing::debug!("{text}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{without_credentials, without_query_values};

    #[test]
    fn g7_names_of_steps_hold_no_token() {
        for (text, shown) in [
            ("ADD http://h/a?token=t&x=y#f /to", "ADD http://h/a?token=…&x=…#f /to"),
            ("[context base] https://h/a.git?ref=v1&subdir=d", "[context base] https://h/a.git?ref=v1&subdir=d"),
            ("COPY a?b=c d", "COPY a?b=c d"),
            ("ADD http://h/a?bare http://h/b?c= d", "ADD http://h/a?bare http://h/b?c= d"),
        ] {
            assert_eq!(without_query_values(text), shown);
        }
    }

    #[test]
    fn g7_names_of_steps_hold_no_password() {
        for (text, shown) in [
            ("ADD https://u:p@h/a.git /", "ADD https://…@h/a.git /"),
            ("ADD https://token@h http://u:p@i:1/x ssh://git@h/y /", "ADD https://…@h http://…@i:1/x ssh://git@h/y /"),
            ("ADD https://h/a@b user@x.git /", "ADD https://h/a@b user@x.git /"),
            ("RUN echo ://", "RUN echo ://"),
        ] {
            assert_eq!(without_credentials(text), shown);
        }
    }
}
