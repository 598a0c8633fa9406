//! Steps that change paths while rbuild mounts at, mounts from and cleans up those paths.

use std::fs;
use std::time::{Duration, Instant};

use super::{Scene, as_both, probing};

/// Builds until the time is over. Every build has a stage that swaps `/m/a`, a directory, with `/m/b`, a link to `/`, in a
/// shared cache, and a stage of many steps with `mount`, which may fail, in which `$N` is the number of the step.
fn race(mount: &str, step: &str) {
    as_both(|user| {
        let scene = Scene::with(user, &probing());
        let shared = "--mount=type=cache,id=race,target=/m";
        let start = Instant::now();
        let mut rounds = 0;
        while rounds == 0 || start.elapsed() < Duration::from_secs(5) {
            rounds += 1;
            let steps: String = (0..12)
                .map(|n| {
                    format!("RUN {shared} {mount} {step}; test {n} -ge 0 -a {rounds} -ge 0\n")
                        .replace("$N", &n.to_string())
                })
                .collect();
            let dockerfile = format!(
                "FROM evil AS made\nRUN {shared} rm -rf /m/a /m/b /m/stop; mkdir -p /m/a/d && ln -s / /m/b && test {rounds}\n\
                 FROM made AS swapping\nRUN {shared} [\"/bin/probe\", \"swap\", \"/m/a\", \"/m/b\", \"/m/stop\", \"4000\"]\n\
                 FROM made AS mounting\n{steps}RUN {shared} touch /m/stop\n\
                 FROM evil\nCOPY --from=swapping /bin/sh /s\nCOPY --from=mounting /bin/sh /t\n"
            );
            let output = scene.build(&dockerfile, &[]);
            assert!(output.stderr.contains("swapped often") || output.code == 1, "{}", output.stderr);
        }
        // Nothing of the host's is in the cache either.
        let names = super::state::names_below(&scene.project.state());
        assert!(!names.iter().any(|name| name.contains("private") || name.contains("setuid")), "{user:?}");
        fs::metadata(scene.canary.path()).unwrap();
    });
}

#[test]
fn m1_a_target_is_swapped_while_it_is_mounted_at() {
    race("--mount=type=tmpfs,target=/m/a$H/x", "touch /m/a$H/x/new; true");
}

#[test]
fn m2_a_target_below_a_swapped_directory_gets_the_tree_that_was_meant() {
    race("--mount=type=bind,from=evil,source=/bin,target=/m/a/d", "! ls /m/a/d/private $H/private 2>/dev/null");
}

#[test]
fn m3_a_mount_point_is_swapped_before_it_is_removed() {
    race("--mount=type=tmpfs,target=/m/a$H/y", "rm -rf /m/a$H; ln -s $H /x$N; true");
}
