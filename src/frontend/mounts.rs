//! The mounts of a RUN: from what is written to what the op says.

use std::collections::BTreeSet;

use super::contexts;
use super::dispatch::At;
use super::error::Problem;
use super::graph::{NodeId, NodeKind};
use super::lowering::{Lowering, expand_noting};
use super::paths;
use super::run::tmpfs;
use super::stage::StageId;
use crate::dockerfile::goquote::quote;
use crate::dockerfile::instruction::RunInstruction;
use crate::dockerfile::mount::{self, MountSpec, Sharing};
use crate::llb::{
    self, CacheOpt, ChownOpt, FileActionKind, FileOpt, MkdirAction, Mount, MountType, SecretEnv, UserOpt,
};
use crate::pattern::path::clean as clean_path;

/// The mounts of one RUN while they are collected.
#[derive(Debug, Default)]
pub(crate) struct RunMounts {
    trees: Vec<(Mount, Option<NodeId>)>,
    secrets: Vec<Mount>,
    agents: Vec<Mount>,
    /// Secrets that become variables.
    pub(crate) secret_env: Vec<SecretEnv>,
}

impl RunMounts {
    /// Adds a mount of a tree, or of none.
    pub(crate) fn bind(&mut self, mount: Mount, source: Option<NodeId>) {
        self.trees.push((mount, source));
    }

    /// Returns where the first ssh socket is.
    pub(crate) fn first_agent(&self) -> Option<&str> {
        self.agents.first().map(|m| m.dest.as_str())
    }

    /// Returns all mounts in order, and the inputs of the first of them.
    pub(crate) fn finish(mut self) -> (Vec<Mount>, Vec<Option<NodeId>>) {
        self.trees.sort_by(|a, b| a.0.dest.cmp(&b.0.dest));
        let (mut mounts, inputs): (Vec<Mount>, Vec<_>) = self.trees.into_iter().unzip();
        mounts.extend(self.secrets);
        mounts.extend(self.agents);
        (mounts, inputs)
    }
}

impl Lowering<'_> {
    /// Collects the mounts that a RUN asks for.
    pub(crate) fn collect_mounts(
        &mut self,
        at: At<'_>,
        run: &RunInstruction,
        sources: &[StageId],
        mounts: &mut RunMounts,
    ) -> Result<(), Problem> {
        let specs: Vec<MountSpec> =
            run.mounts.iter().map(|text| self.mount_spec(at, text)).collect::<Result<_, _>>()?;
        for (spec, source) in specs.iter().zip(sources) {
            self.stages.get_mut(at.stage).outline.mount(at.source, spec);
            match spec.kind {
                mount::MountType::Secret => add_secret(spec, mounts)?,
                mount::MountType::Ssh => add_agent(spec, mounts)?,
                _ => self.add_tree(at, spec, *source, mounts)?,
            }
        }
        Ok(())
    }

    fn mount_spec(&mut self, at: At<'_>, text: &str) -> Result<MountSpec, Problem> {
        let lexer = self.lexer;
        let mut undefined = Vec::new();
        let env = &self.stages.get(at.stage).state.env;
        let spec = mount::parse(text, &mut |value| {
            let mut names = BTreeSet::new();
            let expanded = expand_noting(&lexer, value, env, &mut names);
            undefined.push(names);
            expanded
        });
        // A name is reported for each value that has it.
        undefined.into_iter().for_each(|names| self.report_undefined(at.stage, at.source, names));
        spec.map_err(|error| {
            let problem = Problem::from(error);
            Problem { mark: problem.mark.or_else(|| Some(text.to_owned())), ..problem }
        })
    }

    fn add_tree(
        &mut self,
        at: At<'_>,
        spec: &MountSpec,
        source: StageId,
        mounts: &mut RunMounts,
    ) -> Result<(), Problem> {
        let from_context = spec.from.is_empty() && spec.kind != mount::MountType::Cache;
        let mut tree = self.main.root;
        if !from_context {
            let stage = self.stages.get(source);
            if !stage.progress.dispatched {
                return Err(not_yet(spec));
            }
            tree = stage.state.root;
        }
        let mut mount = Mount { readonly: spec.readonly, output: -1, ..Mount::default() };
        match spec.kind {
            mount::MountType::Tmpfs => {
                mount = Mount { readonly: spec.readonly, ..tmpfs(spec.size) };
                tree = None;
            }
            mount::MountType::Cache => {
                mount.mount_type = MountType::Cache;
                mount.cache = Some(self.cache(spec));
            }
            _ => {}
        }
        mount.dest = self.mount_target(at.stage, spec)?;
        let path = paths::join(&["/", &spec.source]);
        if path != "/" {
            mount.selector.clone_from(&path);
        } else if spec.uid.is_some() || spec.gid.is_some() || spec.mode.is_some() {
            tree = Some(self.cache_dir(spec, tree));
            mount.selector = "/cache".into();
        }
        mounts.bind(mount, tree);
        match from_context {
            true => _ = self.stages.get_mut(at.stage).context_paths.insert(path),
            false => self.stages.use_path(source, path),
        }
        Ok(())
    }

    fn mount_target(&self, id: StageId, spec: &MountSpec) -> Result<String, Problem> {
        let target = match clean_path(&spec.target).starts_with('/') {
            true => spec.target.clone(),
            false => paths::join(&["/", &self.stages.get(id).state.cwd, &spec.target]),
        };
        match target.as_str() {
            "/" => Err(Problem::new("invalid mount target \"/\"").hinted("give the mount a `target`")),
            _ => Ok(target),
        }
    }

    fn cache(&self, spec: &MountSpec) -> CacheOpt {
        let default = clean_path(&spec.target);
        let id = if spec.id.is_empty() { &default } else { &spec.id };
        let sharing = match spec.sharing {
            None | Some(Sharing::Shared) => llb::Sharing::Shared,
            Some(Sharing::Private) => llb::Sharing::Private,
            Some(Sharing::Locked) => llb::Sharing::Locked,
        };
        CacheOpt { id: format!("{}/{id}", self.given.options.cache_namespace), sharing }
    }

    /// Makes the directory a new cache starts with.
    fn cache_dir(&mut self, spec: &MountSpec, base: Option<NodeId>) -> NodeId {
        let id = |id: Option<u32>| Some(UserOpt::ById(id.unwrap_or(0)));
        let action = MkdirAction {
            path: "/cache".into(),
            mode: (spec.mode.unwrap_or(0o755) & 0o777) as i32,
            make_parents: false,
            owner: Some(ChownOpt { user: id(spec.uid), group: id(spec.gid) }),
            timestamp: -1,
        };
        let kind = NodeKind::File(base, vec![(FileActionKind::Mkdir(action), None)]);
        self.graph.add(kind, contexts::named("[internal] setting cache mount permissions"), &[])
    }
}

fn not_yet(spec: &MountSpec) -> Problem {
    let (from, target) = (quote(&spec.from), quote(&spec.target));
    let message =
        format!("cannot mount from stage {from} to {target}, stage needs to be defined before current command");
    Problem::new(message).hinted("move the stage that is mounted above this one")
}

fn file_opt(spec: &MountSpec, id: &str, mode: u32) -> FileOpt {
    FileOpt {
        id: id.to_owned(),
        uid: spec.uid.unwrap_or(0),
        gid: spec.gid.unwrap_or(0),
        mode: spec.mode.unwrap_or(mode),
        optional: !spec.required,
    }
}

fn add_secret(spec: &MountSpec, mounts: &mut RunMounts) -> Result<(), Problem> {
    let id = match (spec.source.as_str(), spec.id.as_str(), spec.target.as_str()) {
        ("", "", "") => {
            return Err(Problem::new("one of source, target required").hinted("write `--mount=type=secret,id=NAME`"));
        }
        ("", "", target) => paths::base(target),
        ("", id, _) => id,
        (source, ..) => source,
    };
    if let Some(name) = &spec.env {
        mounts.secret_env.push(SecretEnv { id: id.to_owned(), name: name.clone(), optional: !spec.required });
    }
    if spec.env.is_some() && spec.target.is_empty() {
        return Ok(());
    }
    let dest = match spec.target.as_str() {
        "" => format!("/run/secrets/{}", paths::base(id)),
        target => target.to_owned(),
    };
    let secret = Some(file_opt(spec, id, 0o400));
    mounts.secrets.push(Mount { input: -1, dest, mount_type: MountType::Secret, secret, ..Mount::default() });
    Ok(())
}

fn add_agent(spec: &MountSpec, mounts: &mut RunMounts) -> Result<(), Problem> {
    if !spec.source.is_empty() {
        return Err(Problem::new("ssh does not support source")
            .marking("source")
            .hinted("write `--mount=type=ssh,id=NAME`"));
    }
    let dest = match spec.target.as_str() {
        "" => format!("/run/buildkit/ssh_agent.{}", mounts.agents.len()),
        target => target.to_owned(),
    };
    let ssh = Some(file_opt(spec, &spec.id, 0o600));
    mounts.agents.push(Mount { input: -1, dest, mount_type: MountType::Ssh, ssh, ..Mount::default() });
    Ok(())
}
