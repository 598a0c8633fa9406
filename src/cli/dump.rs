//! `rbuild debug dump-llb`: the LLB of a build as JSON, one op a line.

use std::io::Write;
use std::sync::Arc;

use super::args::BuildArgs;
use super::{on_runtime, prepare};
use crate::config::Environment;
use crate::diag::Diagnostic;
use crate::driver;
use crate::progress::event::NoProgress;

/// Prints the definition of each platform; images are resolved, nothing is pulled or run.
pub(super) fn dump_llb(args: &BuildArgs, environment: &Environment) -> Result<(), Diagnostic> {
    let prepared = prepare(args, environment)?;
    let setup = super::setup(args, environment, &prepared, false);
    let lines = on_runtime(Arc::new(NoProgress), |sink, _| driver::dump(setup, prepared.request, sink))?;
    let mut out = std::io::stdout().lock();
    for line in lines {
        match writeln!(out, "{line}") {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(super::closed_output(&error)),
            Ok(()) => {}
        }
    }
    Ok(())
}
