//! Work spread over all cores, results in the order of the work.
//!
//! In: jobs. Out: their results by position, so that nothing depends on which thread was faster.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Fewer jobs than this are done at once where they are: starting threads would take longer.
const WORTH_THREADS: usize = 4;

/// Calls `work` for every job, on all cores, and returns the results in the order of the jobs.
pub fn spread<J: Sync, R: Send>(jobs: &[J], work: impl Fn(&J) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
    if threads < 2 || jobs.len() < WORTH_THREADS {
        return jobs.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(at) else { return done };
            done.push((at, work(job)));
        }
    };
    let mut results: Vec<(usize, R)> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(take)).collect();
        let mut results = take();
        for other in others {
            match other.join() {
                Ok(more) => results.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    });
    results.sort_unstable_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_jobs() {
        let jobs: Vec<usize> = (0..1000).collect();
        assert_eq!(spread(&jobs, |n| n * 2), jobs.iter().map(|n| n * 2).collect::<Vec<_>>());
        assert_eq!(spread(&jobs[..0], |n| n * 2), Vec::<usize>::new());
    }
}
