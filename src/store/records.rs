//! The log of cache records on disk.
//!
//! In: records and results of a solver. Out: the same, to this and to other processes, now and later.
//!
//! ```text
//! DIR/records.log    one JSON object a line, oldest first, only ever appended to
//! DIR/records.lock   locked while a line is appended or the log is replaced
//! ```
//!
//! A line adds an item or links to it, and may bring its result: `{"v":2,"item":…,"digest":…,"links":[[[parent,selector]…]…],
//! "content":[parent or null…],"result":{"at":…,"value":…}}`; or it drops a result: `{"v":2,"item":…,"drop":…}`. Times are
//! nanoseconds since 1970. Lines of version 1 did not say which parents stand for content, and are not read.
//!
//! Invariants: a line is written with one `write` on `O_APPEND` under the lock, and begins on a fresh line even if the log
//! ends in a torn one; lines that cannot be read are skipped, so damage is a miss. Before it appends, a process reads what
//! others appended, so that equal records get one item. When most lines say nothing that still holds, the log is rewritten
//! beside and renamed over; who has the old one open notices by its inode and reads anew. Lines are not fsynced: a record
//! lost in a crash is built again.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::Digest;
use crate::image::canonical;
use crate::solver::{CacheError, CacheStore, ItemId, LinkQuery, Need, Parent, Record, RecordGraph, StoredResult};

/// Turns results into data that outlives the process, and back.
pub trait Codec<R>: Send + Sync {
    /// Returns the data of a result; none for one that must not be kept.
    fn encode(&self, result: &R) -> Option<Value>;

    /// Returns the result of data, checking that what it refers to is still there.
    fn decode(&self, value: &Value) -> Result<R, Box<dyn std::error::Error + Send + Sync>>;
}

/// Rewriting is not worth it below this many lines.
const COMPACT_LINES: usize = 1000;

/// The local cache: a log on disk and its graph in memory.
pub struct Records<R, C> {
    directory: PathBuf,
    codec: C,
    state: Mutex<State>,
    result: PhantomData<fn() -> R>,
}

impl<R, C> fmt::Debug for Records<R, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("directory", &self.directory).finish_non_exhaustive()
    }
}

struct State {
    log: File,
    inode: u64,
    /// Bytes of the log in memory: whole lines, except where a torn one was skipped.
    read: u64,
    lines: usize,
    graph: RecordGraph<Value>,
}

/// One line of the log.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    v: u32,
    item: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    links: Vec<Vec<(String, Option<Digest>)>>,
    /// Per input, the parent that stands for its content; empty where none does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    content: Vec<Option<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<LineResult>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drop: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct LineResult {
    at: u64,
    value: Value,
}

/// The version of lines this program writes; others are skipped.
const VERSION: u32 = 2;

impl Line {
    fn of(id: &ItemId, record: &Record, result: Option<(SystemTime, Value)>) -> Self {
        let pair = |parent: &Parent| (parent.item.as_str().to_owned(), parent.selector.clone());
        Self {
            v: VERSION,
            item: id.as_str().to_owned(),
            digest: Some(record.digest.clone()),
            links: record.links.iter().map(|parents| parents.iter().map(pair).collect()).collect(),
            content: if record.content.iter().any(Option::is_some) {
                record.content.iter().map(|item| Some(item.as_ref()?.as_str().to_owned())).collect()
            } else {
                Vec::new()
            },
            result: result.map(|(at, value)| LineResult { at: nanoseconds(at), value }),
            drop: None,
        }
    }

    fn drop_of(id: &ItemId, at: u64) -> Self {
        let item = id.as_str().into();
        Self { v: VERSION, item, digest: None, links: Vec::new(), content: Vec::new(), result: None, drop: Some(at) }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = canonical::to_vec(self);
        bytes.push(b'\n');
        bytes
    }

    fn apply(self, graph: &mut RecordGraph<Value>) {
        let id = ItemId::new(self.item);
        if let Some(digest) = self.digest {
            let parent = |(item, selector): (String, Option<Digest>)| Parent { item: ItemId::new(item), selector };
            let links: Vec<BTreeSet<Parent>> =
                self.links.into_iter().map(|parents| parents.into_iter().map(parent).collect()).collect();
            let content = self.content.into_iter().map(|item| item.map(ItemId::new)).collect();
            graph.add(&id, &Record { digest, links, content });
        }
        if let Some(result) = self.result {
            graph.set_result(&id, Some((SystemTime::UNIX_EPOCH + Duration::from_nanos(result.at), result.value)));
        }
        let current = graph.item(&id).and_then(|item| item.result.as_ref()).map(|result| nanoseconds(result.0));
        if self.drop.is_some() && self.drop == current {
            graph.set_result(&id, None);
        }
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl State {
    fn open(directory: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let log = options.read(true).append(true).create(true).mode(0o600).open(directory.join("records.log"))?;
        let inode = log.metadata()?.ino();
        Ok(Self { log, inode, read: 0, lines: 0, graph: RecordGraph::new() })
    }

    /// Takes in what was appended since; returns whether the log ends in a torn line.
    fn refresh(&mut self, directory: &Path) -> io::Result<bool> {
        let replaced = match std::fs::metadata(directory.join("records.log")) {
            Ok(metadata) => metadata.ino() != self.inode || metadata.len() < self.read,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(error),
        };
        if replaced {
            *self = Self::open(directory)?;
        }
        let mut tail = Vec::new();
        self.log.seek(SeekFrom::Start(self.read))?;
        self.log.read_to_end(&mut tail)?;
        let whole = tail.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        for line in tail[..whole].split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            self.lines += 1;
            if let Ok(line) = serde_json::from_slice::<Line>(line)
                && line.v == VERSION
            {
                line.apply(&mut self.graph);
            }
        }
        self.read += whole as u64;
        Ok(whole < tail.len())
    }

    /// Appends a line; after a torn one, on a fresh line.
    fn append(&mut self, line: Line, torn: bool) -> io::Result<()> {
        let mut bytes = if torn { vec![b'\n'] } else { Vec::new() };
        bytes.extend(line.encode());
        self.log.write_all(&bytes)?;
        if torn {
            // The torn line is skipped when the log is read on, together with the one just written, which is known.
            self.read = self.log.seek(SeekFrom::End(0))?;
        } else {
            self.read += bytes.len() as u64;
        }
        self.lines += 1;
        line.apply(&mut self.graph);
        Ok(())
    }

    fn mostly_dead(&self) -> bool {
        self.lines >= COMPACT_LINES && self.lines > 2 * live(&self.graph).len()
    }

    /// Compacts the newest state while no other process writes.
    fn tidy(&mut self, directory: &Path) -> io::Result<()> {
        let lock = lock(directory)?;
        self.refresh(directory)?;
        let compacted = self.compact(directory);
        lock.unlock()?;
        compacted
    }

    /// Writes what is live beside the log and renames it over.
    fn compact(&mut self, directory: &Path) -> io::Result<()> {
        let mut bytes = Vec::new();
        for id in live(&self.graph) {
            if let Some(item) = self.graph.item(&id) {
                bytes.extend(Line::of(&id, &item.record, item.result.clone()).encode());
            }
        }
        let (new, log) = (directory.join("records.log.new"), directory.join("records.log"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, &log)?;
        self.refresh(directory).map(drop)
    }
}

/// Returns the items that have a result, and those these are reached from.
fn live(graph: &RecordGraph<Value>) -> BTreeSet<ItemId> {
    let with_result = graph.items().filter(|(_, item)| item.result.is_some());
    let mut stack: Vec<ItemId> = with_result.map(|(id, _)| id.clone()).collect();
    let mut live = BTreeSet::new();
    while let Some(id) = stack.pop() {
        if let Some(item) = graph.item(&id) {
            let parents = item.record.links.iter().flatten().map(|parent| &parent.item);
            stack.extend(parents.filter(|parent| !live.contains(*parent)).cloned());
        }
        live.insert(id);
    }
    live
}

impl<R, C: Codec<R>> Records<R, C> {
    /// Opens the records of a directory, which is made if need be, and compacts them when most are dead.
    pub fn open(directory: &Path, codec: C) -> Result<Self, CacheError> {
        let open = || -> io::Result<State> {
            std::fs::create_dir_all(directory)?;
            let mut state = State::open(directory)?;
            state.refresh(directory)?;
            if state.mostly_dead()
                && let Err(error) = state.tidy(directory)
            {
                tracing::warn!("failed to compact the records in {}: {error}", directory.display());
            }
            Ok(state)
        };
        let state = open().map_err(|error| failed(format!("failed to open {}", directory.display()), error))?;
        Ok(Self { directory: directory.to_owned(), codec, state: Mutex::new(state), result: PhantomData })
    }

    /// Drops the results whose data `lost` says that it leads to nothing any more, and returns how many these were.
    pub fn drop_lost(&self, lost: impl Fn(&Value) -> bool) -> Result<usize, CacheError> {
        let dropped = self.locked(|state, _torn| {
            let lost = |result: &(SystemTime, Value)| lost(&result.1);
            let items = state.graph.items().filter(|(_, item)| item.result.as_ref().is_some_and(lost));
            let lost: Vec<ItemId> = items.map(|(id, _)| id.clone()).collect();
            for id in &lost {
                state.graph.set_result(id, None);
            }
            if !lost.is_empty() {
                state.compact(&self.directory)?;
            }
            Ok(lost.len())
        });
        dropped.map_err(|error| failed("failed to drop records".into(), error))
    }

    /// Returns the data of all results there are.
    pub fn values(&self) -> Vec<Value> {
        let state = self.state();
        state.graph.items().filter_map(|(_, item)| Some(item.result.as_ref()?.1.clone())).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves whole lines at worst unread; nothing is half applied.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the newest state while no other process writes.
    fn locked<T>(&self, work: impl FnOnce(&mut State, bool) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state();
        let lock = lock(&self.directory)?;
        let torn = state.refresh(&self.directory)?;
        let outcome = work(&mut state, torn);
        lock.unlock()?;
        outcome
    }
}

fn lock(directory: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(directory.join("records.lock"))?;
    file.lock()?;
    Ok(file)
}

fn failed(action: String, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CacheError {
    CacheError { store: NAME.into(), action, source: Some(source.into()) }
}

const NAME: &str = "local";

impl<R: Send + Sync, C: Codec<R>> CacheStore<R> for Records<R, C> {
    fn name(&self) -> &str {
        NAME
    }

    fn prepare(&self) -> BoxFuture<'_, Result<(), CacheError>> {
        let outcome = self.state().refresh(&self.directory).map(drop);
        async { outcome.map_err(|error| failed("failed to read records".into(), error)) }.boxed()
    }

    fn root(&self, record: &Digest) -> Option<ItemId> {
        self.state().graph.root(record)
    }

    fn children(&self, parent: &ItemId, link: LinkQuery<'_>) -> Vec<ItemId> {
        self.state().graph.children(parent, link)
    }

    fn results(&self, item: &ItemId) -> Vec<StoredResult> {
        self.state().graph.results(item)
    }

    fn record(&self, item: &ItemId) -> Option<Record> {
        self.state().graph.record(item)
    }

    fn load(&self, item: &ItemId, _result: &str, _need: Need) -> BoxFuture<'_, Result<R, CacheError>> {
        let value = self.state().graph.item(item).and_then(|item| item.result.clone());
        let action = format!("failed to load {item}");
        async move {
            let Some((_, value)) = value else { return Err(CacheError { store: NAME.into(), action, source: None }) };
            self.codec.decode(&value).map_err(|error| failed(action, error))
        }
        .boxed()
    }

    fn forget(&self, item: &ItemId, result: &str) {
        let dropped = self.locked(|state, torn| match result.parse() {
            Ok(at) => state.append(Line::drop_of(item, at), torn),
            Err(_) => Ok(()),
        });
        if let Err(error) = dropped {
            // It stays on disk, where the next process finds it and drops it again; this one must not.
            tracing::debug!(%error, %item, "failed to drop a record");
        }
        self.state().graph.set_result(item, None);
    }

    fn save(&self, record: &Record, result: Option<&R>) -> Result<ItemId, CacheError> {
        let value = result.and_then(|result| self.codec.encode(result)).map(|value| (SystemTime::now(), value));
        let saved = self.locked(|state, torn| {
            let id = state.graph.identify(record);
            if value.is_some() || !state.graph.has_links(&id, record) {
                state.append(Line::of(&id, record, value), torn)?;
            }
            Ok(id)
        });
        saved.map_err(|error| failed(format!("failed to save {}", record.digest), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Text;

    impl Codec<String> for Text {
        fn encode(&self, result: &String) -> Option<Value> {
            (!result.starts_with("lazy")).then(|| Value::from(result.as_str()))
        }
        fn decode(&self, value: &Value) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
            value.as_str().filter(|text| *text != "gone").map(str::to_owned).ok_or_else(|| "it is gone".into())
        }
    }

    fn open(directory: &Path) -> Records<String, Text> {
        Records::open(directory, Text).unwrap()
    }

    fn root(name: &str) -> Record {
        Record { digest: Digest::compute(name), links: Vec::new(), content: Vec::new() }
    }

    fn child(name: &str, parents: &[&ItemId]) -> Record {
        let links = parents.iter().map(|p| BTreeSet::from([Parent { item: (*p).clone(), selector: None }])).collect();
        Record { digest: Digest::compute(name), links, content: vec![None; parents.len()] }
    }

    fn load(records: &Records<String, Text>, id: &ItemId) -> Result<String, String> {
        let result = records.results(id).pop().ok_or("no result")?;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(records.load(id, &result.id, Need::Bytes)).map_err(|error| crate::diag::chain(&error))
    }

    fn log(directory: &Path) -> Vec<u8> {
        std::fs::read(directory.join("records.log")).unwrap()
    }

    #[test]
    fn what_is_saved_is_found_by_the_next_process() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path());
        let base = first.save(&root("base"), Some(&"base".into())).unwrap();
        let run = first.save(&child("run", &[&base]), Some(&"run".into())).unwrap();
        let next = open(dir.path());
        assert_eq!(next.root(&Digest::compute("base")), Some(base.clone()));
        let link = |selector| LinkQuery { record: Box::leak(Box::new(Digest::compute("run"))), input: 0, selector };
        assert_eq!(next.children(&base, link(None)), std::slice::from_ref(&run));
        assert_eq!(next.children(&base, link(Some(&Digest::compute("selector")))), []);
        assert_eq!(load(&next, &run), Ok("run".into()));
    }

    #[test]
    fn what_must_not_be_kept_is_an_item_without_a_result() {
        let dir = tempfile::tempdir().unwrap();
        let records = open(dir.path());
        let id = records.save(&root("base"), Some(&"lazy".into())).unwrap();
        assert_eq!(records.results(&id), []);
        let length = log(dir.path()).len();
        assert_eq!(records.save(&root("base"), None).unwrap(), id);
        assert_eq!(log(dir.path()).len(), length, "nothing new, nothing written");
    }

    #[test]
    fn processes_agree_on_items_and_see_each_others() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (open(dir.path()), open(dir.path()));
        let base = one.save(&root("base"), None).unwrap();
        let other = one.save(&root("other"), None).unwrap();
        let a = one.save(&child("run", &[&base]), Some(&"one".into())).unwrap();
        let mut both = child("run", &[&base]);
        both.links[0].insert(Parent { item: other.clone(), selector: None });
        let b = two.save(&both, Some(&"two".into())).unwrap();
        assert_eq!(a, b, "a second parent of one input joins the item");
        assert_eq!(one.save(&child("run", &[&other]), None).unwrap(), a);
        assert_eq!(load(&one, &a), Ok("two".into()));
    }

    #[test]
    fn content_tells_items_apart() {
        let dir = tempfile::tempdir().unwrap();
        let records = open(dir.path());
        let base = records.save(&root("base"), None).unwrap();
        let of = |content: &str| {
            let item = ItemId::from(&Digest::compute(content));
            let mut record = child("copy", &[&base]);
            record.links[0].insert(Parent { item: item.clone(), selector: None });
            Record { content: vec![Some(item)], ..record }
        };
        let one = records.save(&of("one"), Some(&"1".into())).unwrap();
        let two = records.save(&of("two"), Some(&"2".into())).unwrap();
        assert_ne!(one, two);
        assert_eq!(records.save(&of("one"), None).unwrap(), one);
        let unknown = records.save(&child("copy", &[&base]), Some(&"3".into())).unwrap();
        let again = open(dir.path());
        assert_eq!(again.save(&of("one"), None).unwrap(), one, "the log says what stands for content");
        assert_eq!(again.save(&child("copy", &[&base]), None).unwrap(), unknown);
        let values = [&one, &two, &unknown].map(|item| load(&again, item));
        assert_eq!(values, ["1", "2", "3"].map(|value| Ok(value.to_owned())));
    }

    #[test]
    fn torn_and_corrupt_lines_are_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let base = open(dir.path()).save(&root("base"), Some(&"base".into())).unwrap();
        let mut bytes = log(dir.path());
        let line = bytes.clone();
        bytes.extend(b"not json\n\xff\xfe\n{\"v\":1,\"item\":\"x\"}\n{\"v\":2}\n");
        bytes.extend(&line[..line.len() / 2]);
        std::fs::write(dir.path().join("records.log"), bytes).unwrap();
        let records = open(dir.path());
        assert_eq!(load(&records, &base), Ok("base".into()));
        let next = records.save(&root("next"), Some(&"next".into())).unwrap();
        records.save(&root("third"), Some(&"third".into())).unwrap();
        let again = open(dir.path());
        assert_eq!(load(&again, &next), Ok("next".into()));
        assert!(again.root(&Digest::compute("third")).is_some());
        assert_eq!(load(&again, &base), Ok("base".into()));
    }

    #[test]
    fn any_cut_of_the_log_loses_no_more_than_its_last_line() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path());
        let a = first.save(&root("a"), Some(&"a".into())).unwrap();
        let whole = log(dir.path()).len();
        first.save(&root("b"), Some(&"b".into())).unwrap();
        let bytes = log(dir.path());
        for cut in whole..bytes.len() {
            std::fs::write(dir.path().join("records.log"), &bytes[..cut]).unwrap();
            let records = open(dir.path());
            let c = records.save(&root("c"), Some(&"c".into())).unwrap();
            let next = open(dir.path());
            assert_eq!((load(&next, &a), load(&next, &c)), (Ok("a".into()), Ok("c".into())), "cut at {cut}");
        }
    }

    #[test]
    fn a_dropped_result_stays_dropped_and_newer_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let records = open(dir.path());
        let id = records.save(&root("base"), Some(&"gone".into())).unwrap();
        assert_eq!(load(&records, &id), Err(format!("cache local: failed to load {id}: it is gone")));
        let old = records.results(&id).pop().unwrap();
        records.forget(&id, &old.id);
        assert_eq!(open(dir.path()).results(&id), []);
        records.save(&root("base"), Some(&"new".into())).unwrap();
        open(dir.path()).forget(&id, &old.id);
        assert_eq!(load(&open(dir.path()), &id), Ok("new".into()));
    }

    #[test]
    fn compaction_keeps_what_is_live_and_others_follow_it() {
        let dir = tempfile::tempdir().unwrap();
        let other = open(dir.path());
        let base = other.save(&root("base"), None).unwrap();
        let run = other.save(&child("run", &[&base]), Some(&"0".into())).unwrap();
        other.save(&root("dead"), None).unwrap();
        for i in 0..COMPACT_LINES {
            other.save(&child("run", &[&base]), Some(&i.to_string())).unwrap();
        }
        let before = log(dir.path()).len();
        let records = open(dir.path());
        assert!(log(dir.path()).len() < before / 100);
        assert_eq!(load(&records, &run), Ok((COMPACT_LINES - 1).to_string()));
        assert!(records.root(&Digest::compute("base")).is_some());
        assert!(records.root(&Digest::compute("dead")).is_none());
        other.save(&root("late"), None).unwrap();
        assert!(open(dir.path()).root(&Digest::compute("late")).is_some(), "not written to the replaced log");
    }

    #[test]
    fn a_log_that_cannot_be_compacted_is_used_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path());
        let base = first.save(&root("base"), None).unwrap();
        for i in 0..=COMPACT_LINES {
            first.save(&root("base"), Some(&i.to_string())).unwrap();
        }
        let before = log(dir.path());
        std::fs::create_dir(dir.path().join("records.log.new")).unwrap();
        let records = open(dir.path());
        assert_eq!(log(dir.path()), before);
        assert_eq!(load(&records, &base), Ok(COMPACT_LINES.to_string()));
        records.save(&root("next"), None).unwrap();
        assert!(open(dir.path()).root(&Digest::compute("next")).is_some());
    }

    #[test]
    fn ten_thousand_records_load_quickly() {
        let dir = tempfile::tempdir().unwrap();
        let records = open(dir.path());
        let mut parent = records.save(&root("0"), None).unwrap();
        for i in 1..10_000 {
            parent = records.save(&child(&i.to_string(), &[&parent]), Some(&i.to_string())).unwrap();
        }
        let again = crate::sys::within(std::time::Duration::from_secs(2), || open(dir.path()));
        assert_eq!(load(&again, &parent), Ok("9999".into()));
    }
}
