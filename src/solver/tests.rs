//! The scheduler on fake vertices: what runs, what hits, what is told.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::fake::{Memory, Setup, Vtx, setup, vtx};
use super::*;
use crate::digest::Digest;

fn chain3() -> Vec<Vtx> {
    vec![vtx("base"), vtx("build").input("base"), vtx("final").input("build")]
}

#[tokio::test]
async fn second_run_of_a_line_loads_only_its_end() {
    let store = Memory::named("local");
    let first = setup(&chain3(), &["final"]).store(&store).run().await;
    assert_eq!(first.ran(), ["base", "build", "final"]);
    let second = setup(&chain3(), &["final"]).store(&store).run().await;
    assert_eq!(second.ran(), [""; 0]);
    assert_eq!(second.results(), first.results());
    assert_eq!(store.loads.load(std::sync::atomic::Ordering::SeqCst), 1);
    assert_eq!(second.lines, ["base cached", "build cached", "final cached"]);
    assert_eq!(second.outcome("build"), Outcome::Covered);
    assert_eq!(second.outcome("final"), Outcome::Cached);
}

#[tokio::test]
async fn a_target_that_nobody_reads_is_loaded_as_a_handle() {
    use std::sync::atomic::Ordering::SeqCst;
    let store = Memory::named("remote");
    setup(&chain3(), &["final"]).store(&store).run().await;
    let second = setup(&chain3(), &["final"]).store(&store).handles().run().await;
    assert_eq!(second.ran(), [""; 0]);
    assert_eq!((store.loads.load(SeqCst), store.handles.load(SeqCst)), (1, 1));

    let more = [chain3(), vec![vtx("more").input("final")]].concat();
    let third = setup(&more, &["final", "more"]).store(&store).handles().run().await;
    assert_eq!(third.ran(), ["more"]);
    assert_eq!(
        (store.loads.load(SeqCst), store.handles.load(SeqCst)),
        (2, 1),
        "what a step reads comes with its bytes"
    );
}

#[tokio::test]
async fn without_a_store_everything_runs_once() {
    let run = setup(&chain3(), &["final"]).run().await;
    assert_eq!(run.ran(), ["base", "build", "final"]);
    let expected = ["base started", "base ran", "build started", "build ran", "final started", "final ran"];
    assert_eq!(run.lines, expected);
}

#[tokio::test(start_paused = true)]
async fn diamond_runs_each_vertex_once_and_sides_in_parallel() {
    let diamond = [
        vtx("base"),
        vtx("left").input("base").delay(200),
        vtx("right").input("base").delay(200),
        vtx("top").input("left").input("right"),
        vtx("unneeded").input("base"),
    ];
    let begin = Instant::now();
    let run = setup(&diamond, &["top"]).run().await;
    assert_eq!(begin.elapsed(), Duration::from_millis(200));
    assert_eq!(run.ran(), ["base", "left", "right", "top"]);
    assert!(run.solution.vertices.iter().all(|v| v.name != "unneeded"));
}

#[tokio::test(start_paused = true)]
async fn parallelism_bounds_runs() {
    let mut wide: Vec<Vtx> = (0..4).map(|i| vtx(&format!("w{i}")).delay(60)).collect();
    wide.push((0..4).fold(vtx("top"), |top, i| top.input(&format!("w{i}"))));
    let begin = Instant::now();
    setup(&wide, &["top"]).parallelism(1).run().await;
    assert_eq!(begin.elapsed(), Duration::from_millis(240));
}

#[tokio::test(start_paused = true)]
async fn unbounded_operations_do_not_wait_for_a_place() {
    let mut wide: Vec<Vtx> = (0..4).map(|i| vtx(&format!("w{i}")).delay(150).unbounded()).collect();
    wide.push((0..4).fold(vtx("top"), |top, i| top.input(&format!("w{i}"))));
    let begin = Instant::now();
    setup(&wide, &["top"]).parallelism(1).run().await;
    assert_eq!(begin.elapsed(), Duration::from_millis(150));
}

#[tokio::test]
async fn equal_vertices_are_merged() {
    let twice = [vtx("a"), vtx("a"), vtx("top").input("a").input("a")];
    let run = setup(&twice, &["top", "top"]).run().await;
    assert_eq!(run.ran(), ["a", "top"]);
    assert_eq!(run.results()[0], run.results()[1]);
}

#[tokio::test]
async fn vertices_with_equal_keys_run_once() {
    let store = Memory::named("local");
    let twins = [
        vtx("base"),
        vtx("one").key("same").input("base").delay(50),
        vtx("two").key("same").input("base").delay(50),
        vtx("top").input("one").input("two"),
    ];
    let run = setup(&twins, &["top"]).store(&store).run().await;
    let mut outcomes = [run.outcome("one"), run.outcome("two")];
    outcomes.sort_by_key(|outcome| *outcome == Outcome::Cached);
    assert_eq!(outcomes, [Outcome::Ran, Outcome::Cached]);
    assert_eq!(run.ran().len(), 3);
}

#[tokio::test]
async fn a_content_key_turns_a_miss_into_a_hit() {
    let store = Memory::named("local");
    let with = |context: &str, content: &str| {
        vec![vtx(context).random().value(content), vtx("copy").content(context), vtx("run").input("copy")]
    };
    let first = setup(&with("context 1", "files"), &["run"]).store(&store).run().await;
    assert_eq!(first.ran(), ["context 1", "copy", "run"]);
    let same = setup(&with("context 2", "files"), &["run"]).store(&store).run().await;
    assert_eq!(same.ran(), ["context 2"], "only the context is looked at");
    assert_eq!(same.contents("copy"), 1);
    assert_eq!(same.results(), first.results());
    let other = setup(&with("context 3", "other files"), &["run"]).store(&store).run().await;
    assert_eq!(other.ran(), ["context 3", "copy", "run"]);
}

#[tokio::test]
async fn content_is_not_looked_at_when_another_input_rules_a_match_out() {
    let store = Memory::named("local");
    let graph = [
        vtx("context").random(),
        vtx("base"),
        vtx("copy").input("base").content("context"),
        vtx("top").input("copy").delay(1),
    ];
    let run = setup(&graph, &["top"]).store(&store).run().await;
    assert_eq!(run.ran(), ["base", "context", "copy", "top"]);
    assert_eq!(run.contents("copy"), 1, "for the record's link only");
}

#[tokio::test]
async fn equal_output_cuts_off_what_depends_on_it() {
    let store = Memory::named("local");
    let with = |key: &str| {
        vec![vtx("build").key(key).value("same binary"), vtx("copy").content("build"), vtx("top").input("copy")]
    };
    setup(&with("v1"), &["top"]).store(&store).run().await;
    let second = setup(&with("v2"), &["top"]).store(&store).run().await;
    assert_eq!(second.ran(), ["build"]);
    let third = setup(&with("v2"), &["top"]).store(&store).run().await;
    assert_eq!(third.ran(), [""; 0], "linked by definition at the second run");
}

#[tokio::test]
async fn selectors_are_part_of_the_key() {
    let store = Memory::named("local");
    let with = |path: &str| {
        let key = InputKey { selector: Some(Digest::compute(path)), content: false };
        vec![vtx("base"), vtx("copy").input_key("base", 0, key)]
    };
    setup(&with("/a"), &["copy"]).store(&store).run().await;
    assert_eq!(setup(&with("/a"), &["copy"]).store(&store).run().await.ran(), [""; 0]);
    assert_eq!(setup(&with("/b"), &["copy"]).store(&store).run().await.ran(), ["copy"]);
}

#[tokio::test]
async fn either_key_of_a_source_hits() {
    let store = Memory::named("local");
    let with = |manifest: &str| vec![vtx("image").key(manifest).also_key("chain"), vtx("run").input("image")];
    setup(&with("manifest 1"), &["run"]).store(&store).run().await;
    assert_eq!(setup(&with("manifest 2"), &["run"]).store(&store).run().await.ran(), [""; 0]);
}

#[tokio::test]
async fn outputs_are_looked_up_one_by_one() {
    let store = Memory::named("local");
    let graph = [vtx("two").outputs(2)];
    setup(&graph, &["two"]).store(&store).run().await;
    let both = setup(&graph, &["two"]).target("two", 1).store(&store).run().await;
    assert_eq!(both.ran(), ["two"], "the second output was never saved");
    let again = setup(&graph, &["two"]).target("two", 1).store(&store).run().await;
    assert_eq!(again.ran(), [""; 0]);
    assert_eq!(again.results(), both.results());
}

#[tokio::test]
async fn ignored_cache_runs_again_and_is_trusted_by_content_only() {
    let store = Memory::named("local");
    let with = |ignore: bool, value: &str| {
        let build = vtx("build").value(value);
        let build = if ignore { build.ignore_cache() } else { build };
        vec![build, vtx("copy").content("build"), vtx("run").input("build"), vtx("top").input("copy").input("run")]
    };
    setup(&with(false, "v1"), &["top"]).store(&store).run().await;
    let same = setup(&with(true, "v1"), &["top"]).store(&store).run().await;
    assert_eq!(same.ran(), ["build", "run", "top"], "the copy of equal content hits");
    let changed = setup(&with(true, "v2"), &["top"]).store(&store).run().await;
    assert_eq!(changed.ran(), ["build", "copy", "run", "top"]);
    let cached = setup(&with(false, "unused"), &["top"]).store(&store).run().await;
    assert_eq!(cached.ran(), [""; 0], "results of an ignored cache are saved under the usual keys");
    assert_eq!(cached.results(), changed.results());
}

#[tokio::test]
async fn content_that_comes_back_is_the_newest_again() {
    let store = Memory::named("local");
    let with = |value: &str| [vtx("build").value(value).ignore_cache(), vtx("copy").content("build")];
    let first = setup(&with("v1"), &["copy"]).store(&store).run().await;
    setup(&with("v2"), &["copy"]).store(&store).run().await;
    let back = setup(&with("v1"), &["copy"]).store(&store).run().await;
    assert_eq!(back.ran(), ["build"]);
    let later = setup(&[vtx("build"), vtx("copy").content("build")], &["copy"]).store(&store).run().await;
    assert_eq!(later.ran(), [""; 0]);
    assert_eq!(later.results(), first.results());
}

#[tokio::test(start_paused = true)]
async fn failure_stops_the_rest_and_keeps_what_is_done() {
    let store = Memory::named("local");
    let graph = [
        vtx("done"),
        vtx("bad").input("done").fails().delay(30),
        vtx("slow").input("done").delay(60_000),
        vtx("top").input("bad").input("slow"),
    ];
    let begin = Instant::now();
    let run = setup(&graph, &["top"]).store(&store).run().await;
    assert_eq!(begin.elapsed(), Duration::from_millis(30));
    let error = run.solution.results.as_ref().expect_err("bad fails");
    assert_eq!(crate::diag::chain(error), "failed to solve step \"bad\": bad failed");
    assert!(run.lines.contains(&"bad failed: failed to solve step \"bad\": bad failed".to_owned()), "{:?}", run.lines);
    assert!(run.lines.contains(&"slow canceled".to_owned()), "{:?}", run.lines);
    assert_eq!((run.outcome("bad"), run.outcome("slow")), (Outcome::Failed, Outcome::Canceled));
    assert_eq!(run.outcome("top"), Outcome::NotReached);
    let again = setup(&[vtx("done"), vtx("next").input("done")], &["next"]).store(&store).run().await;
    assert_eq!(again.outcome("done"), Outcome::Cached);
}

#[tokio::test]
async fn what_cannot_run_fails_before_its_inputs_run() {
    let store = Memory::named("local");
    for last in [vtx("top").input("next").unable(), vtx("top").content("next").unable(), vtx("top").input("next")] {
        let graph = [vtx("base"), vtx("next").input("base").unable(), last];
        let run = setup(&graph, &["top"]).store(&store).run().await;
        assert_eq!(run.ran(), [""; 0]);
        let error = run.solution.results.as_ref().expect_err("it cannot run");
        assert!(crate::diag::chain(error).ends_with("cannot run here"), "{error}");
    }
}

#[tokio::test]
async fn what_cannot_run_is_taken_from_the_cache() {
    let store = Memory::named("local");
    let graph = |unable: bool| {
        let next = vtx("next").input("base");
        [vtx("base"), if unable { next.unable() } else { next }, vtx("top").input("next"), vtx("more").content("top")]
    };
    setup(&graph(false), &["top"]).store(&store).run().await;
    let again = setup(&graph(true), &["more"]).store(&store).run().await;
    assert_eq!(again.ran(), ["more"]);
    assert_eq!(again.outcome("next"), Outcome::Covered);
}

#[tokio::test]
async fn the_caller_can_stop_it() {
    let setup = setup(&[vtx("slow").delay(60_000)], &["slow"]);
    let cancel = setup.cancel.clone();
    let (run, ()) = tokio::join!(setup.run(), async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        cancel.cancel();
    });
    assert!(matches!(run.solution.results, Err(SolveError::Canceled)));
    assert_eq!(run.lines, ["slow started", "slow canceled"]);
}

#[tokio::test]
async fn what_cannot_be_loaded_is_made_again() {
    let store = Memory::named("local");
    let first = setup(&chain3(), &["final"]).store(&store).run().await;
    store.break_value(&first.results()[0]);
    let second = setup(&chain3(), &["final"]).store(&store).run().await;
    assert_eq!(second.ran(), ["final"], "its input is still cached");
    assert_eq!(second.results(), first.results());
    assert!(second.lines.contains(&"notice: cache local: failed to load".to_owned()), "{:?}", second.lines);
    store.broken.lock().unwrap().clear();
    assert_eq!(setup(&chain3(), &["final"]).store(&store).run().await.ran(), [""; 0]);
}

#[tokio::test]
async fn a_further_store_helps_and_fills_the_first() {
    let (remote, local) = (Memory::named("remote"), Memory::named("local"));
    setup(&chain3(), &["final"]).store(&remote).run().await;
    let run = setup(&chain3(), &["final"]).store(&local).store(&remote).run().await;
    assert_eq!(run.ran(), [""; 0]);
    let report = &run.solution.vertices[2].outputs[0];
    assert_eq!(report.matched.as_ref().map(|m| m.0.as_str()), Some("remote"));
    let offline = setup(&chain3(), &["final"]).store(&local).run().await;
    assert_eq!(offline.ran(), [""; 0], "saved locally with all its ancestors");
}

#[tokio::test]
async fn of_several_other_stores_the_newest_result_is_taken() {
    let (local, old, new) = (Memory::named("local"), Memory::named("old"), Memory::named("new"));
    let with = |value: &str| [vtx("base"), vtx("final").input("base").value(value)];
    setup(&with("old"), &["final"]).store(&old).run().await;
    for value in ["older", "new"] {
        let forced = [vtx("base"), vtx("final").input("base").value(value).ignore_cache()];
        setup(&forced, &["final"]).store(&new).run().await;
    }
    for stores in [[&old, &new], [&new, &old]] {
        let fresh = Memory::named("fresh");
        let run = setup(&with(""), &["final"]).store(&fresh).store(stores[0]).store(stores[1]).run().await;
        assert_eq!((run.ran(), run.results()), (vec![""; 0], &["new".to_owned()][..]));
    }
    setup(&with("own"), &["final"]).store(&local).run().await;
    let run = setup(&with(""), &["final"]).store(&local).store(&new).run().await;
    assert_eq!(run.results(), ["own"], "what is here needs no fetching");
}

#[tokio::test]
async fn records_without_results_lead_to_those_with_one() {
    let graph = |more: &str| {
        let rest = [vtx("build").content("context"), vtx("copy").content("build"), vtx("merge").input("copy")];
        [vec![vtx("context").random()], rest.into(), vec![vtx("final").key(more).input("merge")]].concat()
    };
    let store = Memory::named("min");
    let first = setup(&graph("final"), &["final"]).store(&store).run().await;
    store.keep_only(&first.results()[0]);
    let again = setup(&graph("final"), &["final"]).store(&store).run().await;
    assert_eq!(again.ran(), ["context"], "its content is what all is found by");
    assert_eq!(again.results(), first.results());
    // Where they lead to nothing, all that is needed runs.
    let other = setup(&graph("other"), &["final"]).store(&store).run().await;
    assert_eq!(other.ran(), ["build", "context", "copy", "final", "merge"]);
}

#[tokio::test]
async fn a_store_that_fails_is_told_of_and_left_out() {
    let mut dead = Memory::default();
    dead.name = "dead".into();
    dead.unprepared = true;
    let run = setup(&chain3(), &["final"]).store(&std::sync::Arc::new(dead)).run().await;
    assert_eq!(run.ran(), ["base", "build", "final"]);
    assert_eq!(run.lines[0], "notice: cache dead: unreachable");
}

#[tokio::test]
async fn without_a_local_store_nothing_is_saved_and_results_have_their_time() {
    let before = std::time::SystemTime::now();
    let remote = Memory::named("remote");
    let run = setup(&chain3(), &["final"]).import(remote.clone()).collect().run().await;
    assert_eq!(run.ran(), ["base", "build", "final"]);
    assert_eq!(remote.graph.lock().unwrap().items().count(), 0);
    let results: Vec<_> = run.solution.records.graph.items().filter_map(|(_, item)| item.result.clone()).collect();
    assert_eq!(results.len(), 2);
    assert!(results.iter().all(|(at, _)| *at >= before), "{results:?}");
    setup(&chain3(), &["final"]).store(&remote).run().await;
    let found = setup(&chain3(), &["final"]).import(remote.clone()).run().await;
    assert_eq!((found.ran(), found.results()), (vec![""; 0], run.results()));
}

#[tokio::test]
async fn targets_of_several_platforms_share_what_is_equal() {
    let graph = [vtx("context"), vtx("amd64").input("context"), vtx("arm64").input("context")];
    let run = setup(&graph, &["amd64", "arm64"]).run().await;
    assert_eq!(run.ran(), ["amd64", "arm64", "context"]);
    assert_ne!(run.results()[0], run.results()[1]);
}

fn long_chain(length: usize) -> Setup {
    let link = |i: usize| {
        let vertex = vtx(&format!("{i:05}"));
        if i == 0 { vertex } else { vertex.input(&format!("{:05}", i - 1)) }
    };
    setup(&(0..length).map(link).collect::<Vec<_>>(), &[&format!("{:05}", length - 1)])
}

fn wide_fan(width: usize) -> Setup {
    let mut vertices: Vec<Vtx> = (0..width).map(|i| vtx(&format!("{i:05}"))).collect();
    vertices.push((0..width).fold(vtx("top"), |top, i| top.input(&format!("{i:05}"))));
    setup(&vertices, &["top"])
}

/// Solves from nothing, from the local store, and from another into an empty one; returns how much work each was.
async fn work(make: fn(usize) -> Setup, size: usize) -> Vec<usize> {
    use std::sync::atomic::Ordering::SeqCst;
    let (store, empty) = (Memory::named("local"), Memory::named("empty"));
    let mut work = Vec::new();
    let mut note = |run: &super::fake::Run| {
        let asked = |store: &Memory| store.questions.swap(0, SeqCst);
        work.extend([run.solution.moves, asked(&store) + asked(&empty)]);
    };
    let first = make(size).store(&store).collect().run().await;
    note(&first);
    assert!(first.ran().len() >= size);
    let second = make(size).store(&store).collect().run().await;
    note(&second);
    assert_eq!((second.ran(), second.results()), (vec![""; 0], first.results()));
    let imported = make(size).store(&empty).store(&store).collect().run().await;
    note(&imported);
    assert_eq!(imported.ran(), [""; 0]);
    let adopted = make(size).store(&empty).run().await;
    note(&adopted);
    assert_eq!(adopted.ran(), [""; 0], "with all that leads there");
    work
}

/// Whether a graph is deep or wide, four times as many vertices are four times as much work, however fast the machine is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_vertices_deep_or_wide_are_linear_work() {
    for make in [long_chain, wide_fan] {
        let (few, many) = (work(make, 2_500).await, work(make, 10_000).await);
        for (at, (few, many)) in few.iter().zip(&many).enumerate() {
            // Who comes first is left to chance, so moves differ a little; what is quadratic needs 16 times as many.
            assert!(*many <= few * 5 + 100, "measure {at}: {few} for 2500 vertices, {many} for 10000");
            assert!(*many <= 16 * 10_000, "measure {at}: {many}");
        }
    }
}

/// Per vertex: how many of the former ones it depends on (by seed), by content or not, its delay.
type Dag = Vec<(Vec<(usize, bool)>, u64)>;

fn dags() -> impl Strategy<Value = Dag> {
    let inputs = prop::collection::vec((0usize..1000, any::<bool>()), 0..4);
    prop::collection::vec((inputs, 0u64..4), 1..14)
}

fn build(dag: &Dag, delays: u64) -> Vec<Vtx> {
    let vertex = |i: usize| {
        let (inputs, delay) = &dag[i];
        let start = vtx(&format!("v{i}")).delay(delay * delays);
        let inputs = inputs.iter().filter(|_| i > 0);
        inputs.fold(start, |vertex, &(seed, content)| {
            let name = format!("v{}", seed % i);
            if content { vertex.content(&name) } else { vertex.input(&name) }
        })
    };
    (0..dag.len()).map(vertex).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_order_gives_the_same(dag in dags(), parallelism in 1usize..5, changed in 0usize..14) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("runtime");
        runtime.block_on(async {
            let target = format!("v{}", dag.len() - 1);
            let (one, two) = (Memory::named("one"), Memory::named("two"));
            let first = setup(&build(&dag, 0), &[&target]).parallelism(1).store(&one).run().await;
            let other = setup(&build(&dag, 1), &[&target]).parallelism(parallelism).store(&two).run().await;
            assert_eq!(first.results(), other.results());
            assert_eq!(first.ran(), other.ran());
            assert_eq!(first.ran().iter().collect::<BTreeSet<_>>().len(), first.ran().len(), "each at most once");
            let again = setup(&build(&dag, 1), &[&target]).parallelism(parallelism).store(&one).run().await;
            assert_eq!(again.ran(), [""; 0]);
            assert_eq!(again.results(), first.results());
            let change = |mut vertices: Vec<Vtx>| {
                let at = changed % vertices.len();
                vertices[at] = vertices[at].clone().key("changed");
                vertices
            };
            let a = setup(&change(build(&dag, 0)), &[&target]).parallelism(1).store(&one).run().await;
            let b = setup(&change(build(&dag, 1)), &[&target]).parallelism(parallelism).store(&two).run().await;
            let c = setup(&change(build(&dag, 1)), &[&target]).parallelism(parallelism).run().await;
            assert_eq!(a.results(), b.results());
            assert_eq!(a.results(), c.results());
            assert_eq!(a.solution.vertices, b.solution.vertices.into_iter().map(rename).collect::<Vec<_>>());
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A step that gives something else under the same key, made to run: nothing older than that may be seen, in that solve
    /// or in a later one.
    #[test]
    fn nothing_stale_after_an_ignored_cache(dag in dags(), changed in 0usize..14, rounds in 1usize..5) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
        runtime.block_on(async {
            let target = format!("v{}", dag.len() - 1);
            let store = Memory::named("local");
            for round in 0..rounds {
                let mut vertices = build(&dag, 0);
                let at = changed % vertices.len();
                vertices[at] = vertices[at].clone().value(&format!("value {round}"));
                let clean = setup(&vertices, &[&target]).run().await;
                let mut forced = vertices.clone();
                forced[at] = forced[at].clone().ignore_cache();
                let run = setup(&forced, &[&target]).store(&store).run().await;
                assert_eq!(run.results(), clean.results());
                let later = setup(&vertices, &[&target]).store(&store).run().await;
                assert_eq!(later.results(), clean.results());
            }
        });
    }

    /// Results that cannot be loaded are made again, whichever they are.
    #[test]
    fn broken_results_change_nothing(dag in dags(), broken in prop::collection::vec(0usize..14, 1..6)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
        runtime.block_on(async {
            let target = format!("v{}", dag.len() - 1);
            let store = Memory::named("local");
            let first = setup(&build(&dag, 0), &[&target]).store(&store).run().await;
            let values: Vec<String> =
                store.graph.lock().unwrap().items().filter_map(|(_, item)| Some(item.result.as_ref()?.1.clone())).collect();
            store.break_value(&first.results()[0]);
            broken.iter().for_each(|at| store.break_value(&values[at % values.len()]));
            let again = setup(&build(&dag, 0), &[&target]).store(&store).run().await;
            assert_eq!(again.results(), first.results());
            assert!(again.ran().contains(&target.as_str()));
        });
    }
}

fn rename(mut vertex: VertexReport) -> VertexReport {
    for (store, _) in vertex.outputs.iter_mut().filter_map(|output| output.matched.as_mut()) {
        *store = "one".into();
    }
    vertex
}
