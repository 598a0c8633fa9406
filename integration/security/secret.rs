//! Secrets: bytes that a step reads and nothing keeps.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufReader, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::{Scene, as_both, image, lines};
use crate::support::build::run;

/// Random bytes that are wanted.
fn random(count: usize, wanted: fn(&u8) -> bool) -> Vec<u8> {
    let bytes = BufReader::new(fs::File::open("/dev/urandom").unwrap()).bytes().map(Result::unwrap);
    bytes.filter(wanted).take(count).collect()
}

fn any(_: &u8) -> bool {
    true
}

/// Everything a secret could be kept as.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex = secret.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    let url = |upper: bool| {
        secret.iter().fold(String::new(), |mut text, byte| {
            let _ = match (byte.is_ascii_alphanumeric() || b"-._~".contains(byte), upper) {
                (true, _) => write!(text, "{}", char::from(*byte)),
                (false, true) => write!(text, "%{byte:02X}"),
                (false, false) => write!(text, "%{byte:02x}"),
            };
            text
        })
    };
    let decimal: Vec<String> = secret.iter().map(u8::to_string).collect();
    // Base64 of a longer text holds that of the secret from one of three places on.
    let base64 = (0..3).flat_map(|skip| {
        let part = &secret[skip..][..(secret.len() - skip) / 3 * 3];
        [STANDARD.encode(part), URL_SAFE_NO_PAD.encode(part)]
    });
    let texts = [hex.clone(), hex.to_uppercase(), url(true), url(false), decimal.join(","), decimal.join(", ")];
    let whole = [secret.to_vec(), String::from_utf8_lossy(secret).escape_debug().to_string().into_bytes()];
    texts.into_iter().chain(base64).map(String::into_bytes).chain(whole).collect()
}

fn contains(content: &[u8], part: &[u8]) -> bool {
    content.windows(part.len()).any(|window| window[0] == part[0] && window == part)
}

/// Files below a directory that hold one of the forms.
fn search(root: &Path, forms: &[Vec<u8>], found: &mut Vec<String>) {
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let stat = fs::symlink_metadata(&path).unwrap();
        if stat.is_dir() {
            search(&path, forms, found);
        }
        let content = if stat.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        let name = path.as_os_str().as_encoded_bytes();
        if forms.iter().any(|form| contains(&content, form) || contains(name, form)) {
            found.push(path.display().to_string());
        }
    }
}

#[test]
fn s1_the_search_finds_what_is_there() {
    let temp = tempfile::tempdir().unwrap();
    let secret = random(64, any);
    let forms = forms(&secret);
    for (index, form) in forms.iter().enumerate() {
        fs::write(temp.path().join(index.to_string()), [b"before ", &form[..], b" after"].concat()).unwrap();
    }
    let longer = STANDARD.encode([b"x", &secret[..], b"y"].concat());
    fs::write(temp.path().join("longer"), longer).unwrap();
    let mut found = Vec::new();
    search(temp.path(), &forms, &mut found);
    assert_eq!(found.len(), forms.len() + 1);
}

#[test]
fn s1_no_byte_of_a_secret_stays_anywhere() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        let (in_file, in_variable) = (random(64, any), random(64, u8::is_ascii_graphic));
        let home = scene.project.home();
        let (place, image, metadata) = (home.join("secret"), home.join("image.tar"), home.join("metadata.json"));
        fs::write(&place, &in_file).unwrap();
        scene.project.own(&place);
        let mounts = "--mount=type=secret,id=file,target=/s/key --mount=type=secret,id=variable --mount=type=secret,id=variable,env=TOKEN";
        // A failing command names what it ran: the name of the variable, not its value.
        let dockerfile = format!(
            "FROM evil\nRUN {mounts} wc -c < /s/key; wc -c < /run/secrets/variable; [ -n \"$TOKEN\" ] && echo there\n\
             RUN {mounts} cat /proc/1/environ > /dev/null; test \"$TOKEN\" = \"$(cat /run/secrets/variable)\" && test -s /s/key\n"
        );
        for (dockerfile, code) in
            [(dockerfile.clone(), 0), (format!("{dockerfile}RUN {mounts} test -z \"$TOKEN\"\n"), 1)]
        {
            scene.project.file("Dockerfile", &dockerfile);
            let mut command = scene.command(&[
                "--debug",
                "--secret",
                &format!("id=file,src={}", place.display()),
                "--secret",
                "id=variable,env=RBUILD_TEST_SECRET",
                "--metadata-file",
                metadata.to_str().unwrap(),
                "-o",
                &format!("type=oci,dest={}", image.display()),
            ]);
            command.env("RBUILD_TEST_SECRET", std::ffi::OsStr::from_bytes(&in_variable));
            let output = run(command);
            assert_eq!(output.code, code, "{}", output.stderr);
            if code == 0 {
                assert_eq!(lines(&output), ["64", "64", "there"], "{}", output.stderr);
                assert!(image.exists() && metadata.exists());
            }
            fs::write(home.join(format!("log-{code}")), format!("{}{}", output.stdout, output.stderr)).unwrap();
        }
        let mut found = Vec::new();
        fs::remove_file(&place).unwrap();
        for secret in [&in_file, &in_variable] {
            search(home, &forms(secret), &mut found);
        }
        assert_eq!(found, Vec::<String>::new());
    });
}

#[test]
fn s1_a_secret_that_cannot_be_a_variable_is_not_quoted() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        let secret = random(64, u8::is_ascii_alphanumeric);
        let place = scene.project.home().join("secret");
        let spec = format!("id=file,src={}", place.display());
        for (bad, code) in [(&b"\0"[..], 1), (b"\xff", 3)] {
            fs::write(&place, [&secret[..], bad, b"x"].concat()).unwrap();
            scene.project.own(&place);
            let dockerfile = "FROM evil\nRUN --mount=type=secret,id=file,env=TOKEN true\n";
            let output = scene.build(dockerfile, &["--debug", "--secret", &spec]).failure(code);
            let _ = output.silent_about(std::str::from_utf8(&secret).unwrap());
        }
        fs::remove_file(&place).unwrap();
        let mut found = Vec::new();
        search(scene.project.home(), &forms(&secret), &mut found);
        assert_eq!(found, Vec::<String>::new());
    });
}

#[test]
fn s3_a_secret_is_a_file_in_memory_for_one_step() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        fs::write(scene.project.home().join("s"), "x").unwrap();
        scene.project.own(&scene.project.home().join("s"));
        let mount = "--mount=type=secret,id=s";
        let dockerfile = format!(
            "FROM evil\nRUN {mount} stat -c '%a %u:%g %F' /run/secrets/s; stat -f -c %T /run/secrets/s; grep ' /run/secrets/s ' /proc/self/mountinfo | cut -d' ' -f6; (echo y > /run/secrets/s) 2>&1 | grep -o 'Read-only.*'; true\n\
             RUN {mount},mode=0444,uid=5,gid=6 stat -c '%a %u:%g' /run/secrets/s\nRUN ls -d /run/secrets /run 2>/dev/null || echo gone\n"
        );
        let spec = ["--secret", "id=s,src=s"];
        let output = scene.build(&dockerfile, &spec).success();
        let expected =
            ["400 0:0 regular file", "tmpfs", "ro,nosuid,nodev,noexec", "Read-only file system", "444 5:6", "gone"];
        let seen: Vec<String> = lines(&output).iter().map(|l| l.replace(",relatime", "")).collect();
        assert_eq!(seen, expected, "{}", output.stderr);
        let out = scene.files(&dockerfile, &spec);
        assert!(!out.join("run").exists());
    });
}

#[test]
fn s4_a_secret_of_the_workspace_is_reached_through_no_link() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        let home = scene.project.home();
        let host = scene.canary.path().to_owned();
        fs::create_dir(home.join("d")).unwrap();
        for (link, to) in [("link", format!("{host}/f")), ("parent", host.clone()), ("d/up", "../..".to_owned())] {
            std::os::unix::fs::symlink(to, home.join(link)).unwrap();
        }
        assert!(std::process::Command::new("mkfifo").arg(home.join("fifo")).status().unwrap().success());
        fs::write(home.join("long"), vec![b'x'; 500 * 1024 + 1]).unwrap();
        for path in ["d", "link", "parent", "fifo", "long"] {
            scene.project.own(&home.join(path));
        }
        let build = |flag: &str, value: &str| {
            let dockerfile = "FROM evil\nRUN --mount=type=secret,id=s cat /run/secrets/s\n";
            scene.build(dockerfile, &[flag, value]).failure(2)
        };
        for (path, told) in [
            ("link", "link is a symbolic link"),
            ("parent/f", "parent is a symbolic link"),
            ("d/up/f", "d/up is a symbolic link"),
            ("fifo", "not a regular file"),
            ("d", "not a regular file"),
            ("long", "longer than"),
        ] {
            let _ = build("--secret", &format!("id=s,src={path}")).says(told);
        }
        for (path, told) in
            [("link", "symbolic link"), ("parent/f", "symbolic link"), ("fifo", "neither"), ("long", "longer than")]
        {
            let _ = build("--ssh", &format!("s={path}")).says(told);
        }
    });
}

/// An agent that would do anything, and keeps in mind what it was asked.
fn obedient_agent(socket: &Path) -> std::sync::Arc<std::sync::Mutex<std::collections::BTreeSet<u8>>> {
    use std::io::Write as _;
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    fs::set_permissions(socket, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let asked = std::sync::Arc::<std::sync::Mutex<std::collections::BTreeSet<u8>>>::default();
    let seen = std::sync::Arc::clone(&asked);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let (mut connection, seen) = (connection.unwrap(), std::sync::Arc::clone(&seen));
            std::thread::spawn(move || {
                loop {
                    let mut length = [0; 4];
                    let Ok(()) = connection.read_exact(&mut length) else { return };
                    let mut body = vec![0; u32::from_be_bytes(length) as usize];
                    let Ok(()) = connection.read_exact(&mut body) else { return };
                    seen.lock().unwrap().insert(body[0]);
                    let answer: &[u8] = match body[0] {
                        11 => &[0, 0, 0, 5, 12, 0, 0, 0, 0],
                        13 => &[0, 0, 0, 5, 14, 0, 0, 0, 0],
                        _ => &[0, 0, 0, 1, 6],
                    };
                    let Ok(()) = connection.write_all(answer) else { return };
                }
            });
        }
    });
    asked
}

#[test]
fn s5_an_agent_is_asked_for_two_things_only() {
    as_both(|user| {
        let scene = Scene::with(user, &super::probing());
        let socket = scene.project.home().join("agent.sock");
        let asked = obedient_agent(&socket);
        let key = scene.project.home().join("key");
        let mut keygen = scene.project.command("ssh-keygen");
        let _ = run({
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key);
            keygen
        })
        .success();
        let step = |id: &str| {
            format!(
                "RUN --mount=type=ssh,id={id} [\"/bin/probe\", \"agent\", \"/run/buildkit/ssh_agent.0\"]\n\
                 RUN --mount=type=ssh,id={id} stat -c '%a %u:%g' /run/buildkit /run/buildkit/ssh_agent.0\n"
            )
        };
        let dockerfile = format!("FROM evil\n{}{}", step("agent"), step("file"));
        let (agent, file) = (format!("agent={}", socket.display()), format!("file={}", key.display()));
        let output = scene.build(&dockerfile, &["--ssh", &agent, "--ssh", &file]).success();
        // Of 256 kinds one alone needs nothing beside it, and one is refused for what it lacks; no length out of range is answered.
        let refused = "answered 1, refused 255, other 0; out of range answered 0";
        let mut seen = lines(&output);
        seen.retain(|line| line.contains("answered"));
        assert_eq!(seen, [refused, refused], "{}", output.stderr);
        assert_eq!(lines(&output).iter().filter(|line| *line == "600 0:0").count(), 2, "{}", output.stderr);
        assert_eq!(asked.lock().unwrap().iter().copied().collect::<Vec<_>>(), [11]);
    });
}
