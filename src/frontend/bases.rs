//! Base images of stages: resolved all at once, each name and platform asked once, and their triggers taken over.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::str::FromStr;

use futures_util::future::{join, join_all};

use super::bridge::ResolvedImage;
use super::contexts::{ContextAnswer, ContextPlan, ContextValue, read_config};
use super::error::Problem;
use super::graph::NodeKind;
use super::lowering::Lowering;
use super::plan::{GLOBAL_ARGS, SCRATCH};
use super::stage::{Command, StageId, State};
use super::{image, names, sources};
use crate::diag::{Case, nearest};
use crate::dockerfile::goquote::quote;
use crate::dockerfile::instruction::InstructionKind;
use crate::dockerfile::lint::Rule;
use crate::dockerfile::parse::parse_onbuild;
use crate::image::{ImageConfig, Platform, Reference};
use crate::llb::OpMetadata;

/// Images that a misspelt name may mean.
const COMMON: [&str; 7] = ["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"];

/// The description that holds an instruction as written.
pub(crate) const COMMAND: &str = "com.docker.dockerfile.v1.command";

/// What is to be asked for a stage.
#[derive(Debug)]
enum Job {
    /// A context that replaces the whole stage.
    Stage(StageId, ContextValue, ContextPlan),
    /// A context that replaces the base image.
    Base(StageId, ContextValue, ContextPlan),
    /// The base image, with its name as written.
    Image(StageId, Reference, String),
}

/// An image and a platform, by which it is asked once.
type Key = (Reference, Platform);
/// What was answered.
type Images = BTreeMap<Key, Result<ResolvedImage, Problem>>;

impl Lowering<'_> {
    /// Resolves what the target needs, until triggers bring nothing new; returns the needed stages.
    pub(crate) async fn resolve_stages(&mut self, target: StageId) -> Result<Vec<bool>, Problem> {
        loop {
            let reachable = match self.all_stages {
                true => vec![true; self.stages.len()],
                false => self.stages.reachable(target),
            };
            self.resolve_bases(&reachable).await;
            if !self.take_triggers(&reachable) {
                return Ok(reachable);
            }
        }
    }

    async fn resolve_bases(&mut self, reachable: &[bool]) {
        let mut jobs = Vec::new();
        let mut failed = Vec::new();
        for id in self.stages.ids() {
            let stage = self.stages.get(id);
            if stage.base.is_some() || stage.progress.dispatched || stage.progress.resolved {
                continue;
            }
            match self.plan_base(id, reachable[id.0]) {
                Ok(job) => jobs.extend(job),
                Err(problem) => failed.push((id, problem)),
            }
        }
        let (images, answers) = join(self.ask_images(&jobs), self.ask_contexts(&jobs)).await;
        for (job, answer) in jobs.into_iter().zip(answers) {
            let id = job.stage();
            if let Err(problem) = answer.and_then(|answer| self.settle(job, answer, &images)) {
                failed.push((id, problem));
            }
        }
        // Asked all at once, the one asked last is what BuildKit mostly names.
        failed.sort_by_key(|(id, _)| *id);
        let last = usize::from(!failed.is_empty());
        failed.rotate_right(last);
        failed.into_iter().for_each(|(id, problem)| self.note_base(id, problem));
    }

    /// Notes that a stage has no base; its instructions are looked at as far as they do not depend on it.
    fn note_base(&mut self, id: StageId, problem: Problem) {
        let stage = self.stages.get_mut(id);
        stage.lost.all();
        stage.progress.dispatched |= stage.implicit || stage.context.is_some();
        let problem = match stage.source.lines.as_slice() {
            [] => problem.at(&stage.named_at).unplaced_upstream(),
            lines => problem.at(lines),
        };
        self.note(problem);
    }

    /// Says what has to be asked for a stage; one without content, or that nobody needs, asks nothing.
    fn plan_base(&mut self, id: StageId, reachable: bool) -> Result<Option<Job>, Problem> {
        let target = self.target_platform.clone();
        let stage = self.stages.get_mut(id);
        stage.progress.resolved = reachable;
        if stage.base_name == SCRATCH && stage.context.is_none() {
            stage.state = State::default();
            stage.image = image::empty(&target);
            stage.platform = Some(target);
            stage.progress.dispatched |= stage.implicit;
            return Ok(None);
        }
        let written = stage.base_name.clone();
        let has_variable = stage.source.text.contains('$');
        let reference = Reference::from_str(&written)
            .map_err(|e| {
                let hint = match has_variable {
                    true => GLOBAL_ARGS,
                    false => "write an image as NAME:TAG, the name in lower case",
                };
                Problem::of_reference(&format!("failed to parse stage name {}", quote(&written)), &e).hinted(hint)
            })?
            .with_default_tag();
        stage.base_name = reference.to_string();
        stage.progress.dispatched |= stage.implicit;
        if !reachable {
            self.presume_image(id, &target);
            return Ok(None);
        }
        if let Some(context) = stage.context.clone() {
            let plan = self.plan_context(&context)?;
            return Ok(Some(Job::Stage(id, context, plan)));
        }
        let platform = stage.platform_or(&target).clone();
        let name = stage.base_name.clone();
        match self.find_context(&name, Some(&platform))? {
            Some(context) => {
                let plan = self.plan_context(&context)?;
                Ok(Some(Job::Base(id, context, plan)))
            }
            None => Ok(Some(Job::Image(id, reference, written))),
        }
    }

    /// Takes the base of a stage that nobody needs so far for an image as it is named.
    ///
    /// A trigger may need it later. As in BuildKit, its FROM then is numbered once more, and a tree that no FROM names stays
    /// what it is here.
    fn presume_image(&mut self, id: StageId, target: &Platform) {
        let stage = self.stages.get(id);
        let (reference, platform) = (stage.base_name.clone(), stage.platform_or(target).clone());
        self.add_image_source(id, &reference, &platform);
        self.stages.get_mut(id).platform = Some(platform);
    }

    async fn ask_images(&self, jobs: &[Job]) -> Images {
        let mut keys: Vec<Key> = Vec::new();
        for job in jobs {
            if let Job::Image(id, reference, _) = job {
                let platform = self.stages.get(*id).platform_or(&self.target_platform);
                keys.push((reference.clone(), platform.clone()));
            }
        }
        keys.sort_unstable();
        keys.dedup();
        let mode = self.given.options.resolve_mode;
        let ask = keys.iter().map(|(reference, platform)| self.given.bridge.resolve_image(reference, platform, mode));
        let answers = join_all(ask).await;
        keys.into_iter().zip(answers).map(|(key, answer)| (key, answer.map_err(Problem::from))).collect()
    }

    async fn ask_contexts(&self, jobs: &[Job]) -> Vec<Result<ContextAnswer, Problem>> {
        let ask = jobs.iter().map(async |job| match job {
            Job::Image(..) => Ok(ContextAnswer::Nothing),
            Job::Stage(_, context, plan) | Job::Base(_, context, plan) => {
                self.ask_context(plan, context.platform()).await
            }
        });
        join_all(ask).await
    }

    fn settle(&mut self, job: Job, answer: ContextAnswer, images: &Images) -> Result<(), Problem> {
        match job {
            Job::Image(id, reference, written) => {
                let platform = self.stages.get(id).platform_or(&self.target_platform).clone();
                let resolved = match images.get(&(reference.clone(), platform.clone())) {
                    Some(Ok(resolved)) => resolved,
                    Some(Err(problem)) => return Err(self.no_image(&written, &reference, problem)),
                    None => return Ok(()),
                };
                self.settle_image(id, reference, &written, resolved)
            }
            Job::Stage(id, context, plan) => {
                let loaded = self.load_context(id, &context, plan, answer)?;
                let stage = self.stages.get_mut(id);
                stage.progress.dispatched = true;
                stage.state = loaded.state;
                if let Some(config) = loaded.config {
                    stage.image = ImageConfig { created: None, ..config };
                    if !stage.image.architecture.is_empty() && !stage.image.os.is_empty() {
                        stage.platform = Some(image::platform(&stage.image));
                    }
                }
                Ok(())
            }
            Job::Base(id, context, plan) => {
                let loaded = self.load_context(id, &context, plan, answer)?;
                let platform = self.stages.get(id).platform_or(&self.target_platform).clone();
                let config = loaded.config.unwrap_or_else(|| image::empty(&platform));
                let stage = self.stages.get_mut(id);
                stage.base_image = Some(config.clone());
                stage.image = ImageConfig { created: None, ..config };
                stage.state = State { platform: Some(platform.clone().normalized()), ..loaded.state };
                stage.platform = Some(platform);
                Ok(())
            }
        }
    }

    fn no_image(&self, written: &str, reference: &Reference, problem: &Problem) -> Problem {
        let mut options: Vec<String> = self.stages.displays().into_iter().map(str::to_owned).collect();
        options.extend(COMMON.iter().flat_map(|name| [(*name).to_owned(), format!("{name}:latest")]));
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let near = nearest(written, options, Case::Sensitive).map(|near| format!("did you mean `{near}`?"));
        let cause = &problem.message;
        let message = format!("{written}: failed to resolve source metadata for {reference}: {cause}");
        let hints = near.into_iter().chain(problem.hints.iter().cloned()).collect();
        Problem { message, hints, ..problem.clone() }
    }

    fn settle_image(
        &mut self,
        id: StageId,
        reference: Reference,
        written: &str,
        resolved: &ResolvedImage,
    ) -> Result<(), Problem> {
        let config = read_config(&resolved.config)?;
        let stage = self.stages.get(id);
        let mut platform = stage.platform_or(&self.target_platform).clone();
        if stage.platform.is_none() && self.implicit_target {
            platform = detect_platform(&config, platform, self.given.build_platform);
        }
        let reference = reference.with_digest(resolved.digest.clone()).to_string();
        if !image::has_no_content(&config) {
            self.add_image_source(id, &reference, &platform);
            self.check_base_platform(id, written, &platform, &config);
        }
        let stage = self.stages.get_mut(id);
        stage.base_name = reference;
        stage.base_image = Some(config.clone());
        stage.image = ImageConfig { created: None, ..config };
        stage.platform = Some(platform);
        Ok(())
    }

    fn add_image_source(&mut self, id: StageId, reference: &str, platform: &Platform) {
        let shown = self.shown(platform);
        let stage = self.stages.get_mut(id);
        // No variable is known yet, so a platform to cross-compile for is not shown.
        let name = names::step(stage, &format!("FROM {reference}"), shown);
        let mut metadata = OpMetadata::default();
        metadata.description.insert("llb.customname".into(), name);
        // Set even where no FROM was written, so that it wins over that of an equal op.
        metadata.description.insert(COMMAND.into(), stage.source.text.clone());
        let lines = stage.source.lines.clone();
        let source = sources::image(reference, self.given.options.resolve_mode);
        let node = self.graph.add(NodeKind::Source(source, Some(platform.clone())), metadata, &lines);
        let platform = Some(platform.clone().normalized());
        self.stages.get_mut(id).state = State { root: Some(node), platform, ..State::default() };
    }

    fn check_base_platform(&mut self, id: StageId, written: &str, expected: &Platform, config: &ImageConfig) {
        let actual = image::platform(config);
        if expected.os == actual.os && expected.architecture == actual.architecture {
            return;
        }
        let (expected, actual) = (expected.clone().normalized().format_all(), actual.normalized().format_all());
        let message = format!(
            "Base image {written} was pulled with platform {actual:?}, expected {expected:?} for current build"
        );
        let lines = self.stages.get(id).source.lines.clone();
        self.lint.file(Rule::InvalidBaseImagePlatform, &lines, message);
    }

    /// Puts the triggers of bases before the stages' own instructions; tells whether they need more stages.
    fn take_triggers(&mut self, reachable: &[bool]) -> bool {
        let mut more = false;
        for id in self.stages.ids().filter(|id| reachable.get(id.0) == Some(&true)).collect::<Vec<_>>() {
            let triggers = self.triggers(id);
            if triggers.is_empty() {
                continue;
            }
            match self.add_triggers(id, &triggers) {
                Ok(added) => more |= added,
                Err(problem) => {
                    let stage = self.stages.get_mut(id);
                    stage.lost.all();
                    let lines = stage.source.lines.clone();
                    self.note(problem.only_at(lines));
                }
            }
        }
        more
    }

    /// Takes the triggers of a base image, or those that a base stage writes down.
    fn triggers(&mut self, id: StageId) -> Vec<String> {
        let stage = self.stages.get_mut(id);
        let Some(base) = stage.base else { return std::mem::take(&mut stage.image.config.on_build) };
        if std::mem::replace(&mut stage.progress.triggered, true) {
            return Vec::new();
        }
        let trigger = |command: &Command<'_>| match &command.instruction.kind {
            InstructionKind::Onbuild(text) => Some(text.clone()),
            _ => None,
        };
        self.stages.get(base).commands.iter().filter_map(trigger).collect()
    }

    fn add_triggers(&mut self, id: StageId, triggers: &[String]) -> Result<bool, Problem> {
        let source = self.stages.get(id).source.clone();
        let mut commands = Vec::new();
        let mut more = false;
        for trigger in triggers {
            // What is wrong in a trigger's style is not this Dockerfile's fault.
            let mut silent = crate::dockerfile::lint::Linter::default();
            let instruction = parse_onbuild(trigger, &source, &mut silent)?;
            let mut command =
                Command { instruction: Cow::Owned(instruction), sources: Vec::new(), onbuild: true, sourceless: false };
            more |= self.link_command(id, &mut command)?;
            commands.push(command);
        }
        let stage = self.stages.get_mut(id);
        stage.total += commands.len();
        commands.append(&mut stage.commands);
        stage.commands = commands;
        Ok(more)
    }
}

impl Job {
    fn stage(&self) -> StageId {
        match self {
            Job::Stage(id, ..) | Job::Base(id, ..) | Job::Image(id, ..) => *id,
        }
    }
}

/// An image that is not for the target but for this machine is taken as such.
fn detect_platform(config: &ImageConfig, target: Platform, build: &Platform) -> Platform {
    let is = |p: &Platform| p.os == config.os && p.architecture == config.architecture;
    if !is(&target) && is(build) { build.clone() } else { target }
}
