//! HTTP/2, as ALPN may choose it (P-2).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use support::caller::Caller;
use support::request::{bare_body, decrypt_body, encrypt_body, unbase64};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::world::{
    AUTHENTICATION_FAILED, INVALID_URI_PATH, UNSUPPORTED, VALIDATION, caller, demo,
};

/// A client's end of an HTTP/2 connection. Clones share it.
#[derive(Clone)]
pub(crate) struct Http2(SendRequest<Full<Bytes>>);

impl Http2 {
    pub(crate) async fn connect(kms: &Caller) -> Self {
        Self(connect(kms).await)
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> hyper::Result<(u16, Value)> {
        let response: Response<_> = self.0.clone().send_request(request).await?;
        let status = response.status().as_u16();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        assert_eq!(status == 405, response.headers().contains_key(header::ALLOW), "P-3");
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, serde_json::from_slice(&body).unwrap()))
    }

    pub(crate) async fn accepted(&self, kms: &Caller, rest: &str, body: &Value) -> Value {
        let (status, answer) = self.send(request(kms, rest, body)).await.unwrap();
        assert_eq!(status, 200, "{answer}");
        answer
    }
}

/// A new connection, for requests with bodies of this kind.
pub(crate) async fn connect<B>(kms: &Caller) -> SendRequest<B>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let config = kms.tls.as_ref().expect("HTTP/2 is chosen within TLS");
    let mut config = ClientConfig::clone(config);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let address: SocketAddr = kms.address;
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A signed request; `:authority` is in the place of `Host`.
pub(crate) fn request(kms: &Caller, rest: &str, body: &Value) -> Request<Full<Bytes>> {
    let signed = kms.request(rest, body);
    let mut request = Request::post(format!("https://localhost{}", signed.target));
    for (name, value) in signed.signed_headers() {
        if name != "Host" {
            request = request.header(name, value);
        }
    }
    request.body(Full::from(signed.body)).unwrap()
}

/// P-2: all four operations, many at once on one connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operations_work_over_http_2() {
    let kms = caller(&demo());
    let connection = Http2::connect(&kms).await;
    let encrypt = encrypt_body(b"over HTTP/2", Some(b"aad"));
    let sealed = connection.accepted(&kms, "keys/demo-key/encrypt", &encrypt).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (kms, connection, sealed) = (kms.clone(), connection.clone(), sealed.clone());
        tasks.spawn(async move {
            let decrypt = decrypt_body(&sealed, Some(b"aad"));
            let opened = connection.accepted(&kms, "keys/demo-key/decrypt", &decrypt).await;
            assert_eq!(unbase64(&opened["plaintext"]), b"over HTTP/2");
            connection.accepted(&kms, "keys/demo-key/metadata", &bare_body("CreateKey")).await;
            connection.accepted(&kms, "health", &bare_body("KmsHealthCheck")).await;
        });
    }
    tasks.join_all().await;
}

/// P-3, P-5, P-15, P-23: refusals over HTTP/2, on one connection that stays good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_over_http_2() {
    type Spoil = fn(&mut Request<Full<Bytes>>);
    let cases: [(&str, u16, &str, Spoil); 9] = [
        ("host differs from :authority", 401, AUTHENTICATION_FAILED, |r| {
            r.headers_mut().insert(header::HOST, "elsewhere".parse().unwrap());
        }),
        ("host twice", 401, AUTHENTICATION_FAILED, |r| {
            r.headers_mut().append(header::HOST, "localhost".parse().unwrap());
            r.headers_mut().append(header::HOST, "localhost".parse().unwrap());
        }),
        ("another :authority than signed", 401, AUTHENTICATION_FAILED, |r| {
            *r.uri_mut() = r.uri().to_string().replace("localhost", "elsewhere").parse().unwrap();
        }),
        ("query", 401, AUTHENTICATION_FAILED, |r| {
            *r.uri_mut() = format!("{}?a=b", r.uri()).parse().unwrap();
        }),
        ("empty query", 401, AUTHENTICATION_FAILED, |r| {
            *r.uri_mut() = format!("{}?", r.uri()).parse().unwrap();
        }),
        ("Authorization twice", 401, AUTHENTICATION_FAILED, |r| {
            let value = r.headers()[header::AUTHORIZATION].clone();
            r.headers_mut().append(header::AUTHORIZATION, value);
        }),
        ("GET", 405, UNSUPPORTED, |r| *r.method_mut() = http::Method::GET),
        ("double slash", 404, INVALID_URI_PATH, |r| {
            *r.uri_mut() = r.uri().to_string().replace("/kms/", "//kms/").parse().unwrap();
        }),
        ("another body", 401, AUTHENTICATION_FAILED, |r| *r.body_mut() = Full::from("{}")),
    ];
    let kms = caller(&demo());
    let connection = Http2::connect(&kms).await;
    for (what, status, name, spoil) in cases {
        let mut request = request(&kms, "health", &bare_body("KmsHealthCheck"));
        spoil(&mut request);
        let (answered, body) = connection.send(request).await.unwrap();
        assert_eq!((answered, body["errorName"].as_str()), (status, Some(name)), "{what}: {body}");
        connection.accepted(&kms, "health", &bare_body("KmsHealthCheck")).await;
    }
    // A host header that says the same does no harm.
    let mut same = request(&kms, "health", &bare_body("KmsHealthCheck"));
    same.headers_mut().insert(header::HOST, "localhost".parse().unwrap());
    assert_eq!(connection.send(same).await.unwrap().0, 200);
}

/// P-23: too large a body is refused; what else is going on is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oversized_bodies_over_http_2() {
    let kms = caller(&demo());
    for length in [128 * 1024 + 1, 1 << 20] {
        let connection = Http2::connect(&kms).await;
        let mut request = request(&kms, "health", &bare_body("KmsHealthCheck"));
        *request.body_mut() = Full::from(vec![b' '; length]);
        let (status, body) = connection.send(request).await.unwrap();
        assert_eq!((status, body["errorName"].as_str()), (400, Some(VALIDATION)), "{length}");
    }
    let connection = Http2::connect(&kms).await;
    connection.accepted(&kms, "health", &bare_body("KmsHealthCheck")).await;
}
