//! Another certificate, and others who may connect (P-16).

use std::fs;
use std::sync::Arc;

use rustls::{ClientConfig, SupportedProtocolVersion};
use support::caller::{Caller, assert_refused};
use support::certificates::{Authority, Identity, KeyKind};
use support::http::{Connection, connect, trusting};
use support::request::bare_body;
use support::site::{Configuration, text};

use super::World;
use crate::handshake::showing;
use crate::http2::{Http2, request};
use crate::world::{AUTHENTICATION_FAILED, demo};

const SUBJECT: &str = "CN=cks.kms.us-east-1.amazonaws.com";

#[test]
fn a_certificate_changes() {
    let mut world = World::new();
    let (kms, health) = (world.kms(&demo()), bare_body("KmsHealthCheck"));
    let mut open = kms.connect();
    // Of another CA: those who trust only that one can't have met the old certificate.
    let authority = Authority::new(world.site.path(), "next-ca");
    let next = authority.issue("next", "/CN=localhost", KeyKind::Rsa);
    let expires = world.metric("xksd_certificate_expiry_timestamp_seconds");
    for (from, to) in
        [(&next.certificate, &world.site.server.certificate), (&next.key, &world.site.server.key)]
    {
        fs::copy(from, to).expect("it can be written");
    }
    let changes = world.applied(|_configuration| {});
    assert_eq!(changes, "server.tls: certificate, key or who may connect\n");
    assert!(world.metric("xksd_certificate_expiry_timestamp_seconds") >= expires);
    let next = Caller { tls: Some(trusting(authority.certificate())), ..kms.clone() };
    next.accepted("health", &health);
    let config = kms.tls.clone().expect("it speaks TLS");
    // Nothing of the old one is resumed, although tickets of it are there.
    assert!(Connection::tls(connect(kms.address), config).is_err());
    // Who was connected is.
    open.send(&kms.request("health", &health).to_bytes());
    let answer = open.receive();
    assert_eq!((answer.status, answer.header("connection")), (200, None));
}

/// A daemon that lets in who shows a certificate of `amazon` or `other` with [`SUBJECT`].
struct Gate {
    world: World,
    identities: [Identity; 2],
    authorities: [Authority; 2],
}

impl Gate {
    fn new() -> Self {
        let mut made = None;
        let world = World::with(|site, configuration| {
            let authorities = ["amazon", "other"].map(|name| Authority::new(site.path(), name));
            let subject = format!("/{SUBJECT}");
            let mut names = ["one", "two"].into_iter();
            let identities = authorities.each_ref().map(|authority| {
                authority.issue(names.next().expect("two"), &subject, KeyKind::Ec)
            });
            let both = authorities.each_ref().map(|a| fs::read(a.certificate()).expect("made"));
            fs::write(site.path().join("clients.pem"), both.concat()).expect("it can be written");
            let tls = configuration.tls.as_mut().expect("it is TLS");
            tls.insert("client_ca", text("clients.pem"));
            tls.insert("client_subject", text(SUBJECT));
            made = Some((authorities, identities));
        });
        let (authorities, identities) = made.expect("it was made");
        Self { world, identities, authorities }
    }

    /// From now on only those of `amazon` are let in.
    fn narrow(&mut self) {
        let amazon = self.authorities[0].certificate();
        fs::copy(amazon, self.world.site.path().join("clients.pem")).expect("it can be written");
        self.world.applied(|_configuration| {});
    }

    fn caller(&self, who: usize, version: &'static SupportedProtocolVersion) -> Caller {
        let ca = self.world.site.authority.certificate();
        let tls = Some(showing(ca, version, Some(&self.identities[who])));
        Caller { tls, ..self.world.kms(&demo()) }
    }
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// Who was let in by a CA that has gone since is out: with open connections, and with sessions that
/// could be resumed before.
#[test]
fn a_client_ca_goes_p_16() {
    let health = bare_body("KmsHealthCheck");
    for version in VERSIONS {
        let mut gate = Gate::new();
        let [kept, gone] = [0, 1].map(|who| gate.caller(who, version));
        let resumes = |kms: &Caller| kms.connect().is_resumed();
        for kms in [&kept, &gone] {
            kms.accepted("health", &health);
            assert!(resumes(kms), "there would be nothing to see");
            kms.accepted("health", &health);
        }
        let [mut open, mut idle, mut barred] =
            [&kept, &gone, &gone].map(|kms| (kms.clone(), kms.connect()));
        for (kms, connection) in [&mut open, &mut barred, &mut idle] {
            connection.send(&kms.request("health", &health).to_bytes());
            assert_eq!(connection.receive().status, 200);
        }
        // One whose head has come when it happens.
        let late = gone.request("health", &health).to_bytes();
        let (head, body) = late.split_at(late.len() - 1);
        barred.1.send(head);
        gate.narrow();
        let (kms, connection) = &mut open;
        connection.send(&kms.request("health", &health).to_bytes());
        let answer = connection.receive();
        assert_eq!((answer.status, answer.header("connection")), (200, None));
        barred.1.send(body);
        let answer = barred.1.receive();
        assert_refused(&answer, 401, AUTHENTICATION_FAILED);
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(idle.1.read_to_end().expect("it is closed"), b"");
        // A new one, with a ticket of before.
        let address = gone.address;
        let config = gone.tls.clone().expect("it speaks TLS");
        if let Ok(mut connection) = Connection::tls(connect(address), config) {
            // In TLS 1.3 the client is done before the server has seen its certificate.
            assert!(!connection.is_resumed());
            let _ = connection.try_send(&gone.request("health", &health).to_bytes());
            connection.try_receive().expect_err("the handshake fails");
        }
        kept.accepted("health", &health);
        gate.world
            .daemon
            .wait_for_metric("xksd_connections_closed_total{reason=\"client_barred\"}", 2.0);
    }
}

/// The same over HTTP/2: who is let in goes on, who is not hears that the connection ends, or is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_ca_goes_over_http_2_p_16() {
    let health = bare_body("KmsHealthCheck");
    let mut gate = Gate::new();
    let [kept, gone] = [0, 1].map(|who| gate.caller(who, &rustls::version::TLS13));
    let (open, barred) = (Http2::connect(&kept).await, Http2::connect(&gone).await);
    open.accepted(&kept, "health", &health).await;
    barred.accepted(&gone, "health", &health).await;
    let gate = tokio::task::spawn_blocking(move || {
        gate.narrow();
        gate
    });
    let _gate = gate.await.expect("it reloads");
    open.accepted(&kept, "health", &health).await;
    match barred.send(request(&gone, "health", &health)).await {
        Ok((status, body)) => {
            assert_eq!((status, &body["errorName"]), (401, &AUTHENTICATION_FAILED.into()));
        }
        Err(error) => assert!(error.is_closed() || error.is_canceled(), "{error:?}"),
    }
}

/// What is none of TLS's business leaves its sessions alone.
#[test]
fn sessions_are_resumed_across_other_reloads() {
    let mut world = World::new();
    let (kms, health) = (world.kms(&demo()), bare_body("KmsHealthCheck"));
    kms.accepted("health", &health);
    assert!(kms.connect().is_resumed());
    world.applied(|configuration| drop(configuration.server.insert("head_timeout", text("6s"))));
    assert!(kms.connect().is_resumed());
}

/// From now on clients have to show who they are: those who have not are out.
#[test]
fn client_certificates_are_asked_for_from_now_on_p_16() {
    let mut world = World::new();
    let (kms, health) = (world.kms(&demo()), bare_body("KmsHealthCheck"));
    let mut open = kms.connect();
    open.send(&kms.request("health", &health).to_bytes());
    assert_eq!(open.receive().status, 200);
    let amazon = Authority::new(world.site.path(), "amazon");
    let identity = amazon.issue("one", &format!("/{SUBJECT}"), KeyKind::Ec);
    let require = |configuration: &mut Configuration| {
        let tls = configuration.tls.as_mut().expect("it is TLS");
        tls.insert("client_ca", text(amazon.certificate().display()));
        tls.insert("client_subject", text(SUBJECT));
    };
    world.applied(require);
    assert_eq!(open.read_to_end().expect("it is closed"), b"");
    let ca = world.site.authority.certificate();
    let config: Arc<ClientConfig> = showing(ca, &rustls::version::TLS13, Some(&identity));
    Caller { tls: Some(config), ..kms }.accepted("health", &health);
}
