//! Keys that the daemon has rotated by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use support::caller::Caller;
use support::daemon::{Daemon, poll};
use support::process::Process;
use support::request::{decrypt_body, encrypt_body};
use support::shim::{library, set_script, wait_for_calls};
use support::site::{Configuration, Site, Tenant, text};

use crate::world::{FOREIGN_KEY, XKSD, demo};

const OLD: &[u8] = b"xksd1:00000000000000aa:1:enabled:1:20200101:-:-";

fn site(lines: &[&'static str]) -> Arc<Site> {
    let tenant = Tenant { lines: lines.to_vec(), ..demo() };
    let mut configuration = Configuration::new(vec![tenant]);
    configuration.others.insert("state", BTreeMap::from([("directory", text("state"))]));
    configuration.token.insert("catalogue_interval", text("100ms"));
    configuration.module = Some(library());
    let site = Site::new(XKSD);
    let at = |name: &str| site.for_module(name).display().to_string();
    let (script, counts) = (at("script"), at("counts"));
    let environment =
        format!("{{ PKCS11_SHIM_SCRIPT = \"{script}\", PKCS11_SHIM_COUNTS = \"{counts}\" }}");
    configuration.token.insert("environment", environment);
    site.configure(&configuration);
    site.run(&["state", "init"]);
    Arc::new(site)
}

/// Number, status and date of each version, newest first.
fn versions(site: &Site, id: &str) -> Vec<(u64, String, String)> {
    let output = site.command(&["keys", "describe", id, "--json"]).output().unwrap();
    // SoftHSM2 hides a token for a moment while another process logs in.
    let Ok(key) = serde_json::from_slice::<Value>(&output.stdout) else { return Vec::new() };
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let version = |version: &Value| {
        let number = version["version"].as_u64().expect("it is a number");
        (number, word(&version["status"]), word(&version["created"]))
    };
    key["versions"].as_array().expect("there are some").iter().map(version).collect()
}

fn numbers(site: &Site, id: &str) -> Vec<(u64, String)> {
    versions(site, id).into_iter().map(|(number, status, _)| (number, status)).collect()
}

fn enabled(numbers: &[u64]) -> Vec<(u64, String)> {
    numbers.iter().map(|number| (*number, "enabled".to_owned())).collect()
}

fn rotations(outcome: &str) -> String {
    format!("xksd_rotations_total{{keystore=\"demo\",outcome=\"{outcome}\"}}")
}

#[test]
fn an_old_key_is_rotated_and_others_are_not() {
    let site = site(&["rotation = { every = \"365d\" }"]);
    site.create_key("demo-new", "encrypt,decrypt");
    site.import_aes("demo-old", OLD, &[1; 32]);
    site.import_aes("demo-stopped", b"xksd1:00000000000000bb:1:disabled:2:20200101:-:-", &[2; 32]);
    site.import_aes("demo-foreign", b"\x01", &FOREIGN_KEY);
    // No rule of the key store allows it.
    site.import_aes("other-old", b"xksd1:00000000000000cc:1:enabled:1:20200101:-:-", &[3; 32]);
    let daemon = Daemon::start(site.clone());
    let kms = Caller::new(&daemon, &demo());
    let sealed = kms.accepted("keys/demo-old/encrypt", &encrypt_body(b"before or after", None));
    daemon.wait_for_metric(&rotations("done"), 1.0);
    daemon.wait_for_line("rotated a key");
    // It is not old any more, and the others never were.
    poll(|| numbers(&site, "demo-old") == enabled(&[2, 1]), || daemon.logged());
    let made = &versions(&site, "demo-old")[0].2;
    assert!(made.as_str() > "2026-01-01", "{made}");
    assert_eq!(numbers(&site, "demo-new"), enabled(&[1]));
    assert_eq!(numbers(&site, "demo-stopped"), [(1, "disabled".to_owned())]);
    assert_eq!(numbers(&site, "demo-foreign"), enabled(&[0]));
    assert_eq!(numbers(&site, "other-old"), enabled(&[1]));
    let metrics = daemon.metrics();
    assert!(metrics.contains(&format!("{} 1", rotations("done"))), "{metrics}");
    kms.accepted("keys/demo-old/decrypt", &decrypt_body(&sealed, None));
}

#[test]
fn a_key_is_rotated_before_it_has_encrypted_too_often() {
    let site = site(&["rotation = { before = 20 }"]);
    site.import_aes("demo-key", b"\x01", &FOREIGN_KEY);
    let daemon = Daemon::start(site.clone());
    let kms = Caller::new(&daemon, &demo());
    let encrypt = || kms.accepted("keys/demo-key/encrypt", &encrypt_body(b"counted", None));
    let mut sealed: Vec<_> = (0..19).map(|_| encrypt()).collect();
    let counted = "xksd_key_encryptions_counted{key=\"demo-key\",object_id=\"0000000000000000\",\
                   tokens=\"softhsm\",version=\"0\"}";
    daemon.wait_for_metric(counted, 19.0);
    assert!(!daemon.logged().contains("rotating a key that is due"));
    sealed.push(encrypt());
    let due = daemon.wait_for_line("rotating a key that is due");
    assert!(due.contains("\"why\":\"count\""), "{due}");
    daemon.wait_for_metric(&rotations("done"), 1.0);
    poll(|| numbers(&site, "demo-key") == enabled(&[1, 0]), || daemon.logged());
    for sealed in &sealed {
        kms.accepted("keys/demo-key/decrypt", &decrypt_body(sealed, None));
    }
}

#[test]
fn a_rotation_that_fails_is_told_and_tried_again() {
    let site = site(&["rotation = { every = \"30d\" }"]);
    site.import_aes("demo-key", OLD, &[1; 32]);
    let script = site.for_module("script");
    set_script(&script, "C_GenerateKey return CKR_DEVICE_MEMORY");
    let daemon = Daemon::start(site.clone());
    // Before a version is made; and afterwards: it cannot be done, or may be another time.
    for (function, code) in [
        ("C_GenerateKey", "CKR_DEVICE_MEMORY"),
        ("C_SetAttributeValue", "CKR_ATTRIBUTE_READ_ONLY"),
        ("C_SetAttributeValue", "CKR_DEVICE_ERROR"),
    ] {
        set_script(&script, &format!("{function} return {code}"));
        let is_told = |line: &str| line.contains("cannot rotate a key") && line.contains(code);
        poll(|| daemon.logged().lines().any(is_told), || daemon.logged());
    }
    daemon.wait_for_metric(&rotations("failed"), 3.0);
    let expected = [(2, "pending".to_owned()), (1, "enabled".to_owned())];
    poll(|| numbers(&site, "demo-key") == expected, || daemon.logged());
    set_script(&script, "");
    daemon.wait_for_metric(&rotations("done"), 1.0);
    poll(|| numbers(&site, "demo-key") == enabled(&[2, 1]), || daemon.logged());
}

#[test]
fn a_rotation_ends_with_the_daemon_and_the_next_one_completes_it() {
    let site = site(&["rotation = { every = \"30d\" }"]);
    site.import_aes("demo-key", OLD, &[1; 32]);
    let script = site.for_module("script");
    // The first that counts.
    site.run(&["keys", "list"]);
    for signal in ["TERM", "KILL"] {
        // The object is made, and nothing more: it is killed there.
        set_script(&script, "C_SetAttributeValue hang");
        let before = support::shim::Counts::read(&site.for_module("counts"));
        let daemon = Daemon::start(site.clone());
        let hung = before.of("C_SetAttributeValue") + 1;
        wait_for_calls(&site.for_module("counts"), "C_SetAttributeValue", hung);
        let is_rotation = |child: &Process| child.arguments_now().contains("--follow");
        let children = Process(daemon.pid()).children();
        let rotation = children.into_iter().find(is_rotation).expect("it hangs in the call");
        daemon.signal(signal);
        if signal == "TERM" {
            let (status, log) = daemon.wait_exit();
            assert!(status.success(), "{log}");
        }
        poll(|| rotation.arguments_now().is_empty(), || format!("{rotation:?} is left"));
        set_script(&script, "");
        let expected = [(2, "pending".to_owned()), (1, "enabled".to_owned())];
        poll(|| numbers(&site, "demo-key") == expected, || "no pending version".to_owned());
    }
    let daemon = Daemon::start(site.clone());
    daemon.wait_for_metric(&rotations("done"), 1.0);
    poll(|| numbers(&site, "demo-key") == enabled(&[2, 1]), || daemon.logged());
}
