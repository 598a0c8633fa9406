//! Where results go: files, archives, registries, engines; several at once.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::image::Layout;
use super::{text, tool};
use crate::support::build::{BOTH, Project, User, run};
use crate::support::registry::Registry;
use crate::support::script::plant;

/// A project with two layers.
fn project(user: User) -> Project {
    let project = Project::with(user, "FROM scratch\nCOPY a /a\nCOPY b /d/b\nCMD [\"/a\"]\n");
    project.file("a", "one").file("b", "two");
    project
}

/// What skopeo says of an image.
fn inspect(args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&tool("skopeo", &[&["inspect"], args].concat())).unwrap()
}

#[test]
fn several_outputs_of_one_build() {
    let registry = Registry::start();
    for user in BOTH {
        let project = project(user);
        let home = project.home().to_owned();
        let at = |name: &str| home.join(name);
        let name = format!("{}/{user:?}/app", registry.host).to_lowercase();
        let outputs = [
            text(&at("files")).to_owned(),
            format!("type=local,dest={}", at("files2").display()),
            format!("type=tar,dest={}", at("files.tar").display()),
            format!("type=oci,dest={}", at("oci.tar").display()),
            format!("type=oci,tar=false,dest={}", at("layout").display()),
            format!("type=docker,dest={}", at("docker.tar").display()),
            format!("type=image,push=true,name={name}:two"),
            format!("type=registry,name={name}:three"),
        ];
        let mut args: Vec<&str> = outputs.iter().flat_map(|output| ["-o", output.as_str()]).collect();
        let (metadata, tag) = (at("metadata"), format!("{name}:one"));
        args.extend(["--metadata-file", text(&metadata)]);
        let _ = project.build(&args).success();
        for dir in ["files", "files2"] {
            assert_eq!(fs::read_to_string(at(dir).join("d/b")).unwrap(), "two");
        }
        assert_eq!(tool("tar", &["-xOf", text(&at("files.tar")), "d/b"]), "two");
        let digest = Layout(at("layout")).digest();
        assert_eq!(Layout::unpacked(&at("oci.tar")).digest(), digest);
        let docker = inspect(&["--config", &format!("docker-archive:{}", at("docker.tar").display())]);
        assert_eq!(docker["config"]["Cmd"][0], "/a");
        for pushed in ["two", "three"] {
            let seen = inspect(&["--tls-verify=false", &format!("docker://{name}:{pushed}")]);
            assert_eq!(seen["Digest"], digest.as_str(), "{pushed}");
        }
        let _ = project.build(&["--push", "-t", &tag]).success();
        assert_eq!(inspect(&["--tls-verify=false", &format!("docker://{tag}")])["Digest"], digest.as_str());
    }
}

#[test]
fn r10_programs_of_the_context_and_the_checkout_are_not_run() {
    let registry = Registry::with_login();
    let host = &registry.host;
    let project = Project::with(User::Root, "FROM scratch\nCOPY a /\n");
    let ran = project.home().join("ran");
    let script = format!("#!/bin/sh\necho $0 >{}; cat >/dev/null; exit 1\n", ran.display());
    for place in ["a", "bin/docker", "bin/docker-credential-planted"] {
        project.file(place, &script);
        fs::set_permissions(project.context().join(place), fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::create_dir(project.home().join(".docker")).unwrap();
    let accounts = format!(r#"{{"credHelpers":{{"{host}":"planted"}}}}"#);
    fs::write(project.home().join(".docker/config.json"), accounts).unwrap();
    symlink(project.context().join("bin"), project.home().join("link")).unwrap();
    let outside = project.home().join("bin");
    let build = |args: &[&str], bin: &Path, from: &str, cwd: &Path| {
        let mut command = project.rbuild_command(args);
        command.env("PATH", format!("{}:/usr/bin:/bin", bin.display())).arg(from).current_dir(cwd);
        let output = run(command);
        (output, fs::read_to_string(&ran).is_ok_and(|_| fs::remove_file(&ran).is_ok()))
    };
    let image = format!("{host}/app:1");
    let pull = ["--platform", "linux/amd64"];
    let (context, elsewhere) = (project.context(), project.home().join("elsewhere"));
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("Dockerfile"), format!("FROM {image}\n")).unwrap();
    for bin in [context.join("bin"), project.home().join("link")] {
        for (from, cwd) in [(&context, project.home()), (&elsewhere, &context)] {
            let (_, ran) = build(&["--load"], &bin, text(from), cwd);
            assert!(!ran, "{} from {}", bin.display(), cwd.display());
            let (output, ran) = build(&pull, &bin, text(&elsewhere), &context);
            assert!(!ran && output.stderr.contains("it is in no directory of PATH"), "{}", output.stderr);
        }
    }
    // The same ones are run from elsewhere, also below the home directory a build is started in.
    fs::rename(context.join("bin"), &outside).unwrap();
    assert!(build(&["--load"], &outside, text(&context), project.home()).1);
    assert!(build(&pull, &outside, text(&elsewhere), project.home()).1);
}

#[test]
fn a_push_by_digest_has_no_tag() {
    let registry = Registry::start();
    let project = project(User::Rootless);
    let name = format!("{}/by/digest", registry.host);
    let metadata = project.home().join("metadata");
    let output = format!("type=image,name={name},push=true,push-by-digest=true,name-canonical=true");
    let _ = project.build(&["-o", &output, "--metadata-file", text(&metadata)]).success();
    let json: serde_json::Value = serde_json::from_slice(&fs::read(&metadata).unwrap()).unwrap();
    let pinned = format!("docker://{name}@{}", json["containerimage.digest"].as_str().unwrap());
    assert_eq!(inspect(&["--tls-verify=false", "--config", &pinned])["config"]["Cmd"][0], "/a");
    let tags = std::process::Command::new("skopeo")
        .args(["list-tags", "--tls-verify=false"])
        .arg(format!("docker://{name}"))
        .output();
    let tags = tags.unwrap();
    assert!(!String::from_utf8_lossy(&tags.stdout).contains("latest"), "{tags:?}");
    let _ = project.build(&["--push"]).failure(2).says("--tag");
}

#[test]
fn the_types_of_the_oci_specification_read_what_is_written() {
    use oci_spec::image::{ImageConfiguration, ImageIndex, ImageManifest, MediaType, OciLayout};
    let project = Project::with(
        User::Root,
        "FROM scratch\nCOPY a b /\nENV A=1\nEXPOSE 80\nVOLUME /v\nHEALTHCHECK CMD true\nLABEL l=1\nUSER 7\nWORKDIR /w\n",
    );
    project.file("a", "one").file("b", "two");
    let built = Layout::built(&project, &["--annotation", "k=v"]);
    let marker = OciLayout::from_file(built.0.join("oci-layout")).unwrap();
    assert_eq!(marker.image_layout_version(), "1.0.0");
    let blob = |digest: &dyn ToString| built.blob(&serde_json::Value::from(digest.to_string()));
    let index = ImageIndex::from_file(built.0.join("index.json")).unwrap();
    assert_eq!(index.manifests()[0].media_type(), &MediaType::ImageManifest);
    let manifest = ImageManifest::from_reader(&*blob(index.manifests()[0].digest())).unwrap();
    assert_eq!(manifest.annotations().as_ref().unwrap()["k"], "v");
    assert_eq!(manifest.config().media_type(), &MediaType::ImageConfig);
    let config = ImageConfiguration::from_reader(&*blob(manifest.config().digest())).unwrap();
    assert_eq!(config.rootfs().diff_ids().len(), manifest.layers().len());
    let inside = config.config().as_ref().unwrap();
    assert_eq!((inside.user().as_deref(), inside.working_dir().as_deref()), (Some("7"), Some("/w")));
    assert_eq!(inside.exposed_ports().as_deref(), Some(&["80/tcp".to_owned()][..]));
}

#[test]
fn standard_output_takes_a_tar() {
    for user in BOTH {
        let project = project(user);
        for (output, member) in [
            ("-", "d/b"),
            ("type=tar,dest=-", "d/b"),
            ("type=oci,dest=-", "oci-layout"),
            ("type=docker,dest=-", "manifest.json"),
        ] {
            let mut command = project.rbuild_command(&["-t", "app:1", "-o", output]);
            let place = project.home().join("piped.tar");
            command.arg(project.context()).stdout(fs::File::create(&place).unwrap());
            let said = command.output().unwrap();
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
            assert!(tool("tar", &["-tf", text(&place)]).lines().any(|line| line == member), "{output}");
        }
    }
}

/// A search path that has what rootless builds need, and `docker` if a script is given.
fn search_path(project: &Project, docker: Option<&str>) -> PathBuf {
    let bin = project.home().join("bin");
    let _ = fs::remove_dir_all(&bin);
    fs::create_dir(&bin).unwrap();
    for program in ["setpriv", "newuidmap", "newgidmap", "sh", "cat", "mv", "echo"] {
        let found = ["/usr/bin", "/bin"].map(|dir| PathBuf::from(dir).join(program));
        symlink(found.iter().find(|path| path.exists()).unwrap(), bin.join(program)).unwrap();
    }
    if let Some(script) = docker {
        plant(&bin.join("docker"), script);
    }
    bin
}

#[test]
fn load_hands_the_image_to_docker_or_says_what_to_do() {
    for user in BOTH {
        let project = project(user);
        let script = "#!/bin/sh\necho \"$*\" > $HOME/words\ncat > $HOME/got.tar\necho Loaded\n";
        let bin = search_path(&project, Some(script));
        let mut command = project.rbuild_command(&["--load", "-t", "app:1"]);
        command.arg(project.context()).env("PATH", &bin);
        let _ = run(command).success().says("importing to docker");
        assert_eq!(fs::read_to_string(project.home().join("words")).unwrap(), "load\n");
        let archive = format!("docker-archive:{}:app:1", project.home().join("got.tar").display());
        assert_eq!(inspect(&["--config", &archive])["config"]["Cmd"][0], "/a");

        // Asked for twice it is loaded once.
        let count = "#!/bin/sh\necho load >> $HOME/loads\ncat > /dev/null\n";
        search_path(&project, Some(count));
        let mut command = project.rbuild_command(&["--load", "-o", "type=docker,name=app:2"]);
        command.arg(project.context()).env("PATH", &bin);
        let _ = run(command).success();
        assert_eq!(fs::read_to_string(project.home().join("loads")).unwrap(), "load\n");

        search_path(&project, Some("#!/bin/sh\ncat > /dev/null\necho no daemon here >&2\nexit 1\n"));
        let mut command = project.rbuild_command(&["--load", "-t", "app:1"]);
        command.arg(project.context()).env("PATH", &bin);
        let failed = run(command);
        assert_ne!(failed.code, 0);
        let _ = failed.says("no daemon here");

        search_path(&project, None);
        let mut command = project.rbuild_command(&["--load", "-t", "app:1"]);
        command.arg(project.context()).env("PATH", &bin);
        let explained = run(command);
        assert_ne!(explained.code, 0);
        let _ = explained.says("docker").says("podman").says("type=docker,dest=");
    }
}

#[test]
fn a_layout_keeps_what_other_builds_put_there() {
    for user in BOTH {
        let project = project(user);
        let dir = project.home().join("shared");
        let output = format!("type=oci,tar=false,dest={}", dir.display());
        let _ = project.build(&["-t", "app:1", "-o", &output]).success();
        project.file("a", "changed");
        let _ = project.build(&["-t", "app:2", "-o", &output]).success();
        for (tag, content) in [("1", "one"), ("2", "changed")] {
            let root = project.home().join(format!("root{tag}"));
            tool(
                "umoci",
                &["raw", "unpack", "--rootless", "--image", &format!("{}:{tag}", dir.display()), text(&root)],
            );
            assert_eq!(fs::read_to_string(root.join("a")).unwrap(), content);
        }
    }
}

#[test]
fn layers_are_compressed_as_asked() {
    for user in BOTH {
        let project = project(user);
        for (attributes, suffix) in [
            ("compression=zstd", "tar+zstd"),
            ("compression=uncompressed", "tar"),
            ("compression=gzip,compression-level=9", "tar+gzip"),
        ] {
            let dir = project.home().join(suffix);
            let output = format!("type=oci,tar=false,{attributes},dest={}", dir.display());
            let _ = project.build(&["-o", &output, "--no-cache"]).success();
            let types: Vec<_> =
                Layout(dir).root()["layers"].as_array().unwrap().iter().map(|l| l["mediaType"].clone()).collect();
            assert_eq!(
                types,
                [
                    format!("application/vnd.oci.image.layer.v1.{suffix}"),
                    format!("application/vnd.oci.image.layer.v1.{suffix}")
                ]
            );
        }
    }
}

#[test]
fn a_wrong_output_is_refused_before_anything_is_built() {
    let project = project(User::Root);
    for (output, said) in
        [("type=ocy,dest=x", "oci"), ("type=oci,dest=x,compresion=gzip", "compression"), ("type=local", "dest")]
    {
        let _ = project.build(&["-o", output]).failure(2).says(said).silent_about("load build definition");
    }
}
