//! Emulators of the machine, made known to the kernel for our own user namespace alone.
//!
//! Since Linux 6.7 a user namespace may have a `binfmt_misc` of its own. In: architectures, and where programs are. Out: a
//! detached mount: as long as it is open, the kernel starts programs of these architectures in this namespace through QEMU,
//! which it holds open itself (flag F), so that containers need not have it. Nothing is changed for anybody else.
//!
//! What the namespaces above have registered is no longer seen once this is there, and that cannot be undone: whoever
//! registers one has to register all that are needed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::elf::{self, Architecture};
use crate::sys::dir::{Dir, OFlags};
use crate::sys::mount::{self, MountAttrFlags};
use crate::sys::programs;

/// Program and section headers of emulators lie at their start.
const HEAD: u64 = 4096;
/// The file is held open, argument 0 stays, and set-id programs keep their meaning.
const FLAGS: &str = "POCF";

/// Looks for an emulator of an architecture that a container can use: one without libraries.
pub(super) fn emulator(of: &Architecture, directories: &[PathBuf], workspaces: &[PathBuf]) -> Option<PathBuf> {
    let names = [format!("qemu-{}-static", of.qemu), format!("qemu-{}", of.qemu), format!("buildkit-qemu-{}", of.qemu)];
    names.iter().find_map(|name| programs::find(name, directories, workspaces, is_usable))
}

fn is_usable(path: &Path) -> bool {
    let head = || -> io::Result<Vec<u8>> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut head = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, HEAD), &mut head)?;
        Ok(head)
    };
    head().is_ok_and(|head| elf::is_static(&head))
}

/// Registers emulators for this user namespace, which must be our own.
pub(super) fn register(emulators: &[(&Architecture, PathBuf)]) -> io::Result<OwnedFd> {
    let handlers = Dir::from(mount::new_filesystem("binfmt_misc", &[], MountAttrFlags::empty())?);
    for (architecture, emulator) in emulators {
        let register = handlers.resolve(OsStr::new("register"), OFlags::WRONLY | OFlags::CLOEXEC)?;
        File::from(register).write_all(&line(architecture, emulator))?;
    }
    Ok(OwnedFd::from(handlers))
}

/// Writes what the kernel reads: `:name:M:offset:magic:mask:interpreter:flags`.
fn line(architecture: &Architecture, emulator: &Path) -> Vec<u8> {
    let (magic, mask) = architecture.magic();
    let escaped = |bytes: [u8; elf::MAGIC]| bytes.map(|byte| format!("\\x{byte:02x}")).concat();
    let mut line = format!(":qemu-{}:M::{}:{}:", architecture.qemu, escaped(magic), escaped(mask)).into_bytes();
    line.extend_from_slice(emulator.as_os_str().as_bytes());
    line.extend_from_slice(format!(":{FLAGS}").as_bytes());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_what_the_kernel_reads() {
        let arm64 = elf::architecture("arm64").expect("known");
        let text = String::from_utf8(line(arm64, Path::new("/usr/bin/qemu-aarch64-static"))).expect("utf-8");
        let magic = r"\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
        let mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";
        assert_eq!(text, format!(":qemu-aarch64:M::{magic}:{mask}:/usr/bin/qemu-aarch64-static:POCF"));
    }

    #[test]
    fn only_static_programs_outside_the_workspaces_are_emulators() {
        let temp = tempfile::tempdir().expect("temp dir");
        let arm64 = elf::architecture("arm64").expect("known");
        let find = |workspaces: &[PathBuf]| emulator(arm64, &[temp.path().to_owned()], workspaces);
        let place = |name: &str, from: &str| std::fs::copy(from, temp.path().join(name)).expect(from);
        assert_eq!(find(&[]), None);
        place("qemu-aarch64", "/bin/sh");
        assert_eq!(find(&[]), None);
        place("qemu-aarch64-static", "/bin/busybox");
        assert_eq!(find(&[]), Some(temp.path().join("qemu-aarch64-static")));
        assert_eq!(find(&[temp.path().to_owned()]), None);
    }
}
