//! Stacks of layers as copies, for file systems that overlay does not work on.
//!
//! In: stacks. Out: trees, kept as long as someone uses them and shared by all who ask for the same stack.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, Weak};

use super::work::Work;
use super::{Chain, LayerId, SnapshotError, adopt};
use crate::layer::copy;
use crate::store::Scratch;
use crate::sys::dir::Dir;

/// A stack of layers, copied together.
#[derive(Debug)]
pub(super) struct Tree {
    fs: Dir,
    _work: Work,
}

impl Tree {
    pub(super) fn dir(&self) -> &Dir {
        &self.fs
    }
}

/// The trees in use.
#[derive(Debug, Default)]
pub(super) struct Trees(Mutex<BTreeMap<Chain, Weak<Tree>>>);

impl Trees {
    /// Returns the tree of `chain`, copying it if nobody uses it now.
    pub(super) fn get(
        &self,
        chain: &Chain,
        scratch: &Arc<Scratch>,
        layer: impl Fn(LayerId) -> Result<Dir, SnapshotError>,
    ) -> Result<Arc<Tree>, SnapshotError> {
        let failed = |source| SnapshotError::Prepare { source };
        let lock = || self.0.lock().map_err(|_| failed(io::Error::other("poisoned lock")));
        if let Some(tree) = lock()?.get(chain).and_then(Weak::upgrade) {
            return Ok(tree);
        }
        let work = Work::new(scratch).map_err(failed)?;
        let fs = work.make(super::FS).map_err(failed)?;
        adopt::default_root(&fs).map_err(failed)?;
        for id in chain.layers() {
            copy::stack(&layer(*id)?, &fs).map_err(failed)?;
        }
        let tree = Arc::new(Tree { fs, _work: work });
        let mut trees = lock()?;
        trees.retain(|_, tree| tree.strong_count() > 0);
        trees.insert(chain.clone(), Arc::downgrade(&tree));
        Ok(tree)
    }
}
