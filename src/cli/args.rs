//! The flags, as typed: those of `docker buildx build`, with the same meaning.
//!
//! In: words of the command line. Out: [`Cli`], nothing resolved and no file touched. The help text is the doc comments.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::du::DuArgs;
use super::effective::ConfigArgs;
use super::imagetools::ImagetoolsCommand;
use super::prune::PruneArgs;

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
  1      a step of the build failed, or --check has warnings
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
    /// Removes what is stored, and with it what builds could take from there
    #[command(args_override_self = true)]
    Prune(PruneArgs),
    /// Shows what is stored
    #[command(args_override_self = true)]
    Du(DuArgs),

    /// Puts images of registries together, and shows them
    #[command(subcommand)]
    Imagetools(ImagetoolsCommand),

    /// Says why each step of the last build of a context ran or was cached
    #[command(args_override_self = true)]
    Explain(Box<ExplainArgs>),
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

    /// Prints the effective configuration, and where each value comes from
    #[command(args_override_self = true)]
    Config(ConfigArgs),
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AnswerFormat {
    /// Lines of text
    Text,
    /// One JSON object
    Json,
}

/// Flags of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Build context of the build
    #[arg(value_name = "PATH|URL|-", default_value = ".")]
    pub context: String,

    /// Dockerfile of the build [default: PATH/Dockerfile]
    #[arg(short = 'f', long, value_name = "FILE")]
    pub file: Option<String>,

    /// Stage that was built
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,

    /// Build to compare with, by its id, or a file that holds its record [default: the one before]
    #[arg(long, value_name = "ID|FILE")]
    pub against: Option<String>,

    /// How it is printed: `text` or `json`
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text", hide_possible_values = true)]
    pub format: AnswerFormat,

    /// State directory [default: $XDG_DATA_HOME/rbuild, /var/lib/rbuild as root]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,

    /// Configuration file [default: that of buildkitd]
    #[arg(long, alias = "buildkitd-config", value_name = "FILE")]
    pub config: Option<PathBuf>,
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
    #[value(alias = "none")]
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

    /// Do not find out before the build whether the image may be pushed
    #[arg(long)]
    pub no_push_check: bool,

    /// Give the image to the docker or podman of this machine: `--output type=docker`
    #[arg(long)]
    pub load: bool,

    /// Check the Dockerfile, build nothing: `--call check`
    #[arg(long)]
    pub check: bool,

    /// What to do: `build`, `check`, `outline`, `targets` or `subrequests.describe`; `,format=json` for programs
    #[arg(long, alias = "print", value_name = "METHOD")]
    pub call: Option<String>,

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

    /// Ssh agent or keys for RUN --mount=type=ssh: `default`, `NAME=SOCKET` or `NAME=KEYFILE,…`
    #[arg(long = "ssh", value_name = "SPEC")]
    pub ssh: Vec<String>,

    /// Privilege that a Dockerfile may ask for: `network.host`, `security.insecure`, `device[=NAME]`
    #[arg(long = "allow", value_name = "ENTITLEMENT")]
    pub allow: Vec<String>,

    /// Cache to read: `type=registry,ref=…`, `type=local,src=…` or just a reference; may be given several times
    #[arg(long = "cache-from", value_name = "SPEC")]
    pub cache_from: Vec<String>,

    /// Cache to write: `type=registry,ref=…`, `type=local,dest=…` or `type=inline`, with `mode=max` for all steps; may be given several times
    #[arg(long = "cache-to", value_name = "SPEC")]
    pub cache_to: Vec<String>,

    /// Fail when a cache cannot be written
    #[arg(long)]
    pub cache_strict: bool,

    /// Write caches of the steps that finished though a later one failed or the build was stopped: `true` or `false`
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, hide_possible_values = true)]
    pub cache_failed: bool,

    /// Say why each step ran or was cached, after the build
    #[arg(long)]
    pub explain: bool,

    /// State directory [default: $XDG_DATA_HOME/rbuild, /var/lib/rbuild as root]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,

    /// Configuration file [default: that of buildkitd]
    #[arg(long, alias = "buildkitd-config", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Log what is done and why
    #[arg(short = 'D', long)]
    pub debug: bool,

    /// Limits by control groups.
    #[command(flatten)]
    pub limits: LimitArgs,

    /// Flags of buildx that this version does not have.
    #[command(flatten)]
    pub absent: AbsentArgs,
}

/// Limits of steps that need control groups: they become part of the LLB, and no step is run with them in this version.
#[derive(Debug, Args)]
pub struct LimitArgs {
    /// Control group that those of steps are made in.
    #[arg(long, hide = true, value_name = "NAME")]
    pub cgroup_parent: Option<String>,
    /// Memory.
    #[arg(short = 'm', long, hide = true, value_name = "BYTES")]
    pub memory: Option<String>,
    /// Memory and swap together; -1 is any.
    #[arg(long, hide = true, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Share of the processors' time, in relation to others.
    #[arg(short = 'c', long, hide = true, value_name = "NUMBER")]
    pub cpu_shares: Option<String>,
    /// Period of the quota, in microseconds.
    #[arg(long, hide = true, value_name = "NUMBER")]
    pub cpu_period: Option<String>,
    /// Processors' time in a period, in microseconds.
    #[arg(long, hide = true, value_name = "NUMBER")]
    pub cpu_quota: Option<String>,
    /// Processors.
    #[arg(long, hide = true, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes.
    #[arg(long, hide = true, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Any of these but the first, as `memory=2g`.
    #[arg(long = "resource", hide = true, value_name = "NAME=VALUE")]
    pub resources: Vec<String>,
}

/// A limit: the flag, the name of the frontend's option, the value.
pub type Limit<'a> = (&'static str, &'static str, &'a str);

impl LimitArgs {
    /// Returns the flags that are given, each with the name of the frontend's option and the value.
    ///
    /// # Errors
    ///
    /// A value of `--resource` that names no limit.
    pub fn given(&self) -> Result<Vec<Limit<'_>>, &str> {
        let all = [
            ("--cgroup-parent", "cgroup-parent", &self.cgroup_parent),
            ("--memory", "memory", &self.memory),
            ("--memory-swap", "memswap", &self.memory_swap),
            ("--cpu-shares", "cpushares", &self.cpu_shares),
            ("--cpu-period", "cpuperiod", &self.cpu_period),
            ("--cpu-quota", "cpuquota", &self.cpu_quota),
            ("--cpuset-cpus", "cpusetcpus", &self.cpuset_cpus),
            ("--cpuset-mems", "cpusetmems", &self.cpuset_mems),
        ];
        let named = |text: &str| all.iter().skip(1).find(|(flag, ..)| flag.strip_prefix("--") == Some(text));
        let mut given: Vec<Limit<'_>> =
            all.iter().filter_map(|(flag, option, value)| Some((*flag, *option, value.as_deref()?))).collect();
        for text in &self.resources {
            let (name, value) = text.split_once('=').ok_or(text.as_str())?;
            let (flag, option, _) = named(name).ok_or(text.as_str())?;
            given.push((flag, option, value));
        }
        Ok(given)
    }
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
    #[arg(long, hide = true, value_name = "NAME")]
    builder: Option<String>,
    #[arg(long = "device", hide = true, value_name = "NAME")]
    device: Vec<String>,
    #[arg(long = "policy", hide = true, value_name = "SPEC")]
    policy: Vec<String>,
    #[arg(long = "security-opt", hide = true, value_name = "OPTION")]
    security_opt: Vec<String>,
    #[arg(long, hide = true, value_name = "KIND")]
    isolation: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    squash: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    rm: Option<String>,
    /// Nothing is sent to a daemon, so there is nothing to compress.
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    compress: Option<String>,
    /// No container outlives its step.
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    force_rm: Option<String>,
}

impl AbsentArgs {
    /// Returns the first flag that asks for something this version cannot do, with the reason.
    pub fn refused(&self) -> Option<(String, &'static str)> {
        let off = |value: &Option<String>| value.as_deref().is_none_or(|v| v == "false");
        let (attestation, without, unless) =
            ("attestations are not made by this version", "leave it out", "leave it out or say `false`");
        let table = [
            ("attest", self.attest.is_empty(), attestation, without),
            ("provenance", off(&self.provenance), attestation, unless),
            ("sbom", off(&self.sbom), attestation, unless),
            ("builder", self.builder.is_none(), "rbuild is its own builder", without),
            (
                "device",
                self.device.is_empty(),
                "a step names its devices with `RUN --device`",
                "write `--allow device=NAME` to let it have them",
            ),
            ("policy", self.policy.is_empty(), "policies are not read by this version", without),
            (
                "security-opt",
                self.security_opt.is_empty(),
                "a step's profile is fixed",
                "`RUN --security=insecure` and `--allow security.insecure` widen it",
            ),
            (
                "isolation",
                self.isolation.as_deref().is_none_or(|kind| matches!(kind, "" | "default" | "process")),
                "steps run in namespaces",
                "leave it out or say `default`",
            ),
            ("squash", off(&self.squash), "layers are kept", "end with `FROM scratch` and `COPY --from` for one layer"),
            ("rm", !off(&self.rm) || self.rm.is_none(), "no container is left that could be kept", without),
        ];
        let (name, _, why, remedy) = table.into_iter().find(|(_, fine, ..)| !fine)?;
        Some((format!("`--{name}` is refused: {why}"), remedy))
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
        assert!(
            refused(&["rbuild", "--sbom"]).is_some_and(|(why, remedy)| why.contains("--sbom") && !remedy.is_empty())
        );
        assert_eq!(refused(&["rbuild", "--provenance=false"]), None);
        assert!(refused(&["rbuild", "--builder", "x"]).is_some());
    }
}
