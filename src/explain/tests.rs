use proptest::prelude::*;

use super::files::{File, List, Writer};
use super::pair::{Name, pair};
use super::*;
use crate::digest::Digest;

fn step(name: &str, ingredients: &[(Kind, &str, &str)], inputs: &[(usize, Option<&str>)]) -> Step {
    let ingredients = ingredients.iter().map(|(kind, name, value)| Ingredient::new(*kind, *name, *value)).collect();
    let input = |(step, content): &(usize, Option<&str>)| StepInput {
        step: *step,
        output: 0,
        content: content.map(Digest::compute),
        files: content.map(str::to_owned),
    };
    Step {
        name: name.into(),
        platform: String::new(),
        outcome: StepOutcome::Ran,
        ignore_cache: false,
        source: false,
        cache: None,
        ingredients,
        inputs: inputs.iter().map(input).collect(),
    }
}

fn build(id: &str, steps: Vec<Step>) -> BuildRecord {
    let mut record = BuildRecord::new(id.into());
    (record.steps, record.caches) = (steps, vec!["the state directory".into()]);
    record
}

fn none(_: &str) -> Option<Vec<u8>> {
    None
}

/// The base project: a source, a step on it, and one on that.
fn project() -> Vec<Step> {
    vec![
        step("[1/3] RUN a", &[(Kind::Command, "", "a")], &[]),
        step("[2/3] RUN b", &[(Kind::Command, "", "b"), (Kind::Arg, "VERSION", "1")], &[(0, None)]),
        step("[3/3] RUN c", &[(Kind::Command, "", "c")], &[(1, None)]),
    ]
}

fn reasons(now: Vec<Step>, before: Vec<Step>) -> Vec<(Reason, String)> {
    let report = compare(&build("n", now), Some(&build("b", before)), &none);
    report.steps.into_iter().map(|step| (step.reason, step.text)).collect()
}

#[test]
fn an_argument_that_differs_is_named_and_what_follows_names_the_step() {
    let mut now = project();
    now[1].ingredients[1].value = "2".into();
    let told = reasons(now, project());
    assert_eq!(told[0].0, Reason::Unknown);
    assert_eq!(told[1], (Reason::Changed, "ARG VERSION \"1\" -> \"2\"".into()));
    let earlier = "an earlier step changed: [2/3] RUN b (ARG VERSION \"1\" -> \"2\")";
    assert_eq!(told[2], (Reason::EarlierStep, earlier.into()));
}

#[test]
fn secrets_are_not_kept_and_that_they_changed_is_told() {
    let with = |password: &str| {
        let command = format!("curl https://u:{password}@h/x");
        vec![step("[1/1] RUN curl", &[(Kind::Command, "", &command), (Kind::Env, "URL", &command)], &[])]
    };
    let json = serde_json::to_string(&build("n", with("hunter2"))).expect("json");
    assert!(json.contains("https://***@h/x") && !json.contains("hunter2"), "{json}");
    let told = reasons(with("hunter3"), with("hunter2"));
    assert_eq!(told[0], (Reason::Changed, "command changed (and 1 more)".into()));
    assert_eq!(reasons(with("hunter2"), with("hunter2"))[0].0, Reason::Unknown);
    let hide = |value: &str| Ingredient::new(Kind::Arg, "X", value).hide();
    assert_ne!(hide("https://u:hunter2@h"), hide("https://u:hunter3@h"));
}

#[test]
fn a_command_is_named_as_it_is_written() {
    let mut now = project();
    now[2] = step("[3/3] RUN c -j2", &[(Kind::Command, "", "c -j2")], &[(1, None)]);
    assert_eq!(reasons(now, project())[2], (Reason::Changed, "command RUN c -> RUN c -j2".into()));
}

#[test]
fn steps_that_are_new_or_gone_are_said() {
    let mut more = project();
    more.insert(1, step("[2/4] COPY x /", &[(Kind::Command, "1 dest", "/")], &[(0, None)]));
    (more[2].inputs[0].step, more[3].inputs[0].step) = (1, 2);
    let told = reasons(more.clone(), project());
    assert_eq!(told[1].0, Reason::New);
    assert_eq!(told[2], (Reason::EarlierStep, "an earlier step is new: [2/4] COPY x /".into()));
    assert_eq!(told[3].0, Reason::EarlierStep);
    let told = reasons(project(), more);
    assert_eq!(
        told[1],
        (Reason::EarlierStep, "it is built on another step than before, which was [2/4] COPY x /".into())
    );
}

#[test]
fn what_was_told_to_ignore_the_cache_or_failed_before_says_so() {
    let mut now = project();
    now[1].ignore_cache = true;
    let told = reasons(now, project());
    assert_eq!((told[1].0, told[2].0), (Reason::NoCache, Reason::EarlierStep));
    let mut before = project();
    (before[1].outcome, before[2].outcome) = (StepOutcome::Failed, StepOutcome::NotReached);
    let told = reasons(project(), before);
    assert_eq!((told[1].0, told[2].0), (Reason::FailedBefore, Reason::NotReachedBefore));
    let first = compare(&build("n", project()), None, &none);
    assert!(first.steps.iter().all(|step| step.reason == Reason::First));
}

#[test]
fn content_that_is_the_same_hides_what_changed_below() {
    let with = |content: &'static str, command: &'static str| {
        vec![
            step("[a 1/1] RUN make", &[(Kind::Command, "", command)], &[]),
            step("[2/2] COPY --from=a /f /", &[(Kind::Command, "1 dest", "/")], &[(0, Some(content))]),
        ]
    };
    assert_eq!(reasons(with("x", "make"), with("x", "make -k"))[1].0, Reason::Unknown);
    // A list that is not there is no reason to be silent.
    let told = reasons(with("y", "make"), with("x", "make"));
    assert_eq!(told[1], (Reason::Changed, "what it reads of [a 1/1] RUN make changed".into()));
}

fn list(files: &[(&str, char, u32, &str)]) -> Vec<u8> {
    let mut writer = Writer::default();
    for (path, kind, mode, content) in files {
        let digest = Digest::compute(format!("{mode} {content}"));
        let size = content.len() as u64;
        writer.add(path.as_bytes(), File { kind: *kind, mode: *mode, uid: 0, gid: 0, size, digest: digest.hex() });
    }
    writer.finish()
}

#[test]
fn files_are_named_with_what_changed() {
    let before = list(&[("a", 'f', 0o644, "1"), ("d", 'd', 0o755, ""), ("run.sh", 'f', 0o644, "x")]);
    for (now, said) in [
        (vec![("a", 'f', 0o644, "2"), ("d", 'd', 0o755, ""), ("run.sh", 'f', 0o644, "x")], "a changed"),
        (
            vec![("a", 'f', 0o644, "1"), ("d", 'd', 0o755, ""), ("run.sh", 'f', 0o755, "x")],
            "mode of run.sh 0644 -> 0755",
        ),
        (vec![("a", 'f', 0o644, "1"), ("d", 'd', 0o755, "")], "run.sh removed"),
        (
            vec![("a", 'f', 0o644, "1"), ("d", 'l', 0o777, ""), ("run.sh", 'f', 0o644, "x")],
            "d is a link, was a directory",
        ),
        (vec![("a", 'f', 0o644, "1"), ("d", 'd', 0o755, ""), ("go.sh", 'f', 0o644, "x")], "run.sh renamed to go.sh"),
        (
            vec![("a", 'f', 0o644, "1"), ("d", 'd', 0o755, ""), ("n\n", 'f', 0o644, "y"), ("run.sh", 'f', 0o644, "x")],
            "n\\x0a added",
        ),
    ] {
        let now = list(&now);
        let found = List::read(&now).unwrap().differences(&List::read(&before).unwrap());
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), [said]);
    }
}

#[test]
fn names_are_taken_apart_and_paired_in_order() {
    for (name, stage, command) in [
        ("[2/5] COPY . .", "", "COPY . ."),
        ("[build  2/15] RUN a", "build", "RUN a"),
        ("[linux/arm64 b 2/5] RUN a", "linux/arm64 b", "RUN a"),
        ("[internal] load build context", "internal", "load build context"),
        ("docker-image://a", "", "docker-image://a"),
    ] {
        assert_eq!(Name::of(name), Name { stage, command });
    }
    let before = ["[1/3] FROM a", "[2/3] RUN make", "[3/3] RUN make install"];
    let now = ["[1/4] FROM a", "[2/4] RUN configure", "[3/4] RUN make -j2", "[4/4] RUN make install"];
    assert_eq!(pair(&before, &now), [Some(0), None, Some(1), Some(2)]);
    assert_eq!(pair(&["[a 1/1] RUN x"], &["[b 1/1] RUN x"]), [Some(0)]);
}

#[test]
fn records_are_read_back_and_broken_ones_refused() {
    let record = build("id", project());
    assert_eq!(BuildRecord::read(&record.write().unwrap()).unwrap(), record);
    let mut forward = record.clone();
    forward.steps[0].inputs.push(StepInput { step: 2, ..StepInput::default() });
    assert!(matches!(BuildRecord::read(&forward.write().unwrap()), Err(RecordError::Order { step: 0 })));
    assert!(BuildRecord::read(b"{}").is_err());
    assert_eq!(List::read(b"rbuild files 1\nf 644"), None);
}

proptest! {
    #[test]
    fn any_single_change_is_named(
        values in proptest::collection::vec("[a-z]{1,8}", 3..12), at in 0usize..100, other in "[A-Z]{1,8}",
    ) {
        let kinds = [Kind::Command, Kind::Arg, Kind::Env, Kind::Mount, Kind::Platform, Kind::Setting];
        let names: Vec<String> = (0..values.len()).map(|n| format!("n{n}")).collect();
        let all: Vec<(Kind, &str, &str)> = values.iter().enumerate()
            .map(|(n, value)| (kinds[n % kinds.len()], names[n].as_str(), value.as_str())).collect();
        let at = at % all.len();
        let mut changed = all.clone();
        changed[at].2 = &other;
        let report = compare(
            &build("n", vec![step("RUN x", &changed, &[])]), Some(&build("b", vec![step("RUN x", &all, &[])])), &none,
        );
        let [found] = &report.steps[0].differences[..] else { panic!("{report:?}") };
        prop_assert_eq!((found.kind, found.name.as_str()), (all[at].0, all[at].1));
        prop_assert_eq!((found.from.as_deref(), found.to.as_deref()), (Some(all[at].2), Some(other.as_str())));
    }
}
