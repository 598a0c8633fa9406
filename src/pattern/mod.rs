//! Go's path patterns and .dockerignore, exactly.
//!
//! [`go`] is Go's `path.Match`, [`matcher`] the rules of ignore files and of COPY's `--exclude` and `--parents`,
//! [`ignore`] the file format. Patterns come from untrusted contexts: their number and length are bounded, matching is
//! linear in the path, and nothing panics.

pub mod go;
pub mod ignore;
pub mod matcher;
pub mod path;
mod segments;

pub use matcher::{MatchInfo, Matcher, PatternError};
