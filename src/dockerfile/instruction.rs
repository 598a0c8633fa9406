//! Instructions as data, validated as far as the text alone allows; variables are still unexpanded.

use std::sync::Arc;

use super::device::DeviceSpec;
use super::text::{strip_leading_tabs, strip_leading_tabs_of_bytes};
use crate::diag::LineRange;

/// A whole Dockerfile.
#[derive(Debug, Clone)]
pub struct Dockerfile {
    /// Name shown in messages.
    pub name: String,
    /// The text.
    pub text: Arc<str>,
    /// The escape character, `\` or `` ` ``.
    pub escape: char,
    /// ARGs before the first FROM.
    pub meta_args: Vec<Instruction>,
    /// The stages.
    pub stages: Vec<Stage>,
}

/// One stage: a FROM and what follows.
#[derive(Debug, Clone)]
pub struct Stage {
    /// Name, lower-cased; empty if it has none.
    pub name: String,
    /// Name as written.
    pub original_name: String,
    /// Image or stage as written, unexpanded.
    pub base: String,
    /// Value of `--platform`, unexpanded.
    pub platform: Option<String>,
    /// The FROM line.
    pub source: SourceLine,
    /// The instructions.
    pub instructions: Vec<Instruction>,
}

/// Where an instruction stands and what was written.
#[derive(Debug, Clone, Default)]
pub struct SourceLine {
    /// Lines, the heredocs' included.
    pub lines: Vec<LineRange>,
    /// Keyword as written.
    pub keyword: String,
    /// The logical line: continuations joined, without heredoc bodies.
    pub text: String,
    /// Comments directly above, without their first character, trimmed.
    pub comments: Vec<String>,
    /// Heredocs in order.
    pub heredocs: Vec<Heredoc>,
    /// The first byte of the logical line that is no UTF-8.
    pub not_text: Option<NotText>,
}

/// A byte that is no UTF-8; in a text it is U+FFFD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotText {
    /// Its line.
    pub line: u32,
    /// Which byte it is.
    pub byte: u8,
    /// What stands around it, bytes that are no text as `\xNN`.
    pub excerpt: String,
}

/// A heredoc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// Delimiter without quotes.
    pub name: String,
    /// Descriptor number, 0 if none was written.
    pub fd: u32,
    /// Whether variables in the body are expanded (the delimiter was not quoted).
    pub expand: bool,
    /// Whether leading tabs are stripped (`<<-`).
    pub chomp: bool,
    /// The body as text; bytes that are no UTF-8 are U+FFFD.
    pub body: String,
    /// The body, verbatim, where it is not text.
    pub bytes: Option<Vec<u8>>,
    /// The first byte of the body that is no UTF-8.
    pub not_text: Option<NotText>,
}

impl Heredoc {
    /// Returns the body, verbatim.
    pub fn content(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or(self.body.as_bytes())
    }

    /// Returns the heredoc without the tabs at the start of its lines, if it asked for that.
    #[must_use]
    pub fn chomped(self) -> Self {
        if !self.chomp {
            return self;
        }
        let (body, bytes) = (strip_leading_tabs(&self.body), self.bytes.as_deref().map(strip_leading_tabs_of_bytes));
        Self { body, bytes, ..self }
    }
}

/// An instruction other than FROM.
#[derive(Debug, Clone)]
pub struct Instruction {
    /// Where it stands.
    pub source: SourceLine,
    /// What it says.
    pub kind: InstructionKind,
}

/// A name and a value, unexpanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// Name.
    pub key: String,
    /// Value.
    pub value: String,
    /// Whether it was written `NAME value`.
    pub legacy: bool,
}

/// What an instruction says.
#[derive(Debug, Clone)]
pub enum InstructionKind {
    /// `ARG`: names with optional defaults.
    Arg(Vec<(String, Option<String>)>),
    /// `ENV`.
    Env(Vec<KeyValue>),
    /// `LABEL`.
    Label(Vec<KeyValue>),
    /// `MAINTAINER`.
    Maintainer(String),
    /// `RUN`.
    Run(RunInstruction),
    /// `CMD`.
    Cmd(CommandLine),
    /// `ENTRYPOINT`.
    Entrypoint(CommandLine),
    /// `SHELL`.
    Shell(Vec<String>),
    /// `COPY`.
    Copy(CopyInstruction),
    /// `ADD`.
    Add(AddInstruction),
    /// `WORKDIR`.
    Workdir(String),
    /// `USER`.
    User(String),
    /// `EXPOSE`: ports as written, sorted.
    Expose(Vec<String>),
    /// `VOLUME`.
    Volume(Vec<String>),
    /// `STOPSIGNAL`.
    StopSignal(String),
    /// `HEALTHCHECK`.
    Healthcheck(HealthcheckInstruction),
    /// `ONBUILD`: the instruction's text, heredocs included.
    Onbuild(String),
}

/// A command in shell or exec form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// Exec form: the words. Shell form: one text (none where nothing was written).
    pub args: Vec<String>,
    /// Whether a shell runs it.
    pub shell: bool,
}

/// `RUN`.
#[derive(Debug, Clone)]
pub struct RunInstruction {
    /// The command; with heredocs, the text before they are put back in.
    pub command: CommandLine,
    /// `--mount` values as written.
    pub mounts: Vec<String>,
    /// `--network`, empty for the default.
    pub network: String,
    /// `--security`, empty for the default.
    pub security: String,
    /// `--device`, in the order written.
    pub devices: Vec<DeviceSpec>,
}

/// Sources and destination of COPY and ADD.
#[derive(Debug, Clone, Default)]
pub struct SourcesAndDest {
    /// Path sources, unexpanded.
    pub paths: Vec<String>,
    /// Inline files.
    pub inline: Vec<Heredoc>,
    /// Destination, unexpanded.
    pub dest: String,
}

/// `COPY`.
#[derive(Debug, Clone, Default)]
pub struct CopyInstruction {
    /// Sources and destination.
    pub files: SourcesAndDest,
    /// `--from`, empty for the context.
    pub from: String,
    /// `--chown`.
    pub chown: String,
    /// `--chmod`.
    pub chmod: String,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude` values.
    pub exclude: Vec<String>,
}

/// `ADD`.
#[derive(Debug, Clone, Default)]
pub struct AddInstruction {
    /// Sources and destination.
    pub files: SourcesAndDest,
    /// `--chown`.
    pub chown: String,
    /// `--chmod`.
    pub chmod: String,
    /// `--link`.
    pub link: bool,
    /// `--keep-git-dir`.
    pub keep_git_dir: Option<bool>,
    /// `--checksum`.
    pub checksum: String,
    /// `--unpack`.
    pub unpack: Option<bool>,
    /// `--exclude` values.
    pub exclude: Vec<String>,
}

/// `HEALTHCHECK`; durations in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthcheckInstruction {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`.
    pub test: Vec<String>,
    /// `--interval`.
    pub interval: i64,
    /// `--timeout`.
    pub timeout: i64,
    /// `--start-period`.
    pub start_period: i64,
    /// `--start-interval`.
    pub start_interval: i64,
    /// `--retries`.
    pub retries: i64,
}
