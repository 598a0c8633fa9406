//! The `__init` child: reads one step from its standard input, runs it in a container, reports how it went, ends.
//!
//! It stays outside the container, with one thread:
//!
//! 1. reads the step and its descriptors;
//! 2. finds the user in the image and makes the mount points that are missing, while nothing else runs in the tree;
//! 3. makes the step's control group, if it has limits;
//! 4. forks pid 1 of a new pid namespace, which becomes the program ([`super::sandbox`], [`super::process`]), or has a container
//!    runtime start it ([`super::external`]);
//! 5. waits for its end, or for the socket to close, upon which it kills the namespace, or, where the step shares the machine's
//!    processes, all that the step has started;
//! 6. removes the mount points it made and the control group, and reports.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::error::Stage;
use super::external;
use super::groups::StepGroup;
use super::sandbox::{self, KILL_ROUNDS, Plan, Source};
use super::target::{self, Made, Want};
use super::user::{self, Identity};
use super::wire::{self, Confinement, During, Failure, Processes, Report, Step, StepMount, StepResult, StepSource};
use crate::sys::dir::{self, Dir, Kind};
use crate::sys::proc::{Child, Ended, Forked};
use crate::sys::{fds, idmap, ns, proc};

/// The kernel picks a step before rbuild when memory runs out.
const OOM_SCORE: i32 = 500;
/// More than any message of ours.
const MAX_TOLD: u64 = 1 << 20;

/// Does what `argv[1] == "__init"` asks for; never returns.
pub fn init_main() -> ! {
    proc::exit_now(u8::from(serve().is_err()))
}

fn serve() -> io::Result<()> {
    proc::new_session()?;
    raise_oom_score();
    proc::use_huge_pages(true)?;
    proc::make_undumpable()?;
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    proc::use_as_stdin(File::open("/dev/null")?)?;
    let (step, descriptors) = wire::receive_step(&socket)?;
    wire::send_report(&socket, &run(step, descriptors, &socket))
}

/// Where an outer container has made the file read-only, the score stays as it is: it decides who is killed, not what is allowed.
fn raise_oom_score() {
    let path = "/proc/self/oom_score_adj";
    let own = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if own.is_some_and(|own| own < OOM_SCORE) {
        let _unchanged = std::fs::write(path, OOM_SCORE.to_string());
    }
}

fn run(step: Step, descriptors: Vec<OwnedFd>, socket: &UnixStream) -> Report {
    let (mut made, mut notices) = (Vec::new(), Vec::new());
    let mut descriptors: Vec<Option<OwnedFd>> = descriptors.into_iter().map(Some).collect();
    let ran = group(&step, &mut descriptors).and_then(|group| {
        let door = group.as_ref().map(StepGroup::door).transpose()?;
        let plan = plan(step, door, &mut descriptors, (&mut made, &mut notices))?;
        let result = supervise(&plan, socket)?;
        Ok((result, group.is_some_and(|group| group.ran_out_of_memory())))
    });
    let stubs_left = target::remove(&made);
    let (result, out_of_memory) = ran.unwrap_or_else(|failure| (StepResult::Failed(failure), false));
    Report { result, stubs_left, notices, out_of_memory }
}

fn group(step: &Step, descriptors: &mut [Option<OwnedFd>]) -> Result<Option<StepGroup>, Failure> {
    let Some(wanted) = &step.group else { return Ok(None) };
    StepGroup::make(take(descriptors, wanted.fd)?, &wanted.name, &wanted.settings).map(Some)
}

fn plan(
    step: Step,
    group: Option<OwnedFd>,
    descriptors: &mut [Option<OwnedFd>],
    (made, notices): (&mut Vec<Made>, &mut Vec<String>),
) -> Result<Plan, Failure> {
    let tree = take(descriptors, 0)?;
    let root = Dir::from(tree.try_clone().during(Stage::Spec, "copy a descriptor")?);
    let identity = user::find(&root, &step.user)?;
    let set_groups = check_ids(&identity, notices)?;
    if step.confinement == Confinement::Insecure
        && !idmap::is_whole(&idmap::users().during(Stage::User, "read the id map")?)
    {
        notices.push(
            "security=insecure without root: the step has all privileges of this user namespace, and none of the machine's \
             (no devices, no mounts of disks, no kernel modules)"
                .to_owned(),
        );
    }
    let sources = step
        .mounts
        .iter()
        .map(|mount| open_source(mount, descriptors).map(|source| (mount.dest.clone(), source)))
        .collect::<Result<Vec<_>, _>>()?;
    make_stubs(&root, &sources, made)?;
    let supervisor = proc::own_pidfd().during(Stage::Spec, "open the supervisor")?;
    Ok(Plan {
        step,
        tree,
        sources: sources.into_iter().map(|(_, source)| source).collect(),
        identity,
        set_groups,
        supervisor,
        group,
    })
}

fn take(descriptors: &mut [Option<OwnedFd>], index: usize) -> Result<OwnedFd, Failure> {
    let found = descriptors.get_mut(index).and_then(Option::take);
    found.ok_or_else(|| Failure { stage: Stage::Spec, message: format!("no descriptor {index}") })
}

/// Returns whether groups can be set at all: not where a user namespace was made without `newgidmap`.
fn check_ids(identity: &Identity, notices: &mut Vec<String>) -> Result<bool, Failure> {
    let (users, groups) = (idmap::users(), idmap::groups());
    let users = users.during(Stage::User, "read the id map")?;
    let groups = groups.during(Stage::User, "read the id map")?;
    let unmapped = |what, id| {
        let message = format!("{what} id {id} is not mapped in this user namespace");
        Err(Failure { stage: Stage::Identity, message })
    };
    if !idmap::contains(&users, identity.uid) {
        return unmapped("user", identity.uid);
    }
    let denied = std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny");
    if denied {
        notices.push("the caller's groups stay with the step: this user namespace may not change groups".to_owned());
        return if idmap::contains(&groups, identity.gid) { Ok(false) } else { unmapped("group", identity.gid) };
    }
    match identity.groups.iter().find(|id| !idmap::contains(&groups, **id)) {
        Some(id) => unmapped("group", *id),
        None => Ok(true),
    }
}

fn open_source(mount: &StepMount, descriptors: &mut [Option<OwnedFd>]) -> Result<Source, Failure> {
    match &mount.source {
        StepSource::Tmpfs { size } => Ok(Source::Tmpfs { size: *size }),
        StepSource::Secret { fd, uid, gid, mode } => {
            let file = File::from(take(descriptors, *fd)?);
            Ok(Source::Secret { file, uid: *uid, gid: *gid, mode: *mode })
        }
        StepSource::Device { fd } => Ok(Source::Device { node: take(descriptors, *fd)? }),
        StepSource::Tree { fd, selector } => {
            let tree = take(descriptors, *fd)?;
            let doing = format!("open the source {selector:?} of mount {}", mount.dest);
            let whole = selector.split('/').all(|part| part.is_empty() || part == ".");
            let selected = if whole { None } else { Some(select(&tree, selector).during(Stage::Mounts, doing)?) };
            let kind = dir::stat_of(selected.as_ref().unwrap_or(&tree)).during(Stage::Mounts, "stat a source")?.kind();
            let want = if kind == Kind::Directory { Want::Directory } else { Want::File };
            Ok(Source::Tree { tree, selected, want })
        }
    }
}

fn select(tree: &OwnedFd, selector: &str) -> io::Result<OwnedFd> {
    target::open_inside(&Dir::from(tree.try_clone()?), selector)
}

/// Makes what is missing in the root itself; what lies below another mount is made when that one is there.
fn make_stubs(root: &Dir, sources: &[(String, Source)], made: &mut Vec<Made>) -> Result<(), Failure> {
    for name in ["proc", "sys", "dev"] {
        let stat = root.try_stat(name.as_ref()).during(Stage::Stubs, format!("look at /{name} of the image"))?;
        if stat.is_some_and(|stat| !stat.is_dir()) {
            let message = format!("/{name} of the image is not a directory");
            return Err(Failure { stage: Stage::Stubs, message });
        }
        make_stub(root, &format!("/{name}"), Want::Directory, made)?;
    }
    for path in ["/etc/resolv.conf", "/etc/hosts"] {
        make_stub(root, path, Want::File, made)?;
    }
    for (dest, source) in sources.iter().filter(|(dest, _)| !is_below_another(dest, sources)) {
        make_stub(root, dest, source.want(), made)?;
    }
    Ok(())
}

fn make_stub(root: &Dir, path: &str, want: Want, made: &mut Vec<Made>) -> Result<(), Failure> {
    target::reach(root, path, want, made).map(drop).during(Stage::Stubs, format!("make the mount point {path}"))
}

fn is_below_another(dest: &str, sources: &[(String, Source)]) -> bool {
    let below = |other: &str| dest.strip_prefix(other).is_some_and(|rest| rest.starts_with('/'));
    below("/dev") || sources.iter().any(|(other, _)| below(other))
}

/// Starts pid 1 and waits for its end.
fn supervise(plan: &Plan, socket: &UnixStream) -> Result<StepResult, Failure> {
    let (said, saying) = fds::pipe().during(Stage::Namespaces, "make a pipe")?;
    match plan.step.processes {
        Processes::Own => ns::unshare(&[ns::Namespace::Pid]).during(Stage::Namespaces, "make a pid namespace")?,
        Processes::Shared => proc::adopt_orphans().during(Stage::Namespaces, "adopt what the step starts")?,
    }
    match proc::fork().during(Stage::Namespaces, "start the first process")? {
        Forked::Child => become_the_program(plan, saying),
        Forked::Parent(child) => {
            drop(saying);
            let ended = wait(&child, socket).during(Stage::Namespaces, "wait for the first process")?;
            if plan.step.processes == Processes::Shared {
                proc::kill_children(KILL_ROUNDS).during(Stage::Namespaces, "end the step's processes")?;
            }
            Ok(told(said).unwrap_or(ended))
        }
    }
}

fn become_the_program(plan: &Plan, saying: OwnedFd) -> ! {
    let result = match &plan.step.runtime {
        Some(runtime) => external::run(plan, runtime),
        None => StepResult::Failed(sandbox::enter_and_execute(plan)),
    };
    // If the message cannot be sent, the exit code still tells that there was no program.
    let _unsent = serde_json::to_writer(File::from(saying), &result);
    proc::exit_now(127)
}

/// A is no reader or writer of the step's output, so that its end is seen when the step's last process has gone.
fn wait(child: &Child, socket: &UnixStream) -> io::Result<StepResult> {
    proc::use_as_output(File::options().write(true).open("/dev/null")?)?;
    let (ended, _) = proc::wait_for_either(child.pidfd(), socket)?;
    if !ended {
        child.kill()?;
    }
    match child.wait()? {
        Ended::Exited(code) => Ok(StepResult::Exited(code)),
        Ended::Signaled(signal) => Ok(StepResult::Signaled(signal)),
    }
}

/// Nothing in the pipe means that the first process became the program, which closed it, or was killed.
fn told(pipe: OwnedFd) -> Option<StepResult> {
    let mut text = Vec::new();
    File::from(pipe).take(MAX_TOLD).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}
