//! B with a runtime: from a plan to how the step ended.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::Deserialize;

use super::bundle;
use crate::exec::error::Stage as At;
use crate::exec::process;
use crate::exec::sandbox::{self, Assembled, KILL_ROUNDS, Plan};
use crate::exec::wire::{Confinement, During, External, Failure, Processes, StepResult};
use crate::sys::dir::{Dir, OFlags};
use crate::sys::mount::{MountAttrFlags, Recursive};
use crate::sys::proc::{self, Ended, Forked};
use crate::sys::{fds, mount, ns};

/// What runtimes find the programs with that they start themselves.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// More than any log of one start.
const MAX_LOG: u64 = 1 << 20;
/// What the container is called; nobody else sees it.
const ID: &str = "step";

/// Runs the step by this runtime.
pub(in crate::exec) fn run(plan: &Plan, runtime: &External) -> StepResult {
    start(plan, runtime).and_then(|pid| follow(plan, pid)).unwrap_or_else(StepResult::Failed)
}

/// Returns the number of the step's first process, a child of this one.
fn start(plan: &Plan, runtime: &External) -> Result<u32, Failure> {
    if plan.step.processes == Processes::Shared {
        proc::adopt_orphans().during(At::Namespaces, "adopt the step's first process")?;
    }
    let assembled = sandbox::assemble(plan)?;
    process::open_workdir(&assembled.root, &plan.step.cwd, &plan.identity)?;
    let top = assembled.stage.top();
    clear(plan, &assembled).during(At::Runtime, "make way for the container runtime")?;
    let path = assembled.stage.path();
    let config = bundle::config(plan, &path.join("root"), &path.join("dev"))?;
    write(top, &config).during(At::Runtime, "write the bundle")?;
    let call = Call { plan, runtime, path, top };
    // The root is one that devices do not work in, which must be so before the step runs.
    if runtime.keeps_attributes || plan.step.confinement == Confinement::Insecure {
        call.execute(&["run", "--detach"], &call.bundle())?;
        return call.pid();
    }
    call.execute(&["create"], &call.bundle())?;
    let pid = call.pid()?;
    refuse_devices(pid).during(At::Runtime, "refuse devices in the root file system")?;
    call.execute(&["start"], &[])?;
    Ok(pid)
}

/// crun gives the root new attributes, which are none.
fn refuse_devices(pid: u32) -> io::Result<()> {
    match proc::fork()? {
        Forked::Parent(child) => match child.wait()? {
            Ended::Exited(0) => Ok(()),
            _ => Err(io::Error::other("the mount namespace of the step could not be changed")),
        },
        Forked::Child => {
            let done = ns::enter_mounts_of(pid).and_then(|()| {
                let root = fds::open_path(Path::new("/"))?;
                mount::set_attributes(root, MountAttrFlags::MOUNT_ATTR_NODEV, Recursive::No)
            });
            proc::exit_now(u8::from(done.is_err()))
        }
    }
}

/// A runtime, and where what it needs is.
struct Call<'a> {
    plan: &'a Plan,
    runtime: &'a External,
    path: &'a Path,
    top: &'a Dir,
}

impl Call<'_> {
    fn place(&self, name: &str) -> String {
        format!("{}/{name}", self.path.display())
    }

    fn bundle(&self) -> [String; 4] {
        ["--bundle".into(), self.place("bundle"), "--pid-file".into(), self.place("pid")]
    }

    fn pid(&self) -> Result<u32, Failure> {
        let pid = read(self.top, "pid").during(At::Runtime, "read which process the container runtime started")?;
        let unknown = |_| Failure { stage: At::Runtime, message: format!("{} named no process", self.runtime.program) };
        pid.trim().parse().map_err(unknown)
    }

    /// What the runtime says to standard error is seen in the step's log.
    fn execute(&self, command: &[&str], options: &[String]) -> Result<(), Failure> {
        let program = &self.runtime.program;
        let mut args = vec![program.clone(), "--root".into(), self.place("state")];
        args.extend(["--log".into(), self.place("log"), "--log-format".into(), "json".into()]);
        args.extend(self.runtime.options.iter().cloned());
        args.extend(command.iter().map(|word| (*word).to_owned()));
        args.extend(options.iter().cloned());
        args.push(ID.into());
        let ended = run_program(&args).during(At::Runtime, format!("start {program}"))?;
        match ended {
            Ended::Exited(0) => Ok(()),
            ended => {
                let log = read(self.top, "log").unwrap_or_default();
                Err(failure(program, &self.plan.step.args[0], ended, &log))
            }
        }
    }
}

/// Takes out of the root what the runtime puts there itself, and hides control groups from it: it would make some.
fn clear(plan: &Plan, assembled: &Assembled) -> io::Result<()> {
    let top = assembled.stage.top();
    top.make_dir(OsStr::new("dev"), 0o755)?;
    mount::attach(&assembled.dev, top.resolve(OsStr::new("dev"), OFlags::PATH)?)?;
    if plan.step.processes == Processes::Own {
        // The runtime asks after processes by the numbers they have here.
        mount::attach(&assembled.proc, fds::open_path(Path::new("/proc"))?)?;
    }
    sandbox::hide_cgroups();
    Ok(())
}

fn write(top: &Dir, config: &serde_json::Value) -> io::Result<()> {
    for name in ["state", "bundle"] {
        top.make_dir(OsStr::new(name), 0o700)?;
    }
    let mut file = top.open_dir(OsStr::new("bundle"))?.create_file(OsStr::new("config.json"), 0o600)?;
    file.write_all(&serde_json::to_vec(config)?)
}

fn read(top: &Dir, name: &str) -> io::Result<String> {
    let file = File::from(top.resolve(OsStr::new(name), OFlags::RDONLY)?);
    Ok(String::from_utf8_lossy(&fds::read_at_most(&file, MAX_LOG)?).into_owned())
}

fn run_program(args: &[String]) -> io::Result<Ended> {
    let args = args.iter().map(|text| CString::new(text.as_str())).collect::<Result<Vec<_>, _>>()?;
    let env = [CString::new(PATH)?];
    match proc::fork()? {
        Forked::Parent(child) => child.wait(),
        Forked::Child => {
            let ready = proc::reset_signals().and_then(|()| fds::close_all_on_exec());
            let error = ready.err().unwrap_or_else(|| proc::exec(&args[0], &args, &env));
            let _unsaid = writeln!(io::stderr(), "{}: {error}", args[0].to_string_lossy());
            proc::exit_now(127)
        }
    }
}

/// A line of a runtime's log.
#[derive(Deserialize)]
struct Line {
    level: String,
    msg: String,
}

fn failure(runtime: &str, program: &str, ended: Ended, log: &str) -> Failure {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let worst = lines.filter(|line| ["error", "fatal", "panic"].contains(&line.level.as_str())).last();
    let Some(Line { msg, .. }) = worst else {
        let how = match ended {
            Ended::Exited(code) => format!("exit code {code}"),
            Ended::Signaled(signal) => format!("signal {signal}"),
        };
        return Failure { stage: At::Runtime, message: format!("{runtime} failed: {how}") };
    };
    let said = msg.strip_prefix("runc run failed: ").unwrap_or(&msg);
    let said = said.strip_prefix("unable to start container process: ").unwrap_or(said).trim();
    match about_program(said, program) {
        Some(message) => Failure { stage: At::Program, message },
        None => Failure { stage: At::Runtime, message: format!("{runtime}: {said}") },
    }
}

/// Messages about the step's program are worded as those of the built-in executor.
fn about_program(said: &str, program: &str) -> Option<String> {
    if said.starts_with("exec: ") {
        return Some(said.to_owned());
    }
    if let Some(why) = said.strip_prefix("open executable: ") {
        return Some(format!("exec: {program:?}: {why}"));
    }
    let (name, rest) = said.strip_prefix("executable file `")?.split_once('`')?;
    let why = rest.rsplit_once(": ").map_or(rest, |(_, why)| why);
    let why = if name.contains('/') { why } else { "executable file not found in $PATH" };
    Some(format!("exec: {name:?}: {why}"))
}

/// What a step that shares the machine's processes left running ends with it.
fn follow(plan: &Plan, pid: u32) -> Result<StepResult, Failure> {
    let ended = proc::wait_for(pid).during(At::Runtime, "wait for the step's first process")?;
    if plan.step.processes == Processes::Shared {
        proc::kill_children(KILL_ROUNDS).during(At::Runtime, "end the step's processes")?;
    }
    Ok(match ended {
        Ended::Exited(code) => StepResult::Exited(code),
        Ended::Signaled(signal) => StepResult::Signaled(signal),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_runtime_says_is_passed_on_with_its_name() {
        let line = |text: &str| format!("{{\"level\":\"error\",\"msg\":{},\"time\":\"t\"}}\n", serde_json::json!(text));
        for (log, stage, message) in [
            (
                line(
                    "runc run failed: unable to start container process: exec: \"x\": executable file not found in $PATH",
                ),
                At::Program,
                "exec: \"x\": executable file not found in $PATH",
            ),
            (
                line("executable file `/x` not found in $PATH: No such file or directory"),
                At::Program,
                "exec: \"/x\": No such file or directory",
            ),
            (
                line("executable file `x` not found in $PATH: No such file or directory"),
                At::Program,
                "exec: \"x\": executable file not found in $PATH",
            ),
            (line("open executable: Permission denied"), At::Program, "exec: \"/p\": Permission denied"),
            (
                "{\"level\":\"warning\",\"msg\":\"w\"}\n".to_owned() + &line("runc run failed: seccomp: no"),
                At::Runtime,
                "/usr/bin/runc: seccomp: no",
            ),
            ("no JSON\n".to_owned(), At::Runtime, "/usr/bin/runc failed: exit code 3"),
        ] {
            let failure = failure("/usr/bin/runc", "/p", Ended::Exited(3), &log);
            assert_eq!((failure.stage, failure.message.as_str()), (stage, message));
        }
    }
}
