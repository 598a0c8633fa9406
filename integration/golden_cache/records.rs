//! Cache records as a set that can be compared: each by its digest and all it is reached from, and whether it has a result.

use std::collections::{BTreeMap, BTreeSet};

use rbuild::digest::Digest;
use serde_json::Value;

/// Records by a hash over all that leads to them; the text is for people.
pub(crate) type Records = BTreeMap<String, String>;

/// Reads the records of a config, or of the list that an image carries.
pub(crate) fn of(config: &Value) -> Records {
    let list = config.get("records").unwrap_or(config).as_array().unwrap();
    let mut names: BTreeMap<usize, String> = BTreeMap::new();
    while names.len() < list.len() {
        let before = names.len();
        for (number, record) in list.iter().enumerate() {
            if !names.contains_key(&number)
                && let Some(name) = name(record, &names)
            {
                names.insert(number, name);
            }
        }
        assert!(names.len() > before, "records lead in a circle");
    }
    let stacks = Stacks::of(config, list, &names);
    let described = names.iter().map(|(number, name)| (name.clone(), text(&list[*number], &names, &stacks)));
    described.collect()
}

/// The layers of a config, by what they stand on and whose results they are: digests differ from run to run.
struct Stacks {
    parents: Vec<Option<usize>>,
    /// Of each layer, the records whose result it is the top of.
    owners: BTreeMap<usize, BTreeSet<String>>,
}

impl Stacks {
    fn of(config: &Value, list: &[Value], names: &BTreeMap<usize, String>) -> Self {
        let layers = config.get("layers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let parent = |layer: &Value| usize::try_from(layer["parent"].as_i64().unwrap_or(0)).ok();
        let mut owners: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        for (number, record) in list.iter().enumerate() {
            if let Some(top) = top(record) {
                owners.entry(top).or_default().insert(names[&number].clone());
            }
        }
        Self { parents: layers.iter().map(parent).collect(), owners }
    }

    /// What a result is made of, from the top: of each layer the records it is the result of. Nothing of an image's own list,
    /// whose layers are the image's.
    fn describe(&self, record: &Value) -> String {
        let Some(top) = top(record).filter(|_| !self.parents.is_empty()) else { return String::new() };
        let chain = std::iter::successors(Some(top), |layer| self.parents[*layer]);
        let owners =
            |layer: usize| self.owners.get(&layer).into_iter().flatten().cloned().collect::<Vec<_>>().join("+");
        chain.map(|layer| format!("<{}>", owners(layer))).collect()
    }
}

fn top(record: &Value) -> Option<usize> {
    let layer = record.get("layers")?.as_array()?.first()?["layer"].as_u64()?;
    usize::try_from(layer).ok()
}

fn links(record: &Value) -> impl Iterator<Item = (usize, &str, usize)> {
    let inputs = record["inputs"].as_array().into_iter().flatten().enumerate();
    inputs.flat_map(|(input, links)| {
        let link = move |link: &'_ Value| link["link"].as_u64().unwrap() as usize;
        links.as_array().unwrap().iter().map(move |l| (input, l["selector"].as_str().unwrap_or(""), link(l)))
    })
}

fn name(record: &Value, names: &BTreeMap<usize, String>) -> Option<String> {
    let parents: Option<BTreeSet<String>> = links(record)
        .map(|(input, selector, link)| Some(format!("{input} {selector} {}", names.get(&link)?)))
        .collect();
    let text = format!("{} {:?}", record["digest"].as_str().unwrap(), parents?);
    Some(Digest::compute(text).short().to_owned())
}

fn text(record: &Value, names: &BTreeMap<usize, String>, stacks: &Stacks) -> String {
    let parents: BTreeSet<String> =
        links(record).map(|(input, selector, link)| format!("{input}:{selector}<-{}", names[&link])).collect();
    let result = record.get("layers").is_some() || record.get("chains").is_some();
    let layers = record.get("chains").map(|chains| chains[0]["layers"].to_string()).unwrap_or_default();
    let stack = stacks.describe(record);
    format!("{} result={result}{layers}{stack} {parents:?}", record["digest"].as_str().unwrap())
}

/// Says which records one set has and the other has not.
pub(crate) fn differences(expected: &Records, found: &Records) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, text) in expected.iter().filter(|(name, text)| found.get(*name) != Some(*text)) {
        lines.push(format!("missing {name}: {text}"));
    }
    for (name, text) in found.iter().filter(|(name, text)| expected.get(*name) != Some(*text)) {
        lines.push(format!("extra   {name}: {text}"));
    }
    lines
}
