//! The graph that is solved.
//!
//! In: vertices, each after its inputs. Out: the same by index, which is what the scheduler works with. Invariant: an
//! input's index is lower than the index of what depends on it, so the graph has no cycle and no missing vertex.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::op::Op;
use crate::digest::Digest;

/// One output of a vertex.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// Digest of the vertex.
    pub vertex: Digest,
    /// Which output.
    pub output: usize,
}

/// An operation in the graph.
pub struct Vertex<R> {
    /// Identity; equal vertices are solved once.
    pub digest: Digest,
    /// Name for messages.
    pub name: String,
    /// What it does.
    pub op: Arc<dyn Op<R>>,
    /// What it depends on, in the order the operation knows.
    pub inputs: Vec<Edge>,
    /// Whether it runs though a cache may have its result.
    pub ignore_cache: bool,
}

impl<R> fmt::Debug for Vertex<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vertex").field("digest", &self.digest).field("name", &self.name).finish_non_exhaustive()
    }
}

/// A vertex that cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("step {name:?} depends on {input}, which is not in the graph")]
pub struct GraphError {
    /// Name of the vertex.
    pub name: String,
    /// The input that is not known.
    pub input: Digest,
}

/// Vertices by index, each after its inputs.
pub struct Graph<R> {
    vertices: Vec<Vertex<R>>,
    inputs: Vec<Vec<(usize, usize)>>,
    by_digest: BTreeMap<Digest, usize>,
}

impl<R> fmt::Debug for Graph<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.vertices).finish()
    }
}

impl<R> Default for Graph<R> {
    fn default() -> Self {
        Self { vertices: Vec::new(), inputs: Vec::new(), by_digest: BTreeMap::new() }
    }
}

impl<R> Graph<R> {
    /// Starts with no vertices.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a vertex whose inputs are there already; of equal vertices the first stays, and ignores the cache if
    /// any of them does.
    pub fn add(&mut self, vertex: Vertex<R>) -> Result<(), GraphError> {
        if let Some(&known) = self.by_digest.get(&vertex.digest) {
            self.vertices[known].ignore_cache |= vertex.ignore_cache;
            return Ok(());
        }
        let resolve = |edge: &Edge| match self.by_digest.get(&edge.vertex) {
            Some(&index) => Ok((index, edge.output)),
            None => Err(GraphError { name: vertex.name.clone(), input: edge.vertex.clone() }),
        };
        let inputs = vertex.inputs.iter().map(resolve).collect::<Result<_, _>>()?;
        self.by_digest.insert(vertex.digest.clone(), self.vertices.len());
        self.vertices.push(vertex);
        self.inputs.push(inputs);
        Ok(())
    }

    /// Returns how many vertices there are.
    pub fn len(&self) -> usize {
        self.vertices.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.vertices.is_empty()
    }

    /// Returns the vertex of an index.
    pub fn vertex(&self, index: usize) -> &Vertex<R> {
        &self.vertices[index]
    }

    /// Returns the inputs of a vertex as indices and outputs.
    pub fn inputs(&self, index: usize) -> &[(usize, usize)] {
        &self.inputs[index]
    }

    /// Returns the index of a digest.
    pub fn index_of(&self, digest: &Digest) -> Option<usize> {
        self.by_digest.get(digest).copied()
    }
}
