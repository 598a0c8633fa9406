//! From parsed stages to stages that know their base, their name, their platform, and whom they need.
//!
//! In: the Dockerfile and the global scope. Out: [`Stages`](super::stage::Stages), with one implicit stage for each image
//! that COPY or a mount names. What is wrong in a FROM is reported even for stages that nobody needs.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::str::FromStr;

use super::error::Problem;
use super::lowering::{Lowering, expand_noting};
use super::stage::{Command, Stage, StageId};
use crate::diag::{Case, LineRange, did_you_mean};
use crate::dockerfile::goquote::quote;
use crate::dockerfile::instruction::{self, Instruction, InstructionKind, RunInstruction};
use crate::dockerfile::lint::Rule;
use crate::dockerfile::mount;
use crate::dockerfile::word::{Expanded, Lexer, WordError};
use crate::image::Platform;
use crate::image::platform::PlatformError;

/// What to do about a variable in FROM that has no value.
pub(crate) const GLOBAL_ARGS: &str =
    "a variable in FROM needs an ARG before the first FROM, with a default or with `--build-arg NAME=VALUE`";

/// The base with no content.
pub(crate) const SCRATCH: &str = "scratch";

impl<'a> Lowering<'a> {
    /// Adds the stages of the Dockerfile; one whose FROM is wrong stays, with nothing in it, for those that name it.
    pub(crate) fn add_stages(&mut self) {
        for (at, parsed) in self.given.dockerfile.stages.iter().enumerate() {
            self.touched_lost = false;
            let problem = self.add_stage(at, parsed).err();
            if problem.is_none() && !self.touched_lost {
                continue;
            }
            if let Some(problem) = problem.filter(|_| !self.touched_lost) {
                self.note(problem.at(&parsed.source.lines));
            }
            if self.stages.len() == at {
                self.stages.add(begin(at, parsed));
            }
            let stage = self.stages.get_mut(StageId(at));
            (stage.base, stage.paths_of) = (None, at);
            stage.base_name = SCRATCH.into();
            stage.lost.all();
        }
    }

    /// Expands a text of a FROM.
    fn expand_global(&mut self, parsed: &instruction::Stage, text: &str) -> Result<Expanded, WordError> {
        let mut unset = BTreeSet::new();
        let expanded = expand_noting(&self.lexer, text, &self.globals.env, &mut unset);
        self.touched_lost |= self.globals.lost.has_any(&unset);
        self.report_undeclared(parsed, &unset);
        expanded.and_then(|_| self.lexer.word(text, &self.globals.env))
    }

    fn add_stage(&mut self, at: usize, parsed: &'a instruction::Stage) -> Result<(), Problem> {
        let name = self.expand_global(parsed, &parsed.base).map_err(Problem::from)?;
        if name.text.is_empty() {
            let problem = Problem::new(format!("base name ({}) should not be blank", parsed.base));
            return Err(problem.marking(parsed.base.as_str()).hinted(GLOBAL_ARGS));
        }
        let platform = match &parsed.platform {
            Some(text) if !text.is_empty() => Some(self.stage_platform(parsed, text)?),
            _ => None,
        };
        let mut stage = Stage { base_name: name.text, platform, ..begin(at, parsed) };
        if !parsed.name.is_empty() {
            let context = self.find_context(&parsed.name, stage.platform.as_ref());
            stage.context = context.map_err(Problem::unplaced_upstream)?;
        }
        if stage.context.is_some() {
            let id = self.stages.add(stage);
            let stage = self.stages.get_mut(id);
            stage.base = None;
            stage.paths_of = id.0;
            return Ok(());
        }
        stage.ignore_cache = self.given.options.no_cache.applies_to(&parsed.name);
        let id = self.stages.add(stage);
        let stage = self.stages.get_mut(id);
        stage.total = usize::from(stage.base_name != SCRATCH && stage.base.is_none());
        stage.total += stage.commands.iter().filter(|c| is_step(&c.instruction)).count();
        Ok(())
    }

    fn stage_platform(&mut self, parsed: &instruction::Stage, text: &str) -> Result<Platform, Problem> {
        let expanded = self.expand_global(parsed, text);
        let expanded = expanded.map_err(|e| Problem::new(format!("failed to process arguments for platform : {e}")))?;
        self.report_redundant(parsed, text, &expanded);
        self.report_constant(parsed, &expanded);
        let near = self.nearest_global(&expanded.unmatched);
        if expanded.text.is_empty() {
            let problem = Problem::new(format!("empty platform value from expression {text}{near}")).marking(text);
            return Err(problem.hinted("every build has $BUILDPLATFORM and $TARGETPLATFORM"));
        }
        // The class of the error is part of its text in Go.
        Platform::from_str(&expanded.text).map_err(|e| {
            let class = if matches!(e, PlatformError::Escape { .. }) { "" } else { ": invalid argument" };
            let problem = Problem::new(format!("failed to parse platform {text}: {e}{class}{near}"));
            problem.marking(text).hinted("write OS/ARCH: `--platform=linux/arm64`")
        })
    }

    fn nearest_global(&self, names: &BTreeSet<String>) -> String {
        let options = self.globals.env.ordered();
        let options: Vec<&str> = options.iter().map(|(name, _)| *name).collect();
        let near = names.iter().map(|name| did_you_mean(name, options.iter().copied(), Case::Sensitive));
        near.into_iter().find(|near| !near.is_empty()).unwrap_or_default()
    }

    fn report_undeclared(&mut self, parsed: &instruction::Stage, names: &BTreeSet<String>) {
        for name in names.iter().filter(|name| !self.globals.knows(name)).collect::<Vec<_>>() {
            let options = self.globals.names();
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            let near = did_you_mean(name, options.iter().copied(), Case::Sensitive);
            let message = format!("FROM argument '{name}' is not declared{near}");
            self.lint.instruction(Rule::UndefinedArgInFrom, &parsed.source, message);
        }
    }

    fn report_redundant(&mut self, parsed: &instruction::Stage, text: &str, expanded: &Expanded) {
        const NAME: &str = "TARGETPLATFORM";
        let only = expanded.matched.len() == 1 && expanded.unmatched.is_empty() && expanded.matched.contains(NAME);
        if only && self.globals.env.value(NAME) == Some(&expanded.text) {
            let message =
                format!("Setting platform to predefined {text} in FROM is redundant as this is the default behavior");
            self.lint.instruction(Rule::RedundantTargetPlatform, &parsed.source, message);
        }
    }

    fn report_constant(&mut self, parsed: &instruction::Stage, expanded: &Expanded) {
        let Ok(platform) = Platform::from_str(&expanded.text) else { return };
        let named = parsed.name.contains(&platform.os) || parsed.name.contains(&platform.architecture);
        if expanded.matched.is_empty() && expanded.unmatched.is_empty() && !named {
            let message = format!("FROM --platform flag should not use constant value {}", quote(&expanded.text));
            self.lint.instruction(Rule::FromPlatformFlagConstDisallowed, &parsed.source, message);
        }
    }

    /// Connects stages with those they take files from, and refuses circles.
    pub(crate) fn link_stages(&mut self) -> Result<(), Problem> {
        let mut at = 0;
        while at < self.stages.len() {
            let id = StageId(at);
            let mut commands = std::mem::take(&mut self.stages.get_mut(id).commands);
            for command in &mut commands {
                if let Err(problem) = self.link_command(id, command) {
                    command.sourceless = true;
                    self.note(problem);
                }
            }
            self.stages.get_mut(id).commands = commands;
            at += 1;
        }
        self.stages.check_circles()?;
        if self.stages.len() == 1 {
            self.stages.get_mut(StageId(0)).display.clear();
        }
        Ok(())
    }

    /// Finds, or adds, the stages an instruction takes files from; tells whether there are any.
    pub(crate) fn link_command(&mut self, id: StageId, command: &mut Command<'a>) -> Result<bool, Problem> {
        let lines = command.instruction.source.lines.clone();
        command.sources = match &command.instruction.kind {
            InstructionKind::Copy(copy) if !copy.from.is_empty() => {
                let source = self.copy_source(&copy.from, &command.instruction);
                vec![source.map_err(|p| p.at(&lines).unplaced_upstream())?]
            }
            InstructionKind::Run(run) => self.mount_sources(run, &lines),
            _ => Vec::new(),
        };
        for source in &command.sources {
            self.stages.get_mut(id).needs.insert(*source, lines.clone());
        }
        Ok(!command.sources.is_empty())
    }

    fn copy_source(&mut self, from: &str, instruction: &Instruction) -> Result<StageId, Problem> {
        const REFUSED: &str = "variable expansion is not supported for --from, define a new stage with FROM using ARG \
                               from global scope as a workaround";
        let none: &[(String, String)] = &[];
        let expanded = self.lexer.word(from, &none).map_err(Problem::from)?;
        if expanded.text != from {
            let hint = format!("write `FROM {from} AS NAME`, with the ARG before the first FROM, and `--from=NAME`");
            return Err(Problem::new(REFUSED).marking(from).hinted(hint));
        }
        match from.parse::<i64>() {
            Ok(index) => match usize::try_from(index) {
                Ok(index) if index < self.stages.len() => Ok(StageId(index)),
                _ => Err(Problem::new(format!("invalid stage index {index}"))
                    .marking(from)
                    .hinted("the first stage is 0; better name it: `FROM IMAGE AS NAME`, `--from=NAME`")),
            },
            Err(_) => Ok(self.stage_or_image(from, &instruction.source.lines, &instruction.source.lines)),
        }
    }

    fn mount_sources(&mut self, run: &RunInstruction, lines: &[LineRange]) -> Vec<StageId> {
        // The parser has refused mounts that cannot be read; one that comes from nowhere comes from an empty tree.
        let from = |text: &String| mount::from_of(text).ok().filter(|from| !from.is_empty());
        let names: Vec<String> = run.mounts.iter().map(|m| from(m).unwrap_or_else(|| SCRATCH.into())).collect();
        names.iter().map(|name| self.stage_or_image(name, &[], lines)).collect()
    }

    /// Finds a stage, or adds one for an image, whose op belongs to `lines` and which an instruction at `named_at` names.
    fn stage_or_image(&mut self, name: &str, lines: &[LineRange], named_at: &[LineRange]) -> StageId {
        self.stages.by_name(name).unwrap_or_else(|| {
            let source = Cow::Owned(instruction::SourceLine { lines: lines.to_vec(), ..Default::default() });
            let (base_name, named_at) = (name.to_owned(), named_at.to_vec());
            self.stages.add(Stage { base_name, source, implicit: true, named_at, ..Stage::default() })
        })
    }

    /// Returns the lexer of heredoc bodies: quotes are plain text, and the escape is `\` whatever the file says.
    pub(crate) fn body_lexer(&self) -> Lexer {
        Lexer { skip_process_quotes: true, ..Lexer::new('\\') }
    }
}

/// Returns a stage as far as its name tells.
fn begin(at: usize, parsed: &instruction::Stage) -> Stage<'_> {
    let unnamed = parsed.name.is_empty();
    Stage {
        name: parsed.name.clone(),
        display: if unnamed { format!("stage-{at}") } else { parsed.name.clone() },
        source: Cow::Borrowed(&parsed.source),
        commands: commands_of(parsed),
        ..Stage::default()
    }
}

fn commands_of(parsed: &instruction::Stage) -> Vec<Command<'_>> {
    let command = |i| Command { instruction: Cow::Borrowed(i), sources: Vec::new(), onbuild: false, sourceless: false };
    parsed.instructions.iter().map(command).collect()
}

/// Tells whether an instruction is numbered as a step.
pub(crate) fn is_step(instruction: &Instruction) -> bool {
    matches!(
        instruction.kind,
        InstructionKind::Add(_) | InstructionKind::Copy(_) | InstructionKind::Run(_) | InstructionKind::Workdir(_)
    )
}
