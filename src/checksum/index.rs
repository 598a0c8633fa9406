//! What is known of a tree: an arena of nodes, filled directory by directory, digests added as they are asked for.
//!
//! In: listings and file digests, made in parallel. Out: lookups and directory digests. Invariants: a node's parent has a
//! lower number than the node; children are sorted by name; nothing here recurses, so a tree may be of any depth.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::error::{ChecksumError, display, read_error};
use super::header::{Header, hash_file};
use super::parallel::spread;
use super::scan::{Found, Listing, Request, Scanner, join};
use super::tree::{Entry, Ids};
use crate::digest::{Digest, Hasher};
use crate::pattern::MatchInfo;
use crate::sys::dir::{Dir, Kind, Stat, stat_of};
use crate::sys::file::xattrs_of;

/// The root of every tree.
pub(super) const ROOT: u32 = 0;

/// Links followed before giving up, BuildKit's number.
const MAX_LINKS: u32 = 255;

/// One thing in the tree.
pub(super) struct Node {
    pub(super) name: OsString,
    pub(super) parent: u32,
    pub(super) stat: Stat,
    pub(super) link: Option<OsString>,
    matched: MatchInfo,
    children: Option<Vec<u32>>,
    /// Digest of a file, or of a directory's header.
    own: Option<Digest>,
    /// Digest of a directory with all that is in it.
    whole: Option<Digest>,
}

/// All that is known of a tree.
pub(super) struct Index {
    nodes: Vec<Node>,
}

impl Index {
    pub(super) fn new(root: Stat) -> Self {
        let found =
            Found { name: OsString::new(), stat: root, link: None, matched: MatchInfo::default(), excluded: false };
        Self { nodes: vec![Node::new(ROOT, found)] }
    }

    pub(super) fn node(&self, node: u32) -> &Node {
        &self.nodes[node as usize]
    }

    /// Returns the path of a node below the root.
    pub(super) fn path(&self, node: u32) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = node;
        while at != ROOT {
            names.push(self.node(at).name.as_bytes());
            at = self.node(at).parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// Returns `start` and all known below it, directories before what they hold, in the order of names.
    pub(super) fn below(&self, start: u32) -> Vec<u32> {
        let mut found = Vec::new();
        let mut waiting = vec![start];
        while let Some(node) = waiting.pop() {
            found.push(node);
            waiting.extend(self.node(node).children.iter().flatten().rev());
        }
        found
    }

    /// Adds what a directory holds; returns the directories among it, and which of them may turn out to count for nothing.
    fn insert(&mut self, request: &Request, listing: Listing) -> Vec<(u32, bool)> {
        let mut directories = Vec::new();
        let mut children = Vec::with_capacity(listing.found.len());
        for found in listing.found {
            let node = self.nodes.len() as u32;
            if found.stat.is_dir() {
                directories.push((node, found.excluded));
            }
            self.nodes.push(Node::new(request.node, found));
            children.push(node);
        }
        let node = &mut self.nodes[request.node as usize];
        (node.children, node.own) = (Some(children), Some(listing.header));
        directories
    }

    fn drop_if_empty(&mut self, node: u32) {
        if self.node(node).children.as_ref().is_some_and(Vec::is_empty) {
            let parent = self.node(node).parent as usize;
            if let Some(children) = &mut self.nodes[parent].children {
                children.retain(|child| *child != node);
            }
        }
    }
}

impl Node {
    fn new(parent: u32, found: Found) -> Self {
        let Found { name, stat, link, matched, .. } = found;
        Self { name, parent, stat, link, matched, children: None, own: None, whole: None }
    }

    /// Returns the digest of a file or of a directory's header, once it has been computed.
    pub(super) fn own(&self) -> Option<&Digest> {
        self.own.as_ref()
    }
}

/// An index with the means to learn more.
pub(super) struct Walker<'a> {
    pub(super) scanner: Scanner<'a>,
    pub(super) index: &'a mut Index,
}

/// How far directories are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    One,
    All,
}

impl Walker<'_> {
    pub(super) fn entry(&self, node: u32) -> Entry {
        self.entry_at(node, self.index.path(node))
    }

    pub(super) fn child_entry(&self, parent: &Entry, node: u32) -> Entry {
        self.entry_at(node, join(&parent.path, self.index.node(node).name.as_bytes()))
    }

    fn entry_at(&self, node: u32, path: Vec<u8>) -> Entry {
        let known = self.index.node(node);
        let mut stat = known.stat;
        if self.scanner.ids == Ids::Root {
            (stat.uid, stat.gid) = (0, 0);
        }
        let hashed = known.own.clone().filter(|_| stat.kind() == Kind::File);
        Entry { path, stat, link: known.link.clone(), hashed, node, ids: self.scanner.ids }
    }

    /// Returns what is in a directory, sorted by name; nothing for other files.
    pub(super) fn children(&mut self, node: u32) -> Result<&[u32], ChecksumError> {
        self.load(vec![node], Depth::One)?;
        Ok(self.index.node(node).children.as_deref().unwrap_or_default())
    }

    /// Reads all directories from `node` down.
    pub(super) fn load_all(&mut self, node: u32) -> Result<(), ChecksumError> {
        self.load(self.index.below(node), Depth::All)
    }

    fn load(&mut self, nodes: Vec<u32>, depth: Depth) -> Result<(), ChecksumError> {
        let mut frontier = nodes;
        let mut doubtful = Vec::new();
        let mut held = None;
        loop {
            frontier.retain(|node| self.unread(*node));
            if frontier.is_empty() {
                break;
            }
            let requests: Vec<Request> = frontier.iter().map(|node| self.request(*node)).collect();
            let listings = match &requests[..] {
                [request] => vec![self.read_held(request, &mut held)],
                requests => spread(requests, |request| self.scanner.read(request)),
            };
            frontier.clear();
            for (request, listing) in requests.iter().zip(listings) {
                for (directory, excluded) in self.index.insert(request, listing?) {
                    doubtful.extend(excluded.then_some(directory));
                    frontier.extend((excluded || depth == Depth::All).then_some(directory));
                }
            }
        }
        // What is deeper was found later, so an excluded directory is judged after those in it.
        for node in doubtful.into_iter().rev() {
            self.index.drop_if_empty(node);
        }
        Ok(())
    }

    /// In a chain of directories each is opened from the one before: from the root it would take ever longer.
    fn read_held(&self, request: &Request, held: &mut Option<(u32, Dir)>) -> Result<Listing, ChecksumError> {
        let node = self.index.node(request.node);
        let dir = match held.take() {
            Some((above, dir)) if above == node.parent && request.node != ROOT => {
                dir.open_dir(&node.name).map_err(|e| read_error(&request.path, e))?
            }
            _ => self.scanner.open(request)?,
        };
        let listing = self.scanner.list(&dir, request);
        *held = Some((request.node, dir));
        listing
    }

    fn unread(&self, node: u32) -> bool {
        let node = self.index.node(node);
        node.stat.is_dir() && node.children.is_none()
    }

    fn request(&self, node: u32) -> Request {
        Request { node, path: self.index.path(node), matched: self.index.node(node).matched.clone() }
    }

    fn child(&mut self, node: u32, name: &[u8]) -> Result<Option<u32>, ChecksumError> {
        self.children(node)?;
        let index = &*self.index;
        let children = index.node(node).children.as_deref().unwrap_or_default();
        let found = children.binary_search_by(|child| index.node(*child).name.as_bytes().cmp(name));
        Ok(found.ok().map(|at| children[at]))
    }

    fn lookup(&mut self, path: &[Vec<u8>]) -> Result<Option<u32>, ChecksumError> {
        let mut node = ROOT;
        for name in path {
            match self.child(node, name)? {
                Some(child) => node = child,
                None => return Ok(None),
            }
        }
        Ok(Some(node))
    }

    /// Resolves a path inside the tree; returns the path without links, and what is there. What does not exist is passed by
    /// its name alone, so that `missing/../file` finds `file`, as in BuildKit.
    pub(super) fn resolve(&mut self, path: &[u8], follow: bool) -> Result<(Vec<u8>, Option<u32>), ChecksumError> {
        let mut current: Vec<Vec<u8>> = Vec::new();
        let mut rest: Vec<Vec<u8>> = components(path);
        rest.reverse();
        let mut links = 0;
        while let Some(part) = rest.pop() {
            if part == b".." {
                current.pop();
                continue;
            }
            current.push(part);
            let Some(node) = self.lookup(&current)? else { continue };
            let Some(target) = &self.index.node(node).link else { continue };
            if !follow && rest.is_empty() {
                break;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(ChecksumError::TooManyLinks { path: display(path) });
            }
            let target = target.as_bytes();
            current.pop();
            if target.starts_with(b"/") {
                current.clear();
            }
            rest.extend(components(target).into_iter().rev());
        }
        let found = self.lookup(&current)?;
        Ok((current.join(&b'/'), found))
    }

    /// Returns the digest of a file, or of a directory with all that is in it.
    pub(super) fn digest(&mut self, node: u32) -> Result<Digest, ChecksumError> {
        self.load_all(node)?;
        let below = self.index.below(node);
        self.hash(&below)?;
        for node in below.into_iter().rev() {
            let known = self.index.node(node);
            if known.stat.is_dir() && known.whole.is_none() {
                let whole = self.contents(node);
                self.index.nodes[node as usize].whole = Some(whole);
            }
        }
        let known = self.index.node(node);
        Ok(known.whole.as_ref().or(known.own.as_ref()).expect("computed above").clone())
    }

    /// The digest of a directory whose children all have theirs.
    fn contents(&self, node: u32) -> Digest {
        let mut hasher = Hasher::new();
        let known = self.index.node(node);
        hasher.update(b"\0");
        hasher.update(known.own.as_ref().map_or("", Digest::as_str).as_bytes());
        let mut waiting: Vec<(Vec<u8>, u32)> = Vec::new();
        waiting.extend(known.children.iter().flatten().rev().map(|child| (Vec::new(), *child)));
        while let Some((above, node)) = waiting.pop() {
            let known = self.index.node(node);
            let key = [&above, &b"\0"[..], known.name.as_bytes()].concat();
            hasher.update(&key);
            hasher.update(known.whole.as_ref().or(known.own.as_ref()).map_or("", Digest::as_str).as_bytes());
            // BuildKit leaves a directory by skipping to its first name that starts with 0xff, so such names are hashed again.
            let again = known.children.iter().flatten().rev();
            let again = again.take_while(|child| self.index.node(**child).name.as_bytes().first() == Some(&0xff));
            waiting.extend(again.map(|child| (key.clone(), *child)));
        }
        hasher.finish()
    }

    /// Computes the digests of all files among `nodes` that have none yet.
    pub(super) fn hash(&mut self, nodes: &[u32]) -> Result<(), ChecksumError> {
        let batches = self.batches(nodes);
        let results = spread(&batches, |batch| self.hash_batch(batch));
        for (batch, result) in batches.iter().zip(results) {
            for (node, (digest, stat)) in batch.nodes.iter().zip(result?) {
                let known = &mut self.index.nodes[*node as usize];
                (known.own, known.stat) = (Some(digest), stat);
            }
        }
        Ok(())
    }

    /// Files of one directory go together, as many as are worth a thread's turn.
    fn batches(&self, nodes: &[u32]) -> Vec<Batch> {
        const FILES: usize = 64;
        const BYTES: u64 = 8 << 20;
        let mut batches: Vec<Batch> = Vec::new();
        let wanted = |node: &&u32| !self.index.node(**node).stat.is_dir() && self.index.node(**node).own.is_none();
        let mut nodes: Vec<u32> = nodes.iter().filter(wanted).copied().collect();
        nodes.sort_unstable();
        for node in nodes {
            let Node { parent, stat, .. } = self.index.node(node);
            let fits = |batch: &&mut Batch| batch.parent == *parent && batch.nodes.len() < FILES && batch.bytes < BYTES;
            if let Some(batch) = batches.last_mut().filter(fits) {
                batch.nodes.push(node);
                batch.bytes += stat.size;
            } else {
                batches.push(Batch { parent: *parent, nodes: vec![node], bytes: stat.size });
            }
        }
        batches
    }

    fn hash_batch(&self, batch: &Batch) -> Result<Vec<(Digest, Stat)>, ChecksumError> {
        let path = self.index.path(batch.parent);
        let dir = self.scanner.root.open_below(OsStr::from_bytes(&path)).map_err(|e| read_error(&path, e))?;
        let longest = batch.nodes.iter().map(|node| self.index.node(*node).stat.size).max().unwrap_or(0);
        let mut buffer = vec![0u8; (longest + 1).clamp(4096, 256 * 1024) as usize];
        batch.nodes.iter().map(|node| self.hash_node(&dir, &path, *node, &mut buffer)).collect()
    }

    fn hash_node(&self, dir: &Dir, path: &[u8], node: u32, buffer: &mut [u8]) -> Result<(Digest, Stat), ChecksumError> {
        let node = self.index.node(node);
        let failed = |e| read_error(&join(path, node.name.as_bytes()), e);
        if node.stat.kind() != Kind::File {
            let xattrs = dir.xattrs(&node.name).map_err(failed)?;
            let header =
                Header { stat: &node.stat, link: node.link.as_deref(), xattrs: &xattrs, ids: self.scanner.ids };
            return Ok((header.start().finish(), node.stat));
        }
        let file = dir.open_file(&node.name).map_err(failed)?;
        let stat = stat_of(&file).map_err(failed)?;
        let changed = || ChecksumError::Changed { path: display(&join(path, node.name.as_bytes())) };
        if stat.kind() != Kind::File {
            return Err(changed());
        }
        let xattrs = xattrs_of(&file).map_err(failed)?;
        let header = Header { stat: &stat, link: None, xattrs: &xattrs, ids: self.scanner.ids };
        let digest = hash_file(&file, &header, buffer).map_err(failed)?;
        Ok((digest.ok_or_else(changed)?, stat))
    }
}

/// Files of one directory.
struct Batch {
    parent: u32,
    nodes: Vec<u32>,
    bytes: u64,
}

/// Splits a path into its components, without empty ones and `.`.
pub(super) fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|b| *b == b'/').filter(|c| !c.is_empty() && *c != b".").map(<[u8]>::to_vec).collect()
}
