//! What is stored is shown and removed, by hand and by the limits of the configuration, and builds go on as before.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime};

use super::with_base;
use crate::support::build::{BOTH, Output, Project, User, busybox, run};

/// Steps whose layers are told apart by their size.
const STEPS: &str = "RUN dd if=/dev/zero of=/one bs=1M count=3\nRUN dd if=/dev/zero of=/two bs=1M count=2\n";

fn build(project: &Project) -> Output {
    project.build(&busybox()).success()
}

/// Runs a subcommand on the project's state directory.
fn on_state(project: &Project, args: &[&str]) -> Output {
    run(command(project, args))
}

fn command(project: &Project, args: &[&str]) -> std::process::Command {
    let mut command = project.command(crate::support::build::binary());
    command.args(args).arg("--root").arg(project.state());
    command
}

fn items(project: &Project, args: &[&str]) -> Vec<serde_json::Value> {
    let output = on_state(project, &[&["du", "--format", "json"], args].concat()).success();
    output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(items: &[serde_json::Value]) -> Vec<&str> {
    items.iter().map(|item| item["ID"].as_str().unwrap()).collect()
}

fn layers(project: &Project) -> Vec<u64> {
    let entries = fs::read_dir(project.state().join("snapshots")).unwrap().map(|entry| entry.unwrap());
    // The list of the layers that are on disk is a file beside them.
    let layers = entries.filter(|entry| entry.file_type().unwrap().is_dir());
    layers.map(|layer| layer.file_name().to_str().unwrap().parse().unwrap()).collect()
}

/// Bytes of files below a directory.
fn bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().flatten();
    entries.map(|e| if e.file_type().unwrap().is_dir() { bytes(&e.path()) } else { e.metadata().unwrap().len() }).sum()
}

#[test]
fn what_is_stored_is_shown_removed_and_built_again() {
    for user in BOTH {
        let project = with_base(user, STEPS);
        let _ = build(&project);
        let _ = build(&project);
        let stored = items(&project, &[]);
        assert_eq!(stored.len(), 4, "{stored:?}");
        let one = stored.iter().find(|item| item["Description"].as_str().unwrap().contains("/one")).unwrap();
        assert_eq!((one["Size"].as_str(), one["UsageCount"].as_u64()), (Some("3145728B"), Some(2)));
        assert_eq!((one["Type"].as_str(), one["Reclaimable"].as_bool()), (Some("regular"), Some(true)));
        let table = on_state(&project, &["du"]).success().stdout;
        assert!(table.contains("RECLAIMABLE") && table.contains("3.146MB") && table.contains("Total:"), "{table}");
        let top = layers(&project).into_iter().max().unwrap();
        let pruned = on_state(&project, &["prune", "--force"]).success().stdout;
        assert!(pruned.contains("3.146MB") && pruned.contains("Total:"), "{pruned}");
        assert!(items(&project, &["--filter", "type=regular"]).is_empty());
        assert!(bytes(&project.state()) < 100_000, "{} bytes are left", bytes(&project.state()));
        let _ = build(&project).silent_about("CACHED");
        assert!(layers(&project).iter().all(|layer| *layer > top), "a number is used again");
        assert_eq!(build(&project).count("CACHED"), 4);
    }
}

#[test]
fn filters_choose_and_what_stands_on_others_goes_first() {
    let project = with_base(User::Root, STEPS);
    let _ = build(&project);
    let stored = items(&project, &["--filter", "description~=/one"]);
    let id = ids(&stored)[0].to_owned();
    // The other step stands on it.
    let _ = on_state(&project, &["prune", "--filter", &format!("id={id}")]).success();
    assert_eq!(items(&project, &[]).len(), 4);
    let _ = on_state(&project, &["prune", "--filter", "description~=/two"]).success();
    assert_eq!(items(&project, &[]).len(), 3);
    assert_eq!(build(&project).count("CACHED"), 3);
    let _ = on_state(&project, &["prune", "--filter", "until=1h"]).success();
    let _ = on_state(&project, &["prune", "--filter", "type=frontend"]).success();
    let _ = on_state(&project, &["prune", "--filter", "inuse=true"]).success();
    let _ = on_state(&project, &["prune", "--filter", "shared"]).success();
    assert_eq!(items(&project, &[]).len(), 4);
    // What is least used goes until the rest fits.
    let _ = on_state(&project, &["prune", "--max-used-space", "4m"]).success();
    assert!(items(&project, &["--filter", "description~=/two"]).is_empty());
    assert!(build(&project).count("CACHED") < 4);
    for wrong in [["--filter", "colour=red"], ["--filter", "until=soon"], ["--builder", "x"], ["--nonsense", "x"]] {
        let _ = on_state(&project, &["prune", wrong[0], wrong[1]]).failure(2);
    }
    let _ = on_state(&project, &["du", "--format", "{{.ID}}"]).failure(2).says("templates");
}

fn start(project: &Project, args: &[&str]) -> Child {
    let context = project.context();
    let mut all = args.to_vec();
    all.push(context.to_str().unwrap());
    project.rbuild_command(&all).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until standard error says `text`.
fn wait_for(child: &mut Child, text: &str) {
    let mut lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(text)), "{text} was not said");
}

#[test]
fn what_a_running_build_may_use_stays() {
    for user in BOTH {
        let project = with_base(
            user,
            "RUN --mount=type=cache,target=/c echo kept > /c/f\nRUN --mount=type=cache,id=used,target=/c echo begun; i=0; while [ ! -e /c/go ] && [ $i -lt 300 ]; do sleep 0.1; i=$((i+1)); done; [ -e /c/go ]\n",
        );
        let mut child = start(&project, &busybox());
        wait_for(&mut child, "begun");
        let refused = on_state(&project, &["prune", "--timeout", "200ms"]).failure(5);
        let refused = refused.says("waiting for them to end").says("could not be removed");
        // A cache that no step uses can go all the same.
        assert!(refused.stdout.contains('*'), "{}", refused.stdout);
        let stored = items(&project, &[]);
        assert!(stored.iter().all(|item| item["Reclaimable"] == false), "{stored:?}");
        let used = fs::read_dir(project.state().join("caches")).unwrap().map(|entry| entry.unwrap().path().join("0"));
        let used = used.filter(|dir| fs::read_to_string(dir.join("id")).is_ok_and(|id| id.ends_with("used")));
        fs::write(used.last().unwrap().join("fs/go"), "").unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(build(&project).count("CACHED"), 4);
        let _ = on_state(&project, &["prune", "--filter", "type=exec.cachemount"]).success();
        assert_eq!(items(&project, &["--filter", "type=exec.cachemount"]).len(), 0);
    }
}

#[test]
fn a_prune_that_is_killed_leaves_a_state_directory_that_works() {
    for user in BOTH {
        let project =
            with_base(user, &format!("{STEPS}RUN mkdir d && cd d && for i in $(seq 400); do echo $i > $i; done\n"));
        let _ = build(&project);
        for delay in 0..12 {
            let mut child = command(&project, &["prune", "--all"]).stdout(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(3 * delay));
            child.kill().unwrap();
            let _ = child.wait().unwrap();
            let _ = build(&project);
            assert_eq!(build(&project).count("CACHED"), 5);
        }
        let _ = on_state(&project, &["prune", "--all"]).success();
        assert!(bytes(&project.state()) < 100_000, "{} bytes are left", bytes(&project.state()));
    }
}

#[test]
fn prunes_and_builds_at_once_do_not_disturb_each_other() {
    let project = with_base(User::Root, STEPS);
    let _ = build(&project);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..6 {
                    let _ = on_state(&project, &["prune", "--all"]).success();
                }
            });
            scope.spawn(|| {
                for _ in 0..4 {
                    let _ = build(&project);
                }
            });
        }
    });
    let _ = build(&project);
    assert_eq!(build(&project).count("CACHED"), 4);
}

/// Writes a configuration and returns the flags that name it.
fn configured(project: &Project, text: &str) -> [String; 2] {
    let path = project.home().join("buildkitd.toml");
    fs::write(&path, text).unwrap();
    ["--config".to_owned(), path.to_str().unwrap().to_owned()]
}

fn build_with(project: &Project, flags: &[String; 2]) -> Output {
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(busybox()).collect();
    project.build(&flags).success()
}

#[test]
fn limits_of_the_configuration_hold_after_each_build() {
    for user in BOTH {
        let project = with_base(user, STEPS);
        let off = configured(&project, "[worker.oci]\ngc = false\nmaxUsedSpace = 1\n");
        let _ = build_with(&project, &off);
        assert_eq!(items(&project, &[]).len(), 4);
        let limits =
            "[worker.oci]\ngc = true\n[[worker.oci.gcpolicy]]\nkeepBytes = \"4MB\"\nfilters = [\"type==regular\"]\n";
        let small = configured(&project, limits);
        let _ = build_with(&project, &small);
        let left = items(&project, &[]);
        let sum: u64 =
            left.iter().map(|i| i["Size"].as_str().unwrap().trim_end_matches('B').parse::<u64>().unwrap()).sum();
        assert!(sum < 4 << 20 && !left.is_empty(), "{left:?}");
        // What is over the limit goes again, and only when it is.
        let wide = configured(&project, "[worker.oci]\ngckeepstorage = \"1GB\"\nminFreeSpace = \"1%\"\n");
        let _ = build_with(&project, &wide);
        assert_eq!(build_with(&project, &wide).count("CACHED"), 4);
        let wrong = configured(&project, "[worker.oci]\n[[worker.oci.gcpolicy]]\nfilters = [\"size==1\"]\n");
        let _ =
            project.build(&[&[wrong[0].as_str(), wrong[1].as_str()], &busybox()[..]].concat()).failure(2).says("size");
    }
}

#[test]
fn what_was_not_used_for_long_goes_by_age() {
    let project = with_base(User::Root, STEPS);
    let _ = build(&project);
    // As if all of it had been made and used three days ago.
    let old = SystemTime::now() - Duration::from_secs(3 * 24 * 3600);
    for id in layers(&project) {
        let folder = fs::File::open(project.state().join("snapshots").join(id.to_string())).unwrap();
        folder.set_modified(old).unwrap();
    }
    fs::remove_file(project.state().join("usage.log")).unwrap();
    project.file("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let config = configured(&project, "[[worker.oci.gcpolicy]]\nkeepDuration = \"48h\"\nall = true\n");
    let start = Instant::now();
    let _ = build_with(&project, &config);
    let old = items(&project, &["--filter", "until=24h"]);
    assert!(old.is_empty(), "{old:#?}");
    assert_eq!(items(&project, &[]).len(), 1, "after {:?}", start.elapsed());
}
