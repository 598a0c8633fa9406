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
