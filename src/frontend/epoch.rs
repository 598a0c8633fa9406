//! `SOURCE_DATE_EPOCH`: a number, or the time of a context or of what a stage downloads.
//!
//! In: the build argument or global ARG. Out: seconds since 1970, which also replace the argument's value, so that stages
//! see a number.

use super::contexts::ContextPlan;
use super::copy::parse_checksum;
use super::env::EnvList;
use super::error::Problem;
use super::lowering::Lowering;
use super::plan::SCRATCH;
use super::sources::{self, GitOptions};
use crate::dockerfile::gitref;
use crate::dockerfile::goquote::quote;
use crate::dockerfile::instruction::{AddInstruction, InstructionKind, Stage};
use crate::llb::SourceOp;

const NAME: &str = "SOURCE_DATE_EPOCH";

impl Lowering<'_> {
    /// Resolves the time, if one is asked for.
    pub(crate) async fn resolve_epoch(&mut self) -> Result<(), Problem> {
        let given = self.build_args.get(NAME).cloned();
        let global = self.globals.env.value(NAME).filter(|v| !v.is_empty()).map(str::to_owned);
        let Some(value) = given.or(global) else { return Ok(()) };
        self.epoch = match value.parse::<i64>() {
            _ if value.is_empty() => None,
            Ok(seconds) => Some(seconds),
            Err(_) => self.time_of(&value).await?,
        };
        self.replace_value(self.epoch.map(|seconds| seconds.to_string()));
        Ok(())
    }

    fn replace_value(&mut self, value: Option<String>) {
        if self.build_args.contains_key(NAME) {
            match &value {
                Some(value) => _ = self.build_args.insert(NAME.into(), value.clone()),
                None => _ = self.build_args.remove(NAME),
            }
        }
        if self.globals.env.value(NAME).is_some() {
            match value {
                Some(value) => self.globals.env.set(NAME, value),
                None => self.globals.env.remove(NAME),
            }
        }
    }

    async fn time_of(&self, value: &str) -> Result<Option<i64>, Problem> {
        let Some(source) = self.epoch_source(value)? else { return Ok(None) };
        Ok(self.given.bridge.source_time(&source).await?)
    }

    /// Returns the source whose time counts; none for one that has no time, such as a local directory.
    fn epoch_source(&self, value: &str) -> Result<Option<SourceOp>, Problem> {
        if value == "context" {
            return Ok(self.main.remote.and_then(|node| self.graph.source(node)).cloned());
        }
        if let Some(context) = self.find_context(value, None)? {
            return Ok(match self.plan_context(&context)? {
                ContextPlan::Ready(source) => source.map(|(source, _)| source),
                _ => None,
            });
        }
        let stages = &self.given.dockerfile.stages;
        let Some(stage) = stages.iter().find(|s| s.name.eq_ignore_ascii_case(value)) else {
            return Err(Problem::new(format!("invalid {NAME}: {value}"))
                .hinted("give seconds since 1970, `context`, or the name of a context or stage"));
        };
        self.stage_source(stage).map(Some).map_err(|p| p.at(&stage.source.lines))
    }

    /// Returns the one download of a stage that does nothing else.
    fn stage_source(&self, stage: &Stage) -> Result<SourceOp, Problem> {
        let mut env = self.globals.env.clone();
        env.remove(NAME);
        let base = self.expand_in(&stage.base, &env);
        let wrapper = format!("failed to process source stage base name {}: ", quote(&stage.base));
        if base.map_err(|p| p.prefixed_upstream(&wrapper))? != SCRATCH {
            return Err(Problem::new(format!("{NAME} stage must use FROM scratch")));
        }
        let not_one = || Problem::new(format!("{NAME} stage must contain exactly one remote ADD"));
        let mut found = None;
        for instruction in &stage.instructions {
            match &instruction.kind {
                InstructionKind::Arg(args) => self.apply_args(args, &mut env)?,
                InstructionKind::Add(_) if found.is_some() => return Err(not_one()),
                InstructionKind::Add(add) => found = Some(self.add_source(add, &env)?),
                _ => {
                    let word = &instruction.source.keyword;
                    let message =
                        format!("{NAME} stage does not meet source-only requirements: unsupported {word} instruction");
                    return Err(Problem::new(message));
                }
            }
        }
        found.ok_or_else(not_one)
    }

    fn expand_in(&self, text: &str, env: &EnvList) -> Result<String, Problem> {
        self.lexer.word(text, env).map(|e| e.text).map_err(Problem::from)
    }

    fn apply_args(&self, args: &[(String, Option<String>)], env: &mut EnvList) -> Result<(), Problem> {
        for (name, default) in args {
            if let Some(value) = self.build_args.get(name) {
                env.set(name, value.as_str());
            } else if let Some(default) = default {
                let value = self.expand_in(default, env)?;
                env.set(name, value);
            }
        }
        Ok(())
    }

    fn add_source(&self, add: &AddInstruction, env: &EnvList) -> Result<SourceOp, Problem> {
        let ([path], []) = (add.files.paths.as_slice(), add.files.inline.as_slice()) else {
            return Err(Problem::new(format!("{NAME} stage must contain exactly one remote ADD source")));
        };
        let path = self.expand_in(path, env)?;
        let checksum = match add.checksum.as_str() {
            "" => None,
            text => Some(self.expand_in(text, env)?),
        };
        let is_url = path.starts_with("http://") || path.starts_with("https://");
        // What BuildKit cannot read as a repository is a file, if it is a URL.
        let git = gitref::parse(&path).or_else(|e| if is_url { Ok(None) } else { Err(Problem::new(e.to_string())) })?;
        match git {
            Some(git) if !git.indistinguishable_from_local => {
                let options = GitOptions {
                    keep_git_dir: add.keep_git_dir == Some(true) || git.keep_git_dir == Some(true),
                    checksum: checksum.unwrap_or_else(|| git.checksum.clone()),
                    mtime: String::new(),
                };
                Ok(sources::git(&git, &options))
            }
            _ if is_url => {
                let checksum = checksum.as_deref().map(parse_checksum).transpose()?;
                Ok(sources::http(&path, &sources::http_filename(&path), checksum))
            }
            _ => {
                let what = quote(&path);
                let message = format!("{NAME} stage source must be a single HTTP(S) or Git ADD");
                Err(Problem::new(message).hinted(format!("{what} is a local path, which has no time")))
            }
        }
    }
}
