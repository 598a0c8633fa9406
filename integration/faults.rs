//! Kills, full disks and concurrent builds: the state directory stays sound.

mod damage;
mod disk;
mod images;
mod kill;
mod parallel;
mod signals;
mod soak;
mod streams;
mod terminal;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rbuild::digest::Digest;

use crate::support::build::Project;
use crate::support::terminal::Terminal;

/// Generous: only a hang takes so long.
const HANG: Duration = Duration::from_secs(90);
/// How long processes may take to go once rbuild is gone.
const GONE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(5);

/// Waits for something; panics with `what` when it does not come.
fn wait_for(what: &str, mut come: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !come() {
        assert!(begin.elapsed() < HANG, "{what} did not come");
        std::thread::sleep(POLL);
    }
}

/// An rbuild that runs, whose output goes to a file.
struct Running {
    child: Child,
    log: PathBuf,
    home: PathBuf,
}

impl Running {
    /// Starts a build of the project's context.
    fn start(project: &Project, args: &[&str]) -> Self {
        Self::start_in(project, &project.context(), args)
    }

    /// Starts a build of another context.
    fn start_in(project: &Project, context: &Path, args: &[&str]) -> Self {
        let mut command = project.rbuild_command(args);
        command.arg(context);
        Self::start_command(project, command)
    }

    /// Starts any command of the project's user.
    fn start_command(project: &Project, mut command: Command) -> Self {
        let log = tempfile::Builder::new().prefix("log-").tempfile_in(project.home()).unwrap().keep().unwrap().1;
        command.stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        Self { child: command.spawn().unwrap(), log, home: project.home().to_owned() }
    }

    /// Starts any command of the project's user on a terminal of its own.
    fn start_on_terminal(project: &Project, command: &Command) -> (Self, Terminal) {
        let log = tempfile::Builder::new().prefix("log-").tempfile_in(project.home()).unwrap().keep().unwrap().1;
        let (terminal, mut command) = Terminal::attach(command, File::create(&log).unwrap());
        (Self { child: command.spawn().unwrap(), log, home: project.home().to_owned() }, terminal)
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// Waits until it says `text`.
    fn until(&mut self, text: &str) {
        let begin = Instant::now();
        while !self.said().contains(text) {
            assert!(begin.elapsed() < HANG, "{text:?} did not come:\n{}", self.said());
            assert!(self.child.try_wait().unwrap().is_none(), "it ended before it said {text:?}:\n{}", self.said());
            std::thread::sleep(POLL);
        }
    }

    fn id(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: &str) {
        let kill = Command::new("kill").args(["-s", signal, &self.id().to_string()]).status();
        assert!(kill.unwrap().success());
    }

    /// Waits for its end.
    fn end(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begin.elapsed() < HANG, "it does not end:\n{}", self.said());
            std::thread::sleep(POLL);
        }
    }

    /// Waits for a good end, and returns what it said.
    fn success(mut self) -> String {
        let status = self.end();
        let said = self.said();
        assert!(status.success(), "{status}:\n{said}");
        said
    }

    /// Kills it with all it has, and checks that nothing stays.
    fn kill(mut self) {
        let family = descendants(self.id());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.nothing_is_left(&family);
    }

    /// Kills it while others of the project go on, and checks that nothing of it stays.
    fn kill_alone(mut self) {
        let family = descendants(self.id());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let begin = Instant::now();
        while processes().iter().any(|process| family.contains(process)) {
            assert!(begin.elapsed() < GONE, "something of it is left:\n{}", self.said());
            std::thread::sleep(POLL);
        }
    }

    /// Sends a signal, waits for the end, checks exit code and that nothing stays.
    fn interrupt(mut self, signal: &str, code: i32) -> String {
        let family = descendants(self.id());
        self.signal(signal);
        let status = self.end();
        assert_eq!(status.code(), Some(code), "{status}:\n{}", self.said());
        self.nothing_is_left(&family);
        self.said()
    }

    fn nothing_is_left(&self, family: &BTreeSet<Process>) {
        let marker = self.home.to_str().unwrap();
        let begin = Instant::now();
        loop {
            let left: Vec<String> = processes()
                .into_iter()
                .filter(|process| family.contains(process) || process.mentions(marker))
                .map(|process| format!("{} {}", process.id, process.command()))
                .collect();
            if left.is_empty() {
                break;
            }
            assert!(begin.elapsed() < GONE, "left: {left:#?}\n{}", self.said());
            std::thread::sleep(POLL);
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours = |line: &&str| line.contains(marker) || line.contains("userxattr");
        assert_eq!(mounts.lines().find(ours), None);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that failed must not leave its build running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process and when it began, so that numbers used again are told apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Process {
    id: u32,
    begin: u64,
}

impl Process {
    fn read(id: u32) -> Option<(Self, u32)> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        if fields[0] == "Z" {
            return None;
        }
        Some((Self { id, begin: fields[19].parse().ok()? }, fields[1].parse().ok()?))
    }

    fn part(&self, name: &str) -> String {
        let bytes = fs::read(format!("/proc/{}/{name}", self.id)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', " ")
    }

    fn command(&self) -> String {
        self.part("cmdline")
    }

    fn mentions(&self, marker: &str) -> bool {
        self.command().contains(marker) || self.part("environ").contains(marker)
    }
}

fn numbers() -> Vec<u32> {
    let names = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.parse().ok()).collect()
}

fn processes() -> Vec<Process> {
    numbers().into_iter().filter_map(|id| Some(Process::read(id)?.0)).collect()
}

/// A process and all it started that still runs.
fn descendants(root: u32) -> BTreeSet<Process> {
    let all: Vec<(Process, u32)> = numbers().into_iter().filter_map(Process::read).collect();
    let mut ids = BTreeSet::from([root]);
    loop {
        let found: Vec<u32> =
            all.iter().filter(|(p, parent)| ids.contains(parent) && !ids.contains(&p.id)).map(|(p, _)| p.id).collect();
        if found.is_empty() {
            return all.into_iter().map(|(process, _)| process).filter(|p| ids.contains(&p.id)).collect();
        }
        ids.extend(found);
    }
}

/// Files of a directory that may not be there.
fn names(path: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Checks that every blob is what its name says.
fn blobs_are_good(directory: &Path) {
    for name in names(&directory.join("blobs/sha256")) {
        let bytes = fs::read(directory.join("blobs/sha256").join(&name)).unwrap();
        assert_eq!(Digest::compute(&bytes).hex(), name, "in {}", directory.display());
    }
}

/// Checks a state directory that nobody uses.
fn state_is_good(project: &Project) {
    blobs_are_good(&project.state());
    assert_eq!(names(&project.state().join("tmp")), ["guard"]);
}

/// Bytes of unfinished work in the state directory.
fn in_progress(project: &Project) -> u64 {
    let output = Command::new("du").arg("-sk").arg(project.state().join("tmp")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split('\t').next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}
