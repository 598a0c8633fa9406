//! What a target takes from outside: the arguments, secrets, agents and caches its instructions use.
//!
//! In: notes that instructions leave while they are carried out. Out: [`Outline`], each thing once, with the line that brings
//! it in. Which of two definitions counts follows BuildKit: a stage's own, then its base's, then those it takes files from;
//! an ARG that only takes over a global one is told by the global one's line.

use std::collections::{BTreeMap, BTreeSet};

use super::args;
use super::lowering::Lowering;
use super::paths;
use super::stage::StageId;
use crate::diag::LineRange;
use crate::dockerfile::instruction::{InstructionKind, SourceLine};
use crate::dockerfile::mount::{MountSpec, MountType};

/// What the instructions of one stage use.
#[derive(Debug, Clone, Default)]
pub(crate) struct Capture {
    args: Vec<(Used, Scope)>,
    mounts: Vec<(Resource, Used)>,
}

/// Where the definition of an argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Stage,
    Global,
}

/// A kind of thing that a mount brings in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Resource {
    Secret,
    Agent,
    Cache,
}

/// One thing that is used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) description: String,
    pub(crate) required: bool,
    pub(crate) lines: Vec<LineRange>,
}

/// All that a target uses, in the order of the lines.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outline {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) args: Vec<Used>,
    pub(crate) secrets: Vec<Used>,
    pub(crate) agents: Vec<Used>,
    pub(crate) caches: Vec<Used>,
}

/// An argument's definition and the arguments its default is made of.
type Definitions = BTreeMap<String, (Used, BTreeSet<String>)>;

impl Capture {
    /// Notes an ARG; one without a value of its own is the global one.
    pub(crate) fn arg(&mut self, source: &SourceLine, name: &str, value: Option<&str>, is_global: bool) {
        let used = Used {
            name: name.to_owned(),
            value: value.unwrap_or_default().to_owned(),
            description: description(&source.comments, name),
            required: false,
            lines: source.lines.clone(),
        };
        self.args.push((used, if is_global { Scope::Global } else { Scope::Stage }));
    }

    /// Notes a mount, if it is of something from outside.
    pub(crate) fn mount(&mut self, source: &SourceLine, spec: &MountSpec) {
        let (kind, name) = match spec.kind {
            MountType::Secret if !spec.source.is_empty() => (Resource::Secret, spec.source.as_str()),
            MountType::Secret if spec.id.is_empty() => (Resource::Secret, paths::base(&spec.target)),
            MountType::Secret => (Resource::Secret, spec.id.as_str()),
            MountType::Ssh if spec.id.is_empty() => (Resource::Agent, "default"),
            MountType::Ssh => (Resource::Agent, spec.id.as_str()),
            MountType::Cache if spec.id.is_empty() => (Resource::Cache, spec.target.as_str()),
            MountType::Cache => (Resource::Cache, spec.id.as_str()),
            _ => return,
        };
        let used =
            Used { name: name.to_owned(), required: spec.required, lines: source.lines.clone(), ..Used::default() };
        self.mounts.push((kind, used));
    }
}

/// Returns what a comment `NAME TEXT` above an instruction says of the thing of that name.
pub(crate) fn description(comments: &[String], name: &str) -> String {
    let of_name = |comment: &String| Some(comment.strip_prefix(name)?.strip_prefix(' ')?.to_owned());
    if name.is_empty() { String::new() } else { comments.iter().find_map(of_name).unwrap_or_default() }
}

impl Lowering<'_> {
    /// Sums up what a target uses; its instructions are carried out.
    pub(crate) fn outline(&self, target: StageId) -> Outline {
        let globals = self.global_definitions();
        let mut outline = Outline::default();
        if let Some(stage) = self.given.dockerfile.stages.get(target.0) {
            outline.name.clone_from(&stage.name);
            outline.description = description(&stage.source.comments, &stage.name);
        }
        let mut known = BTreeSet::new();
        let mut mounts: BTreeMap<(Resource, &str), &Used> = BTreeMap::new();
        for id in self.in_order_of_precedence(target) {
            outline.args.extend(self.args_of(id, &globals).into_iter().filter(|used| known.insert(used.name.clone())));
            for (kind, used) in &self.stages.get(id).outline.mounts {
                mounts.entry((*kind, &used.name)).or_insert(used);
            }
        }
        for ((kind, _), used) in mounts {
            match kind {
                Resource::Secret => outline.secrets.push(used.clone()),
                Resource::Agent => outline.agents.push(used.clone()),
                Resource::Cache => outline.caches.push(used.clone()),
            }
        }
        for list in [&mut outline.args, &mut outline.secrets, &mut outline.agents, &mut outline.caches] {
            list.sort_by_key(|used| used.lines.first().map_or(0, |range| range.start));
        }
        outline
    }

    /// Lists a stage, its base, and what it takes files from, each followed by its own, once.
    fn in_order_of_precedence(&self, target: StageId) -> Vec<StageId> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        let mut waiting = vec![target];
        while let Some(id) = waiting.pop() {
            if seen.insert(id) {
                order.push(id);
                let stage = self.stages.get(id);
                waiting.extend(stage.needs.keys().rev().copied());
                waiting.extend(stage.base);
            }
        }
        order
    }

    /// Lists the arguments of a stage: those of its ARGs and of the FROMs below it, and what those are made of.
    fn args_of(&self, id: StageId, globals: &Definitions) -> Vec<Used> {
        let mut own: BTreeMap<&str, &Used> = BTreeMap::new();
        let mut waiting = self.names_in_from(id);
        for (used, scope) in &self.stages.get(id).outline.args {
            waiting.insert(used.name.clone());
            if *scope == Scope::Stage {
                own.insert(&used.name, used);
            }
        }
        let mut names: BTreeSet<String> = BTreeSet::new();
        let mut list = Vec::new();
        while let Some(name) = waiting.pop_first() {
            if !names.insert(name.clone()) {
                continue;
            }
            if let Some(used) = own.get(name.as_str()) {
                list.push((*used).clone());
            } else if let Some((used, parts)) = globals.get(&name) {
                list.push(used.clone());
                waiting.extend(parts.iter().cloned());
            }
        }
        list
    }

    /// Lists the variables in the FROM of a stage and of those below it.
    fn names_in_from(&self, id: StageId) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let mut next = Some(id);
        while let Some(id) = next {
            let stage = self.stages.get(id);
            next = stage.base;
            let Some(parsed) = self.given.dockerfile.stages.get(id.0).filter(|_| stage.context.is_none()) else {
                continue;
            };
            let words = [Some(&parsed.base), parsed.platform.as_ref()];
            for word in words.into_iter().flatten() {
                // What cannot be expanded has failed the lowering before.
                names.extend(self.lexer.word(word, &self.globals.env).map(|e| e.matched).unwrap_or_default());
            }
        }
        names
    }

    /// Evaluates the ARGs before the first FROM again, this time with where they are and what they are made of.
    fn global_definitions(&self) -> Definitions {
        let given = &self.given.options.build_args;
        let last = self.given.dockerfile.stages.last().map_or("", |stage| stage.name.as_str());
        let stage = Some(self.given.options.target.as_str()).filter(|target| !target.is_empty()).unwrap_or(last);
        let mut env = args::built_in(self.given.build_platform, &self.target_platform, stage, given);
        let mut definitions = Definitions::new();
        for instruction in &self.given.dockerfile.meta_args {
            let InstructionKind::Arg(args) = &instruction.kind else { continue };
            for (name, default) in args {
                let mut parts = BTreeSet::new();
                let value = given.get(name).cloned().or_else(|| {
                    let expanded = self.lexer.word(default.as_ref()?, &env).ok()?;
                    parts = expanded.matched;
                    Some(expanded.text)
                });
                if parts.remove(name)
                    && let Some((_, former)) = definitions.get(name)
                {
                    parts.extend(former.iter().cloned());
                }
                if let Some(value) = &value {
                    env.set(name, value);
                }
                let mut capture = Capture::default();
                capture.arg(&instruction.source, name, value.as_deref(), false);
                definitions.extend(capture.args.into_iter().map(|(used, _)| (name.clone(), (used, parts.clone()))));
            }
        }
        definitions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_begins_with_the_name() {
        let comments = ["other text".to_owned(), "build".to_owned(), "build makes it".to_owned()];
        assert_eq!(description(&comments, "build"), "makes it");
        assert_eq!(description(&comments, "buil"), "");
        assert_eq!(description(&comments, ""), "");
    }
}
