//! A terminal of a test's own: a program runs as the leader of a session on it, and what it shows goes to a file.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Milliseconds after which the reader looks whether it is to stop.
const LOOK: u16 = 20;

/// The side of a terminal that a person sits at.
#[derive(Debug)]
pub(crate) struct Terminal {
    master: Arc<File>,
    stop: Arc<AtomicBool>,
    reader: JoinHandle<()>,
}

impl Terminal {
    /// Makes a terminal that shows into `log`, and the command that runs `command` on it.
    ///
    /// The command holds the other side of the terminal: it must be dropped once it was started.
    pub(crate) fn attach(command: &Command, log: File) -> (Self, Command) {
        // Other tests start programs meanwhile, which must not get any of this.
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let place = ptsname_r(&master).unwrap();
        let slave = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(place).unwrap();
        tcsetwinsize(&slave, Winsize { ws_row: 40, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let mut wrapped = Command::new("setsid");
        wrapped.arg("--ctty").arg(command.get_program()).args(command.get_args()).env_clear();
        wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(dir) = command.get_current_dir() {
            wrapped.current_dir(dir);
        }
        wrapped.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
        let (master, stop) =
            (Arc::new(File::from(std::os::fd::OwnedFd::from(master))), Arc::new(AtomicBool::new(false)));
        let (screen, stopped) = (Arc::clone(&master), Arc::clone(&stop));
        let reader = std::thread::spawn(move || copy(&screen, log, &stopped));
        (Self { master, stop, reader }, wrapped)
    }

    /// Types something.
    pub(crate) fn press(&self, keys: &[u8]) {
        (&*self.master).write_all(keys).unwrap();
    }

    /// Waits until all is shown; what ran on it must have ended.
    pub(crate) fn finish(self) {
        self.reader.join().unwrap();
    }

    /// Goes away, as when a connection is lost.
    pub(crate) fn hang_up(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.reader.join().unwrap();
        assert_eq!(Arc::strong_count(&self.master), 1, "this is all that holds it");
    }
}

/// Copies what is shown until nobody has the other side any more, or until it is told to stop.
fn copy(mut master: &File, mut log: File, stop: &AtomicBool) {
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::SeqCst) {
        let mut ready = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::from(LOOK)).unwrap() == 0 {
            continue;
        }
        // Linux says EIO when the last of the other side is gone.
        match master.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => log.write_all(&buffer[..count]).unwrap(),
        }
    }
}
