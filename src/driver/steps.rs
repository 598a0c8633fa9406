//! Steps the driver itself takes, such as loading the Dockerfile, shown like the steps of the build.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use crate::diag::Diagnostic;
use crate::digest::Digest;
use crate::progress::{Event, Log, Sink, Status, Stream, Vertex};

/// A diagnostic as the error of a step: shown by its message.
#[derive(Debug)]
pub(super) struct Shown(pub(super) Diagnostic);

impl Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.message)
    }
}

/// Emits the events of the driver's own steps.
#[derive(Debug, Clone)]
pub(super) struct Steps {
    sink: Arc<dyn Sink>,
}

/// A running step, under which parts can report.
#[derive(Debug, Clone)]
pub(super) struct Step {
    sink: Arc<dyn Sink>,
    vertex: Vertex,
}

impl Steps {
    /// Sends events to `sink`.
    pub(super) fn new(sink: Arc<dyn Sink>) -> Self {
        Self { sink }
    }

    /// Runs `work` as a step called `name`; the step fails with the work.
    ///
    /// # Errors
    ///
    /// Those of the work.
    pub(super) async fn run<T, E, F>(&self, name: &str, work: impl FnOnce(Step) -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: Display,
    {
        let step = self.start(name);
        let result = work(step.clone()).await;
        tracing::debug!(step = name, failed = result.is_err(), "finished a step of the driver");
        step.end(result.as_ref().err().map(|error| error.to_string()));
        result
    }

    fn start(&self, name: &str) -> Step {
        let vertex = Vertex {
            digest: Digest::compute(format!("rbuild.step:{name}")),
            inputs: Vec::new(),
            name: name.to_owned(),
            started: Some(SystemTime::now()),
            completed: None,
            cached: false,
            error: String::new(),
        };
        self.sink.send(Event::Vertex(vertex.clone()));
        Step { sink: Arc::clone(&self.sink), vertex }
    }
}

impl Step {
    /// Runs `work` as a part of the step, shown as a line with its duration.
    ///
    /// # Errors
    ///
    /// Those of the work.
    pub(super) async fn part<T, E>(&self, id: &str, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let started = SystemTime::now();
        self.status(id, started, None);
        let result = work.await;
        if result.is_ok() {
            self.status(id, started, Some(SystemTime::now()));
        }
        result
    }

    /// Takes the output of a program that the step runs.
    pub(super) fn log(&self) -> crate::source::git::Log {
        let (sink, vertex) = (Arc::clone(&self.sink), self.vertex.digest.clone());
        Arc::new(move |data| {
            let (vertex, data, timestamp) = (vertex.clone(), data.to_vec(), SystemTime::now());
            sink.send(Event::Log(Log { vertex, stream: Stream::Stderr, data, timestamp }));
        })
    }

    /// Reports bytes of a part.
    pub(super) fn progress(&self, id: &str, current: u64, total: u64) {
        let now = SystemTime::now();
        let completed = (current >= total).then_some(now);
        self.sink.send(Event::Status(Status {
            id: id.to_owned(),
            vertex: self.vertex.digest.clone(),
            current,
            total,
            timestamp: now,
            started: Some(now),
            completed,
        }));
    }

    /// Reports a part that is over and moved so many bytes, or none that count.
    pub(super) fn over(&self, id: &str, bytes: u64, started: SystemTime) {
        let (vertex, times) = (self.vertex.digest.clone(), (started, SystemTime::now()));
        self.sink.send(Event::Status(Status::over(vertex, id.to_owned(), bytes, times)));
    }

    /// Reports that a part began, or that it is over.
    pub(super) fn status(&self, id: &str, started: SystemTime, completed: Option<SystemTime>) {
        self.sink.send(Event::Status(Status {
            id: id.to_owned(),
            vertex: self.vertex.digest.clone(),
            current: 0,
            total: 0,
            timestamp: completed.unwrap_or(started),
            started: Some(started),
            completed,
        }));
    }

    fn end(mut self, error: Option<String>) {
        self.vertex.completed = Some(SystemTime::now());
        self.vertex.error = error.unwrap_or_default();
        self.sink.send(Event::Vertex(self.vertex));
    }
}
