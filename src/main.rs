//! The program: decides its role by its first argument, before any thread exists.

fn main() {}
