//! Cache keys, the records they name, and what the solver asks of a store of records.
//!
//! A *record* is named by `R = H(D "@" index)`, where `D` is the digest of a cache map. It is an *item* of a store's graph:
//! its links say, per input, from which parent items and through which selector it is reached. Several items may have the
//! same record digest and different parents. A content key is an item without parents, `H(C "@-1")`.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::BoxFuture;

use crate::digest::Digest;

/// Returns the record digest of an output of an operation.
pub fn record_digest(digest: &Digest, output: i64) -> Digest {
    Digest::compute(format!("{digest}@{output}"))
}

/// Returns the record digest of a content key.
pub fn content_record(content: &Digest) -> Digest {
    record_digest(content, -1)
}

/// Names an item within one store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId(Arc<str>);

impl ItemId {
    /// Makes an id of a store's own naming.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&Digest> for ItemId {
    fn from(digest: &Digest) -> Self {
        Self(digest.as_str().into())
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// From where an item is reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Parent {
    /// The parent item.
    pub item: ItemId,
    /// The selector; none for all of the input, and for content keys.
    pub selector: Option<Digest>,
}

impl Parent {
    /// Returns the link from a content key.
    pub fn content(item: ItemId) -> Self {
        Self { item, selector: None }
    }
}

/// An item as it is saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// `R`.
    pub digest: Digest,
    /// Per input, the parents; empty for an operation without inputs.
    pub links: Vec<BTreeSet<Parent>>,
    /// Per input, the one of the parents that stands for its content, where that is known.
    pub content: Vec<Option<ItemId>>,
}

impl Record {
    /// Returns the parents of an input that tell this item from others: its content where known, else all.
    ///
    /// A definition may have given other content before; what was made of that is another item.
    pub fn identity(&self, input: usize) -> BTreeSet<Parent> {
        match self.content_of(input) {
            Some(item) => BTreeSet::from([Parent::content(item.clone())]),
            None => self.links[input].clone(),
        }
    }

    /// Returns the parent that stands for the content of an input, where that is known.
    pub fn content_of(&self, input: usize) -> Option<&ItemId> {
        self.content.get(input)?.as_ref()
    }

    /// Returns whether this and another record of the same digest may be of one item: no input is known to have had other
    /// content, and none to have had a content that the other knows nothing of.
    pub fn agrees_with(&self, other: &Self) -> bool {
        let links = |record: &Self, input: usize, item: &ItemId| {
            record.links.get(input).is_some_and(|links| links.contains(&Parent::content(item.clone())))
        };
        (0..self.links.len()).all(|input| match (self.content_of(input), other.content_of(input)) {
            (Some(own), Some(others)) => own == others,
            (Some(own), None) => links(other, input, own),
            (None, Some(others)) => links(self, input, others),
            (None, None) => true,
        })
    }

    /// Returns the id a store that has no such item yet gives it: `R` itself without parents, else a hash over `R` and what
    /// tells it from others, so that two processes agree.
    pub fn id(&self) -> ItemId {
        if self.links.is_empty() {
            return ItemId::from(&self.digest);
        }
        let mut text = String::from(self.digest.as_str());
        for input in 0..self.links.len() {
            text.push('\n');
            for parent in self.identity(input) {
                text.push(' ');
                text.push_str(parent.item.as_str());
                text.push('/');
                text.push_str(parent.selector.as_ref().map_or("", Digest::as_str));
            }
        }
        ItemId::new(format!("item:{}", Digest::compute(text).hex()))
    }
}

/// One input of one operation, as the question for an item's children is put.
#[derive(Debug, Clone, Copy)]
pub struct LinkQuery<'a> {
    /// `R` of the child.
    pub record: &'a Digest,
    /// Which input of the child.
    pub input: usize,
    /// The selector.
    pub selector: Option<&'a Digest>,
}

/// A result a store has for an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResult {
    /// Names it within the item.
    pub id: String,
    /// When it was saved.
    pub created_at: SystemTime,
}

/// Why a store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("cache {store}: {action}")]
pub struct CacheError {
    /// The store.
    pub store: String,
    /// What failed: `failed to read record sha256:…`.
    pub action: String,
    /// Why.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What a loaded result is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Its bytes are read here: what cannot be had must fail now.
    Bytes,
    /// It is only handed on: a name for bytes that lie elsewhere is enough.
    Handle,
}

/// A graph of records with results.
///
/// Questions are answered from memory, at once; only [`prepare`](Self::prepare) and [`load`](Self::load) may wait.
pub trait CacheStore<R>: Send + Sync {
    /// Returns a name for messages.
    fn name(&self) -> &str;

    /// Gets the records into memory. Called once before any question; on an error the store is not used.
    fn prepare(&self) -> BoxFuture<'_, Result<(), CacheError>> {
        Box::pin(async { Ok(()) })
    }

    /// Returns the item without parents of a record digest.
    fn root(&self, record: &Digest) -> Option<ItemId>;

    /// Returns the items reached from `parent` through a link.
    fn children(&self, parent: &ItemId, link: LinkQuery<'_>) -> Vec<ItemId>;

    /// Returns the results of an item.
    fn results(&self, item: &ItemId) -> Vec<StoredResult>;

    /// Returns an item with all its links, for who exports it.
    fn record(&self, item: &ItemId) -> Option<Record>;

    /// Makes a result usable. With [`Need::Handle`] a store may give one whose bytes are fetched when they are read.
    fn load(&self, item: &ItemId, result: &str, need: Need) -> BoxFuture<'_, Result<R, CacheError>>;

    /// Forgets a result that could not be loaded.
    fn forget(&self, item: &ItemId, result: &str);

    /// Adds an item, or links to an equal one, and a result if given; returns the item.
    ///
    /// Equal is an item that already is, for every input, a child of one of the parents in [`Record::identity`], and that
    /// [agrees](Record::agrees_with). Only called for the first store of a solve; the others are read only and need not
    /// implement it.
    fn save(&self, record: &Record, result: Option<&R>) -> Result<ItemId, CacheError> {
        let _ = result;
        let action = format!("failed to save {}: the cache is read-only", record.digest);
        Err(CacheError { store: self.name().into(), action, source: None })
    }
}
