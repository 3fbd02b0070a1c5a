//! Socket activation: the service manager opens the sockets, and keeps them while daemons come and go.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use support::caller::Caller;
use support::daemon::{Daemon, poll};
use support::manager::{Listening, activate, passing};
use support::process::Process;
use support::request::encrypt_body;
use support::site::{Configuration, Site, text};

use crate::world::{demo, small_site};

/// A site that is configured for these addresses.
fn site(xks: SocketAddr, ops: SocketAddr) -> Arc<Site> {
    Arc::new(small_site(&configuration(xks, ops)))
}

fn configuration(xks: SocketAddr, ops: SocketAddr) -> Configuration {
    let mut configuration = Configuration::new(vec![demo()]);
    configuration.server.insert("listen", text(xks));
    configuration.ops.insert("listen", text(ops));
    configuration
}

/// A port that is free for the daemon to choose.
fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// While one daemon leaves and the next one starts, whoever connects is never refused; who comes
/// when nobody is there waits, and is answered by the next.
#[test]
fn a_restart_refuses_no_connection() {
    let (xks, ops) = (Listening::new("xks"), Listening::new("ops"));
    let site = site(xks.address(), ops.address());
    let first = activate(&site, &[&xks, &ops]);
    first.wait_ready();
    assert_eq!((first.address, first.ops), (xks.address(), ops.address()));
    let kms = Caller::new(&first, &demo());
    let body = encrypt_body(b"x", None);
    kms.accepted("keys/demo-key/encrypt", &body);

    let (done, connected) = (AtomicBool::new(false), AtomicUsize::new(0));
    let more = || {
        let before = connected.load(Ordering::Relaxed);
        poll(|| connected.load(Ordering::Relaxed) > before, || "no connection any more".into());
    };
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let connection = TcpStream::connect(xks.address());
                let mut connection = connection.expect("a socket that is open refuses nobody");
                connected.fetch_add(1, Ordering::Relaxed);
                // No TLS: whoever accepts it ends it. One waits at a time, as long as nobody does.
                let _ = connection.write_all(b"GET / HTTP/1.1\r\n\r\n");
                let _ = connection.read_to_end(&mut Vec::new());
            }
        });
        more();
        first.signal("TERM");
        let (status, log) = first.wait_exit();
        assert_eq!(status.code(), Some(0), "{log}");
        let waiting = scope.spawn(|| kms.send(&kms.request("keys/demo-key/encrypt", &body)));
        let second = activate(&site, &[&xks, &ops]);
        // Its HSM may not be up yet when this one is answered; what counts is that it is.
        let status = waiting.join().unwrap().status;
        assert!(matches!(status, 200 | 500 | 503), "{status}");
        second.wait_ready();
        more();
        kms.accepted("keys/demo-key/encrypt", &body);
        done.store(true, Ordering::Relaxed);
        connecting.join().unwrap();
    });
}

/// What is not passed is opened by the daemon; what is passed is no business of the vendor's library.
#[test]
fn one_socket_may_be_passed_and_another_opened() {
    let xks = Listening::new("xks");
    let site = site(xks.address(), any_port());
    let daemon = activate(&site, &[&xks]);
    daemon.wait_ready();
    assert_eq!(daemon.address, xks.address());
    assert_ne!(daemon.ops.port(), 0);
    let [child] = Process(daemon.pid()).children()[..] else { panic!("one token, one process") };
    let shared: Vec<_> =
        Process(daemon.pid()).sockets().intersection(&child.sockets()).cloned().collect();
    assert!(shared.is_empty(), "{shared:?}");
    assert!(!child.environment().keys().any(|name| name.starts_with("LISTEN_")));
}

/// A daemon that starts itself anew, for the environment of a module inside it, keeps what it was passed.
#[test]
fn sockets_survive_starting_anew() {
    let xks = Listening::new("xks");
    let mut configuration = configuration(xks.address(), any_port());
    configuration.token.insert("isolation", text("thread"));
    configuration.token.insert("environment", "{ ACTIVATION_TEST = \"anew\" }".to_owned());
    let site = Arc::new(small_site(&configuration));
    let daemon = activate(&site, &[&xks]);
    daemon.wait_ready();
    assert_eq!(daemon.address, xks.address());
    assert_eq!(Process(daemon.pid()).environment()["ACTIVATION_TEST"], "anew");
}

/// The start fails, and says what does not fit.
fn refused(site: &Site, mut command: Command) -> String {
    let output = command.stderr(Stdio::piped()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{}: {stderr}", site.path().display());
    assert!(stderr.contains("\nhint: "), "{stderr}");
    stderr
}

#[test]
fn sockets_that_do_not_fit_are_refused() {
    let (xks, ops) = (Listening::new("xks"), Listening::new("ops"));
    let elsewhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let site = site(elsewhere, ops.address());
    let error = refused(&site, passing(&site, &[&xks, &ops]));
    let expected = format!("passes {} as `xks`, and server.listen has {elsewhere}", xks.address());
    assert!(error.contains(&expected), "{error}");
    assert!(error.contains("ListenStream="), "{error}");

    site.configure(&configuration(xks.address(), any_port()));
    let metrics = Listening::new("metrics");
    let error = refused(&site, passing(&site, &[&xks, &metrics]));
    assert!(error.contains("as `metrics`, and ops.metrics_listen is not set"), "{error}");

    let unnamed = Listening::new("xksd.socket");
    let error = refused(&site, passing(&site, &[&unnamed]));
    assert!(error.contains("a socket named `xksd.socket`"), "{error}");
    assert!(error.contains("FileDescriptorName="), "{error}");

    // What Accept=yes would pass: a connection.
    let mut connected = passing(&site, &[&xks]);
    let connection = TcpStream::connect(xks.address()).unwrap();
    connected.stdin(Stdio::from(std::os::fd::OwnedFd::from(connection)));
    let error = refused(&site, connected);
    assert!(error.contains("`xks` is no listening TCP socket"), "{error}");
    assert!(error.contains("Accept=no"), "{error}");
}

/// Variables that are about another process, as of a shell that was started by activation, are not
/// for the daemon.
#[test]
fn sockets_of_another_process_are_left_alone() {
    let site = site(any_port(), any_port());
    let environment = [("LISTEN_PID", "1"), ("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "xks")];
    Daemon::start_with(site, &environment);
}
