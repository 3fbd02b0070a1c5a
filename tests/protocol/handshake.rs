//! TLS: versions, suites, key exchange, kinds of keys, client certificates (P-2, P-7, P-16).

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, SupportedProtocolVersion};
use support::caller::Caller;
use support::certificates::{Authority, Identity, KeyForm, KeyKind};
use support::daemon::Daemon;
use support::http::{Connection, connect, roots};
use support::request::bare_body;
use support::site::{Configuration, Site, text};

use crate::world::{XKSD, daemon, demo};

/// What `openssl s_client` says of a handshake with these options.
fn s_client(address: SocketAddr, ca: &Path, options: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string(), "-servername", "localhost"])
        .args(["-verify_return_error", "-verify_hostname", "localhost", "-CAfile"])
        .arg(ca)
        .args(options)
        .stdin(Stdio::null())
        .output()
        .expect("openssl made the certificates");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// A site whose server shows this kind of key in this form, and serves without waiting for keys.
fn serving(kind: KeyKind, form: KeyForm) -> Daemon {
    let mut site = Site::new(XKSD);
    site.server = site.authority.issue("other", "/CN=localhost", kind).with_key_form(form);
    site.configure(&Configuration::new(vec![demo()]));
    Daemon::start(site)
}

/// P-2: the suites of the protocol are served, with both kinds of certificates, and no other is.
/// PKCS#8, PKCS#1 and SEC1 keys are read.
#[test]
fn the_suites_are_those_of_p_2() {
    let of_rsa = "ECDHE-RSA-AES256-GCM-SHA384";
    let of_ec = "ECDHE-ECDSA-AES256-GCM-SHA384";
    for (kind, form, good, bad) in [
        (KeyKind::Rsa, KeyForm::Traditional, of_rsa, of_ec),
        (KeyKind::Rsa, KeyForm::Pkcs8, of_rsa, of_ec),
        (KeyKind::Ec, KeyForm::Traditional, of_ec, of_rsa),
        (KeyKind::Ec, KeyForm::Pkcs8, of_ec, of_rsa),
    ] {
        let daemon = serving(kind, form);
        let ca = daemon.site.authority.certificate().to_owned();
        let said = s_client(daemon.address, &ca, &["-tls1_2", "-cipher", good]);
        assert!(said.contains(&format!("New, TLSv1.2, Cipher is {good}")), "{said}");
        for suite in ["TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"] {
            let said = s_client(daemon.address, &ca, &["-tls1_3", "-ciphersuites", suite]);
            assert!(said.contains(&format!("New, TLSv1.3, Cipher is {suite}")), "{said}");
        }
        let said = s_client(daemon.address, &ca, &["-tls1_2", "-cipher", bad]);
        assert!(said.contains("Cipher is (NONE)") && said.contains("alert"), "{said}");
    }
}

/// P-2: what else openssl can offer is refused by the daemon, with an alert.
#[test]
fn other_versions_and_suites_are_refused() {
    let daemon = daemon();
    let ca = daemon.site.authority.certificate();
    let weak = "ALL:@SECLEVEL=0";
    for options in [
        &["-tls1", "-cipher", weak][..],
        &["-tls1_1", "-cipher", weak],
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"],
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA384:ECDHE-ECDSA-AES256-SHA:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "DHE-RSA-AES256-GCM-SHA384:AES256-GCM-SHA384:AES256-SHA"],
        &["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"],
    ] {
        let said = s_client(daemon.address, ca, options);
        assert!(said.contains("Cipher is (NONE)"), "{options:?}: {said}");
        assert!(
            said.contains("alert protocol version") || said.contains("alert handshake failure"),
            "{options:?}: {said}"
        );
    }
}

/// P-2: ALPN chooses between HTTP/1.1 and HTTP/2, the latter first; without it, it is HTTP/1.1.
#[test]
fn alpn_chooses() {
    let daemon = daemon();
    let ca = daemon.site.authority.certificate();
    let chosen = |offer: &str| {
        let said = s_client(daemon.address, ca, &["-alpn", offer]);
        said.lines().find_map(|line| line.strip_prefix("ALPN protocol: ")).map(str::to_owned)
    };
    assert_eq!(chosen("h2,http/1.1").as_deref(), Some("h2"));
    assert_eq!(chosen("http/1.1,h2").as_deref(), Some("h2"));
    assert_eq!(chosen("http/1.1").as_deref(), Some("http/1.1"));
    let kms = crate::world::caller(&demo());
    let mut config = ClientConfig::clone(kms.tls.as_ref().unwrap());
    config.alpn_protocols = Vec::new();
    let silent = Caller { tls: Some(Arc::new(config)), ..kms };
    silent.accepted("health", &bare_body("KmsHealthCheck"));
}

/// The hybrid post-quantum key exchange, and each of the classic ones by itself.
#[test]
fn key_exchanges() {
    let daemon = daemon();
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    for group in [X25519MLKEM768, X25519, SECP256R1, SECP384R1] {
        let provider = rustls::crypto::CryptoProvider {
            kx_groups: vec![group],
            ..aws_lc_rs::default_provider()
        };
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots(daemon.site.authority.certificate()))
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut tcp = connect(daemon.address);
        while connection.is_handshaking() {
            connection.complete_io(&mut tcp).unwrap();
        }
        assert_eq!(connection.negotiated_key_exchange_group().unwrap().name(), group.name());
    }
}

/// A client that shows this certificate, over this version of TLS.
pub(crate) fn showing(
    ca: &Path,
    version: &'static SupportedProtocolVersion,
    identity: Option<&Identity>,
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots(ca));
    Arc::new(match identity {
        None => builder.with_no_client_auth(),
        Some(Identity { certificate, key }) => {
            let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
            let key = PrivateKeyDer::from_pem_file(key).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    })
}

/// P-16: chain and subject must both be right; whatever else ends the handshake, for both
/// versions of TLS.
#[test]
fn clients_show_who_they_are() {
    const SUBJECT: &str = "CN=cks.kms.us-east-1.amazonaws.com";
    let site = Site::new(XKSD);
    let clients = Authority::new(site.path(), "amazon");
    let others = Authority::new(site.path(), "others");
    let mut configuration = Configuration::new(vec![demo()]);
    let tls = configuration.tls.as_mut().unwrap();
    tls.insert("client_ca", text(clients.certificate().display()));
    tls.insert("client_subject", text(SUBJECT));
    site.configure(&configuration);
    let subject = format!("/{SUBJECT}");
    let right = clients.issue("right", &subject, KeyKind::Rsa);
    let strangers = [
        clients.issue("region", "/CN=cks.kms.eu-west-1.amazonaws.com", KeyKind::Ec),
        clients.issue("more", &format!("/O=Elsewhere{subject}"), KeyKind::Ec),
        clients.issue("twice", &format!("{subject}{subject}"), KeyKind::Ec),
        clients.issue("longer", &format!("{subject}.example.com"), KeyKind::Ec),
        clients.issue("as-organisation", "/O=cks.kms.us-east-1.amazonaws.com", KeyKind::Ec),
        others.issue("other-ca", &subject, KeyKind::Ec),
        // The server's own CA is not that of clients.
        site.authority.issue("server-ca", &subject, KeyKind::Ec),
    ];
    let daemon = Daemon::start(site);
    let ca = daemon.site.authority.certificate();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let kms = Caller::new(&daemon, &demo());
        let kms = Caller { tls: Some(showing(ca, version, Some(&right))), ..kms };
        kms.accepted("health", &bare_body("KmsHealthCheck"));
        for stranger in strangers.iter().map(Some).chain([None]) {
            let config = showing(ca, version, stranger);
            // In TLS 1.3 the client is done before the server has seen its certificate.
            if let Ok(mut connection) = Connection::tls(connect(daemon.address), config) {
                let request = kms.request("health", &bare_body("KmsHealthCheck"));
                let _ = connection.try_send(&request.to_bytes());
                let answer = connection.try_receive();
                let error = answer.expect_err("the handshake fails");
                assert!(error.to_string().contains("alert"), "{stranger:?}: {error}");
                assert_eq!(version.version, rustls::ProtocolVersion::TLSv1_3);
            }
        }
        kms.accepted("health", &bare_body("KmsHealthCheck"));
    }
    let failed = 2.0 * (strangers.len() + 1) as f64;
    daemon.wait_for_metric("xksd_tls_handshakes_total{outcome=\"failed\"}", failed);
}

/// Plain HTTP is served where the configuration says so, and says so in the log.
#[test]
fn plain_http_is_asked_for() {
    let mut configuration = Configuration::new(vec![demo()]);
    configuration.tls = None;
    let daemon = Daemon::start(crate::world::small_site(&configuration));
    let kms = Caller::new(&daemon, &demo()).plain();
    kms.accepted("health", &bare_body("KmsHealthCheck"));
    assert!(daemon.logged().contains("INSECURE"));
}
