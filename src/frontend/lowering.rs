//! One lowering of a Dockerfile for one platform: what all its steps share, and their order.
//!
//! The order decides which of several mistakes is reported: arguments, stages, target, circles, base images and triggers,
//! ignore patterns, instructions, lint, and at last the definition.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use super::args::{self, Globals};
use super::bridge::Bridge;
use super::contexts::MainContext;
use super::env::EnvList;
use super::error::Problem;
use super::graph::{Graph, NodeId};
use super::options::Options;
use super::stage::{StageId, Stages};
use super::{Channel, PlatformResult, image};
use crate::diag::{Case, nearest};
use crate::dockerfile::instruction::{Dockerfile, SourceLine};
use crate::dockerfile::lint::{Linter, Rule};
use crate::dockerfile::text::parse_bool;
use crate::dockerfile::word::{Env, Lexer, WordError};
use crate::image::{ImageConfig, Platform, Reference};

/// The ARGs that say what is scanned for a bill of materials beside the result.
const SCAN_CONTEXT: &str = "BUILDKIT_SBOM_SCAN_CONTEXT";
const SCAN_STAGE: &str = "BUILDKIT_SBOM_SCAN_STAGE";

/// What is given to a lowering.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given<'a> {
    pub(crate) options: &'a Options,
    pub(crate) dockerfile: &'a Dockerfile,
    pub(crate) bridge: &'a dyn Bridge,
    pub(crate) session: &'a str,
    pub(crate) channel: Channel,
    /// Platform of this machine's worker.
    pub(crate) build_platform: &'a Platform,
}

/// A lowering under way.
#[derive(Debug)]
pub(crate) struct Lowering<'a> {
    pub(crate) given: Given<'a>,
    pub(crate) lexer: Lexer,
    pub(crate) lint: Linter,
    pub(crate) target_platform: Platform,
    /// Whether nobody asked for a platform, so that a base image may decide.
    pub(crate) implicit_target: bool,
    /// Build arguments, `SOURCE_DATE_EPOCH` resolved.
    pub(crate) build_args: BTreeMap<String, String>,
    pub(crate) globals: Globals,
    pub(crate) epoch: Option<i64>,
    pub(crate) stages: Stages<'a>,
    pub(crate) graph: Graph,
    pub(crate) main: MainContext,
    /// Whether stages are carried out that the target does not need.
    pub(crate) all_stages: bool,
    /// Steps that no definition can hold, and what is wrong with them.
    pub(crate) unfit: Vec<(NodeId, Problem)>,
    /// What is wrong, in the order it was found, which is BuildKit's: it stops at the first.
    pub(crate) problems: Vec<Problem>,
    /// How many warnings there were before the first problem.
    warnings: Option<usize>,
    /// Whether the instruction at hand looked at a variable whose value is lost.
    pub(crate) touched_lost: bool,
}

impl<'a> Lowering<'a> {
    /// Starts for a platform; none is the worker's own.
    pub(crate) fn new(given: Given<'a>, platform: Option<&Platform>, lint: Linter) -> Self {
        Self {
            lexer: Lexer::new(given.dockerfile.escape),
            lint,
            target_platform: platform.unwrap_or(given.build_platform).clone(),
            implicit_target: platform.is_none(),
            build_args: given.options.build_args.clone(),
            globals: Globals::default(),
            epoch: None,
            stages: Stages::default(),
            graph: Graph::default(),
            main: MainContext::default(),
            all_stages: false,
            unfit: Vec::new(),
            problems: Vec::new(),
            warnings: None,
            touched_lost: false,
            given,
        }
    }

    /// Does all of it.
    pub(crate) async fn run(&mut self) -> Result<PlatformResult, Vec<Problem>> {
        let target = self.carry_out().await?;
        Ok(self.finish(target))
    }

    /// Does all but the result; returns the target, or all that is wrong and does not follow from what else is.
    pub(crate) async fn carry_out(&mut self) -> Result<StageId, Vec<Problem>> {
        let outcome = self.attempt().await;
        let target = outcome.map_err(|problem| self.note(problem)).ok();
        let mut unfit = std::mem::take(&mut self.unfit);
        if let Some(target) = target.filter(|_| self.problems.is_empty() && !unfit.is_empty()) {
            let needed = self.graph.needed_by(self.stages.get(target).state.root);
            unfit.retain(|(node, _)| needed.contains(node));
        }
        match target.filter(|_| self.problems.is_empty() && unfit.is_empty()) {
            Some(target) => Ok(target),
            None => {
                self.problems.extend(unfit.into_iter().map(|(_, problem)| problem));
                self.lint.warnings.truncate(self.warnings.unwrap_or(usize::MAX));
                Err(std::mem::take(&mut self.problems))
            }
        }
    }

    /// Notes what is wrong; warnings found behind the first problem are not wanted.
    pub(crate) fn note(&mut self, problem: Problem) {
        self.warnings.get_or_insert(self.lint.warnings.len());
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// Goes through all phases, noting problems that leave something to look at, and fails at those that do not.
    async fn attempt(&mut self) -> Result<StageId, Problem> {
        self.evaluate_globals();
        self.prepare_main_context().await?;
        self.resolve_epoch().await?;
        self.add_stages();
        let target = self.stages.target(&self.given.options.target);
        let target = target.map_err(|problem| self.note(problem));
        self.link_stages()?;
        let Ok(target) = target else { return Ok(StageId(0)) };
        let reachable = self.resolve_stages(target).await?;
        self.read_ignore_patterns().await.unwrap_or_else(|problem| self.note(problem));
        let waiting: Vec<StageId> = self.stages.ids().filter(|id| reachable[id.0]).collect();
        for id in waiting {
            if !self.stages.get(id).progress.dispatched {
                self.dispatch_stage(id);
            }
        }
        self.stages.use_path(target, "/".into());
        if let Some(message) = self.lint.violation().filter(|_| self.problems.is_empty()) {
            let hint = "remove `error=true` from the check options, or fix the warnings";
            self.unfit.clear();
            return Err(Problem::new(message).hinted(hint));
        }
        Ok(target)
    }

    fn evaluate_globals(&mut self) {
        let dockerfile = self.given.dockerfile;
        let last = dockerfile.stages.last().map_or("", |s| s.name.as_str());
        let target = &self.given.options.target;
        let stage = if target.is_empty() { last } else { target };
        let built_in = args::built_in(self.given.build_platform, &self.target_platform, stage, &self.build_args);
        self.check_default_bases(&built_in);
        let (globals, problems) = args::meta(dockerfile, &self.lexer, &built_in, &self.build_args);
        self.globals = globals;
        problems.into_iter().for_each(|problem| self.note(problem));
    }

    /// Base images should make sense without build arguments too.
    fn check_default_bases(&mut self, built_in: &EnvList) {
        let dockerfile = self.given.dockerfile;
        let (defaults, problems) = args::meta(dockerfile, &self.lexer, built_in, &BTreeMap::new());
        if !problems.is_empty() {
            return;
        }
        for stage in &dockerfile.stages {
            let Ok(name) = self.lexer.word(&stage.base, &defaults.env) else { return };
            if Reference::from_str(&name.text).is_err() {
                let message =
                    format!("Default value for ARG {} results in empty or invalid base image name", stage.base);
                self.lint.file(Rule::InvalidDefaultArgInFrom, &stage.source.lines, message);
            }
        }
    }

    fn finish(&mut self, target: StageId) -> PlatformResult {
        self.set_follow_paths();
        let config = self.final_config(target);
        let root = self.root_stage(target);
        let base_config = self.stages.get(root).base_image.clone();
        let stage = self.stages.get(target);
        let (result, ignore_cache) = (stage.state.root, stage.ignore_cache || self.scans_uncached(target));
        PlatformResult {
            platform: self.target_platform.clone().normalized(),
            definition: std::mem::take(&mut self.graph).finish(result),
            config,
            base_config,
            epoch: self.epoch,
            ignore_cache,
        }
    }

    /// Tells whether another stage that the target needs is to be scanned and does not use the cache.
    fn scans_uncached(&self, target: StageId) -> bool {
        let reachable = self.stages.reachable(target);
        let others = self.stages.ids().filter(|id| *id != target && reachable[id.0]);
        let mut uncached = others.map(|id| self.stages.get(id)).filter(|stage| stage.ignore_cache);
        uncached.any(|stage| {
            let declared =
                stage.args.iter().rev().filter(|arg| arg.name == SCAN_STAGE).find_map(|arg| arg.value.as_deref());
            let asked = declared.or_else(|| self.globals.env.value(SCAN_STAGE)).unwrap_or_default();
            parse_bool(asked).unwrap_or_else(|| asked.split(',').any(|name| name == stage.display))
        })
    }

    /// Returns the stage at the bottom of a chain of stages.
    fn root_stage(&self, id: StageId) -> StageId {
        let mut root = id;
        while let Some(base) = self.stages.get(root).base {
            root = base;
        }
        root
    }

    fn final_config(&self, target: StageId) -> ImageConfig {
        let mut config = self.stages.get(target).image.clone();
        let mut histories = vec![std::mem::take(&mut config.history)];
        let mut base = self.stages.get(target).base;
        while let Some(id) = base {
            histories.push(self.stages.get(id).image.history.clone());
            base = self.stages.get(id).base;
        }
        config.history = histories.into_iter().rev().flatten().collect();
        config.config.labels.extend(self.given.options.labels.clone());
        if !self.implicit_target {
            image::force_platform(&mut config, &self.target_platform);
        }
        image::normalize_platform(&mut config);
        config
    }

    /// Returns the platform to name in step names: only where several are built.
    pub(crate) fn shown<'p>(&self, platform: &'p Platform) -> Option<&'p Platform> {
        self.given.options.multi_platform.then_some(platform)
    }

    /// Expands a text of an instruction as one word, with a stage's variables.
    pub(crate) fn expand(&mut self, id: StageId, source: &SourceLine, text: &str) -> Result<String, Problem> {
        let lexer = self.lexer;
        self.expand_with(&lexer, id, source, text)
    }

    /// Expands with a lexer other than the file's.
    pub(crate) fn expand_with(
        &mut self,
        lexer: &Lexer,
        id: StageId,
        source: &SourceLine,
        text: &str,
    ) -> Result<String, Problem> {
        let mut undefined = BTreeSet::new();
        let expanded = expand_noting(lexer, text, &self.stages.get(id).state.env, &mut undefined);
        self.report_undefined(id, source, undefined);
        expanded.map_err(Problem::from)
    }

    pub(crate) fn report_undefined(&mut self, id: StageId, source: &SourceLine, mut names: BTreeSet<String>) {
        self.touched_lost |= self.stages.get(id).lost.has_any(&names);
        names.retain(|name| !is_outside_env(name));
        if names.is_empty() {
            return;
        }
        let stage = self.stages.get(id);
        stage.args.iter().for_each(|arg| _ = names.remove(&arg.name));
        let env = stage.state.env.ordered();
        let options: Vec<&str> = env.iter().map(|(name, _)| *name).collect();
        for name in names {
            let near = nearest(&name, options.iter().copied(), Case::Sensitive);
            let near = near.map(|near| format!(" (did you mean ${near}?)")).unwrap_or_default();
            self.lint.instruction(Rule::UndefinedVar, source, format!("Usage of undefined variable '${name}'{near}"));
        }
    }
}

/// Expands a text, and notes the variables that are not set, those before a failure included.
pub(crate) fn expand_noting(
    lexer: &Lexer,
    text: &str,
    env: &EnvList,
    undefined: &mut BTreeSet<String>,
) -> Result<String, WordError> {
    let noting = NotingEnv { env, undefined: RefCell::new(undefined) };
    lexer.word(text, &noting).map(|expanded| expanded.text)
}

/// Passes lookups on and notes those that find nothing.
struct NotingEnv<'e> {
    env: &'e EnvList,
    undefined: RefCell<&'e mut BTreeSet<String>>,
}

impl Env for NotingEnv<'_> {
    fn get(&self, name: &str) -> Option<String> {
        let value = self.env.get(name);
        if value.is_none() {
            self.undefined.borrow_mut().insert(name.to_owned());
        }
        value
    }

    fn keys(&self) -> Vec<String> {
        self.env.keys()
    }
}

/// Tells whether an ARG is an instruction to the build and no variable of processes.
pub(crate) fn is_outside_env(name: &str) -> bool {
    matches!(name, SCAN_CONTEXT | SCAN_STAGE)
}
