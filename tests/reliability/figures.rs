//! Rows of figures, and the table that they make.

use std::fmt;
use std::time::Duration;

use support::load::{Proof, Report};

/// What one scenario measured.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    what: String,
    requests: usize,
    failed: Vec<(String, usize)>,
    gap: Duration,
    latencies: [Duration; 3],
    retried: usize,
    ciphertexts: usize,
    lost: usize,
    remark: String,
}

impl Row {
    pub(crate) fn new(what: &str, report: &Report, proof: &Proof) -> Self {
        let failed = report.failed().into_iter().map(|(why, times)| (why.to_owned(), times));
        Self {
            what: what.to_owned(),
            requests: report.records.len(),
            failed: failed.collect(),
            gap: report.longest_gap(),
            latencies: [0.5, 0.99, 1.0].map(|share| report.latency(share)),
            retried: report.retried,
            ciphertexts: proof.ciphertexts,
            lost: proof.lost.len(),
            remark: String::new(),
        }
    }

    /// What else is to be known.
    pub(crate) fn remark(mut self, remark: impl fmt::Display) -> Self {
        self.remark = remark.to_string();
        self
    }
}

/// The head of the table.
pub(crate) const HEAD: &str = "\
| scenario | requests | failed | by error | longest gap | p50 / p99 / max | sent again | ciphertexts, lost | |
|---|---|---|---|---|---|---|---|---|";

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed: usize = self.failed.iter().map(|(_, times)| times).sum();
        let share = 100.0 * failed as f64 / self.requests.max(1) as f64;
        let by_error: Vec<String> =
            self.failed.iter().map(|(why, times)| format!("{times} {why}")).collect();
        let [p50, p99, max] = self.latencies.map(millis);
        write!(
            f,
            "| {} | {} | {failed} ({share:.2}%) | {} | {} | {p50} / {p99} / {max} | {} | {}, {} | {} |",
            self.what,
            self.requests,
            by_error.join(", "),
            millis(self.gap),
            self.retried,
            self.ciphertexts,
            self.lost,
            self.remark,
        )
    }
}

pub(crate) fn millis(time: Duration) -> String {
    match time.as_secs_f64() * 1000.0 {
        short @ ..10.0 => format!("{short:.1} ms"),
        long @ ..10_000.0 => format!("{long:.0} ms"),
        longer => format!("{:.1} s", longer / 1000.0),
    }
}
