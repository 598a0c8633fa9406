//! LLB, the intermediate representation: ops, their bytes and digests, and definitions made of them.
//!
//! In: ops a frontend builds, later also bytes from elsewhere. Out: the same ops with BuildKit's protobuf bytes and digests.
//! Invariant: a digest is the SHA-256 of the op's bytes; bytes that came from elsewhere are kept, never encoded again.

pub mod definition;
pub mod encode;
pub mod json;
pub mod ops;

pub use definition::{Builder, Definition, Edge, Vertex};
pub use ops::*;
