//! Accepts connections, and guards itself against strangers: the number of connections, the time
//! for a handshake and for a request's head are bounded, and accept errors are survived.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use ipnet::IpNet;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio_rustls::TlsAcceptor;

use super::activity::{Activity, Patience, TooSlow, Watched};
use super::connections::{Connections, Place};
use super::drain::Draining;
use super::proxy_header;
use super::pulse::Pulse;
use super::terms::{Admission, CurrentTerms};
use crate::metrics::{Closed, Metrics};
use crate::tls::{self, Tls};

/// AWS's network load balancer forgets a silent connection after 350 s.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Pause after accept failed: it fails again at once while descriptors are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a connection over HTTP/1.1 is kept for one more request when the daemon leaves.
const LAST_CALL: Duration = Duration::from_secs(1);

/// Largest request head. KMS's are under 1 KiB; the longest URI and Authorization fit in 4.
const MAX_HEAD: usize = 16 * 1024;

/// Most headers of a request over HTTP/1.1.
const MAX_HEADERS: usize = 64;

/// Requests at once on one HTTP/2 connection; RFC 9113 recommends no fewer.
const MAX_STREAMS: u32 = 100;

/// Bodies that are read at once on one connection. On HTTP/2 the others wait in their windows.
const BODIES: usize = 4;

/// Bytes that one request over HTTP/2 may send before it is read: all that KMS ever sends.
const STREAM_WINDOW: u32 = 32 * 1024;

/// Bytes of all of them. INVARIANT: as many as the requests' windows together, or those that wait
/// could use up what the ones being read need to go on. A stranger's connection holds this much.
const CONNECTION_WINDOW: u32 = MAX_STREAMS * STREAM_WINDOW;

/// How a listener treats its connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most connections at once.
    pub max_connections: usize,
    /// From accept to the end of the TLS handshake, PROXY header included.
    pub handshake_timeout: Duration,
    /// From the first byte of a request to the end of its head.
    pub head_timeout: Duration,
    /// For the body of a request to arrive.
    pub body_timeout: Duration,
    /// Without any request.
    pub idle_timeout: Duration,
    /// Peers that send a PROXY protocol v2 header, and must.
    pub proxy_protocol_from: Vec<IpNet>,
}

/// What runs over TCP.
#[derive(Debug, Clone)]
pub enum Transport {
    /// TLS.
    Tls(Tls),
    /// Nothing: for health checks, and for try-outs on loopback.
    Plain,
}

/// Answers requests.
pub trait Serve: Clone + Send + Sync + 'static {
    /// Answers one request of a connection.
    fn serve(
        &self,
        connection: Arc<Connection>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send;
}

/// What a request may know of its connection, and do to it.
#[derive(Debug)]
pub struct Connection {
    /// The other end; what a trusted load balancer says it is.
    pub peer: SocketAddr,
    /// Subject of its certificate, once the handshake has asked for one.
    pub client_subject: OnceLock<Arc<str>>,
    /// Tells the stream when requests begin and end.
    pub activity: Arc<Activity>,
    /// Whose turn it is to have a body read.
    pub bodies: Semaphore,
    /// How it is treated.
    pub limits: Arc<Limits>,
    /// Set by the handshake; never without one.
    admission: OnceLock<Admission>,
    place: Place,
    close: Notify,
}

impl Connection {
    /// A request on it was authenticated: it is not pushed out for a newcomer any more.
    pub fn authenticated(&self) {
        self.place.authenticated();
    }

    /// Whether TLS would still let its client in.
    pub fn is_admitted(&self) -> bool {
        self.admission.get().is_none_or(Admission::holds)
    }

    /// Waits until TLS would not let its client in any more.
    async fn barred(&self) {
        match self.admission.get() {
            Some(admission) => admission.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Lets it end after the answers that it owes.
    pub fn close(&self) {
        self.close.notify_one();
    }
}

/// Why a listener can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {cause}")]
pub struct BindError {
    /// Where.
    pub address: SocketAddr,
    /// Why not.
    pub cause: io::Error,
}

/// Opens a listening socket.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let listen = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restart must not wait for the last connections of the process before.
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    listen().map_err(|cause| BindError { address, cause })
}

/// Serves the connections of one or several listening sockets.
#[derive(Clone)]
pub struct Acceptor<S> {
    /// What connections are accepted by.
    pub terms: CurrentTerms,
    /// All connections of these sockets.
    pub connections: Arc<Connections>,
    /// Answers the requests.
    pub service: S,
    /// Counts.
    pub metrics: Option<Arc<Metrics>>,
    /// Tells when to end.
    pub draining: Draining,
}

impl<S: fmt::Debug> fmt::Debug for Acceptor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("service", &self.service).finish_non_exhaustive()
    }
}

impl<S: Serve> Acceptor<S> {
    /// Accepts connections until it is time to close.
    pub async fn run(self, listener: TcpListener, mut pulse: Pulse) {
        let mut draining = self.draining.clone();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = pulse.answer() => continue,
                () = draining.closing() => return,
            };
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer),
                Err(error) => {
                    self.count(Metrics::accept_error);
                    tracing::error!(%error, "cannot accept a connection");
                    // Descriptors may be short: whoever holds them needs time to end.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        let Some(place) = self.connections.enter() else {
            self.count(|metrics| metrics.closed(Closed::Limit));
            return;
        };
        let acceptor = self.clone();
        tokio::spawn(async move {
            acceptor.count(|metrics| metrics.connections().inc());
            acceptor.connection(stream, peer, place).await;
            acceptor.count(|metrics| metrics.connections().dec());
        });
    }

    async fn connection(&self, mut stream: TcpStream, peer: SocketAddr, place: Place) {
        let start = Instant::now();
        if let Err(error) = prepare(&stream) {
            tracing::debug!(%peer, %error, "connection lost before it was served");
            return;
        }
        let limits = self.terms.borrow().limits.clone();
        let deadline = tokio::time::Instant::now() + limits.handshake_timeout;
        let late = tokio::time::sleep_until(deadline);
        tokio::pin!(late);
        let peer = tokio::select! {
            peer = self.client(&mut stream, peer, &limits) => match peer { Some(peer) => peer, None => return },
            () = &mut late => return self.count(|metrics| metrics.closed(Closed::HandshakeTimeout)),
            () = place.evicted() => return self.count(|metrics| metrics.closed(Closed::Limit)),
        };
        let (bodies, close) = (Semaphore::new(BODIES), Notify::new());
        let connection = Arc::new(Connection {
            peer,
            client_subject: OnceLock::new(),
            activity: Arc::default(),
            bodies,
            limits,
            admission: OnceLock::new(),
            place,
            close,
        });
        // After the PROXY header, which may take its time: the handshake is by the terms of now.
        let mut terms = self.terms.clone();
        let now = terms.borrow_and_update().clone();
        match &now.transport {
            Transport::Plain => self.serve(stream, connection, Http::One).await,
            Transport::Tls(tls) => {
                let acceptor = TlsAcceptor::from(tls.config.clone());
                let handshake = tokio::select! {
                    handshake = acceptor.accept(stream).into_fallible() => handshake,
                    () = &mut late => {
                        return self.count(|metrics| metrics.closed(Closed::HandshakeTimeout));
                    }
                    () = connection.place.evicted() => {
                        return self.count(|metrics| metrics.closed(Closed::Limit));
                    }
                };
                match handshake {
                    Ok(stream) => {
                        self.count(|metrics| metrics.tls_handshake(start.elapsed()));
                        let (_, session) = stream.get_ref();
                        let h2 = session.alpn_protocol() == Some(b"h2");
                        if let Some(subject) = tls::client_subject(session) {
                            connection.client_subject.get_or_init(|| subject.into());
                        }
                        let shown = session.peer_certificates().unwrap_or_default();
                        let shown = shown.iter().map(|shown| shown.clone().into_owned());
                        let admission = Admission::new(terms, shown.collect());
                        connection.admission.get_or_init(|| admission);
                        let http = if h2 { Http::Two } else { Http::One };
                        self.serve(stream, connection, http).await;
                    }
                    Err((error, stream)) => {
                        self.count(Metrics::tls_handshake_failed);
                        // Anybody can make this happen: no more than debug.
                        tracing::debug!(%peer, %error, "TLS handshake failed");
                        // The alert that says why must arrive.
                        let activity = connection.activity.clone();
                        let idle = connection.limits.idle_timeout;
                        let patience = Patience { head: None, idle };
                        let _ = Watched::new(stream, activity, patience).shutdown().await;
                    }
                }
            }
        }
    }

    /// Who the client is; `None` if that can't be told.
    async fn client(
        &self,
        stream: &mut TcpStream,
        peer: SocketAddr,
        limits: &Limits,
    ) -> Option<SocketAddr> {
        let from = peer.ip().to_canonical();
        if !limits.proxy_protocol_from.iter().any(|network| network.contains(&from)) {
            return Some(peer);
        }
        match proxy_header::read(stream, peer).await {
            Ok(client) => Some(client),
            Err(error) => {
                self.count(|metrics| metrics.closed(Closed::ProxyHeader));
                tracing::warn!(%peer, %error, "a trusted load balancer sent no PROXY v2 header");
                None
            }
        }
    }

    async fn serve<T>(&self, stream: T, connection: Arc<Connection>, http: Http)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let head = (http == Http::One).then_some(connection.limits.head_timeout);
        let patience = Patience { head, idle: connection.limits.idle_timeout };
        let stream = TokioIo::new(Watched::new(stream, connection.activity.clone(), patience));
        let service = {
            let (service, connection) = (self.service.clone(), connection.clone());
            service_fn(move |request| {
                let (service, connection) = (service.clone(), connection.clone());
                async move { service.serve(connection, request).await }
            })
        };
        let ended = match http {
            Http::One => {
                let serving = hyper::server::conn::http1::Builder::new()
                    .max_buf_size(MAX_HEAD)
                    .max_headers(MAX_HEADERS)
                    .timer(TokioTimer::new())
                    .header_read_timeout(None)
                    .serve_connection(stream, service);
                // HTTP/1.1 has no word for "too late": a request may be on its way already.
                self.until_end(serving, &connection, LAST_CALL, |s| s.graceful_shutdown()).await
            }
            Http::Two => {
                let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .max_concurrent_streams(MAX_STREAMS)
                    .max_header_list_size(MAX_HEAD as u32)
                    .initial_connection_window_size(CONNECTION_WINDOW)
                    .initial_stream_window_size(STREAM_WINDOW)
                    .timer(TokioTimer::new())
                    .serve_connection(stream, service);
                let none = Duration::ZERO;
                self.until_end(serving, &connection, none, |s| s.graceful_shutdown()).await
            }
        };
        if let Err(error) = ended {
            self.count_end(&error);
            tracing::debug!(peer = %connection.peer, %error, "connection ended");
        }
    }

    /// Drives a connection to its end, which begins when it is closed, pushed out, when its client
    /// is let in no more, or when the daemon leaves.
    async fn until_end<C>(
        &self,
        serving: C,
        connection: &Connection,
        last_call: Duration,
        shut_down: impl Fn(std::pin::Pin<&mut C>),
    ) -> hyper::Result<()>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        tokio::pin!(serving);
        let mut draining = self.draining.clone();
        tokio::select! {
            ended = serving.as_mut() => return ended,
            () = connection.place.evicted() => return self.evict(),
            () = connection.close.notified() => {}
            // No last call: what would come now is refused.
            () = connection.barred() => self.count(|metrics| metrics.closed(Closed::Barred)),
            () = async {
                draining.closing().await;
                let _ = tokio::time::timeout(last_call, connection.activity.serving()).await;
            } => {}
        }
        // GOAWAY, or `Connection: close`: what is being served is still answered.
        shut_down(serving.as_mut());
        loop {
            tokio::select! {
                ended = serving.as_mut() => return ended,
                () = connection.place.evicted() => return self.evict(),
                () = tokio::time::sleep(connection.limits.head_timeout) => {}
            }
            // Whoever neither ends nor asks for anything is not waited for. A request has limits
            // of its own.
            if !connection.activity.is_serving() {
                return Ok(());
            }
        }
    }

    /// At once, whatever a stranger has begun: if the one who makes room took its time, there
    /// would be more connections than there may be.
    fn evict(&self) -> hyper::Result<()> {
        self.count(|metrics| metrics.closed(Closed::Limit));
        Ok(())
    }

    fn count_end(&self, error: &hyper::Error) {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = cause {
            let slow = error.downcast_ref::<io::Error>().and_then(|e| e.get_ref());
            if let Some(slow) = slow.and_then(|e| e.downcast_ref::<TooSlow>()) {
                self.count(|metrics| {
                    metrics.closed(match slow {
                        TooSlow::Head => Closed::HeadTimeout,
                        TooSlow::Idle => Closed::Idle,
                    });
                });
                return;
            }
            cause = error.source();
        }
    }

    fn count(&self, count: impl FnOnce(&Metrics)) {
        if let Some(metrics) = &self.metrics {
            count(metrics);
        }
    }
}

/// Which HTTP a connection speaks, by ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Http {
    One,
    Two,
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
