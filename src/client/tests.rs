//! The client against a server in this process that speaks canned answers.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::load::target::{Bench, Load, Mix, PrepareError, Renewal, Workload};
use super::load::{Loop, Plan};
use super::*;
use crate::clock::Clock;
use crate::names::ExternalKeyId;
use crate::secret::Plaintext;
use crate::sigv4::{Credentials, SecretAccessKey, SignedRequest, Verifier};

const ID: &str = "ABCDEFGHIJKLMNOPQRST";

fn secret() -> SecretAccessKey {
    "s".repeat(43).parse().unwrap()
}

/// A request as the server got it.
struct Seen {
    path: String,
    body: Value,
}

/// What the server does with a request.
enum Act {
    Answer(u16, Value),
    Never,
    HangUp,
}

/// Verifies each signature, keeps each request, and acts by number of request.
struct Server {
    endpoint: Endpoint,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicU64>,
}

impl Server {
    async fn start(act: impl Fn(usize, &Seen) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/pre/fix", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let connections = Arc::new(AtomicU64::new(0));
        let (act, all, count) = (Arc::new(act), seen.clone(), connections.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                let (act, all) = (act.clone(), all.clone());
                let serve = service_fn(move |request| serve(request, act.clone(), all.clone()));
                tokio::spawn(async move {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    drop(builder.serve_connection(TokioIo::new(stream), serve).await);
                });
            }
        });
        Self { endpoint: endpoint.parse().unwrap(), seen, connections }
    }

    fn connector(&self, http: HttpVersion, patience: Duration) -> Connector {
        Connector::plain(self.endpoint.clone(), http, patience)
    }

    fn signer(&self) -> Signer {
        let credential = (ID.parse().unwrap(), secret());
        Signer::new(self.endpoint.clone(), credential, "us-east-1".parse().unwrap())
    }

    fn paths(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|seen| seen.path.clone()).collect()
    }
}

/// Why a connection is ended without an answer.
#[derive(Debug, thiserror::Error)]
#[error("hung up")]
struct HungUp;

async fn serve(
    request: Request<Incoming>,
    act: Arc<impl Fn(usize, &Seen) -> Act>,
    all: Arc<Mutex<Vec<Seen>>>,
) -> Result<Response<Full<Bytes>>, HungUp> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let authority = head.uri.authority().map(ToString::to_string);
    let signed = SignedRequest {
        method: head.method.as_str(),
        path: head.uri.path(),
        query: head.uri.query(),
        authority: authority.as_deref(),
        headers: &head.headers,
        body: &body,
    };
    let credentials = Credentials::new([(ID.parse().unwrap(), secret())]).unwrap();
    let regions = ["us-east-1".parse().unwrap()];
    let verdict = Verifier::new(Clock::System).verify(&signed, &credentials, &regions);
    let answer = |status, body: Value| {
        let body = Full::from(body.to_string());
        Ok(Response::builder().status(StatusCode::from_u16(status).unwrap()).body(body).unwrap())
    };
    if let Err(failure) = verdict {
        let message = format!("{failure:?}");
        let error = "AuthenticationFailedException";
        return answer(401, json!({"errorName": error, "errorMessage": message}));
    }
    let seen =
        Seen { path: head.uri.path().to_owned(), body: serde_json::from_slice(&body).unwrap() };
    let act = {
        let mut all = all.lock().unwrap();
        let act = act(all.len(), &seen);
        all.push(seen);
        act
    };
    match act {
        Act::Answer(status, body) => answer(status, body),
        Act::Never => std::future::pending::<Result<_, Infallible>>().await.map_err(|_| HungUp),
        Act::HangUp => Err(HungUp),
    }
}

/// Answers each operation well; the "ciphertext" is the plaintext.
fn good(seen: &Seen) -> Act {
    let body = &seen.body;
    let answer = match seen.path.rsplit('/').next().unwrap() {
        "health" => json!({
            "xksProxyFleetSize": 1, "xksProxyVendor": "v", "xksProxyModel": "m", "ekmVendor": "e",
            "ekmFleetDetails": [{"id": "1", "model": "m", "healthStatus": "ACTIVE"}],
        }),
        "metadata" => json!({
            "keySpec": "AES_256", "keyUsage": ["ENCRYPT", "DECRYPT"], "keyStatus": "ENABLED",
        }),
        "encrypt" => json!({
            "ciphertext": body["plaintext"], "initializationVector": "AAAAAAAAAAAAAAAA",
            "authenticationTag": "AQEBAQEBAQEBAQEBAQEBAQ==", "ciphertextMetadata": "AQ==",
        }),
        "decrypt" => json!({"plaintext": body["ciphertext"]}),
        other => panic!("no operation `{other}`"),
    };
    Act::Answer(200, answer)
}

fn refusal(status: u16, name: &str) -> Act {
    Act::Answer(status, json!({"errorName": name, "errorMessage": "because"}))
}

fn key() -> ExternalKeyId {
    "demo-key".parse().unwrap()
}

const PATIENCE: Duration = Duration::from_secs(60);

const INPUT: Encrypt<'_> =
    Encrypt { plaintext: b"hunter2", aad: b"aad", integrity_value: IntegrityValue::Off };

#[tokio::test]
async fn the_four_operations_over_both_versions_of_http_p_1() {
    for http in [HttpVersion::Http1, HttpVersion::Http2] {
        let server = Server::start(|_, seen| good(seen)).await;
        let signer = server.signer();
        let caller = Caller::made_up(signer.region(), "request-1");
        let mut connection = server.connector(http, PATIENCE).connect().await.unwrap();
        let health = connection.health(&signer, &caller).await.unwrap();
        assert_eq!(health.ekm_fleet_details[0].health_status, "ACTIVE");
        let metadata = connection.metadata(&signer, &caller, &key()).await.unwrap();
        assert_eq!(metadata.key_spec, "AES_256");
        let sealed = connection.encrypt(&signer, &caller, &key(), &INPUT).await.unwrap();
        assert_eq!(sealed.ciphertext, INPUT.plaintext);
        let opened = connection.decrypt(&signer, &caller, &key(), (&sealed, INPUT.aad)).await;
        assert_eq!(opened.unwrap().expose(), INPUT.plaintext);

        assert_eq!(server.connections.load(Ordering::Relaxed), 1, "kept alive");
        let seen = server.seen.lock().unwrap();
        let paths: Vec<_> = seen.iter().map(|seen| &*seen.path).collect();
        assert_eq!(
            paths,
            [
                "/pre/fix/kms/xks/v1/health",
                "/pre/fix/kms/xks/v1/keys/demo-key/metadata",
                "/pre/fix/kms/xks/v1/keys/demo-key/encrypt",
                "/pre/fix/kms/xks/v1/keys/demo-key/decrypt",
            ]
        );
    }
}

#[tokio::test]
async fn bodies_are_those_of_the_protocol_p_20_p_40_p_50() {
    let server = Server::start(|_, seen| good(seen)).await;
    let signer = server.signer();
    let caller = Caller::made_up(signer.region(), "request-1");
    let mut connection = server.connector(HttpVersion::Http1, PATIENCE).connect().await.unwrap();
    let sealed = connection.encrypt(&signer, &caller, &key(), &INPUT).await.unwrap();
    connection.decrypt(&signer, &caller, &key(), (&sealed, INPUT.aad)).await.unwrap();
    connection.health(&signer, &caller).await.unwrap();
    let metadata = |operation: &str| {
        json!({
            "awsPrincipalArn": "arn:aws:iam::123456789012:user/xksd",
            "kmsKeyArn":
                "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000",
            "kmsOperation": operation,
            "kmsRequestId": "request-1",
        })
    };
    let seen = server.seen.lock().unwrap();
    let expected = json!({
        "requestMetadata": metadata("Encrypt"), "plaintext": "aHVudGVyMg==",
        "encryptionAlgorithm": "AES_GCM", "additionalAuthenticatedData": "YWFk",
    });
    assert_eq!(seen[0].body, expected);
    let expected = json!({
        "requestMetadata": metadata("Decrypt"), "ciphertext": "aHVudGVyMg==",
        "encryptionAlgorithm": "AES_GCM", "initializationVector": "AAAAAAAAAAAAAAAA",
        "authenticationTag": "AQEBAQEBAQEBAQEBAQEBAQ==", "additionalAuthenticatedData": "YWFk",
        "ciphertextMetadata": "AQ==",
    });
    assert_eq!(seen[1].body, expected);
    let expected = json!({"kmsOperation": "KmsHealthCheck", "kmsRequestId": "request-1"});
    assert_eq!(seen[2].body["requestMetadata"], expected);
}

#[tokio::test]
async fn errors_keep_the_connection_and_are_never_sent_again() {
    let server = Server::start(|number, seen| match number {
        0 => refusal(429, "ThrottlingException"),
        1 => Act::Answer(200, json!({"keySpec": "AES_256"})),
        _ => good(seen),
    })
    .await;
    let signer = server.signer();
    let caller = Caller::made_up(signer.region(), "r");
    let mut connection = server.connector(HttpVersion::Http1, PATIENCE).connect().await.unwrap();
    let throttled = connection.metadata(&signer, &caller, &key()).await.unwrap_err();
    assert_eq!(throttled.label(), "ThrottlingException");
    assert!(matches!(throttled, CallError::Refused { status: 429, .. }));
    let malformed = connection.metadata(&signer, &caller, &key()).await.unwrap_err();
    assert!(matches!(malformed, CallError::Malformed(_)));
    assert!(throttled.keeps_connection() && malformed.keeps_connection());
    connection.metadata(&signer, &caller, &key()).await.unwrap();
    assert_eq!(server.paths().len(), 3);
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_server_that_hangs_up_or_never_answers_is_told_apart() {
    for http in [HttpVersion::Http1, HttpVersion::Http2] {
        let server = Server::start(|_, _| Act::HangUp).await;
        let (signer, connector) = (server.signer(), server.connector(http, PATIENCE));
        let caller = Caller::made_up(signer.region(), "r");
        let mut connection = connector.connect().await.unwrap();
        let error = connection.health(&signer, &caller).await.unwrap_err();
        assert_eq!(error.label(), "(connection failed)", "{error}");

        let server = Server::start(|_, _| Act::Never).await;
        let (signer, connector) =
            (server.signer(), server.connector(http, Duration::from_millis(50)));
        let mut connection = connector.connect().await.unwrap();
        let error = connection.health(&signer, &caller).await.unwrap_err();
        assert_eq!(error.label(), "(timeout)", "{error}");
        assert!(!error.keeps_connection());
    }
}

#[tokio::test]
async fn a_wrong_secret_is_refused_by_the_verifier() {
    let server = Server::start(|_, seen| good(seen)).await;
    let credential = (ID.parse().unwrap(), "x".repeat(43).parse().unwrap());
    let signer = Signer::new(server.endpoint.clone(), credential, "us-east-1".parse().unwrap());
    let caller = Caller::made_up(signer.region(), "r");
    let mut connection = server.connector(HttpVersion::Http1, PATIENCE).connect().await.unwrap();
    let error = connection.health(&signer, &caller).await.unwrap_err();
    assert_eq!(error.label(), "AuthenticationFailedException");
}

#[tokio::test]
async fn nobody_there_and_nobody_to_trust_are_told_apart() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let endpoint: Endpoint = format!("http://{closed}").parse().unwrap();
    let error = Connector::plain(endpoint, HttpVersion::Http1, PATIENCE).connect().await;
    assert!(matches!(error, Err(ConnectError::Tcp { .. })));
    let directory = tempfile::tempdir().unwrap();
    let pem = directory.path().join("ca.pem");
    std::fs::write(&pem, "no certificates here").unwrap();
    assert!(matches!(Trust::from_pem_file(&pem), Err(TrustError::Empty { .. })));
}

// --- bench --------------------------------------------------------------------------------------

/// Two connections, these operations in turn.
async fn prepare(
    server: &Server,
    parts: &[(Workload, u32)],
    http: HttpVersion,
    renewal: Renewal,
) -> Result<Bench, PrepareError> {
    let (key, mix) = (key(), Mix::new(parts.to_vec()).unwrap());
    let plaintext = Plaintext::new(vec![7; 32]);
    let load = Load { key: &key, mix: &mix, plaintext, connections: 2, renewal };
    Bench::prepare(server.connector(http, PATIENCE), server.signer(), load).await
}

async fn bench(server: &Server, workload: Workload, http: HttpVersion) -> Arc<Bench> {
    let bench = prepare(server, &[(workload, 1)], http, Renewal::Keep).await;
    Arc::new(bench.unwrap_or_else(|error| panic!("{error}")))
}

fn plan(requests: u64) -> Plan {
    let duration = Duration::from_secs(3600);
    Plan { kind: Loop::Closed, warmup: Duration::ZERO, duration, requests: Some(requests) }
}

#[tokio::test]
async fn a_bench_counts_errors_by_name() {
    // Every third request from the second on is throttled; the first one proves that all is well.
    let server = Server::start(|number, seen| match number % 3 {
        1 => refusal(429, "ThrottlingException"),
        _ => good(seen),
    })
    .await;
    let bench = bench(&server, Workload::Encrypt, HttpVersion::Http1).await;
    let measured = load::run(plan(30), bench.targets(2), Arc::default()).await;
    assert_eq!(measured.answered.len(), 20);
    assert_eq!(measured.errors["ThrottlingException"], 10);
    assert_eq!(bench.reconnected(), 0);
    assert_eq!(server.connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_bench_of_decryptions_encrypts_first_and_checks_the_plaintext() {
    let server = Server::start(|number, seen| match number {
        // Of the sixteen ciphertexts and the trial decryption before the run, none.
        20 => Act::Answer(200, json!({"plaintext": "d3Jvbmc="})),
        _ => good(seen),
    })
    .await;
    let bench = bench(&server, Workload::Decrypt, HttpVersion::Http2).await;
    let measured = load::run(plan(10), bench.targets(4), Arc::default()).await;
    assert_eq!(measured.answered.len(), 9);
    assert_eq!(measured.errors["another plaintext than was encrypted"], 1);
    let encrypts = server.paths().iter().filter(|path| path.ends_with("/encrypt")).count();
    assert_eq!(encrypts, 16);
    assert_eq!(server.connections.load(Ordering::Relaxed), 2, "four workers share them");
}

#[tokio::test]
async fn a_lost_connection_is_made_again_and_counted() {
    let server = Server::start(|number, seen| if number == 3 { Act::HangUp } else { good(seen) });
    let server = server.await;
    let bench = bench(&server, Workload::Health, HttpVersion::Http1).await;
    let measured = load::run(plan(10), bench.targets(1), Arc::default()).await;
    assert_eq!(measured.answered.len(), 9);
    assert_eq!(measured.errors["(connection failed)"], 1);
    assert_eq!(bench.reconnected(), 1);
}

#[tokio::test]
async fn a_bench_of_refusals_does_not_begin() {
    let server = Server::start(|_, _| refusal(404, "KeyNotFoundException")).await;
    let parts = [(Workload::Metadata, 1)];
    let bench = prepare(&server, &parts, HttpVersion::Http1, Renewal::Keep).await;
    let Err(PrepareError::First { operation, cause }) = bench else { panic!("it began") };
    assert_eq!((operation, cause.label()), ("GetKeyMetadata", "KeyNotFoundException"));
}

#[tokio::test]
async fn a_mix_asks_for_each_by_its_weight() {
    let server = Server::start(|_, seen| good(seen)).await;
    let parts = [(Workload::Encrypt, 3), (Workload::Metadata, 1)];
    let bench = prepare(&server, &parts, HttpVersion::Http1, Renewal::Keep).await.unwrap();
    let measured = load::run(plan(40), Arc::new(bench).targets(2), Arc::default()).await;
    assert_eq!(measured.answered.len(), 40, "{:?}", measured.errors);
    let asked =
        |operation: &str| server.paths().iter().filter(|path| path.ends_with(operation)).count();
    // One of each before the run.
    assert_eq!((asked("/encrypt"), asked("/metadata")), (31, 11));
}

#[tokio::test]
async fn new_connections_are_made_for_each_request() {
    let server = Server::start(|_, seen| good(seen)).await;
    let parts = [(Workload::Health, 1)];
    let bench = prepare(&server, &parts, HttpVersion::Http1, Renewal::Always).await.unwrap();
    let bench = Arc::new(bench);
    let measured = load::run(plan(10), bench.targets(2), Arc::default()).await;
    assert_eq!((measured.answered.len(), bench.reconnected()), (10, 0));
    // Two that wait in vain, the trial request's, and ten.
    assert_eq!(server.connections.load(Ordering::Relaxed), 13);
}
