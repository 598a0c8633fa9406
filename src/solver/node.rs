//! What the scheduler knows of one vertex.
//!
//! Levels only rise. A step is where a vertex stands on its way to the level that is asked of it; the table of steps is in
//! the module documentation of the solver.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use super::cache::{ItemId, Need, content_record};
use super::op::{CacheMap, InputKey};
use super::report::Outcome;
use crate::digest::Digest;

/// How far a vertex is, or is asked to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Level {
    /// Nothing is known.
    #[default]
    None,
    /// It was looked up by the definition keys of its inputs.
    Fast,
    /// It leads to records, though maybe not to all that it could; or it was looked up by all keys.
    Near,
    /// It was looked up by all keys that can be had without running it.
    Slow,
    /// Its results are there.
    Value,
}

/// Where a vertex stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Step {
    /// Not begun.
    #[default]
    New,
    /// Its cache map is being made.
    Mapping,
    /// Waits for its inputs to be looked up.
    Fast,
    /// Missed by definition keys; nobody asks for more yet.
    FastDone,
    /// Matches a record that has no result; nobody asks for more yet.
    NearDone,
    /// Waits for its inputs to be looked up by content.
    Slow,
    /// Waits for the content keys of inputs that had no match.
    ContentFirst,
    /// Waits for the other content keys.
    ContentRest,
    /// All keys are known; nobody asks for its results yet.
    KeysDone,
    /// Waits for the results of its inputs.
    Values,
    /// Waits for content keys that are only needed to save its record.
    ContentLast,
    /// Waits for a vertex with the same key that runs already.
    Twin,
    /// Waits for its turn to run.
    Queued,
    /// Runs.
    Running,
    /// Its results are being loaded from a cache.
    Loading,
    /// Its results are there.
    Done,
}

/// Why one vertex waits for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The input's level, whatever it brings.
    Reach(Level),
    /// The input's first keys: without any, a match may be out of reach.
    Keys(usize),
    /// All keys of the input.
    AllKeys(usize),
    /// The input's result, to make a content key of it.
    Content(usize),
}

impl Reason {
    /// Returns the level that ends the wait.
    pub(super) fn level(self) -> Level {
        match self {
            Reason::Reach(level) => level,
            Reason::Keys(_) => Level::Near,
            Reason::AllKeys(_) => Level::Slow,
            Reason::Content(_) => Level::Value,
        }
    }
}

/// A vertex that waits for another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiter {
    /// Who waits.
    pub(super) vertex: usize,
    /// Its epoch when it began to wait.
    pub(super) epoch: u32,
    /// Why.
    pub(super) reason: Reason,
}

/// The content key of one input.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Content {
    /// The operation makes none, or made none of this content.
    #[default]
    Absent,
    /// It can be made.
    Possible,
    /// It is being made, or its input is waited for.
    Pending,
    /// Its record digest.
    Known(Digest),
}

impl Content {
    /// Returns the item of the content in the first store.
    pub(super) fn item(&self) -> Option<ItemId> {
        match self {
            Content::Known(record) => Some(ItemId::from(record)),
            Content::Absent | Content::Possible | Content::Pending => None,
        }
    }
}

/// A result in a store that was found for an output.
#[derive(Debug, Clone)]
pub(super) struct Hit {
    /// Index of the store.
    pub(super) store: usize,
    /// The item.
    pub(super) item: ItemId,
    /// The result.
    pub(super) result: String,
}

/// One output that something depends on.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Its record digests.
    pub(super) records: Vec<Digest>,
    /// Per store, the items that match it.
    pub(super) keys: Vec<BTreeSet<ItemId>>,
    /// What its result is in the first store, to which records that depend on it are linked.
    pub(super) items: BTreeSet<ItemId>,
    /// The best result found.
    pub(super) hit: Option<Hit>,
    /// What matched in the end.
    pub(super) matched: Option<Hit>,
}

/// One vertex.
#[derive(Debug)]
pub(super) struct Node<R> {
    pub(super) demand: Level,
    pub(super) reached: Level,
    pub(super) step: Step,
    /// Answers outstanding before the step ends.
    pub(super) pending: usize,
    /// Counts steps, so that answers to a step left early are not taken for answers to a later one.
    pub(super) epoch: u32,
    pub(super) waiters: Vec<Waiter>,
    pub(super) map: Option<CacheMap>,
    pub(super) content: Vec<Content>,
    pub(super) outputs: BTreeMap<usize, Output>,
    pub(super) values: BTreeMap<usize, R>,
    /// Per store, whether a match there is still possible.
    pub(super) alive: Vec<bool>,
    /// Whether it is looked up by all keys of its inputs, as their first ones were not enough.
    pub(super) full: bool,
    pub(super) outcome: Outcome,
    /// Whether it stands in the work list.
    pub(super) listed: bool,
    /// Whether it ignores the cache, or depends on what does.
    pub(super) shaken: bool,
    /// Whether its items stand for older results too, so that what depends on it must not be looked up by them.
    pub(super) tainted: bool,
    /// When its results were there.
    pub(super) finished: Option<SystemTime>,
    /// What its results are for.
    pub(super) need: Need,
}

impl<R> Default for Node<R> {
    fn default() -> Self {
        Self {
            demand: Level::None,
            reached: Level::None,
            step: Step::New,
            pending: 0,
            epoch: 0,
            waiters: Vec::new(),
            map: None,
            content: Vec::new(),
            outputs: BTreeMap::new(),
            values: BTreeMap::new(),
            alive: Vec::new(),
            full: false,
            outcome: Outcome::NotReached,
            listed: false,
            shaken: false,
            tainted: false,
            finished: None,
            need: Need::Bytes,
        }
    }
}

impl<R> Node<R> {
    /// Begins a step: answers to former ones no longer count, and what they would have told can be asked again.
    pub(super) fn enter(&mut self, step: Step) {
        self.step = step;
        for content in self.content.iter_mut().filter(|content| **content == Content::Pending) {
            *content = Content::Possible;
        }
        self.epoch += 1;
        self.pending = 0;
    }

    /// Returns whether no store can have a match any more.
    pub(super) fn hopeless(&self) -> bool {
        !self.alive.contains(&true)
    }

    /// Returns whether every output has a result in a cache.
    pub(super) fn is_hit(&self) -> bool {
        self.outputs.values().all(|output| output.hit.is_some())
    }

    /// Returns whether every output leads to a record, be it one without a result.
    pub(super) fn is_known(&self) -> bool {
        self.outputs.values().all(|output| output.keys.iter().any(|items| !items.is_empty()))
    }

    /// Returns how an input enters the key.
    pub(super) fn input_key(&self, input: usize) -> Option<&InputKey> {
        self.map.as_ref().and_then(|map| map.inputs.get(input))
    }

    /// Notes a content key, or that there is none.
    pub(super) fn set_content(&mut self, input: usize, key: Option<&Digest>) {
        self.content[input] = key.map_or(Content::Absent, |key| Content::Known(content_record(key)));
    }
}
