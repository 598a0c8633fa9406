//! Several builds on one state directory, and several branches of one build.

use std::time::{Duration, Instant};

use super::{Running, blobs_are_good, state_is_good};
use crate::support::build::{BASE, BOTH, Project, busybox};

/// Waits in a step, bounded, until a file is there.
fn await_file(path: &str) -> String {
    format!("i=0; until [ -e {path} ]; do sleep 0.02; i=$((i+1)); [ $i -lt 3000 ] || exit 9; done")
}

/// Starts builds at once, each with arguments of its own, and returns what they said.
fn at_once(project: &Project, all: &[Vec<String>]) -> Vec<String> {
    let builds: Vec<Running> = all
        .iter()
        .map(|own| {
            let args: Vec<&str> = busybox().into_iter().chain(own.iter().map(String::as_str)).collect();
            Running::start(project, &args)
        })
        .collect();
    builds.into_iter().map(Running::success).collect()
}

/// Whether the step whose name ends so was cached.
fn is_cached(said: &str, name: &str) -> bool {
    let numbers = said.lines().filter(|line| line.ends_with(name)).filter_map(|line| line.split(' ').next());
    numbers.into_iter().any(|number| said.contains(&format!("{number} CACHED\n")))
}

fn args(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn builds_on_one_root_cold_and_warm() {
    for user in BOTH {
        let project = Project::with(
            user,
            &format!(
                "{BASE}ARG N=same\nCOPY file /file\nRUN cat /file >/copy; for i in 1 2 3 4 5; do echo $N >/n$i; done\nRUN md5sum /copy /n* >/sums\n"
            ),
        );
        project.file("file", "content\n");
        for round in 0..2 {
            let same = |i: usize| args(&["-o", &format!("type=oci,tar=false,dest=same-{round}-{i}")]);
            let other = |i: usize| {
                args(&["--build-arg", &format!("N=n{i}"), "-o", &format!("type=local,dest=other-{round}-{i}")])
            };
            let all = [same(0), other(0), same(1), other(1), same(2), other(2)];
            let said = at_once(&project, &all);
            assert_eq!(
                round == 0,
                said.iter().any(|said| !is_cached(said, "RUN md5sum /copy /n* >/sums")),
                "{said:#?}"
            );
            for i in 0..3 {
                blobs_are_good(&project.home().join(format!("same-{round}-{i}")));
                let other = project.home().join(format!("other-{round}-{i}"));
                assert_eq!(std::fs::read_to_string(other.join("n5")).unwrap(), format!("n{i}\n"));
                assert_eq!(std::fs::read_to_string(other.join("copy")).unwrap(), "content\n");
            }
        }
        state_is_good(&project);
    }
}

#[test]
fn a_build_that_is_killed_harms_no_other_one_on_its_root() {
    for user in BOTH {
        let project = Project::new(user);
        project.file("Dockerfile", format!("{BASE}ARG N\nRUN echo begun; sleep $N; echo $N >/n\n"));
        let start = |n: &str, out: &str| {
            let n = format!("N={n}");
            Running::start(&project, &[&busybox()[..], &["--build-arg", &n, "-o", out]].concat())
        };
        let mut first = start("3", "first");
        first.until("begun");
        let mut killed = start("60", "killed");
        killed.until("begun");
        killed.kill_alone();
        let third = start("0.1", "third");
        let _ = (third.success(), first.success());
        for (out, n) in [("first", "3\n"), ("third", "0.1\n")] {
            assert_eq!(std::fs::read_to_string(project.home().join(out).join("n")).unwrap(), n);
        }
        state_is_good(&project);
    }
}

#[test]
fn pulls_of_one_image_at_once() {
    for user in BOTH {
        let pulls = super::images::Pulls::start(super::images::Image::get());
        let project = Project::with(
            user,
            &format!("FROM {}/app\nRUN [\"/bin/busybox\", \"md5sum\", \"-c\", \"/sums\"]", pulls.host()),
        );
        let _ = at_once(&project, &[args(&[]), args(&[]), args(&[])]);
        state_is_good(&project);
    }
}

#[test]
fn a_locked_cache_is_one_steps_at_a_time() {
    for user in BOTH {
        let alone = "mkdir /c/held || exit 9; sleep 0.2; rmdir /c/held";
        let mount = "--mount=type=cache,id=alone,sharing=locked,target=/c";
        let two = format!("{mount} --mount=type=cache,id=alone,sharing=locked,target=/d");
        // Two branches of one build, in several builds; one step names the cache twice.
        let project = Project::with(
            user,
            &format!(
                "{BASE}FROM base AS a\nARG N\nRUN {mount} {alone}; echo a$N >/a\n\
                 FROM base AS b\nARG N\nRUN {two} {alone}; [ ! -e /d/held ]; echo b$N >/b\n\
                 FROM base\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
            ),
        );
        let build = |i: usize| args(&["--build-arg", &format!("N={i}"), "-o", &format!("out-{i}")]);
        let _ = at_once(&project, &[build(0), build(1), build(2)]);
        for i in 0..3 {
            let text = |name: &str| std::fs::read_to_string(project.home().join(format!("out-{i}/{name}"))).unwrap();
            assert_eq!((text("a"), text("b")), (format!("a{i}\n"), format!("b{i}\n")));
        }
        state_is_good(&project);
    }
}

#[test]
fn caches_locked_in_different_orders_do_not_wait_for_each_other() {
    for user in BOTH {
        let mount = |id: &str| format!("--mount=type=cache,id={id},sharing=locked,target=/{id}");
        let (x, y) = (mount("x"), mount("y"));
        let project = Project::with(
            user,
            &format!(
                "{BASE}FROM base AS a\nARG N\nRUN {x} {y} sleep 0.1; echo a$N >/a\n\
                 FROM base AS b\nARG N\nRUN {y} {x} sleep 0.1; echo b$N >/b\n\
                 FROM base\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
            ),
        );
        let build = |i: usize| args(&["--build-arg", &format!("N={i}")]);
        let _ = at_once(&project, &[build(0), build(1), build(2)]);
    }
}

#[test]
fn a_shared_cache_is_used_at_once_and_a_private_one_by_one_step() {
    for user in BOTH {
        let mounts = "--mount=type=cache,id=meet,target=/meet --mount=type=cache,id=own,sharing=private,target=/own";
        let wait = await_file("/meet/$OTHER");
        let project = Project::with(
            user,
            &format!(
                "{BASE}ARG ME\nARG OTHER\nRUN {mounts} mkdir /own/mine || exit 8; touch /meet/$ME; {wait}; rmdir /own/mine\n"
            ),
        );
        let build = |me: &str, other: &str| {
            args(&["--build-arg", &format!("ME={me}"), "--build-arg", &format!("OTHER={other}")])
        };
        let _ = at_once(&project, &[build("one", "two"), build("two", "one")]);
        state_is_good(&project);
    }
}

#[test]
fn what_was_done_before_a_failure_is_cached() {
    for user in BOTH {
        let done = format!("{BASE}RUN echo one >/one\nRUN echo two >/two\n");
        let project = Project::with(user, &format!("{done}RUN exit 7\n"));
        let _ = project.build(&busybox()).failure(1).says("exit code: 7");
        let again = project.build(&busybox()).failure(1);
        assert_eq!(again.count("CACHED"), 4, "{}", again.stderr);
        project.file("Dockerfile", format!("{done}RUN cat /one /two\n"));
        assert_eq!(project.build(&busybox()).success().count("CACHED"), 4);
        state_is_good(&project);
    }
}

#[test]
fn branches_run_at_once_and_only_those_needed() {
    for user in BOTH {
        let meet = |me: &str, other: &str| {
            format!(
                "RUN --mount=type=cache,id=meet,target=/meet touch /meet/{me}; {}; echo {me} >/{me}",
                await_file(&format!("/meet/{other}"))
            )
        };
        let project = Project::with(
            user,
            &format!(
                "{BASE}FROM base AS a\n{}\nFROM base AS b\n{}\nFROM base AS unneeded\nRUN exit 7\n\
                 FROM base\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
                meet("a", "b"),
                meet("b", "a"),
            ),
        );
        let _ = project.build(&busybox()).success().silent_about("exit 7");
    }
}

#[test]
fn a_failing_branch_stops_the_others() {
    for user in BOTH {
        let wait = await_file("/meet/there");
        let project = Project::with(
            user,
            &format!(
                "{BASE}FROM base AS a\nRUN --mount=type=cache,id=meet,target=/meet touch /meet/there; sleep 1000\n\
                 FROM base AS b\nRUN --mount=type=cache,id=meet,target=/meet {wait}; exit 7\n\
                 FROM base\nCOPY --from=a /bin/sh /a\nCOPY --from=b /bin/sh /b\n"
            ),
        );
        let begin = Instant::now();
        let mut running = Running::start(&project, &busybox());
        let status = running.end();
        assert_eq!(status.code(), Some(1));
        assert!(running.said().contains("exit code: 7"), "{}", running.said());
        assert!(begin.elapsed() < Duration::from_secs(60));
        running.nothing_is_left(&Default::default());
        state_is_good(&project);
    }
}
