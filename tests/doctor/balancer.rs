//! What stands before a proxy: load balancers that do what load balancers do, and networks.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CipherSuite, ServerConfig, ServerConnection, StreamOwned};
use support::http::{self, Connection};

/// How it passes on what comes.
#[derive(Clone)]
pub(crate) enum Kind {
    /// Bytes as they are.
    Tcp,
    /// Bytes as they are, each time so much later.
    Far(Duration),
    /// It ends TLS.
    Tls(Ending),
    /// It speaks HTTP without TLS.
    PlainHttp,
}

/// A certificate, and what is done to messages.
#[derive(Clone)]
pub(crate) struct Ending {
    /// The chain in PEM.
    pub(crate) chain: PathBuf,
    /// Its key.
    pub(crate) key: PathBuf,
    /// The CA of the daemon's own certificate.
    pub(crate) backend_ca: PathBuf,
    /// The only suite that it knows; `None`: all.
    pub(crate) only: Option<CipherSuite>,
    /// Done to the head of each request.
    pub(crate) request: fn(String) -> String,
    /// Done to the head of each answer.
    pub(crate) answer: fn(String) -> String,
    /// Given instead of asking the daemon.
    pub(crate) instead: Option<&'static str>,
}

/// Listens, and passes on to `backend`, until the test ends.
pub(crate) fn start(kind: Kind, backend: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let kind = kind.clone();
            // How a connection ends is for the client to see.
            thread::spawn(move || drop(serve(&kind, client, backend)));
        }
    });
    address
}

fn serve(kind: &Kind, mut client: TcpStream, backend: SocketAddr) -> io::Result<()> {
    match kind {
        Kind::Tcp => between(&client, backend, Duration::ZERO),
        Kind::Far(away) => between(&client, backend, *away),
        Kind::Tls(ending) => ending.serve(client, backend),
        Kind::PlainHttp => {
            client.read_exact(&mut [0; 5])?;
            client.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        }
    }
}

fn between(client: &TcpStream, backend: SocketAddr, away: Duration) -> io::Result<()> {
    let server = TcpStream::connect(backend)?;
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    let (from, to) = (server.try_clone()?, client.try_clone()?);
    let back = thread::spawn(move || copy(from, to, away));
    copy(client.try_clone()?, server, away)?;
    back.join().expect("it does not panic")
}

fn copy(mut from: TcpStream, mut to: TcpStream, away: Duration) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return to.shutdown(std::net::Shutdown::Write);
        }
        // The network that is played takes this time.
        thread::sleep(away);
        to.write_all(&buffer[..read])?;
    }
}

impl Ending {
    fn config(&self) -> Arc<ServerConfig> {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites.retain(|suite| self.only.is_none_or(|only| suite.suite() == only));
        let versions = match self.only {
            Some(_) => &[&rustls::version::TLS12][..],
            None => rustls::ALL_VERSIONS,
        };
        let chain = CertificateDer::pem_file_iter(&self.chain).unwrap().map(Result::unwrap);
        let key = PrivateKeyDer::from_pem_file(&self.key).unwrap();
        let builder = ServerConfig::builder_with_provider(Arc::new(provider));
        let builder = builder.with_protocol_versions(versions).unwrap().with_no_client_auth();
        Arc::new(builder.with_single_cert(chain.collect(), key).unwrap())
    }

    fn serve(&self, client: TcpStream, backend: SocketAddr) -> io::Result<()> {
        client.set_nodelay(true)?;
        let tls = ServerConnection::new(self.config()).map_err(io::Error::other)?;
        let mut client = StreamOwned::new(tls, client);
        let mut server = None;
        loop {
            let (head, body) = message(&mut client)?;
            if let Some(instead) = self.instead {
                client.write_all(instead.as_bytes())?;
                client.flush()?;
                continue;
            }
            let server = match &mut server {
                Some(server) => server,
                none => {
                    let config = http::trusting(&self.backend_ca);
                    none.insert(Connection::tls(TcpStream::connect(backend)?, config)?)
                }
            };
            server.try_send(&[(self.request)(head).as_bytes(), &body].concat())?;
            let answer = server.try_receive()?;
            let mut head = format!("HTTP/1.1 {} x\r\n", answer.status);
            for (name, value) in &answer.headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            let head = (self.answer)(head + "\r\n");
            client.write_all(&[head.as_bytes(), &answer.body].concat())?;
            client.flush()?;
        }
    }
}

/// Head and body of a request.
fn message(client: &mut impl Read) -> io::Result<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).map_err(io::Error::other)?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let mut body = vec![0; length.unwrap_or(0)];
    client.read_exact(&mut body)?;
    Ok((head, body))
}
