//! Makes connections: name resolution, TCP, TLS, HTTP, each with its own error.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::connection::Connection;
use super::endpoint::{Endpoint, Scheme};
use super::trust::{ClientIdentity, Trust, TrustError};

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
    /// Where to connect to, whatever the endpoint's name resolves to.
    address: Option<SocketAddr>,
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
        Ok(Self { endpoint, address: None, tls, http, patience })
    }

    /// The way to a loopback endpoint without TLS.
    ///
    /// # Panics
    /// For an https endpoint, which wants a [`Trust`].
    pub fn plain(endpoint: Endpoint, http: HttpVersion, patience: Duration) -> Self {
        assert_eq!(endpoint.scheme(), Scheme::Http, "TLS wants somebody to trust");
        Self { endpoint, address: None, tls: None, http, patience }
    }

    /// The way to an endpoint behind whatever ends its TLS: plain HTTP to this address, with the host of
    /// the endpoint.
    pub fn behind_tls(
        endpoint: Endpoint,
        address: SocketAddr,
        http: HttpVersion,
        patience: Duration,
    ) -> Self {
        Self { endpoint, address: Some(address), tls: None, http, patience }
    }

    /// The way to the same endpoint by this address: its name is not resolved.
    #[must_use]
    pub fn at(self, address: SocketAddr) -> Self {
        Self { address: Some(address), ..self }
    }

    /// Where it leads.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Which HTTP will be spoken.
    pub fn http(&self) -> HttpVersion {
        self.http
    }

    /// How long a connection's making may take, and each request on it.
    pub fn patience(&self) -> Duration {
        self.patience
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
        let address = || match self.address {
            Some(address) => address.to_string(),
            None => format!("{host}:{port}"),
        };
        let tcp_error = |cause| ConnectError::Tcp { address: address(), cause };
        let start = Instant::now();
        let stream = match self.address {
            Some(address) => TcpStream::connect(address).await,
            None => TcpStream::connect((host, port)).await,
        };
        let stream = stream.map_err(tcp_error)?;
        stream.set_nodelay(true).map_err(tcp_error)?;
        let peer = stream.peer_addr().map_err(tcp_error)?;
        let tcp = start.elapsed();
        let Some((connector, name)) = &self.tls else {
            let timing = ConnectTiming { tcp, tls: Duration::ZERO };
            return Ok(Connection::begin(stream, self.http, peer, timing, self.patience).await?);
        };
        let start = Instant::now();
        let stream = connector.connect(name.clone(), stream).await.map_err(ConnectError::Tls)?;
        let timing = ConnectTiming { tcp, tls: start.elapsed() };
        let chosen = stream.get_ref().1.alpn_protocol();
        // A server that knows no ALPN speaks HTTP/1.1.
        if chosen.unwrap_or(HttpVersion::Http1.alpn()) != self.http.alpn() {
            return Err(ConnectError::Version(self.http.version()));
        }
        Ok(Connection::begin(stream, self.http, peer, timing, self.patience).await?)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connector({}, {:?})", self.endpoint, self.http)
    }
}
