//! The flags, as typed: those of `docker buildx build`, with the same meaning.
//!
//! In: words of the command line. Out: [`Cli`], nothing resolved and no file touched. The help text is the doc comments.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Builds a Dockerfile once and exits: no daemon, no privilege.
#[derive(Debug, Parser)]
#[command(name = "rbuild", version, about, args_conflicts_with_subcommands = true, args_override_self = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do, if not to build.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The build.
    #[command(flatten)]
    pub build: BuildArgs,
}

const EXIT_CODES: &str = "\
Exit codes:
  0      done
  1      a step of the build failed
  2      the command line or the configuration is wrong
  3      the Dockerfile or the build context is wrong
  4      an image, registry or other source could not be had or written
  5      the machine refuses what is needed: namespaces, disk space, permissions
  128+n  ended by signal n";

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Builds an image (the same as no subcommand)
    #[command(args_override_self = true)]
    Build(Box<BuildArgs>),
    /// Shows what a build would do
    #[command(subcommand)]
    Debug(DebugCommand),
}

/// Subcommands of `debug`.
#[derive(Debug, Subcommand)]
pub enum DebugCommand {
    /// Prints the LLB of a build as JSON, one op a line: digest, inputs, op, metadata
    #[command(args_override_self = true)]
    DumpLlb(Box<BuildArgs>),
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgressMode {
    /// A terminal display on a terminal, plain elsewhere
    Auto,
    /// Lines of text
    Plain,
    /// A display that redraws itself
    Tty,
    /// Errors only
    Quiet,
    /// BuildKit's SolveStatus, one JSON object a line
    Rawjson,
}

/// Flags of a build.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Build context: a directory, a URL, a git repository, or `-` for a tar or a Dockerfile on standard input
    #[arg(value_name = "PATH|URL|-", default_value = ".")]
    pub context: String,

    /// Dockerfile, `-` for standard input [default: PATH/Dockerfile]
    #[arg(short = 'f', long, value_name = "FILE")]
    pub file: Option<String>,

    /// Name of the image, `name:tag`; may be given several times
    #[arg(short = 't', long = "tag", value_name = "NAME")]
    pub tags: Vec<String>,

    /// Stage to build
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,

    /// Value of an ARG; a bare name takes the environment's value
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub build_args: Vec<String>,

    /// Label of the image
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub labels: Vec<String>,

    /// Annotation of the manifest
    #[arg(long = "annotation", value_name = "NAME=VALUE")]
    pub annotations: Vec<String>,

    /// Platforms to build for
    #[arg(long = "platform", value_name = "OS/ARCH", value_delimiter = ',')]
    pub platforms: Vec<String>,

    /// Where the result goes: `type=image|registry|oci|docker|local|tar,dest=…`; may be given several times
    #[arg(short = 'o', long = "output", value_name = "SPEC")]
    pub outputs: Vec<String>,

    /// Push the image: `--output type=registry`
    #[arg(long)]
    pub push: bool,

    /// Give the image to the docker or podman of this machine: `--output type=docker`
    #[arg(long)]
    pub load: bool,

    /// Use no cached step
    #[arg(long)]
    pub no_cache: bool,

    /// Use no cached step of these stages
    #[arg(long = "no-cache-filter", value_name = "STAGE", value_delimiter = ',')]
    pub no_cache_filter: Vec<String>,

    /// Resolve all images again
    #[arg(long)]
    pub pull: bool,

    /// How progress is shown: `auto`, `plain`, `tty`, `quiet` or `rawjson`
    #[arg(
        long,
        value_name = "MODE",
        value_enum,
        default_value = "auto",
        env = "BUILDKIT_PROGRESS",
        hide_env_values = true,
        hide_possible_values = true
    )]
    pub progress: ProgressMode,

    /// Print the image's digest and nothing else
    #[arg(short = 'q', long)]
    pub quiet: bool,

    /// File to write the image's digest to
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,

    /// File to write metadata of the result to
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,

    /// Network of RUN steps: `default`, `host` or `none`
    #[arg(long, value_name = "MODE", default_value = "default", value_parser = ["default", "host", "none"], hide_possible_values = true)]
    pub network: String,

    /// Line for the `/etc/hosts` of RUN steps
    #[arg(long = "add-host", value_name = "NAME:IP")]
    pub add_hosts: Vec<String>,

    /// Size of `/dev/shm` in RUN steps
    #[arg(long, value_name = "BYTES")]
    pub shm_size: Option<String>,

    /// Resource limit of RUN steps
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    pub ulimits: Vec<String>,

    /// Further context, usable in FROM, COPY --from and RUN --mount from
    #[arg(long = "build-context", value_name = "NAME=VALUE")]
    pub build_contexts: Vec<String>,

    /// Secret for RUN --mount=type=secret: `id=NAME,src=FILE` or `id=NAME,env=VARIABLE`
    #[arg(long = "secret", value_name = "SPEC")]
    pub secrets: Vec<String>,

    /// Ssh agent for RUN --mount=type=ssh: `default` or `NAME=SOCKET`
    #[arg(long = "ssh", value_name = "SPEC")]
    pub ssh: Vec<String>,

    /// Privilege that a Dockerfile may ask for: `network.host`
    #[arg(long = "allow", value_name = "ENTITLEMENT", value_delimiter = ',')]
    pub allow: Vec<String>,

    /// Cache to read (refused: no backend is there in this version)
    #[arg(long = "cache-from", value_name = "SPEC")]
    pub cache_from: Vec<String>,

    /// Cache to write (refused: no backend is there in this version)
    #[arg(long = "cache-to", value_name = "SPEC")]
    pub cache_to: Vec<String>,

    /// State directory [default: $XDG_DATA_HOME/rbuild, /var/lib/rbuild as root]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,

    /// Configuration file [default: that of buildkitd]
    #[arg(long, alias = "buildkitd-config", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Log what is done and why
    #[arg(short = 'D', long)]
    pub debug: bool,

    /// Flags of buildx that this version does not have.
    #[command(flatten)]
    pub absent: AbsentArgs,
}

/// Flags of `docker buildx build` that are known but not there; each is refused with a reason.
#[derive(Debug, Args)]
pub struct AbsentArgs {
    #[arg(long = "attest", hide = true, value_name = "SPEC")]
    attest: Vec<String>,
    #[arg(long, hide = true, value_name = "SPEC", num_args = 0..=1, default_missing_value = "true")]
    provenance: Option<String>,
    #[arg(long, hide = true, value_name = "SPEC", num_args = 0..=1, default_missing_value = "true")]
    sbom: Option<String>,
    #[arg(long, hide = true)]
    check: bool,
    #[arg(long, hide = true, value_name = "METHOD")]
    call: Option<String>,
    #[arg(long, hide = true, value_name = "NAME")]
    builder: Option<String>,
    #[arg(long = "cgroup-parent", hide = true, value_name = "NAME")]
    cgroup_parent: Option<String>,
    #[arg(long = "device", hide = true, value_name = "NAME")]
    device: Vec<String>,
}

impl AbsentArgs {
    /// Returns the first flag that asks for something this version cannot do, with the reason.
    pub fn refused(&self) -> Option<String> {
        let off = |value: &Option<String>| value.as_deref().is_none_or(|v| v == "false");
        let table: [(&str, bool, &str); 7] = [
            ("attest", self.attest.is_empty(), "attestations are not made by this version"),
            (
                "provenance",
                off(&self.provenance),
                "attestations are not made by this version; leave it out or say `false`",
            ),
            ("sbom", off(&self.sbom), "attestations are not made by this version; leave it out or say `false`"),
            ("check", !self.check, "checks without a build are not there in this version"),
            ("call", self.call.as_deref().is_none_or(|c| c == "build"), "only `build` can be called in this version"),
            ("cgroup-parent", self.cgroup_parent.is_none(), "cgroups are not used by this version"),
            ("device", self.device.is_empty(), "devices are not passed by this version"),
        ];
        let builder =
            self.builder.as_ref().map(|_| "`--builder` is refused: rbuild is its own builder, leave it out".into());
        let refuse = |(name, _, why): &(&str, bool, &str)| format!("`--{name}` is refused: {why}");
        table.iter().find(|(_, fine, _)| !fine).map(refuse).or(builder)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn build_is_the_default_command() {
        let short = Cli::try_parse_from(["rbuild", "-t", "a:b", "ctx"]).expect("valid");
        assert_eq!((short.build.context.as_str(), short.build.tags.as_slice()), ("ctx", &["a:b".to_owned()][..]));
        let long = Cli::try_parse_from(["rbuild", "build", "ctx"]).expect("valid");
        assert!(matches!(long.command, Some(Command::Build(args)) if args.context == "ctx"));
    }

    #[test]
    fn unknown_words_get_a_suggestion() {
        for (words, hint) in [(["rbuild", "--taget=x"], "--target"), (["rbuild", "--progress=plian"], "plain")] {
            let text = Cli::try_parse_from(words).expect_err("unknown").to_string();
            assert!(text.contains(hint), "{text}");
        }
    }

    #[test]
    fn absent_flags_are_refused_by_name() {
        let refused = |words: &[&str]| Cli::try_parse_from(words).expect("known flag").build.absent.refused();
        assert!(refused(&["rbuild", "--sbom"]).is_some_and(|why| why.contains("--sbom")));
        assert_eq!(refused(&["rbuild", "--provenance=false"]), None);
        assert!(refused(&["rbuild", "--builder", "x"]).is_some());
    }
}
