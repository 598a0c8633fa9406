//! `rbuild imagetools create`: an index of images that are there, as `docker buildx imagetools create` makes it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::{ClientArgs, location, print, wrong};
use crate::cli::args::ProgressMode;
use crate::cli::display::{How, Screen};
use crate::cli::request::annotations;
use crate::config::Environment;
use crate::diag::Diagnostic;
use crate::digest::Digest;
use crate::driver::imagetools::{self, CreateRequest, Location, Source};
use crate::export::merge::{Entry, MergeOptions};
use crate::image::Platform;

/// Bytes of a file with a source.
const SOURCE_LIMIT: u64 = 1 << 20;

/// Flags of `imagetools create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// What it is made of: `NAME`, `NAME@DIGEST`, `oci-layout://DIR:TAG`, a digest beside the others, or a descriptor as JSON
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,

    /// Name of the new image, or `oci-layout://DIR:TAG`
    #[arg(short = 't', long = "tag", value_name = "NAME[:TAG]")]
    tags: Vec<String>,

    /// File with a source, before those named
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Add to what the first `--tag` names
    #[arg(long)]
    append: bool,

    /// Print the new image, and push nothing
    #[arg(long)]
    dry_run: bool,

    /// Annotation of the index or of what it lists: `index:NAME=VALUE`, `manifest-descriptor[PLATFORM]:NAME=VALUE`
    #[arg(long = "annotation", value_name = "TYPE:NAME=VALUE")]
    annotations: Vec<String>,

    /// Make an index of a single manifest too: `true` or `false`
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    prefer_index: bool,

    /// Platforms that are kept
    #[arg(short = 'p', long = "platform", value_name = "OS/ARCH", value_delimiter = ',')]
    platforms: Vec<String>,

    /// Write digest and names of the image to a file, as JSON
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,

    /// How progress is shown: `auto`, `plain`, `tty`, `quiet` or `rawjson`
    #[arg(long, value_name = "MODE", value_enum, default_value = "auto", hide_possible_values = true)]
    progress: ProgressMode,

    /// What the registry client needs.
    #[command(flatten)]
    client: ClientArgs,
}

/// Makes an image.
pub(super) fn create(args: &CreateArgs, environment: &Environment) -> Result<ExitCode, Diagnostic> {
    let request = request(args)?;
    let setup = args.client.setup(environment)?;
    let dry_run = request.dry_run;
    let how = How { progress: args.progress, quiet: false, debug: args.client.debug };
    let (screen, sink) = Screen::start(how, environment);
    let created = crate::cli::on_runtime(sink, |sink, cancel| imagetools::create(setup, request, sink, cancel));
    screen.finish();
    let created = created?;
    if dry_run {
        print(&[created.bytes.as_slice(), b"\n"].concat())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn request(args: &CreateArgs) -> Result<CreateRequest, Diagnostic> {
    let tags = args.tags.iter().map(|tag| tag_of(tag)).collect::<Result<Vec<_>, _>>()?;
    if args.sources.is_empty() && args.files.is_empty() {
        return Err(wrong("no sources are given").hinted("write `rbuild imagetools create -t NAME SOURCE...`"));
    }
    if tags.is_empty() && !args.dry_run {
        return Err(
            wrong("no name is given to push to").hinted("add `--tag NAME:TAG`, or `--dry-run` to see the image")
        );
    }
    let mut sources: Vec<Source> = Vec::new();
    if args.append {
        sources.extend(tags.first().map(|tag| Source::Name(tag.clone())));
    }
    for file in &args.files {
        sources.push(source(&read(file)?)?);
    }
    for text in &args.sources {
        sources.push(source(text)?);
    }
    let platform = |text: &String| {
        let parsed = text.parse::<Platform>().map(Platform::normalized);
        parsed.map_err(|error| wrong(format!("invalid value of --platform: {error}")).hinted("write OS/ARCH"))
    };
    let options = MergeOptions {
        annotations: annotations(&args.annotations)?,
        prefer_index: args.prefer_index,
        platforms: args.platforms.iter().map(platform).collect::<Result<_, _>>()?,
    };
    let metadata_file = args.metadata_file.clone();
    Ok(CreateRequest { sources, tags, options, dry_run: args.dry_run, metadata_file })
}

fn tag_of(text: &str) -> Result<Location, Diagnostic> {
    let name = location(text).map_err(|error| error.hinted("write `--tag NAME:TAG`, the name in lower case"))?;
    match &name {
        Location::Registry(name) if name.digest.is_some() => {
            Err(wrong(format!("invalid value of --tag: {text:?} has a digest, which only its content can tell")))
        }
        _ => Ok(name),
    }
}

fn read(file: &Path) -> Result<String, Diagnostic> {
    let failed = |error: std::io::Error| wrong(format!("failed to read {}: {error}", file.display()));
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(failed)?;
    std::io::Read::read_to_string(&mut std::io::Read::take(opened, SOURCE_LIMIT), &mut text).map_err(failed)?;
    Ok(text)
}

/// Reads a digest, a name or a descriptor.
fn source(text: &str) -> Result<Source, Diagnostic> {
    let text = text.trim();
    let told = |why: String| {
        let shown: String = text.chars().take(200).collect();
        let told = wrong(format!("{shown:?} is no source: {why}"));
        told.hinted("a source is a name (`NAME:TAG`, `NAME@sha256:…`), a digest, or a descriptor as JSON")
    };
    if text.starts_with('{') {
        return descriptor(text).map(|entry| Source::Descriptor(Box::new(entry))).map_err(told);
    }
    if text.starts_with("sha256:") {
        return text.parse::<Digest>().map(Source::Digest).map_err(|error| told(error.to_string()));
    }
    Location::parse(text).map(Source::Name).map_err(told)
}

fn descriptor(text: &str) -> Result<Entry, String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Versioned {
        schema_version: Option<u32>,
    }
    match serde_json::from_str::<Versioned>(text).map_err(|error| error.to_string())?.schema_version {
        None | Some(0) => serde_json::from_str(text).map_err(|error| error.to_string()),
        Some(_) => Err("it is a manifest or an index, and not a descriptor of one".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};
    use crate::cli::imagetools::ImagetoolsCommand;

    fn parsed(words: &[&str]) -> Result<CreateRequest, Diagnostic> {
        let cli = Cli::try_parse_from(["rbuild", "imagetools", "create"].iter().chain(words)).expect("valid");
        match cli.command {
            Some(Command::Imagetools(ImagetoolsCommand::Create(args))) => request(&args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_are_buildxs() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let temp = tempfile::tempdir().expect("temp dir");
        let file = temp.path().join("descriptor");
        std::fs::write(&file, format!("{{\"digest\":\"{digest}\",\"platform\":{{\"os\":\"linux\"}}}}\n"))
            .expect("write");
        let words = ["-t", "r.io/a:1", "--append", "-f", file.to_str().expect("utf-8"), "--prefer-index=false", "-p"];
        let words = [&words[..], &["linux/amd64,linux/arm64", "--annotation", "index:k=v", &digest, "r.io/b"]].concat();
        let request = parsed(&words).expect("valid");
        let names: Vec<String> = request.sources.iter().map(|source| format!("{source:?}")).collect();
        assert!(matches!(&request.sources[0], Source::Name(name) if name.to_string() == "r.io/a:1"), "{names:?}");
        assert!(matches!(&request.sources[1], Source::Descriptor(entry) if entry.digest.as_str() == digest));
        assert!(matches!(&request.sources[2], Source::Digest(found) if found.as_str() == digest));
        assert!(matches!(&request.sources[3], Source::Name(name) if name.to_string() == "r.io/b:latest"));
        assert!(!request.options.prefer_index && request.options.platforms.len() == 2);
        assert_eq!(request.options.annotations[0].key, "k");
    }

    #[test]
    fn what_cannot_be_meant_is_said() {
        let manifest = r#"{"schemaVersion":2}"#;
        for (words, said) in [
            (&["-t", "r.io/a"][..], "no sources"),
            (&["r.io/a"], "--dry-run"),
            (&["-t", "r.io/A", "x"], "lower case"),
            (&["-t", "r.io/a", "sha256:1"], "is no source"),
            (&["-t", "r.io/a", manifest], "not a descriptor"),
            (&["-t", "r.io/a", "{}"], "digest"),
            (&["-t", "r.io/a", "-f", "/nonexistent"], "failed to read /nonexistent"),
            (&["-t", "r.io/a", "oci-layout://"], "no directory"),
            (&["-t", "r.io/a", "-p", "a/b/c/d", "x"], "--platform"),
            (&["-t", "r.io/a", "--annotation", "k", "x"], "--annotation"),
        ] {
            let told = parsed(words).expect_err(said);
            let text = format!("{} {}", told.message, told.hints.concat());
            assert!(text.contains(said), "{text}");
        }
    }
}
