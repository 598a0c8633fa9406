//! Trees as the local cache keeps them: by the numbers of their layers.

use std::sync::Arc;

use serde_json::Value;

use super::Tree;
use crate::snapshot::Snapshots;
use crate::store::records::{Codec, Records};

/// The local cache of trees.
pub type RecordStore = Records<Tree, TreeCodec>;

/// Writes trees as lists of layer numbers and reads them again if all layers are still there.
#[derive(Debug)]
pub struct TreeCodec {
    snapshots: Arc<Snapshots>,
}

impl TreeCodec {
    /// Checks layers with `snapshots`.
    pub fn new(snapshots: Arc<Snapshots>) -> Self {
        Self { snapshots }
    }
}

/// A layer of a recorded tree is gone.
#[derive(Debug, thiserror::Error)]
#[error("its layers are no longer there")]
struct Gone;

impl Codec<Tree> for TreeCodec {
    fn encode(&self, result: &Tree) -> Option<Value> {
        result.to_record()
    }

    fn decode(&self, value: &Value) -> Result<Tree, Box<dyn std::error::Error + Send + Sync>> {
        match Tree::from_record(value) {
            Some(Tree::Layers(chain)) if self.snapshots.exists(&chain) => Ok(Tree::Layers(chain)),
            _ => Err(Box::new(Gone)),
        }
    }
}
