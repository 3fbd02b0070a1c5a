//! What becomes of requests: who asks, how long each step takes, and where it is written down.

use std::time::Duration;

use super::{Metrics, TracesDropped, label, unix_now};
use crate::names::{AccessKeyId, KeystoreName};
use crate::operations::{Part, Trace};
use crate::wire::health::HealthStatus;

impl Metrics {
    /// An answered request. `outcome` is `OK` or the error's name.
    pub fn request(
        &self,
        keystore: Option<&KeystoreName>,
        operation: &'static str,
        outcome: &'static str,
    ) {
        self.requests.with_label_values(&[label(keystore), operation, outcome]).inc();
    }

    /// How long it took, and where. `keystore` is the one whose credential signed: `None` for what
    /// anybody can send, so that strangers don't count in a key store's times.
    pub fn request_took(
        &self,
        keystore: Option<&KeystoreName>,
        operation: &'static str,
        took: Duration,
        trace: &Trace,
    ) {
        let keystore = label(keystore);
        self.request_duration.with_label_values(&[keystore, operation]).observe(took.as_secs_f64());
        for part in Part::ALL {
            if let Some(took) = trace.time(part) {
                let labels = [keystore, operation, part.name()];
                self.request_steps.with_label_values(&labels).observe(took.as_secs_f64());
            }
        }
    }

    /// So many tokens of a key store have this status.
    pub fn external_key_managers(
        &self,
        keystore: &KeystoreName,
        status: HealthStatus,
        count: usize,
    ) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let labels = [keystore.as_str(), status.as_str()];
        self.external_key_managers.with_label_values(&labels).set(count);
    }

    /// The collector has taken the spans of so many requests.
    pub fn traces_exported(&self, requests: usize) {
        self.traces_exported.inc_by(requests as u64);
    }

    /// The spans of so many requests were thrown away.
    pub fn traces_dropped(&self, reason: TracesDropped, requests: usize) {
        let reason = match reason {
            TracesDropped::QueueFull => "queue_full",
            TracesDropped::Collector => "collector",
        };
        self.traces_dropped.with_label_values(&[reason]).inc_by(requests as u64);
    }

    /// A signature was accepted. `skew` is the signer's clock minus ours, in seconds.
    pub fn authenticated(
        &self,
        keystore: &KeystoreName,
        access_key_id: &AccessKeyId,
        skew: f64,
        took: Duration,
    ) {
        self.authentication_duration.observe(took.as_secs_f64());
        self.clock_skew.with_label_values(&[keystore.as_str()]).set(skew);
        self.credential_last_used
            .with_label_values(&[keystore.as_str(), access_key_id.as_str()])
            .set(unix_now());
    }

    /// A signature was refused.
    pub fn authentication_failed(&self, keystore: &KeystoreName, reason: &'static str) {
        self.authentication_failures.with_label_values(&[keystore.as_str(), reason]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_a_request_has_not_gone_has_no_time() {
        let (metrics, start) = (Metrics::new(), std::time::Instant::now());
        let mut trace = Trace::default();
        trace.begin_at(Part::Body, start);
        trace.end_at(start + Duration::from_millis(30));
        metrics.request_took(None, "unknown", Duration::from_millis(30), &trace);
        let text = metrics.render();
        let steps: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("xksd_request_step_duration_seconds_sum"))
            .collect();
        let body = r#"xksd_request_step_duration_seconds_sum{keystore="none",operation="unknown",step="body"} 0.03"#;
        assert_eq!(steps, [body]);
    }
}
