//! A proxy over a token in memory, on a port of its own, with one fault or none.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use support::gate::PATIENCE;
use support::memory::{MemoryBackend, MemoryKey};
use support::site::{Credential, REGION};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use xksd::clock::Clock;
use xksd::counts::limit::EncryptionLimit;
use xksd::hsm::fleet::{Group, Keeper};
use xksd::hsm::key::Usage;
use xksd::hsm::token::{Settings, Token, TokenState};
use xksd::keystore::{self, Keystore, Keystores, Rotation, VerifyWrites};
use xksd::limits;
use xksd::metrics::Metrics;
use xksd::names::{AccessKeyId, Region};
use xksd::policy::Authorization;
use xksd::secret::Secret;
use xksd::server::pipeline::{Head, Pipeline, Snapshot};
use xksd::server::rescue::Failure;
use xksd::server::serving::Serving;
use xksd::sigv4::{Credentials, SecretAccessKey, Verifier};
use xksd::wire::ciphertext_format::Formats;
use xksd::wire::limits::{Limits, MAX_BODY_LEN};

use crate::faults::Fault;
use crate::message::{Message, Reply};

/// What the proxy takes for its name where it signs for its callers.
pub(crate) const HOST: &str = "localhost";

/// The prefix of its key store.
pub(crate) const PREFIX: &str = "memory";

/// Keys, and whether they encrypt and decrypt.
const KEYS: [(&str, bool, bool); 5] = [
    ("key", true, true),
    ("second", true, true),
    ("encrypt-only", true, false),
    ("decrypt-only", false, true),
    ("no-use", false, false),
];

/// What is behind the servers.
pub(crate) struct Proxy {
    pipeline: Pipeline,
    keeper: JoinHandle<()>,
    /// What a fault remembers from one request to the next.
    pub(crate) memory: Mutex<HashMap<String, Value>>,
}

/// A port on which a proxy is served until this is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub(crate) async fn new() -> Arc<Self> {
        let hsm = MemoryBackend::new();
        for (label, encrypt, decrypt) in KEYS {
            let usage = Usage { encrypt, decrypt, ..Usage::default() };
            hsm.add(MemoryKey { usage, ..MemoryKey::aes_256(label) });
        }
        let metrics = Arc::new(Metrics::new());
        let name = "memory".parse().expect("it is a token's name");
        let settings = Settings { sessions: 2, attempt_limit: PATIENCE, ..Settings::default() };
        let of_token = metrics.token(&name);
        let token = Arc::new(Token::start(name.clone(), settings, Arc::new(hsm), of_token));
        let mut states = token.watch_state();
        let up = states.wait_for(|state| *state == TokenState::Up);
        tokio::time::timeout(PATIENCE, up).await.expect("it gets up").expect("it is there");
        let (id, secret, region) = Self::credential();
        let keystore = keystore::Settings {
            name: "memory".parse().expect("it is a key store's name"),
            prefix: PREFIX.parse().expect("it is a prefix"),
            enabled: true,
            frozen: false,
            regions: vec![region],
            credentials: Credentials::new([(id, secret)]).expect("there is one"),
            keys: vec!["*".parse().expect("it is a rule")],
            tokens: vec![name],
            verify_writes: VerifyWrites::default(),
            formats: Formats::Own,
            quota: limits::Settings::default(),
            key_quota: limits::Settings::default(),
            encryption_limit: EncryptionLimit::default(),
            authorization: Authorization::Open,
            rotation: Rotation::default(),
        };
        let group = Arc::new(Group::new(vec![token]));
        let keeper = tokio::spawn(Keeper::new(group.clone(), keystore.keys.clone()).run());
        let snapshot = Snapshot {
            groups: HashMap::from([(keystore.name.clone(), group)]),
            keystores: Keystores::new(vec![Keystore::new(keystore)]).expect("there is one"),
            counts: None,
            fleet_size: NonZeroU32::MIN,
            limits: Limits::default(),
            deadline: PATIENCE,
        };
        let serving = Arc::new(Serving::new(snapshot));
        let pipeline = Pipeline::new(serving, Verifier::new(Clock::System), metrics);
        Arc::new(Self { pipeline, keeper, memory: Mutex::default() })
    }

    /// The only credential.
    pub(crate) fn credential() -> (AccessKeyId, SecretAccessKey, Region) {
        let Credential { id, secret } = Credential::of('A');
        let secret = SecretAccessKey::new(Secret::new(secret)).expect("it is long enough");
        (id.parse().expect("it is one"), secret, REGION.parse().expect("it is a Region"))
    }

    /// Serves it on a port of its own, with this fault.
    pub(crate) async fn serve(self: &Arc<Self>, fault: Fault) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a port");
        let address = listener.local_addr().expect("it is bound");
        let proxy = self.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let proxy = proxy.clone();
                let service = service_fn(move |request| {
                    let proxy = proxy.clone();
                    async move { Ok::<_, Infallible>(proxy.respond(fault, request).await) }
                });
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move { drop(connection.await) });
            }
        });
        Server { address, task }
    }

    async fn respond(&self, fault: Fault, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
        let mut message = Message {
            method: head.method.as_str().to_owned(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().map(str::to_owned),
            headers: head.headers,
            sent: body.clone(),
            body,
        };
        let mut reply = match (fault.before)(&mut message) {
            Some(reply) => reply,
            None => self.answer(&message).await,
        };
        (fault.after)(self, &message, &mut reply);
        let mut response =
            Response::builder().status(reply.status).header(CONTENT_TYPE, reply.content_type);
        if reply.status == 405 {
            response = response.header(ALLOW, "POST");
        }
        let body = Full::from(reply.body.to_string());
        response.body(body).expect("status and headers are good")
    }

    /// The answer of a sound proxy.
    async fn answer(&self, message: &Message) -> Reply {
        let head = Head {
            method: message.method.clone(),
            path: message.path.clone(),
            query: message.query.clone(),
            authority: None,
            headers: message.headers.clone(),
            peer: "192.0.2.1:1".parse().expect("it is an address"),
            client_subject: None,
            arrived: Instant::now(),
        };
        let body = async {
            if message.body.len() > MAX_BODY_LEN {
                return Err(Failure::BodyTooLarge);
            }
            Ok(message.body.as_slice())
        };
        let (status, body) = match self.pipeline.serve(head, body).await.result {
            Ok(body) => (200, body),
            Err(rescued) => (rescued.status, rescued.body.to_body()),
        };
        let body = serde_json::from_slice(body.as_ref()).expect("answers are JSON");
        Reply { status, content_type: "application/json", body }
    }
}
