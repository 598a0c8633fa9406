//! Targets of what a step writes: to the log, and to an ssh agent, and of that agent's keys.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use base64::Engine as _;
use rbuild::digest::Digest;
use rbuild::progress::sanitize::{LINE_LIMIT, Sanitizer, escape};
use rbuild::progress::{Colors, Commands, DisplayOptions, Event, Log, Mode, Stream, Vertex, display};
use rbuild::secrets::{AgentFilter, Client, Keys, MAX_FRAME, Reply, SshKey};

use super::feed::Feed;

/// Of control characters only tab, newline and colours come out, no reordering ones, lines are bounded, and how the bytes were
/// cut makes no difference. A CI runner that reads the plain display finds no command in it, whatever a step is called or
/// prints.
pub fn log_sanitize(data: &[u8]) {
    let cut = usize::from(data.first().copied().unwrap_or(1) % 7) + 1;
    for colors in [Colors::Keep, Colors::Drop] {
        let whole = sanitized(colors, data, data.len().max(1));
        assert_eq!(whole, sanitized(colors, data, cut), "cut every {cut} bytes");
        allowed(&whole, colors);
        assert!(whole.split('\n').all(|line| line.len() <= LINE_LIMIT + 200));
    }
    allowed(&escape(&String::from_utf8_lossy(data)), Colors::Drop);
    let shown = shown(data, cut);
    for line in shown.lines() {
        assert!(command(line).is_none(), "{line:?}");
    }
}

fn sanitized(colors: Colors, data: &[u8], cut: usize) -> String {
    let mut sanitizer = Sanitizer::new(colors);
    let mut out: String = data.chunks(cut).map(|chunk| sanitizer.push(chunk)).collect();
    out.push_str(&sanitizer.finish());
    out
}

fn allowed(text: &str, colors: Colors) {
    let mut rest = text;
    while let Some(at) = rest.find(char::is_control) {
        rest = &rest[at..];
        if let Some(sequence) = rest.strip_prefix("\x1b[").filter(|_| colors == Colors::Keep) {
            let end = sequence.find(|c: char| !c.is_ascii_digit() && c != ';' && c != ':').expect("an end");
            assert!(sequence[end..].starts_with('m'), "{sequence:?}");
            rest = &sequence[end..];
        } else {
            assert!(rest.starts_with(['\t', '\n']), "{:?}", rest.chars().next());
            rest = &rest[1..];
        }
    }
    assert!(!text.contains(['\u{202e}', '\u{2066}', '\u{2028}', '\u{200f}', '\u{61c}']));
}

/// What the plain display shows of a step with this name and this output.
fn shown(data: &[u8], cut: usize) -> String {
    let out = Shared::default();
    let options = DisplayOptions { commands: Commands::Defuse, ..DisplayOptions::default() };
    let mut display = display(Mode::Plain, Box::new(out.clone()), options);
    let digest = Digest::compute("step");
    let now = SystemTime::UNIX_EPOCH;
    let name = String::from_utf8_lossy(data).into_owned();
    let mut vertex = Vertex {
        digest: digest.clone(),
        inputs: Vec::new(),
        name,
        started: Some(now),
        completed: None,
        cached: false,
        error: String::new(),
    };
    display.event(&Event::Vertex(vertex.clone()));
    for chunk in data.chunks(cut * 16) {
        let (vertex, data) = (digest.clone(), chunk.to_vec());
        display.event(&Event::Log(Log { vertex, stream: Stream::Stdout, data, timestamp: now }));
    }
    vertex.completed = Some(now);
    vertex.error = String::from_utf8_lossy(data).into_owned();
    display.event(&Event::Vertex(vertex));
    display.finish().expect("memory can be written");
    String::from_utf8(out.0.lock().expect("unpoisoned").clone()).expect("text")
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("unpoisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Finds a command as GitHub's runner does: `::name …::` where a line starts with it but for white space, and `##[name …]`
/// anywhere in a line.
fn command(line: &str) -> Option<&str> {
    let second = || line.trim_start().strip_prefix("::").and_then(|rest| rest.split_once("::"));
    let first = || line.split_once("##[").and_then(|(_, rest)| rest.split_once(']'));
    second().or_else(first).map(|(name, _)| name)
}

/// However the bytes of both ends are cut and mixed, the agent sees whole frames of two kinds only, the step sees whole frames,
/// one for each of its own at most, and nothing after an end that was closed.
pub fn ssh_agent_frame(data: &[u8]) {
    let mut feed = Feed(data);
    let named = feed.byte() & 1 == 1;
    let mut filter = AgentFilter::new(named.then(|| [b"key".to_vec()].into()));
    let (mut forwarded, mut answered) = (0u32, 0u32);
    while !feed.is_empty() {
        let (to_agent, count) = (feed.byte() & 1 == 0, usize::from(feed.byte()));
        let piece: Vec<u8> = (0..count.min(feed.0.len())).map(|_| feed.byte()).collect();
        if to_agent {
            for action in filter.client(&piece) {
                match action {
                    Client::Forward(frame) => {
                        whole(&frame);
                        assert!(matches!(frame[4], 11 | 13), "kind {}", frame[4]);
                        assert!(!named || frame[4] == 11 || frame[5..].starts_with(b"\0\0\0\x03key"), "another key");
                        forwarded += 1;
                    }
                    Client::Answer(frame) => assert_eq!(frame, [0, 0, 0, 1, 5]),
                    Client::Close => return,
                }
            }
        } else {
            for action in filter.agent(&piece) {
                match action {
                    Reply::Answer(frame) => {
                        whole(&frame);
                        answered += 1;
                        assert!(answered <= forwarded, "an answer nobody asked for");
                    }
                    Reply::Close => return,
                }
            }
        }
    }
}

fn whole(frame: &[u8]) {
    let length = u32::from_be_bytes(frame[..4].try_into().expect("a length")) as usize;
    assert!(length == frame.len() - 4 && (1..=MAX_FRAME).contains(&length), "{length}");
}

/// Any bytes are a key file or are refused; a key lists itself as the agent's protocol has it, and what it signs has a name.
pub fn ssh_key(data: &[u8]) {
    let Some((form, rest)) = data.split_first() else { return };
    let armoured = base64::engine::general_purpose::STANDARD.encode(rest);
    let label = ["OPENSSH", "RSA", "EC", ""].get(usize::from(*form)).copied();
    let text = match label {
        Some(label) => {
            let label = format!("{label} PRIVATE KEY");
            format!("-----BEGIN {}-----\n{armoured}\n-----END {0}-----\n", label.trim_start()).into_bytes()
        }
        None => rest.to_vec(),
    };
    let Ok(key) = SshKey::parse(&text, "file") else { return };
    let signature = key.sign(b"data", 2).expect("a hash that all kinds know");
    for named in [key.blob(), &signature] {
        let length = u32::from_be_bytes(named[..4].try_into().expect("a length")) as usize;
        assert!(named[4..4 + length].is_ascii() && named.len() > 4 + length, "{named:?}");
    }
    let keys = Keys::new(vec![key]);
    let list = keys.answer(&[11]);
    assert_eq!(list[..5], [12, 0, 0, 0, 1]);
    assert_eq!(
        keys.answer(rest.get(..rest.len().min(64)).unwrap_or_default()).first().map(|kind| *kind < 15),
        Some(true)
    );
}
