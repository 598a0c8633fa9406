//! The LLB ops as the solver's ops: what runs a process, changes files, brings images and contexts.
//!
//! In: LLB vertices and a [`Worker`] with the stations they need. Out: [`op_of`] gives what the solver drives; their results are
//! [`Tree`]s. On disk everything they leave belongs to `snapshot`, `store` and the cache mounts of [`CacheMounts`].

mod caches;
mod error;
pub mod file;
mod imports;
pub mod keys;
mod records;
mod tree;
mod vertex;
mod worker;

pub use caches::CacheMounts;
pub use error::OpsError;
pub use imports::ImportStore;
pub use records::{RecordStore, TreeCodec};
pub use tree::{LazyTree, Tree};
pub use vertex::op_of;
pub use worker::{Agents, LayerObserver, ListFiles, Materialised, Secrets, Witness, Worker};
