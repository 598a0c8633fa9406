//! What rbuild and the `__init` child say to each other over a socket.
//!
//! ```text
//! rbuild → A: "rbx1" | u32 number of descriptors | u64 length | JSON of Step     (descriptors ride on the first message)
//! A → rbuild: u64 length | JSON of Report                                         (once, then A ends)
//! ```
//!
//! Integers are little-endian. Invariants: types are closed (an unknown field is an error), lengths are checked before
//! anything is allocated, nothing may follow the step, and secrets travel as descriptors, never in the JSON.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use super::error::Stage;
use super::groups::Setting;
use crate::sys::fds;

/// The most bytes a step may take.
pub(super) const MAX_STEP: u64 = 16 << 20;
const MAGIC: &[u8; 4] = b"rbx1";
/// Bytes before the JSON of a step.
pub(super) const HEADER: usize = 16;

/// A process and what it sees, descriptors as indexes into those sent along.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    pub(super) args: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) cwd: String,
    pub(super) user: String,
    pub(super) hostname: String,
    pub(super) hosts: String,
    pub(super) resolv_conf: String,
    pub(super) network: Network,
    pub(super) confinement: Confinement,
    pub(super) limits: Vec<Limit>,
    pub(super) shm_size: u64,
    pub(super) readonly: bool,
    pub(super) mounts: Vec<StepMount>,
    pub(super) processes: Processes,
    pub(super) filter: Filter,
    pub(super) apparmor: Option<String>,
    pub(super) runtime: Option<External>,
    pub(super) group: Option<Group>,
}

/// A control group of the step's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    /// The directory it is made in.
    pub(super) fd: usize,
    /// Its name.
    pub(super) name: String,
    /// Its files and what is written to them.
    pub(super) settings: Vec<Setting>,
}

/// Which processes the process sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Processes {
    /// Its own.
    Own,
    /// All that rbuild sees.
    Shared,
}

/// Which system calls a confined process may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Filter {
    /// Those of the default profile.
    Default,
    /// All.
    None,
}

/// A program that starts containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct External {
    /// Its path.
    pub(super) program: String,
    /// Options it takes before its command.
    pub(super) options: Vec<String>,
    /// Whether it leaves attributes of mounts as they are.
    pub(super) keeps_attributes: bool,
}

/// Which network the process is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Network {
    Host,
    Own,
}

/// Whether the process is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Confinement {
    Sandbox,
    Insecure,
}

/// A resource limit; `u64::MAX` is unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limit {
    pub(super) name: String,
    pub(super) soft: u64,
    pub(super) hard: u64,
}

/// One mount; `dest` is normalised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StepMount {
    pub(super) dest: String,
    pub(super) readonly: bool,
    pub(super) source: StepSource,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum StepSource {
    /// A path in a detached mount.
    Tree { fd: usize, selector: String },
    /// A node, as a detached mount of it alone.
    Device { fd: usize },
    /// Memory.
    Tmpfs { size: u64 },
    /// The bytes of a sealed file, as a file.
    Secret { fd: usize, uid: u32, gid: u32, mode: u32 },
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) result: StepResult,
    pub(super) stubs_left: Vec<String>,
    pub(super) notices: Vec<String>,
    /// Whether the kernel killed a process of the step because its limit of memory was reached.
    pub(super) out_of_memory: bool,
}

/// How the process ended, or why there was none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum StepResult {
    Exited(u8),
    Signaled(i32),
    Failed(Failure),
}

/// A stage of the set-up that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) stage: Stage,
    pub(super) message: String,
}

impl Failure {
    /// Says what was being done and why it failed.
    pub(super) fn new(stage: Stage, doing: impl std::fmt::Display, error: &io::Error) -> Self {
        Self { stage, message: format!("failed to {doing}: {error}") }
    }
}

/// Turns an I/O error into a [`Failure`] of a stage.
pub(super) trait During<T> {
    /// Names the stage and what was being done.
    fn during(self, stage: Stage, doing: impl std::fmt::Display) -> Result<T, Failure>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, stage: Stage, doing: impl std::fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(stage, doing, &error))
    }
}

/// Returns header and JSON of a step, or none if it is too large.
pub(super) fn encode_step(step: &Step, descriptors: usize) -> Option<(Vec<u8>, Vec<u8>)> {
    let body = serde_json::to_vec(step).ok()?;
    if body.len() as u64 > MAX_STEP || descriptors > fds::MAX_PER_MESSAGE {
        return None;
    }
    let mut header = MAGIC.to_vec();
    header.extend((descriptors as u32).to_le_bytes());
    header.extend((body.len() as u64).to_le_bytes());
    Some((header, body))
}

/// Reads a step and its descriptors.
pub(super) fn receive_step(mut socket: &std::os::unix::net::UnixStream) -> io::Result<(Step, Vec<OwnedFd>)> {
    let mut header = [0u8; HEADER];
    let (count, descriptors) = fds::receive(socket, &mut header)?;
    let (expected, length) = parse_header(&header[..count])?;
    if descriptors.len() != expected {
        return Err(invalid("descriptors are missing"));
    }
    let mut body = vec![0u8; length];
    socket.read_exact(&mut body)?;
    let step = serde_json::from_slice(&body).map_err(io::Error::other)?;
    Ok((step, descriptors))
}

fn parse_header(header: &[u8]) -> io::Result<(usize, usize)> {
    let Some((magic, rest)) = header.split_first_chunk::<4>() else { return Err(invalid("no header")) };
    let Some((count, rest)) = rest.split_first_chunk::<4>() else { return Err(invalid("no count")) };
    let Ok(length) = <[u8; 8]>::try_from(rest) else { return Err(invalid("no length")) };
    let length = u64::from_le_bytes(length);
    if magic != MAGIC || length > MAX_STEP {
        return Err(invalid("not a step"));
    }
    Ok((u32::from_le_bytes(*count) as usize, length as usize))
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Sends how it went.
pub(super) fn send_report(mut socket: &std::os::unix::net::UnixStream, report: &Report) -> io::Result<()> {
    let body = serde_json::to_vec(report)?;
    socket.write_all(&(body.len() as u64).to_le_bytes())?;
    socket.write_all(&body)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    /// A step with this value in its environment.
    pub(in crate::exec) fn step(value: &str) -> Step {
        Step {
            args: vec!["true".into()],
            env: vec![format!("V={value}")],
            cwd: "/".into(),
            user: String::new(),
            hostname: "h".into(),
            hosts: String::new(),
            resolv_conf: String::new(),
            network: Network::Host,
            confinement: Confinement::Sandbox,
            limits: Vec::new(),
            shm_size: 0,
            readonly: false,
            mounts: Vec::new(),
            processes: Processes::Own,
            filter: Filter::Default,
            apparmor: None,
            runtime: None,
            group: None,
        }
    }

    fn pass(header: &[u8], body: &[u8]) -> io::Result<Step> {
        let (ours, theirs) = UnixStream::pair().expect("pair");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                fds::send(ours.as_fd(), header, &[]).expect("send");
                // The reader may refuse the header and close.
                let _refused = (&ours).write_all(body);
            });
            let result = receive_step(&theirs).map(|(step, _)| step);
            drop(theirs);
            result
        })
    }

    #[test]
    fn e22_lengths_around_16_bits_survive() {
        for length in [0, 1, 65_535, 65_536, 65_537, 131_072, 4 << 20] {
            let step = step(&"x".repeat(length));
            let (header, body) = encode_step(&step, 0).expect("fits");
            assert_eq!(pass(&header, &body).expect("received"), step, "{length}");
        }
    }

    #[test]
    fn e22_too_large_is_refused_by_both_sides() {
        assert!(encode_step(&step(&"x".repeat(MAX_STEP as usize)), 0).is_none());
        let mut header = MAGIC.to_vec();
        header.extend(0u32.to_le_bytes());
        for length in [MAX_STEP + 1, u64::MAX] {
            let header: Vec<u8> = header.iter().copied().chain(length.to_le_bytes()).collect();
            assert!(pass(&header, b"{}").is_err());
        }
    }

    #[test]
    fn e22_unknown_fields_trailing_bytes_and_missing_descriptors_are_errors() {
        let (header, body) = encode_step(&step("x"), 0).expect("fits");
        let text = String::from_utf8(body).expect("JSON");
        for (changed, why) in [
            (text.replacen('{', "{\"extra\":1,", 1), "unknown field"),
            (format!("{text} {{}}"), "trailing value"),
            (text.replace("\"Host\"", "\"Other\""), "unknown network"),
            (text.replace("\"Sandbox\"", "7"), "unknown confinement"),
        ] {
            let mut header = header[..8].to_vec();
            header.extend((changed.len() as u64).to_le_bytes());
            assert!(pass(&header, changed.as_bytes()).is_err(), "{why}");
        }
        let (header, body) = encode_step(&step("x"), 1).expect("fits");
        assert!(pass(&header, &body).is_err());
    }
}
