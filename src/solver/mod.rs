//! Vertices, edges and cache keys: decides what runs, what is cached, and runs it; no I/O.

mod cache;
#[cfg(test)]
mod fake;
mod graph;
mod keep;
mod lookup;
mod node;
mod op;
mod records;
mod report;
mod scheduler;
mod solve;
mod tasks;
#[cfg(test)]
mod tests;

pub use cache::*;
pub use graph::{Edge, Graph, GraphError, Vertex};
pub use op::{CacheDigest, CacheMap, InputKey, Op, OpError};
pub use records::{Item, RecordGraph};
pub use report::*;
pub use solve::{Request, solve};
