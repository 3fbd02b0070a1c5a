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
    /// How long the runs before this one took.
    before: Duration,
}

impl Recorder {
    /// Counts what was due at `from` or later.
    pub(super) fn new(from: Instant) -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST, DIGITS)
            .expect("the bounds are in order and the digits at most five");
        let (answered, failed) = (histogram.clone(), histogram);
        Self { answered, failed, errors: BTreeMap::new(), from, last: from, before: Duration::ZERO }
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

    /// Adds another run of the same thing: one after the other, times add up.
    #[must_use]
    pub fn then(mut self, next: Self) -> Self {
        self.before = self.elapsed();
        (self.from, self.last) = (next.from, next.from);
        self.add(next);
        self
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

    /// From the end of the warm-up to the last answer, over all runs.
    pub fn elapsed(&self) -> Duration {
        self.before + (self.last - self.from)
    }

    /// Good answers per second.
    pub fn rate(&self) -> f64 {
        let seconds = self.elapsed().as_secs_f64();
        if seconds > 0.0 { self.answered.len() as f64 / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_add_up() {
        let start = Instant::now();
        let run = |from: u64, errors: u64| {
            let at = |millis| start + Duration::from_millis(from + millis);
            let mut run = Recorder::new(at(0));
            run.record(at(0), at(500), Ok(()));
            for _ in 0..errors {
                run.record(at(0), at(100), Err("(timeout)".to_owned()));
            }
            run
        };
        // What lies between two runs does not count.
        let sum = run(0, 0).then(run(9000, 2)).then(run(20_000, 1));
        assert_eq!(sum.elapsed(), Duration::from_millis(1500));
        assert_eq!((sum.answered.len(), sum.errors["(timeout)"]), (3, 3));
        assert!((sum.rate() - 2.0).abs() < 1e-9);
    }
}
