//! A door for the fuzzers in `integration/fuzz` to what standard input is taken for, which is private otherwise.

use super::request;

/// Returns whether standard input that starts with `head` is a context; else it is a Dockerfile.
pub fn looks_like_archive(head: &[u8]) -> bool {
    request::looks_like_archive(head)
}
