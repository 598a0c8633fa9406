//! kill -9 at any time of anything, again and again on one state directory: what is left is sound each time.

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Running, blobs_are_good, state_is_good};
use crate::support::build::{BASE, BOTH, Project, binary, busybox, run};
use crate::support::registry::Registry;

const ROUNDS: u64 = 14;
/// Longer than most of what is started takes.
const LONGEST: u64 = 500;

/// Numbers as good as random; the first is printed by a test that fails.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

/// Writes a Dockerfile whose steps depend on `variant`, and check what they find.
fn write(project: &Project, variant: u64) {
    let made = "RUN dd if=/dev/urandom of=/r bs=1M count=4 2>/dev/null && md5sum /r >/sums && mkdir /d && touch /d/gone /d/stays\n";
    let left = "RUN --mount=type=cache,target=/c md5sum -c /sums >>/c/log && test \"$(ls /d)\" = stays\n";
    let steps = format!("ARG V={variant}\n{made}RUN rm /d/gone && echo $V >/v\nFROM base\nCOPY Dockerfile /f\n{left}");
    project.file("Dockerfile", format!("{BASE}{steps}"));
}

fn arguments(kind: u64, host: &str) -> Vec<String> {
    let image = format!("type=image,name={host}/soak:1,push=true");
    let cache = format!("type=registry,ref={host}/soak:cache,mode=max");
    let chosen: &[&str] = match kind {
        0 => &["-o", "type=oci,dest=image.tar"],
        1 => &["-o", &image],
        2 => &["-o", &image, "--cache-to", &cache],
        _ => &["--cache-to", "type=local,dest=cache,mode=max"],
    };
    busybox().iter().chain(chosen).map(ToString::to_string).collect()
}

fn prune(project: &Project, args: &[&str]) -> Command {
    let mut command = project.command(binary());
    command.args(["prune", "--force", "--root"]).arg(project.state()).args(args);
    command
}

#[test]
#[expect(clippy::print_stdout, reason = "only a test that fails shows it")]
fn whatever_is_killed_leaves_a_sound_state() {
    let registry = Registry::start();
    for user in BOTH {
        let project = Project::new(user);
        let host = format!("{}/{user:?}", registry.host).to_lowercase();
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
        println!("the seed is {seed}");
        let mut random = Random(seed);
        for round in 0..ROUNDS {
            write(&project, random.below(3));
            let running = match random.below(6) {
                kind @ 0..=3 => {
                    let args = arguments(kind, &host);
                    Running::start(&project, &args.iter().map(String::as_str).collect::<Vec<_>>())
                }
                4 => Running::start_command(&project, prune(&project, &["--all"])),
                _ => Running::start_command(&project, prune(&project, &["--max-used-space", "6mb"])),
            };
            std::thread::sleep(Duration::from_millis(random.below(LONGEST)));
            running.kill();
            blobs_are_good(&project.state());
            blobs_are_good(&project.home().join("cache"));
            if round % 5 == 4 {
                let args = arguments(random.below(4), &host);
                let _ = project.build(&args.iter().map(String::as_str).collect::<Vec<_>>()).success();
                state_is_good(&project);
            }
        }
        let mut usage = project.command(binary());
        usage.args(["du", "--root"]).arg(project.state());
        let _ = run(usage).success();
        let _ = run(prune(&project, &["--all"])).success();
        state_is_good(&project);
    }
}
