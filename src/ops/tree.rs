//! What ops pass on: a stack of layers, here or elsewhere, or the build context where it lies.

use std::sync::Arc;

use serde_json::Value;

use crate::remotecache::{Place, RemoteLayer};
use crate::snapshot::{Chain, LayerId};
use crate::source::local::Context;

/// The result of an op.
#[derive(Debug, Clone)]
pub enum Tree {
    /// Layers in the state directory, bottom first.
    Layers(Chain),
    /// A directory of the caller's, read where it lies and never written.
    Context(Arc<Context>),
    /// Layers of a cache that were not fetched, because nothing reads them here: no op ever gets one.
    Lazy(Arc<LazyTree>),
}

/// A stack of layers that lies elsewhere.
#[derive(Debug)]
pub struct LazyTree {
    /// The layers, bottom first.
    pub layers: Vec<RemoteLayer>,
    /// Where their blobs are.
    pub place: Arc<dyn Place>,
}

impl Tree {
    /// Returns the tree with nothing in it.
    pub fn empty() -> Self {
        Tree::Layers(Chain::empty())
    }

    /// Returns the tree as it is stored beside its cache key: the numbers of its layers; none for what is not kept.
    pub fn to_record(&self) -> Option<Value> {
        match self {
            Tree::Layers(chain) => Some(chain.layers().iter().map(|layer| Value::from(layer.0)).collect()),
            Tree::Context(_) | Tree::Lazy(_) => None,
        }
    }

    /// Reads what [`Tree::to_record`] wrote; none if it is anything else.
    pub fn from_record(record: &Value) -> Option<Self> {
        let numbers: Option<Vec<u64>> = record.as_array()?.iter().map(Value::as_u64).collect();
        let chain = numbers?.into_iter().fold(Chain::empty(), |chain, number| chain.push(LayerId(number)));
        Some(Tree::Layers(chain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_hold_the_layers_in_order() {
        let chain = Chain::empty().push(LayerId(7)).push(LayerId(3));
        let record = Tree::Layers(chain).to_record().expect("layers are kept");
        assert_eq!(record.to_string(), "[7,3]");
        let Some(Tree::Layers(read)) = Tree::from_record(&record) else { panic!("layers") };
        assert_eq!(read.layers(), [LayerId(7), LayerId(3)]);
        assert!(Tree::from_record(&serde_json::json!(["x"])).is_none());
    }
}
