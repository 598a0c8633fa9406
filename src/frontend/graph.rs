//! The ops of one lowering while their inputs are not yet final, and their way into a definition.
//!
//! In: nodes that point to nodes. Out: a [`Definition`] with BuildKit's order: each node after what it depends on, the base
//! before what is copied onto it, copied sources last first. Digests exist only at the end, because local sources learn
//! late which paths are used. All outputs are output 0. The walk has no recursion and is linear in nodes and inputs.

use std::collections::{BTreeMap, BTreeSet};

use crate::diag::LineRange;
use crate::digest::Digest;
use crate::image::Platform;
use crate::llb::{
    Builder, Definition, Edge, ExecOp, FileAction, FileActionKind, FileOp, Input, MergeOp, Op, OpKind, OpMetadata,
    SourceOp,
};

/// A node of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId(usize);

/// What a node does.
#[derive(Debug, Clone)]
pub(crate) enum NodeKind {
    /// A source, with its platform if it is specific to one.
    Source(SourceOp, Option<Platform>),
    /// A process; one input, or none, for each of the first mounts of the op.
    Exec(Box<ExecOp>, Vec<Option<NodeId>>, Platform),
    /// File actions on a base, each with what it copies from.
    File(Option<NodeId>, Vec<(FileActionKind, Option<NodeId>)>),
    /// Trees on top of each other.
    Merge(Vec<NodeId>),
}

#[derive(Debug)]
struct Node {
    kind: NodeKind,
    metadata: OpMetadata,
    lines: Vec<LineRange>,
}

/// The nodes of one lowering.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    nodes: Vec<Node>,
}

impl Graph {
    /// Adds a node.
    pub(crate) fn add(&mut self, kind: NodeKind, metadata: OpMetadata, lines: &[LineRange]) -> NodeId {
        self.nodes.push(Node { kind, metadata, lines: lines.to_vec() });
        NodeId(self.nodes.len() - 1)
    }

    /// Returns the source op of a node, if it is one.
    pub(crate) fn source(&self, id: NodeId) -> Option<&SourceOp> {
        match &self.nodes[id.0].kind {
            NodeKind::Source(source, _) => Some(source),
            _ => None,
        }
    }

    /// Sets an attribute of a source node.
    pub(crate) fn set_attribute(&mut self, id: NodeId, name: &str, value: String) {
        if let NodeKind::Source(source, _) = &mut self.nodes[id.0].kind {
            source.attrs.insert(name.to_owned(), value);
        }
    }

    /// Returns the definition of a result; none is the empty tree.
    pub(crate) fn finish(self, result: Option<NodeId>) -> Definition {
        let Some(result) = result else { return Definition::default() };
        let order = self.order(result);
        let mut slots: Vec<Option<Node>> = self.nodes.into_iter().map(Some).collect();
        let mut digests = BTreeMap::new();
        let mut builder = Builder::new();
        for id in order {
            let Some(node) = slots[id.0].take() else { continue };
            let digest = builder.add(build(node.kind, &digests), node.metadata, &node.lines);
            digests.insert(id, digest);
        }
        let edge = digests.get(&result).map(|digest| Edge { vertex: digest.clone(), index: 0 });
        builder.finish(edge)
    }

    /// Returns the nodes that a definition of `result` holds.
    pub(crate) fn needed_by(&self, result: Option<NodeId>) -> BTreeSet<NodeId> {
        result.map(|result| self.order(result)).unwrap_or_default().into_iter().collect()
    }

    fn order(&self, result: NodeId) -> Vec<NodeId> {
        let mut order = Vec::new();
        let mut seen = vec![false; self.nodes.len()];
        let mut stack = vec![(result, false)];
        while let Some((id, inputs_done)) = stack.pop() {
            if inputs_done {
                order.push(id);
            } else if !std::mem::replace(&mut seen[id.0], true) {
                stack.push((id, true));
                stack.extend(visits(&self.nodes[id.0].kind).into_iter().rev().map(|input| (input, false)));
            }
        }
        order
    }
}

/// Lists inputs in the order BuildKit's client visits them, which for files is not the order they are numbered in.
fn visits(kind: &NodeKind) -> Vec<NodeId> {
    match kind {
        NodeKind::Source(..) => Vec::new(),
        NodeKind::Exec(_, inputs, _) => inputs.iter().flatten().copied().collect(),
        NodeKind::File(base, actions) => base.iter().copied().chain(actions.iter().rev().filter_map(|a| a.1)).collect(),
        NodeKind::Merge(inputs) => inputs.clone(),
    }
}

/// Numbers the inputs of one op; equal ones share a number.
struct Inputs<'a> {
    digests: &'a BTreeMap<NodeId, Digest>,
    list: Vec<Input>,
    places: BTreeMap<Digest, i64>,
}

impl Inputs<'_> {
    fn index(&mut self, id: Option<NodeId>) -> i64 {
        let Some(digest) = id.and_then(|id| self.digests.get(&id)) else { return -1 };
        if let Some(place) = self.places.get(digest) {
            return *place;
        }
        let place = self.append(digest.clone());
        self.places.insert(digest.clone(), place);
        place
    }

    fn append(&mut self, digest: Digest) -> i64 {
        self.list.push(Input { digest, index: 0 });
        self.list.len() as i64 - 1
    }
}

fn build(kind: NodeKind, digests: &BTreeMap<NodeId, Digest>) -> Op {
    let mut inputs = Inputs { digests, list: Vec::new(), places: BTreeMap::new() };
    let (kind, platform) = match kind {
        NodeKind::Source(source, platform) => (OpKind::Source(source), platform),
        NodeKind::Exec(mut exec, sources, platform) => {
            for (mount, source) in exec.mounts.iter_mut().zip(sources) {
                mount.input = inputs.index(source);
            }
            (OpKind::Exec(exec), Some(platform))
        }
        NodeKind::File(base, actions) => (OpKind::File(build_file(base, actions, &mut inputs)), None),
        NodeKind::Merge(sources) => {
            // A merge numbers every input, equal or not.
            let digests = sources.iter().filter_map(|id| inputs.digests.get(id));
            let list: Vec<Digest> = digests.cloned().collect();
            (OpKind::Merge(MergeOp { inputs: list.into_iter().map(|d| inputs.append(d)).collect() }), None)
        }
    };
    Op { inputs: inputs.list, kind: Some(kind), platform }
}

fn build_file(base: Option<NodeId>, actions: Vec<(FileActionKind, Option<NodeId>)>, inputs: &mut Inputs<'_>) -> FileOp {
    let base = inputs.index(base);
    let sources: Vec<i64> = actions.iter().map(|(_, source)| inputs.index(*source)).collect();
    let first_result = inputs.list.len() as i64;
    let last = actions.len().saturating_sub(1);
    let numbered = actions.into_iter().zip(sources).enumerate();
    let actions = numbered.map(|(at, ((kind, _), secondary_input))| FileAction {
        input: if at == 0 { base } else { first_result + at as i64 - 1 },
        secondary_input,
        output: if at == last { 0 } else { -1 },
        kind,
    });
    FileOp { actions: actions.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llb::CopyAction;

    fn source(graph: &mut Graph, name: &str) -> NodeId {
        let source = SourceOp { identifier: name.into(), ..SourceOp::default() };
        graph.add(NodeKind::Source(source, None), OpMetadata::default(), &[])
    }

    fn copy() -> FileActionKind {
        FileActionKind::Copy(CopyAction::default())
    }

    #[test]
    fn equal_sources_share_a_number_and_the_last_is_visited_first() {
        let mut graph = Graph::default();
        let base = source(&mut graph, "base");
        let (a, a_again, b) = (source(&mut graph, "a"), source(&mut graph, "a"), source(&mut graph, "b"));
        let actions = vec![(copy(), Some(a)), (copy(), Some(a_again)), (copy(), Some(b))];
        let top = graph.add(NodeKind::File(Some(base), actions), OpMetadata::default(), &[]);
        let definition = graph.finish(Some(top));
        let names: Vec<String> = definition.vertices.iter().map(|v| format!("{:?}", v.op.kind)).collect();
        let order = ["\"base\"", "\"b\"", "\"a\"", "File"];
        assert!(names.iter().zip(order).all(|(name, part)| name.contains(part)), "{names:?}");
        let Some(OpKind::File(file)) = &definition.vertices[3].op.kind else { panic!("no file op") };
        let numbers: Vec<_> = file.actions.iter().map(|a| (a.input, a.secondary_input, a.output)).collect();
        assert_eq!(numbers, [(0, 1, -1), (3, 1, -1), (4, 2, 0)]);
    }
}
