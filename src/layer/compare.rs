//! What changed between two trees, as a layer in overlay's form.
//!
//! In: a changed tree and the tree it was made from, or any two trees. Out: a layer. Invariants: what is the same in both is not in the layer,
//! by containerd's rules: owner, mode, device, capabilities, size and time, and the content where times have no
//! nanoseconds; directories are compared without their times. A file that is the same stays in the layer where a name of
//! it is new or changed, or unpacking the layer would make two files of one.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;

use super::apply::is_content_xattr;
use super::copy::{Copier, directory_metadata, is_opaque};
use super::place::{is_whiteout, make_whiteout};
use super::{OPAQUE, OVERLAY_PREFIX};
use crate::sys::dir::{self, Dir, Kind, Stat, Time};
use crate::sys::walk::{Descent, Walk};

/// What [`normalize`] and [`extract_diff`] found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Whether anything of lower layers is hidden.
    pub hides: bool,
    /// Sum of the sizes of the files.
    pub size: u64,
}

impl Found {
    fn add(&mut self, stat: &Stat) {
        if stat.kind() == Kind::File {
            self.size += stat.size;
        }
    }
}

/// Removes from an overlay's upper directory what says nothing: whiteouts of nothing, opaque directories over nothing, files and
/// empty directories as they were below. The kernel leaves all of these, and BuildKit none.
pub(crate) fn normalize(upper: &Dir, lower: Option<&Dir>) -> io::Result<Found> {
    let mut normalizing = Normalizing {
        upper: Walk::new(upper, Level::new(upper, lower.is_some(), false)?)?,
        lower: lower.map(Descent::new),
        found: Found::default(),
    };
    loop {
        match normalizing.upper.next_name() {
            Some(name) => normalizing.one(&name)?,
            None if normalizing.leave()? => {}
            None => return Ok(normalizing.found),
        }
    }
}

/// What is noted for each directory on the way.
struct Level {
    time: Time,
    /// Whether the walk through the tree below is in the counterpart of the directory.
    merged: bool,
    /// Whether the directory itself is as it is below.
    same: bool,
    /// Whether anything was left in it.
    kept: bool,
    /// Whether anything was removed from it.
    removed: bool,
}

impl Level {
    fn new(dir: &Dir, merged: bool, same: bool) -> io::Result<Self> {
        Ok(Self { time: dir.stat_self()?.mtime, merged, same, kept: false, removed: false })
    }
}

struct Normalizing<'a> {
    upper: Walk<'a, Level>,
    lower: Option<Descent<'a>>,
    found: Found,
}

impl Normalizing<'_> {
    fn one(&mut self, name: &OsStr) -> io::Result<()> {
        let upper = self.upper.here();
        let stat = upper.stat(name)?;
        let merged = self.upper.note().merged;
        let (upper, lower) = (self.upper.here(), self.lower.as_ref().filter(|_| merged).map(Descent::here));
        let below = lower.map_or(Ok(None), |lower| lower.try_stat(name))?;
        let keep = match (lower, below) {
            _ if stat.is_dir() => return self.enter(name, below.is_some_and(|below| below.is_dir())),
            (Some(_), Some(_)) if is_whiteout(&stat) => true,
            // Its other names are in the upper directory too: nothing below is linked to what is there.
            (Some(_), Some(_)) if stat.nlink > 1 => true,
            (Some(lower), Some(below)) => !same_file(lower, upper, name, (&below, &stat))?,
            _ => !is_whiteout(&stat),
        };
        if keep {
            self.found.add(&stat);
            self.found.hides |= is_whiteout(&stat);
        } else {
            upper.unlink(name)?;
        }
        let level = self.upper.note();
        level.kept |= keep;
        level.removed |= !keep;
        Ok(())
    }

    fn enter(&mut self, name: &OsStr, below: bool) -> io::Result<()> {
        let child = self.upper.here().open_dir(name)?;
        let opaque = is_opaque(&child)?;
        strip_overlay_xattrs(&child, opaque && below)?;
        self.found.hides |= opaque && below;
        let mut level = Level::new(&child, below && !opaque, false)?;
        if let Some(lower) = self.lower.as_mut().filter(|_| level.merged) {
            lower.enter(name)?;
            level.same = same_directory(lower.here(), &child)?;
        }
        self.upper.enter(name, level)
    }

    /// Goes back to the directory above, if there is one, and removes the one that was left if it says nothing.
    fn leave(&mut self) -> io::Result<bool> {
        let Level { removed, time, .. } = *self.upper.note();
        if removed {
            dir::set_time_of(self.upper.here(), time)?;
        }
        let Some((name, level)) = self.upper.leave()? else { return Ok(false) };
        if let Some(lower) = self.lower.as_mut().filter(|_| level.merged) {
            lower.leave()?;
        }
        let keep = level.kept || !level.same;
        if !keep {
            self.upper.here().remove_dir(&name)?;
        }
        let above = self.upper.note();
        above.kept |= keep;
        above.removed |= !keep;
        Ok(true)
    }
}

fn strip_overlay_xattrs(dir: &Dir, keep_opaque: bool) -> io::Result<()> {
    let own = OsStr::new(".");
    for (key, _) in dir.xattrs(own)? {
        let overlay = key.as_bytes().starts_with(OVERLAY_PREFIX.as_bytes());
        if overlay && !(keep_opaque && key == OsStr::new(OPAQUE)) {
            dir.remove_xattr(own, &key)?;
        }
    }
    Ok(())
}

/// Removes whiteouts of nothing. They do harm: in a directory that no other layer has, overlay lists them by name.
pub(crate) fn prune(upper: &Dir, lower: Option<&Dir>) -> io::Result<()> {
    let mut walk = Walk::new(upper, lower.is_some())?;
    let mut lower = lower.map(Descent::new);
    loop {
        let Some(name) = walk.next_name() else {
            match walk.leave()? {
                None => return Ok(()),
                Some((_, true)) => _ = lower.as_mut().map(Descent::leave).transpose()?,
                Some((_, false)) => {}
            }
            continue;
        };
        let stat = walk.here().stat(&name)?;
        let merged = *walk.note();
        let below = lower.as_ref().filter(|_| merged).map_or(Ok(None), |lower| lower.here().try_stat(&name))?;
        if is_whiteout(&stat) && below.is_none() {
            let time = walk.here().stat_self()?.mtime;
            walk.here().unlink(&name)?;
            dir::set_time_of(walk.here(), time)?;
        }
        if stat.is_dir() {
            let merged = below.is_some_and(|below| below.is_dir()) && !is_opaque(&walk.here().open_dir(&name)?)?;
            walk.enter(&name, merged)?;
            lower.as_mut().filter(|_| merged).map_or(Ok(()), |lower| lower.enter(&name))?;
        }
    }
}

/// Makes in `skeleton` the directories of `layer` that hold whiteouts, and their parents; returns whether there is any.
pub(crate) fn skeleton(layer: &Dir, skeleton: &Dir) -> io::Result<bool> {
    let mut walk = Walk::new(layer, false)?;
    let mut skeleton = Descent::new(skeleton);
    loop {
        if let Some(name) = walk.next_name() {
            let stat = walk.here().stat(&name)?;
            *walk.note() |= is_whiteout(&stat);
            if stat.is_dir() {
                skeleton.here().make_dir(&name, 0o755)?;
                skeleton.enter(&name)?;
                walk.enter(&name, false)?;
            }
            continue;
        }
        let holds = *walk.note();
        let Some((name, _)) = walk.leave()? else { return Ok(holds) };
        skeleton.leave()?;
        if !holds {
            skeleton.here().remove_dir(&name)?;
        }
        *walk.note() |= holds;
    }
}

/// Moves what differs between `tree` and `lower` out of `tree` into the empty directory `layer`.
pub(crate) fn extract_diff(tree: &Dir, lower: Option<&Dir>, layer: &Dir) -> io::Result<Found> {
    diff(tree, lower, layer, Taking::Moving)
}

/// Copies what differs between `tree` and `lower` into the empty directory `layer`; `tree` may be one that nobody can change.
pub(crate) fn copy_diff(tree: &Dir, lower: &Dir, layer: &Dir) -> io::Result<Found> {
    diff(tree, Some(lower), layer, Taking::Copying(Copier::new(layer)))
}

fn diff(tree: &Dir, lower: Option<&Dir>, layer: &Dir, taking: Taking<'_>) -> io::Result<Found> {
    let mut linked = BTreeSet::new();
    if let Some(lower) = lower {
        changed_links(tree, lower, &mut linked)?;
    }
    let mut diff = Diff {
        linked,
        taking,
        found: Found::default(),
        tree: Walk::new(tree, tree.stat_self()?.mtime)?,
        lower: lower.map(Descent::new),
        layer: Descent::new(layer),
    };
    diff.whiteouts()?;
    loop {
        match diff.tree.next_name() {
            Some(name) => diff.one(&name)?,
            None if diff.leave()? => {}
            None => break,
        }
    }
    directory_metadata(tree, layer)?;
    Ok(diff.found)
}

/// Collects the files of several names of which one is not as below.
fn changed_links(tree: &Dir, lower: &Dir, linked: &mut BTreeSet<(u64, u64)>) -> io::Result<()> {
    let (mut walk, mut lower) = (Walk::new(tree, true)?, Descent::new(lower));
    loop {
        let Some(name) = walk.next_name() else {
            match walk.leave()? {
                None => return Ok(()),
                Some((_, true)) => drop(lower.leave()?),
                Some((_, false)) => {}
            }
            continue;
        };
        let (stat, merged) = (walk.here().stat(&name)?, *walk.note());
        let below = if merged { lower.here().try_stat(&name)? } else { None };
        match below {
            Some(below) if stat.is_dir() && below.is_dir() => {
                walk.enter(&name, true)?;
                lower.enter(&name)?;
            }
            _ if stat.is_dir() => walk.enter(&name, false)?,
            _ if stat.nlink == 1 => {}
            Some(below) if same_file(lower.here(), walk.here(), &name, (&below, &stat))? => {}
            _ => _ = linked.insert((stat.dev, stat.ino)),
        }
    }
}

struct Diff<'a> {
    /// Files of several names, one of which is new or changed, by device and number.
    linked: BTreeSet<(u64, u64)>,
    taking: Taking<'a>,
    found: Found,
    /// With the time each directory had.
    tree: Walk<'a, Time>,
    /// Always in the counterpart of the directory the tree's walk is in, as `layer` is.
    lower: Option<Descent<'a>>,
    layer: Descent<'a>,
}

/// How what differs gets into the layer.
enum Taking<'a> {
    Moving,
    Copying(Copier<'a>),
}

impl Taking<'_> {
    fn take(&mut self, tree: &Dir, layer: &Descent<'_>, name: &OsStr) -> io::Result<()> {
        match self {
            Taking::Moving => tree.rename(name, layer.here(), name),
            Taking::Copying(copier) => copier.one(tree, layer, name),
        }
    }

    /// Moving something out of a directory changes its time, which is about to be copied.
    fn restore_time(&self, tree: &Dir, time: Time) -> io::Result<()> {
        match self {
            Taking::Moving => dir::set_time_of(tree, time),
            Taking::Copying(_) => Ok(()),
        }
    }
}

impl Diff<'_> {
    /// Hides what was in the directory before and is not now.
    fn whiteouts(&mut self) -> io::Result<()> {
        let Some(lower) = &self.lower else { return Ok(()) };
        let names = self.tree.names();
        for name in lower.here().names()?.iter().filter(|name| names.binary_search(name).is_err()) {
            make_whiteout(self.layer.here(), name)?;
            self.found.hides = true;
        }
        Ok(())
    }

    fn one(&mut self, name: &OsStr) -> io::Result<()> {
        let (tree, lower) = (self.tree.here(), self.lower.as_ref().map(Descent::here));
        let stat = tree.stat(name)?;
        let below = lower.map_or(Ok(None), |lower| lower.try_stat(name))?;
        match (lower, below) {
            (Some(_), Some(below)) if stat.is_dir() && below.is_dir() => return self.enter(name),
            (Some(lower), Some(below))
                if !stat.is_dir()
                    && !self.linked.contains(&(stat.dev, stat.ino))
                    && same_file(lower, tree, name, (&below, &stat))? => {}
            _ => {
                count(tree, name, &stat, &mut self.found)?;
                self.taking.take(tree, &self.layer, name)?;
            }
        }
        Ok(())
    }

    fn enter(&mut self, name: &OsStr) -> io::Result<()> {
        let time = self.tree.here().stat(name)?.mtime;
        self.tree.enter(name, time)?;
        if let Some(lower) = &mut self.lower {
            lower.enter(name)?;
        }
        self.layer.here().make_dir(name, 0o700)?;
        self.layer.enter(name)?;
        self.whiteouts()
    }

    fn leave(&mut self) -> io::Result<bool> {
        let time = *self.tree.note();
        let (tree, layer) = (self.tree.here(), self.layer.here());
        self.taking.restore_time(tree, time)?;
        let same = self.lower.as_ref().map_or(Ok(false), |lower| same_directory(lower.here(), tree))?;
        let empty = same && layer.names()?.is_empty();
        if self.layer.depth() > 0 && !empty {
            directory_metadata(tree, layer)?;
        }
        if let Some(lower) = &mut self.lower {
            lower.leave()?;
        }
        if let Some(name) = self.layer.leave()?.filter(|_| empty) {
            self.layer.here().remove_dir(&name)?;
        }
        Ok(self.tree.leave()?.is_some())
    }
}

fn count(parent: &Dir, name: &OsStr, stat: &Stat, found: &mut Found) -> io::Result<()> {
    found.add(stat);
    if !stat.is_dir() {
        return Ok(());
    }
    let dir = parent.open_dir(name)?;
    let mut walk = Walk::new(&dir, ())?;
    loop {
        let Some(name) = walk.next_name() else {
            if walk.leave()?.is_none() {
                return Ok(());
            }
            continue;
        };
        let stat = walk.here().stat(&name)?;
        found.add(&stat);
        if stat.is_dir() {
            walk.enter(&name, ())?;
        }
    }
}

fn same_directory(one: &Dir, other: &Dir) -> io::Result<bool> {
    let (a, b) = (one.stat_self()?, other.stat_self()?);
    Ok((a.mode, a.uid, a.gid) == (b.mode, b.uid, b.gid) && same_xattrs(one, other, OsStr::new("."))?)
}

fn same_file(lower: &Dir, upper: &Dir, name: &OsStr, stats: (&Stat, &Stat)) -> io::Result<bool> {
    let (a, b) = stats;
    let fields = |s: &Stat| (s.mode, s.uid, s.gid, s.rdev, s.size, s.mtime);
    if fields(a) != fields(b) || !same_xattrs(lower, upper, name)? {
        return Ok(false);
    }
    // Times from a tar have no nanoseconds, so an equal one proves little.
    match a.kind() {
        Kind::Symlink => Ok(lower.read_link(name)? == upper.read_link(name)?),
        Kind::File if a.mtime.nanoseconds == 0 && a.size > 0 => same_content(lower, upper, name),
        _ => Ok(true),
    }
}

fn same_xattrs(one: &Dir, other: &Dir, name: &OsStr) -> io::Result<bool> {
    let content = |dir: &Dir| -> io::Result<Vec<_>> {
        Ok(dir.xattrs(name)?.into_iter().filter(|(key, _)| is_content_xattr(key.as_bytes())).collect())
    };
    Ok(content(one)? == content(other)?)
}

fn same_content(one: &Dir, other: &Dir, name: &OsStr) -> io::Result<bool> {
    const PIECE: u64 = 64 << 10;
    let (mut one, mut other) = (one.open_file(name)?, other.open_file(name)?);
    let (mut a, mut b) = (Vec::new(), Vec::new());
    loop {
        a.clear();
        b.clear();
        one.by_ref().take(PIECE).read_to_end(&mut a)?;
        other.by_ref().take(PIECE).read_to_end(&mut b)?;
        if a != b || a.is_empty() {
            return Ok(a == b);
        }
    }
}
