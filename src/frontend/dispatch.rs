//! Carrying out a stage: what it starts with, and its instructions in order.
//!
//! In: a stage whose base is settled. Out: its tree, its image configuration and history. RUN, COPY and ADD, EXPOSE and the
//! instructions that only change the configuration have their own files.

use super::error::Problem;
use super::graph::NodeKind;
use super::image::{self, Layer};
use super::lowering::Lowering;
use super::paths::{self, Tail};
use super::stage::{Command, Stage, StageId};
use super::{contexts, names};
use crate::dockerfile::goquote::quote;
use crate::dockerfile::instruction::{InstructionKind, SourceLine};
use crate::dockerfile::lint::Rule;
use crate::llb::{ChownOpt, FileActionKind, MkdirAction, OpMetadata, UserOpt};

/// An instruction's place in a lowering: its stage and its line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'i> {
    pub(crate) stage: StageId,
    pub(crate) source: &'i SourceLine,
}

impl<'a> Lowering<'a> {
    /// Carries out a stage; what is wrong with one instruction does not keep the others from being looked at.
    pub(crate) fn dispatch_stage(&mut self, id: StageId) {
        self.inherit(id);
        let lines = self.stages.get(id).source.lines.clone();
        if let Err(problem) = self.begin_stage(id) {
            self.stages.get_mut(id).lost.all();
            self.note(problem.at(&lines));
        }
        let commands = std::mem::take(&mut self.stages.get_mut(id).commands);
        for command in commands.iter().filter(|command| !command.sourceless) {
            self.stages.get_mut(id).in_onbuild = command.onbuild;
            self.touched_lost = false;
            let problem = self.dispatch(id, command).err();
            if problem.is_some() || self.touched_lost {
                self.lose(id, &command.instruction.kind);
            }
            if let Some(problem) = problem.filter(|_| !self.touched_lost) {
                self.note(problem.at_if_nowhere(&command.instruction.source.lines));
            }
        }
    }

    /// Forgets the variables that an instruction was to set.
    fn lose(&mut self, id: StageId, kind: &InstructionKind) {
        let names: Vec<&str> = match kind {
            InstructionKind::Arg(args) => args.iter().map(|(name, _)| name.as_str()).collect(),
            InstructionKind::Env(pairs) => pairs.iter().map(|pair| pair.key.as_str()).collect(),
            _ => return,
        };
        let stage = self.stages.get_mut(id);
        for name in names {
            stage.state.env.remove(name);
            stage.lost.add(name);
            if name.contains('$') {
                stage.lost.all();
            }
        }
    }

    /// Takes over what the base stage came to; its history is joined in at the end.
    fn inherit(&mut self, id: StageId) {
        let Some(base) = self.stages.get(id).base else { return };
        let parent = self.stages.get(base);
        let mut image = image::without_history(&parent.image);
        image.config.on_build.clear();
        let (state, platform) = (parent.state.clone(), parent.platform.clone());
        let lost = parent.lost.clone();
        let (args, workdir_set, env_places) = (parent.args.clone(), parent.workdir_set, parent.env_places.clone());
        let stage = self.stages.get_mut(id);
        (stage.image, stage.state, stage.platform) = (image, state, platform);
        (stage.args, stage.workdir_set, stage.env_places) = (args, workdir_set, env_places);
        stage.lost = lost;
    }

    /// Gives processes of a stage what its image says.
    fn begin_stage(&mut self, id: StageId) -> Result<(), Problem> {
        let target = self.target_platform.clone();
        let stage = self.stages.get_mut(id);
        stage.progress.dispatched = true;
        let os = stage.platform.get_or_insert(target).os.clone();
        image::ensure_path(&mut stage.image, &os);
        stage.env_places.clear();
        for (at, assignment) in stage.image.config.env.iter().enumerate() {
            let (name, value) = image::split_env(assignment);
            stage.state.env.set(name, value);
            stage.env_places.entry(name.to_owned()).or_insert(at);
        }
        if !stage.image.config.working_dir.is_empty() {
            let dir = stage.image.config.working_dir.clone();
            change_dir(stage, &dir, &os)?;
        }
        if !stage.image.config.user.is_empty() {
            stage.state.user.clone_from(&stage.image.config.user);
        }
        Ok(())
    }

    fn dispatch(&mut self, id: StageId, command: &Command<'a>) -> Result<(), Problem> {
        let source = &command.instruction.source;
        let at = At { stage: id, source };
        match &command.instruction.kind {
            InstructionKind::Arg(args) => self.dispatch_arg(at, args),
            InstructionKind::Env(pairs) => self.dispatch_env(at, pairs),
            InstructionKind::Label(pairs) => self.dispatch_label(at, pairs),
            InstructionKind::Maintainer(author) => self.dispatch_maintainer(at, author),
            InstructionKind::Run(run) => self.dispatch_run(at, run, &command.sources),
            InstructionKind::Cmd(command) => self.dispatch_cmd(at, command),
            InstructionKind::Entrypoint(command) => self.dispatch_entrypoint(at, command),
            InstructionKind::Shell(shell) => self.dispatch_shell(at, shell),
            InstructionKind::Copy(copy) => self.dispatch_copy(at, copy, command.sources.first().copied()),
            InstructionKind::Add(add) => self.dispatch_add(at, add),
            InstructionKind::Workdir(path) => self.dispatch_workdir(at, path),
            InstructionKind::User(user) => self.dispatch_user(at, user),
            InstructionKind::Expose(ports) => self.dispatch_expose(at, ports),
            InstructionKind::Volume(paths) => self.dispatch_volume(at, paths),
            InstructionKind::StopSignal(signal) => self.dispatch_stop_signal(at, signal),
            InstructionKind::Healthcheck(check) => self.dispatch_healthcheck(at, check),
            InstructionKind::Onbuild(trigger) => {
                self.stages.get_mut(id).image.config.on_build.push(trigger.clone());
                Ok(())
            }
        }
    }

    /// Adds a history entry.
    pub(crate) fn record(&mut self, id: StageId, created_by: String, layer: Layer) {
        let entry = image::history(created_by, layer, self.epoch);
        self.stages.get_mut(id).image.history.push(entry);
    }

    /// Returns the operating system a stage is for.
    pub(crate) fn os(&self, id: StageId) -> &str {
        &self.stages.get(id).platform_or(&self.target_platform).os
    }

    fn dispatch_workdir(&mut self, at: At<'_>, path: &str) -> Result<(), Problem> {
        let path = self.expand(at.stage, at.source, path)?;
        let os = self.os(at.stage).to_owned();
        let stage = self.stages.get_mut(at.stage);
        let first = !std::mem::replace(&mut stage.workdir_set, true);
        if first && !paths::is_absolute(&path, &os) {
            let message =
                format!("Relative workdir {} can have unexpected results if the base image changes", quote(&path));
            self.lint.instruction(Rule::WorkdirRelativePath, at.source, message);
        }
        let dir = change_dir(self.stages.get_mut(at.stage), &path, &os)?;
        let layer = if dir == "/" { Layer::None } else { Layer::Some };
        if layer == Layer::Some {
            self.make_dir(at, &dir);
        }
        self.record(at.stage, format!("WORKDIR {dir}"), layer);
        Ok(())
    }

    fn make_dir(&mut self, at: At<'_>, dir: &str) {
        let name = self.step_name(at);
        let stage = self.stages.get(at.stage);
        let user = &stage.image.config.user;
        let action = MkdirAction {
            path: paths::action_path(dir, dir, Tail::Drop),
            mode: 0o755,
            make_parents: true,
            owner: (!user.is_empty()).then(|| owner(user, stage.state.root.is_some())),
            timestamp: self.epoch.map_or(-1, |seconds| seconds.saturating_mul(1_000_000_000)),
        };
        let kind = NodeKind::File(stage.state.root, vec![(FileActionKind::Mkdir(action), None)]);
        let node = self.graph.add(kind, contexts::named(&name), &at.source.lines);
        self.stages.get_mut(at.stage).state.root = Some(node);
    }

    /// Numbers the step of an instruction and names it after its line.
    pub(crate) fn step_name(&mut self, at: At<'_>) -> String {
        let stage = self.stages.get(at.stage);
        let text = names::text(&self.lexer, &at.source.text, &stage.state.env);
        let platform = stage.platform_or(&self.target_platform).clone();
        let shown = self.shown(&platform);
        names::step(self.stages.get_mut(at.stage), &text, shown)
    }

    /// Returns the metadata of an op of an instruction that may be told not to use the cache.
    pub(crate) fn metadata(&self, id: StageId, name: &str) -> OpMetadata {
        OpMetadata { ignore_cache: self.stages.get(id).ignore_cache, ..contexts::named(name) }
    }
}

/// Enters a directory and returns it; what it is in the image keeps the system's own separators.
fn change_dir(stage: &mut Stage<'_>, path: &str, os: &str) -> Result<String, Problem> {
    let dir = paths::normalize(&stage.image.config.working_dir, path, os, Tail::Drop);
    let dir = dir.map_err(|p| p.prefixed_upstream("normalizing workdir: normalizing working directory: "))?;
    stage.image.config.working_dir = if os == "windows" { dir.replace('/', "\\") } else { dir.clone() };
    stage.state.cwd.clone_from(&dir);
    Ok(dir)
}

/// Reads `user[:group]`; names are looked up in the base, if there is one.
pub(crate) fn owner(text: &str, has_base: bool) -> ChownOpt {
    let input = if has_base { 0 } else { -1 };
    let one = |text: &str| match text.parse::<i32>() {
        _ if text == "root" || text.is_empty() => UserOpt::ById(0),
        Ok(id) => UserOpt::ById(id as u32),
        Err(_) => UserOpt::ByName { name: text.to_owned(), input },
    };
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    ChownOpt { user: Some(one(user)), group: group.map(one) }
}
