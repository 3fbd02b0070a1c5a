//! What a run has measured.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

/// Longest latency that is told from longer ones: an hour, in microseconds.
const LONGEST: u64 = 3_600_000_000;

/// Digits of a latency that are kept.
const DIGITS: u8 = 3;

/// Latencies and errors of the requests that count.
#[derive(Debug, Clone)]
pub struct Recorder {
    /// Latencies of good answers, in microseconds.
    pub answered: Histogram<u64>,
    /// How long failures took, in microseconds.
    pub failed: Histogram<u64>,
    /// Failures by name.
    pub errors: BTreeMap<String, u64>,
    from: Instant,
    last: Instant,
}

impl Recorder {
    /// Counts what was due at `from` or later.
    pub(super) fn new(from: Instant) -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST, DIGITS)
            .expect("the bounds are in order and the digits at most five");
        let (answered, failed) = (histogram.clone(), histogram);
        Self { answered, failed, errors: BTreeMap::new(), from, last: from }
    }

    /// Counts a request, unless it belongs to the warm-up.
    pub(super) fn record(&mut self, due: Instant, done: Instant, outcome: Result<(), String>) {
        if due < self.from {
            return;
        }
        let took = done.saturating_duration_since(due).as_micros();
        let took = u64::try_from(took).unwrap_or(LONGEST);
        match outcome {
            Ok(()) => self.answered.saturating_record(took),
            Err(name) => {
                self.failed.saturating_record(took);
                *self.errors.entry(name).or_default() += 1;
            }
        }
        self.last = self.last.max(done);
    }

    /// Adds another worker's share.
    pub(super) fn add(&mut self, other: Self) {
        self.answered.add(&other.answered).expect("all histograms have the same bounds");
        self.failed.add(&other.failed).expect("all histograms have the same bounds");
        for (name, count) in other.errors {
            *self.errors.entry(name).or_default() += count;
        }
        self.last = self.last.max(other.last);
    }

    /// From the end of the warm-up to the last answer.
    pub fn elapsed(&self) -> Duration {
        self.last - self.from
    }

    /// Good answers per second.
    pub fn rate(&self) -> f64 {
        let seconds = self.elapsed().as_secs_f64();
        if seconds > 0.0 { self.answered.len() as f64 / seconds } else { 0.0 }
    }
}
