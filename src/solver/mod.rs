//! Vertices, edges and cache keys: decides what runs, what is cached, and runs it; no I/O.

mod cache;
mod graph;
mod op;
mod report;

pub use cache::*;
pub use graph::{Edge, Graph, GraphError, Vertex};
pub use op::{CacheDigest, CacheMap, InputKey, Op, OpError};
pub use report::*;
