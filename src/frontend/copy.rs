//! COPY and ADD: file actions from contexts, stages, URLs, git repositories and heredocs.
//!
//! All sources of an instruction are actions of one op, chained. With `--link` they work on an empty tree, which is then
//! merged onto the stage's.

use super::bases::COMMAND;
use super::chmod::{self, Chmod};
use super::contexts;
use super::dispatch::{At, owner};
use super::error::Problem;
use super::graph::{NodeId, NodeKind};
use super::image::Layer;
use super::lowering::Lowering;
use super::names;
use super::paths::{self, Tail};
use super::sources::{self, GitOptions};
use super::stage::StageId;
use crate::digest;
use crate::dockerfile::gitref::{self, GitRef};
use crate::dockerfile::goquote::quote;
use crate::dockerfile::instruction::{AddInstruction, CopyInstruction, Heredoc, SourcesAndDest};
use crate::dockerfile::lint::Rule;
use crate::llb::{CopyAction, FileActionKind, ProgressGroup};
use crate::pattern::path::clean as clean_path;

/// A COPY or ADD with its variables expanded.
#[derive(Debug, Default)]
struct Expanded<'i> {
    add: Option<&'i AddInstruction>,
    files: SourcesAndDest,
    chown: String,
    chmod: String,
    checksum: String,
    keep_git_dir: Option<bool>,
    link: bool,
    parents: bool,
    exclude: &'i [String],
}

/// What all actions of an instruction share.
struct Common {
    dest: String,
    chmod: Chmod,
    name: String,
    os: String,
    /// What paths are copied from.
    root: Option<NodeId>,
    /// Whether that is the main context.
    from_context: bool,
    linked: bool,
}

type Action = (FileActionKind, Option<NodeId>);

impl Lowering<'_> {
    pub(crate) fn dispatch_copy(
        &mut self,
        at: At<'_>,
        copy: &CopyInstruction,
        from: Option<StageId>,
    ) -> Result<(), Problem> {
        let mut expanded = Expanded {
            chown: self.expand(at.stage, at.source, &copy.chown)?,
            chmod: self.expand(at.stage, at.source, &copy.chmod)?,
            link: copy.link,
            parents: copy.parents,
            exclude: &copy.exclude,
            ..Expanded::default()
        };
        expanded.files = self.expand_files(at, &copy.files)?;
        let mut root = self.main.root;
        if let Some(from) = from {
            let stage = self.stages.get(from);
            if !stage.progress.dispatched {
                return Err(self.not_yet(at.stage, &copy.from));
            }
            root = stage.state.root;
        }
        self.copy(at, &mut expanded, root, from.is_none())?;
        for path in expanded.files.paths {
            let path = paths::join(&["/", &path]);
            match from {
                Some(from) => self.stages.use_path(from, path),
                None => _ = self.stages.get_mut(at.stage).context_paths.insert(path),
            }
        }
        Ok(())
    }

    fn not_yet(&self, id: StageId, from: &str) -> Problem {
        let current = &self.stages.get(id).display;
        let (from, current) = (quote(from), quote(current));
        Problem::new(format!("cannot copy from stage {from}, it needs to be defined before current stage {current}"))
            .hinted("move the stage that is copied from above this one")
    }

    pub(crate) fn dispatch_add(&mut self, at: At<'_>, add: &AddInstruction) -> Result<(), Problem> {
        let mut expanded = Expanded {
            add: Some(add),
            chown: self.expand(at.stage, at.source, &add.chown)?,
            chmod: self.expand(at.stage, at.source, &add.chmod)?,
            checksum: self.expand(at.stage, at.source, &add.checksum)?,
            keep_git_dir: add.keep_git_dir,
            link: add.link,
            exclude: &add.exclude,
            ..Expanded::default()
        };
        expanded.files = self.expand_files(at, &add.files)?;
        self.copy(at, &mut expanded, self.main.root, true)?;
        let local = expanded.files.paths.iter().filter(|p| !p.starts_with("http://") && !p.starts_with("https://"));
        self.stages.get_mut(at.stage).context_paths.extend(local.map(|path| paths::join(&["/", path])));
        Ok(())
    }

    fn expand_files(&mut self, at: At<'_>, files: &SourcesAndDest) -> Result<SourcesAndDest, Problem> {
        let mut expanded = SourcesAndDest::default();
        for path in &files.paths {
            expanded.paths.push(self.expand(at.stage, at.source, path)?);
        }
        expanded.dest = self.expand(at.stage, at.source, &files.dest)?;
        let lexer = self.body_lexer();
        for heredoc in &files.inline {
            let mut heredoc = heredoc.clone();
            if heredoc.expand {
                heredoc.body = self.expand_with(&lexer, at.stage, at.source, &heredoc.body)?;
                heredoc.bytes = None;
            }
            expanded.inline.push(heredoc);
        }
        Ok(expanded)
    }

    fn copy(
        &mut self,
        at: At<'_>,
        copy: &mut Expanded<'_>,
        root: Option<NodeId>,
        from_context: bool,
    ) -> Result<(), Problem> {
        let os = self.os(at.stage).to_owned();
        let dest = destination(&self.stages.get(at.stage).state.cwd, &copy.files.dest, &os)?;
        let chmod = chmod::parse(&copy.chmod)?;
        check_checksum(copy)?;
        let name = self.step_name(at);
        let linked = copy.link && copy.chmod.is_empty();
        let common = Common { dest, chmod, name, os, root, from_context, linked };
        let mut actions = Vec::new();
        for path in copy.files.paths.clone() {
            actions.push(self.path_action(at, copy, &common, &path)?);
        }
        for heredoc in &copy.files.inline {
            actions.push(self.inline_action(at, copy, &common, heredoc)?);
        }
        self.add_copy(at, &common, actions);
        self.record(at.stage, record(copy), Layer::Some);
        Ok(())
    }

    fn path_action(
        &mut self,
        at: At<'_>,
        copy: &mut Expanded<'_>,
        common: &Common,
        path: &str,
    ) -> Result<Action, Problem> {
        match gitref::parse(path).map_err(|e| Problem::new(e.to_string()).marking(path))? {
            Some(git) if !git.indistinguishable_from_local => self.git_action(at, copy, common, &git),
            _ if path.starts_with("http://") || path.starts_with("https://") => {
                self.http_action(at, copy, common, path)
            }
            _ => self.local_action(at, copy, common, path),
        }
    }

    fn git_action(
        &mut self,
        at: At<'_>,
        copy: &mut Expanded<'_>,
        common: &Common,
        git: &GitRef,
    ) -> Result<Action, Problem> {
        if copy.add.is_none() {
            return Err(no_download("a git ref", at));
        }
        let options = git_options(copy, git)?;
        let source = NodeKind::Source(sources::git(git, &options), None);
        let node = self.graph.add(source, contexts::named(&common.name), &[]);
        Ok((FileActionKind::Copy(self.action(at, copy, common, "/")), Some(node)))
    }

    fn http_action(&mut self, at: At<'_>, copy: &Expanded<'_>, common: &Common, url: &str) -> Result<Action, Problem> {
        let Some(add) = copy.add else { return Err(no_download("a URL", at)) };
        let checksum = (!copy.checksum.is_empty()).then(|| parse_checksum(&copy.checksum)).transpose()?;
        let filename = sources::http_filename(url);
        let source = NodeKind::Source(sources::http(url, &filename, checksum), None);
        let mut metadata = contexts::named(&common.name);
        metadata.description.insert(COMMAND.into(), String::new());
        let node = self.graph.add(source, metadata, &[]);
        let mut action = self.action(at, copy, common, &filename);
        action.attempt_unpack = add.unpack == Some(true);
        Ok((FileActionKind::Copy(action), Some(node)))
    }

    fn local_action(
        &mut self,
        at: At<'_>,
        copy: &Expanded<'_>,
        common: &Common,
        path: &str,
    ) -> Result<Action, Problem> {
        if common.from_context {
            self.check_ignored(at, copy.add.is_some(), path);
        }
        let parents = if copy.parents { Some(split_parents(path, &common.os)?) } else { None };
        let (src, pattern, required) = parents.unwrap_or_else(|| (path.to_owned(), None, None));
        let src = below_root(&src, &common.os)?;
        let mut action = self.action(at, copy, common, &src);
        action.follow_symlink = true;
        action.dir_copy_contents = true;
        action.attempt_unpack = copy.add.is_some_and(|add| add.unpack != Some(false));
        action.allow_wildcard = true;
        action.allow_empty_wildcard = true;
        action.include_patterns = pattern.into_iter().collect();
        action.required_paths = required.into_iter().collect();
        Ok((FileActionKind::Copy(action), common.root))
    }

    fn inline_action(
        &mut self,
        at: At<'_>,
        copy: &Expanded<'_>,
        common: &Common,
        heredoc: &Heredoc,
    ) -> Result<Action, Problem> {
        let name = paths::strip_drive(&heredoc.name, &common.os, Tail::Drop);
        let name = name.map_err(|p| p.prefixed_upstream(paths::DRIVE))?;
        let node = self.inline_file(&Heredoc { name: name.clone(), ..heredoc.clone() }, 0o644);
        Ok((FileActionKind::Copy(self.action(at, copy, common, &name)), Some(node)))
    }

    /// Returns what all copies have in common.
    fn action(&self, at: At<'_>, copy: &Expanded<'_>, common: &Common, src: &str) -> CopyAction {
        let has_base = !common.linked && self.stages.get(at.stage).state.root.is_some();
        let clean = clean_path(src);
        CopyAction {
            src: paths::join(&["/", &clean]),
            dest: paths::action_path("/", &common.dest, Tail::Keep),
            owner: (!copy.chown.is_empty()).then(|| owner(&copy.chown, has_base)),
            mode: common.chmod.mode,
            mode_str: common.chmod.symbolic.clone(),
            create_dest_path: true,
            timestamp: -1,
            exclude_patterns: copy.exclude.to_vec(),
            ..CopyAction::default()
        }
    }

    fn add_copy(&mut self, at: At<'_>, common: &Common, actions: Vec<Action>) {
        let base = self.stages.get(at.stage).state.root;
        let mut metadata = self.metadata(at.stage, &common.name);
        if !common.linked {
            let node = self.graph.add(NodeKind::File(base, actions), metadata, &at.source.lines);
            self.stages.get_mut(at.stage).state.root = Some(node);
            return;
        }
        let stage = self.stages.get(at.stage);
        let text = names::text(&self.lexer, &at.source.text, &stage.state.env);
        let platform = stage.platform_or(&self.target_platform);
        let link_name = names::current(stage, &format!("LINK {text}"), self.shown(platform));
        // Unique among the platforms of a request, and the same the next time.
        let id = format!("link-{}-{}-{}", self.target_platform, at.stage.0, stage.index);
        let mut group = ProgressGroup { id, name: common.name.clone(), weak: true };
        let mut merge_metadata = self.metadata(at.stage, &link_name);
        metadata.progress_group = Some(group.clone());
        group.weak = false;
        merge_metadata.progress_group = Some(group);
        let copied = self.graph.add(NodeKind::File(None, actions), metadata, &at.source.lines);
        let root = match base {
            None => copied,
            Some(base) => self.graph.add(NodeKind::Merge(vec![base, copied]), merge_metadata, &at.source.lines),
        };
        self.stages.get_mut(at.stage).state.root = Some(root);
    }

    fn check_ignored(&mut self, at: At<'_>, add: bool, path: &str) {
        let Some(matcher) = self.main.ignore.as_ref().filter(|m| !m.has_exclusions()) else { return };
        let path = clean_path(path);
        let whole = path == "." || path == "/";
        let all = |p: &String| matches!(p.as_str(), "*" | "**" | "**/*");
        if whole && !self.main.patterns.iter().any(all) || !matcher.matches_or_parent(&path) {
            return;
        }
        let word = if add { "Add" } else { "Copy" };
        let message = format!("Attempting to {word} file {} that is excluded by .dockerignore", quote(&path));
        self.lint.instruction(Rule::CopyIgnoredFile, at.source, message);
    }
}

/// Returns the absolute destination; what ends in a slash stays a directory.
fn destination(cwd: &str, dest: &str, os: &str) -> Result<String, Problem> {
    let dest = paths::strip_drive(dest, os, Tail::Keep).map_err(|p| p.prefixed_upstream(paths::DRIVE))?;
    let dest = if dest.is_empty() || dest == "." { "./" } else { &dest };
    let parent = if paths::is_absolute(dest, os) { "/" } else { cwd };
    paths::normalize(parent, dest, os, Tail::Keep)
}

/// Returns a source's path from the root of what it is copied from.
fn below_root(path: &str, os: &str) -> Result<String, Problem> {
    paths::normalize("/", path, os, Tail::Drop).map_err(|p| p.prefixed_upstream(paths::DRIVE))
}

/// Root, include pattern and required path of one source of `COPY --parents`.
type Parents = (String, Option<String>, Option<String>);

/// Splits `root/./pattern`.
fn split_parents(path: &str, os: &str) -> Result<Parents, Problem> {
    let (root, pattern) = path.split_once("/./").unwrap_or(("/", path));
    let pattern = below_root(pattern, os)?;
    let literal = !paths::has_wildcards(root) && !paths::has_wildcards(&pattern);
    let required = match literal {
        true => Some(below_root(&paths::join(&[root, &pattern]), os)?),
        false => None,
    };
    let pattern = pattern.strip_prefix('/').unwrap_or(&pattern).to_owned();
    Ok((root.to_owned(), Some(pattern), required))
}

/// Says that COPY takes no such source.
fn no_download(what: &str, at: At<'_>) -> Problem {
    let problem = Problem::new(format!("source can't be {what} for COPY")).marking(at.source.keyword.as_str());
    problem.hinted("ADD downloads: write `ADD SOURCE DESTINATION`")
}

fn check_checksum(copy: &Expanded<'_>) -> Result<(), Problem> {
    if copy.checksum.is_empty() {
        return Ok(());
    }
    let [path] = copy.files.paths.as_slice() else {
        let problem = Problem::new("checksum can't be specified for multiple sources").marking("--checksum");
        return Err(problem.hinted("write one ADD for each source"));
    };
    // What is wrong with a git reference is said when it is used.
    let git = gitref::parse(path).map_or(true, |git| git.is_some());
    if git || path.starts_with("http://") || path.starts_with("https://") {
        return Ok(());
    }
    let problem = Problem::new("checksum requires HTTP(S) or Git sources").marking("--checksum");
    Err(problem.hinted("leave --checksum out: files of the context are checked anyway"))
}

/// Reads the checksum of a URL.
pub(crate) fn parse_checksum(text: &str) -> Result<&str, Problem> {
    match digest::shape(text) {
        Ok(()) => Ok(text),
        Err(error) => Err(Problem::new(error.to_string()).hinted("write `sha256:` and 64 hexadecimal digits")),
    }
}

/// Joins what flags and the reference's query ask of a git repository; as in BuildKit, it holds for the sources behind
/// it too.
fn git_options(copy: &mut Expanded<'_>, git: &GitRef) -> Result<GitOptions, Problem> {
    if copy.keep_git_dir.zip(git.keep_git_dir).is_some_and(|(asked, query)| asked != query) {
        return Err(Problem::new("inconsistent keep-git-dir configuration"));
    }
    copy.keep_git_dir = git.keep_git_dir.or(copy.keep_git_dir);
    if !copy.checksum.is_empty() && !git.checksum.is_empty() && copy.checksum != git.checksum {
        let (asked, query) = (quote(&copy.checksum), quote(&git.checksum));
        return Err(Problem::new(format!("checksum mismatch {asked} != {query}")));
    }
    if !git.checksum.is_empty() {
        copy.checksum.clone_from(&git.checksum);
    }
    let keep_git_dir = copy.keep_git_dir == Some(true);
    Ok(GitOptions { keep_git_dir, checksum: copy.checksum.clone(), mtime: String::new() })
}

fn record(copy: &Expanded<'_>) -> String {
    let mut record = String::from(if copy.add.is_some() { "ADD" } else { "COPY" });
    if copy.parents {
        record.push_str(" --parents");
    }
    for (flag, value) in [("chown", &copy.chown), ("chmod", &copy.chmod)] {
        if !value.is_empty() {
            record.push_str(&format!(" --{flag}={value}"));
        }
    }
    copy.files.paths.iter().for_each(|path| record.push_str(&format!(" {path}")));
    copy.files.inline.iter().for_each(|heredoc| record.push_str(&format!(" <<{}", heredoc.name)));
    record.push_str(&format!(" {} # buildkit", copy.files.dest));
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_stay_directories() {
        for (dest, expected) in [("", "/w/"), (".", "/w/"), ("a/", "/w/a/"), ("/a/.", "/a/."), ("a", "/w/a")] {
            let destination = destination("/w", dest, "linux").expect(dest);
            assert_eq!(paths::action_path("/", &destination, Tail::Keep), expected);
        }
        assert_eq!(destination("/app", ".\\sub\\", "windows").expect("path"), "/app/sub/");
    }

    #[test]
    fn parents_split_at_the_first_pivot() {
        let split = |path| split_parents(path, "linux").expect("path");
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(split("a/./b/./c"), ("a".into(), some("b/c"), some("/a/b/c")));
        assert_eq!(split("a/*/b"), ("/".into(), some("a/*/b"), None));
    }
}
