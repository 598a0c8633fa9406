//! `config.json` of the OCI runtime specification (1.0.2, config.md and config-linux.md) for a tree that is put together already.
//!
//! In: a plan, and where its parts are. Out: JSON. Invariant: what confines a step says here what the built-in executor does.

use std::path::Path;

use serde_json::{Value, json};

use crate::exec::error::Stage as At;
use crate::exec::process::{default_open_files, environment};
use crate::exec::sandbox::{MASKED, Plan, READONLY};
use crate::exec::wire::{Confinement, During, Failure, Filter, Processes, Step};
use crate::sys::seccomp::{self, Answer, Condition};
use crate::sys::{caps, proc};

/// The specification that Debian's oldest runtimes know.
const VERSION: &str = "1.0.2";

/// Architectures of the filter, the native one first. Those of x86 have a third way to number calls, which libseccomp either
/// answers as the first, or kills for; kernels without it refuse it by themselves.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: [&str; 3] = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: [&str; 2] = ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"];

/// Returns the configuration of a step whose root is at `root` and whose `/dev` is at `dev`.
pub(super) fn config(plan: &Plan, root: &Path, dev: &Path) -> Result<Value, Failure> {
    let step = &plan.step;
    // crun takes away what is not named again.
    let options = ["rbind", "nosuid", "noexec", "nodev", "strictatime"];
    let mut mounts = vec![json!({ "destination": "/dev", "type": "bind", "source": dev, "options": options })];
    let mut namespaces = vec![json!({ "type": "mount" })];
    if step.processes == Processes::Own {
        let options = ["nosuid", "noexec", "nodev"];
        mounts.insert(0, json!({ "destination": "/proc", "type": "proc", "source": "proc", "options": options }));
        namespaces.push(json!({ "type": "pid" }));
    }
    let mut linux = json!({ "namespaces": namespaces });
    if step.confinement == Confinement::Sandbox {
        // A shared /proc has its masks already.
        if step.processes == Processes::Own {
            linux["maskedPaths"] = MASKED.iter().map(|name| format!("/proc/{name}")).collect();
            linux["readonlyPaths"] = READONLY.iter().map(|name| format!("/proc/{name}")).collect();
        }
        if step.filter == Filter::Default {
            linux["seccomp"] = filter();
        }
    }
    Ok(json!({
        "ociVersion": VERSION,
        "root": { "path": root, "readonly": step.readonly },
        "mounts": mounts,
        "process": process(plan)?,
        "linux": linux,
    }))
}

fn process(plan: &Plan) -> Result<Value, Failure> {
    let (step, identity) = (&plan.step, &plan.identity);
    let keep = if step.confinement == Confinement::Sandbox { caps::DEFAULT } else { u64::MAX };
    let bounding = caps::held_names(keep).during(At::Identity, "read capabilities")?;
    let effective = if identity.uid == 0 { bounding.clone() } else { Vec::new() };
    let groups = if plan.set_groups { identity.groups.clone() } else { Vec::new() };
    let mut process = json!({
        "terminal": false,
        "user": { "uid": identity.uid, "gid": identity.gid, "additionalGids": groups },
        "args": step.args,
        "env": environment(&step.env, &identity.home),
        "cwd": step.cwd,
        "capabilities": {
            "bounding": bounding,
            "permitted": effective,
            "effective": effective,
            "inheritable": [],
            "ambient": [],
        },
        "rlimits": limits(step)?,
        "noNewPrivileges": false,
    });
    if let Some(profile) = step.apparmor.as_ref().filter(|_| step.confinement == Confinement::Sandbox) {
        process["apparmorProfile"] = json!(profile);
    }
    Ok(process)
}

fn limits(step: &Step) -> Result<Vec<Value>, Failure> {
    let (soft, hard) = default_open_files()?;
    let own = ("nofile".to_owned(), soft, hard);
    let given = step.limits.iter().map(|limit| (limit.name.clone(), limit.soft, limit.hard));
    let all: std::collections::BTreeMap<String, (u64, u64)> =
        std::iter::once(own).chain(given).map(|(name, soft, hard)| (name, (soft, hard))).collect();
    for name in all.keys() {
        proc::get_limit(name).during(At::Limits, format!("set the limit {name}"))?;
    }
    let limit = |(name, (soft, hard)): (String, (u64, u64))| json!({ "type": format!("RLIMIT_{}", name.to_uppercase()), "soft": soft, "hard": hard });
    Ok(all.into_iter().map(limit).collect())
}

/// Flags are left out: Debian's runc takes none, and since Linux 5.16 filters cost nothing without the one that is meant.
fn filter() -> Value {
    let rules = seccomp::named_rules();
    let calls: Vec<Value> = rules
        .iter()
        .map(|rule| {
            let mut call = json!({ "names": rule.names, "action": "SCMP_ACT_ALLOW" });
            if rule.answer == Answer::Unknown {
                call = json!({ "names": rule.names, "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS });
            }
            if let Some(condition) = rule.condition {
                call["args"] = json!([argument(condition)]);
            }
            call
        })
        .collect();
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": ARCHITECTURES,
        "syscalls": calls,
    })
}

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

fn argument(condition: Condition) -> Value {
    match condition {
        Condition::Equals(value) => json!({ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }),
        Condition::Without(bits) => json!({ "index": 0, "value": bits, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::user::Identity;
    use crate::exec::wire::tests::step;

    fn plan(change: impl FnOnce(&mut Step)) -> Plan {
        let mut step = step("x");
        change(&mut step);
        let fd = || crate::sys::fds::open_path(Path::new("/")).expect("open");
        let identity = Identity { uid: 7, gid: 8, groups: vec![8, 9], home: "/h".into() };
        Plan { step, tree: fd(), sources: Vec::new(), identity, set_groups: true, supervisor: fd(), group: None }
    }

    fn made(change: impl FnOnce(&mut Step)) -> Value {
        config(&plan(change), Path::new("/s/root"), Path::new("/s/dev")).expect("a configuration")
    }

    #[test]
    fn a_step_is_confined_as_by_the_built_in_executor() {
        let config = made(|_| {});
        let process = &config["process"];
        assert_eq!(process["user"], json!({ "uid": 7, "gid": 8, "additionalGids": [8, 9] }));
        assert_eq!(process["capabilities"]["effective"], json!([]));
        assert_eq!(
            process["env"],
            json!(["V=x", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/h"])
        );
        assert_eq!(config["linux"]["namespaces"], json!([{ "type": "mount" }, { "type": "pid" }]));
        assert!(config["linux"]["maskedPaths"].as_array().expect("paths").contains(&json!("/proc/kcore")));
        assert!(config["linux"]["readonlyPaths"].as_array().expect("paths").contains(&json!("/proc/sys")));
        assert_eq!(config["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
        assert_eq!(process.get("apparmorProfile"), None);
    }

    #[test]
    fn what_is_not_confined_has_no_filter_and_no_masks() {
        let config = made(|step| {
            step.confinement = Confinement::Insecure;
            step.apparmor = Some("p".into());
        });
        assert_eq!(config["linux"], json!({ "namespaces": [{ "type": "mount" }, { "type": "pid" }] }));
        assert_eq!(config["process"].get("apparmorProfile"), None);
    }

    #[test]
    fn settings_are_passed_on() {
        let config = made(|step| {
            step.apparmor = Some("p".into());
            step.filter = Filter::None;
            step.processes = Processes::Shared;
            step.limits = vec![crate::exec::wire::Limit { name: "nofile".into(), soft: 5, hard: 6 }];
        });
        assert_eq!(config["process"]["apparmorProfile"], "p");
        assert_eq!(config["process"]["rlimits"], json!([{ "type": "RLIMIT_NOFILE", "soft": 5, "hard": 6 }]));
        assert_eq!(config["linux"], json!({ "namespaces": [{ "type": "mount" }] }));
        assert_eq!(config["mounts"].as_array().expect("mounts").len(), 1);
    }

    #[test]
    fn a_limit_that_nobody_knows_is_an_error() {
        let plan = plan(|step| step.limits = vec![crate::exec::wire::Limit { name: "x".into(), soft: 5, hard: 6 }]);
        let failure = config(&plan, Path::new("/"), Path::new("/")).expect_err("unknown");
        assert_eq!(failure.stage, At::Limits);
    }
}
