//! Output, the end of a step, stopping it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Step, executor};
use crate::support::rootfs::Rootfs;
use rbuild::exec::{ExecError, ExitStatusKind, Stream};
use rbuild::llb::ops::Ulimit;
use tokio_util::sync::CancellationToken;

/// Processes of the host whose command line holds the text.
fn processes_with(text: &str) -> usize {
    let entries = std::fs::read_dir("/proc").expect("procfs").flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(text)).count()
}

/// Seconds to sleep that no other test, and no other process of these tests, names.
fn mark(test: u32) -> String {
    format!("9990{test}.{}", std::process::id())
}

#[test]
fn e16_a_step_ends_with_its_first_process() {
    let rootfs = Rootfs::new();
    let start = Instant::now();
    let duration = mark(1);
    Step::new(&rootfs, &format!("(setsid sleep {duration} &) ; (sleep {duration} &); true")).output();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(processes_with(&duration), 0);
}

#[test]
fn e16_endless_output_takes_no_memory() {
    let rootfs = Rootfs::new();
    let step = Step::new(&rootfs, "yes | head -c 268435456; head -c 67108864 /dev/zero");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let count = AtomicU64::new(0);
    let largest = AtomicU64::new(0);
    let output = |_: Stream, bytes: &[u8]| {
        count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        largest.fetch_max(bytes.len() as u64, Ordering::Relaxed);
    };
    let outcome = runtime.block_on(executor().run(step.spec, &output, CancellationToken::new())).expect("ran");
    assert_eq!(outcome.status, ExitStatusKind::Exited(0));
    assert_eq!(count.into_inner(), 320 << 20);
    assert!(largest.into_inner() <= 64 << 10);
}

#[test]
fn a_canceled_step_leaves_nothing() {
    let rootfs = Rootfs::new();
    let cancel = CancellationToken::new();
    let stop = cancel.clone().drop_guard();
    let duration = mark(2);
    let begun = std::thread::scope(|scope| {
        let begun = scope.spawn(|| {
            // However this ends, the step is stopped.
            let _stop = stop;
            let start = Instant::now();
            // The shell's argument and the program's.
            while processes_with(&duration) < 2 && start.elapsed() < Duration::from_secs(10) {
                std::thread::sleep(Duration::from_millis(10));
            }
            (processes_with(&duration), Instant::now())
        });
        let step = Step::new(&rootfs, &format!("trap '' TERM INT; sleep {duration}; true"));
        assert!(matches!(step.run_until(cancel), Err(ExecError::Canceled)));
        begun.join().expect("it does not panic")
    });
    assert_eq!(begun.0, 2);
    assert!(begun.1.elapsed() < Duration::from_secs(3));
    assert_eq!(processes_with(&duration), 0);
    assert!(!rootfs.path("etc/hosts").exists());
}

#[test]
fn a_step_that_nobody_waits_for_any_more_is_killed() {
    let rootfs = Rootfs::new();
    let duration = mark(3);
    let step = Step::new(&rootfs, &format!("trap '' TERM; sleep {duration}; true"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let output = |_: Stream, _: &[u8]| {};
    runtime.block_on(async {
        let run = executor().run(step.spec, &output, CancellationToken::new());
        assert!(tokio::time::timeout(Duration::from_millis(300), run).await.is_err());
    });
    let start = Instant::now();
    while processes_with(&duration) > 0 || rootfs.path("etc/hosts").exists() {
        assert!(start.elapsed() < Duration::from_secs(2));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_status_is_the_programs() {
    let rootfs = Rootfs::new();
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("sh -c 'kill -9 $$'; exit $?", 137)] {
        assert_eq!(Step::new(&rootfs, script).try_run().expect("ran").code, code, "{script}");
    }
}

#[test]
fn both_streams_are_told_apart_and_there_is_no_input() {
    let rootfs = Rootfs::new();
    let step = Step::new(&rootfs, "echo out; echo err >&2; cat; readlink /proc/self/fd/0");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let streams = std::sync::Mutex::new((String::new(), String::new()));
    let output = |stream: Stream, bytes: &[u8]| {
        let mut streams = streams.lock().expect("lock");
        let text = String::from_utf8_lossy(bytes);
        match stream {
            Stream::Stdout => streams.0.push_str(&text),
            Stream::Stderr => streams.1.push_str(&text),
        }
    };
    runtime.block_on(executor().run(step.spec, &output, CancellationToken::new())).expect("ran");
    let streams = streams.into_inner().expect("lock");
    assert_eq!((streams.0.as_str(), streams.1.as_str()), ("out\n/dev/null\n", "err\n"));
}

#[test]
fn limits_are_the_steps() {
    let rootfs = Rootfs::new();
    let limit = |soft, hard| Ulimit { name: "nofile".into(), soft, hard };
    let step = Step::new(&rootfs, "ulimit -Sn; ulimit -Hn; ulimit -c").with(|spec| spec.ulimits.push(limit(100, 200)));
    assert_eq!(step.output(), "100\n200\n0\n");
}
