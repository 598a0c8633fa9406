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
    let described = names.iter().map(|(number, name)| (name.clone(), text(&list[*number], &names)));
    described.collect()
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

fn text(record: &Value, names: &BTreeMap<usize, String>) -> String {
    let parents: BTreeSet<String> =
        links(record).map(|(input, selector, link)| format!("{input}:{selector}<-{}", names[&link])).collect();
    let result = record.get("layers").is_some() || record.get("chains").is_some();
    let layers = record.get("chains").map(|chains| chains[0]["layers"].to_string()).unwrap_or_default();
    format!("{} result={result}{layers} {parents:?}", record["digest"].as_str().unwrap())
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
