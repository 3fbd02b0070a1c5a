//! When a token is no longer given requests that another token can do: after several in a row that
//! it did not do in time. A probe in time gives it back its place.

use std::sync::atomic::{AtomicU32, Ordering};

/// So many late jobs in a row, with none in time between them, are no accident.
const LATE_IN_A_ROW: u32 = 3;

/// Counts what came late.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    late: AtomicU32,
}

impl Breaker {
    /// A job was not done in time. Says whether the token is to be spared from now on.
    pub(super) fn late(&self) -> bool {
        let late = self.late.load(Ordering::Relaxed).saturating_add(1);
        self.late.store(late, Ordering::Relaxed);
        late >= LATE_IN_A_ROW
    }

    /// A job was done in time.
    pub(super) fn in_time(&self) {
        // Written only where it changes: every worker comes by here with every job.
        if self.late.load(Ordering::Relaxed) != 0 {
            self.late.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_late_jobs_in_a_row_count() {
        let breaker = Breaker::default();
        assert!(!breaker.late() && !breaker.late());
        breaker.in_time();
        assert!(!breaker.late() && !breaker.late());
        assert!(breaker.late() && breaker.late());
    }
}
