//! The clock of an open loop: when each request is due, and who waits for that moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Control;

/// Longest sleep of a pacer, so that it sees soon that it was stopped.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);

/// When requests are due: evenly spaced, from the start on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    start: Instant,
    rate: f64,
}

impl Schedule {
    pub(super) fn new(start: Instant, rate: f64) -> Self {
        Self { start, rate }
    }

    /// When request number `slot` is due, the first being number 0.
    pub(super) fn due(&self, slot: u64) -> Instant {
        self.start + Duration::from_secs_f64(slot as f64 / self.rate)
    }

    /// How many are due before this time has passed.
    pub(super) fn slots_within(&self, time: Duration) -> u64 {
        (time.as_secs_f64() * self.rate).ceil() as u64
    }
}

/// The requests of a run, handed out in order as they fall due.
pub(super) struct Slots {
    schedule: Schedule,
    total: u64,
    next: AtomicU64,
    /// One permit for each that has fallen due and was not taken.
    due: Semaphore,
}

impl Slots {
    pub(super) fn new(schedule: Schedule, total: u64) -> Self {
        Self { schedule, total, next: AtomicU64::new(0), due: Semaphore::new(0) }
    }

    /// Waits for the next request to fall due, and tells when it did; `None` after the last.
    pub(super) async fn take(&self) -> Option<Instant> {
        self.due.acquire().await.expect("it is never closed").forget();
        let slot = self.next.fetch_add(1, Ordering::Relaxed);
        (slot < self.total).then(|| self.schedule.due(slot))
    }

    /// Time until this slot is due; `None` if it is.
    fn wait(&self, slot: u64) -> Option<Duration> {
        let wait = self.schedule.due(slot).saturating_duration_since(Instant::now());
        (!wait.is_zero()).then(|| wait.min(LONGEST_SLEEP))
    }
}

/// Who watches the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pacer {
    /// A thread of its own, accurate to some ten microseconds.
    Thread,
    /// tokio's timer, accurate to a millisecond; it obeys a paused clock.
    Timer,
}

impl Pacer {
    /// Releases the slots in the background, and at the end one more for each worker, so that
    /// all of them see the end.
    pub(super) fn start(self, slots: Arc<Slots>, workers: usize, control: Arc<Control>) {
        let is_stopped = move || control.stop.load(Ordering::Relaxed);
        match self {
            Self::Thread => drop(thread::spawn(move || {
                for slot in 0..slots.total {
                    while let Some(wait) = slots.wait(slot).filter(|_| !is_stopped()) {
                        thread::sleep(wait);
                    }
                    if is_stopped() {
                        break;
                    }
                    slots.due.add_permits(1);
                }
                slots.due.add_permits(workers);
            })),
            Self::Timer => drop(tokio::spawn(async move {
                for slot in 0..slots.total {
                    while let Some(wait) = slots.wait(slot).filter(|_| !is_stopped()) {
                        tokio::time::sleep(wait).await;
                    }
                    if is_stopped() {
                        break;
                    }
                    slots.due.add_permits(1);
                }
                slots.due.add_permits(workers);
            })),
        }
    }
}
