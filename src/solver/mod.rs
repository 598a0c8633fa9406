//! Vertices, edges and cache keys: decides what runs, what is cached, and runs it; no I/O.
//!
//! In: a [`Graph`] of operations, targets, [`CacheStore`]s. Out: one result per target and a report per vertex; news to an
//! [`Observer`] meanwhile. On disk: nothing; stores keep what is saved.
//!
//! # Phases
//!
//! A vertex is asked to reach a level, by those that depend on it, and asks the same of its inputs:
//!
//! 1. *Fast*: its cache map is made, and all inputs are Fast. It is looked up by the keys of its inputs' definitions. This
//!    walks the whole graph below the targets and evaluates nothing.
//! 2. *Near*: all inputs are Near, and it is looked up again, also by the content of inputs that are Slow and lead to no
//!    record. A content key needs the input's result, so this evaluates inputs, as they are needed: one that leads to no
//!    record at once, while others may still be evaluating what they are looked up by. A record that has no result is
//!    enough: what depends on it may be found through it, as in caches that hold the results of the last stage only.
//! 3. *Slow*: where no record was found, or none that those who ask could do with, all inputs are Slow, and it is looked up
//!    by them; then by the content of inputs that lead to no record, then by that of the others.
//! 4. *Value*: a hit is loaded; otherwise all inputs reach Value, remaining content keys are made for the record, it is looked
//!    up once more, and it runs.
//!
//! A hit ends phases 1 to 3 at once; it is loaded only when somebody needs the result itself. As soon as one input without
//! content key leads to no record in any store, no match is possible and phase 2 ends: a cold build goes from phase 1 to 4 at
//! once, everywhere in parallel. When a load fails, the result is forgotten and phase 3 begins.
//!
//! # What enters which key
//!
//! | | record digest `R` | link per input | item |
//! |---|---|---|---|
//! | digest of the cache map | yes, each one | | through `R` |
//! | output index | yes | | through `R` |
//! | selector of the input | | definition links | finds it |
//! | item of the input's result | | definition links | tells it apart where no content is known |
//! | content key of the input | | one link, no selector | tells it apart |
//! | random digest | no record at all | none | none¹ |
//! | vertex digest, name, `ignore_cache` | | | never |
//!
//! ¹ What depends on it is saved if it has a content key of it.
//!
//! # Rules
//!
//! * A vertex runs at most once, is loaded at most once per result, and not at all when no target needs it.
//! * What the local store has is taken; else the newest of what the others have.
//! * Vertices whose records would be equal do not run at once: the second waits and then hits.
//! * With `ignore_cache` a vertex is not looked up. It is saved as usual; what depends on it is looked up by its content
//!   only, and so on upwards, because its definition stands for older results as well.
//! * The first failure cancels the rest. What runs is told and waited for; what finishes all the same is saved.
//!
//! # Why nothing waits for ever
//!
//! * One task owns all state, so there is no lock to wait for; tasks ask one question and bring one answer.
//! * A vertex waits for its inputs, whose indices are lower, or for a twin, which waits for none: it has all its inputs.
//!   Every chain of waits therefore ends in a vertex with a task, or in one queued for a place to run, which running ones
//!   give back.
//! * Levels only rise and waits are counted per step; an answer to a step left early is told by its epoch and not counted.
//! * `Op::exec` must return when cancelled; that is the one promise asked of operations.
//!
//! # Known weaknesses
//!
//! * Cache stores answer from memory and save in the scheduler's task: one that blocks, blocks the solve.
//! * A twin is recognised by the links it would be saved with, so two vertices that are equal only through older links may
//!   both run.
//! * Outputs are looked up one by one; when one of several misses, the vertex runs and makes all.
//! * When a step that ignores the cache gives A, then B, then A again, a later solve that trusts the cache may find by
//!   definition what was made of B.
//! * Results are held until the solve ends.

mod adopt;
mod apart;
mod cache;
mod export;
#[cfg(test)]
pub(crate) mod fake;
mod graph;
mod keep;
mod lookup;
mod node;
mod op;
mod records;
mod report;
mod scheduler;
mod solve;
mod tasks;
#[cfg(test)]
mod tests;

pub use cache::*;
pub use export::Exported;
pub use graph::{Edge, Graph, GraphError, Vertex};
pub use op::{CacheDigest, CacheMap, InputKey, Op, OpError};
pub use records::{Item, RecordGraph};
pub use report::*;
pub use solve::{Request, solve};
