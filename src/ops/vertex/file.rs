//! COPY, ADD, WORKDIR: a file op as actions on snapshots.

use std::fs::File;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::content::content_of;
use super::{blocking, blocking_until};
use crate::checksum::{self, Ids};
use crate::digest::Digest;
use crate::llb::{CopyAction, FileAction, FileActionKind, FileOp, UserOpt};
use crate::ops::file::{self, FileOpError, Owners, Trees};
use crate::ops::keys::{self, OpKey};
use crate::ops::{OpsError, Tree, Worker};
use crate::progress::{Event, Log, Stream};
use crate::snapshot::{Active, Chain, View};
use crate::solver::{CacheMap, Op, OpError};
use crate::source::local::Context;
use crate::sys::dir::{self, Dir};

/// A file op of the graph.
pub(super) struct FileVertex {
    pub(super) worker: Arc<Worker>,
    pub(super) digest: Digest,
    pub(super) name: String,
    pub(super) op: FileOp,
    pub(super) key: OpKey,
}

impl FileVertex {
    pub(super) fn new(worker: Arc<Worker>, digest: Digest, name: String, op: FileOp, inputs: usize) -> Self {
        let key = keys::file(&op, inputs);
        Self { worker, digest, name, op, key }
    }
}

impl Op<Tree> for FileVertex {
    fn cache_map(&self) -> BoxFuture<'_, Result<CacheMap, OpError>> {
        Box::pin(async { Ok(self.key.map.clone()) })
    }

    fn content_key(&self, input: usize, result: Tree) -> BoxFuture<'_, Result<Option<Digest>, OpError>> {
        let (worker, paths) = (Arc::clone(&self.worker), self.key.content[input].clone());
        let step = self.digest.clone();
        Box::pin(blocking(move || content_of(&worker, &result, paths.as_deref(), Some((&step, input)))))
    }

    fn exec(&self, inputs: Vec<Tree>, cancel: CancellationToken) -> BoxFuture<'_, Result<Vec<Tree>, OpError>> {
        let (worker, op) = (Arc::clone(&self.worker), self.op.clone());
        let (digest, name) = (self.digest.clone(), self.name.clone());
        Box::pin(blocking_until(cancel, move || {
            let run = Run { worker: &worker, digest: &digest, name: &name, op: &op, inputs: &inputs };
            run.all()
        }))
    }
}

/// What an action left: still open for the next one, or sealed.
enum Place {
    Open(Active),
    Sealed(Tree),
}

/// One run of a file op.
struct Run<'a> {
    worker: &'a Worker,
    digest: &'a Digest,
    name: &'a str,
    op: &'a FileOp,
    inputs: &'a [Tree],
}

impl Run<'_> {
    /// Carries all actions out; those that go on from one another share one snapshot, so that an instruction is one layer.
    fn all(&self) -> Result<Vec<Tree>, OpError> {
        let mut places: Vec<Option<Place>> = Vec::new();
        let mut outputs: Vec<(i64, Tree)> = Vec::new();
        for (at, action) in self.op.actions.iter().enumerate() {
            let active = self.start(action, &mut places)?;
            self.apply(action, &active, &mut places)?;
            let place = if action.output >= 0 || self.users(at) != 1 {
                let tree = self.seal(active, action.output >= 0)?;
                if action.output >= 0 {
                    outputs.push((action.output, tree.clone()));
                }
                Place::Sealed(tree)
            } else {
                Place::Open(active)
            };
            places.push(Some(place));
        }
        outputs.sort_by_key(|(output, _)| *output);
        Ok(outputs.into_iter().map(|(_, tree)| tree).collect())
    }

    /// How many later actions use the result of action `at`.
    fn users(&self, at: usize) -> usize {
        let index = (self.inputs.len() + at) as i64;
        self.op.actions.iter().map(|a| usize::from(a.input == index) + usize::from(a.secondary_input == index)).sum()
    }

    /// Opens what an action changes: the former action's snapshot where it goes on from it, else a new one.
    fn start(&self, action: &FileAction, places: &mut [Option<Place>]) -> Result<Active, OpError> {
        let former = usize::try_from(action.input).ok().and_then(|index| index.checked_sub(self.inputs.len()));
        if let Some(former) = former {
            let place = places.get_mut(former).ok_or_else(|| invalid("an action goes on from a later one"))?;
            return match place.take() {
                Some(Place::Open(active)) => Ok(active),
                Some(Place::Sealed(tree)) => {
                    let active = self.prepare(&tree);
                    *place = Some(Place::Sealed(tree));
                    active
                }
                None => Err(invalid("an action goes on from one that another went on from").into()),
            };
        }
        self.prepare(&self.tree(action.input, places)?)
    }

    fn prepare(&self, tree: &Tree) -> Result<Active, OpError> {
        Ok(self.worker.snapshots.prepare(&self.worker.layers_of(tree)?)?)
    }

    fn seal(&self, active: Active, result: bool) -> Result<Tree, OpError> {
        let chain = self.worker.snapshots.commit(active, self.name)?;
        if result {
            self.worker.made(self.digest, &chain);
        }
        Ok(Tree::Layers(chain))
    }

    fn tree(&self, index: i64, places: &[Option<Place>]) -> Result<Tree, OpError> {
        let Ok(index) = usize::try_from(index) else { return Ok(Tree::empty()) };
        if let Some(tree) = self.inputs.get(index) {
            return Ok(tree.clone());
        }
        match places.get(index - self.inputs.len()) {
            Some(Some(Place::Sealed(tree))) => Ok(tree.clone()),
            _ => Err(invalid("an action reads a tree that is not there").into()),
        }
    }

    fn apply(&self, action: &FileAction, active: &Active, places: &mut [Option<Place>]) -> Result<(), OpError> {
        let dest = active.dir()?;
        let owner = file::owner_of(&action.kind);
        let users = self.names(owner.and_then(|owner| owner.user.as_ref()), places)?;
        let groups = self.names(owner.and_then(|owner| owner.group.as_ref()), places)?;
        let owners = Owners { users: users.as_ref().map(View::dir), groups: groups.as_ref().map(View::dir) };
        let notices = match self.tree(action.secondary_input, places)? {
            // To copy from scratch is to copy from a tree with nothing in it.
            _ if action.secondary_input < 0 && !matches!(action.kind, FileActionKind::Copy(_)) => {
                act(action, &dest, None, owners)?
            }
            Tree::Context(context) => {
                act(action, &dest, Some(&context.tree()), owners).map_err(|error| explain(&context, error))?
            }
            Tree::Lazy(_) => return Err(OpsError::NotFetched.into()),
            Tree::Layers(chain) => {
                let view = self.view(&chain)?;
                act(action, &dest, Some(&checksum::Tree::new(view.dir(), None, Ids::Keep)), owners)?
            }
        };
        for notice in notices {
            self.log(&notice);
        }
        Ok(())
    }

    fn view(&self, chain: &Chain) -> Result<View, OpError> {
        Ok(self.worker.snapshots.view(chain)?)
    }

    /// Returns the tree in which a user or a group is looked up by its name: that of the input, not what became of it since.
    fn names(&self, who: Option<&UserOpt>, places: &[Option<Place>]) -> Result<Option<View>, OpError> {
        let Some(UserOpt::ByName { name, input }) = who else { return Ok(None) };
        if *input < 0 {
            return Err(OpsError::NoUsers { name: name.clone() }.into());
        }
        let chain = self.worker.layers_of(&self.tree(*input, places)?)?;
        self.view(&chain).map(Some)
    }

    fn log(&self, notice: &str) {
        let data = format!("{notice}\n").into_bytes();
        let log = Log { vertex: self.digest.clone(), stream: Stream::Stderr, data, timestamp: SystemTime::now() };
        self.worker.sink.send(Event::Log(log));
    }
}

fn act(
    action: &FileAction,
    dest: &Dir,
    source: Option<&checksum::Tree<'_>>,
    owners: Owners<'_>,
) -> Result<Vec<String>, FileOpError> {
    let (is_archive, unpack) = (&file::archive::is_archive, &file::archive::unpack);
    file::apply(&action.kind, &Trees { dest, source, owners, is_archive, unpack })
}

/// Copies what a tree has at `path` into `dest`, whose own mode and owner become those of the path.
pub(crate) fn copy_tree(worker: &Worker, tree: &Tree, path: &str, dest: &Dir) -> Result<(), OpError> {
    let copy = |source: &checksum::Tree<'_>| -> Result<(), FileOpError> {
        let action = FileActionKind::Copy(CopyAction {
            src: if path.is_empty() { "/".into() } else { path.into() },
            dest: "/".into(),
            mode: -1,
            timestamp: -1,
            follow_symlink: true,
            dir_copy_contents: true,
            ..CopyAction::default()
        });
        let nothing = |_: &File| Ok(false);
        file::apply(
            &action,
            &Trees {
                dest,
                source: Some(source),
                owners: Owners::default(),
                is_archive: &nothing,
                unpack: &file::archive::unpack,
            },
        )?;
        Ok(())
    };
    let own = |source: &checksum::Tree<'_>| -> Result<(), OpError> {
        let Some(entry) = source.entry(path.as_bytes(), true)? else { return Ok(()) };
        let failed = |source| OpsError::Copy { path: path.into(), source };
        dir::chown_of(dest, entry.stat.uid, entry.stat.gid).map_err(failed)?;
        Ok(dir::chmod_of(dest, entry.stat.permissions()).map_err(failed)?)
    };
    match tree {
        Tree::Context(context) => {
            copy(&context.tree()).map_err(|error| explain(context, error))?;
            own(&context.tree())
        }
        Tree::Lazy(_) => Err(OpsError::NotFetched.into()),
        Tree::Layers(chain) => {
            let view = worker.snapshots.view(chain)?;
            let source = checksum::Tree::new(view.dir(), None, Ids::Keep);
            copy(&source)?;
            own(&source)
        }
    }
}

/// A path that is not in the context may be there and hidden by a rule, which is what the user must know.
fn explain(context: &Context, error: FileOpError) -> OpError {
    match error {
        FileOpError::NotFound { path } => context.missing(&path).into(),
        other => other.into(),
    }
}

fn invalid(reason: &str) -> OpsError {
    OpsError::Invalid { reason: reason.into() }
}
