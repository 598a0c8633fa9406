//! Programs of two processors, and emulators that are registered while a test runs.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rbuild::sys::dir::{Dir, OFlags};
use rbuild::sys::mount::{self, MountAttrFlags};

use super::build::{Output, Project, User, binary, run};

/// What the kernel tells programs for arm64 by.
const ARM64: &str = "\\x7fELF\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00:\
                     \\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff";
/// Of Debian's package qemu-user-static.
const QEMU: &str = "/usr/bin/qemu-aarch64-static";
const PREFIX: &str = "rbuild-test-";

/// QEMU for arm64, known to the whole machine until it is dropped.
#[derive(Debug)]
pub(crate) struct Emulator {
    handlers: Dir,
    name: String,
}

impl Emulator {
    /// Registers it, under a name of its own.
    pub(crate) fn arm64() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(Path::new(QEMU).exists(), "qemu-user-static is installed");
        let handlers = mount::new_filesystem("binfmt_misc", &[], MountAttrFlags::empty()).expect("binfmt_misc");
        let handlers = Dir::from(handlers);
        remove_those_of_the_dead(&handlers);
        let name = format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let line = format!(":{name}:M::{ARM64}:{QEMU}:F");
        write(&handlers, "register", line.as_bytes());
        Self { handlers, name }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        write(&self.handlers, &self.name, b"-1");
    }
}

fn write(handlers: &Dir, name: &str, bytes: &[u8]) {
    let file = handlers.resolve(OsStr::new(name), OFlags::WRONLY | OFlags::CLOEXEC).expect(name);
    File::from(file).write_all(bytes).expect(name);
}

fn remove_those_of_the_dead(handlers: &Dir) {
    for name in handlers.reopen().expect("open").names().expect("names") {
        let name = name.to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
            && let Ok(file) = handlers.resolve(OsStr::new(&name), OFlags::WRONLY | OFlags::CLOEXEC)
        {
            // Another test may be at it too.
            let _ = File::from(file).write_all(b"-1");
        }
    }
}

/// What is registered where a build runs, whatever the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Registered {
    /// Nothing.
    Nothing,
    /// QEMU for arm64, without the flag that lets containers reach it.
    OutOfReach,
}

/// Whether a build is one of root, or makes a user namespace of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    /// Root of a namespace that others may be in.
    Root,
    /// Not allowed to mount.
    Unprivileged,
}

/// Builds a project of root in a user namespace whose `binfmt_misc` holds only what is said.
pub(crate) fn build_where(project: &Project, registered: Registered, who: As, path: &str, args: &[&str]) -> Output {
    let handlers = project.home().join("handlers");
    fs::create_dir_all(&handlers).unwrap();
    let line = format!(":arm64:M::{ARM64}:{QEMU}:");
    let script = "mount -t binfmt_misc none \"$0\" && { [ -z \"$1\" ] || printf '%s' \"$1\" > \"$0/register\"; } && shift && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "--", "sh", "-c", script]).arg(&handlers);
    command.arg(if registered == Registered::OutOfReach { line.as_str() } else { "" });
    if who == As::Unprivileged {
        command.args(["setpriv", "--inh-caps=-sys_admin", "--bounding-set=-sys_admin", "--"]);
    }
    command.args(["env", "-i"]).arg(format!("PATH={path}")).arg(format!("HOME={}", project.home().display()));
    command.arg(binary()).arg("--root").arg(project.home().join("nested-state")).args(["--progress", "plain"]);
    command.args(args).arg(project.context()).current_dir(project.home());
    run(command)
}

/// A project whose stages start from nothing but a program, `/writer FILE`, which makes a file that says what it was made on. It
/// is there for amd64 and arm64.
pub(crate) fn writers(user: User, dockerfile: &str) -> Project {
    let project = Project::with(user, dockerfile);
    for (arch, program) in [("amd64", amd64()), ("arm64", arm64())] {
        project.file(&format!("writer-{arch}"), program);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(project.context().join(format!("writer-{arch}")), mode).unwrap();
    }
    project
}

/// openat(AT_FDCWD, argv[1], O_CREAT | O_WRONLY, 0644), write, exit(0).
fn amd64() -> Vec<u8> {
    let text = b"made on amd64\n";
    let open = b"\x48\x8b\x74\x24\x10\xbf\x9c\xff\xff\xff\xba\x41\x00\x00\x00\x41\xba\xa4\x01\x00\x00\xb8\x01\x01\x00\x00\x0f\x05\x89\xc7";
    let mut write = vec![0xba];
    write.extend((text.len() as u32).to_le_bytes());
    write.extend(b"\xb8\x01\x00\x00\x00\x0f\x05\x31\xff\xb8\x3c\x00\x00\x00\x0f\x05");
    // lea rsi, [rip + what is left of the code]
    let mut code = [&open[..], b"\x48\x8d\x35", &(write.len() as u32).to_le_bytes(), &write].concat();
    code.extend(text);
    program(62, &code)
}

/// The same.
fn arm64() -> Vec<u8> {
    let text = b"made on arm64\n";
    let open = [0xf940_0be1, 0x1280_0c60, 0x5280_0822, 0x5280_3483, 0xd280_0708, 0xd400_0001];
    let length = 0xd280_0002 | (text.len() as u32) << 5;
    let write = [length, 0xd280_0808, 0xd400_0001, 0xd280_0000, 0xd280_0ba8, 0xd400_0001];
    // adr x1, what comes after the code
    let distance = 4 + 4 * write.len() as u32;
    let adr = 0x1000_0001 | (distance & 3) << 29 | (distance >> 2) << 5;
    let words = open.iter().chain([&adr]).chain(&write);
    let mut code: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
    code.extend(text);
    program(183, &code)
}

/// A static program of 64 bits that is all code.
fn program(machine: u16, code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 120;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0".to_vec();
    file.extend(machine.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    for number in [BASE + HEADERS, 64, 0] {
        file.extend(number.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    for number in [64u16, 56, 1, 0, 0, 0] {
        file.extend(number.to_le_bytes());
    }
    // Load, read and execute.
    file.extend([1u32, 5].into_iter().flat_map(u32::to_le_bytes));
    let size = HEADERS + code.len() as u64;
    for number in [0, BASE, BASE, size, size, 0x1_0000] {
        file.extend(number.to_le_bytes());
    }
    file.extend(code);
    file
}
