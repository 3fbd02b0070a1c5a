//! `xksd conformance` with all that it can be given, strictly: the daemon passes every case.

use support::certificates::{Identity, KeyKind};
use support::daemon::Daemon;
use support::gate::PATIENCE;
use support::site::{Configuration, Credential as TestCredential, REGION, text};
use xksd::client::{ClientIdentity, Connector, Endpoint, HttpVersion, Trust};
use xksd::conformance::report::Outcome;
use xksd::conformance::{Credential, Examination, Keys, Neighbour, Only, Severity, Subject};
use xksd::secret::Secret;

use crate::world::{daemon, demo, other, small_site};

fn credential(of: &TestCredential) -> std::sync::Arc<Credential> {
    Credential::new(of.id.clone(), Secret::new(of.secret.clone()))
}

fn subject(daemon: &Daemon, http: HttpVersion) -> Subject {
    let (demo, other) = (demo(), other());
    let url = |prefix: &str| -> Endpoint {
        format!("https://localhost:{}/{prefix}", daemon.address.port()).parse().unwrap()
    };
    let trust = Trust::from_pem_file(daemon.site.authority.certificate()).unwrap();
    let key = |name: &str| Some(name.parse().unwrap());
    Subject {
        connector: Connector::new(url(demo.prefix), &trust, None, http, PATIENCE).unwrap(),
        trust: Some(trust),
        identity: None,
        credential: credential(&demo.credentials[0]),
        second_credential: Some(credential(&demo.credentials[1])),
        region: REGION.to_owned(),
        key: "demo-key".parse().unwrap(),
        keys: Keys {
            encrypt_only: key("demo-encrypt-only"),
            decrypt_only: key("demo-decrypt-only"),
            no_use: key("demo-no-use"),
            disabled: key("demo-disabled"),
            second: key("demo-second"),
            other_kind: key("demo-aes-128"),
        },
        neighbour: Some(Neighbour {
            endpoint: url(other.prefix),
            credential: credential(&other.credentials[0]),
            key: "other-key".parse().unwrap(),
        }),
        balancer: Some(format!("http://{}/readyz", daemon.ops).parse().unwrap()),
    }
}

/// Examines the daemon; gives the cases that were skipped.
async fn skipped(http: HttpVersion) -> Vec<&'static str> {
    let time = std::time::Duration::from_secs(600);
    let examination = Examination::new(subject(daemon(), http), &[], Severity::Strict, time);
    let report = examination.run(|_| {}).await.unwrap();
    let failures: Vec<String> = report.failures().map(|case| format!("{case}\n")).collect();
    assert!(failures.is_empty(), "{}", failures.concat());
    assert_eq!(report.noted, 0, "nothing is a note where all counts");
    let skipped = |outcome: &Outcome| matches!(outcome, Outcome::Skipped(_));
    report.cases.iter().filter(|case| skipped(&case.outcome)).map(|case| case.name).collect()
}

/// P-1 to P-71, all that a client can see. P-16 has a daemon of its own, in `handshake`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_passes_over_http_1() {
    assert_eq!(skipped(HttpVersion::Http1).await, ["mutual-tls", "contradicting-hosts"]);
}

/// P-2, and all the others once more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_passes_over_http_2() {
    assert_eq!(skipped(HttpVersion::Http2).await, ["mutual-tls"]);
}

/// How P-16 goes for somebody with this certificate.
async fn mutual_tls(daemon: &Daemon, identity: &Identity) -> Outcome {
    let Identity { certificate, key } = identity;
    let identity = ClientIdentity::from_pem_files(certificate, key).unwrap();
    let plain = subject(daemon, HttpVersion::Http1);
    let (endpoint, trust) = (plain.connector.endpoint().clone(), plain.trust.as_ref().unwrap());
    let http = HttpVersion::Http1;
    let connector = Connector::new(endpoint, trust, Some(&identity), http, PATIENCE).unwrap();
    let subject = Subject { connector, identity: Some(identity), ..plain };
    let only: Only = "mutual-tls".parse().unwrap();
    let time = std::time::Duration::from_secs(600);
    let examination = Examination::new(subject, &[only], Severity::Lenient, time);
    let mut report = examination.run(|_| {}).await.unwrap();
    report.cases.remove(0).outcome
}

/// P-16: who asks for certificates passes, who serves without one does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutual_tls_is_seen_from_outside() {
    const SUBJECT: &str = "CN=cks.kms.us-east-1.amazonaws.com";
    let mut configuration = Configuration::new(vec![demo()]);
    let site = small_site(&configuration);
    let tls = configuration.tls.as_mut().unwrap();
    tls.insert("client_subject", text(SUBJECT));
    tls.insert("client_ca", text(site.authority.certificate().display()));
    site.configure(&configuration);
    let identity = site.authority.issue("kms", &format!("/{SUBJECT}"), KeyKind::Ec);
    assert!(matches!(mutual_tls(daemon(), &identity).await, Outcome::Failed(_)));
    assert_eq!(mutual_tls(&Daemon::start(site), &identity).await, Outcome::Passed);
}
