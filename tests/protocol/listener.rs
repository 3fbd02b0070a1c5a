//! Strangers: slow, silent, many, or somebody else's load balancer.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Frame;
use support::caller::{Caller, assert_refused};
use support::daemon::Daemon;
use support::http::{Connection, connect};
use support::request::{bare_body, encrypt_body};
use support::site::{Configuration, text};

use crate::world::{VALIDATION, demo, small_site};

fn daemon(server: &[(&'static str, String)]) -> Daemon {
    let mut configuration = Configuration::new(vec![demo()]);
    configuration.server.extend(server.iter().cloned());
    Daemon::start(small_site(&configuration))
}

/// A request on a connection that is open already.
fn ask(kms: &Caller, connection: &mut Connection) {
    connection.send(&kms.request("health", &bare_body("KmsHealthCheck")).to_bytes());
    let answer = connection.receive();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Waits for the daemon to end a connection on which it says nothing.
fn ends(connection: &mut Connection) {
    let said = connection.read_to_end().expect("it ends");
    assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

/// Each step of a request has its time; between requests there is plenty (at least ten minutes).
#[test]
fn the_slow_are_cut_off_and_the_idle_are_kept() {
    let short = |name| (name, text("300ms"));
    let daemon =
        daemon(&[short("handshake_timeout"), short("head_timeout"), short("body_timeout")]);
    let kms = Caller::new(&daemon, &demo());
    let (mut idle, mut silent) = (kms.connect(), kms.connect());
    ask(&kms, &mut idle);

    // Says nothing where TLS should begin; says the first bytes of a hello.
    for hello in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut connection = Connection::plain(connect(daemon.address));
        connection.send(hello);
        ends(&mut connection);
    }
    // Begins a head, on a new connection and after a request.
    for mut connection in [kms.connect(), {
        let mut used = kms.connect();
        ask(&kms, &mut used);
        used
    }] {
        connection.send(b"POST /example/prefix");
        ends(&mut connection);
    }
    // Begins a body: there is a head by then, so there is an answer.
    let bytes = kms.request("health", &bare_body("KmsHealthCheck")).to_bytes();
    let mut connection = kms.connect();
    connection.send(&bytes[..bytes.len() - 1]);
    assert_refused(&connection.receive(), 400, VALIDATION);
    ends(&mut connection);

    // The others were cut off one after the other: those who only waited did so for much longer.
    ask(&kms, &mut idle);
    ask(&kms, &mut silent);
    for (reason, least) in [("handshake_timeout", 2.0), ("head_timeout", 2.0)] {
        let sample = format!("xksd_connections_closed_total{{reason=\"{reason}\"}}");
        daemon.wait_for_metric(&sample, least);
    }
}

/// However many strangers there are, whoever comes next gets in, and KMS stays.
#[test]
fn strangers_make_room() {
    // A request may take longer than this test waits for anything.
    let long = |name| (name, text("60s"));
    let daemon =
        daemon(&[("max_connections", "4".into()), long("head_timeout"), long("body_timeout")]);
    let kms = Caller::new(&daemon, &demo());
    let mut known = kms.connect();
    ask(&kms, &mut known);
    let mut strangers: Vec<Connection> = (0..3).map(|_| kms.connect()).collect();
    // One of them has begun something, and takes its time.
    let path = kms.path("health");
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{{");
    strangers[0].send(head.as_bytes());
    assert!(strangers[0].read_within(Duration::from_millis(100)).is_err(), "it is being served");
    let mut newcomer = kms.connect();
    ask(&kms, &mut newcomer);
    ends(&mut strangers.remove(0));
    for _ in 0..20 {
        strangers.push(kms.connect());
    }
    // In order of age.
    let mut newest = strangers.split_off(strangers.len() - 2);
    for mut stranger in strangers {
        ends(&mut stranger);
    }
    ask(&kms, &mut known);
    ask(&kms, &mut newcomer);
    for stranger in &mut newest {
        ask(&kms, stranger);
    }
    // All four are known now: nobody makes room for a fifth.
    let tcp = connect(daemon.address);
    let config = kms.tls.clone().expect("it speaks TLS");
    assert!(Connection::tls(tcp, config).is_err());
    ask(&kms, &mut known);
    assert!(daemon.metrics().contains("\nxksd_connections 4\n"), "never more than allowed");
}

/// A body that never ends, and counts what was taken of it.
struct Endless(Arc<AtomicUsize>, usize);

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        const PIECE: &[u8] = &[b' '; 8 * 1024];
        if self.1 == 0 {
            return Poll::Pending;
        }
        self.1 -= 1;
        self.0.fetch_add(PIECE.len(), Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(PIECE)))))
    }
}

/// However many requests a stranger begins on one HTTP/2 connection, their bodies are not all
/// taken in: neither the windows nor the bodies that are read at once are many.
#[tokio::test]
async fn a_stranger_cannot_fill_the_memory() {
    // As many as one connection may have at once, nearly.
    const REQUESTS: usize = 96;
    let daemon = daemon(&[("body_timeout", text("2s"))]);
    let kms = Caller::new(&daemon, &demo());
    let connection = crate::http2::connect(&kms).await;
    let taken = Arc::new(AtomicUsize::new(0));
    let mut answers = tokio::task::JoinSet::new();
    for _ in 0..REQUESTS {
        let signed = crate::http2::request(&kms, "health", &bare_body("KmsHealthCheck"));
        // Twelve pieces of eight KiB: not too large, and not the end.
        let request = signed.map(|_| Endless(taken.clone(), 12));
        let mut connection = connection.clone();
        answers.spawn(async move { connection.send_request(request).await });
    }
    // Until the first of them is given up, all have had the time to send all they may.
    let first = answers.join_next().await.unwrap();
    let taken = taken.load(Ordering::Relaxed);
    assert_eq!(first.unwrap().unwrap().status(), 400, "not complete in time");
    // The client's own library takes two or three pieces of each ahead, sent or not.
    assert!(taken < 6 << 20, "{taken} bytes of {} were taken in", REQUESTS * 12 * 8 * 1024);
    while let Some(answer) = answers.join_next().await {
        assert_eq!(answer.unwrap().unwrap().status(), 400, "not complete in time");
    }
}

/// PROXY protocol v2: signature, version and command, family, length, addresses.
fn proxy_header(command: u8) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, 0x11, 0, 12]);
    header.extend([192, 0, 2, 7, 127, 0, 0, 1, 0xc3, 0x50, 0x01, 0xbb]);
    header
}

/// Who a trusted load balancer says the client is, the log says; without its word nobody gets in.
#[test]
fn load_balancers_introduce_their_clients() {
    let from = ("proxy_protocol_from", "[\"127.0.0.0/8\"]".to_owned());
    let daemon = daemon(&[from, ("handshake_timeout", text("1s"))]);
    let kms = Caller::new(&daemon, &demo());
    let config = kms.tls.clone().expect("it speaks TLS");
    for (command, peer) in [(1, "192.0.2.7:50000"), (0, "127.0.0.1:")] {
        let tcp = connect(daemon.address);
        std::io::Write::write_all(&mut &tcp, &proxy_header(command)).unwrap();
        let mut connection = Connection::tls(tcp, config.clone()).unwrap();
        let mut body = encrypt_body(b"x", None);
        let id = format!("introduced-{command}");
        body["requestMetadata"]["kmsRequestId"] = id.as_str().into();
        connection.send(&kms.request("keys/demo-key/encrypt", &body).to_bytes());
        assert_eq!(connection.receive().status, 200);
        let line: serde_json::Value = serde_json::from_str(&daemon.wait_for_line(&id)).unwrap();
        assert!(line["peer"].as_str().unwrap().starts_with(peer), "{line}");
    }
    let version_3 = {
        let mut header = proxy_header(1);
        header[12] = 0x31;
        header
    };
    let too_long = {
        let mut header = proxy_header(1);
        header[14..16].fill(0xff);
        header
    };
    for bad in [
        version_3,
        too_long,
        b"PROXY TCP4 192.0.2.7 127.0.0.1 5 443\r\n".to_vec(),
        proxy_header(1)[..20].to_vec(),
    ] {
        let mut connection = Connection::plain(connect(daemon.address));
        connection.send(&bad);
        ends(&mut connection);
    }
    assert!(Connection::tls(connect(daemon.address), config).is_err(), "TLS without the header");
    // Health checks of load balancers come without.
    assert_eq!(daemon.ask(daemon.ops, "/readyz").0, 200);
}

/// A stranger who claims to be a load balancer is none.
#[test]
fn nobody_introduces_himself() {
    let daemon = crate::world::daemon();
    let tcp = connect(daemon.address);
    std::io::Write::write_all(&mut &tcp, &proxy_header(1)).unwrap();
    let kms = crate::world::caller(&demo());
    assert!(Connection::tls(tcp, kms.tls.expect("it speaks TLS")).is_err());
}
