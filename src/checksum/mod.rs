//! Content digests of paths in a tree, BuildKit's.
