//! Definitions: ops in dependency order with their bytes, digests and metadata.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::encode;
use super::ops::{Input, Op, OpMetadata};
use crate::diag::LineRange;
use crate::digest::Digest;

/// One output of a vertex.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// Digest of the vertex.
    pub vertex: Digest,
    /// Which output.
    pub index: i64,
}

impl From<&Edge> for Input {
    fn from(edge: &Edge) -> Input {
        Input { digest: edge.vertex.clone(), index: edge.index }
    }
}

/// An op with its bytes and what is said about it.
#[derive(Debug, Clone)]
pub struct Vertex {
    /// SHA-256 of `bytes`.
    pub digest: Digest,
    /// The op.
    pub op: Op,
    /// Its protobuf bytes.
    pub bytes: Vec<u8>,
    /// What is said about it.
    pub metadata: OpMetadata,
    /// Lines of the Dockerfile it comes from.
    pub lines: Vec<LineRange>,
}

/// A graph of ops and its result.
#[derive(Debug, Clone, Default)]
pub struct Definition {
    /// Vertices, each after its inputs; the order is that of BuildKit's definition, without the last op.
    pub vertices: Vec<Arc<Vertex>>,
    /// The result; none for an empty tree.
    pub result: Option<Edge>,
}

impl Definition {
    /// Returns the vertex of a digest.
    pub fn vertex(&self, digest: &Digest) -> Option<&Arc<Vertex>> {
        self.vertices.iter().find(|v| v.digest == *digest)
    }

    /// Returns the op that ends the definition: only an input, which is the result.
    pub fn last_op(&self) -> Option<(Digest, Vec<u8>)> {
        let op = Op { inputs: vec![Input::from(self.result.as_ref()?)], ..Op::default() };
        let bytes = encode::op(&op);
        Some((Digest::compute(&bytes), bytes))
    }
}

/// Collects ops; equal ops become one vertex.
#[derive(Debug, Default)]
pub struct Builder {
    vertices: BTreeMap<Digest, Vertex>,
}

impl Builder {
    /// Starts with no ops.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an op and returns its digest; metadata of an equal op is kept, its lines are joined.
    pub fn add(&mut self, op: Op, metadata: OpMetadata, lines: &[LineRange]) -> Digest {
        let bytes = encode::op(&op);
        let digest = Digest::compute(&bytes);
        let vertex = self.vertices.entry(digest.clone()).or_insert_with(|| Vertex {
            digest: digest.clone(),
            op,
            bytes,
            metadata,
            lines: Vec::new(),
        });
        for line in lines {
            if !vertex.lines.contains(line) {
                vertex.lines.push(*line);
            }
        }
        vertex.lines.sort_unstable();
        digest
    }

    /// Returns the definition of `result`: what it depends on and nothing else, each vertex after its inputs.
    pub fn finish(&self, result: Option<Edge>) -> Definition {
        let mut order = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        let mut stack: Vec<(Digest, usize)> = result.iter().map(|e| (e.vertex.clone(), 0)).collect();
        while let Some((digest, next)) = stack.pop() {
            if next == 0 && !seen.insert(digest.clone()) {
                continue;
            }
            let vertex = &self.vertices[&digest];
            match vertex.op.inputs.get(next) {
                Some(input) => {
                    let input = input.digest.clone();
                    stack.push((digest, next + 1));
                    stack.push((input, 0));
                }
                None => order.push(Arc::new(vertex.clone())),
            }
        }
        Definition { vertices: order, result }
    }
}
