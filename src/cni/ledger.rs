//! What plugins left elsewhere on this process's behalf, on disk, so that it is released even if this process cannot.
//!
//! Invariants: a record is complete before a plugin is called, holds what the plugins before it answered, and is there until all have
//! undone their part; the lock beside the
//! records is held by their owner and the plugins it has started, so that whoever gets it finds nobody at work any more.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::attachment::{Attachment, INTERFACE};
use super::{CniError, FOLDER, bridge, leases};
use crate::sys::dir::Dir;
use crate::sys::lock::FileLock;
use crate::sys::{fds, ns};

const GUARD: &str = "guard";
const LOCK: &str = "lock";
/// How records end; one that is not complete ends otherwise.
const ENDING: &str = ".json";
/// How long the end of a build waits for what builds before it left.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than any record.
const MAX_RECORD: u64 = 4 << 20;

/// The records of one process.
#[derive(Debug)]
pub(super) struct Ledger {
    folder: Dir,
    name: OsString,
    dir: Dir,
    alive: FileLock,
}

impl Ledger {
    /// Starts the records of this process below the state directory.
    pub(super) fn open(root: &Dir) -> io::Result<Self> {
        let folder = match root.make_dir(OsStr::new(FOLDER), 0o700) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => root.open_dir(OsStr::new(FOLDER))?,
        };
        // Without the guard, others could see the folder before it is locked, and take it for abandoned.
        let _guard = FileLock::exclusive(&folder, OsStr::new(GUARD))?;
        let name = unused(&folder)?;
        Self::lock(&folder, name)?.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn lock(folder: &Dir, name: OsString) -> io::Result<Option<Self>> {
        let dir = folder.open_dir(&name)?;
        let Some(alive) = FileLock::try_exclusive(&dir, OsStr::new(LOCK))? else { return Ok(None) };
        Ok(Some(Self { folder: folder.duplicate()?, name, dir, alive }))
    }

    /// Takes over the records of processes that are gone.
    fn abandoned(root: &Dir) -> io::Result<Vec<Self>> {
        let folder = match root.open_dir(OsStr::new(FOLDER)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            folder => folder?,
        };
        let _guard = FileLock::exclusive(&folder, OsStr::new(GUARD))?;
        let mut found = Vec::new();
        for name in folder.names()? {
            if folder.try_stat(&name)?.is_some_and(|stat| stat.is_dir()) {
                found.extend(Self::lock(&folder, name)?);
            }
        }
        Ok(found)
    }

    /// What plugins hold on to while they run.
    pub(super) fn alive(&self) -> &FileLock {
        &self.alive
    }

    /// Writes a record, over the one there is.
    pub(super) fn write(&self, attachment: &Attachment) -> io::Result<()> {
        let (new, name) = (format!("{}.new", attachment.id), format!("{}{ENDING}", attachment.id));
        self.dir.create_file(OsStr::new(&new), 0o600)?.write_all(&attachment.to_json())?;
        self.dir.rename(OsStr::new(&new), &self.dir, OsStr::new(&name))
    }

    /// Removes a record: nothing is left.
    pub(super) fn forget(&self, id: &str) -> io::Result<()> {
        self.dir.unlink(OsStr::new(&format!("{id}{ENDING}")))
    }

    fn records(&self) -> io::Result<Vec<OsString>> {
        let mut names = self.dir.names()?;
        names.retain(|name| name.to_string_lossy().ends_with(ENDING));
        Ok(names)
    }

    fn read(&self, name: &OsStr) -> Result<Attachment, String> {
        let bytes = self.dir.open_file(name).and_then(|file| fds::read_at_most(&file, MAX_RECORD));
        Attachment::from_json(&bytes.map_err(|error| error.to_string())?)
    }

    /// Has plugins undo what the records tell; returns what could not be done.
    async fn settle(&self) -> io::Result<Vec<String>> {
        let mut problems = Vec::new();
        for name in self.records()? {
            let place = format!("{FOLDER}/{}/{}", self.name.display(), name.display());
            match self.read(&name) {
                Ok(attachment) => match release(&attachment, &self.alive).await {
                    Ok(()) => self.dir.unlink(&name)?,
                    Err(error) => problems.push(format!(
                        "the network {} of a build that was killed could not be taken down, it is tried again next time unless \
                         {place} in the state directory is removed: {}",
                        attachment.network().name(),
                        crate::diag::chain(&error)
                    )),
                },
                Err(reason) => {
                    // Nobody will ever know more of it.
                    self.dir.unlink(&name)?;
                    problems.push(format!("the record {place} of a build that was killed is of no use: {reason}"));
                }
            }
        }
        Ok(problems)
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // What stays is settled by the next process, which will find the lock free.
        let _guard = FileLock::exclusive(&self.folder, OsStr::new(GUARD));
        if self.records().is_ok_and(|records| records.is_empty()) {
            drop(self.folder.remove_all(&self.name));
        }
    }
}

/// Takes a namespace off its network that is gone: plugins find another one in its place, with a device of the same name and the
/// same addresses, by which they know what to undo.
async fn release(attachment: &Attachment, alive: &FileLock) -> Result<(), CniError> {
    let mut addresses = attachment.reply.as_ref().map(|reply| reply.addresses.clone()).unwrap_or_default();
    // Every namespace has those of the loopback device.
    addresses.retain(|(address, _)| !address.is_loopback());
    if addresses.is_empty() {
        // It was killed before its plugins could tell.
        addresses = leases::addresses(&attachment.network().config, &attachment.id);
    }
    let namespace = ns::new_network_with(INTERFACE, &addresses).map_err(|source| CniError::Namespace { source })?;
    tracing::debug!(id = attachment.id, "taking down a network of a build that was killed");
    attachment.delete(&super::pool::path_of(&namespace), alive).await?;
    let Some(bridge) = &attachment.network().bridge else { return Ok(()) };
    if attachment.makes_bridge {
        let failed = |source| CniError::Record { action: "mark the bridge", source };
        bridge::mark(bridge).map_err(failed)?;
    }
    bridge::remove_unused(bridge).await
}

/// Releases what builds with this state directory left that were killed; returns what the user should know.
pub async fn recover(root: &Dir) -> Vec<String> {
    let failed = |error: io::Error| vec![format!("what a build that was killed left is not released: {error}")];
    let ledgers = match Ledger::abandoned(root) {
        Ok(ledgers) if ledgers.is_empty() => return Vec::new(),
        Ok(ledgers) => ledgers,
        Err(error) => return failed(error),
    };
    // It waits for somebody who may.
    if !ns::may_configure_network().is_ok_and(|may| may) {
        return Vec::new();
    }
    let mut problems = Vec::new();
    for ledger in ledgers {
        problems.extend(ledger.settle().await.unwrap_or_else(failed));
    }
    problems
}

/// Waits for what [`recover`] does beside a build that is over, but not for ever: what is not done is done by the next one.
pub async fn finish(mut recovery: JoinHandle<()>) {
    if tokio::time::timeout(PATIENCE, &mut recovery).await.is_err() {
        recovery.abort();
    }
}

/// Process ids are not unique across the pid namespaces that may share a root, so the name is a number that is not in use.
fn unused(folder: &Dir) -> io::Result<OsString> {
    for number in 1u64.. {
        let name = OsString::from(number.to_string());
        match folder.make_dir(&name, 0o700) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result.map(|()| name),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::cni::attachment::Network;
    use crate::cni::config::NetworkConfig;

    fn attachment(dirs: &Path) -> Attachment {
        let config = NetworkConfig::parse(br#"{"cniVersion":"1.0.0","name":"n","type":"notes"}"#).expect("valid");
        Attachment::new("i".into(), "", Arc::new(Network { config, dirs: vec![dirs.into()], bridge: None }))
    }

    fn plant(dir: &Path, script: &str) {
        crate::sys::programs::plant(&dir.join("notes"), &format!("#!/bin/sh\n{script}\n"));
    }

    /// A record whose owner is gone without a word.
    fn abandon(root: &Dir, attachment: &Attachment) {
        let ledger = Ledger::open(root).expect("open");
        ledger.write(attachment).expect("write");
        let dir = ledger.dir.duplicate().expect("duplicate");
        drop(ledger);
        let_go(&dir);
    }

    /// Waits until nobody holds the lock: a program that another test has just started has a copy of it until it is executed.
    fn let_go(dir: &Dir) {
        let lock = dir.open_file(OsStr::new(LOCK)).expect("open");
        lock.lock().expect("lock");
        lock.unlock().expect("unlock");
    }

    fn left(root: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(root.join(FOLDER))
            .expect("read")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_the_dead_left_is_released_and_what_the_living_have_is_not() {
        let temp = tempfile::tempdir().expect("temp dir");
        let root = Dir::open(temp.path()).expect("open");
        assert_eq!(recover(&root).await, Vec::<String>::new());
        plant(temp.path(), "echo $CNI_COMMAND $CNI_CONTAINERID >> ${0%/*}/calls");
        let living = Ledger::open(&root).expect("open");
        living.write(&attachment(temp.path())).expect("write");
        abandon(&root, &attachment(temp.path()));
        assert_eq!(left(temp.path()), ["1", "2", GUARD]);
        assert_eq!(recover(&root).await, Vec::<String>::new());
        assert_eq!(std::fs::read_to_string(temp.path().join("calls")).expect("read"), "DEL i\n");
        assert_eq!(left(temp.path()), ["1", GUARD]);
        living.forget("i").expect("forget");
        drop(living);
        assert_eq!(left(temp.path()), [GUARD]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_cannot_be_released_is_told_and_kept_and_what_cannot_be_read_is_told_once() {
        let temp = tempfile::tempdir().expect("temp dir");
        let root = Dir::open(temp.path()).expect("open");
        abandon(&root, &attachment(temp.path()));
        let problems = recover(&root).await;
        assert!(
            problems[0].contains("network/1/i.json") && problems[0].contains("\"notes\" is not in"),
            "{problems:?}"
        );
        let_go(&Dir::open(&temp.path().join("network/1")).expect("open"));
        plant(temp.path(), "true");
        std::fs::write(temp.path().join("network/1/torn.json"), "{").expect("write");
        std::fs::write(temp.path().join("network/1/i.new"), "{").expect("write");
        let problems = recover(&root).await;
        assert!(problems.len() == 1 && problems[0].contains("network/1/torn.json"), "{problems:?}");
        assert_eq!(left(temp.path()), [GUARD]);
    }
}
