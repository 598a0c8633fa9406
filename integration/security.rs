//! The rows of the threat model that need the whole binary.
