//! What outlives a build: content-addressed blobs, cache records, locks.

pub mod records;
