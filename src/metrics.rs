//! All metrics, in one registry that is passed to whoever counts.
//!
//! Label values come from closed sets or from names in the configuration, so that a stranger who
//! sends requests can't create series. Units and names follow the Prometheus conventions.

mod token;

use std::sync::Arc;
use std::time::Duration;

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::limits::Exceeded;
use crate::names::{AccessKeyId, ExternalKeyId, KeystoreName, TokenName};
use crate::policy::Outcome;
pub use token::{HsmCall, JobRefused, TokenMetrics};

/// Buckets from 10 µs, a soft token's call, to the 250 ms that KMS waits, and beyond.
const SECONDS: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025,
    0.05, 0.1, 0.15, 0.2, 0.25, 0.5, 1.0, 5.0,
];

/// The registry and everything in it.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_duration: HistogramVec,
    authentication_failures: IntCounterVec,
    authentication_duration: Histogram,
    clock_skew: GaugeVec,
    credential_last_used: GaugeVec,
    tls_handshakes: IntCounterVec,
    tls_handshake_duration: Histogram,
    connections: IntGauge,
    connections_closed: IntCounterVec,
    accept_errors: IntCounter,
    panics: IntCounter,
    over_quota: IntCounterVec,
    authorization_decisions: IntCounterVec,
    authorization_duration: Histogram,
    certificate_expiry: Gauge,
    key_encryptions: IntCounterVec,
    write_checks_failed: IntCounterVec,
    write_checks_skipped: IntCounterVec,
    hsm_calls: HistogramVec,
    hsm_call_failures: IntCounterVec,
    hsm_queue: HistogramVec,
    hsm_jobs_refused: IntCounterVec,
    hsm_sessions: IntGaugeVec,
    hsm_up: IntGaugeVec,
    hsm_suspect: IntGaugeVec,
    hsm_failovers: IntCounterVec,
    hsm_key_versions: IntGaugeVec,
    hsm_probe_duration: GaugeVec,
    hsm_processes: IntCounterVec,
    catalogue_keys: IntGaugeVec,
    catalogue_read: GaugeVec,
}

/// Why a connection was closed from our side, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// More connections than allowed.
    Limit,
    /// The TLS handshake, or the PROXY header, did not end in time.
    HandshakeTimeout,
    /// The head of a request did not end in time.
    HeadTimeout,
    /// No request for as long as idle connections are kept.
    Idle,
    /// A PROXY header was missing, malformed or unexpected.
    ProxyHeader,
}

impl Closed {
    fn label(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::HeadTimeout => "head_timeout",
            Self::Idle => "idle",
            Self::ProxyHeader => "proxy_header",
        }
    }
}

/// Whose quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaOf {
    /// The key store's.
    Keystore,
    /// That of each key.
    Key,
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
                "From the end of a request's head to its answer.",
                &["keystore", "operation"],
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
            hsm_sessions: int_gauges(
                r,
                "xksd_hsm_sessions",
                "Sessions that are open and serve requests.",
                &["token"],
            ),
            hsm_up: int_gauges(r, "xksd_hsm_up", "Whether the token is served.", &["token"]),
            hsm_suspect: int_gauges(
                r,
                "xksd_hsm_suspect",
                "Whether the token serves only where no other token can: it fails or is slow.",
                &["token"],
            ),
            hsm_failovers: counters(
                r,
                "xksd_hsm_failovers_total",
                "Attempts that gave nothing on this token, after which another token was tried.",
                &["token"],
            ),
            hsm_key_versions: int_gauges(
                r,
                "xksd_hsm_key_versions",
                "Versions of keys, by what is known of the token's object beside other tokens'.",
                &["token", "standing"],
            ),
            hsm_probe_duration: gauges(
                r,
                "xksd_hsm_probe_duration_seconds",
                "Duration of the last successful health probe.",
                &["token"],
            ),
            hsm_processes: counters(
                r,
                "xksd_hsm_process_starts_total",
                "Processes started for the token's library; more than one: it crashed or hung.",
                &["token"],
            ),
            catalogue_keys: int_gauges(
                r,
                "xksd_catalogue_keys",
                "External keys found in the token.",
                &["token"],
            ),
            catalogue_read: gauges(
                r,
                "xksd_catalogue_read_timestamp_seconds",
                "When the token's keys were last read completely.",
                &["token"],
            ),
            registry: registry.clone(),
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
        let mut buffer = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut buffer)
            .expect("the registry holds no empty family");
        String::from_utf8(buffer).expect("the text format is UTF-8")
    }

    /// An answered request. `outcome` is `OK` or the error's name.
    pub fn request(
        &self,
        keystore: Option<&KeystoreName>,
        operation: &'static str,
        outcome: &'static str,
        took: Duration,
    ) {
        let keystore = label(keystore);
        self.requests.with_label_values(&[keystore, operation, outcome]).inc();
        self.request_duration.with_label_values(&[keystore, operation]).observe(took.as_secs_f64());
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

    /// When the server certificate expires, in seconds since 1970.
    pub fn certificate_expires(&self, unix_seconds: f64) {
        self.certificate_expiry.set(unix_seconds);
    }

    /// The HSM encrypted under this key, whether or not the result was sent.
    pub fn key_encrypted(&self, keystore: &KeystoreName, key: &ExternalKeyId) {
        self.key_encryptions.with_label_values(&[keystore.as_str(), key.as_str()]).inc();
    }

    /// What counts for one token.
    pub fn token(&self, name: &TokenName) -> Arc<TokenMetrics> {
        let token = name.as_str();
        Arc::new(TokenMetrics {
            token: token.to_owned(),
            calls: self.hsm_calls.clone(),
            call_failures: self.hsm_call_failures.clone(),
            queue: self.hsm_queue.with_label_values(&[token]),
            refused: self.hsm_jobs_refused.clone(),
            write_checks_failed: self.write_checks_failed.with_label_values(&[token]),
            write_checks_skipped: self.write_checks_skipped.with_label_values(&[token]),
            sessions: self.hsm_sessions.with_label_values(&[token]),
            up: self.hsm_up.with_label_values(&[token]),
            probe: self.hsm_probe_duration.with_label_values(&[token]),
            keys: self.catalogue_keys.with_label_values(&[token]),
            read: self.catalogue_read.with_label_values(&[token]),
            processes: self.hsm_processes.with_label_values(&[token]),
            suspect: self.hsm_suspect.with_label_values(&[token]),
            failovers: self.hsm_failovers.with_label_values(&[token]),
            key_versions: self.hsm_key_versions.clone(),
            notes: None,
        })
    }
}

/// A request whose path names no key store counts under `none`.
fn label(keystore: Option<&KeystoreName>) -> &str {
    keystore.map_or("none", KeystoreName::as_str)
}

fn unix_now() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0.0, |since| since.as_secs_f64())
}

/// Registers a collector. Names are constants of this file, each used once.
fn register<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    collector: prometheus::Result<C>,
) -> C {
    let collector = collector.expect("the name and labels are valid constants");
    registry.register(Box::new(collector.clone())).expect("each name is registered once");
    collector
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register(registry, IntCounter::new(name, help))
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register(registry, IntGauge::new(name, help))
}

fn float_gauge(registry: &Registry, name: &str, help: &str) -> Gauge {
    register(registry, Gauge::new(name, help))
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    register(registry, GaugeVec::new(Opts::new(name, help), labels))
}

fn int_gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    register(registry, IntGaugeVec::new(Opts::new(name, help), labels))
}

fn histogram(registry: &Registry, name: &str, help: &str) -> Histogram {
    let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
    register(registry, Histogram::with_opts(options))
}

fn histograms(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
    register(registry, HistogramVec::new(options, labels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hsm::codes::Code;

    #[test]
    fn the_registry_can_be_made_and_rendered() {
        let metrics = Metrics::new();
        let keystore: KeystoreName = "demo".parse().unwrap();
        metrics.request(Some(&keystore), "Encrypt", "OK", Duration::from_millis(2));
        metrics.request(None, "unknown", "InvalidUriPathException", Duration::ZERO);
        let text = metrics.render();
        let line = r#"xksd_requests_total{keystore="demo",operation="Encrypt",outcome="OK"} 1"#;
        assert!(text.contains(line), "{text}");
        assert!(text.contains(r#"keystore="none""#));
        assert!(text.contains("process_resident_memory_bytes"));
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
