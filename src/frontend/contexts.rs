//! Build contexts: the main one, and named ones that replace images and stages.
//!
//! In: the options `context` and `context:NAME`. Out: states to copy from. Which paths of a local directory are used is
//! known only at the end, so local sources get their follow paths last.

use std::collections::BTreeSet;
use std::str::FromStr;

use super::bridge::{BridgeError, ResolvedImage};
use super::error::Problem;
use super::graph::{Graph, NodeId, NodeKind};
use super::lowering::Lowering;
use super::options::Options;
use super::sources::{self, GitOptions};
use super::stage::{StageId, State};
use super::{image, paths};
use crate::digest::Digest;
use crate::dockerfile::gitref::{self, GitRef};
use crate::dockerfile::goquote::quote;
use crate::image::{ImageConfig, Platform, Reference};
use crate::llb::{CopyAction, Definition, FileActionKind, OpMetadata, SourceOp};
use crate::pattern::{Matcher, ignore};

/// The name of the main context, and of the local directory it is by default.
const MAIN: &str = "context";
/// The local directory the Dockerfile is in.
const DOCKERFILE: &str = "dockerfile";
/// The ignore file of a directory.
const IGNORE_FILE: &str = ".dockerignore";
/// The file a remote context that is one file is saved as.
pub(crate) const REMOTE_FILE: &str = "context";

/// The main context.
#[derive(Debug, Default)]
pub(crate) struct MainContext {
    /// What is copied from.
    pub(crate) root: Option<NodeId>,
    /// The source of a directory of this machine, whose follow paths are set at the end.
    local: Option<NodeId>,
    /// The source op of a remote context.
    pub(crate) remote: Option<NodeId>,
    /// Ignore patterns as a matcher, where there are any.
    pub(crate) ignore: Option<Matcher>,
    /// The patterns.
    pub(crate) patterns: Vec<String>,
    /// Local sources of named contexts, with the stage that holds the paths used.
    named: Vec<(NodeId, StageId)>,
}

/// A named context as given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContextValue {
    /// Its name, familiar form.
    name: String,
    /// Its name as given, with `::platform` if that was given.
    full_name: String,
    /// Where its content comes from.
    value: String,
    /// The platform wanted.
    platform: Platform,
}

/// What a named context needs to know before it can be used.
#[derive(Debug, Clone)]
pub(crate) enum ContextPlan {
    /// Nothing: the empty tree, or a remote source with a step name.
    Ready(Option<(SourceOp, String)>),
    /// An image, with the reference as written.
    Image(Reference, String),
    /// An image in an OCI layout.
    Layout(String, Reference),
    /// A local directory.
    Local(String),
}

/// What a named context turned out to be.
#[derive(Debug)]
pub(crate) struct LoadedContext {
    pub(crate) state: State,
    pub(crate) config: Option<ImageConfig>,
}

/// An answer of the outside about a context.
#[derive(Debug, Clone)]
pub(crate) enum ContextAnswer {
    /// None was needed.
    Nothing,
    /// An image.
    Image(ResolvedImage),
    /// Ignore patterns of a local directory.
    Ignore(Vec<String>),
}

impl ContextValue {
    /// Returns the platform wanted.
    pub(crate) fn platform(&self) -> &Platform {
        &self.platform
    }
}

impl Lowering<'_> {
    /// Finds the context that replaces a name.
    pub(crate) fn find_context(
        &self,
        name: &str,
        platform: Option<&Platform>,
    ) -> Result<Option<ContextValue>, Problem> {
        if name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case(MAIN) {
            return Ok(None);
        }
        let reference = Reference::from_str(name)
            .map_err(|e| Problem::of_reference(&format!("invalid context name {name}"), &e))?;
        let familiar = reference.familiar();
        let name = familiar.strip_suffix(":latest").unwrap_or(&familiar).to_owned();
        let platform = platform.unwrap_or(&self.target_platform).clone();
        let with_platform = format!("{name}::{}", platform.clone().normalized().format_all());
        let contexts = &self.given.options.contexts;
        let found = [with_platform, name.clone()].into_iter().find_map(|full| Some((contexts.get(&full)?, full)));
        Ok(found.map(|(value, full_name)| ContextValue { name, full_name, value: value.clone(), platform }))
    }

    /// Makes the source of a main context that is not local.
    pub(crate) async fn prepare_main_context(&mut self) -> Result<(), Problem> {
        let Some((source, name)) = remote_source(self.given.options)? else { return Ok(()) };
        // Only a URL can turn out to be an archive; git gives a tree.
        let archive = !source.identifier.starts_with("git://")
            && is_archive(&self.given.bridge.http_head(&source.identifier).await?);
        let (node, root) = add_remote(&mut self.graph, self.given.options, (source, name), archive);
        self.main.remote = Some(node);
        self.main.root = Some(root);
        Ok(())
    }
    /// Reads what is ignored of a local main context, and makes its source.
    pub(crate) async fn read_ignore_patterns(&mut self) -> Result<(), Problem> {
        if self.main.root.is_some() {
            return Ok(());
        }
        let bridge = self.given.bridge;
        let own = [format!("{}{IGNORE_FILE}", self.given.options.filename)];
        let mut found = bridge.read_ignore(DOCKERFILE, &own).await?.filter(|(_, text)| !text.is_empty());
        if found.is_none() {
            found = bridge.read_ignore(MAIN, &[IGNORE_FILE.to_owned()]).await?;
        }
        self.main.patterns = found.map_or_else(|| Ok(Vec::new()), |(name, text)| read_ignore(&name, &text))?;
        if !self.main.patterns.is_empty() {
            let matcher = Matcher::new(&self.main.patterns).map_err(Problem::from)?;
            self.main.ignore = Some(matcher);
        }
        let source = sources::local(MAIN, self.session(MAIN), MAIN.into(), &self.main.patterns);
        let node = self.graph.add(NodeKind::Source(source, None), named("[internal] load build context"), &[]);
        self.main.root = Some(node);
        self.main.local = Some(node);
        Ok(())
    }

    fn session(&self, local: &str) -> &str {
        self.given.options.local_sessions.get(local).map_or(self.given.session, String::as_str)
    }

    /// Tells every local source which paths are used of it.
    pub(crate) fn set_follow_paths(&mut self) {
        let mut follow = Vec::new();
        if let Some(node) = self.main.local {
            let mut used = BTreeSet::new();
            self.stages.ids().for_each(|id| used.extend(self.stages.get(id).context_paths.iter().cloned()));
            follow.push((node, follow_paths(&used)));
        }
        for (node, stage) in &self.main.named {
            follow.push((*node, follow_paths(&self.stages.get(*stage).paths)));
        }
        for (node, list) in follow {
            if !list.is_empty() {
                self.graph.set_attribute(node, "local.followpaths", sources::json_list(&list));
            }
        }
    }

    /// Says what has to be asked before a context can be used.
    pub(crate) fn plan_context(&self, context: &ContextValue) -> Result<ContextPlan, Problem> {
        let ContextValue { value, full_name, .. } = context;
        let Some((scheme, rest)) = value.split_once(':') else {
            return Err(Problem::usage(format!("invalid context specifier {value} for {full_name}")));
        };
        let path = rest.strip_prefix("//").unwrap_or(rest);
        match scheme {
            "docker-image" if path == "scratch" => Ok(ContextPlan::Ready(None)),
            "docker-image" => {
                let reference = Reference::from_str(path).map_err(|e| Problem::usage(e.to_string()))?;
                Ok(ContextPlan::Image(reference.with_default_tag(), path.to_owned()))
            }
            "oci-layout" => plan_layout(&context.name, path),
            "local" => Ok(ContextPlan::Local(rest.to_owned())),
            "git" | "http" | "https" => plan_remote(context, scheme),
            scheme if scheme.starts_with("git@") => plan_remote(context, "git"),
            _ => Err(Problem::usage(format!("unsupported context source {scheme} for {full_name}"))
                .hinted("use docker-image://, oci-layout://, local:, https:// or a git URL")),
        }
    }

    /// Asks what a plan needs.
    pub(crate) async fn ask_context(&self, plan: &ContextPlan, platform: &Platform) -> Result<ContextAnswer, Problem> {
        let bridge = self.given.bridge;
        match plan {
            ContextPlan::Ready(_) => Ok(ContextAnswer::Nothing),
            ContextPlan::Image(reference, _) => {
                let answer = bridge.resolve_image(reference, platform, self.given.options.resolve_mode).await;
                answer.map(ContextAnswer::Image).map_err(|error| unresolved(&reference.to_string(), error))
            }
            ContextPlan::Layout(store, reference) => {
                Ok(ContextAnswer::Image(bridge.resolve_oci_layout(store, reference, platform).await?))
            }
            ContextPlan::Local(local) => {
                let found = bridge.read_ignore(local, &[IGNORE_FILE.to_owned()]).await?;
                let patterns = found.map_or_else(|| Ok(Vec::new()), |(name, text)| read_ignore(&name, &text));
                patterns.map(ContextAnswer::Ignore)
            }
        }
    }

    /// Makes the state of a context for a stage.
    pub(crate) fn load_context(
        &mut self,
        stage: StageId,
        context: &ContextValue,
        plan: ContextPlan,
        answer: ContextAnswer,
    ) -> Result<LoadedContext, Problem> {
        let label = &context.full_name;
        let (source, name, specific) = match (plan, &answer) {
            (ContextPlan::Ready(None), _) => return Ok(LoadedContext { state: State::default(), config: None }),
            (ContextPlan::Ready(Some((source, name))), _) => (source, name, false),
            (ContextPlan::Image(reference, written), _) => {
                let source = sources::image(&reference.to_string(), Default::default());
                (source, format!("[context {label}] {written}"), true)
            }
            (ContextPlan::Layout(store, reference), _) => {
                let source = sources::oci_layout(&reference.to_string(), self.given.session, &store);
                (source, format!("[context {label}] OCI load from client"), true)
            }
            (ContextPlan::Local(local), ContextAnswer::Ignore(patterns)) => {
                let key = self.given.options.shared_keys.get(label).cloned().unwrap_or_default();
                let source = sources::local(&local, self.session(&local), format!("context:{label}-{key}"), patterns);
                (source, format!("[context {label}] load from client"), false)
            }
            (ContextPlan::Local(local), _) => {
                let source = sources::local(&local, self.session(&local), format!("context:{label}-"), &[]);
                (source, format!("[context {label}] load from client"), false)
            }
        };
        let local = source.identifier.starts_with("local://");
        let platform = specific.then(|| context.platform.clone());
        let node = self.graph.add(NodeKind::Source(source, platform.clone()), named(&name), &[]);
        if local {
            self.main.named.push((node, StageId(self.stages.get(stage).paths_of)));
        }
        let mut state = State { root: Some(node), platform: platform.map(Platform::normalized), ..State::default() };
        let config = match answer {
            ContextAnswer::Image(resolved) => Some(read_config(&resolved.config)?),
            _ => None,
        };
        if let Some(config) = &config {
            apply_config(&mut state, config);
        }
        Ok(LoadedContext { state, config })
    }
}

/// Reads an image's configuration; the time it was made does not carry over.
pub(crate) fn read_config(bytes: &[u8]) -> Result<ImageConfig, Problem> {
    let config: ImageConfig =
        serde_json::from_slice(bytes).map_err(|e| Problem::new(format!("failed to parse image config: {e}")))?;
    Ok(config)
}

/// Gives a state the variables, directory and platform of an image.
fn apply_config(state: &mut State, config: &ImageConfig) {
    for assignment in &config.config.env {
        let (name, value) = image::split_env(assignment);
        if !name.is_empty() {
            state.env.set(name, value);
        }
    }
    let dir = &config.config.working_dir;
    state.cwd = if dir.starts_with('/') { dir.clone() } else { paths::join(&["/", dir]) };
    if !config.architecture.is_empty() && !config.os.is_empty() {
        state.platform = Some(image::platform(config).normalized());
    }
}

/// Adds the source of a remote main context, and what makes a tree of it; returns both.
fn add_remote(
    graph: &mut Graph,
    options: &Options,
    (source, name): (SourceOp, String),
    archive: bool,
) -> (NodeId, NodeId) {
    let node = graph.add(NodeKind::Source(source, None), named(&name), &[]);
    let plain = |src: String| CopyAction { src, dest: "/".into(), mode: -1, timestamp: -1, ..CopyAction::default() };
    let mut copy = |from: NodeId, copy: CopyAction| {
        let actions = vec![(FileActionKind::Copy(copy), Some(from))];
        graph.add(NodeKind::File(None, actions), OpMetadata::default(), &[])
    };
    let mut root = node;
    if archive {
        root = copy(root, CopyAction { attempt_unpack: true, ..plain(paths::join(&["/", REMOTE_FILE])) });
    }
    if let Some(subdir) = &options.context_subdir {
        root = copy(root, CopyAction { dir_copy_contents: true, ..plain(paths::join(&["/", subdir])) });
    }
    (node, root)
}

/// Returns the ops that make the tree of a remote main context; none for a local one.
pub(crate) fn remote_definition(options: &Options, archive: bool) -> Result<Option<Definition>, Problem> {
    let Some(source) = remote_source(options)? else { return Ok(None) };
    let mut graph = Graph::default();
    let (_, root) = add_remote(&mut graph, options, source, archive);
    Ok(Some(graph.finish(Some(root))))
}

/// Returns the source of a main context that is not local, with a name for the step.
pub(crate) fn remote_source(options: &Options) -> Result<Option<(SourceOp, String)>, Problem> {
    let Some(context) = &options.context else { return Ok(None) };
    if let Some(git) = gitref::parse(context).map_err(|e| Problem::usage(e.to_string()))? {
        let source = sources::git(&git, &main_git_options(options, &git));
        return Ok(Some((source, format!("[internal] load git source {context}"))));
    }
    if context.starts_with("http://") || context.starts_with("https://") {
        let source = sources::http(context, REMOTE_FILE, None);
        return Ok(Some((source, "[internal] load remote build context".to_owned())));
    }
    Ok(None)
}

fn main_git_options(options: &Options, git: &GitRef) -> GitOptions {
    let dated = options.build_args.get("SOURCE_DATE_EPOCH").is_some_and(|v| !v.is_empty());
    let default_mtime = if dated { "commit" } else { "" };
    GitOptions {
        keep_git_dir: git.keep_git_dir == Some(true) || options.keep_git_dir,
        checksum: git.checksum.clone(),
        mtime: if git.mtime.is_empty() { default_mtime.into() } else { git.mtime.clone() },
    }
}

fn unresolved(reference: &str, error: BridgeError) -> Problem {
    let problem = Problem::from(error);
    let message = format!("failed to resolve source metadata for {reference}: {}", problem.message);
    Problem { message, ..problem }
}

fn read_ignore(name: &str, text: &[u8]) -> Result<Vec<String>, Problem> {
    ignore::read(text).map_err(|e| Problem::new(format!("failed parsing {name}: {e}")))
}

fn plan_layout(name: &str, path: &str) -> Result<ContextPlan, Problem> {
    let no_digest = || Problem::usage(format!("oci-layout reference {} has no digest", quote(path)));
    let (store, digest) = path.split_once('@').ok_or_else(no_digest)?;
    let unread = |e: String| Problem::usage(format!("could not parse oci-layout reference {}: {e}", quote(path)));
    let digest = Digest::from_str(digest).map_err(|e| unread(e.to_string()))?;
    let store = match store.rsplit_once(':') {
        Some((store, tag)) if !tag.contains('/') => store,
        _ => store,
    };
    let reference = Reference::from_str(name).map_err(|e| unread(e.to_string()))?;
    Ok(ContextPlan::Layout(store.to_owned(), reference.with_digest(digest)))
}

fn plan_remote(context: &ContextValue, scheme: &str) -> Result<ContextPlan, Problem> {
    let ContextValue { value, full_name, .. } = context;
    match gitref::parse(value).map_err(|e| Problem::usage(e.to_string()))? {
        Some(git) => {
            let options = GitOptions {
                keep_git_dir: git.keep_git_dir == Some(true),
                checksum: git.checksum.clone(),
                mtime: git.mtime.clone(),
            };
            let name = format!("[internal] load git source {value}");
            Ok(ContextPlan::Ready(Some((sources::git(&git, &options), name))))
        }
        None if scheme == "git" => Err(Problem::usage(format!("invalid git context {value}"))),
        None => {
            let source = sources::http(value, REMOTE_FILE, None);
            Ok(ContextPlan::Ready(Some((source, format!("[context {full_name}] {value}")))))
        }
    }
}

/// Returns the paths to transfer, sorted; none means all.
fn follow_paths(used: &BTreeSet<String>) -> Vec<String> {
    if used.contains("/") {
        return Vec::new();
    }
    // Different spellings were cleaned when they were collected, so the set is free of duplicates and sorted.
    used.iter().map(|path| path.trim_start_matches('/').to_owned()).collect()
}

/// Returns the metadata of an op with a name.
pub(crate) fn named(name: &str) -> OpMetadata {
    let description = [("llb.customname".to_owned(), name.to_owned())].into_iter().collect();
    OpMetadata { description, ..OpMetadata::default() }
}

/// Tells whether a file starts like a compressed archive or a tar header.
pub(crate) fn is_archive(head: &[u8]) -> bool {
    const MAGICS: [&[u8]; 3] = [b"BZh", b"\x1f\x8b\x08", b"\xfd7zXZ\x00"];
    MAGICS.iter().any(|magic| head.starts_with(magic)) || is_tar_header(head)
}

/// A tar header holds the sum of its own bytes, its place read as blanks.
fn is_tar_header(head: &[u8]) -> bool {
    let Some(header) = head.get(..512) else { return false };
    let field = String::from_utf8_lossy(&header[148..156]).into_owned();
    let Ok(expected) = u64::from_str_radix(field.trim_matches(['\0', ' ']), 8) else { return false };
    let blanked = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) };
    header.iter().enumerate().map(blanked).sum::<u64>() == expected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_known_by_their_start() {
        let mut header = vec![0u8; 512];
        header[..1].copy_from_slice(b"a");
        header[148..156].copy_from_slice(b"000541\0 ");
        assert!(is_archive(&header) && is_archive(b"BZh9"));
        header[0] = b'b';
        assert!(!is_archive(&header) && !is_archive(b"FROM scratch"));
    }

    #[test]
    fn using_the_root_transfers_all() {
        let used = |paths: &[&str]| follow_paths(&paths.iter().map(|p| (*p).to_owned()).collect());
        assert_eq!(used(&["/b", "/a/c"]), ["a/c", "b"]);
        assert!(used(&["/b", "/"]).is_empty());
    }

    #[test]
    fn layouts_need_a_digest() {
        assert!(plan_layout("x", "store").is_err());
        let digest = Digest::compute(b"");
        let Ok(ContextPlan::Layout(store, reference)) = plan_layout("x", &format!("h:1/s:tag@{digest}")) else {
            panic!("no layout")
        };
        assert_eq!((store.as_str(), reference.to_string()), ("h:1/s", format!("docker.io/library/x@{digest}")));
    }
}
