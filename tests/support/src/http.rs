//! A raw HTTP/1.1 client: it sends the bytes that it is given, however wrong they are.

use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

use crate::daemon::PATIENCE;

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header that is there once at most.
    ///
    /// # Panics
    /// Where it is there twice.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(known, _)| known == name);
        let value = values.next();
        assert_eq!(values.next(), None, "{name} is there twice");
        value.map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// Where it is not JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {self:?}: {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

trait Stream: Read + Write + Send + Debug {}
impl<T: Read + Write + Send + Debug> Stream for T {}

/// A connection to a server. Reading and writing are bounded in time.
#[derive(Debug)]
pub struct Connection {
    stream: Box<dyn Stream>,
    tcp: TcpStream,
    /// Bytes that came after the last answer.
    ahead: Vec<u8>,
    /// Whether the answer that comes has no body whatever its head says.
    head_only: bool,
    is_resumed: bool,
}

impl Connection {
    /// Speaks HTTP right over TCP.
    ///
    /// # Panics
    /// Where the system refuses timeouts.
    pub fn plain(tcp: TcpStream) -> Self {
        let stream = Box::new(prepared(&tcp));
        Self { stream, tcp, ahead: Vec::new(), head_only: false, is_resumed: false }
    }

    /// Speaks HTTP over TLS.
    ///
    /// # Errors
    /// Where the handshake fails.
    pub fn tls(tcp: TcpStream, config: Arc<ClientConfig>) -> io::Result<Self> {
        let name = ServerName::try_from("localhost").expect("it is a name");
        let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, prepared(&tcp));
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        let is_resumed = stream.conn.handshake_kind() == Some(HandshakeKind::Resumed);
        let stream = Box::new(stream);
        Ok(Self { stream, tcp, ahead: Vec::new(), head_only: false, is_resumed })
    }

    /// Whether the handshake took up an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// Sends these bytes.
    ///
    /// # Panics
    /// Where the server does not take them.
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap_or_else(|error| panic!("cannot send: {error}"));
    }

    /// Sends these bytes, which the server may not want to have.
    ///
    /// # Errors
    /// Where the server has closed the connection.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.head_only = bytes.starts_with(b"HEAD ");
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Says that nothing more will be sent.
    ///
    /// # Panics
    /// Where the connection is gone already.
    pub fn finish(&mut self) {
        self.tcp.shutdown(std::net::Shutdown::Write).expect("the connection is open");
    }

    /// The next answer.
    ///
    /// # Panics
    /// Where the server closes the connection instead, or says nothing.
    pub fn receive(&mut self) -> Answer {
        self.try_receive().unwrap_or_else(|error| panic!("no answer: {error}"))
    }

    /// The next answer.
    ///
    /// # Errors
    /// Where the connection ends before it is complete: `InvalidData` where a part of it had come.
    pub fn try_receive(&mut self) -> io::Result<Answer> {
        let end = loop {
            if let Some(end) = find(&self.ahead, b"\r\n\r\n") {
                break end + 4;
            }
            let begun = !self.ahead.is_empty();
            match self.read_more() {
                Ok(0) if begun => return Err(io::ErrorKind::InvalidData.into()),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if begun && is_end(&error) => {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                read => read?,
            };
        };
        let head: Vec<u8> = self.ahead.drain(..end).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(head.clone()))?;
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut answer = Answer { status, headers, body: Vec::new() };
        if status < 200 {
            // 100 Continue, or such: the answer is yet to come.
            return self.try_receive();
        }
        if !std::mem::take(&mut self.head_only) {
            let length = answer.header("content-length").and_then(|length| length.parse().ok());
            let length: usize = length.ok_or_else(|| io::Error::other(head))?;
            while self.ahead.len() < length {
                match self.read_more() {
                    Ok(0) => return Err(io::ErrorKind::InvalidData.into()),
                    Err(error) if is_end(&error) => return Err(io::ErrorKind::InvalidData.into()),
                    read => read?,
                };
            }
            answer.body = self.ahead.drain(..length).collect();
        }
        Ok(answer)
    }

    /// Waits for the server to close the connection, and gives what it sent before.
    ///
    /// # Errors
    /// Where it neither sends nor closes within [`PATIENCE`].
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.read_more() {
                Ok(0) => return Ok(std::mem::take(&mut self.ahead)),
                Ok(_) => {}
                Err(error) if is_end(&error) => return Ok(std::mem::take(&mut self.ahead)),
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads what comes within a time.
    ///
    /// # Errors
    /// `WouldBlock` or `TimedOut` where nothing does.
    ///
    /// # Panics
    /// Where the system refuses timeouts.
    pub fn read_within(&mut self, time: Duration) -> io::Result<Vec<u8>> {
        self.tcp.set_read_timeout(Some(time)).expect("a time that is not zero");
        let read = self.read_more();
        self.tcp.set_read_timeout(Some(PATIENCE)).expect("a time that is not zero");
        read.map(|_| std::mem::take(&mut self.ahead))
    }

    fn read_more(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 16 * 1024];
        let read = self.stream.read(&mut buffer)?;
        self.ahead.extend_from_slice(&buffer[..read]);
        Ok(read)
    }
}

/// Whether the other side has gone, politely (TLS wants a last word, TCP does not) or not.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// TCP to this address.
///
/// # Panics
/// Where nobody listens.
pub fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).unwrap_or_else(|error| panic!("connect to {address}: {error}"))
}

/// A client that trusts this CA, shows no certificate and speaks HTTP/1.1.
///
/// # Panics
/// Where the file holds no certificate.
pub fn trusting(ca: &Path) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(crate::tls_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has suites of both versions")
        .with_root_certificates(roots(ca))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// The certificates of a CA file, to be trusted.
///
/// # Panics
/// Where the file holds no certificate.
pub fn roots(ca: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(ca).expect("openssl wrote a certificate");
    roots.add(certificate).expect("openssl wrote a CA's certificate");
    roots
}

fn prepared(tcp: &TcpStream) -> TcpStream {
    for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
        set(tcp, Some(PATIENCE)).expect("a time that is not zero");
    }
    tcp.set_nodelay(true).expect("every TCP has it");
    tcp.try_clone().expect("a descriptor is free")
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
