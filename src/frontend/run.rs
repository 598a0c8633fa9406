//! RUN: a process in the stage's tree, and its mounts.
//!
//! Mounts with a tree are sorted by where they go; secrets and ssh sockets follow in the order written. Only the root's
//! changes become a result: what is written to other mounts is gone after the step, except for caches.

use super::Channel;
use super::bases::COMMAND;
use super::contexts;
use super::dispatch::At;
use super::env::EnvList;
use super::error::Problem;
use super::graph::{NodeId, NodeKind};
use super::image::{self, Layer};
use super::lowering::Lowering;
use super::mounts::RunMounts;
use super::names;
use super::paths::{self, Tail};
use super::stage::{DeclaredArg, StageId};
use crate::dockerfile::error::line_ranges;
use crate::dockerfile::heredoc;
use crate::dockerfile::instruction::{Heredoc, RunInstruction, SourceLine};
use crate::dockerfile::word::Lexer;
use crate::llb::{
    CdiDevice, ExecOp, FileActionKind, Meta, MkfileAction, Mount, MountType, NetMode, OpMetadata, SecurityMode,
};

/// Where a script given as a heredoc is mounted.
const SCRIPT_DIR: &str = "/dev/pipes/";

/// The words of a RUN, its text for step names, and the script that has to be mounted for it.
struct Script {
    args: Vec<String>,
    text: String,
    file: Option<NodeId>,
}

/// What a RUN runs, and what its step is called.
struct Process {
    args: Vec<String>,
    name: String,
}

impl Lowering<'_> {
    pub(crate) fn dispatch_run(
        &mut self,
        at: At<'_>,
        run: &RunInstruction,
        sources: &[StageId],
    ) -> Result<(), Problem> {
        self.stages.use_path(at.stage, "/".into());
        let mut script = self.script(at.source, run, at.stage)?;
        // In exec form it is JSON, which is read as text.
        let mut unfit = if run.command.shell { not_text(at.source, &script.args) } else { None };
        if run.command.shell {
            script.args = image::with_shell(&self.stages.get(at.stage).image, &script.args);
        }
        let mut mounts = RunMounts::default();
        mounts.bind(Mount { dest: "/".into(), ..Mount::default() }, self.stages.get(at.stage).state.root);
        if script.file.is_some() {
            mounts.bind(read_only(SCRIPT_DIR, "/"), script.file);
        }
        self.collect_mounts(at, run, sources, &mut mounts)?;
        if !run.devices.is_empty() && self.given.channel == Channel::Stable {
            let message = "device feature is only supported in Dockerfile frontend 1.14.0-labs or later";
            let problem = Problem::new(message).marking("--device");
            return Err(problem.hinted("write `# syntax=docker/dockerfile:1-labs` as the first line of the Dockerfile"));
        }
        if script.args.is_empty() {
            // It is found in the definition only, so what is wrong elsewhere comes first.
            let problem = Problem::new("failed to marshal LLB definition: arguments are required");
            let problem = problem.unplaced_upstream().hinted("write a command: `RUN COMMAND`");
            unfit = Some(problem.at(&at.source.lines));
        }
        let name = self.run_name(at, &script.text, &mounts);
        let record = self.run_record(at.stage, &script.args);
        let node = self.add_exec(at, run, Process { args: script.args, name }, mounts);
        self.unfit.extend(unfit.map(|problem| (node, problem)));
        self.record(at.stage, record, Layer::Some);
        Ok(())
    }

    /// Puts heredocs back: one that is the whole command becomes the command, or a file if it names its interpreter.
    fn script(&mut self, source: &SourceLine, run: &RunInstruction, stage: StageId) -> Result<Script, Problem> {
        let text = source.text.clone();
        let args = run.command.args.clone();
        let (Some(first), [command], true) = (source.heredocs.first(), args.as_slice(), run.command.shell) else {
            return Ok(Script { args, text, file: None });
        };
        let whole = heredoc::in_word(command).map_err(|e| Problem::new(e.to_string()))?.is_some();
        if !whole {
            let mut command = command.clone();
            for heredoc in &source.heredocs {
                command.push_str(&format!("\n{}{}", heredoc.body, heredoc.name));
            }
            return Ok(Script { args: vec![command], text, file: None });
        }
        let text = format!("{text} ({})", names::summary(&first.body));
        let script = first.clone().chomped();
        if self.stages.get(stage).image.os == "windows" || !script.body.starts_with("#!") {
            return Ok(Script { args: vec![script.body], text, file: None });
        }
        let file = self.inline_file(&script, 0o755);
        Ok(Script { args: vec![paths::join(&[SCRIPT_DIR, &first.name])], text, file: Some(file) })
    }

    /// Makes a tree with one file.
    pub(crate) fn inline_file(&mut self, heredoc: &Heredoc, mode: i32) -> NodeId {
        let action = MkfileAction {
            path: paths::action_path("/", &heredoc.name, Tail::Drop),
            mode,
            data: heredoc.content().to_vec(),
            owner: None,
            timestamp: -1,
        };
        let kind = NodeKind::File(None, vec![(FileActionKind::Mkfile(action), None)]);
        self.graph.add(kind, contexts::named("[internal] preparing inline document"), &[])
    }

    fn run_name(&mut self, at: At<'_>, text: &str, mounts: &RunMounts) -> String {
        let lexer = Lexer { raw_quotes: true, skip_unset: true, ..self.lexer };
        let stage = self.stages.get(at.stage);
        let text = match mounts.secret_env.is_empty() {
            true => names::text(&lexer, text, &stage.state.env),
            // A secret's name is shown where its value would be.
            false => names::text(&lexer, text, &masked(&stage.state.env, mounts)),
        };
        let platform = stage.state.platform.clone();
        let shown = platform.as_ref().and_then(|p| self.shown(p));
        names::step(self.stages.get_mut(at.stage), &text, shown)
    }

    /// Returns the history text: arguments declared so far, each once, and the words run.
    fn run_record(&self, id: StageId, args: &[String]) -> String {
        let stage = self.stages.get(id);
        let mut record = String::from("RUN ");
        let declared = unique_args(&stage.args, &stage.state.env);
        if !declared.is_empty() {
            record.push_str(&format!("|{} ", declared.len()));
            declared.iter().for_each(|(name, value)| record.push_str(&format!("{name}={value} ")));
        }
        record.push_str(&args.join(" "));
        record.push_str(" # buildkit");
        record
    }

    fn add_exec(&mut self, at: At<'_>, run: &RunInstruction, process: Process, mut mounts: RunMounts) -> NodeId {
        let options = self.given.options;
        if options.shm_size > 0 {
            let mount = Mount { dest: "/dev/shm".into(), ..tmpfs(options.shm_size) };
            mounts.bind(mount, None);
        }
        let network = match run.network.as_str() {
            "none" => NetMode::None,
            "host" => NetMode::Host,
            _ => options.network,
        };
        let security = if run.security == "insecure" { SecurityMode::Insecure } else { SecurityMode::Sandbox };
        let meta = self.process(at.stage, process.args, &mounts);
        let secret_env = std::mem::take(&mut mounts.secret_env);
        let (list, inputs) = mounts.finish();
        let exec = ExecOp { meta, mounts: list, network, security, secret_env, cdi_devices: devices(run) };
        let mut metadata =
            OpMetadata { resources: options.resources.clone(), ..self.metadata(at.stage, &process.name) };
        let command = at.source.text.clone();
        metadata.description.insert(COMMAND.into(), command);
        let platform = self.stages.get(at.stage).state.platform.clone();
        let platform = platform.unwrap_or_else(|| self.target_platform.clone());
        let kind = NodeKind::Exec(Box::new(exec), inputs, platform);
        let node = self.graph.add(kind, metadata, &at.source.lines);
        self.stages.get_mut(at.stage).state.root = Some(node);
        node
    }

    fn process(&self, id: StageId, args: Vec<String>, mounts: &RunMounts) -> Meta {
        let options = self.given.options;
        let state = &self.stages.get(id).state;
        let mut env = state.env.assignments();
        if let Some(socket) = mounts.first_agent().filter(|_| state.env.value("SSH_AUTH_SOCK").is_none()) {
            env.push(format!("SSH_AUTH_SOCK={socket}"));
        }
        Meta {
            args,
            env,
            cwd: state.cwd.clone(),
            user: state.user.clone(),
            proxy_env: options.proxy.clone(),
            extra_hosts: options.extra_hosts.clone(),
            hostname: options.hostname.clone(),
            ulimit: options.ulimits.clone(),
            cgroup_parent: options.cgroup_parent.clone(),
            remove_mount_stubs_recursive: true,
            valid_exit_codes: Vec::new(),
        }
    }
}

fn devices(run: &RunInstruction) -> Vec<CdiDevice> {
    run.devices.iter().map(|device| CdiDevice { name: device.name.clone(), optional: !device.required }).collect()
}

/// What a process is started with is text in a definition. Other instructions' words have been expanded, which leaves text.
fn not_text(source: &SourceLine, args: &[String]) -> Option<Problem> {
    let found = source.not_text.iter().chain(source.heredocs.iter().filter_map(|heredoc| heredoc.not_text.as_ref()));
    let found = found.min_by_key(|found| found.line)?;
    if !args.iter().any(|arg| arg.contains(char::REPLACEMENT_CHARACTER)) {
        return None;
    }
    let message = format!("what RUN runs is not UTF-8: there is the byte 0x{:02x} in `{}`", found.byte, found.excerpt);
    let problem = Problem::new(message).at(&line_ranges(found.line, found.line)).marking("\u{fffd}");
    let problem = problem.said_upstream("failed to marshal LLB definition: string field contains invalid UTF-8");
    Some(problem.unplaced_upstream().hinted(format!(
        "save the Dockerfile as UTF-8 (`iconv -f LATIN1 -t UTF-8`), or let the shell make the byte: `printf '\\{:03o}'`",
        found.byte
    )))
}

/// Returns a mount of a tree that cannot be written.
fn read_only(dest: &str, selector: &str) -> Mount {
    Mount { dest: dest.into(), selector: selector.into(), readonly: true, output: -1, ..Mount::default() }
}

/// Returns a mount of memory; 0 is no limit.
pub(crate) fn tmpfs(size: i64) -> Mount {
    Mount { output: -1, mount_type: MountType::Tmpfs, tmpfs_size: Some(size), ..Mount::default() }
}

fn masked(env: &EnvList, mounts: &RunMounts) -> EnvList {
    let mut env = env.clone();
    mounts.secret_env.iter().for_each(|secret| env.set(&secret.name, "****"));
    env
}

/// Lists arguments at the place of their first declaration, with what processes see, or else the last declared value.
fn unique_args<'s>(args: &'s [DeclaredArg], env: &'s EnvList) -> Vec<(&'s str, &'s str)> {
    let mut places = std::collections::BTreeMap::new();
    let mut list: Vec<(&str, &str)> = Vec::new();
    for arg in args {
        let value = env.value(&arg.name).or(arg.value.as_deref()).unwrap_or_default();
        let place = *places.entry(arg.name.as_str()).or_insert(list.len());
        match list.get_mut(place) {
            Some(known) => known.1 = value,
            None => list.push((&arg.name, value)),
        }
    }
    list
}
