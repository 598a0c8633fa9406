//! Layers as bytes: tar in and out, whiteouts, compression.
