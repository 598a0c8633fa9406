//! What a build prints where a runner reads commands from it and where a terminal obeys escape sequences.

use super::{Scene, as_both, image};
use crate::support::build::{Output, run};

/// Commands as GitHub's runner finds them, line by line: `::name …::data` at the start but for white space, and
/// `##[name …]data` anywhere.
fn commands(output: &str) -> Vec<String> {
    let newer = |line: &str| {
        let rest = line.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}').strip_prefix("::")?;
        let (name, _) = rest.split_once("::")?;
        (!name.trim().is_empty()).then(|| name.to_owned())
    };
    let older = |line: &str| {
        let (_, rest) = line.split_once("##[")?;
        rest.split_once(']').map(|(name, _)| name.to_owned())
    };
    // Its reader ends lines at either character.
    output.split(['\n', '\r']).filter_map(|line| newer(line).or_else(|| older(line))).collect()
}

/// Whether text has nothing in it but letters, newlines, tabs and colours.
fn is_plain(text: &str) -> bool {
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        let reorders =
            matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if reorders || (c.is_control() && !['\n', '\t', '\u{1b}'].contains(&c)) {
            return false;
        }
        if c == '\u{1b}' {
            let Some((parameters, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once('m')) else {
                return false;
            };
            if !parameters.bytes().all(|byte| byte.is_ascii_digit() || byte == b';' || byte == b':') {
                return false;
            }
            rest = after;
        }
    }
    true
}

const HOSTILE: &[u8] = b"::add-mask::x\n::error file=a,line=1::x\n  ::set-output name=a::b\n\t::stop-commands::t\nx##[add-matcher]a.json\n\
    ##[group]x\n##vso[task.setvariable variable=a]b\nprogress\r::warning::x\r##[error]y\n\x1b[0m::debug::x\n#\x1b[31m#[warning]z\n\
    \xef\xbb\xbf::notice::x\n\xe2\x80\xa8::error::x\n#\x07#[debug]w\n\x1b]0;::error::t\x07::error::after\nlast ::not-first::x";

const SEQUENCES: &[u8] = b"\x1b]8;;http://evil\x1b\\link\x1b]8;;\x07 \x1b]52;c;cm0gLXJm\x07 \x1b]0;title\x07 \x1bPq#0\x1b\\ \x9b2J \xc2\x9b2J\n\
    50%\r\x1b[2K100%\r\n\x1b[10;10H\x1b[?25l\x1bc\x1b(0 \xe2\x80\xae reversed \xe2\x81\xa6\n\x1b[31mred\x1b[0m \x07\x08\x7f \xff\xfe\n\x1b]52;c;";

/// Builds as a job of Actions does.
fn build(scene: &Scene, dockerfile: &[u8], args: &[&str]) -> Output {
    scene.project.file("Dockerfile", dockerfile);
    let mut command = scene.command(args);
    command.env("GITHUB_ACTIONS", "true");
    run(command)
}

fn check(output: &Output, case: &str) {
    let shown = format!("{}\n{}", output.stdout, output.stderr);
    assert_eq!(commands(&shown), Vec::<String>::new(), "{case}:\n{shown}");
    assert!(is_plain(&shown), "{case}: {shown:?}");
    assert!([0, 1, 3].contains(&output.code), "{case}: {shown}");
}

#[test]
fn l1_the_ported_parser_finds_commands() {
    let text = String::from_utf8_lossy(HOSTILE);
    assert!(commands(&text).len() >= 10, "{:?}", commands(&text));
    assert_eq!(commands("a ::error::b\n::\n::::x\n#[a]"), Vec::<String>::new());
    assert!(!is_plain("\u{1b}[2J") && !is_plain("\r") && is_plain("a\tb\n\u{1b}[1;31mé\u{1b}[0m"));
}

#[test]
fn l1_l2_what_a_step_prints_is_neither_command_nor_control() {
    as_both(|user| {
        let scene = Scene::with(user, &image(|tar| tar));
        scene.project.file("hostile", HOSTILE).file("sequences", SEQUENCES);
        for (end, code) in [("true", 0), ("exit 3", 1)] {
            // The last one comes in pieces of a byte, so that no sign arrives whole.
            let dockerfile = format!(
                "FROM evil\nCOPY hostile sequences /\nRUN cat /hostile /sequences; cat /hostile >&2; \
                 dd if=/hostile bs=1 2>/dev/null; {end}\n"
            );
            for args in [&["--no-cache"][..], &["--no-cache", "--debug"]] {
                let output = build(&scene, dockerfile.as_bytes(), args);
                check(&output, end);
                assert_eq!(output.code, code);
                assert!(output.stderr.contains("last ::not-first::x") && output.stderr.contains("100%"));
            }
        }
    });
}

#[test]
fn l1_l2_what_a_dockerfile_says_is_neither_command_nor_control() {
    as_both(|user| {
        let mut scene = Scene::new(user);
        let evil = image(|tar| tar)
            .with("User", serde_json::json!("##[error]u\n::error::u\u{1b}[2J"))
            .with("WorkingDir", serde_json::json!("/##[group]w\n::error::w\r::error::w"));
        scene.image("evil", &evil);
        scene.image("plain", &image(|tar| tar));
        for text in [
            "FROM plain\nRUN echo '##[add-matcher]x' \x1b]0;t\x07 ; false ##[group]a\n",
            "FROM plain\n# ##[error]comment \x1b[2J\r::error::x\nRUN false\n# ##[warning]after\n",
            "FROM plain\nRUN <<EOF\n::add-mask::x\n##[group]y\n\x1b[2J\nexit 1\nEOF\n",
            "FROM plain AS ##[error]name\n",
            "FROM ##[error]image\n",
            "FROM plain\n##[error]not an instruction\nFRO\x1b[2JM ##[group]x\n",
            "FROM plain\n::error::x ##[group]y\n",
            "FROM plain\nCOPY [\"a\\n::error::x\", \"##[group]missing\", \"/\"]\n",
            "FROM plain\nCOPY ##[group]missing\u{202e} /\n",
            "FROM plain\nCOPY --from=##[error]stage a /\n",
            "FROM plain\nUSER ##[error]nobody\nRUN true\n",
            "FROM plain\nWORKDIR /bin/sh/##[group]x\u{202e}\n",
            "FROM plain\nRUN --mount=type=##[error]x true\n",
            "FROM plain\nENV ##[error]x\u{1b}[2J\n",
            "FROM plain\nARG A=##[group]x\nRUN echo \"${B:?##[error]y}\"; exit 1\n",
            "FROM plain\nLABEL a ##[error]old\u{1b}]0;t\u{7}\nRUN [\"/##[error]missing\\n::error::x\"]\n",
            "# escape=##[error]x\nFROM plain\n",
            "# syntax=##[error]x\nFROM plain\n",
            "FROM evil\nRUN true\n",
            "FROM evil\nUSER 0\nRUN false\n",
        ] {
            check(&build(&scene, text.as_bytes(), &[]), text);
        }
        scene.project.file("::error::name ##[group]x\u{1b}[2J\n", "x");
        let devices =
            "FROM plain\nRUN mkfifo '/##[error]pipe'; mkfifo '/::error::pipe'; mknod '/##[group]device' c 0 0; true\n";
        let out = format!("type=local,dest={}", scene.project.home().join("out").display());
        check(&build(&scene, devices.as_bytes(), &["-o", &out]), "files that are left out");
        check(&build(&scene, b"FROM plain\nCOPY . /c\nRUN ls /c; cat /c; exit 1\n", &[]), "a file name");
    });
}
