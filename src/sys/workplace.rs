//! A thread with a working directory of its own, for kernel calls that take short relative paths as text.
//!
//! In: a directory, then closures. Out: what the closures return. Invariant: the directory is that thread's alone
//! (`unshare(CLONE_FS)`), so the rest of the process never sees it change.

use std::io;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel, sync_channel};

use nix::sched::CloneFlags;

use super::dir::Dir;

type Job = Box<dyn FnOnce() + Send>;

/// The thread, which ends when this is dropped.
#[derive(Debug)]
pub struct Workplace {
    jobs: Mutex<Sender<Job>>,
}

impl Workplace {
    /// Starts a thread whose working directory is `dir`.
    pub fn start(name: &str, dir: Dir) -> io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let (ready, started) = sync_channel(1);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let entered = enter(&dir);
            let failed = entered.is_err();
            if ready.send(entered).is_err() || failed {
                return;
            }
            for job in queue {
                job();
            }
        })?;
        started.recv().map_err(io::Error::other)??;
        Ok(Self { jobs: Mutex::new(jobs) })
    }

    /// Runs `job` on the thread and returns its result.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
        let (answer, result) = sync_channel(1);
        let job: Job = Box::new(move || drop(answer.send(job())));
        let sent = self.jobs.lock().map_err(|_| io::Error::other("poisoned lock"))?.send(job);
        sent.map_err(|_| io::Error::other("the thread ended"))?;
        result.recv().map_err(|_| io::Error::other("the thread ended"))?
    }
}

fn enter(dir: &Dir) -> io::Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_FS)?;
    Ok(rustix::process::fchdir(dir)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_its_own_directory() {
        let temp = tempfile::tempdir().expect("temp dir");
        let before = std::env::current_dir().expect("cwd");
        let place = Workplace::start("test", Dir::open(temp.path()).expect("open")).expect("start");
        let there = place.run(std::env::current_dir).expect("run");
        assert_eq!(there, temp.path().canonicalize().expect("canonical"));
        assert_eq!(std::env::current_dir().expect("cwd"), before);
    }
}
