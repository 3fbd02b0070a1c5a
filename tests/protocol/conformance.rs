//! `xksd conformance` with all that it can be given, strictly: the daemon passes every case.

use support::gate::PATIENCE;
use support::site::{Credential as TestCredential, REGION};
use xksd::client::{Connector, Endpoint, HttpVersion, Trust};
use xksd::conformance::report::Outcome;
use xksd::conformance::{Credential, Examination, Keys, Neighbour, Severity, Subject};
use xksd::secret::Secret;

use crate::world::{daemon, demo, other};

fn credential(of: &TestCredential) -> std::sync::Arc<Credential> {
    Credential::new(of.id.clone(), Secret::new(of.secret.clone()))
}

fn subject(http: HttpVersion) -> Subject {
    let (daemon, demo, other) = (daemon(), demo(), other());
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
    let examination = Examination::new(subject(http), &[], Severity::Strict, time);
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
