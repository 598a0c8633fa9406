//! Cache mounts: directories that outlive the build, one an id.
//!
//! In: an id and how it is shared. Out: a directory to mount, kept by a lock as long as the step runs.
//!
//! ```text
//! ROOT/caches/HEX/N/lock     shared, or exclusive for `locked` and `private` users
//! ROOT/caches/HEX/N/id       the id, for who lists them
//! ROOT/caches/HEX/N/fs/      the directory; N counts the private copies, 0 is the one that is shared
//! ```
//!
//! HEX is a hash, so that no id is ever a path. Locks die with their process. Whoever holds the lock alone may take `fs/` away.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::error::OpsError;
use crate::diag::{Diagnose, Kind};
use crate::digest::Digest;
use crate::llb::{CacheOpt, Sharing};
use crate::store::{LockedFolder, Scratch, Store, StoreError};
use crate::sys::dir::{self, Dir};
use crate::sys::lock::FileLock;

/// Time between two attempts to get a cache another step has locked.
const RETRY: Duration = Duration::from_millis(20);
/// Private copies of one cache; more steps at once than this wait.
const COPIES: u32 = 256;
/// Where they are.
const CACHES: &str = "caches";
/// The file that says what id a directory is of, and how much of it is read.
const ID: (&str, u64) = ("id", 4096);

/// A cache directory could not be had.
#[derive(Debug, thiserror::Error)]
#[error("failed to open the cache {id:?}")]
pub(super) struct CacheMountError {
    id: String,
    #[source]
    source: io::Error,
}

impl Diagnose for CacheMountError {
    fn kind(&self) -> Kind {
        Kind::Machine
    }
}

/// The cache directories of a state directory.
#[derive(Debug)]
pub struct CacheMounts {
    dir: Dir,
    scratch: Arc<Scratch>,
    used: Mutex<BTreeSet<String>>,
}

/// A cache directory in use.
#[derive(Debug)]
pub(super) struct CacheUse {
    id: String,
    dir: Dir,
    scratch: Arc<Scratch>,
    _lock: FileLock,
}

impl CacheMounts {
    /// Opens the place where they are kept.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn open(store: &Store) -> Result<Self, StoreError> {
        Ok(Self { dir: store.folder(CACHES)?, scratch: Arc::clone(store.scratch()), used: Mutex::default() })
    }

    /// Returns the caches there are, those with content.
    pub fn stored(&self) -> io::Result<Vec<LockedFolder>> {
        let mut folders = Vec::new();
        for name in self.dir.names()? {
            let parent = self.dir.open_dir(&name)?;
            for copy in parent.names()? {
                let text = name_of(&name.to_string_lossy(), &copy.to_string_lossy());
                if let Some(mut folder) = LockedFolder::new(parent.open_dir(&copy)?, text, "fs")? {
                    folder.description = id_of(folder.dir()).map(|id| format!("cached mount {id}")).unwrap_or_default();
                    folders.push(folder);
                }
            }
        }
        Ok(folders)
    }

    /// Returns the names of the caches that were used through this, as [`CacheMounts::stored`] names them.
    pub fn used(&self) -> Vec<String> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Takes the caches of one step into use, and returns them in the order asked for; waits where their sharing says so,
    /// until `cancel` fires. The text beside each tells caches of one id apart that start from different content.
    ///
    /// All steps take caches in the same order, so that none waits for one that waits for it; a cache that is named twice is
    /// taken once, as the strictest of its mounts wants it.
    pub(super) async fn acquire(
        &self,
        wanted: &[(CacheOpt, String)],
        cancel: &CancellationToken,
    ) -> Result<Result<Vec<Arc<CacheUse>>, CacheMountError>, OpsError> {
        let names: Vec<Digest> =
            wanted.iter().map(|(c, origin)| Digest::compute(format!("{}\0{origin}", c.id))).collect();
        let mut strictest: BTreeMap<&Digest, &CacheOpt> = BTreeMap::new();
        for (name, (cache, _)) in names.iter().zip(wanted) {
            let known = strictest.entry(name).or_insert(cache);
            if known.sharing == Sharing::Shared {
                *known = cache;
            }
        }
        let mut held = BTreeMap::new();
        for (name, cache) in strictest {
            match self.wait_for(name.hex(), cache, cancel).await? {
                Ok(cache) => held.insert(name, Arc::new(cache)),
                Err(error) => return Ok(Err(error)),
            };
        }
        Ok(Ok(names.iter().filter_map(|name| held.get(name).cloned()).collect()))
    }

    async fn wait_for(
        &self,
        hash: &str,
        cache: &CacheOpt,
        cancel: &CancellationToken,
    ) -> Result<Result<CacheUse, CacheMountError>, OpsError> {
        loop {
            match self.try_acquire(hash, cache) {
                Ok(Some(held)) => return Ok(Ok(held)),
                Ok(None) => {}
                Err(source) => return Ok(Err(CacheMountError { id: cache.id.clone(), source })),
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = cancel.cancelled() => return Err(OpsError::Canceled),
            }
        }
    }

    fn try_acquire(&self, hash: &str, cache: &CacheOpt) -> io::Result<Option<CacheUse>> {
        let parent = ensure(&self.dir, OsStr::new(hash))?;
        let copies = if cache.sharing == Sharing::Private { COPIES } else { 1 };
        for copy in 0..copies {
            let dir = ensure(&parent, &OsString::from(copy.to_string()))?;
            let name = OsStr::new("lock");
            let lock = match cache.sharing {
                Sharing::Shared => FileLock::try_shared(&dir, name)?,
                Sharing::Private | Sharing::Locked => FileLock::try_exclusive(&dir, name)?,
            };
            if let Some(lock) = lock {
                let scratch = Arc::clone(&self.scratch);
                let used = name_of(hash, &copy.to_string());
                self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(used);
                return Ok(Some(CacheUse { id: cache.id.clone(), dir, scratch, _lock: lock }));
            }
        }
        Ok(None)
    }
}

/// Short enough for a table, and long enough to be no other's.
fn name_of(hash: &str, copy: &str) -> String {
    format!("{}-{copy}", hash.get(..24).unwrap_or(hash))
}

fn id_of(dir: &Dir) -> Option<String> {
    let mut text = String::new();
    dir.open_file(OsStr::new(ID.0)).ok()?.take(ID.1).read_to_string(&mut text).ok()?;
    Some(text)
}

fn ensure(parent: &Dir, name: &OsStr) -> io::Result<Dir> {
    match parent.make_dir(name, 0o700) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => parent.open_dir(name),
    }
}

impl CacheUse {
    /// Returns the directory; a new one is first filled by `fill`, and appears only when that is done.
    pub(super) fn open<E: From<CacheMountError>>(
        &self,
        fill: impl FnOnce(&Dir) -> Result<(), E>,
    ) -> Result<OwnedFd, E> {
        let name = OsStr::new("fs");
        let failed = |source| CacheMountError { id: self.id.clone(), source };
        if self.dir.try_stat(name).map_err(failed)?.is_none() {
            let (unfinished, fresh) = self.scratch.make_dir().map_err(failed)?;
            dir::chmod_of(&fresh, 0o755).map_err(failed)?;
            fill(&fresh)?;
            self.note_id().map_err(failed)?;
            self.publish(&unfinished, name).map_err(failed)?;
        }
        self.dir.open_dir(name).map(OwnedFd::from).map_err(|source| failed(source).into())
    }

    fn note_id(&self) -> io::Result<()> {
        match self.dir.create_file(OsStr::new(ID.0), 0o600) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            file => file?.write_all(self.id.as_bytes()),
        }
    }

    /// Of two steps that fill one cache at once, the second one's content goes.
    fn publish(&self, unfinished: &OsStr, name: &OsStr) -> io::Result<()> {
        match self.scratch.dir().rename_new(unfinished, &self.dir, name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.scratch.dir().remove_all(unfinished),
            result => result,
        }
    }
}
