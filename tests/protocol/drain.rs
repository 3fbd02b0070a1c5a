//! Leaving: first `/readyz`, then the connections, and nothing that was asked is left unanswered.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use support::caller::Caller;
use support::daemon::{Daemon, poll};
use support::request::{bare_body, encrypt_body};
use support::site::{Configuration, text};

use crate::http2::{Http2, request};
use crate::world::{demo, small_site};

/// A daemon that would stay for long after a first SIGTERM.
fn daemon(server: &[(&'static str, &str)]) -> Daemon {
    let mut configuration = Configuration::new(vec![demo()]);
    configuration.drain.insert("delay", text("10m"));
    configuration.drain.insert("timeout", text("1m"));
    for (key, value) in server {
        configuration.server.insert(key, text(value));
    }
    Daemon::start(small_site(&configuration))
}

fn leave(daemon: &Daemon) {
    daemon.signal("TERM");
    poll(|| daemon.ask(daemon.ops, "/readyz") == (503, "leaving\n".into()), || "ready".into());
}

/// Asks again and again until told that the connection ends; every request is answered.
fn ask_on(kms: &Caller) -> usize {
    let mut connection = kms.connect();
    let mut answered = 0;
    loop {
        let body = encrypt_body(b"under load", None);
        connection.send(&kms.request("keys/demo-key/encrypt", &body).to_bytes());
        let answer = connection.receive();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answered += 1;
        if answer.header("connection") == Some("close") {
            assert_eq!(connection.read_to_end().unwrap(), b"");
            return answered;
        }
    }
}

/// The same over HTTP/2, where GOAWAY says which requests were not looked at.
async fn ask_on_over_http2(kms: &Caller) -> usize {
    let connection = Http2::connect(kms).await;
    let mut answered = 0;
    loop {
        let body = encrypt_body(b"under load", None);
        match connection.send(request(kms, "keys/demo-key/encrypt", &body)).await {
            Ok((status, body)) => assert_eq!(status, 200, "{body}"),
            Err(error) if error.is_closed() || error.is_canceled() => return answered,
            Err(error) => panic!("{error:?}"),
        }
        answered += 1;
    }
}

/// Requests are served until the very end, over both versions of HTTP; a second SIGTERM ends the
/// wait for load balancers; the exit status is 0; and the port is free for the next process.
#[test]
fn nothing_is_lost_under_load() {
    let daemon = daemon(&[]);
    let kms = Caller::new(&daemon, &demo());
    let idle = kms.connect();
    let (answered, answered_over_http2) = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..2).map(|_| scope.spawn(|| ask_on(&kms))).collect();
        let over_http2 = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(ask_on_over_http2(&kms))
        });
        daemon.wait_for_metric(
            "xksd_key_encryptions_total{key=\"demo-key\",keystore=\"demo\"}",
            20.0,
        );
        leave(&daemon);
        // Load balancers look elsewhere, and meanwhile everybody is served: old and new.
        kms.accepted("health", &bare_body("KmsHealthCheck"));
        assert_eq!(daemon.ask(daemon.ops, "/livez").0, 200);
        assert!(!daemon.logged().contains("closing: answering what was asked"));
        daemon.signal("TERM");
        daemon.wait_for_line("told a second time");
        let answered: usize = asking.into_iter().map(|thread| thread.join().unwrap()).sum();
        (answered, over_http2.join().unwrap())
    });
    assert!(answered > 0 && answered_over_http2 > 0);
    drop(idle);
    let (address, site) = (daemon.address, daemon.site.clone());
    let (status, log) = daemon.wait_exit();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("panic"), "{log}");

    let mut configuration = Configuration::new(vec![demo()]);
    configuration.server.insert("listen", text(address));
    site.configure(&configuration);
    let next = Daemon::start(site);
    assert_eq!(next.address, address);
    kms.accepted("keys/demo-key/encrypt", &encrypt_body(b"x", None));
}

/// A request whose body is still coming when the daemon leaves is waited for, longer than for a
/// connection that asks for nothing.
#[test]
fn a_slow_request_is_waited_for() {
    let daemon = daemon(&[("head_timeout", "200ms"), ("body_timeout", "1m")]);
    let kms = Caller::new(&daemon, &demo());
    // Its body alone: signed, but held back in part.
    let bytes = kms.request("health", &bare_body("KmsHealthCheck")).to_bytes();
    let (first, rest) = bytes.split_at(bytes.len() - 10);
    let mut slow = kms.connect();
    slow.send(first);
    daemon.wait_for_metric("xksd_connections", 1.0);
    leave(&daemon);
    daemon.signal("TERM");
    daemon.wait_for_line("closing: answering what was asked");
    // Time has to pass here: it is what the connection has to survive.
    let error = slow.read_within(Duration::from_millis(1500)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    slow.send(rest);
    // What is late for KMS is answered all the same.
    assert_eq!(slow.receive().status, 200);
    assert_eq!(daemon.wait_exit().0.code(), Some(0));
}

/// SIGINT is as good as SIGTERM, and without load balancers to wait for it is quick.
#[test]
fn ctrl_c_ends_it() {
    let site = Arc::new(small_site(&Configuration::new(vec![demo()])));
    let daemon = Daemon::start(site);
    daemon.signal("INT");
    let (status, log) = daemon.wait_exit();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("\"message\":\"ended\""), "{log}");
}
