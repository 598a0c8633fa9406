//! Folders put under layers that stand on others than they were made for.
//!
//! Overlay leaves whiteouts out of a listing only where it merges directories. A layer that hides `d/a`, on a stack without `d`, would
//! list `a`. So a folder with the directories that hold whiteouts, and nothing else, is put right below such a layer.
//! On disk: in the scratch folder, for as long as the process lives.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::sync::Mutex;

use super::overlay::below;
use super::{Chain, LayerId, SnapshotError, Snapshots};
use crate::layer::compare::skeleton;

/// What is known of layers, and the folders made so far.
#[derive(Debug, Default)]
pub(super) struct Skeletons {
    /// The stack each layer was made for; none for layers that hide nothing.
    parents: Mutex<BTreeMap<LayerId, Option<Chain>>>,
    made: Mutex<BTreeMap<LayerId, OsString>>,
}

impl Skeletons {
    /// Returns the folder to put between `layer` and the layers `lower`, if one is needed.
    pub(super) fn below(
        &self,
        snapshots: &Snapshots,
        layer: LayerId,
        lower: &[LayerId],
    ) -> Result<Option<OsString>, SnapshotError> {
        let failed = |source| SnapshotError::Prepare { source };
        let at_home = self.parent(snapshots, layer)?.is_none_or(|parent| parent.layers() == lower);
        if at_home {
            return Ok(None);
        }
        let mut made = self.made.lock().map_err(|_| failed(io::Error::other("poisoned lock")))?;
        if let Some(path) = made.get(&layer) {
            return Ok(Some(path.clone()));
        }
        let scratch = snapshots.store.scratch();
        let (name, dir) = scratch.make_dir().map_err(failed)?;
        skeleton(&snapshots.fs(layer)?, &dir).map_err(failed)?;
        let path = below(&[OsStr::new(".."), &scratch.path(), &name]);
        made.insert(layer, path.clone());
        Ok(Some(path))
    }

    fn parent(&self, snapshots: &Snapshots, layer: LayerId) -> Result<Option<Chain>, SnapshotError> {
        let poisoned = |_| SnapshotError::Prepare { source: io::Error::other("poisoned lock") };
        if let Some(parent) = self.parents.lock().map_err(|_| poisoned(()))?.get(&layer) {
            return Ok(parent.clone());
        }
        let info = snapshots.info(layer)?;
        let parent = info.hides.then_some(info.parent);
        self.parents.lock().map_err(|_| poisoned(()))?.insert(layer, parent.clone());
        Ok(parent)
    }
}
