//! A root file system in a temp dir: busybox, its names, and little else.

use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rbuild::sys::{fds, mount};
use tempfile::TempDir;

/// Where Debian's busybox-static is.
const BUSYBOX: &str = "/bin/busybox";

const APPLETS: [&str; 50] = [
    "sh", "ls", "cat", "echo", "true", "false", "id", "env", "grep", "mount", "umount", "stat", "find", "touch", "rm",
    "mkdir", "ln", "sleep", "setsid", "kill", "hostname", "head", "yes", "dd", "tr", "wc", "mknod", "chown", "chmod",
    "ulimit", "pwd", "printf", "test", "ps", "readlink", "seq", "mv", "cp", "sed", "sort", "cut", "od", "unshare",
    "chroot", "ip", "nc", "date", "rmdir", "awk", "timeout",
];

/// A tree with `/bin`, `/etc/passwd`, `/etc/group`, `/tmp`, `/root`.
#[derive(Debug)]
pub(crate) struct Rootfs {
    temp: TempDir,
}

impl Rootfs {
    /// Makes one.
    pub(crate) fn new() -> Self {
        let temp = tempfile::tempdir().expect("temp dir");
        std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let rootfs = Self { temp };
        for directory in ["bin", "etc", "tmp", "root"] {
            std::fs::create_dir(rootfs.path(directory)).expect("mkdir");
        }
        std::fs::copy(BUSYBOX, rootfs.path("bin/busybox")).expect("busybox-static is installed");
        for applet in APPLETS {
            symlink("busybox", rootfs.path("bin").join(applet)).expect("symlink");
        }
        rootfs.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n");
        rootfs.write("etc/group", "root:x:0:\nextra:x:50:u\nu:x:1000:\n");
        rootfs
    }

    /// A path in the tree as the host sees it.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.temp.path().join(inside.trim_start_matches('/'))
    }

    /// Writes a file.
    pub(crate) fn write(&self, inside: &str, text: &str) {
        std::fs::write(self.path(inside), text).expect("write");
    }

    /// Replaces what is there by a link.
    pub(crate) fn link(&self, inside: &str, to: &str) {
        let path = self.path(inside);
        if path.is_dir() {
            std::fs::remove_dir_all(&path).expect("remove");
        }
        symlink(to, path).expect("symlink");
    }

    /// A detached mount of the tree.
    pub(crate) fn tree(&self) -> OwnedFd {
        detached(self.temp.path())
    }
}

/// A detached mount of a directory.
pub(crate) fn detached(path: &Path) -> OwnedFd {
    mount::clone_tree(fds::open_path(path).expect("open"), mount::Recursive::No).expect("open_tree")
}
