//! Images of several platforms, and steps that no processor here runs.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use super::{text, tool};
use crate::support::build::{BOTH, Output, Project, User, run};
use crate::support::emulation::{As, Emulator, Registered, build_where, writers};
use crate::support::registry::Registry;

/// Two stages with a step each for the platform, and one that runs where the build does.
const TWO_STAGES: &str = "\
FROM --platform=$BUILDPLATFORM $BASE AS tools
RUN [\"/writer\", \"/tool\"]
FROM $BASE AS one
RUN [\"/writer\", \"/one\"]
FROM $BASE
COPY --from=one /one /
COPY --from=tools /tool /
ARG TARGETPLATFORM
ENV MADE_FOR=$TARGETPLATFORM
RUN [\"/writer\", \"/two\"]
";

/// Makes a project of [`TWO_STAGES`], and its base in the registry, for both platforms.
pub(super) fn two_stages(user: User, registry: &Registry) -> Project {
    let base = writers(User::Root, "FROM scratch\nARG TARGETARCH\nCOPY writer-$TARGETARCH /writer\n");
    let name = format!("{}/base:1", registry.host);
    let _ = base.build(&["--platform", BOTH_PLATFORMS, "--push", "-t", &name]).success();
    Project::with(user, &format!("ARG BASE={name}\n{TWO_STAGES}"))
}

const BOTH_PLATFORMS: &str = "linux/amd64,linux/arm64";
/// Where everything is, qemu-user-static too.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// The numbers of the steps that have a line with this text.
fn steps(output: &Output, text: &str) -> BTreeSet<String> {
    let lines = output.stderr.lines().filter(|line| line.starts_with('#') && line.contains(text));
    lines.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&tool("skopeo", &[&["inspect", "--tls-verify=false"], args].concat())).unwrap()
}

#[test]
fn steps_of_two_platforms_run_and_become_one_index() {
    let registry = Registry::start();
    let _emulator = Emulator::arm64();
    for user in BOTH {
        let project = two_stages(user, &registry);
        let name = format!("{}/{user:?}/app:1", registry.host).to_lowercase();
        let (metadata, out) = (project.home().join("metadata"), project.home().join("out"));
        let args = ["--platform", BOTH_PLATFORMS, "--push", "-t", &name, "-o", text(&out)];
        let built = project.build(&[&args[..], &["--metadata-file", text(&metadata)]].concat()).success();
        let of = |file: &str| steps(&built, &format!("RUN [\"/writer\", \"/{file}\"]")).len();
        assert_eq!((of("tool"), of("one"), of("two")), (1, 2, 2), "what is the same is one step:\n{}", built.stderr);
        let image = format!("docker://{name}");
        let index = json(&["--raw", &image]);
        let platforms: Vec<&str> = index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["platform"]["architecture"].as_str().unwrap())
            .collect();
        assert_eq!(platforms, ["amd64", "arm64"]);
        let metadata: Value = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
        assert_eq!(metadata["containerimage.digest"], json(&[&image])["Digest"]);
        assert_eq!(metadata["containerimage.descriptor"]["mediaType"], index["mediaType"]);
        assert!(metadata.get("containerimage.config.digest").is_none());
        for arch in ["amd64", "arm64"] {
            let config = json(&["--override-os", "linux", "--override-arch", arch, "--config", &image]);
            assert_eq!((&config["os"], &config["architecture"]), (&"linux".into(), &arch.into()));
            assert!(config["config"]["Env"].to_string().contains(&format!("MADE_FOR=linux/{arch}")));
            let file = |name: &str| fs::read_to_string(out.join(format!("linux_{arch}")).join(name)).unwrap();
            assert_eq!((file("one"), file("two")), (format!("made on {arch}\n"), format!("made on {arch}\n")));
            let own = rbuild::image::Platform::host().architecture;
            assert_eq!(file("tool"), format!("made on {own}\n"), "a stage of the build platform is not emulated");
        }
    }
}

#[test]
fn a_step_that_nothing_runs_is_told_of_before_anything_is_built() {
    let registry = Registry::start();
    let project = two_stages(User::Root, &registry);
    let args = ["--platform", "linux/arm64"];
    for (who, path) in [(As::Root, PATH), (As::Unprivileged, "/nonexistent")] {
        let told = build_where(&project, Registered::Nothing, who, path, &args).failure(5);
        let told = told.says("programs for linux/arm64 do not run on this machine").says("no emulator is registered");
        let told = told.says("docker run --privileged --rm tonistiigi/binfmt --install arm64");
        let told = told.says("apt-get install qemu-user-static binfmt-support").says("FROM --platform=$BUILDPLATFORM");
        let (done, internal) = (steps(&told, " DONE "), steps(&told, " [internal] "));
        assert!(done.is_subset(&internal), "{}", told.stderr);
    }
    let told = build_where(&project, Registered::OutOfReach, As::Root, PATH, &args).failure(5);
    let _ = told.says("cannot be reached from a container").says("flag F");
}

#[test]
fn programs_of_no_image_are_judged_when_they_run() {
    let dockerfile = |arch: &str| {
        format!(
            "FROM --platform=$BUILDPLATFORM scratch\nARG {arch}\nCOPY writer-${arch} /writer\nRUN [\"/writer\", \"/made\"]\n"
        )
    };
    let project = writers(User::Root, &dockerfile("TARGETARCH"));
    let args = ["--platform", "linux/arm64"];
    let told = build_where(&project, Registered::Nothing, As::Root, PATH, &args).failure(5);
    let _ = told.says("programs for linux/arm64 do not run on this machine").says("tonistiigi/binfmt");
    project.file("Dockerfile", dockerfile("BUILDARCH"));
    let _ = build_where(&project, Registered::Nothing, As::Root, PATH, &args).success();
}

#[test]
fn cached_steps_and_copies_need_no_emulator() {
    let registry = Registry::start();
    let project = two_stages(User::Root, &registry);
    let cache = project.home().join("cache");
    let (to, from) = (format!("type=local,dest={}", cache.display()), format!("type=local,src={}", cache.display()));
    {
        let _emulator = Emulator::arm64();
        let _ = project.build(&["--platform", BOTH_PLATFORMS, "--cache-to", &format!("{to},mode=max")]).success();
    }
    let out = project.home().join("out");
    let args = ["--platform", BOTH_PLATFORMS, "--cache-from", &from, "-o", text(&out)];
    let again = build_where(&project, Registered::Nothing, As::Root, PATH, &args).success();
    let cached = steps(&again, " CACHED");
    let runs = steps(&again, "RUN [");
    assert!(!runs.is_empty() && runs.is_subset(&cached), "{}", again.stderr);
    assert_eq!(fs::read_to_string(out.join("linux_arm64/two")).unwrap(), "made on arm64\n");
    project.file("Dockerfile", format!("FROM {}/base:1\nCOPY Dockerfile /\n", registry.host));
    let args = ["--platform", BOTH_PLATFORMS];
    let _ = build_where(&project, Registered::Nothing, As::Root, PATH, &args).success();
}

#[test]
fn a_user_namespace_of_our_own_gets_emulators_of_its_own() {
    let registry = Registry::start();
    let project = two_stages(User::Root, &registry);
    let out = project.home().join("out");
    let args = ["--debug", "--platform", BOTH_PLATFORMS, "-o", text(&out)];
    let built = build_where(&project, Registered::Nothing, As::Unprivileged, PATH, &args).success();
    let _ = built.says("registered emulators for this build alone");
    assert_eq!(fs::read_to_string(out.join("linux_arm64/two")).unwrap(), "made on arm64\n");
    let again = build_where(&project, Registered::Nothing, As::Root, PATH, &["--no-cache", "--platform=linux/arm64"]);
    let _ = again.failure(5).says("no emulator is registered");
}

#[test]
fn platforms_of_the_configuration_are_believed_and_the_first_is_built_for() {
    let dockerfile = "FROM scratch\nARG BUILDARCH\nCOPY writer-$BUILDARCH /writer\nRUN [\"/writer\", \"/made\"]\n";
    let project = writers(User::Root, dockerfile);
    let config = project.home().join("buildkitd.toml");
    fs::write(&config, "[worker.oci]\nplatforms = [\"linux/arm64\", \"linux/amd64\"]\n").unwrap();
    let args = ["--config", text(&config)];
    let told = build_where(&project, Registered::Nothing, As::Root, PATH, &args).failure(1);
    let _ = told.says("Exec format error").silent_about("no emulator is registered");
    project.file("Dockerfile", "FROM scratch\nARG BUILDARCH\nCOPY writer-$BUILDARCH /writer\n");
    let layout = super::image::Layout::built(&project, &args);
    assert_eq!(layout.config()["architecture"], "arm64");
}

#[test]
fn an_image_of_two_platforms_carries_the_cache_of_both() {
    let registry = Registry::start();
    let _emulator = Emulator::arm64();
    let project = two_stages(User::Rootless, &registry);
    let name = format!("{}/inline:1", registry.host);
    let args = ["--platform", BOTH_PLATFORMS, "--push", "-t", &name, "--cache-to", "type=inline"];
    let _ = project.build(&args).success();
    let dockerfile = fs::read_to_string(project.context().join("Dockerfile")).unwrap();
    let fresh = Project::with(User::Rootless, &dockerfile);
    let from = format!("type=registry,ref={name}");
    let built = fresh.build(&["--platform", BOTH_PLATFORMS, "--cache-from", &from, "--push", "-t", &name]).success();
    let (cached, runs) = (steps(&built, " CACHED"), steps(&built, "RUN ["));
    assert!(!runs.is_empty() && runs.is_subset(&cached), "{}", built.stderr);
}

#[test]
fn what_holds_one_platform_is_refused_several_before_the_build() {
    let project = Project::with(User::Rootless, "FROM scratch\nCOPY a /\n");
    project.file("a", "a");
    let tar = project.home().join("image.tar");
    let output = format!("type=docker,dest={}", tar.display());
    let told = project.build(&["--platform", BOTH_PLATFORMS, "-o", &output]).failure(2);
    let told = told.says("docker's image format holds one platform, and not linux/amd64, linux/arm64");
    let _ = told.says("type=oci,dest=").silent_about("COPY a /");
    assert!(!tar.exists());
    // Twice the same is one.
    let _ = project.build(&["--platform", "linux/arm64,linux/arm64/v8", "-o", &output]).success();
    let config = json(&["--config", &format!("docker-archive:{}", tar.display())]);
    assert_eq!(config["architecture"], "arm64");
}

#[test]
fn the_environment_and_local_name_platforms() {
    let project = Project::with(User::Rootless, "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /\n");
    project.file("amd64/name", "amd64").file("arm64/name", "arm64");
    let own = rbuild::image::Platform::host().architecture;
    for (args, expected) in
        [(&[][..], "arm64"), (&["--platform", "local"], &own), (&["--platform", "linux/amd64"], "amd64")]
    {
        let out = project.home().join(format!("out-{expected}-{}", args.len()));
        let mut command = project.rbuild_command(&[&["-o", text(&out)], args].concat());
        command.env("DOCKER_DEFAULT_PLATFORM", "linux/arm64").arg(project.context());
        let _ = run(command).success();
        assert_eq!(fs::read_to_string(out.join("name")).unwrap(), expected);
    }
}

#[test]
fn trees_of_several_platforms_are_kept_apart_or_put_together() {
    for user in BOTH {
        let project = Project::with(user, "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /\n");
        project.file("amd64/amd64", "a").file("arm64/arm64", "b");
        let at = |name: &str| project.home().join(name);
        let (together, tar) = (at("together"), at("tar"));
        let outputs = [
            format!("type=local,dest={},platform-split=false", together.display()),
            format!("type=tar,dest={}", tar.display()),
        ];
        let _ = project.build(&["--platform", BOTH_PLATFORMS, "-o", &outputs[0], "-o", &outputs[1]]).success();
        assert!(together.join("amd64").exists() && together.join("arm64").exists());
        let listed = tool("tar", &["-tf", text(&tar)]);
        assert!(listed.contains("linux_amd64/amd64\n") && listed.contains("linux_arm64/arm64\n"), "{listed}");
        let one = at("one");
        let split = format!("type=local,dest={},platform-split=true", one.display());
        let _ = project.build(&["--platform", "linux/arm64", "-o", &split]).success();
        assert!(one.join("linux_arm64/arm64").exists());
        let multi = at("multi");
        let args = ["--platform", "linux/arm64", "--build-arg", "BUILDKIT_MULTI_PLATFORM=1", "-o", text(&multi)];
        let _ = project.build(&args).success();
        assert!(multi.join("linux_arm64/arm64").exists(), "one asked for as if it were several");
    }
}

#[test]
fn annotations_are_for_levels_and_platforms() {
    let project = Project::with(User::Rootless, "FROM scratch\nCOPY a /\n");
    project.file("a", "a");
    let annotations =
        ["index,manifest:both=1", "manifest[linux/arm64]:arm=2", "manifest-descriptor[linux/amd64]:descriptor=3"];
    let mut args = vec!["--platform", BOTH_PLATFORMS];
    args.extend(annotations.iter().flat_map(|annotation| ["--annotation", *annotation]));
    let layout = super::image::Layout::built(&project, &args);
    let root = layout.root();
    assert_eq!(root["annotations"], serde_json::json!({"both": "1"}));
    assert_eq!(root["manifests"][0]["annotations"], serde_json::json!({"descriptor": "3"}));
    assert!(root["manifests"][1].get("annotations").is_none());
    let manifest = |at: usize| layout.document(&root["manifests"][at]["digest"])["annotations"].clone();
    assert_eq!(manifest(0), serde_json::json!({"both": "1"}));
    assert_eq!(manifest(1), serde_json::json!({"both": "1", "arm": "2"}));
}
