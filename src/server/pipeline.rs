//! The path of a request, from its head to its answer. Each step gives the proof that the next
//! one asks for: a signature that holds, a permit for the key's name, the key itself.

use std::collections::HashMap;
use std::iter::once;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;

use super::audited::Auditor;
use super::record::Record;
use super::rescue::{Failure, Rescued};
use super::serving::{Lease, Serving};
use crate::audit::record::Decision as Verdict;
use crate::clock::{Clock, Deadline};
use crate::counts::Counts;
use crate::hsm::fleet::Group;
use crate::hsm::lanes::Lane;
use crate::keystore::{Asked, Keystore, Keystores, Permit};
use crate::limits::Admission;
use crate::metrics::Metrics;
use crate::names::{ExternalKeyId, KeystoreName};
use crate::operations::{self, Call, Part};
use crate::policy::Decision;
use crate::sigv4::{SignedRequest, Verified, Verifier};
use crate::traces::Traces;
use crate::wire::limits::Limits;
use crate::wire::request::{
    DecryptRequest, EncryptRequest, HealthRequest, MetadataRequest, Rejected,
};
use crate::wire::response::ResponseBody;
use crate::wire::route::{self, KeyOperation, Route, RouteError, Target};

/// Everything that requests are judged by and served with; never changed, only replaced.
#[derive(Debug)]
pub struct Snapshot {
    /// Who may ask for what.
    pub keystores: Keystores,
    /// The tokens of each key store.
    pub groups: HashMap<KeystoreName, Arc<Group>>,
    /// How many proxies serve this endpoint (P-60).
    pub fleet_size: NonZeroU32,
    /// Where encryptions are counted against the limits of keys, if there is such a place.
    pub counts: Option<Arc<Counts>>,
    /// Largest plaintext, ciphertext and AAD (P-23).
    pub limits: Limits,
    /// Time for a request, from its head (P-8).
    pub deadline: Duration,
}

/// Serves requests.
#[derive(Debug)]
pub struct Pipeline {
    serving: Arc<Serving>,
    verifier: Verifier,
    metrics: Arc<Metrics>,
    traces: Option<Traces>,
    auditor: Auditor,
}

/// The head of a request, as it arrived.
#[derive(Debug)]
pub struct Head {
    /// The method.
    pub method: String,
    /// The path as sent, without query.
    pub path: String,
    /// What follows the question mark, if there is one.
    pub query: Option<String>,
    /// `:authority` of HTTP/2.
    pub authority: Option<String>,
    /// All headers.
    pub headers: HeaderMap,
    /// Who sent it, by TCP or by a trusted load balancer's word.
    pub peer: SocketAddr,
    /// Subject of the client's certificate, where one was asked for (P-16).
    pub client_subject: Option<Arc<str>>,
    /// When it had arrived completely.
    pub arrived: Instant,
}

/// What goes back.
#[derive(Debug)]
pub struct Answer {
    /// The operation's answer, or the error in the protocol's words.
    pub result: Result<ResponseBody, Rescued>,
    /// Whether the caller has proved who it is.
    pub authenticated: bool,
}

impl Pipeline {
    /// Serves each request by the snapshot of its time.
    pub fn new(serving: Arc<Serving>, verifier: Verifier, metrics: Arc<Metrics>) -> Self {
        Self { serving, verifier, metrics, traces: None, auditor: Auditor::default() }
    }

    /// The same, with an audit log.
    #[must_use]
    pub fn audited_by(self, auditor: Auditor) -> Self {
        Self { auditor, ..self }
    }

    /// The same, with traces of what is served.
    #[must_use]
    pub fn with_traces(self, traces: Option<Traces>) -> Self {
        Self { traces, ..self }
    }

    /// Serves one request and records it.
    pub async fn serve<B: AsRef<[u8]>>(
        &self,
        head: Head,
        body: impl Future<Output = Result<B, Failure>>,
    ) -> Answer {
        let mut record = Record::new(head.arrived, head.peer);
        record.trace.begin_at(Part::Body, head.arrived);
        let result = self.answer(&head, body, &mut record).await;
        // An error ends the part in which it arose.
        if result.is_err() {
            record.trace.begin(Part::Respond);
        }
        let over = result.as_ref().err().and_then(Failure::over_quota);
        if let (Some((whose, limit)), Some(keystore)) = (over, &record.keystore) {
            self.metrics.over_quota(keystore, whose, limit);
        }
        let result = self.auditor.record(&mut record, result).await;
        let authenticated = record.access_key_id.is_some();
        record.close(result.as_ref().map(|_| ()), &self.metrics, self.traces.as_ref());
        Answer { result, authenticated }
    }

    /// The path itself. Errors leave it where they arise (P-71 gives the order).
    async fn answer<B: AsRef<[u8]>>(
        &self,
        head: &Head,
        body: impl Future<Output = Result<B, Failure>>,
        record: &mut Record,
    ) -> Result<ResponseBody, Failure> {
        // Read first, judged later: an answer that comes while the body is still being sent is
        // missed by some clients (curl over HTTP/2, for one).
        let body = body.await;
        record.trace.begin(Part::Authenticate);
        // Not before: who may not go on any more is not let in by a body that takes its time.
        let now = self.serving.current();
        let deadline = Deadline::at(head.arrived + now.deadline);
        let (route, keystore) = route(&now, head, record)?;
        let body = body?;
        let caller = self.verify(head, body.as_ref(), keystore)?;
        record.caller(&caller);
        // Before the HSM is used: what can't be recorded may have to be refused.
        record.admitted = self.auditor.admit(head, keystore, &caller, (&route, deadline))?;
        record.trace.begin(Part::Authorize);
        keystore.open(&caller)?;
        let group = &now.groups[keystore.name()];
        let arrived = head.arrived;
        let body = body.as_ref();
        match route.target {
            // P-62: health has no permit, and so no secondary authorization.
            Target::Health => {
                record.metadata =
                    HealthRequest::parse(body).map_err(|r| rejected(r, record))?.metadata;
                record.trace.begin(Part::Respond);
                Ok(operations::health(group, now.fleet_size).to_body())
            }
            Target::Key { id, operation } => {
                // Before the body is looked at: what is too much costs next to nothing.
                let admission = keystore.admit(&caller)?;
                let client_subject = head.client_subject.as_deref();
                let mut call = KeyCall {
                    caller,
                    admission,
                    keystore,
                    id: &id,
                    operation,
                    client_subject,
                    group,
                    counts: now.counts.as_deref(),
                    arrived,
                    deadline,
                    clock: self.verifier.clock(),
                    metrics: &self.metrics,
                };
                match operation {
                    KeyOperation::Metadata => call.describe(body, record).await,
                    KeyOperation::Encrypt => call.encrypt(body, now.limits, record).await,
                    KeyOperation::Decrypt => call.decrypt(body, now.limits, record).await,
                }
            }
        }
    }

    fn verify(&self, head: &Head, body: &[u8], keystore: &Keystore) -> Result<Verified, Failure> {
        let start = Instant::now();
        let request = SignedRequest {
            method: &head.method,
            path: &head.path,
            query: head.query.as_deref(),
            authority: head.authority.as_deref(),
            headers: &head.headers,
            body,
        };
        let name = keystore.name();
        match self.verifier.verify(&request, keystore.credentials(), keystore.regions()) {
            Ok(caller) => {
                let (id, ahead) = (caller.access_key_id(), caller.ahead_seconds());
                self.metrics.authenticated(name, id, ahead as f64, start.elapsed());
                Ok(caller)
            }
            Err(failure) => {
                self.metrics.authentication_failed(name, failure.reason());
                self.auditor.refused(name, failure.reason());
                Err(failure.into())
            }
        }
    }
}

/// Whose path it is. Nothing is authenticated yet: the path chooses whose credentials to try, and
/// nothing else.
fn route<'a>(
    now: &'a Lease,
    head: &Head,
    record: &mut Record,
) -> Result<(Route, &'a Arc<Keystore>), Failure> {
    let (route, is_post) = match route::parse(&head.method, &head.path) {
        Ok(route) => (route, true),
        Err(RouteError::MethodNotAllowed { route }) => (route, false),
        Err(RouteError::NotFound) => return Err(Failure::Path),
    };
    let keystore = now.keystores.find(&route.prefix).ok_or(Failure::Path)?;
    record.keystore = Some(keystore.name().clone());
    record.route = Some(route.clone());
    if is_post { Ok((route, keystore)) } else { Err(Failure::Method) }
}

/// An authenticated request for one key.
struct KeyCall<'a> {
    caller: Verified,
    /// Held until the request is answered.
    admission: Admission,
    keystore: &'a Keystore,
    id: &'a ExternalKeyId,
    operation: KeyOperation,
    client_subject: Option<&'a str>,
    group: &'a Group,
    counts: Option<&'a Counts>,
    arrived: Instant,
    deadline: Deadline,
    clock: Clock,
    metrics: &'a Metrics,
}

impl<'k> KeyCall<'k> {
    /// What the key rules and the policies say (P-80), once it is known what is asked; noted for the
    /// record.
    fn permit(&self, record: &mut Record) -> Result<Permit<'k>, Failure> {
        let Self { operation, client_subject, .. } = *self;
        let (metadata, time) = (&record.metadata, self.clock.now());
        let asked = Asked { operation, metadata, client_subject, time };
        let start = Instant::now();
        let judged = self.keystore.judge(&self.caller, &self.admission, self.id, &asked);
        let judged = judged.inspect_err(|_| record.verdict = Verdict::Denied(Vec::new()))?;
        let rule = judged.rule();
        if let Some(decision) = judged.decision() {
            self.metrics.decided(self.keystore.name(), decision.outcome(), start.elapsed());
            record.decision = Some(decision.clone());
        }
        let permit = judged.into_permit();
        // Without an audit log nobody reads it.
        if record.admitted.is_some() {
            let policies = record.decision.iter().flat_map(Decision::policies);
            let policies = policies.map(|policy| policy.to_string());
            record.verdict = match permit {
                Ok(_) => {
                    Verdict::Allowed(once(format!("key-rule:{rule}")).chain(policies).collect())
                }
                Err(_) => Verdict::Denied(policies.collect()),
            };
        }
        Ok(permit?)
    }

    async fn describe(
        &mut self,
        body: &[u8],
        record: &mut Record,
    ) -> Result<ResponseBody, Failure> {
        record.metadata = MetadataRequest::parse(body).map_err(|r| rejected(r, record))?.metadata;
        let permit = self.permit(record)?;
        let mut call = self.call(record);
        let answer = operations::describe(&mut call, &permit).await?;
        record.trace.begin(Part::Respond);
        Ok(answer.to_body())
    }

    async fn encrypt(
        &mut self,
        body: &[u8],
        limits: Limits,
        record: &mut Record,
    ) -> Result<ResponseBody, Failure> {
        let mut request = EncryptRequest::parse(body, limits).map_err(|r| rejected(r, record))?;
        record.metadata = std::mem::take(&mut request.metadata);
        let permit = self.permit(record)?;
        let mut call = self.call(record);
        let answer = operations::encrypt(&mut call, &permit, request).await?;
        record.trace.begin(Part::Respond);
        Ok(answer.to_body())
    }

    async fn decrypt(
        &mut self,
        body: &[u8],
        limits: Limits,
        record: &mut Record,
    ) -> Result<ResponseBody, Failure> {
        let mut request = DecryptRequest::parse(body, limits).map_err(|r| rejected(r, record))?;
        record.metadata = std::mem::take(&mut request.metadata);
        let permit = self.permit(record)?;
        let mut call = self.call(record);
        let answer = operations::decrypt(&mut call, &permit, request).await?;
        record.trace.begin(Part::Respond);
        Ok(answer.to_body())
    }

    fn call<'a>(&'a self, record: &'a mut Record) -> Call<'a> {
        let Self { group, counts, arrived, deadline, .. } = *self;
        let lane = Lane::Keystore(self.keystore.name().clone());
        Call { group, lane, arrived, deadline, counts, trace: &mut record.trace }
    }
}

/// Keeps what could be read of a refused request's metadata, its kmsRequestId above all.
fn rejected(rejected: Rejected, record: &mut Record) -> Failure {
    record.metadata = *rejected.metadata;
    rejected.error.into()
}
