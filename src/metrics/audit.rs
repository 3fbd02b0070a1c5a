//! What counts for the audit log.

use prometheus::{Gauge, IntCounter, IntCounterVec, Registry};

use super::register::{counter, counters, float_gauge};

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
    pub(super) fn new(r: &Registry) -> Self {
        Self {
            records: counters(r, "xksd_audit_records_total", "Audit records.", &["type"]),
            bytes: counter(r, "xksd_audit_bytes_total", "Bytes of audit records."),
            failures: counter(
                r,
                "xksd_audit_failures_total",
                "Writes of the audit log that failed; each is made again.",
            ),
            lost: counter(
                r,
                "xksd_audit_lost_total",
                "Requests that were served and could not be recorded.",
            ),
            refused: counter(
                r,
                "xksd_audit_refused_total",
                "Requests that were refused since they could not be recorded.",
            ),
            lag: float_gauge(
                r,
                "xksd_audit_lag_seconds",
                "Age of the oldest audit record that is not on disk; 0 if all are.",
            ),
            checkpoint: float_gauge(
                r,
                "xksd_audit_checkpoint_timestamp_seconds",
                "When the last checkpoint of the audit log was signed.",
            ),
            copies_lost: counters(
                r,
                "xksd_audit_copies_lost_total",
                "Copies of audit records that could not be sent.",
                &["destination"],
            ),
        }
    }

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
