//! How long a registry could not be reached at a stretch.
//!
//! In: what each attempt came to. Out: whether to try once more is worth the wait. Each request has its patience; many requests one after
//! the other to a host that is down must not wait as long each, so once that patience has been spent without any answer, later
//! requests are tried once. Invariant: an outage that one request would have waited for fails no other.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A pause in the attempts after which what was is not what is.
const STALE: Duration = Duration::from_secs(60);

/// Attempts that got no answer since the last that did.
#[derive(Debug, Default)]
pub(crate) struct Outage(Mutex<Option<Stretch>>);

#[derive(Debug, Clone, Copy)]
struct Stretch {
    first: Instant,
    last: Instant,
}

impl Outage {
    /// Notes that there was an answer, whatever it says.
    pub(crate) fn ended(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Notes that there was none, and returns whether it has been so for longer than `patience`.
    pub(crate) fn goes_on(&self, patience: Duration) -> bool {
        self.goes_on_at(Instant::now(), patience)
    }

    fn goes_on_at(&self, now: Instant, patience: Duration) -> bool {
        let mut stretch = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = stretch.filter(|known| now - known.last < STALE).map_or(now, |known| known.first);
        *stretch = Some(Stretch { first, last: now });
        now - first > patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(15);

    fn after(outage: &Outage, start: Instant, seconds: u64) -> bool {
        outage.goes_on_at(start + Duration::from_secs(seconds), PATIENCE)
    }

    #[test]
    fn patience_is_spent_once() {
        let (outage, start) = (Outage::default(), Instant::now());
        assert!(!after(&outage, start, 0) && !after(&outage, start, 8) && !after(&outage, start, 15));
        assert!(after(&outage, start, 16) && after(&outage, start, 17));
    }

    #[test]
    fn an_answer_begins_anew() {
        let (outage, start) = (Outage::default(), Instant::now());
        assert!(!after(&outage, start, 0));
        outage.ended();
        assert!(!after(&outage, start, 16) && !after(&outage, start, 31));
        assert!(after(&outage, start, 32));
    }

    #[test]
    fn what_was_long_ago_does_not_count() {
        let (outage, start) = (Outage::default(), Instant::now());
        assert!(!after(&outage, start, 0));
        assert!(!after(&outage, start, 60));
        assert!(after(&outage, start, 76));
    }
}
