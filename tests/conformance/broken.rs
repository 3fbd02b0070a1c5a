//! Every fault is found, and what is sound passes.

use std::time::Duration;

use serde_json::Value;
use support::gate::PATIENCE;
use support::site::{Credential as TestCredential, REGION};
use xksd::client::{Connector, Endpoint, HttpVersion};
use xksd::conformance::report::Outcome;
use xksd::conformance::{Credential, Examination, Keys, Only, Report, Severity, Subject};
use xksd::secret::Secret;

use crate::faults::{FAULTS, Fault};
use crate::message::Reply;
use crate::proxy::{PREFIX, Proxy, Server};

/// Long enough for any machine.
const TIME: Duration = Duration::from_secs(600);

fn subject(server: &Server) -> Subject {
    let TestCredential { id, secret } = TestCredential::of('A');
    let endpoint: Endpoint = format!("http://{}/{PREFIX}", server.address).parse().unwrap();
    let key = |name: &str| Some(name.parse().unwrap());
    Subject {
        connector: Connector::plain(endpoint, HttpVersion::Http1, PATIENCE),
        trust: None,
        identity: None,
        credential: Credential::new(id, Secret::new(secret)),
        second_credential: None,
        region: REGION.to_owned(),
        key: "key".parse().unwrap(),
        keys: Keys {
            encrypt_only: key("encrypt-only"),
            decrypt_only: key("decrypt-only"),
            no_use: key("no-use"),
            disabled: None,
            second: key("second"),
            other_kind: None,
        },
        neighbour: None,
        balancer: None,
    }
}

async fn examine(server: &Server, severity: Severity) -> Report {
    let examination = Examination::new(subject(server), &[], severity, TIME);
    let most = examination.most();
    let report = examination.run(|_| {}).await.unwrap();
    assert!(report.requests <= most, "{} instead of {most}", report.requests);
    report
}

fn failures(report: &Report) -> Vec<String> {
    report.failures().map(|case| format!("{case}\n")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_proxy_passes() {
    let proxy = Proxy::new().await;
    let server = proxy.serve(Fault::NONE).await;
    let report = examine(&server, Severity::Strict).await;
    assert_eq!(report.failed, 0, "{}", failures(&report).concat());
    assert_eq!(report.noted, 0);
    assert!(report.passed >= 50, "{report}");
    // What needs something that nobody gave is skipped, and says what.
    for case in &report.cases {
        if let Outcome::Skipped(reason) = &case.outcome {
            assert!(reason.starts_with("needs "), "{reason}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_is_found_by_name() {
    let proxy = Proxy::new().await;
    let mut missed = Vec::new();
    for fault in FAULTS {
        let server = proxy.serve(fault).await;
        let report = examine(&server, Severity::Strict).await;
        if !report.failures().any(|case| case.name == fault.found_by) {
            missed.push(format!("{}: {:?}", fault.name, failures(&report)));
        }
        proxy.memory.lock().unwrap().clear();
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// What the specification leaves open is a note to others; what it asks for is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_of_ours_are_notes_to_others() {
    let proxy = Proxy::new().await;
    for (found_by, is_note) in [("query-strings", true), ("old-signatures", true), ("cdiv", false)]
    {
        let fault = *FAULTS.iter().find(|fault| fault.found_by == found_by).unwrap();
        let server = proxy.serve(fault).await;
        let only: Only = found_by.parse().unwrap();
        let examination = Examination::new(subject(&server), &[only], Severity::Lenient, TIME);
        let report = examination.run(|_| {}).await.unwrap();
        assert_eq!((report.noted, report.failed), (is_note.into(), (!is_note).into()), "{report}");
    }
}

/// Has every other answer say that the HSM has no time.
fn busy_turn(proxy: &Proxy, reply: &mut Reply) {
    let mut memory = proxy.memory.lock().unwrap();
    let turn = memory.remove("busy").is_none();
    if turn {
        memory.insert("busy".to_owned(), Value::Null);
        *reply = Reply::refusal(503, "DependencyTimeoutException");
    }
}

/// A proxy may be too busy for any request; asked again, it is judged by what it says then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_proxy_is_asked_again() {
    let sometimes = Fault { after: |proxy, _, reply| busy_turn(proxy, reply), ..Fault::NONE };
    let proxy = Proxy::new().await;
    let server = proxy.serve(sometimes).await;
    let only: Only = "cdiv".parse().unwrap();
    let examination = Examination::new(subject(&server), &[only], Severity::Strict, TIME);
    let (requests, most) = (examination.requests(), examination.most());
    let report = examination.run(|_| {}).await.unwrap();
    assert_eq!(report.failed, 0, "{}", failures(&report).concat());
    assert!((requests + 1..=most).contains(&report.requests), "{report}");
}

/// Nothing is asked any more once the time is up, and that is no success.
#[tokio::test]
async fn time_is_bounded() {
    let proxy = Proxy::new().await;
    let server = proxy.serve(Fault::NONE).await;
    let only: Only = "cdiv".parse().unwrap();
    let no_time = Duration::ZERO;
    let examination = Examination::new(subject(&server), &[only], Severity::Lenient, no_time);
    assert!(examination.run(|_| {}).await.is_err());
}
