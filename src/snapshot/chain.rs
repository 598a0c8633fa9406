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

    /// Stacks `chains`, the first at the bottom. A layer of several of them is there several times, as in BuildKit's images.
    pub fn merge(chains: &[Chain]) -> Self {
        chains.iter().flat_map(|chain| chain.layers().iter().copied()).collect::<Vec<_>>().into()
    }

    /// Returns the layers that `self` has on top of `lower`; none if it does not stand on `lower`.
    pub fn above(&self, lower: &Chain) -> Option<Self> {
        self.layers().strip_prefix(lower.layers()).map(|layers| layers.to_vec().into())
    }

    /// Returns the same tree with no layer twice. The topmost of equals stays: what it holds and hides is the same wherever it
    /// is repeated below.
    #[must_use]
    pub(super) fn distinct(&self) -> Self {
        let mut kept: Vec<LayerId> = Vec::new();
        for layer in self.layers().iter().rev() {
            if !kept.contains(layer) {
                kept.push(*layer);
            }
        }
        kept.reverse();
        kept.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(ids: &[u64]) -> Chain {
        ids.iter().map(|id| LayerId(*id)).collect::<Vec<_>>().into()
    }

    #[test]
    fn merging_keeps_all_and_the_topmost_of_equals_counts() {
        type Case<'a> = (&'a [&'a [u64]], &'a [u64], &'a [u64]);
        let cases: [Case<'_>; 5] = [
            (&[], &[], &[]),
            (&[&[1, 2], &[3]], &[1, 2, 3], &[1, 2, 3]),
            (&[&[1, 2], &[1, 3]], &[1, 2, 1, 3], &[2, 1, 3]),
            (&[&[1], &[1]], &[1, 1], &[1]),
            (&[&[], &[7], &[]], &[7], &[7]),
        ];
        for (inputs, merged, distinct) in cases {
            let inputs: Vec<_> = inputs.iter().map(|ids| chain(ids)).collect();
            assert_eq!(Chain::merge(&inputs), chain(merged));
            assert_eq!(Chain::merge(&inputs).distinct(), chain(distinct));
        }
    }

    #[test]
    fn what_is_above_is_named_only_of_what_is_below() {
        assert_eq!(chain(&[1, 2, 3]).above(&chain(&[1])), Some(chain(&[2, 3])));
        assert_eq!(chain(&[1]).above(&chain(&[1])), Some(chain(&[])));
        assert_eq!(chain(&[1, 2]).above(&chain(&[2])), None);
        assert_eq!(chain(&[1]).above(&chain(&[1, 2])), None);
    }
}
