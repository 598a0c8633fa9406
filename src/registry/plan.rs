//! How to go on with an upload after a failure: the same way, the other way, in smaller pieces, or not at all.
//!
//! In: errors, and how far the registry got. Out: [`Next`]. Invariants: a way is left for the other once at most; failures without
//! progress are counted.

use std::time::Duration;

use super::error::RegistryError;

/// Size of the pieces.
const PIECE: u64 = 16 << 20;
/// Size below which pieces that are too large for a server are not made smaller: nginx takes 1 MiB unless told otherwise.
const SMALLEST_PIECE: u64 = 256 << 10;

/// How the rest of a blob is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// In one request, from the start.
    Whole,
    Pieces,
}

/// What to do after a failure.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    GiveUp,
    /// Go on, once so much time has passed.
    After(Duration),
}

/// What is known of how a registry takes a blob.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) way: Way,
    pub(crate) piece: u64,
    /// Whether the other way was refused.
    pub(crate) only: bool,
    /// Whether a piece was ever taken.
    pub(crate) taken: bool,
    /// Failures since the last progress.
    pub(crate) failures: u32,
    furthest: u64,
}

impl Plan {
    pub(crate) fn new() -> Self {
        Self { way: Way::Whole, piece: PIECE, only: false, taken: false, failures: 0, furthest: 0 }
    }

    /// Notes how much the registry has; more than ever before means that it goes on.
    pub(crate) fn reached(&mut self, offset: u64) {
        if offset > self.furthest {
            self.furthest = offset;
            self.failures = 0;
        }
    }

    /// Takes the other way, once.
    fn switch(&mut self, way: Way) -> Next {
        if self.only {
            return Next::GiveUp;
        }
        (self.way, self.only) = (way, true);
        Next::After(Duration::ZERO)
    }

    /// Decides by what went wrong; `passing` is how long to wait if it may pass.
    pub(crate) fn after(&mut self, error: &RegistryError, passing: Option<Duration>, attempts: u32) -> Next {
        let status = match error {
            RegistryError::Status { status, .. } => *status,
            _ => 0,
        };
        match (self.way, status) {
            // Servers without uploads in one request, and proxies that bound a request's size.
            (Way::Whole, 405 | 411 | 413 | 501) => return self.switch(Way::Pieces),
            (Way::Pieces, 413) if self.piece / 4 >= SMALLEST_PIECE => {
                self.piece /= 4;
                return Next::After(Duration::ZERO);
            }
            // No piece was ever taken, so it is pieces that are not taken.
            (Way::Pieces, 400 | 404 | 405 | 411 | 412 | 416 | 501) if !self.taken && !self.only => {
                return self.switch(Way::Whole);
            }
            _ => {}
        }
        // A session that is lost or out of step is begun anew.
        let wait = match status {
            404 | 410 | 416 => Some(passing.unwrap_or_default()),
            _ => passing,
        };
        self.failures += 1;
        let Some(wait) = wait.filter(|_| self.failures < attempts) else { return Next::GiveUp };
        // Where a long request is cut again and again, short ones may get through.
        let cut = !matches!(error, RegistryError::RateLimited { .. });
        if cut && self.way == Way::Whole && self.failures > 1 && !self.only {
            self.way = Way::Pieces;
        }
        Next::After(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::super::credentials::Access;
    use super::*;

    fn answered(status: u16) -> RegistryError {
        RegistryError::Status {
            host: "r".into(),
            repository: "a".into(),
            action: "take a blob",
            status,
            detail: String::new(),
            access: Access::Push,
            logged_in: false,
        }
    }

    const NOW: Next = Next::After(Duration::ZERO);
    const SOON: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_refused_whole_is_sent_in_pieces_and_the_other_way_round() {
        let mut plan = Plan::new();
        assert_eq!((plan.after(&answered(413), None, 5), plan.way), (NOW, Way::Pieces));
        assert_eq!((plan.after(&answered(413), None, 5), plan.piece), (NOW, PIECE / 4));
        assert_eq!((plan.after(&answered(413), None, 5), plan.piece), (NOW, PIECE / 16));
        assert_eq!((plan.after(&answered(413), None, 5), plan.piece), (NOW, PIECE / 64));
        assert_eq!(plan.after(&answered(413), None, 5), Next::GiveUp);
        assert_eq!(plan.after(&answered(405), None, 5), Next::GiveUp, "neither way");
        let mut plan = Plan { way: Way::Pieces, ..Plan::new() };
        assert_eq!((plan.after(&answered(405), None, 5), plan.way), (NOW, Way::Whole));
        assert_eq!(plan.after(&answered(405), None, 5), Next::GiveUp);
    }

    #[test]
    fn cuts_are_counted_until_it_goes_on() {
        let cut = answered(502);
        let mut plan = Plan::new();
        assert_eq!((plan.after(&cut, Some(SOON), 3), plan.way), (Next::After(SOON), Way::Whole));
        assert_eq!((plan.after(&cut, Some(SOON), 3), plan.way), (Next::After(SOON), Way::Pieces));
        plan.reached(10);
        assert_eq!(plan.after(&cut, Some(SOON), 3), Next::After(SOON));
        plan.reached(10);
        assert_eq!(plan.after(&cut, Some(SOON), 3), Next::After(SOON));
        assert_eq!(plan.after(&cut, Some(SOON), 3), Next::GiveUp);
    }

    #[test]
    fn lost_sessions_are_begun_anew_and_refusals_are_not_repeated() {
        for status in [404, 410, 416] {
            assert_eq!(Plan::new().after(&answered(status), None, 3), NOW, "{status}");
        }
        for status in [400, 403, 422] {
            assert_eq!(Plan::new().after(&answered(status), None, 3), Next::GiveUp, "{status}");
        }
    }
}
