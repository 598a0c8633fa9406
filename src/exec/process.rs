//! From a finished tree to the program: limits, keyring, filter, identity, working directory, exec.
//!
//! Invariants, in order: the filter is installed while `CAP_SYS_ADMIN` is held, because no-new-privileges stays off for
//! sudo and its like; groups before group before user; capabilities only shrink; the working directory is the one that
//! was resolved inside the root; every descriptor but the three standard ones is closed by the exec.

use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::error::Stage;
use super::sandbox::Plan;
use super::target::{self, Want};
use super::user::Identity;
use super::wire::{Confinement, During, Failure, Filter, Step};
use crate::sys::dir::{self, Dir};
use crate::sys::{apparmor, caps, fds, keyring, proc, seccomp};

/// What BuildKit gives a program whose image sets none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Soft limit of open files, and the most its hard limit may be.
const OPEN_FILES: (u64, u64) = (1024, 524_288);

/// Becomes the program.
pub(super) fn execute(plan: &Plan, root: &Dir) -> Result<Infallible, Failure> {
    let step = &plan.step;
    let workdir = open_workdir(root, &step.cwd, &plan.identity)?;
    set_limits(step)?;
    keyring::join_new_session().during(Stage::Limits, "make a session keyring")?;
    if step.confinement == Confinement::Sandbox && step.filter == Filter::Default {
        seccomp::install(&seccomp::default_program()).during(Stage::Seccomp, "install the system call filter")?;
    }
    // A directory that only root may enter is fine as long as the program does not leave it.
    let entered = proc::change_dir(&workdir);
    take_identity(plan)?;
    entered.or_else(|_| proc::change_dir(&workdir)).during(Stage::Workdir, format!("enter {}", step.cwd))?;
    check_workdir(&step.cwd)?;
    stay_with(&plan.supervisor)?;
    confine_by_apparmor(step)?;
    proc::reset_signals().during(Stage::Program, "reset signals")?;
    fds::close_all_on_exec().during(Stage::Program, "close descriptors")?;
    Err(start(step, &plan.identity.home))
}

/// Has the program confined by the step's profile, from its first instruction on.
fn confine_by_apparmor(step: &Step) -> Result<(), Failure> {
    match &step.apparmor {
        Some(profile) if step.confinement == Confinement::Sandbox => {
            apparmor::change_on_exec(profile).during(Stage::Identity, format!("set the AppArmor profile {profile:?}"))
        }
        _ => Ok(()),
    }
}

/// Has this process killed when its supervisor ends; changing the user undoes that.
pub(super) fn stay_with(supervisor: &OwnedFd) -> Result<(), Failure> {
    proc::die_with_parent().during(Stage::Namespaces, "follow the supervisor")?;
    if proc::is_ready(supervisor.as_fd()).during(Stage::Namespaces, "look for the supervisor")? {
        proc::exit_now(127);
    }
    Ok(())
}

/// Opens the working directory, which is made for the step's user if it is not there.
pub(super) fn open_workdir(root: &Dir, cwd: &str, identity: &Identity) -> Result<OwnedFd, Failure> {
    let mut made = Vec::new();
    let doing = || format!("open the working directory {cwd}");
    let found = target::reach(root, cwd, Want::Directory, &mut made).during(Stage::Workdir, doing())?;
    for directory in &made {
        directory.give_to(identity.uid, identity.gid).during(Stage::Workdir, doing())?;
    }
    if dir::stat_of(&found).during(Stage::Workdir, doing())?.is_dir() {
        Ok(found)
    } else {
        Err(Failure { stage: Stage::Workdir, message: format!("the working directory {cwd} is not a directory") })
    }
}

fn check_workdir(cwd: &str) -> Result<(), Failure> {
    let path = proc::current_dir().during(Stage::Workdir, "find the working directory")?;
    if path.starts_with(b"/") {
        return Ok(());
    }
    Err(Failure { stage: Stage::Workdir, message: format!("the working directory {cwd} is outside the container") })
}

/// Returns how many files a step may have open that says nothing of it: soft and hard limit.
pub(super) fn default_open_files() -> Result<(u64, u64), Failure> {
    let (_, hard) = proc::get_limit("nofile").during(Stage::Limits, "read the limit of open files")?;
    let hard = hard.min(OPEN_FILES.1);
    Ok((OPEN_FILES.0.min(hard), hard))
}

fn set_limits(step: &Step) -> Result<(), Failure> {
    let (soft, hard) = default_open_files()?;
    proc::set_limit("nofile", soft, hard).during(Stage::Limits, "limit open files")?;
    for limit in &step.limits {
        proc::set_limit(&limit.name, limit.soft, limit.hard)
            .during(Stage::Limits, format!("set the limit {}", limit.name))?;
    }
    Ok(())
}

fn take_identity(plan: &Plan) -> Result<(), Failure> {
    let Identity { uid, gid, groups, .. } = &plan.identity;
    let keep = if plan.step.confinement == Confinement::Sandbox { caps::DEFAULT } else { u64::MAX };
    caps::limit_bounding(keep).during(Stage::Identity, "limit capabilities")?;
    if plan.set_groups {
        proc::set_groups(groups).during(Stage::Identity, "set supplementary groups")?;
    }
    proc::set_ids(*uid, *gid).during(Stage::Identity, format!("become user {uid} and group {gid}"))?;
    caps::limit_to(if *uid == 0 { keep } else { 0 }).during(Stage::Identity, "limit capabilities")
}

fn start(step: &Step, home: &str) -> Failure {
    let env = environment(&step.env, home);
    let fail = |error: &str| Failure { stage: Stage::Program, message: format!("exec: {:?}: {error}", step.args[0]) };
    let Some(program) = find_program(&step.args[0], &env) else {
        return fail("executable file not found in $PATH");
    };
    match (c_strings(&step.args), c_strings(&env), CString::new(program)) {
        (Ok(args), Ok(env), Ok(program)) => fail(&crate::diag::chain(&proc::exec(&program, &args, &env))),
        _ => fail("an argument contains a NUL"),
    }
}

fn c_strings(texts: &[String]) -> Result<Vec<CString>, std::ffi::NulError> {
    texts.iter().map(|text| CString::new(text.as_str())).collect()
}

/// Returns the step's variables, with a path and a home.
pub(super) fn environment(env: &[String], home: &str) -> Vec<String> {
    let mut env = env.to_vec();
    for (name, value) in [("PATH", DEFAULT_PATH), ("HOME", home)] {
        if value_of(&env, name).is_none() {
            env.push(format!("{name}={value}"));
        }
    }
    env
}

fn value_of<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    env.iter().rev().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
}

fn find_program(name: &str, env: &[String]) -> Option<String> {
    if name.contains('/') {
        return Some(name.to_owned());
    }
    let path = value_of(env, "PATH").unwrap_or(DEFAULT_PATH);
    let directories = path.split(':').map(|directory| if directory.is_empty() { "." } else { directory });
    let mut candidates = directories.map(|directory| format!("{directory}/{name}"));
    candidates.find(|candidate| !name.is_empty() && is_program(candidate).unwrap_or(false))
}

fn is_program(path: &str) -> io::Result<bool> {
    Ok(std::fs::metadata(path)?.is_file() && proc::may_execute(&CString::new(path)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e3_the_environment_is_the_steps_with_path_and_home() {
        for (given, expected) in [
            (vec![], vec![format!("PATH={DEFAULT_PATH}"), "HOME=/h".to_owned()]),
            (vec!["A=1", "PATH=/p"], vec!["A=1".to_owned(), "PATH=/p".to_owned(), "HOME=/h".to_owned()]),
            (vec!["HOME=/x", "PATH="], vec!["HOME=/x".to_owned(), "PATH=".to_owned()]),
        ] {
            let given: Vec<String> = given.into_iter().map(str::to_owned).collect();
            assert_eq!(environment(&given, "/h"), expected);
        }
    }

    #[test]
    fn programs_are_found_along_the_path() {
        let env = |path: &str| vec![format!("PATH={path}")];
        assert_eq!(find_program("/a/b", &[]).as_deref(), Some("/a/b"));
        assert_eq!(find_program("sh", &env("/nonexistent:/bin")).as_deref(), Some("/bin/sh"));
        for (name, path) in [("sh", "/nonexistent"), ("passwd", "/etc"), ("etc", "/"), ("", "/bin")] {
            assert_eq!(find_program(name, &env(path)), None, "{name} {path}");
        }
    }
}
