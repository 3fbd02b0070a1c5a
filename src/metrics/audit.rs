//! What counts for the audit log.

use prometheus::{Gauge, IntCounter, IntCounterVec};

/// Handles to the metrics of the audit log.
#[derive(Debug, Clone)]
pub struct AuditMetrics {
    pub(super) records: IntCounterVec,
    pub(super) bytes: IntCounter,
    pub(super) copies_lost: IntCounterVec,
    /// Writes that failed.
    pub failures: IntCounter,
    /// Records that could not be kept.
    pub lost: IntCounter,
    /// Requests refused since they could not be recorded.
    pub refused: IntCounter,
    /// Age of the oldest record that is not on disk, in seconds.
    pub lag: Gauge,
    /// When the last checkpoint was signed, in seconds since 1970.
    pub checkpoint: Gauge,
}

impl AuditMetrics {
    /// A record was added to the log; `kind` is one of a closed set.
    pub fn recorded(&self, kind: &'static str, bytes: usize) {
        self.records.with_label_values(&[kind]).inc();
        self.bytes.inc_by(bytes as u64);
    }

    /// A copy of a record could not be sent.
    pub fn copy_lost(&self, destination: &'static str) {
        self.copies_lost.with_label_values(&[destination]).inc();
    }
}
