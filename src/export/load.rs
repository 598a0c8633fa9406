//! Hands an image to a container engine of this machine: `docker load`, else `podman load`.
//!
//! In: the directories in which programs are looked for, and the image. Out: the archive on the program's standard input.
//! Nothing is left on disk. The image chooses neither the program nor its arguments. When the build is stopped the program is
//! ended, whatever it waits for.

use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::archive::{self, Archive};
use super::stop::Stop;
use super::{Blobs, ExportError};
use crate::sys::child::{self, ChildLimits, Group};
use crate::sys::idmap::{self, Extent};
use crate::sys::programs;

/// The programs, in the order in which they are looked for.
const PROGRAMS: &[&str] = &["docker", "podman"];
/// How much of what the program says is kept.
const OUTPUT_LIMIT: u64 = 64 << 10;
/// How often it is looked whether the build was stopped.
const LOOK: Duration = Duration::from_millis(20);
/// How long a program that was asked to end may take.
const GRACE: Duration = Duration::from_secs(1);

/// A program that takes images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loader {
    /// Its name, `docker` or `podman`.
    pub name: &'static str,
    /// Where it is.
    pub path: PathBuf,
    /// What it gets to know besides the environment.
    variables: Vec<(&'static str, String)>,
}

impl Loader {
    /// Looks for a program in `directories`, in order, but not below `workspaces`.
    pub fn find(directories: &[PathBuf], workspaces: &[PathBuf]) -> Result<Self, ExportError> {
        let find = |name: &&'static str| {
            let path = programs::find(name, directories, workspaces, is_program)?;
            Some(Self { name: *name, path, variables: Vec::new() })
        };
        PROGRAMS.iter().find_map(find).ok_or(ExportError::NoLoader)
    }

    /// Says that this process is root of a user namespace that was made for it alone. Podman would take itself for the machine's
    /// root there, and write to the machine's store; so it is told what `podman unshare` tells it. Docker asks its daemon.
    #[must_use]
    pub fn in_own_namespace(self) -> Self {
        let outside = |map: io::Result<Vec<Extent>>| {
            let root = map.ok()?.into_iter().find(|extent| extent.inside == 0)?;
            Some(root.outside.to_string())
        };
        let ids = [
            ("_CONTAINERS_ROOTLESS_UID", outside(idmap::users())),
            ("_CONTAINERS_ROOTLESS_GID", outside(idmap::groups())),
        ];
        let ids = ids.into_iter().filter_map(|(name, id)| Some((name, id?)));
        let variables = std::iter::once(("_CONTAINERS_USERNS_CONFIGURED", "done".to_owned())).chain(ids).collect();
        Self { variables, ..self }
    }

    /// Streams the archive into the program and waits for it; returns what it said.
    pub fn load(&self, archive: &Archive<'_>, blobs: &dyn Blobs, stop: &Stop) -> Result<String, ExportError> {
        let mut command = Command::new(&self.path);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.arg("load").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // This thread waits for it, so that it ends with this program; an interrupt of the terminal comes from here alone.
        child::confine(&mut command, ChildLimits::default());
        let child = command.spawn().map_err(|source| ExportError::Loader { program: self.name.into(), source })?;
        let (group, (over, waits)) = (Group::new(Some(child.id())), mpsc::channel());
        thread::scope(|scope| {
            scope.spawn(|| end_when_stopped(group, stop, waits));
            let said = self.feed_to_end(child, archive, blobs);
            drop(over);
            said
        })
    }

    fn feed_to_end(&self, mut child: Child, archive: &Archive<'_>, blobs: &dyn Blobs) -> Result<String, ExportError> {
        // Both outputs are read while we write, or the program could block on a full pipe and we on it.
        let readers = [reader(child.stdout.take()), reader(child.stderr.take())];
        let written = feed(&mut child, archive, blobs, Path::new(self.name));
        if written.as_ref().is_err_and(|error| !is_closed_pipe(error)) {
            // What it got is no image; it must not take it for one.
            let _ = child.kill();
        }
        let waited = child.wait();
        let status = waited.map_err(|source| ExportError::Loader { program: self.name.into(), source })?;
        let said = readers.map(|reader| reader.join().unwrap_or_default()).join("\n");
        let output = crate::progress::sanitize::escape(said.trim());
        match written {
            Err(error) if !is_closed_pipe(&error) => Err(error),
            _ if !status.success() => Err(ExportError::Load { program: self.name.into(), output }),
            Err(error) => Err(error),
            Ok(()) => Ok(output),
        }
    }
}

/// Ends a program when the build is stopped; nothing comes through the channel, whose end means that the program has ended.
fn end_when_stopped(group: Group, stop: &Stop, over: mpsc::Receiver<()>) {
    let still_runs = |time| over.recv_timeout(time) == Err(RecvTimeoutError::Timeout);
    while still_runs(LOOK) {
        if stop.check().is_err() {
            group.terminate();
            if still_runs(GRACE) {
                // What did not listen is killed.
                return drop(group);
            }
            break;
        }
    }
    group.ended();
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let Some(mut pipe) = pipe else { return String::new() };
        let mut kept = Vec::new();
        // An error here ends the text early; the exit status says whether loading worked.
        let _ = pipe.by_ref().take(OUTPUT_LIMIT).read_to_end(&mut kept);
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        String::from_utf8_lossy(&kept).into_owned()
    })
}

fn feed(child: &mut Child, archive: &Archive<'_>, blobs: &dyn Blobs, shown: &Path) -> Result<(), ExportError> {
    let Some(stdin) = child.stdin.take() else { return Ok(()) };
    let mut out = BufWriter::with_capacity(256 << 10, stdin);
    archive::write(archive, blobs, &mut out, shown)?;
    out.flush().map_err(ExportError::write(shown))
}

/// A program that fails closes its input; its own words say why better than our failed write.
fn is_closed_pipe(error: &ExportError) -> bool {
    matches!(error, ExportError::Write { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::export::archive::tests::Memory;
    use crate::export::image::tests::single;
    use crate::export::spec::ArchiveFormat;

    fn program(dir: &Path, name: &str, script: &str) {
        crate::sys::programs::plant(&dir.join(name), &format!("#!/bin/sh\n{script}\n"));
    }

    fn load(dir: &Path) -> Result<String, ExportError> {
        load_until(dir, &Stop::new())
    }

    fn load_until(dir: &Path, stop: &Stop) -> Result<String, ExportError> {
        let image = single(b"layer");
        let blobs = Memory([(Digest::compute(b"layer"), b"layer".to_vec())].into());
        let names = ["app:1".parse().expect("name")];
        let archive = Archive { image: &image, names: &names, format: ArchiveFormat::Docker };
        Loader::find(&[dir.to_owned()], &[])?.load(&archive, &blobs, stop)
    }

    #[test]
    fn a_program_that_waits_for_ever_ends_with_the_build() {
        // One that ends when asked, one that does not, and one that leaves another behind.
        for (trap, rest) in [("", "sleep 1000"), ("trap '' TERM; ", "sleep 1000"), ("", "sleep 1000 & wait")] {
            let temp = tempfile::tempdir().expect("temp dir");
            let begun = temp.path().join("begun");
            program(temp.path(), "docker", &format!("{trap}: > {}; {rest}", begun.display()));
            let stop = Stop::new();
            thread::scope(|scope| {
                let load = scope.spawn(|| load_until(temp.path(), &stop));
                while !begun.exists() {
                    assert!(!load.is_finished(), "it began");
                    thread::sleep(LOOK);
                }
                stop.request();
                let error = load.join().expect("thread").expect_err("it was ended");
                assert_eq!(error.to_string(), "docker load failed: ");
            });
        }
    }

    #[test]
    fn streams_into_the_first_program_found() {
        let temp = tempfile::tempdir().expect("temp dir");
        let explained = load(temp.path()).expect_err("nothing there");
        assert!(crate::diag::Diagnose::hints(&explained)[0].contains("type=docker,dest="));
        let got = temp.path().join("got.tar");
        program(
            temp.path(),
            "podman",
            &format!("test \"$*\" = load && cat > {} && echo Loaded image: app", got.display()),
        );
        assert_eq!(load(temp.path()).expect("load"), "Loaded image: app");
        let tar = std::fs::read(&got).expect("read");
        assert!(tar.len() > 1024 && tar.ends_with(&[0; 1024]));
        program(temp.path(), "docker", "cat > /dev/null; echo by docker");
        assert_eq!(load(temp.path()).expect("load"), "by docker");
    }

    #[test]
    fn a_failing_program_is_quoted_without_its_escapes() {
        let temp = tempfile::tempdir().expect("temp dir");
        program(temp.path(), "docker", "printf 'no \\033[31mdaemon' >&2; exit 1");
        let error = load(temp.path()).expect_err("fails");
        assert_eq!(error.to_string(), "docker load failed: no \\u{1b}[31mdaemon");
    }
}
