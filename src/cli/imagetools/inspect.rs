//! `rbuild imagetools inspect`: an image of a registry or an OCI layout, as `docker buildx imagetools inspect` shows it.
//!
//! In: flags. Out: a list for people, the bytes as they are, or a filled-in template, on standard output.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::template;
use super::tree::Tree;
use super::{ClientArgs, location, print, wrong};
use crate::config::Environment;
use crate::diag::Diagnostic;
use crate::driver::imagetools::inspect::Wanted;
use crate::driver::imagetools::{self, Inspected, Location};
use crate::progress::sanitize;

/// Flags of `imagetools inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The image: `NAME`, or `oci-layout://DIR:TAG`
    #[arg(value_name = "NAME")]
    name: String,

    /// How to print: a Go template such as `{{json .Manifest}}` [default: a list]
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,

    /// Print the manifest or index byte for byte
    #[arg(long)]
    raw: bool,

    /// What the registry client needs.
    #[command(flatten)]
    client: ClientArgs,
}

/// Shows an image.
pub(super) fn inspect(args: &InspectArgs, environment: &Environment) -> Result<ExitCode, Diagnostic> {
    let format = args.format.as_deref().filter(|format| !is_list(format));
    if args.format.is_some() && args.raw {
        return Err(wrong("`--format` and `--raw` ask for different things").hinted("leave out one of them"));
    }
    let name = location(&args.name)?;
    let setup = args.client.setup(environment)?;
    let wanted = format.map_or(Wanted::Manifest, wanted);
    let sink = std::sync::Arc::new(crate::progress::event::NoProgress);
    let inspected = crate::cli::on_runtime(sink, |_, cancel| async move {
        tokio::select! {
            inspected = imagetools::inspect(setup, name, wanted) => inspected,
            () = cancel.cancelled() => Err(wrong("stopped")),
        }
    })?;
    match format {
        _ if args.raw => print(&inspected.bytes),
        None => print(sanitize::message(&list(&inspected), crate::cli::display::commands(environment)).as_bytes()),
        Some(format) => {
            let filled = template::fill(format, &tree(&args.name, &inspected), &attested(&inspected));
            let told = |why| wrong(format!("invalid value of --format: {why}")).hinted(template::FORMS);
            let text = filled.map_err(told)?;
            print(sanitize::message(&text, crate::cli::display::commands(environment)).as_bytes())
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Statements are read only where they are asked for; they may be large.
fn wanted(format: &str) -> Wanted {
    match template::METHODS.iter().any(|name| format.contains(&format!(".{name}"))) {
        true => Wanted::Attestations,
        false => Wanted::Images,
    }
}

fn is_list(format: &str) -> bool {
    let inner = format.trim().strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
    format.is_empty() || inner.is_some_and(|inner| inner.trim() == ".Manifest")
}

/// What a template is filled in from.
fn tree(name: &str, inspected: &Inspected) -> Tree {
    let manifest = match &inspected.listing {
        None => Tree::of(&inspected.entry),
        Some(listing) => {
            let mut members = vec![("schemaVersion".to_owned(), Tree::of(&listing.schema_version))];
            let stated = Some(&listing.media_type).filter(|kind| !kind.is_empty());
            members.extend(stated.map(|kind| ("mediaType".to_owned(), Tree::of(kind))));
            members.push(("digest".into(), Tree::of(&inspected.entry.digest)));
            members.push(("size".into(), Tree::of(&inspected.entry.size)));
            members.push(("manifests".into(), Tree::of(&listing.manifests)));
            if !listing.annotations.is_empty() {
                members.push(("annotations".into(), Tree::of(&listing.annotations)));
            }
            Tree::Members(members)
        }
    };
    let image = match inspected.images.values().next() {
        Some(only) if inspected.images.len() == 1 => Tree::of(only),
        _ => Tree::of(&inspected.images),
    };
    Tree::object([("name", Tree::of(&name)), ("manifest", manifest), ("image", image)])
}

/// What is attested of the one image, or of each by platform.
fn attested(inspected: &Inspected) -> Tree {
    let of = |all: &std::collections::BTreeMap<String, serde_json::Value>| match inspected.images.len() {
        0 | 1 => all.values().next().map_or_else(|| Tree::object([]), Tree::of),
        _ => Tree::of(all),
    };
    Tree::object([("SBOM", of(&inspected.attested.sbom)), ("Provenance", of(&inspected.attested.provenance))])
}

fn list(inspected: &Inspected) -> String {
    let mut text = String::new();
    let top = [
        ("Name", inspected.name.to_string()),
        ("MediaType", inspected.entry.media_type.clone()),
        ("Digest", inspected.entry.digest.to_string()),
    ];
    for (name, value) in top {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{:11}{value}", format!("{name}:"));
    }
    let Some(listing) = &inspected.listing else { return text };
    text.push_str("           \nManifests: \n");
    let blocks = listing.manifests.iter().map(|entry| block(&inspected.name, entry));
    text.push_str(&blocks.collect::<Vec<_>>().join("             \n"));
    text
}

/// One manifest of an index.
fn block(name: &Location, entry: &crate::export::merge::Entry) -> String {
    let mut text = String::new();
    let mut lines = vec![("Name", name.pinned(&entry.digest).to_string()), ("MediaType", entry.media_type.clone())];
    if let Some(platform) = &entry.platform {
        lines.push(("Platform", platform.to_string()));
        lines.extend(Some(platform.os_version.clone()).filter(|v| !v.is_empty()).map(|v| ("OSVersion", v)));
        lines.extend(Some(platform.os_features.join(", ")).filter(|v| !v.is_empty()).map(|v| ("OSFeatures", v)));
        lines.extend(Some(entry.urls.join(", ")).filter(|v| !v.is_empty()).map(|v| ("URLs", v)));
    }
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    for (name, value) in lines {
        let _ = writeln!(text, "  {:width$}{value}", format!("{name}:"));
    }
    if entry.platform.is_some() && !entry.annotations.is_empty() {
        let width = entry.annotations.keys().map(|key| key.chars().count()).max().unwrap_or(0) + 2;
        text.push_str("  Annotations: \n");
        for (key, value) in &entry.annotations {
            let _ = writeln!(text, "    {:width$}{value}", format!("{key}:"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::digest::Digest;
    use crate::driver::imagetools::attestations::Attested;
    use crate::export::merge::{Entry, Listing};
    use crate::image::{Descriptor, ImageConfig, media};

    fn inspected(platforms: &[&str]) -> Inspected {
        let entry = |text: &&str| {
            let mut entry = Entry::from(Descriptor::new(media::OCI_MANIFEST, Digest::compute(text), 5));
            entry.platform = Some(text.parse().expect("platform"));
            entry
        };
        let manifests: Vec<Entry> = platforms.iter().map(entry).collect();
        let config = |text: &&str| ((*text).to_owned(), ImageConfig { os: "linux".into(), ..ImageConfig::default() });
        Inspected {
            name: Location::parse("r.io/a:1").expect("name"),
            entry: Entry::from(Descriptor::new(media::OCI_INDEX, Digest::compute("i"), 9)),
            bytes: Vec::new(),
            listing: Some(Listing {
                schema_version: 2,
                media_type: media::OCI_INDEX.into(),
                artifact_type: String::new(),
                manifests,
                subject: None,
                annotations: BTreeMap::new(),
            }),
            images: platforms.iter().map(config).collect(),
            attested: attestations(platforms),
        }
    }

    /// The first of the platforms has a list of packages.
    fn attestations(platforms: &[&str]) -> Attested {
        let sbom =
            platforms.first().map(|platform| ((*platform).to_owned(), serde_json::json!({"SPDX": {"name": "n"}})));
        Attested { sbom: sbom.into_iter().collect(), provenance: BTreeMap::new() }
    }

    #[test]
    fn attestations_are_of_the_one_image_or_by_platform() {
        let filled = |platforms: &[&str], template: &str| {
            let found = inspected(platforms);
            template::fill(template, &tree("a", &found), &attested(&found))
        };
        let (one, two) = (["linux/amd64"], ["linux/amd64", "linux/arm64"]);
        assert_eq!(filled(&one, "{{.SBOM.SPDX.name}}").as_deref(), Ok("n"));
        assert_eq!(filled(&one, "{{json .Provenance}} {{json .Provenance.SLSA}}").as_deref(), Ok("{} null"));
        assert_eq!(filled(&two, r#"{{(index .SBOM "linux/amd64").SPDX.name}}"#).as_deref(), Ok("n"));
        assert_eq!(filled(&two, "{{json .Provenance}}").as_deref(), Ok("{}"));
        // They are no part of the whole, as in Go they are methods.
        assert!(!filled(&one, "{{json .}}").expect("whole").contains("SPDX"));
        assert_eq!((wanted("{{json .}}"), wanted("{{json .SBOM}}")), (Wanted::Images, Wanted::Attestations));
    }

    #[test]
    fn the_list_is_buildxs() {
        let mut found = inspected(&["linux/amd64", "linux/arm64"]);
        let entries = &mut found.listing.as_mut().expect("index").manifests;
        entries[1].annotations.insert("k".into(), "v".into());
        let (amd, arm) = (entries[0].digest.clone(), entries[1].digest.clone());
        let lines: Vec<String> = list(&found).lines().map(|line| line.trim_end().to_owned()).collect();
        let index = found.entry.digest;
        assert_eq!(
            lines.join("\n"),
            format!(
                "Name:      r.io/a:1\nMediaType: {}\nDigest:    {index}\n\nManifests:\n  Name:      r.io/a:1@{amd}\n  MediaType: {}\n  \
                 Platform:  linux/amd64\n\n  Name:      r.io/a:1@{arm}\n  MediaType: {}\n  Platform:  linux/arm64\n  \
                 Annotations:\n    k: v",
                media::OCI_INDEX,
                media::OCI_MANIFEST,
                media::OCI_MANIFEST
            )
        );
    }

    #[test]
    fn one_image_stands_for_itself_and_several_by_platform() {
        let (one, none) = (tree("a", &inspected(&["linux/amd64"])), Tree::object([]));
        assert_eq!(template::fill("{{.Image.OS}} {{.Name}}", &one, &none).as_deref(), Ok("linux a"));
        let two = tree("a", &inspected(&["linux/amd64", "linux/arm64"]));
        assert_eq!(template::fill(r#"{{(index .Image "linux/arm64").OS}}"#, &two, &none).as_deref(), Ok("linux"));
        let text = template::fill("{{json .Manifest}}", &two, &none).expect("filled in");
        let start =
            "{\n  \"schemaVersion\": 2,\n  \"mediaType\": \"application/vnd.oci.image.index.v1+json\",\n  \"digest\"";
        assert!(text.starts_with(start), "{text}");
    }

    #[test]
    fn the_default_format_is_the_list() {
        for (format, expected) in
            [("{{.Manifest}}", true), (" {{ .Manifest }}", true), ("", true), ("{{.Name}}", false)]
        {
            assert_eq!(is_list(format), expected, "{format}");
        }
    }
}
