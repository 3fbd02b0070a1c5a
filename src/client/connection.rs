//! One connection to a proxy: made explicitly, kept alive, timed step by step.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::answer::{self, EncryptAnswer, HealthAnswer, MetadataAnswer};
use super::endpoint::{Endpoint, Scheme};
use super::request::{Caller, Encrypt, Prepared, Signer};
use super::trust::{ClientIdentity, Trust, TrustError};
use crate::names::ExternalKeyId;
use crate::secret::Plaintext;
use crate::sigv4::SignError;

/// Longest body of an answer that is read, in bytes. The longest sound one is a Decrypt of 8 KiB.
const MAX_BODY: usize = 256 * 1024;

/// Which HTTP is spoken; the only one that TLS's ALPN offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVersion {
    /// One request at a time on a connection. Every proxy has it (P-2).
    Http1,
    /// Many requests at once on a connection; over plain HTTP with prior knowledge.
    Http2,
}

impl HttpVersion {
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }

    /// As it stands in requests.
    pub fn version(self) -> Version {
        match self {
            Self::Http1 => Version::HTTP_11,
            Self::Http2 => Version::HTTP_2,
        }
    }
}

/// Makes connections to one endpoint.
#[derive(Clone)]
pub struct Connector {
    endpoint: Endpoint,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    http: HttpVersion,
    patience: Duration,
}

/// Where the time of a connection's making went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectTiming {
    /// Name resolution and TCP handshake.
    pub tcp: Duration,
    /// TLS handshake; zero without TLS.
    pub tls: Duration,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The host's name can't stand in a certificate.
    #[error("the host is neither a DNS name nor an address: {0}")]
    Host(#[from] InvalidDnsNameError),
    /// Trust or client certificate can't be used.
    #[error("{0}")]
    Trust(#[from] TrustError),
    /// No address, or nobody there.
    #[error("cannot connect to {address}: {cause}")]
    Tcp {
        /// Host and port.
        address: String,
        /// Why not.
        cause: io::Error,
    },
    /// The TLS handshake failed: certificate, host name, versions.
    #[error("the TLS handshake failed: {0}")]
    Tls(io::Error),
    /// The server does not speak the HTTP version that was asked for.
    #[error("the server does not speak {0:?}")]
    Version(Version),
    /// HTTP could not begin.
    #[error("HTTP could not begin: {0}")]
    Http(#[from] hyper::Error),
    /// It took too long.
    #[error("no connection within {0:?}")]
    Late(Duration),
}

/// Why a request got no good answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It could not be signed; nothing was sent.
    #[error("{0}")]
    Sign(#[from] SignError),
    /// An error of the protocol (P-70).
    #[error("{name} ({status}): {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// `errorName`
        name: String,
        /// `errorMessage`, empty where there was none.
        message: String,
    },
    /// Neither 200 nor an error of the protocol: KMS would report an uninterpretable proxy.
    #[error("status {status} without an errorName")]
    Uninterpretable {
        /// The HTTP status.
        status: u16,
    },
    /// 200, and what came with it breaks the protocol.
    #[error("malformed answer: {0}")]
    Malformed(&'static str),
    /// The connection failed; the request may have been served.
    #[error("the connection failed: {0}")]
    Connection(#[from] hyper::Error),
    /// The answer's body failed, or is longer than any sound one.
    #[error("the body of the answer failed: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// No answer in time; the request may have been served.
    #[error("no answer within {0:?}")]
    Late(Duration),
}

impl CallError {
    /// A short name to count by: the `errorName`, or words for what has none.
    pub fn label(&self) -> &str {
        match self {
            Self::Refused { name, .. } => name,
            Self::Uninterpretable { .. } => "(uninterpretable)",
            Self::Malformed(why) => why,
            Self::Sign(_) | Self::Connection(_) | Self::Body(_) => "(connection failed)",
            Self::Late(_) => "(timeout)",
        }
    }

    /// Whether the connection may be used again.
    pub fn keeps_connection(&self) -> bool {
        match self {
            Self::Sign(_) | Self::Refused { .. } => true,
            Self::Uninterpretable { .. } | Self::Malformed(_) => true,
            Self::Connection(_) | Self::Body(_) | Self::Late(_) => false,
        }
    }
}

impl Connector {
    /// The way to an endpoint. `trust` is of no effect for plain HTTP. `patience` bounds the
    /// making of a connection, and each request on it.
    ///
    /// # Errors
    /// [`ConnectError::Host`] and [`ConnectError::Trust`]; nothing is sent yet.
    pub fn new(
        endpoint: Endpoint,
        trust: &Trust,
        identity: Option<&ClientIdentity>,
        http: HttpVersion,
        patience: Duration,
    ) -> Result<Self, ConnectError> {
        let tls = match endpoint.scheme() {
            Scheme::Http => None,
            Scheme::Https => {
                let name = ServerName::try_from(endpoint.host().to_owned())?;
                let config = trust.config(identity, http.alpn())?;
                Some((TlsConnector::from(Arc::new(config)), name))
            }
        };
        Ok(Self { endpoint, tls, http, patience })
    }

    /// The way to a loopback endpoint without TLS.
    ///
    /// # Panics
    /// For an https endpoint, which wants a [`Trust`].
    pub fn plain(endpoint: Endpoint, http: HttpVersion, patience: Duration) -> Self {
        assert_eq!(endpoint.scheme(), Scheme::Http, "TLS wants somebody to trust");
        Self { endpoint, tls: None, http, patience }
    }

    /// Where it leads.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Which HTTP will be spoken.
    pub fn http(&self) -> HttpVersion {
        self.http
    }

    /// Connects: name resolution, TCP, TLS, HTTP.
    ///
    /// # Errors
    /// [`ConnectError`], naming the step.
    pub async fn connect(&self) -> Result<Connection, ConnectError> {
        let late = |_| ConnectError::Late(self.patience);
        timeout(self.patience, self.connect_unbounded()).await.map_err(late)?
    }

    async fn connect_unbounded(&self) -> Result<Connection, ConnectError> {
        let (host, port) = (self.endpoint.host(), self.endpoint.port());
        let tcp_error = |cause| ConnectError::Tcp { address: format!("{host}:{port}"), cause };
        let start = Instant::now();
        let stream = TcpStream::connect((host, port)).await.map_err(tcp_error)?;
        stream.set_nodelay(true).map_err(tcp_error)?;
        let peer = stream.peer_addr().map_err(tcp_error)?;
        let tcp = start.elapsed();
        let (sender, driver, tls) = match &self.tls {
            None => {
                let (sender, driver) = begin_http(stream, self.http).await?;
                (sender, driver, Duration::ZERO)
            }
            Some((connector, name)) => {
                let start = Instant::now();
                let stream =
                    connector.connect(name.clone(), stream).await.map_err(ConnectError::Tls)?;
                let tls = start.elapsed();
                let chosen = stream.get_ref().1.alpn_protocol();
                // A server that knows no ALPN speaks HTTP/1.1.
                if chosen.unwrap_or(HttpVersion::Http1.alpn()) != self.http.alpn() {
                    return Err(ConnectError::Version(self.http.version()));
                }
                let (sender, driver) = begin_http(stream, self.http).await?;
                (sender, driver, tls)
            }
        };
        let timing = ConnectTiming { tcp, tls };
        Ok(Connection { sender, driver, peer, timing, patience: self.patience })
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connector({}, {:?})", self.endpoint, self.http)
    }
}

async fn begin_http<S>(stream: S, version: HttpVersion) -> Result<(Sender, Driver), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = TokioIo::new(stream);
    Ok(match version {
        HttpVersion::Http1 => {
            let (sender, connection) = http1::handshake(stream).await?;
            (Sender::Http1(sender), Driver::spawn(connection))
        }
        HttpVersion::Http2 => {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            (Sender::Http2(sender), Driver::spawn(connection))
        }
    })
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// The task that moves a connection's bytes; the last user's drop ends it, and the connection.
#[derive(Clone)]
struct Driver(#[expect(dead_code, reason = "kept for its drop")] Arc<AbortOnDrop>);

struct AbortOnDrop(AbortHandle);

impl Driver {
    fn spawn(connection: impl Future<Output = hyper::Result<()>> + Send + 'static) -> Self {
        // How it ends is seen by the requests on it.
        let task = tokio::spawn(async move { drop(connection.await) });
        Self(Arc::new(AbortOnDrop(task.abort_handle())))
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection, kept alive until it is dropped.
pub struct Connection {
    sender: Sender,
    driver: Driver,
    peer: SocketAddr,
    timing: ConnectTiming,
    patience: Duration,
}

/// An answer as it came.
#[derive(Clone)]
pub struct RawAnswer {
    /// The status.
    pub status: StatusCode,
    /// All headers.
    pub headers: HeaderMap,
    /// The whole body; it may hold a plaintext.
    pub body: Bytes,
}

/// Shows no body: there may be a plaintext in it (P-45).
impl fmt::Debug for RawAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} <{} bytes redacted>", self.status, self.body.len())
    }
}

impl Connection {
    /// The address that was connected to.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Where the time of its making went.
    pub fn timing(&self) -> ConnectTiming {
        self.timing
    }

    /// Which HTTP is spoken on it.
    pub fn http(&self) -> HttpVersion {
        match self.sender {
            Sender::Http1(_) => HttpVersion::Http1,
            Sender::Http2(_) => HttpVersion::Http2,
        }
    }

    /// Another handle to the same connection, where HTTP lets requests run side by side.
    pub fn share(&self) -> Option<Self> {
        let Sender::Http2(sender) = &self.sender else { return None };
        let Self { driver, peer, timing, patience, .. } = self;
        Some(Self {
            sender: Sender::Http2(sender.clone()),
            driver: driver.clone(),
            peer: *peer,
            timing: *timing,
            patience: *patience,
        })
    }

    /// Whether the server has closed it, as far as is known.
    pub fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }

    /// Sends any request, sound or not, and waits for the whole answer.
    ///
    /// # Errors
    /// [`CallError::Connection`], [`CallError::Body`] and [`CallError::Late`]: every answer,
    /// whatever its status, is `Ok`.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<RawAnswer, CallError> {
        let patience = self.patience;
        let answer = async {
            let response = self.begin(request).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_BODY).collect().await.map_err(CallError::Body)?;
            Ok(RawAnswer { status: head.status, headers: head.headers, body: body.to_bytes() })
        };
        timeout(patience, answer).await.map_err(|_| CallError::Late(patience))?
    }

    async fn begin(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// Signs an operation and sends it.
    ///
    /// # Errors
    /// [`CallError::Sign`], and those of [`Connection::send`].
    pub async fn call(
        &mut self,
        signer: &Signer,
        operation: &Prepared,
    ) -> Result<RawAnswer, CallError> {
        let request = signer.sign(operation, self.http().version())?;
        self.send(request).await
    }

    /// GetHealthStatus (P-60).
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn health(
        &mut self,
        signer: &Signer,
        caller: &Caller,
    ) -> Result<HealthAnswer, CallError> {
        let operation = Prepared::health(signer.endpoint(), caller);
        answer::health(&self.call(signer, &operation).await?)
    }

    /// GetKeyMetadata (P-30).
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn metadata(
        &mut self,
        signer: &Signer,
        caller: &Caller,
        key: &ExternalKeyId,
    ) -> Result<MetadataAnswer, CallError> {
        let operation = Prepared::metadata(signer.endpoint(), key, caller);
        answer::metadata(&self.call(signer, &operation).await?)
    }

    /// Encrypt (P-40).
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn encrypt(
        &mut self,
        signer: &Signer,
        caller: &Caller,
        key: &ExternalKeyId,
        input: &Encrypt<'_>,
    ) -> Result<EncryptAnswer, CallError> {
        let operation = Prepared::encrypt(signer.endpoint(), key, caller, input);
        answer::encrypt(&self.call(signer, &operation).await?, input)
    }

    /// Decrypt (P-50).
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn decrypt(
        &mut self,
        signer: &Signer,
        caller: &Caller,
        key: &ExternalKeyId,
        (sealed, aad): (&EncryptAnswer, &[u8]),
    ) -> Result<Plaintext, CallError> {
        let operation = Prepared::decrypt(signer.endpoint(), key, caller, sealed, aad);
        answer::decrypt(&self.call(signer, &operation).await?)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({}, {:?})", self.peer, self.http())
    }
}
