//! What is checked of each case; every check returns what differs.

use serde_json::Value;

use crate::build::Workshop;
use crate::case::Case;
use crate::layout::{Layout, assemble, json};
use crate::records;
use crate::registry::BaseRegistry;
use crate::support::build::User;

const INLINE_KEY: &str = "moby.buildkit.cache.v0";

/// Runs all checks of a case.
pub(crate) fn all(case: &Case, user: User, registry: &BaseRegistry) -> Vec<String> {
    let mut found = Vec::new();
    let mut note =
        |title: &str, lines: Vec<String>| found.extend(lines.into_iter().map(|line| format!("{title}: {line}")));
    let is_inline = case.path.join("inline-image").exists();
    for mode in ["max", "min"] {
        note(&format!("import {mode}"), import(case, user, registry, mode));
        note(&format!("export {mode}"), export(case, user, registry, mode));
    }
    note("mutations", mutations(case, user, registry));
    if is_inline {
        note("inline import", inline_import(case, user, registry));
        note("inline export", inline_export(case, user, registry));
    }
    found
}

/// Puts BuildKit's export into the workshop and returns the flag's value.
fn import_flag(case: &Case, shop: &Workshop, mode: &str) -> String {
    let place = shop.layout(&format!("import-{mode}"));
    assemble(&case.folder, &case.path.join(format!("cache-{mode}")), &place.0);
    shop.give(&place.0);
    format!("type=local,src={}", place.0.display())
}

fn image_output(case: &Case, layout: &Layout) -> String {
    let more = if case.output.is_empty() { String::new() } else { format!(",{}", case.output) };
    format!("type=oci,tar=false,dest={}{more}", layout.0.display())
}

fn import(case: &Case, user: User, registry: &BaseRegistry, mode: &str) -> Vec<String> {
    let shop = Workshop::new(case, user, registry);
    let (from, image, again) = (import_flag(case, &shop, mode), shop.layout("image"), shop.layout("again"));
    let to = export_flag(case, &again, mode);
    let output = image_output(case, &image);
    let states = shop.build(&["--cache-from".into(), from, "--cache-to".into(), to, "-o".into(), output]);
    let steps = if case.path.join("steps-local.txt").exists() { "steps-local.txt" } else { "steps.txt" };
    let mut lines = states_differ(&case.steps(steps, mode), &states);
    let layers = image.layers();
    if mode == "max" {
        let of = |name: &str| {
            let local = case.path.join(format!("{name}-local.json"));
            json(&if local.exists() { local } else { case.path.join(format!("{name}.json")) })
        };
        let expected: Vec<String> = digests(&of("image-manifest")["layers"]);
        if is_of_one_form(case) && expected != layers {
            lines.push(format!("the image has layers {layers:?}, expected {expected:?}"));
        }
        let (expected, found) = (&of("image-config")["rootfs"], &image.config()["rootfs"]);
        if expected != found {
            lines.push(format!("the image has the root {found}, expected {expected}"));
        }
    }
    let imported = Layout(shop.project.home().join(format!("import-{mode}")));
    let known = imported.layers();
    let missing = layers.iter().filter(|layer| is_of_one_form(case) && !known.contains(layer));
    lines.extend(missing.map(|l| format!("layer {l} is not the cache's")));
    let bytes = |layout: &Layout| {
        let config = layout.cache().1;
        String::from_utf8(layout.blob(config["digest"].as_str().unwrap())).unwrap()
    };
    if !records::are_same(bytes(&imported).as_bytes(), bytes(&again).as_bytes()) {
        lines.push(format!("exported again: {}\nexpected: {}", bytes(&again), bytes(&imported)));
    }
    lines
}

/// Whether a cache holds its layers in the form that images of the case have: only then are their digests the same.
fn is_of_one_form(case: &Case) -> bool {
    let of = |attributes: &str| -> Vec<String> {
        attributes.split(',').filter(|a| a.contains("compression")).map(str::to_owned).collect()
    };
    of(&case.cache_export) == of(&case.output)
}

/// The flag that exports a cache with what the case asks for.
fn export_flag(case: &Case, cache: &Layout, mode: &str) -> String {
    let more = if case.cache_export.is_empty() { String::new() } else { format!(",{}", case.cache_export) };
    format!("type=local,dest={},mode={mode}{more}", cache.0.display())
}

fn digests(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect()
}

fn states_differ(expected: &[(String, String)], found: &[(String, String)]) -> Vec<String> {
    let line = |(state, name): &(String, String), which: &str| format!("{which} {state} {name}");
    let missing = expected.iter().filter(|step| !found.contains(step)).map(|step| line(step, "expected"));
    let extra = found.iter().filter(|step| !expected.contains(step)).map(|step| line(step, "found   "));
    missing.chain(extra).collect()
}

fn export(case: &Case, user: User, registry: &BaseRegistry, mode: &str) -> Vec<String> {
    let shop = Workshop::new(case, user, registry);
    let (cache, image) = (shop.layout("cache"), shop.layout("image"));
    let states =
        shop.build(&["--cache-to".into(), export_flag(case, &cache, mode), "-o".into(), image_output(case, &image)]);
    assert!(states.iter().all(|(state, _)| state == "RUN" || state == "CACHED"), "{states:?}");
    let (_, config) = cache.cache();
    let found = records::of(&cache.document(config["digest"].as_str().unwrap()));
    let mut lines = records::differences(&records::of(&json(&case.path.join(format!("cache-{mode}.json")))), &found);
    lines.extend(cache.unsound());
    let theirs = Layout(case.path.join(format!("cache-{mode}")));
    lines.extend(forms_differ(case, &theirs, &cache));
    lines
}

/// The manifest's form and the media types of its layers are BuildKit's too.
fn forms_differ(case: &Case, theirs: &Layout, ours: &Layout) -> Vec<String> {
    let temp = tempfile::tempdir().unwrap();
    assemble(&case.folder, &theirs.0, temp.path());
    let shape = |layout: &Layout| {
        let (layers, config) = layout.cache();
        let kinds: Vec<String> = layers.iter().map(|layer| layer["mediaType"].to_string()).collect();
        (layout.manifest()["mediaType"].clone(), config["mediaType"].clone(), kinds)
    };
    let (expected, found) = (shape(&Layout(temp.path().to_owned())), shape(ours));
    if expected == found { Vec::new() } else { vec![format!("form {found:?}, expected {expected:?}")] }
}

fn mutations(case: &Case, user: User, registry: &BaseRegistry) -> Vec<String> {
    let mut lines = Vec::new();
    for mutation in &case.mutations {
        let mut shop = Workshop::new(case, user, registry);
        mutation.changes.iter().for_each(|change| shop.change(change));
        let from = import_flag(case, &shop, "max");
        let states = shop.build(&["--cache-from".into(), from]);
        lines.extend(
            states_differ(&mutation.steps, &states).into_iter().map(|line| format!("{}: {line}", mutation.name)),
        );
    }
    lines
}

fn inline_import(case: &Case, user: User, registry: &BaseRegistry) -> Vec<String> {
    let shop = Workshop::new(case, user, registry);
    let image = tempfile::tempdir().unwrap();
    assemble(&case.folder, &case.path.join("inline-image"), image.path());
    let entry = json(&image.path().join("index.json"))["manifests"][0].clone();
    let name = registry.push(image.path(), &entry, &format!("inline/{}:latest", case.name));
    let out = shop.layout("image");
    let from = format!("type=registry,ref={name}");
    let states = shop.build(&["--cache-from".into(), from, "-o".into(), image_output(case, &out)]);
    let mut lines = states_differ(&case.steps("steps.txt", "inline"), &states);
    let expected = digests(&json(&case.path.join("image-manifest.json"))["layers"]);
    if out.layers() != expected {
        lines.push(format!("the image has layers {:?}, expected {expected:?}", out.layers()));
    }
    lines
}

fn inline_export(case: &Case, user: User, registry: &BaseRegistry) -> Vec<String> {
    let shop = Workshop::new(case, user, registry);
    let out = shop.layout("image");
    shop.build(&["--cache-to".into(), "type=inline".into(), "-o".into(), image_output(case, &out)]);
    let config = out.config();
    let Some(text) = config[INLINE_KEY].as_str() else { return vec!["the image carries no cache".into()] };
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).unwrap();
    let found: Value = serde_json::from_slice(&bytes).unwrap();
    let expected = json(&case.path.join("inline-cache.json"));
    let mut lines = records::differences(&records::of(&expected), &records::of(&found));
    let places = |list: &Value| -> Vec<Value> {
        list.as_array().unwrap().iter().map(|record| record["layers"][0]["layer"].clone()).collect()
    };
    // Both are sorted by the same rule, so positions can be compared one by one.
    if !records::is_left_to_chance(&expected) && places(&expected) != places(&found) {
        lines.push(format!("layers at {:?}, expected {:?}", places(&found), places(&expected)));
    }
    lines
}
