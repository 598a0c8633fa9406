//! The build context: a directory of the user's, or an archive on standard input, with its ignore rules.
//!
//! In: a path or a stream, and the text of an ignore file. Out: files read by name, and a [`Tree`] to hash and copy from.
//! Invariants: the context is one directory descriptor; a file read by name is a regular one, reached through no link, and of
//! bounded length; an error never quotes what a file holds. A context from a stream lies in a temporary directory that goes
//! with the [`Context`].

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::checksum::{Filter, Ids, SharedIndex, Tree};
use crate::diag::{self, Diagnose, Kind};
use crate::pattern::{PatternError, ignore};
use crate::sys::dir::{Dir, Kind as FileKind, stat_of};
use crate::sys::file::{PLAIN_READ, is_link_refused, is_nothing_behind};

/// Longest Dockerfile or ignore file.
pub const MAX_FILE: u64 = 16 << 20;

/// What a context is, for whoever names none that can be opened.
pub const CONTEXT_HINT: &str =
    "the context is the directory whose files the Dockerfile may COPY; `.` is the current one";

/// What is wrong with a context.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The directory cannot be opened.
    #[error("failed to open the context {}", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of the context cannot be read.
    #[error("failed to read {path} of the context")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of the context is not one to read.
    #[error("refused to read {path} of the context: {problem}")]
    Refused {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// An archive cannot be unpacked.
    #[error("failed to unpack the context archive")]
    Archive {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The ignore file has a line that is no pattern.
    #[error("invalid line in {file}")]
    Ignore {
        /// The ignore file.
        file: String,
        /// Why.
        #[source]
        source: PatternError,
    },
    /// The ignore file has a line that is too long.
    #[error("failed to read {file}")]
    IgnoreLine {
        /// The ignore file.
        file: String,
        /// Why.
        #[source]
        source: ignore::LineTooLong,
    },
    /// A path is not in the context.
    #[error("{path:?}: not found")]
    Missing {
        /// The path.
        path: String,
        /// The rule that hides it, if it is there.
        hidden: Option<HiddenBy>,
        /// A path of the context that is spelt nearly so.
        near: Option<String>,
    },
}

/// The rule that hides a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HiddenBy {
    /// The ignore file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The pattern.
    pub pattern: String,
}

impl Diagnose for LocalError {
    fn kind(&self) -> Kind {
        match self {
            Self::Open { .. } => Kind::Usage,
            Self::Archive { source } if of_the_machine(source) => Kind::Machine,
            _ => Kind::Dockerfile,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Missing { hidden: Some(HiddenBy { file, line, pattern }), path, .. } => {
                let path = path.trim_start_matches('/');
                vec![format!(
                    "line {line} of {file}, `{pattern}`, excludes it: remove that line, or add `!{path}` after it"
                )]
            }
            Self::Missing { near: Some(near), .. } => vec![format!("did you mean `{near}`?")],
            Self::Missing { .. } => vec!["sources are paths in the context directory, and none leads out of it".into()],
            Self::Open { .. } => vec![CONTEXT_HINT.into()],
            Self::Read { path, source } if source.kind() == io::ErrorKind::PermissionDenied => {
                vec![format!("make it readable: `chmod +r {path}`")]
            }
            Self::Archive { source } if !of_the_machine(source) => {
                vec!["a context is a tar, or one compressed with gzip, bzip2, xz or zstd: `tar -c . | rbuild -`".into()]
            }
            _ => Vec::new(),
        }
    }
}

/// What the system raised comes from the disk, the rest from what the archive holds.
fn of_the_machine(error: &io::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.raw_os_error().is_some()) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// A build context.
#[derive(Debug)]
pub struct Context {
    dir: Dir,
    rules: Option<Rules>,
    index: SharedIndex,
    _unpacked: Option<tempfile::TempDir>,
}

/// The rules of an ignore file and the lines they are on.
#[derive(Debug)]
struct Rules {
    file: String,
    filter: Filter,
    patterns: Vec<(usize, String)>,
}

impl Context {
    /// Opens a directory.
    pub fn open(path: &Path) -> Result<Self, LocalError> {
        let dir = Dir::open(path).map_err(|source| LocalError::Open { path: path.to_owned(), source })?;
        Ok(Self::new(dir, None))
    }

    /// Takes a tree that was fetched; it must not change while it is used.
    pub fn of_tree(dir: Dir) -> Self {
        Self::new(dir, None)
    }

    fn new(dir: Dir, unpacked: Option<tempfile::TempDir>) -> Self {
        Self { dir, rules: None, index: SharedIndex::default(), _unpacked: unpacked }
    }

    /// Unpacks a stream into a temporary directory below `temporary`, by `unpack`.
    pub fn from_archive(
        stream: &mut (dyn Read + Send),
        temporary: &Path,
        unpack: &dyn Fn(&mut (dyn Read + Send), &Dir) -> io::Result<()>,
    ) -> Result<Self, LocalError> {
        let failed = |source| LocalError::Archive { source };
        let unpacked = tempfile::Builder::new().prefix("context-").tempdir_in(temporary).map_err(failed)?;
        let dir = Dir::open(unpacked.path()).map_err(failed)?;
        unpack(stream, &dir).map_err(failed)?;
        Ok(Self::new(dir, Some(unpacked)))
    }

    /// Applies the rules of an ignore file, named `file` in messages.
    pub fn with_rules(self, file: &str, text: &[u8]) -> Result<Self, LocalError> {
        let patterns = numbered(text).map_err(|source| LocalError::IgnoreLine { file: file.to_owned(), source })?;
        let texts: Vec<String> = patterns.iter().map(|(_, pattern)| pattern.clone()).collect();
        let filter = Filter::new(&texts).map_err(|source| LocalError::Ignore { file: file.to_owned(), source })?;
        let rules = Some(Rules { file: file.to_owned(), filter, patterns });
        Ok(Self { rules, index: SharedIndex::default(), ..self })
    }

    /// Returns its directory.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Returns its files as they count: without what is ignored, and owned by root. All trees of a context share what is
    /// read and hashed.
    pub fn tree(&self) -> Tree<'_> {
        let filter = self.rules.as_ref().map(|rules| &rules.filter);
        Tree::new(&self.dir, filter, Ids::Root).with_index(self.index.clone())
    }

    /// Reads a file such as the Dockerfile; none if there is no such file. Ignore rules do not apply.
    pub fn read_file(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, LocalError> {
        let failed = |source| LocalError::Read { path: name.to_owned(), source };
        let refused = |problem: &str| LocalError::Refused { path: name.to_owned(), problem: problem.to_owned() };
        let Some(file) = self.open_plain(name, &refused)? else { return Ok(None) };
        let stat = stat_of(&file).map_err(failed)?;
        if stat.kind() != FileKind::File {
            return Err(refused("it is not a regular file"));
        }
        let too_long = || refused(&format!("it is longer than {limit} bytes"));
        if stat.size > limit {
            return Err(too_long());
        }
        let mut bytes = Vec::with_capacity(stat.size as usize);
        file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > limit { Err(too_long()) } else { Ok(Some(bytes)) }
    }

    fn open_plain(&self, name: &str, refused: &dyn Fn(&str) -> LocalError) -> Result<Option<File>, LocalError> {
        let path = name.trim_start_matches("./");
        if path.starts_with('/') || path.split('/').any(|part| part == "..") {
            return Err(refused("it is outside of the context"));
        }
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = parent.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/");
        let opened = self.dir.open_below(OsStr::new(&parent)).and_then(|dir| dir.open_file(OsStr::new(name)));
        match opened {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if is_link_refused(&error) => Err(refused("it is, or is reached through, a symbolic link")),
            Err(error) if is_nothing_behind(&error) => Err(refused("it is not a regular file")),
            Err(source) => Err(LocalError::Read { path: path.to_owned(), source }),
        }
    }

    /// Returns the error for a path that a step names and that is not in the context, with the rule that hides it.
    pub fn missing(&self, path: &str) -> LocalError {
        let inner = path.trim_start_matches('/');
        let there = self.dir.resolve(OsStr::new(inner), PLAIN_READ).is_ok();
        let rules = self.rules.as_ref().filter(|_| there);
        let hidden = rules.and_then(|rules| {
            let rule = rules.filter.last_rule(inner).filter(|_| rules.filter.matches_or_parent(inner))?;
            let (line, pattern) = rules.patterns.get(rule)?.clone();
            Some(HiddenBy { file: rules.file.clone(), line, pattern })
        });
        let near = if there { None } else { self.nearest(inner) };
        LocalError::Missing { path: format!("/{inner}"), hidden, near }
    }

    /// Returns the path whose last part is spelt most like that of `path`.
    fn nearest(&self, path: &str) -> Option<String> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let names = self.dir.open_below(OsStr::new(parent)).and_then(|dir| dir.names()).ok()?;
        let visible = |name: &&str| {
            let path = if parent.is_empty() { (*name).to_owned() } else { format!("{parent}/{name}") };
            self.rules.as_ref().is_none_or(|rules| !rules.filter.matches_or_parent(&path))
        };
        let near = diag::suggest(name, names.iter().filter_map(|name| name.to_str()).filter(visible))?;
        Some(if parent.is_empty() { near.to_owned() } else { format!("{parent}/{near}") })
    }
}

/// The patterns of an ignore file with the lines they are on.
fn numbered(text: &[u8]) -> Result<Vec<(usize, String)>, ignore::LineTooLong> {
    let mut patterns = Vec::new();
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line_of = |_| ignore::LineTooLong { line: number + 1 };
        patterns.extend(ignore::read(line).map_err(line_of)?.into_iter().map(|pattern| (number + 1, pattern)));
    }
    Ok(patterns)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::checksum::{Selector, content_digest};

    fn context() -> (tempfile::TempDir, Context) {
        let temp = tempfile::tempdir().expect("temp dir");
        let context = Context::open(temp.path()).expect("open");
        (temp, context)
    }

    #[test]
    fn f3_only_plain_files_of_the_context_are_read() {
        let (temp, context) = context();
        let path = |name: &str| temp.path().join(name);
        std::fs::create_dir(path("dir")).expect("mkdir");
        std::fs::write(path("dir/Dockerfile"), "FROM scratch").expect("write");
        std::fs::write(path("own"), "FROM scratch").expect("write");
        for (name, target) in [("environ", "/proc/self/environ"), ("up", "../x"), ("inside", "own"), ("parent", "dir")]
        {
            symlink(target, path(name)).expect("symlink");
        }
        context.dir.make_node(OsStr::new("fifo"), 0o010_644, 0).expect("fifo");
        context.dir.make_node(OsStr::new("null"), 0o020_666, 0x103).expect("device");
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).expect("socket");
        File::create(path("huge")).and_then(|file| file.set_len(1 << 30)).expect("sparse");
        let read = |name: &str| context.read_file(name, MAX_FILE);
        for name in ["dir/Dockerfile", "./dir/Dockerfile", "dir/./Dockerfile", "own"] {
            assert_eq!(read(name).expect(name).as_deref(), Some(&b"FROM scratch"[..]), "{name}");
        }
        assert_eq!(read("none").expect("read"), None);
        for name in [
            "environ",
            "up",
            "inside",
            "parent/Dockerfile",
            "fifo",
            "null",
            "socket",
            "huge",
            "../x",
            "/etc/passwd",
            "dir",
        ] {
            let error = read(name).expect_err(name);
            assert!(matches!(&error, LocalError::Refused { .. }), "{name}: {error:?}");
        }
    }

    #[test]
    fn rules_hide_files_and_say_so() {
        let (temp, context) = context();
        for name in ["kept", "log.txt", "out/deep", "out/again"] {
            std::fs::create_dir_all(temp.path().join(name).parent().expect("parent")).expect("mkdir");
            std::fs::write(temp.path().join(name), name).expect("write");
        }
        let context = context.with_rules(".dockerignore", b"# logs\n*.txt\n\nout\n!out/again\n").expect("rules");
        let tree = context.tree();
        for (path, there) in
            [("kept", true), ("log.txt", false), ("out", true), ("out/deep", false), ("out/again", true)]
        {
            assert_eq!(tree.entry(path.as_bytes(), true).expect(path).is_some(), there, "{path}");
        }
        let LocalError::Missing { hidden, .. } = context.missing("/log.txt") else { panic!("missing") };
        assert_eq!(hidden, Some(HiddenBy { file: ".dockerignore".into(), line: 2, pattern: "*.txt".into() }));
        let error = context.missing("/out/deep");
        assert!(error.hints()[0].contains("line 4 of .dockerignore"), "{:?}", error.hints());
        assert!(context.missing("/never").hints()[0].contains("context directory"));
        assert_eq!(context.missing("/kpet").hints(), ["did you mean `kept`?"]);
        assert_eq!(context.missing("/log.tx").hints().len(), 1, "no name that is hidden");
    }

    #[test]
    fn f5_special_files_do_not_stop_a_walk() {
        let (temp, context) = context();
        context.dir.make_node(OsStr::new("fifo"), 0o010_644, 0).expect("fifo");
        symlink("self", temp.path().join("self")).expect("symlink");
        std::fs::write(temp.path().join(OsStr::from_bytes(b"\xff")), "x").expect("write");
        std::fs::write(temp.path().join("empty"), "").expect("write");
        let _socket = std::os::unix::net::UnixListener::bind(temp.path().join("socket")).expect("socket");
        let tree = context.tree();
        let digest =
            |name: &str| content_digest(&tree, &[Selector { path: name.into(), ..Selector::default() }]).expect(name);
        let mode = std::fs::Permissions::from_mode(0o644);
        for name in ["socket", "empty"] {
            std::fs::set_permissions(temp.path().join(name), mode.clone()).expect("chmod");
        }
        assert_eq!(digest("socket"), digest("empty"), "a socket counts as an empty file");
    }

    #[test]
    fn an_archive_is_a_context_while_it_is_used() {
        let temp = tempfile::tempdir().expect("temp dir");
        let unpack = |stream: &mut (dyn Read + Send), dir: &Dir| {
            let mut file = dir.create_file(OsStr::new("f"), 0o644)?;
            io::copy(stream, &mut file).map(drop)
        };
        let context = Context::from_archive(&mut &b"data"[..], temp.path(), &unpack).expect("unpack");
        assert_eq!(context.read_file("f", 10).expect("read").as_deref(), Some(&b"data"[..]));
        drop(context);
        assert_eq!(std::fs::read_dir(temp.path()).expect("list").count(), 0);
        let refuse = |_: &mut (dyn Read + Send), _: &Dir| Err(io::Error::other("no archive"));
        assert!(Context::from_archive(&mut &b""[..], temp.path(), &refuse).is_err());
        assert_eq!(std::fs::read_dir(temp.path()).expect("list").count(), 0);
    }
}
