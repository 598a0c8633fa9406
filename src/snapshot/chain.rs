//! Names of layers and of stacks of layers.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A layer kept in the state root; its text is the name of its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LayerId(pub u64);

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for LayerId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        text.parse().map(Self)
    }
}

/// A stack of layers, bottom first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<LayerId>", into = "Vec<LayerId>")]
pub struct Chain(Arc<[LayerId]>);

impl From<Vec<LayerId>> for Chain {
    fn from(layers: Vec<LayerId>) -> Self {
        Self(layers.into())
    }
}

impl From<Chain> for Vec<LayerId> {
    fn from(chain: Chain) -> Self {
        chain.0.to_vec()
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self::empty()
    }
}

impl Chain {
    /// Returns the stack of no layer, an empty tree.
    pub fn empty() -> Self {
        Self(Arc::from([]))
    }

    /// Returns this stack with `layer` on top.
    #[must_use]
    pub fn push(&self, layer: LayerId) -> Self {
        self.0.iter().copied().chain([layer]).collect::<Vec<_>>().into()
    }

    /// Returns the layers, bottom first.
    pub fn layers(&self) -> &[LayerId] {
        &self.0
    }

    /// Returns the topmost layer.
    pub fn top(&self) -> Option<LayerId> {
        self.0.last().copied()
    }

    /// Returns whether there is no layer.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Stacks `chains`, the first at the bottom. Of a layer that occurs more than once the topmost stays: what it holds
    /// and hides is the same wherever it is repeated below.
    pub fn merge(chains: &[Chain]) -> Self {
        let mut merged: Vec<LayerId> = Vec::new();
        for layer in chains.iter().flat_map(|chain| chain.layers()).rev() {
            if !merged.contains(layer) {
                merged.push(*layer);
            }
        }
        merged.reverse();
        merged.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(ids: &[u64]) -> Chain {
        ids.iter().map(|id| LayerId(*id)).collect::<Vec<_>>().into()
    }

    #[test]
    fn merging_keeps_the_topmost_of_equals() {
        let cases: [(&[&[u64]], &[u64]); 5] = [
            (&[], &[]),
            (&[&[1, 2], &[3]], &[1, 2, 3]),
            (&[&[1, 2], &[1, 3]], &[2, 1, 3]),
            (&[&[1], &[1]], &[1]),
            (&[&[], &[7], &[]], &[7]),
        ];
        for (inputs, expected) in cases {
            let inputs: Vec<_> = inputs.iter().map(|ids| chain(ids)).collect();
            assert_eq!(Chain::merge(&inputs), chain(expected));
        }
    }
}
