//! Bad input: one clear error each, and nothing lost.
