//! A result to where the user wants it.
