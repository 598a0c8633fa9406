//! A naive model of selectors, after the cache specification word for word: one sorted list of paths, walked from its begin to its
//! end for every question. Wildcards, patterns and links of generated trees give what it gives.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::digest::Digest;
use crate::sys::dir::Dir;

/// What lies at a path.
#[derive(Debug, Clone, PartialEq)]
enum Thing {
    File(String),
    Link(String),
    Directory,
}

/// Things by the names that lead to them, in the order of keys: that of names, a directory before what it holds.
type Things = BTreeMap<Vec<String>, Thing>;

fn header(kind: char, mode: u32, size: usize, link: &str) -> String {
    format!("namemode{mode}uid0gid0size{size}typeflag{kind}linkname{link}unamegnamedevmajor0devminor0")
}

/// The digest of a thing alone; that of a context's root is of nothing.
fn own(path: &[String], thing: &Thing) -> Digest {
    match thing {
        Thing::Directory if path.is_empty() => Digest::compute(b""),
        Thing::Directory => Digest::compute(header('5', 0o755, 0, "")),
        Thing::Link(target) => Digest::compute(header('2', 0o777, 0, target)),
        Thing::File(data) => Digest::compute(header('0', 0o644, data.len(), "") + data),
    }
}

fn whole(things: &Things, path: &[String]) -> Digest {
    let thing = &things[path];
    if *thing != Thing::Directory {
        return own(path, thing);
    }
    let mut text = format!("\0{}", own(path, thing));
    for child in things.keys().filter(|child| child.len() == path.len() + 1 && child.starts_with(path)) {
        text += &format!("\0{}{}", child[path.len()], whole(things, child));
    }
    Digest::compute(text)
}

fn names(path: &str) -> Vec<String> {
    path.split('/').filter(|name| !name.is_empty() && *name != ".").map(str::to_owned).collect()
}

/// Links that have no end.
struct Loop;

/// Follows links from the root on; none where nothing is.
fn resolve(things: &Things, path: &[String], follow: bool) -> Result<Option<Vec<String>>, Loop> {
    let mut rest: Vec<String> = path.to_vec();
    let mut at: Vec<String> = Vec::new();
    let mut links = 0;
    while !rest.is_empty() {
        let name = rest.remove(0);
        if name == ".." {
            at.pop();
            continue;
        }
        at.push(name);
        if let Some(Thing::Link(target)) = things.get(&at)
            && (follow || !rest.is_empty())
        {
            links += 1;
            if links > 255 {
                return Err(Loop);
            }
            at.pop();
            if target.starts_with('/') {
                at.clear();
            }
            rest.splice(0..0, names(target));
        }
    }
    Ok(things.contains_key(&at).then_some(at))
}

/// Whether a pattern of one component matches a name: `*`, `?` and a class of letters.
fn name_matches(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.first() {
        None => name.is_empty(),
        Some(b'*') => (0..=name.len()).any(|at| name_matches(&pattern[1..], &name[at..])),
        Some(b'?') => !name.is_empty() && name_matches(&pattern[1..], &name[1..]),
        Some(b'[') => {
            let end = pattern.iter().position(|byte| *byte == b']').expect("classes end");
            !name.is_empty() && pattern[1..end].contains(&name[0]) && name_matches(&pattern[end + 1..], &name[1..])
        }
        Some(byte) => name.first() == Some(byte) && name_matches(&pattern[1..], &name[1..]),
    }
}

fn path_matches(pattern: &[String], path: &[String]) -> bool {
    pattern.len() == path.len()
        && pattern.iter().zip(path).all(|(pattern, name)| name_matches(pattern.as_bytes(), name.as_bytes()))
}

/// Whether a pattern of an ignore file matches: `**` is any number of names.
fn rule_matches(pattern: &[String], path: &[String]) -> bool {
    match pattern.first().map(String::as_str) {
        None => path.is_empty(),
        Some("**") if pattern.len() == 1 => !path.is_empty(),
        Some("**") => (0..=path.len()).any(|at| rule_matches(&pattern[1..], &path[at..])),
        Some(name) => {
            !path.is_empty()
                && name_matches(name.as_bytes(), path[0].as_bytes())
                && rule_matches(&pattern[1..], &path[1..])
        }
    }
}

/// Whether rules match a path, and which of them, given which matched the directory around it.
fn rules_match(rules: &[String], path: &[String], around: Option<&Vec<bool>>) -> (bool, Vec<bool>) {
    let (mut matched, mut which) = (false, Vec::new());
    // What is selected itself has an empty name, which `*` matches.
    let nameless = [String::new()];
    let path = if path.is_empty() { &nameless } else { path };
    for (at, rule) in rules.iter().enumerate() {
        let (is_exception, pattern) = rule.strip_prefix('!').map_or((false, rule.as_str()), |rest| (true, rest));
        let pattern = names(pattern);
        let hit = match around {
            Some(around) => around[at] || (is_exception == matched && rule_matches(&pattern, path)),
            None => {
                let leading = (1..=path.len()).any(|end| rule_matches(&pattern, &path[..end]));
                is_exception == matched && (leading || rule_matches(&pattern, path))
            }
        };
        if hit {
            matched = !is_exception;
        }
        which.push(hit);
    }
    (matched, which)
}

/// A directory around what is looked at, as the selector spells its path.
struct Around {
    path: Vec<String>,
    real: Vec<String>,
    is_top: bool,
    is_included: bool,
    include: Vec<bool>,
    /// Nothing where it was not asked: BuildKit does not look at what is excluded of what is not included.
    exclude: Option<Vec<bool>>,
}

/// The path as the selector spells it, where it is, whether no directory is around it.
type Included = (Vec<String>, Vec<String>, bool);

/// What is included.
fn included(things: &Things, selector: &Selector) -> Result<Vec<Included>, Loop> {
    let path = names(&selector.path);
    let wild = path.iter().position(|name| name.contains(['*', '?', '['])).filter(|_| selector.wildcard);
    let prefix = path[..wild.unwrap_or(path.len())].to_vec();
    let Some(start) = resolve(things, &prefix, wild.is_some())? else { return Ok(Vec::new()) };
    let (mut found, mut around, mut last) = (Vec::new(), Vec::<Around>::new(), None::<Vec<String>>);
    for (real, thing) in things.iter().filter(|(real, _)| real.starts_with(&start)) {
        let spelled = [&prefix[..], &real[start.len()..]].concat();
        around.retain(|above| spelled.len() > above.path.len() && spelled.starts_with(&above.path));
        if real.is_empty() && path.is_empty() {
            continue;
        }
        if wild.is_some() {
            let below = last.as_ref().is_some_and(|last| spelled.len() > last.len() && spelled.starts_with(last));
            if !below {
                if !path_matches(&path, &spelled) {
                    continue;
                }
                last = Some(spelled.clone());
            }
        }
        let base = last.as_ref().unwrap_or(&path);
        let candidate = &spelled[base.len()..];
        let (includes, include) = rules_match(&selector.include, candidate, around.last().map(|a| &a.include));
        let (excludes, exclude) =
            rules_match(&selector.exclude, candidate, around.last().and_then(|a| a.exclude.as_ref()));
        let is_asked = selector.include.is_empty() || includes;
        let (counts, exclude) = (is_asked && !excludes, is_asked.then_some(exclude));
        let is_top = around.is_empty();
        if counts {
            for above in around.iter_mut().filter(|above| !above.is_included) {
                above.is_included = true;
                found.push((above.path.clone(), above.real.clone(), above.is_top));
            }
            found.push((spelled.clone(), real.clone(), is_top));
        }
        if *thing == Thing::Directory {
            let (path, real) = (spelled, real.clone());
            around.push(Around { path, real, is_top, is_included: counts, include, exclude });
        }
    }
    Ok(found)
}

/// The digest of a selector; none for an error.
fn expected(things: &Things, selector: &Selector) -> Option<Digest> {
    let path = names(&selector.path);
    if !selector.wildcard && selector.include.is_empty() && selector.exclude.is_empty() {
        return Some(whole(things, &resolve(things, &path, selector.follow).ok()??));
    }
    let wild = path.iter().position(|name| name.contains(['*', '?', '['])).filter(|_| selector.wildcard);
    let prefix = wild.unwrap_or(path.len());
    let found = included(things, selector).ok()?;
    let mut digests = Vec::new();
    for (spelled, real, is_top) in &found {
        let is_followed = *is_top && selector.follow && matches!(things[real], Thing::Link(_));
        digests.push(match is_followed {
            true => whole(things, &resolve(things, spelled, true).ok()??),
            false => own(real, &things[real]),
        });
    }
    if let ([(spelled, ..)], [digest]) = (&found[..], &digests[..])
        && spelled.last() == path.last()
    {
        return Some(digest.clone());
    }
    let mut text = String::new();
    for ((spelled, ..), digest) in found.iter().zip(&digests) {
        let key: String = spelled[prefix..].iter().map(|name| format!("\0{name}")).collect();
        text += if key.is_empty() { "\0" } else { &key };
        text += digest.as_str();
    }
    Some(Digest::compute(text))
}

fn make(root: &Path, things: &Things) {
    use std::os::unix::fs::{PermissionsExt, symlink};
    for (path, thing) in things.iter().filter(|(path, _)| !path.is_empty()) {
        let place = root.join(path.join("/"));
        match thing {
            Thing::Directory => std::fs::create_dir(&place).expect("mkdir"),
            Thing::Link(target) => symlink(target, &place).expect("symlink"),
            Thing::File(data) => std::fs::write(&place, data).expect("write"),
        }
        let mode = match thing {
            Thing::Directory => 0o755,
            Thing::File(_) => 0o644,
            Thing::Link(_) => continue,
        };
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(mode)).expect("chmod");
    }
}

const NAMES: [&str; 6] = ["a", "b", "ab", "a.b", "d", "l"];
const TARGETS: [&str; 9] = ["a", "../a", "/d", "/d/a", "d", "/l", "nowhere", "../../b", "."];
const PATHS: [&str; 7] = ["/", "/a", "/d", "/l", "/d/l", "/l/a", "/d/d"];
const WILDCARDS: [&str; 12] =
    ["/*", "/a*", "/?", "/[al]", "/d/*", "/*/a", "/l/*", "/d/l/*", "/*/*", "/l*/?", "/none*", "/*.b"];
const RULES: [&str; 13] = ["a", "b", "*", "a*", "**/b", "d/a", "!a", "!**/b", "*/a", "d", "!d/a", "**", "d/**"];

fn things() -> impl Strategy<Value = Things> {
    let name = prop::sample::select(&NAMES[..]);
    let thing = prop_oneof![
        2 => (0usize..40).prop_map(|n| Some(Thing::File("x".repeat(n % 7)))),
        2 => prop::sample::select(&TARGETS[..]).prop_map(|target| Some(Thing::Link(target.into()))),
        1 => Just(None),
    ];
    prop::collection::vec((prop::collection::vec(name, 1..4), thing), 0..12).prop_map(|list| {
        let mut things = Things::from([(Vec::new(), Thing::Directory)]);
        for (path, thing) in list {
            let path: Vec<String> = path.into_iter().map(str::to_owned).collect();
            let is_free = |end: &usize| things.get(&path[..*end]).is_none_or(|thing| *thing == Thing::Directory);
            if !(0..path.len()).all(|end| is_free(&end)) || things.contains_key(&path) {
                continue;
            }
            for end in 1..path.len() {
                things.insert(path[..end].to_vec(), Thing::Directory);
            }
            things.insert(path, thing.unwrap_or(Thing::Directory));
        }
        things
    })
}

fn selectors() -> impl Strategy<Value = Selector> {
    let path = prop_oneof![
        prop::sample::select(&PATHS[..]).prop_map(|path| (path, false)),
        prop::sample::select(&WILDCARDS[..]).prop_map(|path| (path, true)),
    ];
    let rules = || {
        let rule = prop::sample::select(&RULES[..]).prop_map(str::to_owned);
        prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(rule, 1..4)]
    };
    (path, any::<bool>(), rules(), rules()).prop_map(|((path, wildcard), follow, include, exclude)| Selector {
        path: path.to_owned(),
        follow,
        wildcard,
        include,
        exclude,
        required: Vec::new(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn selectors_choose_what_the_specification_says(
        things in things(),
        selectors in prop::collection::vec(selectors(), 8),
    ) {
        let temp = tempfile::tempdir().expect("temp dir");
        make(temp.path(), &things);
        let dir = Dir::open(temp.path()).expect("open");
        let tree = Tree::new(&dir, None, Ids::Root);
        for selector in &selectors {
            let found = content_digest(&tree, std::slice::from_ref(selector)).ok();
            let expected = expected(&things, selector).map(|digest| Digest::compute(digest.as_str()));
            prop_assert_eq!(found, expected, "{:?}", selector);
        }
    }
}
