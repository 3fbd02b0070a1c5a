//! How long a new job would wait for a session: what would come too late is refused at once, while
//! the caller still has time to do something else (429 instead of 503).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Weight of the newest job in the running mean: one in this many.
const SMOOTHING: u64 = 8;

/// What a token's sessions have shown they can do.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// Running mean of a job's time in the HSM, in nanoseconds; 0 before the first.
    mean: AtomicU64,
    /// Sessions that take jobs.
    sessions: AtomicUsize,
    /// Jobs done since the start, well or not.
    done: AtomicU64,
}

/// A session takes jobs for as long as this lives.
pub(super) struct Taking<'a>(&'a Load);

impl Load {
    /// Counts one more session.
    pub(super) fn taking(&self) -> Taking<'_> {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        Taking(self)
    }

    /// How many sessions take jobs.
    pub(super) fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// How many jobs were done since the start.
    pub(super) fn jobs_done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// A job was done. Two threads that do so at once may lose one of the two; a mean bears that.
    pub(super) fn done(&self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX / SMOOTHING);
        let mean = self.mean.load(Ordering::Relaxed);
        let next = if mean == 0 { took } else { mean - mean / SMOOTHING + took / SMOOTHING };
        self.mean.store(next, Ordering::Relaxed);
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets what jobs took: the token has changed, and this is what it takes now.
    pub(super) fn begin_anew(&self, takes: Duration) {
        let takes = u64::try_from(takes.as_nanos()).unwrap_or(u64::MAX / SMOOTHING);
        self.mean.store(takes, Ordering::Relaxed);
    }

    /// How long one job more would take beside so many others.
    pub(super) fn expected(&self, others: usize) -> Duration {
        let sessions = self.sessions().max(1) as u64;
        let mean = self.mean.load(Ordering::Relaxed);
        let wait = mean.saturating_mul(others as u64) / sessions;
        Duration::from_nanos(wait.saturating_add(mean))
    }

    /// How long until a job that finds so many others before it would be done. Nothing without
    /// others, so that a token that was slow once is tried again.
    pub(super) fn foretold(&self, queued: usize) -> Duration {
        if queued == 0 {
            return Duration::ZERO;
        }
        self.expected(queued)
    }

    /// Whether such a job would be too late. Jobs vary, so a quarter of the time is kept back: what
    /// is admitted to the last moment is done a moment after it, and then nothing is in time.
    pub(super) fn is_too_much(&self, queued: usize, remaining: Duration) -> bool {
        self.foretold(queued) > remaining / 4 * 3
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn sessions_share_the_queue() {
        let load = Load::default();
        load.done(10 * MS);
        let _one = load.taking();
        assert_eq!(load.foretold(12), 130 * MS);
        let others = [load.taking(), load.taking()];
        assert_eq!(load.foretold(12), 50 * MS);
        drop(others);
        assert_eq!(load.foretold(12), 130 * MS);
    }

    #[test]
    fn what_would_be_late_is_too_much() {
        let load = Load::default();
        load.done(10 * MS);
        let _one = load.taking();
        assert!(!load.is_too_much(8, 120 * MS));
        assert!(load.is_too_much(9, 120 * MS));
    }

    #[test]
    fn nothing_is_foretold_without_experience_or_without_others() {
        let load = Load::default();
        assert_eq!(load.foretold(1000), Duration::ZERO);
        load.done(Duration::from_secs(3600));
        assert!(!load.is_too_much(0, MS));
    }

    #[test]
    fn the_mean_follows_the_token_both_ways() {
        let load = Load::default();
        load.done(MS);
        for _ in 0..100 {
            load.done(100 * MS);
        }
        assert!(load.foretold(1) > 198 * MS);
        for _ in 0..100 {
            load.done(MS);
        }
        assert!(load.foretold(1) < 3 * MS);
    }

    #[test]
    fn no_time_overflows_it() {
        let load = Load::default();
        for _ in 0..3 {
            load.done(Duration::MAX);
        }
        assert!(load.foretold(usize::MAX) > Duration::ZERO);
    }
}
