//! Steps that change paths while rbuild mounts at, mounts from and cleans up those paths.

use std::fs;
use std::time::{Duration, Instant};

use super::{Scene, as_both, lines, probing};
use crate::support::build::Output;

/// Where mounts of a race went, and what became of the steps.
#[derive(Debug, Default)]
struct Hits {
    /// Steps that were mounted into what was swapped while it was a directory.
    directory: usize,
    /// Steps that were mounted where the link led.
    link: usize,
    /// Steps for which what was found the first time was not there the second time.
    refused: usize,
}

impl Hits {
    fn add(&mut self, output: &Output) {
        let said = |text: &str| lines(output).iter().filter(|line| *line == text).count();
        self.directory += said("mounted in the directory");
        self.link += said("mounted through the link");
        self.refused += usize::from(output.code != 0);
    }

    /// Whether both faces of what was swapped were met.
    fn are_enough(&self) -> bool {
        self.directory > 0 && self.link > 0
    }
}

/// At least this long, and until the swaps were seen to count, but no longer than the other.
const SECONDS: Duration = Duration::from_secs(5);
const AT_MOST: Duration = Duration::from_secs(40);

/// Builds again and again. Every build has a stage that swaps `/m/a`, a directory, with `/m/b`, a link to `/`, in a shared cache,
/// and a stage of many steps with `mount`, which may fail, in which `$N` is the number of the step. Each step says where its mount
/// went: only if both places were seen has the race been one.
fn race(mount: &str, step: &str) {
    let told = "if cut -d' ' -f5 /proc/self/mountinfo | grep -q '^/m/a/'; then echo mounted in the directory; \
                else echo mounted through the link; fi";
    race_in("", mount, &format!("{told}; {step}"));
}

/// The same with instructions before each step, which says itself where it got to.
fn race_in(before: &str, mount: &str, step: &str) {
    as_both(|user| {
        let scene = Scene::with(user, &probing());
        let shared = "--mount=type=cache,id=race,target=/m";
        let start = Instant::now();
        let (mut rounds, mut hits) = (0, Hits::default());
        while start.elapsed() < SECONDS || (!hits.are_enough() && start.elapsed() < AT_MOST) {
            rounds += 1;
            let steps: String = (0..12)
                .map(|n| {
                    format!("{before}RUN {shared} {mount} {step}; test {n} -ge 0 -a {rounds} -ge 0\n")
                        .replace("$N", &n.to_string())
                })
                .collect();
            let dockerfile = format!(
                "FROM evil AS made\nRUN {shared} rm -rf /m/a /m/b /m/stop; mkdir -p /m/a/d && ln -s / /m/b && test {rounds}\n\
                 FROM made AS swapping\nRUN {shared} [\"/bin/probe\", \"swap\", \"/m/a\", \"/m/b\", \"/m/stop\", \"4000\"]\n\
                 FROM made AS mounting\n{steps}USER 0\nWORKDIR /\nRUN {shared} touch /m/stop\n\
                 FROM evil\nCOPY --from=swapping /bin/sh /s\nCOPY --from=mounting /bin/sh /t\n"
            );
            let output = scene.build(&dockerfile, &[]);
            assert!(output.stderr.contains("swapped often") || output.code == 1, "{}", output.stderr);
            hits.add(&output);
        }
        assert!(hits.are_enough(), "{user:?}: the swaps were not met in {rounds} builds: {hits:?}");
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

#[test]
fn e11_a_working_directory_is_swapped_while_it_is_made() {
    let step = "case $(pwd -P) in /m/a*) echo mounted in the directory;; *) echo mounted through the link;; esac; touch new-$N; true";
    race_in("USER 1000\nWORKDIR /m/a$H/w$N\n", "", step);
}
