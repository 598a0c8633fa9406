//! The copy action: what goes where. Directories are made here, one after the other; files are written in batches.
//!
//! In: the action and its trees. Out: the copies. Invariant: what a copy leaves does not depend on the number of threads.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;

use super::Trees;
use super::error::FileOpError;
use super::mode::ModeChange;
use super::owner::Owner;
use super::place::{
    NewDirectory, action_time, clean, display, join, make_all, real_path, set_time, set_times, split, stat,
};
use super::write::{Batch, Existing, Looks, Mode, Roots, flush, link_again};
use crate::checksum::{ChecksumError, Entry, Tree};
use crate::llb::CopyAction;
use crate::pattern::{MatchInfo, Matcher};
use crate::sys::dir::{Dir, Kind, Time};
use crate::sys::file::PLAIN_READ;

/// Copies what the action names; returns notices for the user.
pub(super) fn copy(action: &CopyAction, trees: &Trees<'_>, owner: Option<Owner>) -> Result<Vec<String>, FileOpError> {
    let source = trees.source.ok_or_else(|| FileOpError::NoSource { path: action.src.clone() })?;
    let src = display(&clean(&action.src));
    let looks = looks(action, owner)?;
    for path in &action.required_paths {
        if source.entry(path.as_bytes(), true)?.is_none() {
            return Err(FileOpError::NotFound { path: path.clone() });
        }
    }
    if !action.create_dest_path {
        require_parent(trees.dest, &action.dest)?;
    }
    let found = if action.allow_wildcard { source.glob(&src, action.follow_symlink)? } else { None };
    let paths: Vec<Vec<u8>> = match found {
        Some(found) if found.is_empty() && !action.allow_empty_wildcard => {
            return Err(FileOpError::NotFound { path: src });
        }
        Some(found) => found.into_iter().map(|entry| entry.path).collect(),
        None => vec![clean(&action.src)],
    };
    let mut notices = Vec::new();
    for path in &paths {
        let unpacked = if action.attempt_unpack { unpack(action, trees, source, path, owner)? } else { None };
        match unpacked {
            Some(more) => notices.extend(more),
            None => copy_one(action, trees.dest, source, path, &looks)?,
        }
    }
    Ok(notices)
}

fn looks(action: &CopyAction, owner: Option<Owner>) -> Result<Looks, FileOpError> {
    let mode = match (action.mode_str.as_str(), action.mode) {
        ("", -1) => Mode::Keep,
        ("", mode) => Mode::Set(mode as u32 & 0o7777),
        (text, _) => {
            let change = ModeChange::parse(text);
            Mode::Change(change.ok_or_else(|| FileOpError::Mode { mode: text.to_owned() })?)
        }
    };
    Ok(Looks { owner, mode, time: action_time(action.timestamp) })
}

fn require_parent(dest: &Dir, path: &str) -> Result<(), FileOpError> {
    let path = real_path(dest, &clean(path))?;
    let parent = split(&path).map_or(&b""[..], |(parent, _)| parent);
    match stat(dest, parent).map_err(|e| FileOpError::write("open", parent, e))? {
        Some(_) => Ok(()),
        None => Err(FileOpError::NotFound { path: display(parent) }),
    }
}

fn unpack(
    action: &CopyAction,
    trees: &Trees<'_>,
    source: &Tree<'_>,
    path: &[u8],
    owner: Option<Owner>,
) -> Result<Option<Vec<String>>, FileOpError> {
    let Some(entry) = source.entry(path, true)?.filter(|entry| entry.stat.kind() == Kind::File) else {
        return Ok(None);
    };
    let failed = |source| ChecksumError::Read { path: display(&entry.path), source };
    let file = File::from(source.dir.resolve(OsStr::from_bytes(&entry.path), PLAIN_READ).map_err(failed)?);
    if !entry.unchanged(&crate::sys::dir::stat_of(&file).map_err(failed)?) {
        return Err(ChecksumError::Changed { path: display(&entry.path) }.into());
    }
    if !(trees.is_archive)(&file).map_err(failed)? {
        return Ok(None);
    }
    let target = real_path(trees.dest, &clean(&action.dest))?;
    make_all(trees.dest, &target, &NewDirectory { mode: 0o755, owner, time: action_time(action.timestamp) })?;
    (trees.unpack)(&file, trees.dest, OsStr::from_bytes(&target), owner).map(Some).map_err(|source| {
        let (archive, path) = (display(&entry.path), display(&target));
        FileOpError::Unpack { archive, path, source }
    })
}

fn copy_one(action: &CopyAction, dest: &Dir, source: &Tree<'_>, path: &[u8], looks: &Looks) -> Result<(), FileOpError> {
    let entry = source.entry(path, action.follow_symlink)?;
    let entry = entry.ok_or_else(|| FileOpError::NotFound { path: display(path) })?;
    let new = NewDirectory { mode: looks.new_directory_mode(), owner: looks.owner, time: looks.time };
    let as_directory = action.dest.ends_with('/') || action.dest.ends_with("/.") || action.dest == ".";
    let wanted = clean(&action.dest);
    let ensured = if as_directory { &wanted[..] } else { split(&wanted).map_or(&b""[..], |(parent, _)| parent) };
    let ensured = real_path(dest, ensured)?;
    let mut made = make_all(dest, &ensured, &new)?;
    let mut target = real_path(dest, &wanted)?;
    let there = stat(dest, &target).map_err(|e| FileOpError::write("open", &target, e))?;
    let directory = entry.stat.is_dir();
    let into = if directory { !action.dir_copy_contents && there.is_some() } else { there.is_some_and(|s| s.is_dir()) };
    if into {
        // The root has no name: its copy goes where the directory is.
        target = split(path).map_or(target.clone(), |(_, name)| join(&target, name.as_bytes()));
    }
    let parent = split(&target).map_or(&b""[..], |(parent, _)| parent);
    let contents_only = action.dir_copy_contents && directory && there.is_none();
    made.extend(make_all(dest, if contents_only { &target } else { parent }, &new)?);
    if directory {
        source.read_ahead(&entry)?;
    }
    Copier::new(action, dest, source, looks)?.run(entry, target)?;
    set_times(dest, &made, looks.time)
}

struct Copier<'a> {
    dest: &'a Dir,
    source: &'a Tree<'a>,
    looks: &'a Looks,
    include: Option<Matcher>,
    exclude: Option<Matcher>,
    replace: bool,
    directories: Vec<Directory>,
    batches: Vec<Batch>,
    /// Where the first name of a file with several names went.
    first_names: BTreeMap<(u64, u64), Vec<u8>>,
    other_names: Vec<(Vec<u8>, Vec<u8>)>,
    times: Vec<(Vec<u8>, Time)>,
    root: usize,
}

/// A directory of the source that was met.
struct Directory {
    entry: Entry,
    target: Vec<u8>,
    made: bool,
    nested: bool,
    parent: Option<usize>,
    include: MatchInfo,
    exclude: MatchInfo,
}

/// Something to copy.
struct Item {
    entry: Entry,
    target: Vec<u8>,
    parent: Option<usize>,
}

/// What the patterns say of a path.
struct Verdict {
    included: bool,
    excluded: bool,
    include: MatchInfo,
    exclude: MatchInfo,
}

impl<'a> Copier<'a> {
    fn new(action: &CopyAction, dest: &'a Dir, source: &'a Tree<'a>, looks: &'a Looks) -> Result<Self, FileOpError> {
        Ok(Self {
            dest,
            source,
            looks,
            include: matcher(&action.include_patterns)?,
            exclude: matcher(&action.exclude_patterns)?,
            replace: action.always_replace,
            directories: Vec::new(),
            batches: Vec::new(),
            first_names: BTreeMap::new(),
            other_names: Vec::new(),
            times: Vec::new(),
            root: 0,
        })
    }

    fn run(mut self, entry: Entry, target: Vec<u8>) -> Result<(), FileOpError> {
        self.root = entry.path.len();
        let mut waiting = vec![Item { entry, target, parent: None }];
        while let Some(item) = waiting.pop() {
            self.visit(item, &mut waiting)?;
        }
        flush(self.roots(), self.looks, &self.batches)?;
        for (target, first) in &self.other_names {
            link_again(self.dest, target, first)?;
        }
        // Writing into a directory changes its time, so times come last, inner ones first.
        self.times.iter().rev().try_for_each(|(path, time)| set_time(self.dest, path, *time))
    }

    fn roots(&self) -> Roots<'a> {
        Roots { source: self.source.dir, dest: self.dest }
    }

    fn visit(&mut self, item: Item, waiting: &mut Vec<Item>) -> Result<(), FileOpError> {
        let verdict = self.verdict(&item);
        if verdict.included {
            if self.replace {
                self.make_room(&item)?;
            }
            self.make_parents(item.parent)?;
        }
        if item.entry.stat.is_dir() {
            return self.directory(item, verdict, waiting);
        }
        if verdict.included {
            self.file(item);
        }
        Ok(())
    }

    /// The copied path itself is no subject of patterns; what is below it is matched by its path from there.
    fn verdict(&self, item: &Item) -> Verdict {
        let none = MatchInfo::default();
        let mut verdict = Verdict { included: true, excluded: false, include: none.clone(), exclude: none.clone() };
        let Some(parent) = item.parent.map(|at| &self.directories[at]) else { return verdict };
        let path = item.entry.path[self.root..].strip_prefix(b"/").unwrap_or(&item.entry.path[self.root..]);
        let path = String::from_utf8_lossy(path);
        if let Some(matcher) = &self.include {
            (verdict.included, verdict.include) = matcher.matches_with(&path, &parent.include);
        }
        if let Some(matcher) = &self.exclude {
            (verdict.excluded, verdict.exclude) = matcher.matches_with(&path, &parent.exclude);
        }
        verdict.included &= !verdict.excluded;
        verdict
    }

    fn make_room(&self, item: &Item) -> Result<(), FileOpError> {
        let failed = |e| FileOpError::write("replace", &item.target, e);
        let Some(there) = stat(self.dest, &item.target).map_err(failed)? else { return Ok(()) };
        let Some((parent, name)) = split(&item.target) else { return Ok(()) };
        if there.is_dir() && item.entry.stat.is_dir() {
            return Ok(());
        }
        let parent = self.dest.open_below(OsStr::from_bytes(parent)).map_err(failed)?;
        parent.remove_all(name).map_err(failed)
    }

    /// Directories around what is included are made when the first of it is met.
    fn make_parents(&mut self, innermost: Option<usize>) -> Result<(), FileOpError> {
        let mut missing = Vec::new();
        let mut at = innermost;
        while let Some(directory) = at.filter(|at| !self.directories[*at].made) {
            missing.push(directory);
            at = self.directories[directory].parent;
        }
        for at in missing.into_iter().rev() {
            let directory = &self.directories[at];
            let (entry, target) = (&directory.entry, &directory.target);
            let there = if directory.nested { Existing::Chmod } else { Existing::Keep };
            if self.looks.make_directory(self.roots(), entry, target, there)? {
                self.times.push((target.clone(), self.looks.time_of(entry)));
            }
            self.directories[at].made = true;
        }
        Ok(())
    }

    fn directory(&mut self, item: Item, verdict: Verdict, waiting: &mut Vec<Item>) -> Result<(), FileOpError> {
        let Item { entry, target, parent } = item;
        if verdict.included {
            let there = if parent.is_some() { Existing::Dress } else { Existing::Keep };
            self.looks.make_directory(self.roots(), &entry, &target, there)?;
            self.times.push((target.clone(), self.looks.time_of(&entry)));
        }
        let read = !verdict.excluded || self.exclude.as_ref().is_some_and(Matcher::has_exclusions);
        let children = if read { self.source.children(&entry)? } else { Vec::new() };
        let at = self.directories.len();
        for child in children.into_iter().rev() {
            let target = join(&target, child.name());
            waiting.push(Item { entry: child, target, parent: Some(at) });
        }
        let Verdict { included, include, exclude, .. } = verdict;
        let nested = parent.is_some();
        self.directories.push(Directory { entry, target, made: included, nested, parent, include, exclude });
        Ok(())
    }

    fn file(&mut self, item: Item) {
        let Item { entry, target, parent } = item;
        if entry.stat.kind() == Kind::File && entry.stat.nlink > 1 {
            let file = (entry.stat.dev, entry.stat.ino);
            if let Some(first) = self.first_names.get(&file) {
                self.other_names.push((target, first.clone()));
                return;
            }
            self.first_names.insert(file, target.clone());
        }
        match self.batches.last_mut().filter(|batch| batch.takes(parent)) {
            Some(batch) => batch.push(entry, target),
            None => self.batches.push(Batch::new(parent, entry, target)),
        }
    }
}

fn matcher(patterns: &[String]) -> Result<Option<Matcher>, FileOpError> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let failed = |source| ChecksumError::Pattern { pattern: patterns.join(", "), source };
    Ok(Some(Matcher::new(patterns).map_err(failed)?))
}
