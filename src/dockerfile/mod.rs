//! The Dockerfile language: text in, instructions with their places out; no LLB, no file system.
//!
//! ```text
//! bytes ─▶ lines ─▶ logical lines ─▶ flags, args, heredocs ─▶ instructions ─▶ Dockerfile
//!          (directive, comments)      (spec of one instruction)  (parse: stages, recovery, lint)
//! ```
//!
//! [`parse::parse`] does all of it and reports every mistake it can find. Variables stay unexpanded: [`word::Lexer`]
//! expands them where the instruction is carried out. Values with a grammar of their own (mounts, git references,
//! durations, sizes) have a module each. Nothing here panics on any input, and all of it is linear in the input.

pub mod args;
pub mod check;
pub mod copy;
pub mod csv;
pub mod device;
pub mod directive;
pub mod duration;
pub mod error;
pub mod flags;
pub mod gitref;
pub mod giturl;
pub mod glob;
pub mod goquote;
pub mod healthcheck;
pub mod heredoc;
pub mod instruction;
pub mod interpret;
pub mod json_array;
pub mod lines;
pub mod lint;
pub mod mount;
mod name;
pub mod parse;
pub mod rule;
pub mod size;
pub mod text;
pub mod word;
