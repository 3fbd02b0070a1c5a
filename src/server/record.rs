//! What happened to a request, filled step by step along its path and written down at its end,
//! wherever that is.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tracing::field::display;

use super::audited::Admitted;
use super::rescue::{Rescued, Severity};
use crate::audit::record::Decision as Verdict;
use crate::metrics::Metrics;
use crate::names::{AccessKeyId, KeystoreName, Region};
use crate::operations::{Part, Trace};
use crate::policy::Decision;
use crate::sigv4::Verified;
use crate::traces::Traces;
use crate::wire::ciphertext_format::CiphertextFormat;
use crate::wire::log_text::LogText;
use crate::wire::metadata::RequestMetadata;
use crate::wire::route::Route;

/// The record of one request (P-81).
#[derive(Debug)]
pub struct Record {
    arrived: Instant,
    peer: SocketAddr,
    /// What the path names, once it was understood.
    pub route: Option<Route>,
    /// Whose key store the path names.
    pub keystore: Option<KeystoreName>,
    /// Whose secret signed.
    pub access_key_id: Option<AccessKeyId>,
    /// From which Region KMS called.
    pub region: Option<Region>,
    /// What the request says of its origin; of a refused one, what could be read.
    pub metadata: RequestMetadata,
    /// What the policies said (P-80); `None` where the key store has none, and where the request did
    /// not come so far.
    pub decision: Option<Decision>,
    /// What the operation left.
    pub trace: Trace,
    /// Whether the caller may use the key, and by which rule.
    pub verdict: Verdict,
    /// Room in the audit log, once the caller is known and if there is one.
    pub admitted: Option<Admitted>,
}

impl Record {
    /// The record of a request whose head has just arrived.
    pub fn new(arrived: Instant, peer: SocketAddr) -> Self {
        Self {
            arrived,
            peer,
            route: None,
            keystore: None,
            access_key_id: None,
            region: None,
            metadata: RequestMetadata::default(),
            decision: None,
            trace: Trace::default(),
            verdict: Verdict::None,
            admitted: None,
        }
    }

    /// Notes who the caller is.
    pub fn caller(&mut self, caller: &Verified) {
        self.access_key_id = Some(caller.access_key_id().clone());
        self.region = Some(caller.region().clone());
    }

    /// Who sent the request.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Time since its head had arrived.
    pub fn took(&self) -> Duration {
        self.arrived.elapsed()
    }

    /// When the head of the request had arrived.
    pub(super) fn arrived(&self) -> Instant {
        self.arrived
    }

    /// Writes the record: metrics, the spans of a trace, and one line at level info. What somebody
    /// must look after is said again, with its cause, at level warn or error.
    pub fn close(
        mut self,
        outcome: Result<(), &Rescued>,
        metrics: &Metrics,
        traces: Option<&Traces>,
    ) {
        let now = Instant::now();
        self.trace.end_at(now);
        let took = now.saturating_duration_since(self.arrived);
        let operation = self.route.as_ref().map_or("unknown", |route| route.operation().name());
        let error = outcome.err().map(|rescued| rescued.body.name().as_str());
        metrics.request(self.keystore.as_ref(), operation, error.unwrap_or("OK"));
        let proved = self.keystore.as_ref().filter(|_| self.access_key_id.is_some());
        metrics.request_took(proved, operation, took, &self.trace);
        // Strangers must not be able to fill the collector, nor to push others out of the queue.
        let traces = traces.filter(|_| proved.is_some());
        if let Some(traces) = traces
            && let Some(id) = traces.sample()
        {
            traces.offer(self.spans(id, outcome));
        }
        let key = self.route.as_ref().and_then(Route::key);
        if let (Some(keystore), Some(key)) = (&self.keystore, key) {
            for _ in 0..self.trace.encryptions {
                metrics.key_encrypted(keystore, key);
            }
        }
        self.line(operation, key.map(display), outcome, took);
        let kms_request_id = display(LogText::new(self.metadata.kms_request_id()));
        for error in self.decision.iter().flat_map(Decision::errors) {
            let (keystore, error) = (self.keystore.as_ref().map(display), LogText::new(error));
            tracing::error!(kms_request_id, keystore, %error, "authorization could not be decided");
        }
        let Err(rescued) = outcome else { return };
        let token = self.trace.token.as_ref().map(display);
        let cause = display(&rescued.cause);
        match rescued.severity {
            Severity::Caller => {}
            Severity::Degraded => tracing::warn!(kms_request_id, token, cause, "request failed"),
            Severity::Act => tracing::error!(kms_request_id, token, cause, "request failed"),
        }
    }

    fn line(
        &self,
        operation: &str,
        key: Option<impl tracing::Value>,
        outcome: Result<(), &Rescued>,
        took: Duration,
    ) {
        let metadata = &self.metadata;
        // P-22: strings of the request are escaped and cut.
        let text = |text| display(LogText::new(text));
        tracing::info!(
            kms_request_id = text(metadata.kms_request_id()),
            kms_operation = text(metadata.kms_operation()),
            keystore = self.keystore.as_ref().map(display),
            op = operation,
            key,
            version = self.trace.version.map(display),
            format = self.trace.format.and_then(CiphertextFormat::foreign_name),
            token = self.trace.token.as_ref().map(display),
            attempts = (self.trace.attempts > 1).then_some(self.trace.attempts),
            outcome = if outcome.is_ok() { "ok" } else { "refused" },
            error = outcome.err().map(|rescued| rescued.body.name().as_str()),
            cause = outcome.err().map(|rescued| display(&rescued.cause)),
            principal = metadata.aws_principal_arn().map(text),
            kms_key_arn = metadata.kms_key_arn().map(text),
            via_service = metadata.kms_via_service().map(text),
            vpc = metadata.aws_source_vpc().map(text),
            vpce = metadata.aws_source_vpce().map(text),
            decision = self.decision.as_ref().map(|decision| decision.outcome().label()),
            policies = self.decision.as_ref().map(|decision| decision.policies().join(",")),
            access_key_id = self.access_key_id.as_ref().map(display),
            region = self.region.as_ref().map(display),
            peer = display(self.peer),
            queue_ms = milliseconds(self.trace.time(Part::Queue).unwrap_or_default()),
            hsm_ms = milliseconds(self.trace.time(Part::Hsm).unwrap_or_default()),
            total_ms = milliseconds(took),
            "request"
        );
    }
}

/// To a microsecond: more digits are noise in a log.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
