//! Cache records as a set that can be compared: each by its digest and all it is reached from, and whether it has a result.

use std::collections::{BTreeMap, BTreeSet};

use rbuild::digest::Digest;
use serde_json::{Value, json};

/// Records by a hash over all that leads to them; the text is for people.
pub(crate) type Records = BTreeMap<String, String>;

/// Reads the records of a config, or of the list that an image carries.
pub(crate) fn of(config: &Value) -> Records {
    let list = list(config);
    let names = names(list);
    let stacks = Stacks::of(config, list, &names);
    let described = names.iter().map(|(number, name)| (name.clone(), text(&list[*number], &names, &stacks)));
    described.collect()
}

fn list(config: &Value) -> &[Value] {
    config.get("records").unwrap_or(config).as_array().unwrap()
}

fn names(list: &[Value]) -> BTreeMap<usize, String> {
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
    names
}

/// Returns whether two configs are the same, or differ only in an order that BuildKit leaves to chance.
pub(crate) fn are_same(expected: &[u8], found: &[u8]) -> bool {
    let read = |bytes: &[u8]| -> Value { serde_json::from_slice(bytes).unwrap() };
    expected == found || (is_left_to_chance(&read(expected)) && unordered(&read(expected)) == unordered(&read(found)))
}

/// Shows that another order is the same where it is left to chance and only there, and that other content never is.
pub(crate) fn check_the_comparison() {
    let config = |digests: [&str; 2], blobs: [&str; 2]| {
        let layers: Vec<Value> = ["a", "b", "c"].map(|blob| json!({"blob": blob, "parent": -1})).into();
        let place = |blob: &str| layers.iter().position(|layer| layer["blob"] == blob).unwrap();
        let result = |blob: &str| json!([{"layer": place(blob), "createdAt": "t"}]);
        let records = [0, 1].map(|n| json!({"digest": digests[n], "layers": result(blobs[n])}));
        json!({"layers": layers, "records": records}).to_string().into_bytes()
    };
    let chance = config(["x", "x"], ["a", "b"]);
    assert!(are_same(&chance, &chance) && are_same(&chance, &config(["x", "x"], ["b", "a"])));
    assert!(!are_same(&chance, &config(["x", "x"], ["a", "c"])) && !are_same(&chance, &config(["x", "y"], ["a", "b"])));
    assert!(!are_same(&config(["x", "y"], ["a", "b"]), &config(["y", "x"], ["b", "a"])));
}

/// Whether records compare equal by all that BuildKit compares, or one blob lies on several and several records lead nowhere:
/// then its order is that of its walk, which begins anywhere.
pub(crate) fn is_left_to_chance(config: &Value) -> bool {
    let list = list(config);
    let key = |record: &Value| {
        let linked =
            links(record).map(|(input, selector, link)| (input, selector.to_owned(), list[link]["digest"].to_string()));
        (record["digest"].to_string(), linked.collect::<BTreeSet<_>>())
    };
    let keys: BTreeSet<_> = list.iter().map(key).collect();
    let linked: BTreeSet<usize> = list.iter().flat_map(links).map(|(_, _, link)| link).collect();
    let layers = config["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let blobs: BTreeSet<String> = layers.iter().map(|layer| layer["blob"].to_string()).collect();
    keys.len() < list.len() || (linked.len() + 1 < list.len() && blobs.len() < layers.len())
}

/// A config without its order: each record by name, with its results as times and blobs.
fn unordered(config: &Value) -> Vec<String> {
    let layers = config["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let below = |layer: &usize| usize::try_from(layers[*layer]["parent"].as_i64().unwrap_or(0)).ok();
    let result = |result: &Value| {
        let top = usize::try_from(result["layer"].as_u64().unwrap()).unwrap();
        let blobs: Vec<String> =
            std::iter::successors(Some(top), below).map(|layer| layers[layer]["blob"].to_string()).collect();
        format!("{} {}", result["createdAt"], blobs.join(" "))
    };
    let (list, names) = (list(config), names(list(config)));
    let text = |(number, name): (&usize, &String)| {
        let results = list[*number]["layers"].as_array().into_iter().flatten().map(result);
        format!("{name} {}", results.collect::<Vec<_>>().join(" "))
    };
    let mut all: Vec<String> = names.iter().map(text).collect();
    all.sort();
    all
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

    /// What a result is made of, from the top: of each layer the records it is the result of. Of an image's own list, whose
    /// layers are the image's, which layer it is.
    fn describe(&self, record: &Value) -> String {
        let Some(top) = top(record) else { return String::new() };
        if self.parents.is_empty() {
            return top.to_string();
        }
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
