//! One connection to a proxy, kept alive until it is dropped.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::answer::{self, EncryptAnswer, HealthAnswer, MetadataAnswer};
use super::connector::{ConnectTiming, HttpVersion};
use super::request::{Caller, Encrypt, Prepared, Signer};
use crate::names::ExternalKeyId;
use crate::secret::Plaintext;
use crate::sigv4::SignError;

/// Longest body of an answer that is read, in bytes. The longest sound one is a Decrypt of 8 KiB.
const MAX_BODY: usize = 256 * 1024;

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
    /// Begins HTTP on a stream.
    pub(super) async fn begin<S>(
        stream: S,
        version: HttpVersion,
        peer: SocketAddr,
        timing: ConnectTiming,
        patience: Duration,
    ) -> Result<Self, hyper::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TokioIo::new(stream);
        let (sender, driver) = match version {
            HttpVersion::Http1 => {
                let (sender, connection) = http1::handshake(stream).await?;
                (Sender::Http1(sender), Driver::spawn(connection))
            }
            HttpVersion::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
                (Sender::Http2(sender), Driver::spawn(connection))
            }
        };
        Ok(Self { sender, driver, peer, timing, patience })
    }

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
            let response = self.forward(request).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_BODY).collect().await.map_err(CallError::Body)?;
            Ok(RawAnswer { status: head.status, headers: head.headers, body: body.to_bytes() })
        };
        timeout(patience, answer).await.map_err(|_| CallError::Late(patience))?
    }

    async fn forward(
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
