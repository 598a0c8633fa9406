//! What a build tells while it runs: events in, and displays that write them out.
//!
//! In: [`Event`]s, stamped by whoever emits them, and ticks that say what time it is. Out: text on an `io::Write` given by
//! the caller. Nothing here reads a clock, a terminal or the environment. Invariants: output of a process passes
//! [`sanitize::Sanitizer`], names and errors pass [`sanitize::escape`], whatever the display; the same events and ticks give
//! the same text.

pub mod event;
mod plain;
mod rawjson;
pub mod sanitize;
mod trace;
mod tty;
mod units;

use std::fmt;
use std::io::{self, Write};
use std::time::SystemTime;

pub use event::{Event, Log, Sink, Status, Stream, Vertex, Warning};
pub use sanitize::Colors;

/// How a build is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Lines, each step with a number: for logs.
    Plain,
    /// A tree that is drawn again and again: for terminals.
    Tty,
    /// Nothing.
    Quiet,
    /// BuildKit's `SolveStatus` as JSON, one object a line: for programs.
    RawJson,
}

/// Settings of a display.
#[derive(Debug, Clone)]
pub struct DisplayOptions {
    /// Whether colours are used and colours of the steps' output are kept.
    pub colors: Colors,
    /// Whether text that a CI runner would take for its own commands is broken up.
    pub commands: Commands,
    /// Whether warnings at the end come with explanations and excerpts.
    pub warnings: WarningDetail,
    /// Columns and rows of the terminal.
    pub size: (u16, u16),
}

/// What happens to lines that could be commands to a CI runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commands {
    /// They are passed on: nobody reads commands from this output.
    PassOn,
    /// They are broken by a zero-width space.
    Defuse,
}

/// How much is said of a warning when the build is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WarningDetail {
    /// One line each.
    Short,
    /// Also the explanation, the address of the documentation and the lines of the file.
    Full,
}

impl Default for DisplayOptions {
    fn default() -> Self {
        Self { colors: Colors::Keep, commands: Commands::PassOn, warnings: WarningDetail::Short, size: (80, 24) }
    }
}

/// What a kind of display does; it writes to a buffer that [`Display`] passes on.
trait Painter: Send {
    fn event(&mut self, event: &Event, out: &mut String);
    fn tick(&mut self, now: SystemTime, out: &mut String);
    fn resize(&mut self, _size: (u16, u16)) {}
    fn finish(&mut self, out: &mut String);
}

/// Shows a build.
pub struct Display {
    painter: Option<Box<dyn Painter>>,
    out: Box<dyn Write + Send>,
    buffer: String,
    error: Option<io::Error>,
}

impl fmt::Debug for Display {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Display").field("error", &self.error).finish_non_exhaustive()
    }
}

/// Makes a display that writes to `out`.
pub fn display(mode: Mode, out: Box<dyn Write + Send>, options: DisplayOptions) -> Display {
    let painter: Option<Box<dyn Painter>> = match mode {
        Mode::Plain => Some(Box::new(plain::Plain::new(options))),
        Mode::Tty => Some(Box::new(tty::Tty::new(options))),
        Mode::Quiet => None,
        Mode::RawJson => Some(Box::new(rawjson::RawJson::new(options.commands))),
    };
    Display { painter, out, buffer: String::new(), error: None }
}

impl Display {
    /// Takes an event.
    pub fn event(&mut self, event: &Event) {
        self.paint(|painter, out| painter.event(event, out));
    }

    /// Says what time it is; to be called some ten times a second. The terminal is drawn only then.
    pub fn tick(&mut self, now: SystemTime) {
        self.paint(|painter, out| painter.tick(now, out));
    }

    /// Says that the terminal has another size now.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        if let Some(painter) = &mut self.painter {
            painter.resize((columns, rows));
        }
    }

    /// Writes what is left, the output of failed steps once more, and the warnings; returns the first error of writing.
    pub fn finish(mut self) -> io::Result<()> {
        self.paint(|painter, out| painter.finish(out));
        match self.error {
            Some(error) => Err(error),
            None => self.out.flush(),
        }
    }

    fn paint(&mut self, paint: impl FnOnce(&mut dyn Painter, &mut String)) {
        let Some(painter) = self.painter.as_deref_mut() else { return };
        self.buffer.clear();
        paint(painter, &mut self.buffer);
        // A reader that went away must not end the build; the error is reported at the end.
        if self.error.is_none() && !self.buffer.is_empty() {
            let written = self.out.write_all(self.buffer.as_bytes()).and_then(|()| self.out.flush());
            self.error = written.err();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;
    use crate::diag::LineRange;
    use crate::digest::Digest;

    /// A writer whose text can be read while the display has it.
    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("lock").write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A build told step by step.
    struct Build {
        screen: Screen,
        display: Display,
    }

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000) + Duration::from_millis(millis)
    }

    fn vertex(name: &str, started: Option<u64>, completed: Option<u64>) -> Vertex {
        Vertex {
            digest: Digest::compute(name),
            inputs: Vec::new(),
            name: name.into(),
            started: started.map(at),
            completed: completed.map(at),
            cached: false,
            error: String::new(),
        }
    }

    fn part(name: &str, id: &str, done: (u64, u64), times: (u64, u64, Option<u64>)) -> Event {
        Event::Status(Status {
            id: id.into(),
            vertex: Digest::compute(name),
            current: done.0,
            total: done.1,
            timestamp: at(times.1),
            started: Some(at(times.0)),
            completed: times.2.map(at),
        })
    }

    impl Build {
        fn new(mode: Mode, options: DisplayOptions) -> Self {
            let screen = Screen::default();
            Self { display: display(mode, Box::new(screen.clone()), options), screen }
        }

        fn plain() -> Self {
            Self::new(Mode::Plain, DisplayOptions::default())
        }

        fn event(&mut self, event: Event) -> &mut Self {
            self.display.event(&event);
            self
        }

        fn start(&mut self, name: &str, time: u64) -> &mut Self {
            self.event(Event::Vertex(vertex(name, Some(time), None)))
        }

        fn end(&mut self, name: &str, started: u64, time: u64) -> &mut Self {
            self.event(Event::Vertex(vertex(name, Some(started), Some(time))))
        }

        fn fail(&mut self, name: &str, started: u64, time: u64, error: &str) -> &mut Self {
            let failed = Vertex { error: error.into(), ..vertex(name, Some(started), Some(time)) };
            self.event(Event::Vertex(failed))
        }

        fn log(&mut self, name: &str, time: u64, data: impl AsRef<[u8]>) -> &mut Self {
            let (vertex, data) = (Digest::compute(name), data.as_ref().to_vec());
            self.event(Event::Log(Log { vertex, stream: Stream::Stdout, data, timestamp: at(time) }))
        }

        fn warn(&mut self, name: &str, short: &str) -> &mut Self {
            self.event(Event::Warning(Warning {
                vertex: Digest::compute(name),
                level: 1,
                short: short.into(),
                detail: vec!["Longer.".into()],
                url: "https://docs.example/rule".into(),
                file: "Dockerfile".into(),
                text: "FROM a\nRUN\tb\n".into(),
                ranges: vec![LineRange { start: 2, end: 2 }],
            }))
        }

        fn so_far(&self) -> String {
            String::from_utf8(self.screen.0.lock().expect("lock").clone()).expect("utf-8")
        }

        fn finish(self) -> String {
            let screen = self.screen.clone();
            self.display.finish().expect("written");
            let bytes = screen.0.lock().expect("lock").clone();
            String::from_utf8(bytes).expect("utf-8")
        }
    }

    #[test]
    fn plain_tells_a_whole_build() {
        let mut build = Build::plain();
        build.start("[internal] load", 0).event(part(
            "[internal] load",
            "transferring dockerfile:",
            (154, 0),
            (0, 8, Some(8)),
        ));
        build.warn("[internal] load", "Rule: message (line 2)").end("[internal] load", 0, 20);
        let cached = Vertex { cached: true, ..vertex("[1/3] FROM a", Some(30), Some(30)) };
        build.event(Event::Vertex(cached)).start("[2/3] RUN make", 40);
        build.log("[2/3] RUN make", 163, "cc -o main").log("[2/3] RUN make", 200, " main.c\nnext\nno newline");
        build.fail("[2/3] RUN make", 40, 1240, "process \"make\" did not complete: exit code: 2");
        build.fail("[3/3] RUN other", 50, 1241, "context canceled");
        let expected = "\
#1 [internal] load
#1 transferring dockerfile: 154B done
#1 WARN: Rule: message (line 2)
#1 DONE 0.0s

#2 [1/3] FROM a
#2 CACHED

#3 [2/3] RUN make
#3 0.123 cc -o main main.c
#3 0.160 next
#3 0.160 no newline
#3 ERROR: process \"make\" did not complete: exit code: 2

#4 [3/3] RUN other
#4 CANCELED
------
 > [2/3] RUN make:
0.123 cc -o main main.c
0.160 next
0.160 no newline
------

 1 warning found:
 - Rule: message (line 2)
";
        assert_eq!(build.finish(), expected);
    }

    #[test]
    fn plain_shows_one_step_at_a_time() {
        let mut build = Build::plain();
        build.start("a", 0).log("a", 10, "a1\n").start("b", 20).log("b", 30, "b1\n").log("a", 40, "a2\n");
        assert_eq!(build.so_far(), "#1 a\n#1 0.010 a1\n#1 0.040 a2\n");
        build.end("b", 20, 50);
        assert!(
            build.so_far().ends_with("a2\n#1 ...\n\n#2 b\n#2 0.010 b1\n#2 DONE 0.0s\n\n#1 a\n"),
            "{}",
            build.so_far()
        );
        build.start("c", 60).log("c", 70, "c1\n");
        assert!(!build.so_far().contains("c1"), "c waits");
        build.display.tick(at(11_000));
        assert!(build.so_far().ends_with("#1 a\n#1 ...\n\n#3 c\n#3 0.010 c1\n"), "{}", build.so_far());
    }

    #[test]
    fn plain_tells_parts_when_they_move() {
        let mut build = Build::plain();
        build.start("pull", 0);
        for (current, time) in [(0, 0), (10_000, 100), (900_000, 200), (910_000, 6000), (920_000, 6100)] {
            build.event(part("pull", "sha256:abc", (current, 1_000_000), (0, time, None)));
        }
        build.event(part("pull", "sha256:abc", (1_000_000, 1_000_000), (0, 6200, Some(6200))));
        let lines = "\
#1 pull
#1 sha256:abc 0B / 1.00MB
#1 sha256:abc 900.00kB / 1.00MB 0.2s
#1 sha256:abc 910.00kB / 1.00MB 6.0s
#1 sha256:abc 1.00MB / 1.00MB 6.2s done
";
        assert_eq!(build.so_far(), lines);
    }

    #[test]
    fn the_tail_has_the_last_ten_lines() {
        let mut build = Build::plain();
        build.start("a", 0);
        for number in 0..30 {
            build.log("a", 10, format!("line {number}\n"));
        }
        build.fail("a", 0, 20, "bad");
        let text = build.finish();
        let tail = text.split("------\n").nth(1).expect("tail");
        assert_eq!(tail.lines().count(), 11);
        assert!(tail.contains("line 20\n") && tail.ends_with("line 29\n"));
    }

    #[test]
    fn explained_warnings_show_the_lines() {
        let options = DisplayOptions { warnings: WarningDetail::Full, ..DisplayOptions::default() };
        let mut build = Build::new(Mode::Plain, options);
        build.start("a", 0).warn("a", "Rule: x").warn("a", "Rule: y");
        let text = build.finish();
        assert!(
            text.contains("\n 2 warnings found:\n - Rule: x\n   Longer.\n   https://docs.example/rule\nDockerfile:2\n")
        );
        assert!(text.contains("   2 | >>> RUN\tb\n"), "{text}");
    }

    #[test]
    fn l2_names_and_errors_are_escaped_everywhere() {
        for mode in [Mode::Plain, Mode::RawJson, Mode::Tty] {
            let mut build = Build::new(mode, DisplayOptions { colors: Colors::Drop, ..DisplayOptions::default() });
            let name = "RUN \x1b]0;t\x07\u{202e}\u{9b}2J\nx";
            build.start(name, 0).event(part(name, "id\x1b[2J", (0, 0), (0, 1, None))).warn(name, "w\x1b[2J\r");
            build.fail(name, 0, 10, "e\x1b[2J\u{2066}").display.tick(at(20));
            let text = build.finish();
            // Only the terminal display writes sequences, and only its own.
            let own = ["\x1b[?25l", "\x1b[?25h", "\x1b[K", "\x1b[J", "\x1b[3A", "\x1b[4A"];
            let rest = own.iter().fold(text, |text, sequence| text.replace(sequence, "")).replace(['\r', '\n'], "");
            assert!(!rest.chars().any(char::is_control), "{mode:?}: {rest:?}");
            assert!(!rest.contains(['\u{202e}', '\u{2066}']), "{mode:?}: {rest:?}");
        }
    }

    /// What GitHub's runner takes for a command: the newer form at the start of a line, the older one anywhere.
    fn runner_commands(text: &str) -> Vec<String> {
        let is_command = |line: &&str| {
            let newer = line.trim().strip_prefix("::").is_some_and(|rest| rest.contains("::"));
            newer || line.find("##[").is_some_and(|at| line[at..].contains(']'))
        };
        text.split(['\n', '\r']).filter(is_command).map(str::to_owned).collect()
    }

    #[test]
    fn l1_no_foreign_line_is_a_command() {
        let hostile: &[&[u8]] = &[
            b"::add-mask::x\n",
            b"::error::x\r",
            b"  ::set-output name=a::b\n",
            b"x##[add-matcher]a.json\n",
            b"##\x07[group]x\n",
            b"#\x1b[0m#\x1b]0;x\x07[error]y\n",
            b"##vso[task.setvariable]\n",
            b"\r::stop-",
            b"commands::token\r",
            b"\xe2\x80\xa8::error::x\n",
            b"##",
            b"[debug]z\n::token::\n",
        ];
        assert_eq!(runner_commands("a\n ::error::x\ny##[group]z").len(), 2, "the reader finds commands");
        for mode in [Mode::Plain, Mode::RawJson] {
            for colors in [Colors::Keep, Colors::Drop] {
                let options = DisplayOptions { colors, commands: Commands::Defuse, ..DisplayOptions::default() };
                let mut build = Build::new(mode, options);
                let name = "RUN ##[add-matcher]x\n::error::y";
                build.start(name, 0);
                for chunk in hostile {
                    build.log(name, 1, chunk);
                }
                build.warn(name, "##[error]\n::error::w").fail(name, 0, 5, "##[error]bad\r::error::e");
                let text = build.finish();
                assert!(text.len() > 500);
                assert_eq!(runner_commands(&text), Vec::<String>::new(), "{text}");
            }
        }
    }

    #[test]
    fn rawjson_is_solve_status() {
        let mut build = Build::new(Mode::RawJson, DisplayOptions::default());
        build
            .start("a <b>", 0)
            .event(part("a <b>", "id", (1, 2), (0, 1500, None)))
            .log("a <b>", 2, b"\xff\n")
            .warn("a <b>", "w");
        let text = build.finish();
        let (a, lines) = (Digest::compute("a <b>"), text.lines().collect::<Vec<_>>());
        let time = "2023-11-14T22:13:20";
        let expected = [
            format!(r#"{{"vertexes":[{{"digest":"{a}","name":"a \u003cb\u003e","started":"{time}Z"}}]}}"#),
            format!(
                r#"{{"statuses":[{{"id":"id","vertex":"{a}","total":2,"current":1,"timestamp":"2023-11-14T22:13:21.5Z","started":"{time}Z"}}]}}"#
            ),
            format!(r#"{{"logs":[{{"vertex":"{a}","stream":1,"data":"/wo=","timestamp":"{time}.002Z"}}]}}"#),
            format!(
                r#"{{"warnings":[{{"vertex":"{a}","level":1,"short":"dw==","detail":["TG9uZ2VyLg=="],"url":"https://docs.example/rule","sourceInfo":{{"filename":"Dockerfile","data":"RlJPTSBhClJVTgliCg==","language":"Dockerfile"}},"range":[{{"start":{{"line":2}},"end":{{"line":2}}}}]}}]}}"#
            ),
        ];
        assert_eq!(lines, expected);
    }

    /// Plays what a terminal would show: cursor up, erase, text.
    fn terminal(text: &str, columns: usize) -> Vec<String> {
        let (mut rows, mut row) = (vec![String::new()], 0);
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            match c {
                '\n' => {
                    row += 1;
                    if row == rows.len() {
                        rows.push(String::new());
                    }
                    rows[row].clear();
                }
                '\r' => rows[row].clear(),
                '\x1b' => {
                    let end = rest.find(|c: char| c.is_ascii_alphabetic()).expect("a whole sequence");
                    match (&rest[1..end], &rest[end..=end]) {
                        (count, "A") => {
                            row -= count.parse::<usize>().expect("count");
                            rows[row].clear();
                        }
                        (_, "J") => rows.truncate(row + 1),
                        _ => {}
                    }
                    rest = &rest[end + 1..];
                }
                c => rows[row].push(c),
            }
            assert!(rows[row].chars().count() <= columns, "too wide: {:?}", rows[row]);
        }
        rows
    }

    #[test]
    fn tty_draws_a_tree_over_itself() {
        let options = DisplayOptions { size: (40, 12), ..DisplayOptions::default() };
        let mut build = Build::new(Mode::Tty, options);
        build.start("[1/2] FROM docker.io/library/alpine:latest@sha256:0123", 0);
        build.display.tick(at(100));
        build.end("[1/2] FROM docker.io/library/alpine:latest@sha256:0123", 0, 1000).start("[2/2] RUN make", 1000);
        build.log("[2/2] RUN make", 1100, "one\n\x1b[32mtwo that is wider than the terminal is\n");
        build.display.tick(at(3500));
        let rows = terminal(&build.so_far(), 40);
        assert_eq!(rows[0], "[+] Building 3.5s (1/2)");
        assert_eq!(rows[1], " => [1/2] FROM docker.io/library/al 1.0s");
        assert_eq!(rows[2], " => [2/2] RUN make                  2.5s");
        assert_eq!(rows[3], " => => # one");
        assert_eq!(rows[4], " => => # two that is wider than the term");
        build.end("[2/2] RUN make", 1000, 4000);
        build.display.tick(at(4000));
        let text = build.finish();
        let rows = terminal(&text, 40);
        assert_eq!(rows[0], "[+] Building 4.0s (2/2) FINISHED");
        assert_eq!(rows.len(), 4, "{rows:?}");
    }

    #[test]
    fn tty_keeps_to_the_height_and_prefers_what_runs() {
        let options = DisplayOptions { size: (60, 8), ..DisplayOptions::default() };
        let mut build = Build::new(Mode::Tty, options);
        build.start("runs from the start", 0);
        for number in 0..20 {
            build.end(&format!("step number {number}"), 1, 2);
        }
        build.display.tick(at(100));
        let rows = terminal(&build.so_far(), 60);
        assert!(rows.len() <= 8, "{rows:?}");
        assert!(rows[1].contains("runs from the start") && rows[2].contains("step number 15"), "{rows:?}");
    }

    #[test]
    fn quiet_says_nothing_and_errors_come_out_at_the_end() {
        let mut build = Build::new(Mode::Quiet, DisplayOptions::default());
        build.start("a", 0).fail("a", 0, 1, "bad").warn("a", "w");
        assert_eq!(build.finish(), "");
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut closed = display(Mode::Plain, Box::new(Closed), DisplayOptions::default());
        closed.event(&Event::Vertex(vertex("a", Some(0), None)));
        assert_eq!(closed.finish().expect_err("closed").kind(), io::ErrorKind::BrokenPipe);
    }
}
