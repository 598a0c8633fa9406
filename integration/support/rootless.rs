//! Runs tests of this binary again as an unprivileged user in the namespaces that stage 0 enters.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::process::Command;
use std::sync::Mutex;

use rbuild::rootless;
use rbuild::sys::proc::{self, Ended, Forked};
use rbuild::sys::{fds, idmap};

use super::runtime;

/// A user of the machine, made for the tests.
#[derive(Debug, Clone, Copy)]
pub(crate) enum User {
    /// With 65,536 ids of its own.
    WithSubids,
    /// With none.
    WithoutSubids,
}

impl User {
    fn name(self) -> &'static str {
        match self {
            Self::WithSubids => "rbuild-subids",
            Self::WithoutSubids => "rbuild-single",
        }
    }

    /// Makes the user if need be, and returns its number.
    fn prepare(self) -> u32 {
        // The tools lock the files and do not wait for each other.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().expect("no test failed in here");
        let name = self.name();
        if number_of(name).is_none() {
            let made = Command::new("useradd").args(["--no-create-home", "--shell", "/bin/sh", name]).output();
            assert!(made.expect("useradd is installed").status.success());
            for (flag, file) in [("--del-subuids", "/etc/subuid"), ("--del-subgids", "/etc/subgid")] {
                self.remove_ids(flag, file);
            }
        }
        if matches!(self, Self::WithSubids)
            && !std::fs::read_to_string("/etc/subuid").unwrap_or_default().contains(name)
        {
            let ids = "3000000-3065535";
            let given = Command::new("usermod").args(["--add-subuids", ids, "--add-subgids", ids, name]).output();
            assert!(given.expect("usermod is installed").status.success());
        }
        number_of(name).expect("the user was made")
    }

    /// Some machines give every new user ids.
    fn remove_ids(self, flag: &str, file: &str) {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        for line in text.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            if let [name, first, count] = fields[..]
                && name == self.name()
            {
                let (first, count): (u64, u64) = (first.parse().expect("id"), count.parse().expect("count"));
                let range = format!("{first}-{}", first + count - 1);
                let removed = Command::new("usermod").args([flag, &range, name]).output();
                assert!(removed.expect("usermod is installed").status.success());
            }
        }
    }
}

fn number_of(name: &str) -> Option<u32> {
    let passwd = std::fs::read_to_string("/etc/passwd").expect("passwd");
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

/// Returns whether this process is the machine's own root, and not one of a user namespace.
pub(crate) fn is_real_root() -> bool {
    idmap::users()
        .expect("map")
        .iter()
        .any(|extent| (extent.inside, extent.outside) == (0, 0) && extent.count > 1 << 20)
}

/// Runs the tests that `arguments` select as this user; returns what stage 0 said, and the tests' output.
pub(crate) fn rerun(user: User, arguments: &[&str]) -> (String, String) {
    let id = user.prepare();
    let program = CString::new(super::build::tests().into_os_string().into_encoded_bytes()).expect("no NUL");
    let (reading, writing) = fds::pipe().expect("pipe");
    let (said, saying) = fds::pipe().expect("pipe");
    match proc::fork().expect("fork") {
        Forked::Child => {
            drop((reading, said));
            proc::use_as_output(&writing).expect("dup");
            let _failed = File::from(saying).write_all(enter(id).as_bytes());
            let mut args = vec![program.clone()];
            args.extend(arguments.iter().map(|argument| CString::new(*argument).expect("no NUL")));
            let runtime = format!("{}={}", runtime::VARIABLE, runtime::name().unwrap_or_default());
            let env = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", &runtime].map(|text| CString::new(text).expect("no NUL"));
            let _failed = proc::exec(&program, &args, &env);
            proc::exit_now(126)
        }
        Forked::Parent(child) => {
            drop((writing, saying));
            let (said, output) = (read(said), read(reading));
            let ended = child.wait().expect("wait");
            assert_eq!(ended, Ended::Exited(0), "as {}: {said}\n{output}", user.name());
            (said, output)
        }
    }
}

fn enter(id: u32) -> String {
    let entered = proc::set_groups(&[]).and_then(|()| proc::set_ids(id, id)).map(|()| rootless::enter());
    format!("{entered:?}")
}

fn read(from: std::os::fd::OwnedFd) -> String {
    let mut text = String::new();
    File::from(from).read_to_string(&mut text).expect("read");
    text
}
