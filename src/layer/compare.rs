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
use super::place::is_whiteout;
use super::{OPAQUE, OVERLAY_PREFIX};
use crate::sys::dir::{self, Dir, Kind, Stat};

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
    let mut found = Found::default();
    normalize_directory(upper, lower, &mut found)?;
    Ok(found)
}

/// Returns whether anything is left in the directory.
fn normalize_directory(upper: &Dir, lower: Option<&Dir>, found: &mut Found) -> io::Result<bool> {
    let mut kept = false;
    let time = upper.stat_self()?.mtime;
    let mut removed = false;
    for name in upper.names()? {
        let stat = upper.stat(&name)?;
        let below = match lower {
            Some(lower) => lower.try_stat(&name)?,
            None => None,
        };
        let keep = match below {
            _ if stat.is_dir() => normalize_child(upper, &name, lower.filter(|_| below.is_some()), found)?,
            None => !is_whiteout(&stat),
            Some(_) if is_whiteout(&stat) => true,
            // Its other names are in the upper directory too: nothing below is linked to what is there.
            Some(_) if stat.nlink > 1 => true,
            Some(below) => !lower.map_or(Ok(false), |lower| same_file(lower, upper, &name, (&below, &stat)))?,
        };
        if !keep && !stat.is_dir() {
            upper.unlink(&name)?;
        }
        if keep {
            found.add(&stat);
            found.hides |= is_whiteout(&stat);
        }
        kept |= keep;
        removed |= !keep;
    }
    if removed {
        dir::set_time_of(upper, time)?;
    }
    Ok(kept)
}

fn normalize_child(upper: &Dir, name: &OsStr, lower: Option<&Dir>, found: &mut Found) -> io::Result<bool> {
    let child = upper.open_dir(name)?;
    let below = match lower {
        Some(lower) => lower.stat(name)?.is_dir().then(|| lower.open_dir(name)).transpose()?,
        None => None,
    };
    let opaque = is_opaque(&child)?;
    strip_overlay_xattrs(&child, opaque && below.is_some())?;
    found.hides |= opaque && below.is_some();
    let kept = normalize_directory(&child, below.as_ref().filter(|_| !opaque), found)?;
    let same = match &below {
        Some(below) if !opaque => same_directory(below, &child)?,
        _ => false,
    };
    if kept || !same {
        return Ok(true);
    }
    upper.remove_dir(name)?;
    Ok(false)
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
    let time = upper.stat_self()?.mtime;
    for name in upper.names()? {
        let stat = upper.stat(&name)?;
        let below = match lower {
            Some(lower) => lower.try_stat(&name)?,
            None => None,
        };
        if is_whiteout(&stat) && below.is_none() {
            upper.unlink(&name)?;
            dir::set_time_of(upper, time)?;
        }
        if stat.is_dir() {
            let child = upper.open_dir(&name)?;
            let merged = below.is_some_and(|below| below.is_dir()) && !is_opaque(&child)?;
            let below = lower.filter(|_| merged).map(|lower| lower.open_dir(&name)).transpose()?;
            prune(&child, below.as_ref())?;
        }
    }
    Ok(())
}

/// Makes in `skeleton` the directories of `layer` that hold whiteouts, and their parents; returns whether there is any.
pub(crate) fn skeleton(layer: &Dir, skeleton: &Dir) -> io::Result<bool> {
    let mut holds = false;
    for name in layer.names()? {
        let stat = layer.stat(&name)?;
        holds |= is_whiteout(&stat);
        if stat.is_dir() {
            skeleton.make_dir(&name, 0o755)?;
            if self::skeleton(&layer.open_dir(&name)?, &skeleton.open_dir(&name)?)? {
                holds = true;
            } else {
                skeleton.remove_dir(&name)?;
            }
        }
    }
    Ok(holds)
}

/// Moves what differs between `tree` and `lower` out of `tree` into the empty directory `layer`.
pub(crate) fn extract_diff(tree: &Dir, lower: Option<&Dir>, layer: &Dir) -> io::Result<Found> {
    diff(tree, lower, layer, Taking::Moving)
}

/// Copies what differs between `tree` and `lower` into the empty directory `layer`; `tree` may be one that nobody can change.
pub(crate) fn copy_diff(tree: &Dir, lower: &Dir, layer: &Dir) -> io::Result<Found> {
    diff(tree, Some(lower), layer, Taking::Copying(Copier::default()))
}

fn diff(tree: &Dir, lower: Option<&Dir>, layer: &Dir, taking: Taking) -> io::Result<Found> {
    let mut diff = Diff { found: Found::default(), linked: BTreeSet::new(), taking };
    if let Some(lower) = lower {
        changed_links(tree, lower, &mut diff.linked)?;
    }
    diff_directory(tree, lower, layer, &mut diff)?;
    directory_metadata(tree, layer)?;
    Ok(diff.found)
}

struct Diff {
    found: Found,
    /// Files of several names, one of which is new or changed, by device and number.
    linked: BTreeSet<(u64, u64)>,
    taking: Taking,
}

/// How what differs gets into the layer.
enum Taking {
    Moving,
    Copying(Copier),
}

impl Taking {
    fn take(&mut self, tree: &Dir, layer: &Dir, name: &OsStr) -> io::Result<()> {
        match self {
            Taking::Moving => tree.rename(name, layer, name),
            Taking::Copying(copier) => copier.one(tree, layer, name),
        }
    }

    /// Moving something out of a directory changes its time, which is about to be copied.
    fn restore_time(&self, tree: &Dir, time: dir::Time) -> io::Result<()> {
        match self {
            Taking::Moving => dir::set_time_of(tree, time),
            Taking::Copying(_) => Ok(()),
        }
    }
}

/// Collects the files of several names of which one is not as below.
fn changed_links(tree: &Dir, lower: &Dir, linked: &mut BTreeSet<(u64, u64)>) -> io::Result<()> {
    for name in tree.names()? {
        let (stat, below) = (tree.stat(&name)?, lower.try_stat(&name)?);
        match below {
            Some(below) if stat.is_dir() && below.is_dir() => {
                changed_links(&tree.open_dir(&name)?, &lower.open_dir(&name)?, linked)?;
            }
            _ if stat.is_dir() => new_links(&tree.open_dir(&name)?, linked)?,
            Some(below) if stat.nlink > 1 && same_file(lower, tree, &name, (&below, &stat))? => {}
            _ => note(&stat, linked),
        }
    }
    Ok(())
}

fn new_links(tree: &Dir, linked: &mut BTreeSet<(u64, u64)>) -> io::Result<()> {
    for name in tree.names()? {
        let stat = tree.stat(&name)?;
        note(&stat, linked);
        if stat.is_dir() {
            new_links(&tree.open_dir(&name)?, linked)?;
        }
    }
    Ok(())
}

fn note(stat: &Stat, linked: &mut BTreeSet<(u64, u64)>) {
    if !stat.is_dir() && stat.nlink > 1 {
        linked.insert((stat.dev, stat.ino));
    }
}

fn diff_directory(tree: &Dir, lower: Option<&Dir>, layer: &Dir, diff: &mut Diff) -> io::Result<()> {
    let names = tree.names()?;
    for name in lower.map_or(Ok(Vec::new()), Dir::names)? {
        if names.binary_search(&name).is_err() {
            layer.make_node(&name, 0o020_000, 0)?;
            diff.found.hides = true;
        }
    }
    let time = tree.stat_self()?.mtime;
    for name in names {
        let stat = tree.stat(&name)?;
        let below = match lower {
            Some(lower) => lower.try_stat(&name)?,
            None => None,
        };
        match (lower, below) {
            (Some(lower), Some(below)) if stat.is_dir() && below.is_dir() => {
                diff_child((tree, lower, layer), &name, diff)?;
            }
            (Some(lower), Some(below))
                if !stat.is_dir()
                    && !diff.linked.contains(&(stat.dev, stat.ino))
                    && same_file(lower, tree, &name, (&below, &stat))? => {}
            _ => {
                count(tree, &name, &stat, &mut diff.found)?;
                diff.taking.take(tree, layer, &name)?;
            }
        }
    }
    diff.taking.restore_time(tree, time)
}

fn diff_child(dirs: (&Dir, &Dir, &Dir), name: &OsStr, diff: &mut Diff) -> io::Result<()> {
    let (tree, lower, layer) = (dirs.0.open_dir(name)?, dirs.1.open_dir(name)?, dirs.2);
    layer.make_dir(name, 0o700)?;
    let child = layer.open_dir(name)?;
    diff_directory(&tree, Some(&lower), &child, diff)?;
    if same_directory(&lower, &tree)? && child.names()?.is_empty() {
        return layer.remove_dir(name);
    }
    directory_metadata(&tree, &child)
}

fn count(parent: &Dir, name: &OsStr, stat: &Stat, found: &mut Found) -> io::Result<()> {
    found.add(stat);
    if stat.is_dir() {
        let dir = parent.open_dir(name)?;
        for name in dir.names()? {
            count(&dir, &name, &dir.stat(&name)?, found)?;
        }
    }
    Ok(())
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
