//! The thread that shows progress: takes events from any thread, ticks, and owns the display.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use super::args::{BuildArgs, ProgressMode};
use crate::config::Environment;
use crate::progress::{Colors, Commands, Display, DisplayOptions, Event, Mode, Sink, WarningDetail, display};

/// Time between two drawings of the terminal display.
const TICK: Duration = Duration::from_millis(100);

/// Events that may wait for the display. Who has more waits too, a step that floods its output in the end: memory stays small.
const QUEUE: usize = 256;

/// A running display.
#[derive(Debug)]
pub(super) struct Screen {
    events: SyncSender<Option<Event>>,
    thread: JoinHandle<()>,
}

/// Sends events to the display's thread; none is the end.
#[derive(Debug)]
struct Channel(SyncSender<Option<Event>>);

impl Sink for Channel {
    fn send(&self, event: Event) {
        if let Err(TrySendError::Full(event)) = self.0.try_send(Some(event)) {
            // Other tasks of this thread go on meanwhile, among them the one that takes signals. The display ends after the
            // build; what comes later has nobody to see it.
            tokio::task::block_in_place(|| drop(self.0.send(event)));
        }
    }
}

impl Screen {
    /// Starts the display that flags and environment ask for, on standard error.
    pub(super) fn start(how: impl Into<How>, environment: &Environment) -> (Self, Arc<dyn Sink>) {
        let (mode, options) = choose(how, environment);
        let (events, receiver) = mpsc::sync_channel(QUEUE);
        let display = display(mode, Box::new(std::io::stderr()), options);
        let thread = std::thread::spawn(move || show(display, &receiver));
        (Self { events: events.clone(), thread }, Arc::new(Channel(events)))
    }

    /// Shows what was sent until now and ends the display. Threads that nobody waits for after a signal may keep their sinks:
    /// what they send is dropped.
    pub(super) fn finish(self) {
        // It fails where the display has ended, which is what it asks for.
        let _ = self.events.send(None);
        if self.thread.join().is_err() {
            // The display panicked and said so itself; the build's own result counts.
            let _ = std::io::stderr().flush();
        }
    }
}

/// How progress is to be shown, as flags say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct How {
    pub(super) progress: ProgressMode,
    pub(super) quiet: bool,
    pub(super) debug: bool,
}

impl From<&BuildArgs> for How {
    fn from(args: &BuildArgs) -> Self {
        Self { progress: args.progress, quiet: args.quiet, debug: args.debug }
    }
}

/// Decides how progress is shown.
pub(super) fn choose(how: impl Into<How>, environment: &Environment) -> (Mode, DisplayOptions) {
    let how = how.into();
    let terminal = std::io::stderr().is_terminal() && environment.text("TERM") != Some("dumb");
    let mode = match how.progress {
        _ if how.quiet => Mode::Quiet,
        ProgressMode::Quiet => Mode::Quiet,
        ProgressMode::Plain => Mode::Plain,
        ProgressMode::Rawjson => Mode::RawJson,
        ProgressMode::Tty => Mode::Tty,
        ProgressMode::Auto if terminal => Mode::Tty,
        ProgressMode::Auto => Mode::Plain,
    };
    let colored = terminal && !environment.is_set("NO_COLOR");
    let options = DisplayOptions {
        colors: if colored || environment.is_set("GITHUB_ACTIONS") { Colors::Keep } else { Colors::Drop },
        commands: commands(environment),
        warnings: if how.debug { WarningDetail::Full } else { WarningDetail::Short },
        size: crate::sys::terminal::size_of_stderr().unwrap_or((80, 24)),
    };
    (mode, options)
}

/// Whether somebody reads commands from what is printed.
pub(super) fn commands(environment: &Environment) -> Commands {
    if environment.is_set("GITHUB_ACTIONS") { Commands::Defuse } else { Commands::PassOn }
}

/// Ticks are due at fixed times, however many events arrive in between.
fn show(mut display: Display, events: &Receiver<Option<Event>>) {
    let mut next = Instant::now() + TICK;
    loop {
        match events.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(Some(event)) => display.event(&event),
            Err(RecvTimeoutError::Timeout) => {}
            Ok(None) | Err(RecvTimeoutError::Disconnected) => break,
        }
        if Instant::now() >= next {
            if let Some((columns, rows)) = crate::sys::terminal::size_of_stderr() {
                display.resize(columns, rows);
            }
            display.tick(SystemTime::now());
            next = Instant::now() + TICK;
        }
    }
    if let Err(error) = display.finish() {
        tracing::debug!(%error, "failed to write progress");
    }
}
