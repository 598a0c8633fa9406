//! The cache map of a file op (cache specification 2.4).

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::{OpKey, hash, is_default, join, outermost};
use crate::checksum::Selector;
use crate::image::canonical;
use crate::llb::{ChownOpt, CopyAction, FileAction, FileActionKind, FileOp, MkdirAction, MkfileAction, UserOpt};

/// Returns the key of a file op with this many inputs.
pub fn file(op: &FileOp, inputs: usize) -> OpKey {
    let (actions, indexes) = hashed(op, inputs);
    let actions = actions.into_iter().map(|action| STANDARD.encode(action)).collect();
    let mut key = OpKey::plain(hash(&Key { kind: "buildkit.file.v0", actions, indexes }), inputs);
    let changed: BTreeSet<i64> = op.actions.iter().map(|action| action.input).collect();
    for (input, paths) in used_paths(op, inputs) {
        let Ok(at) = usize::try_from(input) else { continue };
        if at < inputs && !changed.contains(&input) {
            key.set_input(at, Some(selector(&paths)), Some(content(paths)));
        }
    }
    key
}

/// Returns what is hashed of a file op: each action's JSON, and the numbers that join them.
pub(super) fn hashed(op: &FileOp, inputs: usize) -> (Vec<Vec<u8>>, Vec<[i64; 3]>) {
    let indexes = if is_chain(&op.actions) { Vec::new() } else { op.actions.iter().map(indices).collect() };
    (op.actions.iter().map(|action| action_json(action, inputs)).collect(), indexes)
}

#[derive(Serialize)]
struct Key {
    #[serde(rename = "Type")]
    kind: &'static str,
    #[serde(rename = "Actions")]
    actions: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    indexes: Vec<[i64; 3]>,
}

fn indices(action: &FileAction) -> [i64; 3] {
    [action.input, action.secondary_input, action.output]
}

/// Whether the actions form the usual chain, whose numbers are left out of the key. The rule numbers results from the count
/// of actions, where LLB does from the count of inputs.
fn is_chain(actions: &[FileAction]) -> bool {
    let count = actions.len();
    let usual = |(k, action): (usize, &FileAction)| {
        let input = if k == 0 { 0 } else { count + k - 1 };
        let output = if k + 1 == count { 0 } else { -1 };
        action.input == input as i64 && matches!(action.secondary_input, -1 | 1) && action.output == output
    };
    count > 0 && actions.iter().enumerate().all(usual)
}

/// Returns per input the paths that actions read from it, in the order of the actions.
fn used_paths(op: &FileOp, inputs: usize) -> BTreeMap<i64, Vec<Selector>> {
    let mut used: BTreeMap<i64, Vec<Selector>> = BTreeMap::new();
    for action in &op.actions {
        let owner = match &action.kind {
            FileActionKind::Copy(copy) => &copy.owner,
            FileActionKind::Mkfile(make) => &make.owner,
            FileActionKind::Mkdir(make) => &make.owner,
            FileActionKind::Rm(_) | FileActionKind::Symlink(_) => &None,
        };
        for (input, path) in owner_files(owner.as_ref()) {
            let path = Selector { path: path.into(), follow: true, ..Selector::default() };
            used.entry(input).or_default().push(path);
        }
        if let FileActionKind::Copy(copy) = &action.kind
            && is_input(action.secondary_input, inputs)
        {
            used.entry(action.secondary_input).or_default().push(copied(copy));
        }
    }
    used
}

fn is_input(index: i64, inputs: usize) -> bool {
    usize::try_from(index).is_ok_and(|index| index < inputs)
}

fn owner_files(owner: Option<&ChownOpt>) -> impl Iterator<Item = (i64, &'static str)> {
    let named = |who: Option<&UserOpt>, path| match who {
        Some(UserOpt::ByName { input, .. }) => Some((*input, path)),
        _ => None,
    };
    let user = named(owner.and_then(|owner| owner.user.as_ref()), "/etc/passwd");
    let group = named(owner.and_then(|owner| owner.group.as_ref()), "/etc/group");
    user.into_iter().chain(group)
}

fn copied(copy: &CopyAction) -> Selector {
    Selector {
        path: copy.src.clone(),
        follow: copy.follow_symlink,
        wildcard: copy.allow_wildcard && has_wildcard(&copy.src),
        include: copy.include_patterns.clone(),
        exclude: copy.exclude_patterns.clone(),
        required: copy.required_paths.clone(),
    }
}

fn has_wildcard(pattern: &str) -> bool {
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => drop(chars.next()),
            _ => {}
        }
    }
    false
}

fn selector(paths: &[Selector]) -> crate::digest::Digest {
    let mut texts: Vec<&str> = paths.iter().map(|path| path.path.as_str()).collect();
    texts.sort_unstable_by(|a, b| b.cmp(a));
    join(&texts)
}

fn content(paths: Vec<Selector>) -> Vec<Selector> {
    let is_plain = |path: &Selector| !path.wildcard && path.include.is_empty() && path.exclude.is_empty();
    let (plain, filtered): (Vec<_>, Vec<_>) = paths.into_iter().partition(is_plain);
    let mut all = Vec::new();
    for follow in [false, true] {
        let paths = plain.iter().filter(|path| path.follow == follow).map(|path| path.path.clone()).collect();
        all.extend(outermost(paths).into_iter().map(|path| Selector { path, follow, ..Selector::default() }));
    }
    all.extend(filtered);
    all.sort_by(|a, b| a.path.cmp(&b.path));
    all
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CopyJson<'a> {
    #[serde(skip_serializing_if = "is_default")]
    src: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    dest: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<OwnerJson<'a>>,
    #[serde(skip_serializing_if = "is_default")]
    mode: i32,
    #[serde(skip_serializing_if = "is_default")]
    follow_symlink: bool,
    #[serde(skip_serializing_if = "is_default")]
    dir_copy_contents: bool,
    #[serde(skip_serializing_if = "is_default")]
    attempt_unpack_docker_compatibility: bool,
    #[serde(skip_serializing_if = "is_default")]
    create_dest_path: bool,
    #[serde(skip_serializing_if = "is_default")]
    allow_wildcard: bool,
    #[serde(skip_serializing_if = "is_default")]
    allow_empty_wildcard: bool,
    #[serde(skip_serializing_if = "is_default")]
    timestamp: i64,
    #[serde(rename = "include_patterns", skip_serializing_if = "is_default")]
    include_patterns: &'a [String],
    #[serde(rename = "exclude_patterns", skip_serializing_if = "is_default")]
    exclude_patterns: &'a [String],
    #[serde(skip_serializing_if = "is_default")]
    always_replace_existing_dest_paths: bool,
    #[serde(skip_serializing_if = "is_default")]
    mode_str: &'a str,
    #[serde(rename = "required_paths", skip_serializing_if = "is_default")]
    required_paths: &'a [String],
}

#[derive(Serialize)]
struct MkfileJson<'a> {
    #[serde(skip_serializing_if = "is_default")]
    path: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    mode: i32,
    #[serde(skip_serializing_if = "is_default")]
    data: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<OwnerJson<'a>>,
    #[serde(skip_serializing_if = "is_default")]
    timestamp: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MkdirJson<'a> {
    #[serde(skip_serializing_if = "is_default")]
    path: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    mode: i32,
    #[serde(skip_serializing_if = "is_default")]
    make_parents: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<OwnerJson<'a>>,
    #[serde(skip_serializing_if = "is_default")]
    timestamp: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RmJson<'a> {
    #[serde(skip_serializing_if = "is_default")]
    path: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    allow_not_found: bool,
    #[serde(skip_serializing_if = "is_default")]
    allow_wildcard: bool,
}

#[derive(Serialize)]
struct SymlinkJson<'a> {
    #[serde(skip_serializing_if = "is_default")]
    oldpath: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    newpath: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<OwnerJson<'a>>,
    #[serde(skip_serializing_if = "is_default")]
    timestamp: i64,
}

#[derive(Serialize)]
struct OwnerJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<WhoJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<WhoJson<'a>>,
}

#[derive(Serialize)]
struct WhoJson<'a> {
    #[serde(rename = "User")]
    user: UserJson<'a>,
}

#[derive(Serialize)]
struct UserJson<'a> {
    #[serde(rename = "byName", skip_serializing_if = "Option::is_none")]
    by_name: Option<NameJson<'a>>,
    #[serde(rename = "byId", skip_serializing_if = "is_default")]
    by_id: u32,
}

#[derive(Serialize)]
struct NameJson<'a> {
    #[serde(skip_serializing_if = "is_default")]
    name: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    input: i64,
}

fn owner_json(owner: Option<&ChownOpt>) -> Option<OwnerJson<'_>> {
    owner.map(|owner| OwnerJson { user: owner.user.as_ref().map(who_json), group: owner.group.as_ref().map(who_json) })
}

fn who_json(user: &UserOpt) -> WhoJson<'_> {
    let user = match user {
        UserOpt::ById(id) => UserJson { by_name: None, by_id: *id },
        UserOpt::ByName { name, input } => UserJson { by_name: Some(NameJson { name, input: *input }), by_id: 0 },
    };
    WhoJson { user }
}

fn action_json(action: &FileAction, inputs: usize) -> Vec<u8> {
    match &action.kind {
        FileActionKind::Copy(copy) => {
            let src = if is_input(action.secondary_input, inputs) { base_name(&copy.src) } else { &copy.src };
            copy_json(copy, src)
        }
        FileActionKind::Mkfile(make) => mkfile_json(make),
        FileActionKind::Mkdir(make) => mkdir_json(make),
        FileActionKind::Rm(rm) => canonical::to_vec(&RmJson {
            path: &rm.path,
            allow_not_found: rm.allow_not_found,
            allow_wildcard: rm.allow_wildcard,
        }),
        FileActionKind::Symlink(link) => canonical::to_vec(&SymlinkJson {
            oldpath: &link.oldpath,
            newpath: &link.newpath,
            owner: owner_json(link.owner.as_ref()),
            timestamp: link.timestamp,
        }),
    }
}

/// Go's `path.Base`.
fn base_name(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    match path.trim_end_matches('/').rsplit('/').next() {
        Some("") | None => "/",
        Some(name) => name,
    }
}

fn copy_json(copy: &CopyAction, src: &str) -> Vec<u8> {
    canonical::to_vec(&CopyJson {
        src,
        dest: &copy.dest,
        owner: owner_json(copy.owner.as_ref()),
        mode: copy.mode,
        follow_symlink: copy.follow_symlink,
        dir_copy_contents: copy.dir_copy_contents,
        attempt_unpack_docker_compatibility: copy.attempt_unpack,
        create_dest_path: copy.create_dest_path,
        allow_wildcard: copy.allow_wildcard,
        allow_empty_wildcard: copy.allow_empty_wildcard,
        timestamp: copy.timestamp,
        include_patterns: &copy.include_patterns,
        exclude_patterns: &copy.exclude_patterns,
        always_replace_existing_dest_paths: copy.always_replace,
        mode_str: &copy.mode_str,
        required_paths: &copy.required_paths,
    })
}

fn mkfile_json(make: &MkfileAction) -> Vec<u8> {
    canonical::to_vec(&MkfileJson {
        path: &make.path,
        mode: make.mode,
        data: STANDARD.encode(&make.data),
        owner: owner_json(make.owner.as_ref()),
        timestamp: make.timestamp,
    })
}

fn mkdir_json(make: &MkdirAction) -> Vec<u8> {
    canonical::to_vec(&MkdirJson {
        path: &make.path,
        mode: make.mode,
        make_parents: make.make_parents,
        owner: owner_json(make.owner.as_ref()),
        timestamp: make.timestamp,
    })
}
