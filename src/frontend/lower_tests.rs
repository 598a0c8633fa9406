//! Whole lowerings against a table of images.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::diag::Diagnose as _;
use crate::digest::Digest;
use crate::image::Reference;
use crate::llb::OpKind;

const CONFIG: &str = r#"{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"]},
    "rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}"#;

/// Knows every image but `missing`; waits a little for each, and counts who waits at once.
#[derive(Default)]
struct World {
    asked: AtomicUsize,
    waiting: AtomicUsize,
    most: AtomicUsize,
    patience: Duration,
    ignore: &'static str,
    on_build: Vec<&'static str>,
}

impl World {
    async fn image(&self, reference: &Reference) -> Result<ResolvedImage, BridgeError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let waiting = self.waiting.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(waiting, Ordering::SeqCst);
        tokio::time::sleep(self.patience).await;
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        if reference.repository.ends_with("missing") {
            return Err(BridgeError::remote(format!("{reference}: not found")));
        }
        let mut config: ImageConfig = serde_json::from_str(CONFIG).expect("config");
        if reference.repository.ends_with("triggers") {
            config.config.on_build = self.on_build.iter().map(|t| (*t).to_owned()).collect();
        }
        let config = serde_json::to_vec(&config).expect("config");
        Ok(ResolvedImage { digest: Digest::compute(reference.to_string()), config })
    }
}

impl Bridge for World {
    fn resolve_image<'a>(&'a self, name: &'a Reference, _: &'a Platform, _: ResolveMode) -> Answer<'a, ResolvedImage> {
        Box::pin(self.image(name))
    }

    fn resolve_oci_layout<'a>(&'a self, _: &'a str, name: &'a Reference, _: &'a Platform) -> Answer<'a, ResolvedImage> {
        Box::pin(self.image(name))
    }

    fn read_ignore<'a>(&'a self, _: &'a str, names: &'a [String]) -> Answer<'a, Option<(String, Vec<u8>)>> {
        let found = (!self.ignore.is_empty()).then(|| (names[0].clone(), self.ignore.as_bytes().to_vec()));
        Box::pin(async move { Ok(found) })
    }

    fn source_time<'a>(&'a self, source: &'a SourceOp) -> Answer<'a, Option<i64>> {
        Box::pin(async move { Ok(Some(source.identifier.len() as i64)) })
    }

    fn http_head<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<u8>> {
        Box::pin(async move { Ok(b"BZh".to_vec()) })
    }
}

fn run(world: &World, text: &str, options: &[(&str, &str)]) -> Result<Lowered, FrontendError> {
    let request = Request {
        dockerfile_name: "Dockerfile".into(),
        dockerfile: text.as_bytes().to_vec(),
        options: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>(),
        worker_platforms: vec![Platform::new("linux", "amd64")],
        session: "S".into(),
        channel: super::channel_asked(text.as_bytes(), None),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
    runtime.block_on(lower(&request, world))
}

fn sources(lowered: &Lowered) -> Vec<&SourceOp> {
    let kinds = lowered.results[0].definition.vertices.iter().filter_map(|v| v.op.kind.as_ref());
    kinds.filter_map(|kind| if let OpKind::Source(source) = kind { Some(source) } else { None }).collect()
}

#[test]
fn says_what_is_wrong_and_where() {
    for (text, line, message) in [
        ("FROM ${BLANK}", 1, "base name (${BLANK}) should not be blank"),
        (
            "FROM Foo",
            1,
            "failed to parse stage name \"Foo\": invalid reference format: repository name (library/Foo) must be lowercase",
        ),
        (
            "FROM --platform=$BULIDPLATFORM x",
            1,
            "empty platform value from expression $BULIDPLATFORM (did you mean BUILDPLATFORM?)",
        ),
        (
            "ARG MY_ARCH\nFROM --platform=linux/${MYARCH} x",
            2,
            "failed to parse platform linux/${MYARCH}: \"\" is an invalid component of \"linux/\": platform specifier \
             component must match \"^[A-Za-z0-9_.-]+$\": invalid argument",
        ),
        ("FROM a\nCOPY --from=9 . .", 2, "invalid stage index 9"),
        ("FROM a\nCOPY --from=0 . .", 2, "circular dependency detected on stage: stage-0"),
        (
            "FROM a AS one\nCOPY --from=two . .\nFROM b AS two\nFROM one\nCOPY --from=two . .",
            2,
            "cannot copy from stage \"two\", it needs to be defined before current stage \"one\"",
        ),
        ("FROM a\nCOPY http://h/x /", 2, "source can't be a URL for COPY"),
        ("FROM a\nCOPY git@h:x.git /", 2, "source can't be a git ref for COPY"),
        (
            "FROM a\nCOPY --chmod=64a a b",
            2,
            "invalid chmod parameter: '64a'. it should be octal string and between 0 and 07777",
        ),
        ("FROM a\nADD --checksum=x http://a http://b /", 2, "checksum can't be specified for multiple sources"),
        ("FROM a\nADD --checksum=foo http://a/b /", 2, "invalid checksum digest format"),
        ("FROM a\nADD https://h/x.git?bad=1 /", 2, "unexpected query \"bad\""),
        ("FROM a\nRUN --mount=target=/ x", 2, "invalid mount target \"/\""),
        ("FROM a\nRUN --mount=type=ssh,source=x y", 2, "ssh does not support source"),
        ("FROM a\nRUN []", 2, "failed to marshal LLB definition: arguments are required"),
        ("FROM a\nSTOPSIGNAL FOO", 2, "invalid signal: FOO"),
        ("FROM a\nARG V=\nVOLUME $V", 3, "VOLUME specified can not be an empty string"),
        ("ARG SOURCE_DATE_EPOCH=x\nFROM a", 0, "invalid SOURCE_DATE_EPOCH: x"),
        ("ARG SOURCE_DATE_EPOCH=e\nFROM a AS e\nFROM a", 2, "SOURCE_DATE_EPOCH stage must use FROM scratch"),
        (
            "FROM missing",
            1,
            "missing: failed to resolve source metadata for docker.io/library/missing:latest: \
             docker.io/library/missing:latest: not found",
        ),
    ] {
        let error = run(&World::default(), text, &[]).expect_err(text);
        let found = error.problems[0].ranges.first().map_or(0, |r| r.start);
        assert_eq!((error.to_string().as_str(), found), (message, line), "{text}");
        assert_eq!(error.locations().is_empty(), line == 0, "{text}");
    }
}

/// Lines and messages of all problems, in the order found.
fn told(text: &str, options: &[(&str, &str)]) -> Vec<(u32, String)> {
    let error = run(&World::default(), text, options).expect_err(text);
    error.problems.into_iter().map(|p| (p.ranges.first().map_or(0, |r| r.start), p.message)).collect()
}

#[test]
fn all_that_is_wrong_is_told_and_nothing_that_follows_from_it() {
    let signal = |name: &str| format!("invalid signal: {name}");
    let needed = |text: &str, name: &str| format!("failed to process \"{text}\": {name}: needed");
    let missing = |name: &str| {
        format!("{name}: failed to resolve source metadata for docker.io/{name}: docker.io/{name}: not found")
    };
    let copied =
        "failed to resolve source metadata for docker.io/x/missing:latest: docker.io/x/missing:latest: not found";
    let copied = format!("x/missing: {copied}");
    let cases: Vec<(&str, Vec<(u32, String)>)> = vec![
        // Instructions, in the order BuildKit would find them.
        (
            "FROM a\nSTOPSIGNAL A\nRUN []\nSTOPSIGNAL B\nRUN []",
            vec![
                (2, signal("A")),
                (4, signal("B")),
                (3, "failed to marshal LLB definition: arguments are required".into()),
                (5, "failed to marshal LLB definition: arguments are required".into()),
            ],
        ),
        // A variable that could not be set is not missed, until it is set again.
        (
            "FROM a\nENV A=1\nENV A=${B:?needed}\nENV C=x$A\nSTOPSIGNAL $C\nVOLUME $A\nENV A=\nVOLUME $A\nARG D=${A:?needed}",
            vec![
                (3, needed("${B:?needed}", "B")),
                (8, "VOLUME specified can not be an empty string".into()),
                (9, needed("${A:?needed}", "A")),
            ],
        ),
        // What a base that is not there would bring is not known; what the stage sets itself is.
        (
            "FROM x/missing:1 AS m\nSTOPSIGNAL $S\nUSER ${U:?needed}\nENV U=\nSTOPSIGNAL A\nUSER ${U:?needed}\nFROM m\nUSER ${W:?needed}\nVOLUME $U",
            vec![
                (1, missing("x/missing:1")),
                (5, signal("A")),
                (6, needed("${U:?needed}", "U")),
                (9, "VOLUME specified can not be an empty string".into()),
            ],
        ),
        // Stages whose FROM is wrong still have a name and a number.
        (
            "ARG A=${B:?needed}\nFROM $A AS a\nFROM $C AS c\nFROM a\nCOPY --from=c / /\nCOPY --from=1 / /\nCOPY --from=7 / /\nRUN --mount=from=x/missing,target=/x y",
            vec![
                (1, needed("${B:?needed}", "B")),
                (3, "base name ($C) should not be blank".into()),
                (7, "invalid stage index 7".into()),
                (8, copied.clone()),
            ],
        ),
        // A copy that has no source does not become one of the context.
        (
            "FROM a\nCOPY --from=8 --chmod=999999 a b\nSTOPSIGNAL A",
            vec![(2, "invalid stage index 8".into()), (3, signal("A"))],
        ),
    ];
    for (text, want) in cases {
        assert_eq!(told(text, &[]), want, "{text}");
        // What is wrong on all platforms is told once.
        assert_eq!(told(text, &[("platform", "linux/amd64,linux/arm64")]), want, "{text}");
    }
    let text = "FROM a\nSTOPSIGNAL A";
    let no_target = (0, "target stage \"b\" could not be found".to_owned());
    assert_eq!(told(text, &[("target", "b")]), [no_target]);
}

#[test]
fn warnings_are_those_found_before_the_first_mistake() {
    let error = run(&World::default(), "FROM a\nENV A=$U\nSTOPSIGNAL A\nENV B=$V", &[]).expect_err("signal");
    let messages: Vec<&str> = error.warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(messages, ["Usage of undefined variable '$U'"]);
}

#[test]
fn asks_for_each_image_once_and_for_all_at_once() {
    let world = World { patience: Duration::from_millis(5), ..World::default() };
    let copies: String = (0..50).map(|n| format!("COPY --from=i{} /a /b\n", n % 10)).collect();
    run(&world, &format!("FROM a AS x\nFROM a\n{copies}COPY --from=x / /x"), &[]).expect("lowers");
    assert_eq!((world.asked.into_inner(), world.most.into_inner()), (11, 11));
}

#[test]
fn stages_that_nobody_needs_ask_nothing() {
    let world = World::default();
    run(&world, "FROM missing AS x\nRUN y\nFROM a", &[]).expect("lowers");
    assert_eq!(world.asked.into_inner(), 1);
}

#[test]
fn triggers_may_bring_triggers() {
    let world = World { on_build: vec!["COPY --from=other /a /b", "RUN two"], ..World::default() };
    let lowered = run(&world, "FROM triggers\nRUN own", &[]).expect("lowers");
    let names: Vec<_> =
        lowered.results[0].definition.vertices.iter().map(|v| &v.metadata.description["llb.customname"]).collect();
    assert!(names.iter().any(|n| n.ends_with("3/4] ONBUILD RUN two")), "{names:?}");
    assert!(names.iter().any(|n| n.ends_with("4/4] RUN own")), "{names:?}");
    let error =
        run(&World { on_build: vec!["NOPE x"], ..World::default() }, "FROM triggers", &[]).expect_err("trigger");
    assert_eq!(error.problems[0].ranges.len(), 1);
}

#[test]
fn lowering_may_move_between_threads() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let (request, world) = (Request::default(), World::default());
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    let error = runtime.block_on(is_send(lower(&request, &world))).expect_err("nothing to lower");
    assert_eq!(error.to_string(), "the Dockerfile () cannot be empty");
}

#[test]
fn remote_contexts_are_named_before_the_dockerfile_is_known() {
    let of = |value: &str| {
        let options = [("context".to_owned(), value.to_owned())].into_iter().collect();
        remote_context(&options).map(|source| source.map(|s| s.identifier)).map_err(|e| e.to_string())
    };
    assert_eq!(of("github.com/a/b#v1:sub"), Ok(Some("git://github.com/a/b#v1:sub".into())));
    assert_eq!(of("https://h/x"), Ok(Some("https://h/x".into())));
    assert_eq!(of("."), Ok(None));
    assert_eq!(of("https://h/x.git?no=1"), Err("unexpected query \"no\"".into()));
}

#[test]
fn remote_archives_are_unpacked() {
    let lowered = run(&World::default(), "FROM a\nCOPY . /", &[("context", "https://h/c.tar")]).expect("lowers");
    let text = format!("{:?}", lowered.results[0].definition.vertices);
    assert!(
        text.contains("attempt_unpack: true") && sources(&lowered).iter().any(|s| s.identifier == "https://h/c.tar")
    );
}

#[test]
fn the_epoch_may_come_from_a_stage() {
    let text =
        "ARG SOURCE_DATE_EPOCH=e\nFROM scratch AS e\nADD https://h/x /\nFROM a\nARG SOURCE_DATE_EPOCH\nWORKDIR /w";
    let lowered = run(&World::default(), text, &[]).expect("lowers");
    assert_eq!(lowered.results[0].epoch, Some(11));
    let history = &lowered.results[0].config.history;
    assert_eq!(history[0].created_by, "ARG SOURCE_DATE_EPOCH=11");
    let lowered = run(&World::default(), text, &[("build-arg:SOURCE_DATE_EPOCH", "")]).expect("lowers");
    assert_eq!(lowered.results[0].epoch, None);
}

#[test]
fn resource_limits_are_said_beside_the_op() {
    let lowered = run(&World::default(), "FROM a\nRUN x", &[("memory", "5")]).expect("lowers");
    let run = lowered.results[0].definition.vertices.last().expect("op");
    assert_eq!(run.metadata.resources.as_ref().expect("limits").memory, 5);
}

#[test]
fn ignored_files_are_pointed_out_unless_patterns_take_back() {
    for (ignore, count) in [("secret\n", 1), ("secret\n!other\n", 0)] {
        let world = World { ignore, ..World::default() };
        let lowered = run(&world, "FROM a\nCOPY secret /x", &[]).expect("lowers");
        assert_eq!(lowered.warnings.len(), count, "{ignore}");
    }
    let world = World { ignore: "!\n", ..World::default() };
    assert_eq!(run(&world, "FROM a", &[]).expect_err("pattern").to_string(), "illegal exclusion pattern: \"!\"");
}

#[test]
fn large_files_lower_in_linear_time() {
    let text = |stages: usize, steps: usize| -> String {
        let body: String = (0..steps).map(|n| format!("RUN x{n}\nCOPY a{n} /b{n}\nENV E={n}\n")).collect();
        (0..stages)
            .map(|n| if n == 0 { "FROM a AS s0\n".into() } else { format!("FROM s{} AS s{n}\n", n - 1) } + &body)
            .collect()
    };
    let time = |text: &str| {
        let start = crate::sys::thread_time();
        run(&World::default(), text, &[]).expect("lowers");
        crate::sys::thread_time() - start
    };
    time(&text(3, 10));
    let small = time(&text(60, 3));
    let large = time(&text(300, 6));
    // Ten times the instructions; quadratic growth would be a hundredfold.
    assert!(large < small * 40 + Duration::from_millis(50), "{small:?} {large:?}");
}

mod any_input {
    use proptest::prelude::*;

    use super::*;

    const LINES: [&str; 20] = [
        "FROM a AS b",
        "FROM b",
        "FROM scratch",
        "FROM --platform=$X c",
        "ARG X=1 Y",
        "ENV X=$Y Z=\"${X:-q}\"",
        "COPY --from=b /x y/",
        "COPY --link --chown=u:g a* .",
        "ADD --checksum=sha256:x https://h/x /",
        "RUN <<E\n#!/x\nE",
        "RUN --mount=type=cache,target=$X,uid=1 --mount=type=ssh --mount=type=secret,id=i,env=E x",
        "WORKDIR $X/..",
        "USER $Y:",
        "EXPOSE $X-$Z 1-3/udp",
        "VOLUME /$X",
        "HEALTHCHECK --interval=1s CMD x",
        "ENTRYPOINT []",
        "CMD x",
        "ONBUILD COPY --from=b $X /",
        "COPY --parents --exclude=$X a/./b/** /w/",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn is_lowered_or_refused_the_same_way_twice(
            picks in proptest::collection::vec(0..LINES.len(), 0..12),
            value in "[a-z0-9./:$\\\\{}\"'<*-]{0,6}",
        ) {
            let text: String = std::iter::once("FROM a\n".to_owned()).chain(picks.iter().map(|p| format!("{}\n", LINES[*p]))).collect();
            let options = [("build-arg:X", value.as_str()), ("platform", "linux/amd64,linux/arm64")];
            let digests = || match run(&World::default(), &text, &options) {
                Ok(lowered) => lowered.results.iter().filter_map(|r| r.definition.last_op()).map(|(d, _)| d.to_string()).collect(),
                Err(error) => vec![error.to_string()],
            };
            prop_assert_eq!(digests(), digests());
        }
    }
}
