//! The audit log of a daemon (P-81): what is recorded, and what happens when it can't be.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use serde_json::{Value, json};
use support::audit_log::{of_type, records, text as all_text, verify};
use support::caller::Caller;
use support::daemon::{Daemon, poll};
use support::request::{bare_body, decrypt_body, encrypt_body, hex, unbase64};
use support::site::{Configuration, Site, text};

use crate::world::{AUTHENTICATION_FAILED, KEY_NOT_FOUND, XKSD, demo, small_site};

const INTERNAL: &str = "InternalException";

fn configuration(lines: &[(&'static str, &str)]) -> Configuration {
    let mut configuration = Configuration::new(vec![demo()]);
    let lines: BTreeMap<_, _> = lines.iter().map(|(key, value)| (*key, text(value))).collect();
    configuration.audit = Some(lines);
    configuration
}

fn daemon(lines: &[(&'static str, &str)]) -> (Daemon, Caller) {
    let daemon = Daemon::start(small_site(&configuration(lines)));
    let kms = Caller::new(&daemon, &demo());
    (daemon, kms)
}

fn stop(daemon: Daemon) -> Arc<Site> {
    let site = daemon.site.clone();
    daemon.signal("TERM");
    let (status, log) = daemon.wait_exit();
    assert_eq!(status.code(), Some(0), "{log}");
    site
}

fn wait_for_records(directory: &Path, kind: &str, count: usize) {
    poll(|| of_type(directory, kind).len() >= count, || all_text(directory));
}

/// P-81: one record for each request that was authenticated, sums of those that were not.
#[test]
fn each_authenticated_request_is_audited_p_81() {
    let (daemon, kms) = daemon(&[]);
    let mut body = encrypt_body(b"NEVER-IN-A-RECORD", Some(b"NOR-THE-AAD"));
    body["requestMetadata"]["kmsRequestId"] = "id-of-one \"quoted\"\n".into();
    let sealed = kms.accepted("keys/demo-key/encrypt", &body);
    kms.accepted("keys/demo-key/decrypt", &decrypt_body(&sealed, Some(b"NOR-THE-AAD")));
    kms.accepted("health", &bare_body("KmsHealthCheck"));
    let described = bare_body("DescribeKey");
    kms.refused("keys/not-allowed/metadata", &described, 404, KEY_NOT_FOUND);
    kms.refused("keys/demo-key/encrypt", &json!({}), 400, crate::world::VALIDATION);
    let mut stranger = kms.clone();
    stranger.credential.secret = "x".repeat(43);
    for _ in 0..3 {
        stranger.refused("health", &bare_body("KmsHealthCheck"), 401, AUTHENTICATION_FAILED);
    }
    let site = stop(daemon);
    let directory = site.audit();
    assert_eq!(verify(&directory).findings, []);
    let requests = of_type(&directory, "request");
    let told = |member: &str| -> Vec<&Value> { requests.iter().map(|r| &r[member]).collect() };
    let operations = ["Encrypt", "Decrypt", "GetHealthStatus", "GetKeyMetadata", "Encrypt"];
    assert_eq!(told("operation"), operations);
    let outcomes = ["OK", "OK", "OK", KEY_NOT_FOUND, crate::world::VALIDATION];
    assert_eq!(told("outcome"), outcomes);
    assert_eq!(told("decision"), ["allowed", "allowed", "none", "denied", "none"]);
    let first = &requests[0];
    for (member, value) in [
        ("kms_request_id", json!("id-of-one \"quoted\"\\n")),
        ("keystore", json!("demo")),
        ("key", json!("demo-key")),
        ("version", json!(1)),
        ("principal", json!("arn:aws:iam::123456789012:user/Alice")),
        ("access_key_id", json!(demo().credentials[0].id)),
        ("region", json!("us-east-1")),
        ("policies", json!(["key-rule:demo-*"])),
        ("hsm", json!("softhsm")),
        ("attempts", json!(1)),
    ] {
        assert_eq!(first[member], value, "{member}: {first}");
    }
    let refused = of_type(&directory, "refused");
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!((&refused[0]["keystore"], &refused[0]["count"]), (&json!("demo"), &json!(3)));
    let kinds: Vec<_> = records(&directory).iter().map(|r| r["type"].clone()).collect();
    assert_eq!((&kinds[0], &kinds[kinds.len() - 1]), (&json!("opened"), &json!("closed")));
    // Neither plaintext nor ciphertext, AAD or secret, in whatever form.
    let text = all_text(&directory);
    let ciphertext = unbase64(&sealed["ciphertext"]);
    for secret in [&b"NEVER-IN-A-RECORD"[..], b"NOR-THE-AAD", &ciphertext] {
        let clear = String::from_utf8_lossy(secret).into_owned();
        for form in [clear, hex(secret), support::request::base64(secret)] {
            assert!(!text.contains(&form), "{form}");
        }
    }
    assert!(!text.contains(sealed["ciphertext"].as_str().unwrap()));
    assert!(!text.contains(&demo().credentials[0].secret));
}

/// With `sync_interval = "0s"` whatever was answered is on disk, and kill -9 at any moment costs no
/// more than what was not answered.
#[test]
fn what_was_answered_survives_kill_9() {
    let (mut running, _) = daemon(&[("sync_interval", "0s")]);
    let mut answered = 0;
    for _ in 0..3 {
        let kms = Caller::new(&running, &demo());
        let callers: Vec<_> = (0..4)
            .map(|_| {
                let kms = kms.clone();
                thread::spawn(move || {
                    let mut connection = kms.connect();
                    let request = kms.request("health", &bare_body("KmsHealthCheck")).to_bytes();
                    let mut answered = 0;
                    // Until the daemon is killed.
                    while connection.try_send(&request).is_ok() {
                        match connection.try_receive() {
                            Ok(answer) => answered += usize::from(answer.status == 200),
                            Err(_) => break,
                        }
                    }
                    answered
                })
            })
            .collect();
        running.wait_for_metric("xksd_audit_records_total{type=\"request\"}", 100.0);
        running.signal("KILL");
        answered += callers.into_iter().map(|caller| caller.join().unwrap()).sum::<usize>();
        let site = running.site.clone();
        drop(running);
        running = Daemon::start(site);
    }
    let site = stop(running);
    let directory = site.audit();
    let report = verify(&directory);
    assert_eq!((report.findings, report.chains.len()), (Vec::new(), 1));
    let recorded = of_type(&directory, "request").len();
    assert!(answered >= 300 && recorded >= answered, "{recorded} records of {answered} answers");
    assert_eq!(of_type(&directory, "opened").len(), 4);
}

#[test]
fn where_the_directory_is_gone_refuse_serves_nothing() {
    let (daemon, kms) = daemon(&[]);
    let body = encrypt_body(b"x", None);
    kms.accepted("keys/demo-key/encrypt", &body);
    let directory = daemon.site.audit();
    wait_for_records(&directory, "request", 1);
    let away = daemon.site.path().join("away");
    fs::rename(&directory, &away).unwrap();
    let ready = || daemon.ask(daemon.ops, "/readyz");
    poll(
        || ready() == (503, "the audit log cannot be written\n".into()),
        || format!("{:?}", ready()),
    );
    kms.refused("keys/demo-key/encrypt", &body, 500, INTERNAL);
    kms.refused("health", &bare_body("KmsHealthCheck"), 500, INTERNAL);
    assert!(daemon.metrics().contains("xksd_audit_refused_total 2"));
    daemon.wait_for_line("the audit log cannot be written");
    fs::rename(&away, &directory).unwrap();
    poll(|| ready().0 == 200, || format!("{:?}", ready()));
    kms.accepted("keys/demo-key/encrypt", &body);
    let site = stop(daemon);
    let directory = site.audit();
    assert_eq!(verify(&directory).findings, []);
    let gap = &of_type(&directory, "gap")[0];
    assert_eq!((&gap["lost"], &gap["refused"]), (&json!(0), &json!(2)), "{gap}");
    assert_eq!(of_type(&directory, "request").len(), 2);
}

#[test]
fn where_the_directory_is_gone_warn_serves_and_keeps_what_it_can() {
    let (daemon, kms) = daemon(&[("on_failure", "warn")]);
    let body = encrypt_body(b"x", None);
    kms.accepted("keys/demo-key/encrypt", &body);
    let directory = daemon.site.audit();
    wait_for_records(&directory, "request", 1);
    fs::remove_dir_all(&directory).unwrap();
    daemon.wait_for_metric("xksd_audit_failures_total", 1.0);
    for _ in 0..5 {
        kms.accepted("keys/demo-key/encrypt", &body);
    }
    assert_eq!(daemon.ask(daemon.ops, "/readyz").0, 200);
    xksd::audit::store::make_directory(&directory).unwrap();
    wait_for_records(&directory, "request", 5);
    let site = stop(daemon);
    let directory = site.audit();
    // What went with the directory is missing, and the log says so itself.
    assert_ne!(verify(&directory).chains[0].first, 1);
    assert_eq!(of_type(&directory, "file_lost").len(), 1);
}

#[test]
fn a_directory_serves_one_proxy() {
    let (daemon, _) = daemon(&[]);
    let output = daemon.site.command(&["serve"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(71), "{stderr}");
    assert!(stderr.contains("another process writes the audit log in"), "{stderr}");
    assert!(stderr.contains("hint: the setting is audit.directory"), "{stderr}");
}

/// The subject without which TLS lets nobody in.
#[test]
fn the_subject_of_the_client_certificate_is_audited() {
    use support::certificates::{Authority, KeyKind};
    let site = Site::new(XKSD);
    let clients = Authority::new(site.path(), "amazon");
    let mut configuration = configuration(&[]);
    let tls = configuration.tls.as_mut().unwrap();
    tls.insert("client_ca", text(clients.certificate().display()));
    tls.insert("client_subject", text("CN=cks.kms.us-east-1.amazonaws.com"));
    site.configure(&configuration);
    let client = clients.issue("kms", "/CN=cks.kms.us-east-1.amazonaws.com", KeyKind::Ec);
    site.create_key("demo-key", "encrypt,decrypt");
    let daemon = Daemon::start(site);
    let ca = daemon.site.authority.certificate();
    let version = &rustls::version::TLS13;
    let kms = Caller::new(&daemon, &demo());
    let kms = Caller { tls: Some(crate::handshake::showing(ca, version, Some(&client))), ..kms };
    kms.accepted("health", &bare_body("KmsHealthCheck"));
    let site = stop(daemon);
    let requests = of_type(&site.audit(), "request");
    assert_eq!(requests[0]["client_subject"], "CN=cks.kms.us-east-1.amazonaws.com");
}
