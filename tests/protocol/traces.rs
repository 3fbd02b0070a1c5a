//! Traces as a collector gets them: the spans of each operation, what is in them, and whose there are
//! none of.

use std::collections::BTreeMap;
use std::net::TcpListener;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::Value;
use support::caller::Caller;
use support::collector::Collector;
use support::daemon::Daemon;
use support::request::{bare_body, base64, decrypt_body, encrypt_body, hex, unbase64};
use support::shim::{library, set_script};
use support::site::{Configuration, Credential, text};

use crate::world::{demo, small_site};

const PLAINTEXT: &[u8] = b"plaintext of the traces";
const AAD: &[u8] = b"context of the traces";

const ENDPOINT: &str = "XKSD_TRACES__OTLP_ENDPOINT";

/// A daemon that traces to this address.
fn tracing(address: impl std::fmt::Display) -> (Daemon, Caller) {
    let site = small_site(&Configuration::new(vec![demo()]));
    let daemon = Daemon::start_with(site, &[(ENDPOINT, &format!("http://{address}"))]);
    let kms = Caller::new(&daemon, &demo());
    (daemon, kms)
}

fn exports(bodies: &[Vec<u8>]) -> Vec<ExportTraceServiceRequest> {
    bodies.iter().map(|body| ExportTraceServiceRequest::decode(&body[..]).unwrap()).collect()
}

fn attributes(attributes: &[KeyValue]) -> BTreeMap<&str, String> {
    let text = |attribute: &KeyValue| match attribute.value.clone().and_then(|value| value.value) {
        Some(AnyValue::StringValue(text)) => text,
        Some(AnyValue::IntValue(number)) => number.to_string(),
        other => panic!("{other:?}"),
    };
    attributes.iter().map(|attribute| (attribute.key.as_str(), text(attribute))).collect()
}

/// All spans of one request, the request itself first.
fn spans_of(exports: &[ExportTraceServiceRequest], kms_request_id: &str) -> Vec<Span> {
    let scopes = exports.iter().flat_map(|e| &e.resource_spans).flat_map(|r| &r.scope_spans);
    let all = scopes.flat_map(|scope| &scope.spans);
    all.filter(|span| attributes(&span.attributes)["kms.request_id"] == kms_request_id)
        .cloned()
        .collect()
}

/// A body with this kmsRequestId.
fn with_id(mut body: Value, id: &str) -> Value {
    body["requestMetadata"]["kmsRequestId"] = id.into();
    body
}

/// The steps below a request, by name, with what `attribute` says of each.
fn steps(spans: &[Span], attribute: &str) -> Vec<String> {
    let (request, steps) = spans.split_first().expect("the request is traced");
    assert!(request.parent_span_id.is_empty());
    assert_eq!(request.kind, 2, "SERVER");
    let mut before = request.start_time_unix_nano;
    for step in steps {
        assert_eq!(step.trace_id, request.trace_id);
        assert_eq!(step.parent_span_id, request.span_id);
        assert!(step.start_time_unix_nano >= before, "{spans:?}");
        assert!(step.start_time_unix_nano <= step.end_time_unix_nano, "{spans:?}");
        assert!(step.end_time_unix_nano <= request.end_time_unix_nano, "{spans:?}");
        before = step.end_time_unix_nano;
    }
    let said = |step: &Span| match attributes(&step.attributes).get(attribute) {
        Some(said) => format!("{} {said}", step.name),
        None => step.name.clone(),
    };
    steps.iter().map(said).collect()
}

#[test]
fn every_operation_is_a_tree_of_its_steps() {
    let collector = Collector::start();
    let (daemon, kms) = tracing(collector.address);
    let encrypt = with_id(encrypt_body(PLAINTEXT, Some(AAD)), "id-e");
    let sealed = kms.accepted("keys/demo-key/encrypt", &encrypt);
    kms.accepted("keys/demo-key/decrypt", &with_id(decrypt_body(&sealed, Some(AAD)), "id-d"));
    kms.accepted("keys/demo-key/metadata", &with_id(bare_body("DescribeKey"), "id-m"));
    kms.accepted("health", &with_id(bare_body("KmsHealthCheck"), "id-h"));
    kms.refused(
        "keys/demo-none/metadata",
        &with_id(bare_body("DescribeKey"), "id-r"),
        404,
        "KeyNotFoundException",
    );
    // What waits when it is told to leave is sent as well.
    daemon.signal("TERM");
    let (status, log) = daemon.wait_exit();
    assert_eq!(status.code(), Some(0), "{log}");
    // P-45, and more: nothing of what a request brings or takes away.
    let bytes = collector.bodies().concat();
    for (name, content) in [
        ("plaintext", PLAINTEXT.to_vec()),
        ("AAD", AAD.to_vec()),
        ("ciphertext", unbase64(&sealed["ciphertext"])),
        ("tag", unbase64(&sealed["authenticationTag"])),
        ("IV", unbase64(&sealed["initializationVector"])),
    ] {
        for form in [content.clone(), base64(&content).into_bytes(), hex(&content).into_bytes()] {
            assert!(!bytes.windows(form.len()).any(|window| window == form), "{name}");
        }
    }
    let exports = exports(&collector.bodies());
    for export in &exports {
        let [resource] = &export.resource_spans[..] else { panic!("{export:?}") };
        let resource = attributes(&resource.resource.as_ref().unwrap().attributes);
        assert_eq!(resource["service.name"], "xksd");
        assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
        assert!(!resource["host.name"].is_empty());
    }
    let spans = |id| spans_of(&exports, id);
    let encrypt = spans("id-e");
    // The order of the steps, and the jobs: an encryption is checked by a decryption.
    let way = ["body", "authenticate", "authorize", "catalogue"];
    let jobs = ["queue encrypt", "hsm encrypt", "queue check", "hsm check"];
    assert_eq!(steps(&encrypt, "hsm.work"), [&way[..], &jobs, &["respond"]].concat());
    let decrypt = [&way[..], &["queue decrypt", "hsm decrypt", "respond"]].concat();
    assert_eq!(steps(&spans("id-d"), "hsm.work"), decrypt);
    assert_eq!(steps(&spans("id-m"), "hsm.work"), [&way[..], &["respond"]].concat());
    assert_eq!(steps(&spans("id-h"), "hsm.work"), [&way[..3], &["respond"]].concat());
    let hsm = encrypt.iter().find(|span| span.name == "hsm").unwrap();
    assert_eq!(hsm.kind, 3, "CLIENT");
    let said = attributes(&hsm.attributes);
    assert_eq!((said["hsm.token"].as_str(), said["xks.attempt"].as_str()), ("softhsm", "1"));
    let expected = [
        ("hsm.token", "softhsm"),
        ("http.response.status_code", "200"),
        ("kms.operation", "Encrypt"),
        ("kms.request_id", "id-e"),
        ("xks.attempts", "1"),
        ("xks.key", "demo-key"),
        ("xks.key_version", "1"),
        ("xks.keystore", "demo"),
        ("xks.operation", "Encrypt"),
        ("xks.outcome", "ok"),
    ];
    assert_eq!(attributes(&encrypt[0].attributes), expected.map(|(k, v)| (k, v.to_owned())).into());
    assert_eq!((encrypt[0].name.as_str(), encrypt[0].status.as_ref()), ("Encrypt", None));
    let refused = spans("id-r");
    let said = attributes(&refused[0].attributes);
    assert_eq!(said["error.type"], "KeyNotFoundException");
    assert_eq!((said["xks.outcome"].as_str(), said["xks.key"].as_str()), ("refused", "demo-none"));
    assert_eq!(said["http.response.status_code"], "404");
    let failed: Vec<&str> = refused
        .iter()
        .filter(|span| span.status.as_ref().is_some_and(|status| status.code == 2))
        .map(|span| span.name.as_str())
        .collect();
    assert_eq!(failed, ["GetKeyMetadata", "catalogue"]);
}

/// A late request tells where it was late.
#[test]
fn a_late_request_ends_in_the_hsm() {
    let collector = Collector::start();
    let mut configuration = Configuration::new(vec![demo()]);
    configuration.module = Some(library());
    let site = small_site(&configuration);
    let script = site.for_module("script");
    let environment = format!("{{ PKCS11_SHIM_SCRIPT = {} }}", text(script.display()));
    configuration.token.insert("environment", environment);
    site.configure(&configuration);
    let endpoint = format!("http://{}", collector.address);
    let daemon = Daemon::start_with(site, &[(ENDPOINT, &endpoint)]);
    let kms = Caller::new(&daemon, &demo());
    set_script(&script, "C_Encrypt delay 2s\n");
    let late = |number: usize| {
        let id = format!("late-{number}");
        kms.call("keys/demo-key/encrypt", &with_id(encrypt_body(b"x", None), &id));
        let bodies = collector.wait_for(|bodies| !spans_of(&exports(bodies), &id).is_empty());
        let spans = spans_of(&exports(&bodies), &id);
        let hsm = spans.iter().find(|span| span.name == "hsm")?;
        assert_eq!(hsm.status.as_ref().map(|status| status.code), Some(2));
        Some(attributes(&spans[0].attributes)["error.type"].clone())
    };
    // On a busy machine a session may take one only when it is too late for it.
    let error = (0..8).find_map(late).expect("one of them was in the HSM");
    assert_eq!(error, "DependencyTimeoutException");
}

/// Nobody fills the collector without a credential, and nobody says whose trace a request is of.
#[test]
fn strangers_leave_no_traces() {
    let collector = Collector::start();
    let (daemon, kms) = tracing(collector.address);
    let stranger = Caller { credential: Credential::of('Z'), ..kms.clone() };
    let body = with_id(bare_body("DescribeKey"), "stranger");
    assert_eq!(stranger.call("keys/demo-key/metadata", &body).status, 401);
    let mut request =
        kms.request("keys/demo-key/metadata", &with_id(bare_body("DescribeKey"), "ours"));
    let foreign = "00-11111111111111111111111111111111-2222222222222222-00";
    request.headers.push(("traceparent".to_owned(), foreign.to_owned()));
    assert_eq!(kms.send(&request).status, 200);
    daemon.signal("TERM");
    daemon.wait_exit();
    let exports = exports(&collector.bodies());
    assert!(spans_of(&exports, "stranger").is_empty());
    let ours = spans_of(&exports, "ours");
    assert_ne!(ours[0].trace_id, [0x11; 16]);
    assert!(ours[0].parent_span_id.is_empty());
}

#[test]
fn a_ratio_of_zero_is_no_trace_at_all() {
    let collector = Collector::start();
    let site = small_site(&Configuration::new(vec![demo()]));
    let endpoint = format!("http://{}", collector.address);
    let variables = [(ENDPOINT, endpoint.as_str()), ("XKSD_TRACES__SAMPLE_RATIO", "0.0")];
    let daemon = Daemon::start_with(site, &variables);
    let kms = Caller::new(&daemon, &demo());
    kms.accepted("keys/demo-key/metadata", &bare_body("DescribeKey"));
    daemon.signal("TERM");
    daemon.wait_exit();
    assert!(collector.bodies().is_empty());
}

/// A collector that takes connections and says nothing costs its traces, and nobody's request.
#[test]
fn a_hung_collector_is_nobodys_trouble() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (daemon, kms) = tracing(listener.local_addr().unwrap());
    for _ in 0..50 {
        kms.accepted("keys/demo-key/encrypt", &encrypt_body(b"x", None));
    }
    assert!(daemon.metrics().contains("xksd_traces_exported_total 0\n"));
    daemon.signal("TERM");
    let (status, log) = daemon.wait_exit();
    assert_eq!(status.code(), Some(0), "{log}");
}
