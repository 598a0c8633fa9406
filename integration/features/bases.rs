//! Layers of base images: they stay the bytes they came as, whatever the output's compression, the state directory, and the user.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use rbuild::digest::Digest;
use rbuild::layer::decompress::Decoder;

use super::image::Layout;
use crate::support::build::{BOTH, Output, Project, User, busybox, run};
use crate::support::image::{CHAR, Image, Member, RawTar, tools};

/// A tar that a user with one id cannot unpack as it is, and that nobody would write the same way again.
fn tar() -> Vec<u8> {
    let owned = Member { owner: 1000, data: b"hi", ..Member::new(b'0', b"etc/owned") };
    let device = Member { device: (1, 3), ..Member::new(CHAR, b"dev/mydev") };
    RawTar(tools().0).member(&owned).dir("dev").member(&device).end()
}

/// The same tar as a blob, and what media types and outputs call its compression.
fn packings() -> [(Vec<u8>, &'static str, &'static str); 3] {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar()).unwrap();
    let zstd = zstd::encode_all(&tar()[..], 1).unwrap();
    [(gzip.finish().unwrap(), "+gzip", "gzip"), (zstd, "+zstd", "zstd"), (tar(), "", "uncompressed")]
}

/// A project on top of the base, with the arguments it needs.
fn on_top(user: User, blob: &[u8], suffix: &'static str) -> (Project, Vec<String>) {
    let project = Project::with(user, "FROM base\nCOPY f /f\n");
    project.file("f", "one");
    let args = Image::default().blob(tar(), blob.to_vec(), suffix).named(&project, "base").to_vec();
    (project, args)
}

fn strs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// The media type's last word for each layer.
fn kinds(layout: &Layout) -> Vec<String> {
    let layers = layout.root()["layers"].as_array().unwrap().clone();
    layers.iter().map(|layer| layer["mediaType"].as_str().unwrap().rsplit('.').next().unwrap().to_owned()).collect()
}

/// The digest of a layer's tar.
fn diff_id(layout: &Layout, layer: usize) -> String {
    let mut tar = Vec::new();
    let blob = layout.blob(&layout.root()["layers"][layer]["digest"]);
    Decoder::new(&blob[..]).unwrap().read_to_end(&mut tar).unwrap();
    let digest = Digest::compute(&tar).to_string();
    assert_eq!(layout.config()["rootfs"]["diff_ids"][layer], digest.as_str());
    digest
}

#[test]
fn a_base_keeps_its_blob_unless_another_compression_is_forced() {
    let tar_digest = Digest::compute(tar()).to_string();
    for user in BOTH {
        for (blob, suffix, name) in packings() {
            let (project, args) = on_top(user, &blob, suffix);
            for output in ["gzip", "zstd"] {
                let option = format!("type=oci,tar=false,dest=out-{output},compression={output}");
                let _ = project.build(&[&strs(&args)[..], &["-o", &option]].concat()).success();
                let layout = Layout(project.home().join(format!("out-{output}")));
                assert_eq!(layout.layers()[0], Digest::compute(&blob).to_string(), "{user:?} {name} to {output}");
                assert_eq!(kinds(&layout), [format!("tar{suffix}"), format!("tar+{output}")]);
                assert_eq!(diff_id(&layout, 0), tar_digest);
            }
            let forced = "type=oci,tar=false,dest=forced,compression=zstd,force-compression=true";
            let _ = project.build(&[&strs(&args)[..], &["-o", forced]].concat()).success();
            let layout = Layout(project.home().join("forced"));
            assert_eq!(kinds(&layout), ["tar+zstd", "tar+zstd"]);
            assert_eq!(diff_id(&layout, 0), tar_digest, "{user:?} {name}");
            assert_eq!(layout.layers()[0] == Digest::compute(&blob).to_string(), name == "zstd");
        }
    }
}

#[test]
fn every_output_has_its_own_compression() {
    for user in BOTH {
        let (blob, suffix, _) = &packings()[0];
        let (project, args) = on_top(user, blob, suffix);
        let outputs = [
            "type=oci,tar=false,dest=a,compression=zstd",
            "type=oci,tar=false,dest=b,compression=uncompressed,force-compression=true",
            "type=oci,tar=false,dest=c",
            "type=oci,tar=false,dest=d,compression=zstd,compression-level=19",
        ];
        let outputs: Vec<&str> = outputs.iter().flat_map(|output| ["-o", output]).collect();
        let _ = project.build(&[&strs(&args)[..], &outputs].concat()).success();
        let at = |name: &str| Layout(project.home().join(name));
        assert_eq!(kinds(&at("a")), ["tar+gzip", "tar+zstd"]);
        assert_eq!(kinds(&at("b")), ["tar", "tar"]);
        assert_eq!(kinds(&at("c")), ["tar+gzip", "tar+gzip"]);
        assert_eq!(kinds(&at("d")), ["tar+gzip", "tar+zstd"]);
        let ids: Vec<String> = ["a", "b", "c", "d"].iter().map(|name| diff_id(&at(name), 1)).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }
}

fn blobs(project: &Project) -> PathBuf {
    project.state().join("blobs/sha256")
}

fn damage(path: &Path, how: &str) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    match how {
        "flipped" => bytes[middle] ^= 1,
        "cut" => bytes.truncate(middle),
        _ => return fs::remove_file(path).unwrap(),
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_blob_of_a_base_that_is_damaged_or_lost_is_fetched_again() {
    for user in BOTH {
        for (blob, suffix, name) in packings() {
            let (project, args) = on_top(user, &blob, suffix);
            let _ = project.build(&[&strs(&args)[..], &["-o", "type=oci,dest=first.tar"]].concat()).success();
            for how in ["flipped", "cut", "lost"] {
                damage(&blobs(&project).join(Digest::compute(&blob).hex()), how);
                for dest in [how, "-"] {
                    let option = format!("type=oci,dest={dest}");
                    let _ = project.build(&[&strs(&args)[..], &["-o", &option]].concat()).success();
                }
                assert_eq!(
                    Digest::compute(fs::read(project.home().join(how)).unwrap()),
                    Digest::compute(fs::read(project.home().join("first.tar")).unwrap()),
                    "{user:?} {name} {how}"
                );
            }
        }
    }
}

/// Runs a build as a user whose subordinate ids are hidden.
fn with_one_id(project: &Project, args: &[&str]) -> Output {
    let inner = project.rbuild_command(args);
    let hide = "mount --bind /dev/null /etc/subuid && mount --bind /dev/null /etc/subgid && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", hide, "sh"]);
    command.arg(inner.get_program()).args(inner.get_args()).arg(project.context()).current_dir(project.home());
    command.env_clear().envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
    run(command)
}

#[test]
fn layers_of_another_mapping_of_users_are_not_used() {
    let stat = "FROM base\nRUN stat -c %u:%g /etc/owned >/seen\n";
    for one_id_first in [true, false] {
        let project = Project::with(User::Rootless, stat);
        let args = Image::default().blob(tar(), tar(), "").named(&project, "base").to_vec();
        let args = [&strs(&args)[..], &["-o", "out"]].concat();
        for round in 0..4 {
            let one_id = (round % 2 == 0) == one_id_first;
            let output = if one_id { with_one_id(&project, &args) } else { project.build(&args) };
            let output = output.success();
            let told =
                output.stderr.contains("/etc/subuid has no line for rbuild-test; only user 0 exists in the build");
            assert_eq!(told, one_id, "{}", output.stderr);
            let seen = fs::read_to_string(project.home().join("out/seen")).unwrap();
            assert_eq!(seen, if one_id { "0:0\n" } else { "1000:1000\n" }, "{one_id_first} {round}");
        }
    }
}

#[test]
fn an_owner_that_one_id_does_not_allow_is_named_with_the_remedy() {
    let copy = "FROM scratch\nCOPY --chown=1000:7 Dockerfile /file\n";
    let project = Project::with(User::Rootless, copy);
    let output = with_one_id(&project, &[]).failure(5);
    let output = output.says("cannot give files the owner 1000:7: the build has no such ids").says("Dockerfile:2");
    let _ = output
        .says("hint: give your user subordinate ids: sudo usermod --add-subuids")
        .silent_about("Invalid argument");
    let _ = project.build(&[]).success();
    project.file("Dockerfile", copy.replace("1000:7", "0:0"));
    let _ = with_one_id(&project, &[]).success();
}

#[test]
fn a_user_with_one_id_passes_a_base_on_as_it_is() {
    for (blob, suffix, name) in packings() {
        let (project, args) = on_top(User::Rootless, &blob, suffix);
        for dest in ["first", "second"] {
            let option = format!("type=oci,tar=false,dest={dest}");
            let _ = with_one_id(&project, &[&strs(&args)[..], &["-o", &option]].concat()).success();
            let layout = Layout(project.home().join(dest));
            assert_eq!(layout.layers()[0], Digest::compute(&blob).to_string(), "{name}");
            fs::remove_file(blobs(&project).join(Digest::compute(&blob).hex())).unwrap();
        }
    }
}

#[test]
fn built_layers_are_made_anew_where_they_are_damaged() {
    for user in BOTH {
        let project = Project::with(user, "FROM host AS tools\nFROM scratch\nCOPY --from=tools busybox /\n");
        let args = |dest: &'static str| [&busybox()[..], &["-o", dest]].concat();
        let _ = project.build(&args("type=oci,dest=first.tar")).success();
        for how in ["flipped", "cut", "lost"] {
            fs::read_dir(blobs(&project)).unwrap().for_each(|entry| damage(&entry.unwrap().path(), how));
            let _ = project.build(&args("type=oci,dest=second.tar")).success();
            let read = |name: &str| Digest::compute(fs::read(project.home().join(name)).unwrap());
            assert_eq!(read("first.tar"), read("second.tar"), "{user:?} {how}");
        }
    }
}
