//! Definitions: ops in dependency order with their bytes, digests and metadata.
//!
//! In: ops through a [`Builder`]. Out: a [`Definition`], in which every vertex comes after its inputs and lookups by digest
//! take logarithmic time.

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
    /// Returns the vertex of a digest; searches all vertices, so callers in a loop use [`Definition::by_digest`].
    pub fn vertex(&self, digest: &Digest) -> Option<&Arc<Vertex>> {
        self.vertices.iter().find(|v| v.digest == *digest)
    }

    /// Returns the vertices by digest.
    pub fn by_digest(&self) -> BTreeMap<&Digest, &Arc<Vertex>> {
        self.vertices.iter().map(|v| (&v.digest, v)).collect()
    }

    /// Returns the op that ends the definition: only an input, which is the result.
    pub fn last_op(&self) -> Option<(Digest, Vec<u8>)> {
        let op = Op { inputs: vec![Input::from(self.result.as_ref()?)], ..Op::default() };
        let bytes = encode::op(&op);
        Some((Digest::compute(&bytes), bytes))
    }
}

/// Collects ops in the order they are added; equal ops become one vertex.
#[derive(Debug, Default)]
pub struct Builder {
    order: Vec<Vertex>,
    places: BTreeMap<Digest, usize>,
}

impl Builder {
    /// Starts with no ops.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an op, whose inputs were added before, and returns its digest.
    ///
    /// What is said about an equal op is joined: flags add up, later descriptions win, lines are collected.
    pub fn add(&mut self, op: Op, metadata: OpMetadata, lines: &[LineRange]) -> Digest {
        let bytes = encode::op(&op);
        let digest = Digest::compute(&bytes);
        let place = match self.places.get(&digest) {
            Some(place) => {
                join_metadata(&mut self.order[*place].metadata, metadata);
                *place
            }
            None => {
                let vertex = Vertex { digest: digest.clone(), op, bytes, metadata, lines: Vec::new() };
                self.places.insert(digest.clone(), self.order.len());
                self.order.push(vertex);
                self.order.len() - 1
            }
        };
        let known = &mut self.order[place].lines;
        known.extend(lines.iter().copied());
        known.sort_unstable();
        known.dedup();
        digest
    }

    /// Returns the definition of `result`: what it depends on and nothing else, in the order of addition.
    pub fn finish(self, result: Option<Edge>) -> Definition {
        let mut needed = vec![false; self.order.len()];
        let mut stack: Vec<usize> = result.iter().filter_map(|e| self.places.get(&e.vertex).copied()).collect();
        while let Some(place) = stack.pop() {
            if !std::mem::replace(&mut needed[place], true) {
                let inputs = &self.order[place].op.inputs;
                stack.extend(inputs.iter().filter_map(|i| self.places.get(&i.digest).copied()));
            }
        }
        let vertices = self.order.into_iter().zip(needed).filter(|(_, n)| *n).map(|(v, _)| Arc::new(v)).collect();
        Definition { vertices, result }
    }
}

fn join_metadata(known: &mut OpMetadata, more: OpMetadata) {
    known.ignore_cache |= more.ignore_cache;
    known.description.extend(more.description);
    known.progress_group = more.progress_group.or(known.progress_group.take());
    known.resources = more.resources.or(known.resources.take());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llb::ops::{MergeOp, OpKind, SourceOp};

    fn source(name: &str) -> Op {
        let source = SourceOp { identifier: name.into(), ..SourceOp::default() };
        Op { kind: Some(OpKind::Source(source)), ..Op::default() }
    }

    fn line(start: u32) -> LineRange {
        LineRange { start, end: start }
    }

    #[test]
    fn equal_ops_become_one_vertex_and_unneeded_ones_are_left_out() {
        let mut builder = Builder::new();
        let a = builder.add(source("a"), OpMetadata::default(), &[line(3)]);
        builder.add(source("unneeded"), OpMetadata::default(), &[]);
        let again = builder.add(source("a"), OpMetadata { ignore_cache: true, ..OpMetadata::default() }, &[line(1)]);
        assert_eq!(a, again);
        let b = builder.add(source("b"), OpMetadata::default(), &[]);
        let inputs = [&a, &b].map(|d| Input { digest: d.clone(), index: 0 }).to_vec();
        let merge = Op { inputs, kind: Some(OpKind::Merge(MergeOp { inputs: vec![0, 1] })), platform: None };
        let top = builder.add(merge, OpMetadata::default(), &[]);
        let definition = builder.finish(Some(Edge { vertex: top.clone(), index: 0 }));
        let order: Vec<_> = definition.vertices.iter().map(|v| v.digest.clone()).collect();
        assert_eq!(order, [a.clone(), b, top]);
        let first = definition.by_digest()[&a];
        assert!(first.metadata.ignore_cache);
        assert_eq!(first.lines, [line(1), line(3)]);
    }
}
