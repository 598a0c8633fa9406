//! What a build tells while it runs: events in, and displays that write them out.
//!
//! In: [`Event`]s, stamped by whoever emits them. Out: text on an `io::Write` given by the caller. Nothing here reads a clock.

pub mod event;

pub use event::{Event, Log, Sink, Status, Stream, Vertex, Warning};
