//! How long a new job would wait for a session: what would come too late is refused at once, while
//! the caller still has time to do something else (429 instead of 503).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::lanes::Place;

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

    /// Forgets what jobs took: the token may have changed. It is tried before others, and thereby
    /// soon known again.
    pub(super) fn forget(&self) {
        self.mean.store(0, Ordering::Relaxed);
    }

    /// How long one job more would take beside so many others.
    pub(super) fn expected(&self, others: usize) -> Duration {
        self.wait(others).saturating_add(self.mean())
    }

    /// How long the sessions are busy with so many jobs.
    fn wait(&self, jobs: usize) -> Duration {
        let sessions = self.sessions().max(1) as u64;
        let mean = self.mean.load(Ordering::Relaxed);
        Duration::from_nanos(mean.saturating_mul(jobs as u64) / sessions)
    }

    fn mean(&self) -> Duration {
        Duration::from_nanos(self.mean.load(Ordering::Relaxed))
    }

    /// How long until a job in this place would be done. The first of a lane is judged by its wait
    /// alone: a token that was slow once is tried again, and where there is always somebody else's
    /// job waiting for a slow token, everybody's is tried.
    pub(super) fn foretold(&self, place: Place) -> Duration {
        let itself = if place.own == 0 { Duration::ZERO } else { self.mean() };
        self.wait(place.ahead).saturating_add(itself)
    }

    /// Whether such a job would be too late. Jobs vary, so a quarter of the time is kept back: what
    /// is admitted to the last moment is done a moment after it, and then nothing is in time.
    pub(super) fn is_too_much(&self, place: Place, remaining: Duration) -> bool {
        self.foretold(place) > remaining / 4 * 3
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

    /// At the end of the only lane.
    fn alone(queued: usize) -> Place {
        Place { own: queued, ahead: queued }
    }

    #[test]
    fn sessions_share_the_queue() {
        let load = Load::default();
        load.done(10 * MS);
        let _one = load.taking();
        assert_eq!(load.foretold(alone(12)), 130 * MS);
        let others = [load.taking(), load.taking()];
        assert_eq!(load.foretold(alone(12)), 50 * MS);
        drop(others);
        assert_eq!(load.foretold(alone(12)), 130 * MS);
    }

    #[test]
    fn what_would_be_late_is_too_much() {
        let load = Load::default();
        load.done(10 * MS);
        let _one = load.taking();
        assert!(!load.is_too_much(alone(8), 120 * MS));
        assert!(load.is_too_much(alone(9), 120 * MS));
    }

    #[test]
    fn nothing_is_foretold_without_experience_or_without_others() {
        let load = Load::default();
        assert_eq!(load.foretold(alone(1000)), Duration::ZERO);
        load.done(Duration::from_secs(3600));
        assert!(!load.is_too_much(alone(0), MS));
    }

    #[test]
    fn the_first_of_a_lane_is_judged_by_its_wait_alone() {
        let load = Load::default();
        load.done(100 * MS);
        let _sessions = [load.taking(), load.taking()];
        assert_eq!(load.foretold(Place { own: 0, ahead: 1 }), 50 * MS);
        assert_eq!(load.foretold(Place { own: 1, ahead: 3 }), 250 * MS);
    }

    #[test]
    fn the_mean_follows_the_token_both_ways() {
        let load = Load::default();
        load.done(MS);
        for _ in 0..100 {
            load.done(100 * MS);
        }
        assert!(load.foretold(alone(1)) > 198 * MS);
        for _ in 0..100 {
            load.done(MS);
        }
        assert!(load.foretold(alone(1)) < 3 * MS);
    }

    #[test]
    fn no_time_overflows_it() {
        let load = Load::default();
        for _ in 0..3 {
            load.done(Duration::MAX);
        }
        assert!(load.foretold(alone(usize::MAX)) > Duration::ZERO);
    }
}
