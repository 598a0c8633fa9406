//! The stages of one lowering: those of the Dockerfile, and images that instructions name and no FROM does.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::contexts::ContextValue;
use super::env::{EnvList, Lost};
use super::graph::NodeId;
use super::outline;
use crate::diag::{Case, LineRange, did_you_mean};
use crate::dockerfile::goquote::quote;
use crate::dockerfile::instruction::{Instruction, SourceLine};
use crate::image::{ImageConfig, Platform};

use super::error::Problem;

/// Index of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StageId(pub(crate) usize);

/// What a stage has come to: a tree, and what processes in it see.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// The tree; none while it is empty.
    pub(crate) root: Option<NodeId>,
    pub(crate) env: EnvList,
    pub(crate) cwd: String,
    pub(crate) user: String,
    /// Platform of the tree, normalised; none for one that started empty.
    pub(crate) platform: Option<Platform>,
}

impl Default for State {
    fn default() -> Self {
        Self { root: None, env: EnvList::default(), cwd: "/".into(), user: String::new(), platform: None }
    }
}

/// An instruction with the stages it takes files from.
#[derive(Debug, Clone)]
pub(crate) struct Command<'a> {
    pub(crate) instruction: Cow<'a, Instruction>,
    /// COPY: at most one. RUN: one for each mount.
    pub(crate) sources: Vec<StageId>,
    /// Whether a trigger of the base brought it.
    pub(crate) onbuild: bool,
    /// Whether what it takes files from could not be found.
    pub(crate) sourceless: bool,
}

/// An ARG as it took effect.
#[derive(Debug, Clone)]
pub(crate) struct DeclaredArg {
    pub(crate) name: String,
    pub(crate) value: Option<String>,
}

/// How far a stage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    /// Its base is known.
    pub(crate) resolved: bool,
    /// Its instructions are carried out, or it has none.
    pub(crate) dispatched: bool,
    /// Triggers of its base are taken over.
    pub(crate) triggered: bool,
}

/// Instructions of which only the last of a kind counts, by where the former one stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Former {
    pub(crate) cmd: Option<Vec<LineRange>>,
    pub(crate) entrypoint: Option<Vec<LineRange>>,
    pub(crate) healthcheck: Option<Vec<LineRange>>,
}

/// A stage.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stage<'a> {
    /// Declared name, lower-cased.
    pub(crate) name: String,
    /// Name in step names; empty when there is only one stage.
    pub(crate) display: String,
    /// Base as expanded; once resolved, the normalised reference.
    pub(crate) base_name: String,
    pub(crate) source: Cow<'a, SourceLine>,
    /// The stage it is based on.
    pub(crate) base: Option<StageId>,
    /// The context that replaces it.
    pub(crate) context: Option<ContextValue>,
    pub(crate) platform: Option<Platform>,
    pub(crate) state: State,
    /// Configuration; the history of a base stage is joined in at the end only.
    pub(crate) image: ImageConfig,
    /// Configuration of the base image, unmodified.
    pub(crate) base_image: Option<ImageConfig>,
    pub(crate) progress: Progress,
    /// Whether an instruction named it and no FROM did.
    pub(crate) implicit: bool,
    /// Where the first instruction that did so stands.
    pub(crate) named_at: Vec<LineRange>,
    /// Variables that cannot be known.
    pub(crate) lost: Lost,
    pub(crate) commands: Vec<Command<'a>>,
    /// What it takes files from, with the lines that do.
    pub(crate) needs: BTreeMap<StageId, Vec<LineRange>>,
    pub(crate) args: Vec<DeclaredArg>,
    /// What its own instructions take from outside.
    pub(crate) outline: outline::Capture,
    /// Paths used of the main context.
    pub(crate) context_paths: BTreeSet<String>,
    /// The stage that holds the paths used of this one: its first ancestor.
    pub(crate) paths_of: usize,
    /// Paths used of this stage and those based on it.
    pub(crate) paths: BTreeSet<String>,
    pub(crate) ignore_cache: bool,
    /// Number of steps shown.
    pub(crate) total: usize,
    /// Number of the last step named.
    pub(crate) index: usize,
    /// Whether the instruction at hand is a trigger.
    pub(crate) in_onbuild: bool,
    /// Whether a WORKDIR was given in this Dockerfile.
    pub(crate) workdir_set: bool,
    pub(crate) former: Former,
    /// Position of each variable in the image's `Env`.
    pub(crate) env_places: BTreeMap<String, usize>,
}

impl Stage<'_> {
    /// Returns the platform, or `fallback` where none is set.
    pub(crate) fn platform_or<'p>(&'p self, fallback: &'p Platform) -> &'p Platform {
        self.platform.as_ref().unwrap_or(fallback)
    }
}

/// All stages, by index and by name; a later definition of a name replaces a former one.
#[derive(Debug, Default)]
pub(crate) struct Stages<'a> {
    list: Vec<Stage<'a>>,
    names: BTreeMap<String, StageId>,
}

impl<'a> Stages<'a> {
    /// Adds a stage; its base is looked up among the former ones.
    pub(crate) fn add(&mut self, mut stage: Stage<'a>) -> StageId {
        let id = StageId(self.list.len());
        stage.base = self.names.get(&stage.base_name).copied();
        stage.paths_of = stage.base.map_or(id.0, |base| self.list[base.0].paths_of);
        if !stage.name.is_empty() {
            self.names.insert(stage.name.to_lowercase(), id);
        }
        self.list.push(stage);
        id
    }

    pub(crate) fn get(&self, id: StageId) -> &Stage<'a> {
        &self.list[id.0]
    }

    pub(crate) fn get_mut(&mut self, id: StageId) -> &mut Stage<'a> {
        &mut self.list[id.0]
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = StageId> + use<> {
        (0..self.list.len()).map(StageId)
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<StageId> {
        self.names.get(&name.to_lowercase()).copied()
    }

    /// Returns the names shown to the user.
    pub(crate) fn displays(&self) -> Vec<&str> {
        self.list.iter().map(|s| s.display.as_str()).filter(|name| !name.is_empty()).collect()
    }

    /// Notes that a path of a stage is used.
    pub(crate) fn use_path(&mut self, id: StageId, path: String) {
        let holder = self.list[id.0].paths_of;
        self.list[holder].paths.insert(path);
    }

    /// Returns the target of a build.
    pub(crate) fn target(&self, name: &str) -> Result<StageId, Problem> {
        if name.is_empty() {
            return Ok(StageId(self.list.len().saturating_sub(1)));
        }
        self.by_name(name).ok_or_else(|| {
            let near = did_you_mean(name, self.displays(), Case::Sensitive);
            let problem = Problem::usage(format!("target stage {} could not be found{near}", quote(name)));
            let named = self.list.iter().filter(|stage| !stage.implicit && !stage.name.is_empty());
            match named.map(|stage| stage.name.as_str()).collect::<Vec<_>>().as_slice() {
                [] => problem.hinted("no stage has a name: give it one with `FROM IMAGE AS NAME`"),
                names => problem.hinted(format!("the stages are {}", names.join(", "))),
            }
        })
    }

    /// Marks what `target` needs.
    pub(crate) fn reachable(&self, target: StageId) -> Vec<bool> {
        let mut marks = vec![false; self.list.len()];
        let mut stack = vec![target];
        while let Some(id) = stack.pop() {
            if !std::mem::replace(&mut marks[id.0], true) {
                let stage = self.get(id);
                stack.extend(stage.base.iter().chain(stage.needs.keys()));
            }
        }
        marks
    }

    /// Fails if stages take files from each other in a circle.
    pub(crate) fn check_circles(&self) -> Result<(), Problem> {
        let mut seen = vec![false; self.list.len()];
        for id in self.ids() {
            self.check_circle_from(id, &mut seen)?;
        }
        Ok(())
    }

    fn check_circle_from(&self, start: StageId, seen: &mut [bool]) -> Result<(), Problem> {
        if std::mem::replace(&mut seen[start.0], true) {
            return Ok(());
        }
        let mut on_path = BTreeSet::from([start]);
        let mut path = vec![(start, self.pending(start))];
        let mut trail: Vec<&[LineRange]> = Vec::new();
        while let Some((_, pending)) = path.last_mut() {
            let Some((next, lines)) = pending.pop() else {
                if let Some((done, _)) = path.pop() {
                    on_path.remove(&done);
                }
                trail.pop();
                continue;
            };
            if on_path.contains(&next) {
                trail.push(lines);
                return Err(self.circle(start, &trail));
            }
            if !std::mem::replace(&mut seen[next.0], true) {
                trail.push(lines);
                on_path.insert(next);
                path.push((next, self.pending(next)));
            }
        }
        Ok(())
    }

    fn pending(&self, id: StageId) -> Vec<(StageId, &[LineRange])> {
        self.get(id).needs.iter().rev().map(|(id, lines)| (*id, lines.as_slice())).collect()
    }

    fn circle(&self, start: StageId, trail: &[&[LineRange]]) -> Problem {
        let name = &self.get(start).display;
        let problem = Problem::new(format!("circular dependency detected on stage: {name}"))
            .hinted("a stage takes files from stages above it that do not need it themselves");
        trail.iter().fold(problem, |problem, lines| problem.at(lines))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stages(needs: &[&[usize]]) -> Stages<'static> {
        let mut stages = Stages::default();
        for (at, needs) in needs.iter().enumerate() {
            let line = |n: usize| vec![LineRange { start: n as u32, end: n as u32 }];
            let needs = needs.iter().map(|n| (StageId(*n), line(at))).collect();
            stages.add(Stage { name: format!("s{at}"), display: format!("s{at}"), needs, ..Stage::default() });
        }
        stages
    }

    #[test]
    fn circles_are_found_and_trees_are_not() {
        assert_eq!(stages(&[&[], &[0], &[0, 1], &[0, 1, 2]]).check_circles(), Ok(()));
        let error = stages(&[&[], &[0, 3], &[], &[2, 1]]).check_circles().expect_err("circle");
        assert_eq!(error.message, "circular dependency detected on stage: s1");
        assert_eq!(error.ranges.iter().map(|r| r.start).collect::<Vec<_>>(), [1, 3]);
        assert!(stages(&[&[0]]).check_circles().is_err());
    }

    #[test]
    fn deep_chains_do_not_overflow() {
        let needs: Vec<Vec<usize>> = (0..20_000).map(|n| if n == 0 { vec![] } else { vec![n - 1] }).collect();
        let needs: Vec<&[usize]> = needs.iter().map(Vec::as_slice).collect();
        assert_eq!(stages(&needs).check_circles(), Ok(()));
    }
}
