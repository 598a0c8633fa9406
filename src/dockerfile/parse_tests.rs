//! Tests of whole files.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::*;
use crate::dockerfile::check::CheckOptions;
use crate::dockerfile::instruction::{CommandLine, KeyValue};
use proptest::prelude::*;

fn file(text: &str) -> Dockerfile {
    parse("Dockerfile", text.as_bytes(), &mut Linter::default()).expect(text)
}

fn first(text: &str) -> InstructionKind {
    file(&format!("FROM scratch\n{text}")).stages.remove(0).instructions.remove(0).kind
}

fn errors(text: &str) -> Vec<(u32, String)> {
    match parse("Dockerfile", text.as_bytes(), &mut Linter::default()) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.into_iter().map(|error| (error.line(), error.message)).collect(),
    }
}

fn warnings(text: &str) -> Vec<(u32, &'static str)> {
    let mut lint = Linter::new(CheckOptions::of_build(text.as_bytes(), None).expect("valid"));
    let _ = parse("Dockerfile", text.as_bytes(), &mut lint);
    lint.warnings.iter().map(|warning| (warning.lines[0].start, warning.rule.name())).collect()
}

#[test]
fn builds_stages() {
    let parsed = file("# escape=`\nARG a=1 b\nFROM --platform=$p x AS `\n # c\n\n Base\nRUN echo `\n  hi\nfrom Base\n");
    assert_eq!((parsed.escape, parsed.meta_args.len(), parsed.stages.len()), ('`', 1, 2));
    let stage = &parsed.stages[0];
    assert_eq!((stage.name.as_str(), stage.original_name.as_str(), stage.base.as_str()), ("base", "Base", "x"));
    assert_eq!(stage.platform.as_deref(), Some("$p"));
    let lines: Vec<u32> = stage.source.lines.iter().map(|range| range.start).collect();
    assert_eq!(lines, [3, 4, 5, 6]);
}

#[test]
fn reads_instructions() {
    assert!(matches!(first("RUN echo"), InstructionKind::Run(run) if run.command.shell));
    let InstructionKind::Run(run) = first("RUN --mount=type=tmpfs,target=/x --network=none [\"a\", \"b\"]") else {
        panic!("not a RUN")
    };
    assert_eq!(run.command, CommandLine { args: vec!["a".into(), "b".into()], shell: false });
    assert_eq!((run.mounts.as_slice(), run.network.as_str()), (["type=tmpfs,target=/x".to_owned()].as_slice(), "none"));
    assert!(matches!(first("CMD"), InstructionKind::Cmd(command) if command.shell && command.args.is_empty()));
    assert!(matches!(first("ENTRYPOINT []"), InstructionKind::Entrypoint(command) if !command.shell));
    assert!(matches!(first("EXPOSE 80 22 443"), InstructionKind::Expose(ports) if ports == ["22", "443", "80"]));
    assert!(matches!(first("VOLUME [\" /a \"]"), InstructionKind::Volume(volumes) if volumes == ["/a"]));
    assert!(matches!(first("WORKDIR /a b"), InstructionKind::Workdir(path) if path == "/a b"));
    assert!(matches!(first("STOPSIGNAL --x 9"), InstructionKind::StopSignal(signal) if signal == "9"));
    let InstructionKind::Env(pairs) = first("ENV a  b c") else { panic!("not an ENV") };
    assert_eq!(pairs, [KeyValue { key: "a".into(), value: "b c".into(), legacy: true }]);
    let check = "HEALTHCHECK --interval=1m30s --retries=3 CMD [\"a\"]";
    let InstructionKind::Healthcheck(check) = first(check) else { panic!("not a HEALTHCHECK") };
    assert_eq!((check.test, check.interval, check.retries), (vec!["CMD".into(), "a".into()], 90_000_000_000, 3));
    assert!(matches!(first("HEALTHCHECK none"), InstructionKind::Healthcheck(check) if check.test == ["NONE"]));
}

#[test]
fn reads_heredocs() {
    let parsed = file("FROM x\nCOPY --link <<-A <<'B' p /d\n\ta\n\tA\n$b\nB\nRUN <<E cat\n# x \\\nE\nUSER u");
    let [copy, run, user] = parsed.stages[0].instructions.as_slice() else { panic!("not three") };
    let InstructionKind::Copy(files) = &copy.kind else { panic!("not a COPY") };
    assert_eq!((files.files.paths.as_slice(), files.files.dest.as_str()), (["p".to_owned()].as_slice(), "/d"));
    let bodies: Vec<_> = files.files.inline.iter().map(|h| (h.name.as_str(), h.body.as_str(), h.expand)).collect();
    assert_eq!(bodies, [("A", "a\n", true), ("B", "$b\n", false)]);
    assert_eq!(copy.source.heredocs[0].body, "\ta\n");
    assert_eq!((run.source.heredocs[0].body.as_str(), run.source.lines.len()), ("# x \\\n", 3));
    assert_eq!((user.source.lines[0].start, copy.source.text.as_str()), (10, "COPY --link <<-A <<'B' p /d"));
    let exec = file("FROM x\nRUN [\"<<EOF\"]\nUSER u");
    assert_eq!(exec.stages[0].instructions.len(), 2);
}

#[test]
fn onbuild_is_read_again_as_a_file() {
    let parsed = file("FROM x\nOnBuild  COPY <<A /a\nb\nA\n");
    let InstructionKind::Onbuild(trigger) = &parsed.stages[0].instructions[0].kind else { panic!("not an ONBUILD") };
    assert_eq!(trigger, "COPY <<A /a\nb\nA");
    let from = &parsed.stages[0].source;
    let again = parse_onbuild(trigger, from, &mut Linter::default()).expect("valid");
    assert_eq!(again.source.lines, from.lines);
    assert!(matches!(again.kind, InstructionKind::Copy(copy) if copy.files.inline[0].body == "b\n"));
    let cases = [
        ("RUN a\nRUN b", "onbuild trigger should be a single expression"),
        ("", "onbuild trigger should be a single expression"),
        ("FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("RUM x", "unknown instruction: RUM (did you mean RUN?)"),
    ];
    for (trigger, want) in cases {
        assert_eq!(parse_onbuild(trigger, from, &mut Linter::default()).expect_err(trigger).message, want);
    }
}

#[test]
fn says_what_is_wrong() {
    let cases = [
        ("FROM", "FROM requires either one or three arguments"),
        ("FROM a of b", "FROM requires either one or three arguments"),
        ("FROM a AS 1x", "invalid name for build stage: \"1x\", name can't start with a number or contain symbols"),
        ("FNTRYPOINT x", "unknown instruction: FNTRYPOINT (did you mean ENTRYPOINT?)"),
        ("COPY --from=a --from=b x y", "duplicate flag specified: --from"),
        ("COPY --link=maybe a b", "expecting boolean value for flag --link, not: maybe"),
        ("COPY --chown a b", "missing a value on flag: --chown"),
        ("COPY /a <<E\nE", "COPY cannot accept a heredoc as a destination"),
        ("ADD --parents a b", "unknown flag: --parents"),
        ("RUN --mont=x y", "unknown flag: --mont (did you mean mount?)"),
        ("RUN --network=foo x", "invalid network mode \"foo\""),
        ("RUN --security=foo x", "security \"foo\" is not valid"),
        ("SHELL /bin/bash", "SHELL requires the arguments to be in JSON form"),
        ("SHELL []", "SHELL requires at least one argument"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV =b", "ENV names can not be blank"),
        ("ARG", "ARG requires at least one argument"),
        ("ARG =x", "ARG names can not be blank"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ("ONBUILD", "ONBUILD requires at least one argument"),
        ("LABEL", "LABEL requires at least one argument"),
        ("VOLUME [\"\"]", "VOLUME specified can not be an empty string"),
        ("HEALTHCHECK FOO", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK --interval=1us CMD x", "Interval \"interval\" cannot be less than 1ms"),
        ("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"),
        ("HEALTHCHECK --timeout=5 CMD x", "time: missing unit in duration \"5\""),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("USER --x y", "unknown flag: --x"),
    ];
    for (text, want) in cases {
        let want = format!("dockerfile parse error on line 2: {want}");
        assert_eq!(errors(&format!("FROM scratch\n{text}")), [(2, want)], "{text}");
    }
}

#[test]
fn mistakes_in_the_shape_of_a_line_do_not_name_it() {
    let cases = [
        ("", 0, "the Dockerfile cannot be empty"),
        ("\n# a\n", 2, "file with no instructions"),
        ("ARG foo=bar", 0, "dockerfile contains no stages to build"),
        ("RUN x\nRUN y\nFROM z", 1, "no build stage in current context"),
        ("# escape=x\nFROM a", 1, "invalid escape token 'x' does not match ` or \\"),
        ("# escape=`\n# escape=`\nFROM a", 2, "only one escape parser directive can be used"),
        ("FROM a\nCMD [\"a\", 1]", 2, "when using JSON array syntax, arrays must be comprised of strings only"),
        ("FROM a\nENV a", 2, "ENV must have two arguments"),
        ("FROM a\nLABEL a", 2, "LABEL must have two arguments"),
        ("FROM a\nONBUILD ENV a", 2, "ENV must have two arguments"),
        ("FROM a\nRUN <<EOF\nx", 2, "unterminated heredoc"),
    ];
    for (text, line, want) in cases {
        assert_eq!(errors(text), [(line, want.to_owned())], "{text}");
    }
}

#[test]
fn every_mistake_is_reported_first_what_has_no_shape() {
    let text = "RUN x\nFROM a b\nENV a\nCOPY a\nFROM x\nBAD\nRUN ok\nUSER";
    let lines: Vec<u32> = errors(text).iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [3, 1, 2, 4, 6, 8]);
}

#[test]
fn warnings_end_where_the_build_would() {
    let warnings = |text: &str| {
        let mut lint = Linter::default();
        let _ = parse("Dockerfile", text.as_bytes(), &mut lint);
        lint.warnings.iter().map(|warning| warning.rule.name()).collect::<Vec<_>>()
    };
    assert_eq!(warnings("FROM a\nMAINTAINER b\nRUN a \\\n\nb"), ["NoEmptyContinuation", "MaintainerDeprecated"]);
    assert_eq!(warnings("FROM a AS B\nUSER\nMAINTAINER b\nRUN a \\\n\nb"), ["NoEmptyContinuation", "StageNameCasing"]);
    assert!(warnings("FROM a AS B\nENV x\nRUN a \\\n\nb").is_empty());
}

#[test]
fn a_mistake_shows_where_and_what_to_do() {
    let errors = parse("Dockerfile", b"FROM x\nRUN echo $(( 1 << 2 ))\n", &mut Linter::default()).expect_err("heredoc");
    assert_eq!(errors[0].mark.as_deref(), Some("<<2"));
    assert!(errors[0].hint.as_deref().is_some_and(|hint| hint.contains("$((a<<2)) without blanks")));
    let errors = parse("Dockerfile", b"FROM x\nCOPY --form=y a b\n", &mut Linter::default()).expect_err("flag");
    assert_eq!(errors[0].mark.as_deref(), Some("--form=y"));
}

#[test]
fn repeated_heredocs_do_not_multiply() {
    let text = format!("FROM x\nCOPY{} /d\n{}{}E\n", " <<E".repeat(100), "E\n".repeat(99), "x\n".repeat(1 << 17));
    let want = "dockerfile parse error on line 2: the heredocs of one COPY hold more than 16777216 bytes";
    assert_eq!(errors(&text), [(2, want.to_owned())]);
}

#[test]
fn limits_are_errors() {
    let long = format!("FROM x\nRUN {}\nRUN y\n", "a".repeat(70_000));
    assert_eq!(errors(&long), [(2, "dockerfile line greater than max allowed size of 65535".to_owned())]);
    let body = format!("FROM x\nRUN <<E\n{}\nE\n", "a".repeat(70_000));
    assert_eq!(errors(&body), [(3, "dockerfile line greater than max allowed size of 65535".to_owned())]);
    assert_eq!(errors(&"BAD\n".repeat(2000)).len(), MAX_ERRORS);
    let big = "#\n".repeat(MAX_FILE / 2 + 1);
    assert_eq!(errors(&big), [(0, "the Dockerfile is larger than 16 MiB".to_owned())]);
}

#[test]
fn utf_16_is_told_as_what_it_is() {
    for text in [&b"\xff\xfeF\0R\0O\0M\0"[..], b"\xfe\xff\0F\0R\0O\0M"] {
        let found = parse("Dockerfile", text, &mut Linter::default()).expect_err("UTF-16");
        assert_eq!(found.len(), 1);
        assert!(found[0].message.contains("UTF-16"), "{}", found[0].message);
        assert!(found[0].hint.as_deref().is_some_and(|hint| hint.contains("iconv")));
    }
}

#[test]
fn lints_the_text() {
    let cases: [(&str, &[(u32, &str)]); 10] = [
        ("FROM a as Build", &[(1, "StageNameCasing"), (1, "FromAsCasing")]),
        ("from a AS b\nFrom a as c", &[(1, "FromAsCasing"), (2, "ConsistentInstructionCasing")]),
        (
            "FROM a AS scratch\nFROM a AS x\nFROM a AS X",
            &[(3, "StageNameCasing"), (1, "ReservedStageName"), (3, "DuplicateStageName")],
        ),
        ("FROM a\nMAINTAINER b", &[(2, "MaintainerDeprecated")]),
        ("FROM a\n# check=skip=MaintainerDeprecated\nMAINTAINER b", &[]),
        ("# check=skip=all\nFROM a as Build", &[]),
        ("FROM a\nRUN b \\\n\n c\n", &[(4, "NoEmptyContinuation")]),
        (
            "# check=experimental=all\n# x y\nFROM a AS b\n# c d\nARG c\n# z\nARG y x",
            &[(3, "InvalidDefinitionDescription"), (7, "InvalidDefinitionDescription")],
        ),
        ("arg a\nFROM b\nRUN c", &[]),
        ("from b\nRUN c", &[(1, "ConsistentInstructionCasing")]),
    ];
    for (text, want) in cases {
        assert_eq!(warnings(text), want, "{text}");
    }
}

/// Prints what a case under testdata says: instructions, warnings, or mistakes.
fn dump(text: &[u8]) -> String {
    let mut lint = Linter::new(CheckOptions::of_build(text, None).expect("valid"));
    let mut out = String::new();
    match parse("Dockerfile", text, &mut lint) {
        Err(errors) => {
            for ParseError { message, ranges, mark, hint, .. } in errors {
                let lines: Vec<u32> = ranges.iter().map(|range| range.start).collect();
                let _ = writeln!(out, "error {lines:?} {message}\n  mark {mark:?}\n  hint {hint:?}");
            }
        }
        Ok(file) => {
            file.meta_args.iter().for_each(|arg| dump_one(&mut out, &arg.source, &format!("{:?}", arg.kind)));
            for stage in file.stages {
                let head = format!("FROM {:?} AS {:?} ON {:?}", stage.base, stage.name, stage.platform);
                dump_one(&mut out, &stage.source, &head);
                stage.instructions.iter().for_each(|i| dump_one(&mut out, &i.source, &format!("{:?}", i.kind)));
            }
        }
    }
    lint.warnings.iter().for_each(|warning| out.push_str(&format!("warning {}\n", warning.summary())));
    out
}

fn dump_one(out: &mut String, source: &SourceLine, what: &str) {
    let lines: Vec<u32> = source.lines.iter().map(|range| range.start).collect();
    let _ = writeln!(out, "{lines:?} {what}");
    source.comments.iter().for_each(|comment| out.push_str(&format!("  comment {comment:?}\n")));
    source.heredocs.iter().for_each(|heredoc| out.push_str(&format!("  {heredoc:?}\n")));
}

/// Each folder of `testdata/dockerfile` holds a Dockerfile and, in `expect.txt`, what [`dump`] makes of it.
#[test]
fn testdata() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/dockerfile");
    let mut count = 0;
    for case in fs::read_dir(root).expect("testdata") {
        let case = case.expect("readable").path();
        let text = fs::read(case.join("Dockerfile")).expect("a Dockerfile");
        let expect = fs::read_to_string(case.join("expect.txt")).expect("an expectation");
        assert_eq!(dump(&text), expect, "{}", case.display());
        count += 1;
    }
    assert!(count > 0);
}

proptest! {
    #[test]
    fn never_panics_and_stays_in_the_file(text in prop::collection::vec(any::<u8>(), 0..300)) {
        check_places(&text)?;
    }

    #[test]
    fn never_panics_on_its_own_alphabet(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "FROM", "RUN", "COPY", "ENV", "ONBUILD", "HEALTHCHECK", "CMD", "ARG", "AS", " ", " ", "\n", "\\\n", "#",
                "<<E", "<<-'E'", "\nE\n", "[\"a\"]", "[1]", "--link", "--mount=from=$", "a=b", "'", "\"", "\r\n", "\t", "é",
                "# escape=`\n", "`\n", "$x", "${",
            ]),
            0..40,
        ),
    ) {
        check_places(words.concat().as_bytes())?;
    }
}

fn check_places(text: &[u8]) -> Result<(), TestCaseError> {
    let last = text.split_inclusive(|byte| *byte == b'\n').count() as u32;
    match parse("Dockerfile", text, &mut Linter::default()) {
        Err(errors) => {
            prop_assert!(!errors.is_empty());
            prop_assert!(errors.windows(2).filter(|two| two[0].line() > two[1].line()).count() <= 1);
            prop_assert!(errors.iter().flat_map(|error| &error.ranges).all(|range| range.end <= last));
        }
        Ok(parsed) => {
            let mut before = 0;
            let meta = parsed.meta_args.iter().map(|arg| &arg.source);
            let rest = parsed.stages.iter().flat_map(|stage| {
                std::iter::once(&stage.source).chain(stage.instructions.iter().map(|instruction| &instruction.source))
            });
            for range in meta.chain(rest).flat_map(|source| &source.lines) {
                prop_assert!(range.start > before && range.start == range.end && range.end <= last);
                before = range.end;
            }
        }
    }
    Ok(())
}
