//! The Dockerfile language: text in, instructions with their places out; no LLB, no file system.

pub mod instruction;
