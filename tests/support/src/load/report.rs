//! What became of the requests of a load.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Operation;

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// 200, and the answer is right.
    Served,
    /// An error of the protocol, by its name.
    Refused(String),
    /// No answer, for this reason.
    Unanswered(&'static str),
    /// An answer that no daemon may give.
    Wrong(String),
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What was asked.
    pub operation: Operation,
    /// When it was to be sent, from the start of the load.
    pub due: Duration,
    /// From then to its answer.
    pub latency: Duration,
    /// What became of it.
    pub outcome: Outcome,
}

/// All requests of a load.
#[derive(Debug, Clone)]
pub struct Report {
    /// In the order in which they were answered.
    pub records: Vec<Record>,
    /// How long the load lasted.
    pub elapsed: Duration,
    /// How many were sent a second time, the connection having been closed before.
    pub retried: usize,
}

impl Report {
    pub(super) fn new(mut records: Vec<Record>, elapsed: Duration, retried: usize) -> Self {
        records.sort_by_key(|record| record.due + record.latency);
        Self { records, elapsed, retried }
    }

    /// How many were not answered with 200 and what was asked for, by error name or reason.
    pub fn failed(&self) -> BTreeMap<&str, usize> {
        let mut failed = BTreeMap::new();
        for record in &self.records {
            let why = match &record.outcome {
                Outcome::Served => continue,
                Outcome::Refused(name) => name,
                Outcome::Unanswered(why) => *why,
                Outcome::Wrong(what) => what,
            };
            *failed.entry(why).or_default() += 1;
        }
        failed
    }

    /// How many were refused in this way.
    pub fn refused(&self, error_name: &str) -> usize {
        self.failed().get(error_name).copied().unwrap_or_default()
    }

    /// Answers that no daemon may give.
    pub fn wrong(&self) -> Vec<&str> {
        let wrong = self.records.iter().filter_map(|record| match &record.outcome {
            Outcome::Wrong(what) => Some(what.as_str()),
            _ => None,
        });
        wrong.collect()
    }

    /// Longest time in which no encryption or decryption was answered with 200, the ends of the load
    /// included. GetKeyMetadata, which needs no HSM, does not count.
    pub fn longest_gap(&self) -> Duration {
        let needs_hsm = |record: &&Record| record.operation != Operation::Metadata;
        let served = self.records.iter().filter(|record| record.outcome == Outcome::Served);
        let served = served.filter(needs_hsm);
        let mut ends: Vec<Duration> = served.map(|record| record.due + record.latency).collect();
        ends.push(self.elapsed);
        let mut last = Duration::ZERO;
        let gaps =
            ends.into_iter().map(|end| end.saturating_sub(std::mem::replace(&mut last, end)));
        gaps.max().unwrap_or_default()
    }

    /// The latency that this share of the requests that were served did not exceed; 1.0 for the
    /// longest.
    pub fn latency(&self, share: f64) -> Duration {
        let served = self.records.iter().filter(|record| record.outcome == Outcome::Served);
        let mut latencies: Vec<Duration> = served.map(|record| record.latency).collect();
        latencies.sort();
        let place = (share * latencies.len() as f64).ceil() as usize;
        latencies.get(place.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// Adds the requests of a load that followed this one.
    pub fn add(&mut self, next: Self) {
        let before = self.elapsed;
        let later = |record: Record| Record { due: record.due + before, ..record };
        self.records.extend(next.records.into_iter().map(later));
        self.elapsed += next.elapsed;
        self.retried += next.retried;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcomes: &[(u64, u64, Outcome)]) -> Report {
        let record = |(due, latency, outcome): &(u64, u64, Outcome)| Record {
            operation: Operation::Encrypt,
            due: Duration::from_millis(*due),
            latency: Duration::from_millis(*latency),
            outcome: outcome.clone(),
        };
        let records = outcomes.iter().map(record).collect();
        Report::new(records, Duration::from_millis(1000), 0)
    }

    #[test]
    fn a_gap_is_between_successes_and_ends_with_the_load() {
        let refused = || Outcome::Refused("InternalException".to_owned());
        let gap = report(&[(0, 10, Outcome::Served), (300, 10, Outcome::Served)]).longest_gap();
        assert_eq!(gap.as_millis(), 690);
        let outcomes = [
            (0, 10, Outcome::Served),
            (100, 5, refused()),
            (990, 5, refused()),
            (700, 200, Outcome::Served),
        ];
        assert_eq!(report(&outcomes).longest_gap().as_millis(), 890);
        assert_eq!(report(&[]).longest_gap().as_millis(), 1000);
        let mut with_metadata = report(&[(0, 10, Outcome::Served), (500, 10, Outcome::Served)]);
        with_metadata.records[1].operation = Operation::Metadata;
        assert_eq!(with_metadata.longest_gap().as_millis(), 990);
    }

    #[test]
    fn latencies_are_those_of_requests_that_were_served() {
        let mut outcomes: Vec<_> = (1..=100).map(|n| (n, n, Outcome::Served)).collect();
        outcomes.push((5, 900, Outcome::Unanswered("no answer")));
        let report = report(&outcomes);
        let millis = |share| report.latency(share).as_millis();
        assert_eq!((millis(0.5), millis(0.99), millis(1.0)), (50, 99, 100));
        assert_eq!(report.failed(), BTreeMap::from([("no answer", 1)]));
    }

    #[test]
    fn one_load_follows_another() {
        let mut sum = report(&[(900, 10, Outcome::Served)]);
        sum.add(report(&[(100, 10, Outcome::Served)]));
        assert_eq!(sum.records.len(), 2);
        assert_eq!(sum.longest_gap().as_millis(), 910);
    }
}
