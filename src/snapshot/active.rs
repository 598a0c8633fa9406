//! Trees in use: [`Active`] is being changed, [`View`] is read.
//!
//! Invariants: a tree is written by its owner or sealed, never both ([`Active`] is consumed by the commit); no mount of either lets
//! device files work; a view cannot be written through.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use super::native::Tree;
use super::overlay::{Mounter, Stack};
use super::work::Work;
use super::{Chain, SnapshotError};
use crate::sys::MountAttrFlags;
use crate::sys::dir::Dir;
use crate::sys::mount::{Recursive, clone_tree, set_attributes};

/// A tree that can be changed, and becomes a layer or nothing.
#[derive(Debug)]
pub struct Active {
    parent: Chain,
    work: Work,
    fs: Dir,
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// The folder is the tree.
    Plain,
    /// The folder is the tree, copied from another.
    Copied(Arc<Tree>),
    /// The folder is the upper one of a stack, which is mounted once at most: two mounts of one upper are undefined.
    Overlay { mounter: Arc<Mounter>, stack: Stack, mount: Mutex<Option<OwnedFd>> },
}

/// What is left of an [`Active`] that nobody changes any more.
#[derive(Debug)]
pub(super) struct Sealed {
    pub parent: Chain,
    pub work: Work,
    pub fs: Dir,
    pub copied_from: Option<Arc<Tree>>,
}

impl Active {
    pub(super) fn plain(parent: Chain, work: Work, fs: Dir) -> Self {
        Self { parent, work, fs, form: Form::Plain }
    }

    pub(super) fn copied(parent: Chain, work: Work, fs: Dir, lower: Arc<Tree>) -> Self {
        Self { parent, work, fs, form: Form::Copied(lower) }
    }

    pub(super) fn overlay(parent: Chain, work: Work, fs: Dir, mount: (Arc<Mounter>, Stack)) -> Self {
        let form = Form::Overlay { mounter: mount.0, stack: mount.1, mount: Mutex::new(None) };
        Self { parent, work, fs, form }
    }

    /// Returns the stack the tree was made from.
    pub fn parent(&self) -> &Chain {
        &self.parent
    }

    /// Returns the tree as a detached mount that can be written to. Every descriptor returned is of the same mount, so it can be
    /// attached once.
    pub fn mount(&self) -> Result<OwnedFd, SnapshotError> {
        self.try_mount().map_err(|source| SnapshotError::Mount { count: self.parent.layers().len() + 1, source })
    }

    fn try_mount(&self) -> io::Result<OwnedFd> {
        let Form::Overlay { mounter, stack, mount } = &self.form else {
            return bind(&self.fs, MountAttrFlags::MOUNT_ATTR_NODEV);
        };
        let mut mount = mount.lock().map_err(|_| io::Error::other("poisoned lock"))?;
        if mount.is_none() {
            *mount = Some(mounter.mount(stack.clone())?);
        }
        mount.as_ref().map_or_else(|| Err(io::ErrorKind::NotFound.into()), OwnedFd::try_clone)
    }

    /// Returns the tree as a directory to work in.
    pub fn dir(&self) -> Result<Dir, SnapshotError> {
        let opened = match self.form {
            Form::Overlay { .. } => self.try_mount().and_then(|mount| Dir::from(mount).reopen()),
            _ => self.fs.reopen(),
        };
        opened.map_err(|source| SnapshotError::Mount { count: self.parent.layers().len() + 1, source })
    }

    pub(super) fn into_sealed(self) -> Sealed {
        let copied_from = match self.form {
            Form::Copied(lower) => Some(lower),
            Form::Plain | Form::Overlay { .. } => None,
        };
        Sealed { parent: self.parent, work: self.work, fs: self.fs, copied_from }
    }
}

/// A stack of layers as a tree to read.
#[derive(Debug)]
pub struct View {
    dir: Dir,
    form: ViewForm,
}

#[derive(Debug)]
enum ViewForm {
    Folder { folder: Dir, _tree: Option<Arc<Tree>> },
    Overlay { mounter: Arc<Mounter>, stack: Stack },
}

impl View {
    pub(super) fn layer(folder: Dir) -> io::Result<Self> {
        Self::folder(folder, None)
    }

    pub(super) fn copied(tree: Arc<Tree>) -> io::Result<Self> {
        Self::folder(tree.dir().reopen()?, Some(tree))
    }

    fn folder(folder: Dir, tree: Option<Arc<Tree>>) -> io::Result<Self> {
        let dir = Dir::from(bind(&folder, READ_ONLY)?).reopen()?;
        Ok(Self { dir, form: ViewForm::Folder { folder, _tree: tree } })
    }

    pub(super) fn overlay(mounter: Arc<Mounter>, stack: Stack) -> io::Result<Self> {
        let dir = Dir::from(mounter.mount(stack.clone())?).reopen()?;
        Ok(Self { dir, form: ViewForm::Overlay { mounter, stack } })
    }

    /// Returns the tree as a new detached, read-only mount.
    pub fn mount(&self) -> Result<OwnedFd, SnapshotError> {
        let (count, mounted) = match &self.form {
            ViewForm::Folder { folder, .. } => (1, bind(folder, READ_ONLY)),
            ViewForm::Overlay { mounter, stack } => (stack.lowers.len(), mounter.mount(stack.clone())),
        };
        mounted.map_err(|source| SnapshotError::Mount { count, source })
    }

    /// Returns the tree as a directory, which cannot be written to.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }
}

const READ_ONLY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NODEV.union(MountAttrFlags::MOUNT_ATTR_RDONLY);

fn bind(folder: &Dir, attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let mount = clone_tree(folder, Recursive::No)?;
    set_attributes(&mount, attributes, Recursive::No)?;
    Ok(mount)
}
