//! All metrics, in one registry that is passed to whoever counts.
//!
//! Label values come from closed sets or from names in the configuration, so that a stranger who
//! sends requests can't create series. Units and names follow the Prometheus conventions.

mod audit;
mod counts;
mod credentials;
mod labels;
mod register;
mod requests;
mod rotation;
mod token;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Registry, TextEncoder,
};

use crate::hsm::token::TokenState;
use crate::limits::Exceeded;
use crate::names::{AccessKeyId, ExternalKeyId, KeystoreName, TokenName};
use crate::policy::Outcome;
use crate::wire::health::HealthStatus;
pub use audit::AuditMetrics;
pub use labels::{Closed, QuotaOf, TracesDropped};
use register::{counter, counters, float_gauge, gauge, gauges, histogram, histograms, int_gauges};
pub use rotation::Rotated;
use token::Gauges;
pub use token::{HsmCall, JobRefused, TokenMetrics};

/// The registry and everything in it.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    audit: AuditMetrics,
    /// While it is written, one token's gauges take the place of another's.
    shown: RwLock<()>,
    requests: IntCounterVec,
    request_duration: HistogramVec,
    request_steps: HistogramVec,
    authentication_failures: IntCounterVec,
    authentication_duration: Histogram,
    clock_skew: GaugeVec,
    credential_last_used: GaugeVec,
    credential_created: GaugeVec,
    tls_handshakes: IntCounterVec,
    tls_handshake_duration: Histogram,
    connections: IntGauge,
    connections_closed: IntCounterVec,
    accept_errors: IntCounter,
    panics: IntCounter,
    over_quota: IntCounterVec,
    authorization_decisions: IntCounterVec,
    authorization_duration: Histogram,
    reloads: IntCounterVec,
    reload_success: Gauge,
    reload_refused: IntGauge,
    restart_pending: IntGauge,
    certificate_expiry: Gauge,
    key_encryptions: IntCounterVec,
    encryptions_counted: IntGaugeVec,
    encryption_share: IntGauge,
    count_write_failures: IntCounter,
    rotations: IntCounterVec,
    write_checks_failed: IntCounterVec,
    write_checks_skipped: IntCounterVec,
    hsm_calls: HistogramVec,
    hsm_call_failures: IntCounterVec,
    hsm_queue: HistogramVec,
    hsm_jobs_refused: IntCounterVec,
    hsm_failovers: IntCounterVec,
    hsm_processes: IntCounterVec,
    external_key_managers: IntGaugeVec,
    traces_exported: IntCounter,
    traces_dropped: IntCounterVec,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// An empty registry.
    pub fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        let metrics = Self {
            requests: counters(
                r,
                "xksd_requests_total",
                "Requests answered, by key store, operation and outcome (OK or the error name).",
                &["keystore", "operation", "outcome"],
            ),
            request_duration: histograms(
                r,
                "xksd_request_duration_seconds",
                "From the end of a request's head to its answer; keystore `none`: its signature did not hold.",
                &["keystore", "operation"],
            ),
            request_steps: histograms(
                r,
                "xksd_request_step_duration_seconds",
                "Time of each request in each step of its way, retries together.",
                &["keystore", "operation", "step"],
            ),
            authentication_failures: counters(
                r,
                "xksd_authentication_failures_total",
                "Requests whose SigV4 signature was refused, by reason.",
                &["keystore", "reason"],
            ),
            authentication_duration: histogram(
                r,
                "xksd_authentication_duration_seconds",
                "Time to verify a SigV4 signature.",
            ),
            clock_skew: gauges(
                r,
                "xksd_clock_skew_seconds",
                "X-Amz-Date of the last authenticated request minus the time here.",
                &["keystore"],
            ),
            credential_last_used: gauges(
                r,
                "xksd_credential_last_used_timestamp_seconds",
                "When a request signed with this access key id was last accepted.",
                &["keystore", "access_key_id"],
            ),
            credential_created: gauges(
                r,
                "xksd_credential_created_timestamp_seconds",
                "When the file of this credential's secret was last changed.",
                &["keystore", "access_key_id"],
            ),
            tls_handshakes: counters(
                r,
                "xksd_tls_handshakes_total",
                "TLS handshakes, by outcome.",
                &["outcome"],
            ),
            tls_handshake_duration: histogram(
                r,
                "xksd_tls_handshake_duration_seconds",
                "Time from accepting a connection to the end of a successful TLS handshake.",
            ),
            connections: gauge(r, "xksd_connections", "Open connections of the XKS listener."),
            connections_closed: counters(
                r,
                "xksd_connections_closed_total",
                "Connections that xksd closed, by reason.",
                &["reason"],
            ),
            accept_errors: counter(r, "xksd_accept_errors_total", "Failed accept calls."),
            over_quota: counters(
                r,
                "xksd_over_quota_total",
                "Requests refused since the quota of their key store, or that of each key, was used up.",
                &["keystore", "quota", "limit"],
            ),
            authorization_decisions: counters(
                r,
                "xksd_authorization_decisions_total",
                "Requests put to authorization policies, by key store and outcome.",
                &["keystore", "outcome"],
            ),
            authorization_duration: histogram(
                r,
                "xksd_authorization_duration_seconds",
                "Time to put a request to the authorization policies.",
            ),
            panics: counter(
                r,
                "xksd_panics_total",
                "Panics caught while serving a request. Each is a defect: please report it.",
            ),
            reloads: counters(
                r,
                "xksd_reloads_total",
                "Reloads of the configuration, by outcome: applied or refused.",
                &["outcome"],
            ),
            reload_success: float_gauge(
                r,
                "xksd_reload_success_timestamp_seconds",
                "When a configuration was last applied, the start included.",
            ),
            reload_refused: gauge(
                r,
                "xksd_reload_refused",
                "Whether the configuration that was read last was refused and an older one serves.",
            ),
            restart_pending: gauge(
                r,
                "xksd_restart_pending",
                "Settings that differ from what is served until xksd is started anew.",
            ),
            certificate_expiry: float_gauge(
                r,
                "xksd_certificate_expiry_timestamp_seconds",
                "When the server certificate expires.",
            ),
            key_encryptions: counters(
                r,
                "xksd_key_encryptions_total",
                "Encryptions made by the HSM, by external key; AES-GCM is bounded at 2^32 a key.",
                &["keystore", "key"],
            ),
            encryptions_counted: int_gauges(
                r,
                "xksd_key_encryptions_counted",
                "Encryptions of this proxy's that count against the 2^32 of a version of a key.",
                &["tokens", "key", "version", "object_id"],
            ),
            encryption_share: gauge(
                r,
                "xksd_key_encryptions_share",
                "What this proxy may use of the 2^32 encryptions of each version of a key.",
            ),
            count_write_failures: counter(
                r,
                "xksd_key_encryptions_write_failures_total",
                "Failed writes of the encryption counts to the state directory.",
            ),
            rotations: counters(
                r,
                "xksd_rotations_total",
                "Keys that fell due and were to be rotated, by what came of it.",
                &["keystore", "outcome"],
            ),
            write_checks_failed: counters(
                r,
                "xksd_write_checks_failed_total",
                "Ciphertexts thrown away because the HSM did not decrypt them to the plaintext.",
                &["token"],
            ),
            write_checks_skipped: counters(
                r,
                "xksd_write_checks_skipped_total",
                "Encryptions sent unchecked under `verify_writes = \"always\"`: the key lacks CKA_DECRYPT.",
                &["token"],
            ),
            hsm_calls: histograms(
                r,
                "xksd_hsm_call_duration_seconds",
                "Time inside the PKCS#11 library, by token and C function.",
                &["token", "function"],
            ),
            hsm_call_failures: counters(
                r,
                "xksd_hsm_call_failures_total",
                "PKCS#11 calls that did not return CKR_OK.",
                &["token", "function", "code"],
            ),
            hsm_queue: histograms(
                r,
                "xksd_hsm_queue_duration_seconds",
                "Time that a job waited for a free session.",
                &["token"],
            ),
            hsm_jobs_refused: counters(
                r,
                "xksd_hsm_jobs_refused_total",
                "Jobs that no session took: the queue was full, they had expired, the token down.",
                &["token", "reason"],
            ),
            hsm_failovers: counters(
                r,
                "xksd_hsm_failovers_total",
                "Attempts that gave nothing on this token, after which another token was tried.",
                &["token"],
            ),
            hsm_processes: counters(
                r,
                "xksd_hsm_process_starts_total",
                "Processes started for the token's library; more than one: it crashed or hung.",
                &["token"],
            ),
            external_key_managers: int_gauges(
                r,
                "xksd_external_key_managers",
                "Tokens of the key store, by what GetHealthStatus would say of them now.",
                &["keystore", "status"],
            ),
            traces_exported: counter(
                r,
                "xksd_traces_exported_total",
                "Requests whose spans the collector of traces has taken.",
            ),
            traces_dropped: counters(
                r,
                "xksd_traces_dropped_total",
                "Requests whose spans were thrown away, by reason.",
                &["reason"],
            ),
            audit: AuditMetrics::new(r),
            registry: registry.clone(),
            shown: RwLock::default(),
        };
        let build =
            int_gauges(r, "xksd_build_info", "Always 1; the release is a label.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let process = prometheus::process_collector::ProcessCollector::for_self();
        registry.register(Box::new(process)).expect("registered once, with names of its own");
        metrics
    }

    /// Everything in Prometheus text format.
    pub fn render(&self) -> String {
        let _whole = self.shown.read().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut buffer)
            .expect("the registry holds no empty family");
        String::from_utf8(buffer).expect("the text format is UTF-8")
    }

    /// A TLS handshake succeeded.
    pub fn tls_handshake(&self, took: Duration) {
        self.tls_handshakes.with_label_values(&["ok"]).inc();
        self.tls_handshake_duration.observe(took.as_secs_f64());
    }

    /// A TLS handshake failed.
    pub fn tls_handshake_failed(&self) {
        self.tls_handshakes.with_label_values(&["failed"]).inc();
    }

    /// The gauge of open connections.
    pub fn connections(&self) -> &IntGauge {
        &self.connections
    }

    /// We closed a connection.
    pub fn closed(&self, reason: Closed) {
        self.connections_closed.with_label_values(&[reason.label()]).inc();
    }

    /// accept(2) failed.
    pub fn accept_error(&self) {
        self.accept_errors.inc();
    }

    /// A request was refused since it was over a quota.
    pub fn over_quota(&self, keystore: &KeystoreName, whose: QuotaOf, limit: Exceeded) {
        let quota = match whose {
            QuotaOf::Keystore => "keystore",
            QuotaOf::Key => "key",
        };
        let limit = match limit {
            Exceeded::Rate => "requests_per_second",
            Exceeded::Concurrent => "concurrent",
        };
        self.over_quota.with_label_values(&[keystore.as_str(), quota, limit]).inc();
    }

    /// The policies of a key store have decided.
    pub fn decided(&self, keystore: &KeystoreName, outcome: Outcome, took: Duration) {
        let labels = [keystore.as_str(), outcome.label()];
        self.authorization_decisions.with_label_values(&labels).inc();
        self.authorization_duration.observe(took.as_secs_f64());
    }

    /// A request ended in a panic.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// A configuration is served from now on; so many of its settings take a restart.
    pub fn configured(&self, restart_pending: usize) {
        self.reload_success.set(unix_now());
        self.reload_refused.set(0);
        self.restart_pending.set(i64::try_from(restart_pending).unwrap_or(i64::MAX));
    }

    /// A reload has been applied.
    pub fn reloaded(&self) {
        self.reloads.with_label_values(&["applied"]).inc();
    }

    /// A reload was refused: what was served before is served on.
    pub fn reload_refused(&self) {
        self.reloads.with_label_values(&["refused"]).inc();
        self.reload_refused.set(1);
    }

    /// When the server certificate expires, in seconds since 1970.
    pub fn certificate_expires(&self, unix_seconds: f64) {
        self.certificate_expiry.set(unix_seconds);
    }

    /// The HSM encrypted under this key, whether or not the result was sent.
    pub fn key_encrypted(&self, keystore: &KeystoreName, key: &ExternalKeyId) {
        self.key_encryptions.with_label_values(&[keystore.as_str(), key.as_str()]).inc();
    }

    /// What counts for the audit log.
    pub fn audit(&self) -> AuditMetrics {
        self.audit.clone()
    }

    /// What counts for one token, shown from the start.
    pub fn token(&self, name: &TokenName) -> Arc<TokenMetrics> {
        let metrics = self.candidate(name);
        self.show(&metrics);
        metrics
    }

    /// What counts for a token that may take the place of another one of its name. What it has done
    /// is counted together with that one's; how it is is not seen before [`Metrics::show`].
    pub fn candidate(&self, name: &TokenName) -> Arc<TokenMetrics> {
        let token = name.as_str();
        let metrics = Arc::new(TokenMetrics {
            token: token.to_owned(),
            calls: self.hsm_calls.clone(),
            call_failures: self.hsm_call_failures.clone(),
            queue: self.hsm_queue.with_label_values(&[token]),
            refused: self.hsm_jobs_refused.clone(),
            write_checks_failed: self.write_checks_failed.with_label_values(&[token]),
            write_checks_skipped: self.write_checks_skipped.with_label_values(&[token]),
            gauges: Gauges::new(name),
            processes: self.hsm_processes.with_label_values(&[token]),
            failovers: self.hsm_failovers.with_label_values(&[token]),
            notes: None,
        });
        metrics.is(TokenState::Probing);
        metrics
    }

    /// Shows how this token is, in the place of another one of its name.
    pub fn show(&self, token: &TokenMetrics) {
        let _alone = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        for (gauge, same) in token.gauges.all().into_iter().zip(token.gauges.all()) {
            // The registry knows them by name and labels.
            let _another = self.registry.unregister(same);
            self.registry.register(gauge).expect("there is no other one any more");
        }
    }

    /// Shows no more how the token of this name is: there is none any more.
    pub fn hide(&self, name: &TokenName) {
        let _alone = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        for gauge in Gauges::new(name).all() {
            let _ = self.registry.unregister(gauge);
        }
    }

    /// A key store has gone from the configuration.
    pub fn keystore_gone(&self, keystore: &KeystoreName) {
        let keystore = keystore.as_str();
        let _ = self.clock_skew.remove_label_values(&[keystore]);
        for status in HealthStatus::ALL {
            let _ = self.external_key_managers.remove_label_values(&[keystore, status.as_str()]);
        }
    }

    /// An access key id has gone from the configuration.
    pub fn credential_gone(&self, keystore: &KeystoreName, access_key_id: &AccessKeyId) {
        let labels = [keystore.as_str(), access_key_id.as_str()];
        // There is nothing to remove where it was never used.
        let _ = self.credential_last_used.remove_label_values(&labels);
        let _ = self.credential_created.remove_label_values(&labels);
    }
}

/// A request of no key store, or not proved to be of one, counts under `none`.
fn label(keystore: Option<&KeystoreName>) -> &str {
    keystore.map_or("none", KeystoreName::as_str)
}

fn unix_now() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hsm::codes::Code;

    #[test]
    fn the_registry_can_be_made_and_rendered() {
        let metrics = Metrics::new();
        let keystore: KeystoreName = "demo".parse().unwrap();
        metrics.request(Some(&keystore), "Encrypt", "OK");
        metrics.request(None, "unknown", "InvalidUriPathException");
        let text = metrics.render();
        let line = r#"xksd_requests_total{keystore="demo",operation="Encrypt",outcome="OK"} 1"#;
        assert!(text.contains(line), "{text}");
        assert!(text.contains(r#"keystore="none""#));
        assert!(text.contains("process_resident_memory_bytes"));
    }

    #[test]
    fn a_token_is_in_one_state() {
        let metrics = Metrics::new();
        let token = metrics.token(&"t".parse().unwrap());
        let states = || {
            let text = metrics.render();
            let states = text.lines().filter(|line| line.starts_with("xksd_hsm_state{"));
            let states = states.filter(|line| line.ends_with(" 1")).map(str::to_owned);
            states.collect::<Vec<_>>()
        };
        assert_eq!(states(), [r#"xksd_hsm_state{state="probing",token="t"} 1"#]);
        token.is(TokenState::Suspect);
        assert_eq!(states(), [r#"xksd_hsm_state{state="suspect",token="t"} 1"#]);
    }

    #[test]
    fn a_vendors_own_code_makes_no_series_of_its_own() {
        let metrics = Metrics::new();
        let token = metrics.token(&"t".parse().unwrap());
        token.hsm_call("C_Encrypt", Duration::ZERO, Code(0x8000_0001));
        token.hsm_call("C_Encrypt", Duration::ZERO, Code(0x8000_0002));
        let line =
            r#"xksd_hsm_call_failures_total{code="vendor",function="C_Encrypt",token="t"} 2"#;
        assert!(metrics.render().contains(line));
    }
}
