//! Quotas of key stores and of keys: what is over them is throttled, and nobody else is.

use std::sync::atomic::{AtomicBool, Ordering};

use support::caller::{Caller, assert_refused};
use support::daemon::Daemon;
use support::request::{bare_body, encrypt_body};
use support::shim::{library, set_script};
use support::site::{Configuration, Credential, Site, Tenant, text};

use crate::world::{KEY_NOT_FOUND, XKSD, demo, other};

const THROTTLING: &str = "ThrottlingException";

/// A site with the keys of [`demo`] and [`other`].
fn site(configuration: &Configuration) -> Site {
    let site = Site::new(XKSD);
    site.configure(configuration);
    for key in ["demo-key", "demo-second", "other-key"] {
        site.create_key(key, "encrypt,decrypt");
    }
    site
}

/// Asks until it is too much; gives how often it was not. What a second brings is little beside what
/// is asked in it.
fn until_throttled(kms: &Caller, key: &str) -> usize {
    let (target, body) = (format!("keys/{key}/encrypt"), encrypt_body(b"x", None));
    for passed in 0..1000 {
        let answer = kms.call(&target, &body);
        match answer.status {
            200 => {}
            _ => {
                assert_refused(&answer, 429, THROTTLING);
                return passed;
            }
        }
    }
    panic!("1000 requests passed");
}

/// P-4: each key store by itself. P-70: ThrottlingException is for who is over quota.
#[test]
fn a_key_store_over_its_quota_is_throttled_and_no_other() {
    let mut limited = demo();
    limited.lines.push("quota = { requests_per_second = 1, burst = 5 }");
    let daemon = Daemon::start(site(&Configuration::new(vec![limited, other()])));
    let (kms, neighbour) = (Caller::new(&daemon, &demo()), Caller::new(&daemon, &other()));
    // Whoever can't sign is not charged to anybody, and health checks are charged to nobody.
    let forged = Tenant {
        credentials: vec![Credential { secret: "x".repeat(43), ..Credential::of('A') }],
        ..demo()
    };
    let forger = Caller::new(&daemon, &forged);
    for _ in 0..20 {
        assert_eq!(forger.call("keys/demo-key/encrypt", &encrypt_body(b"x", None)).status, 401);
        assert_eq!(kms.call("health", &bare_body("KmsHealthCheck")).status, 200);
    }
    assert!(until_throttled(&kms, "demo-key") >= 5);
    assert_eq!(kms.call("health", &bare_body("KmsHealthCheck")).status, 200);
    for _ in 0..20 {
        neighbour.accepted("keys/other-key/encrypt", &encrypt_body(b"x", None));
    }
    let sample =
        "xksd_over_quota_total{keystore=\"demo\",limit=\"requests_per_second\",quota=\"keystore\"}";
    daemon.wait_for_metric(sample, 1.0);
}

#[test]
fn a_key_over_its_quota_is_throttled_and_no_other() {
    let mut limited = demo();
    limited.lines.push("key_quota = { requests_per_second = 1, burst = 5 }");
    let daemon = Daemon::start(site(&Configuration::new(vec![limited])));
    let kms = Caller::new(&daemon, &demo());
    let body = encrypt_body(b"x", None);
    // What can't be used has no quota that it could be over.
    for _ in 0..20 {
        assert_refused(&kms.call("keys/demo-absent/encrypt", &body), 404, KEY_NOT_FOUND);
    }
    assert!(until_throttled(&kms, "demo-key") >= 5);
    kms.accepted("keys/demo-second/encrypt", &body);
    let sample =
        "xksd_over_quota_total{keystore=\"demo\",limit=\"requests_per_second\",quota=\"key\"}";
    daemon.wait_for_metric(sample, 1.0);
}

#[test]
fn more_at_once_than_the_quota_allows_are_throttled() {
    let mut limited = demo();
    limited.lines.push("quota = { concurrent = 1 }");
    let mut configuration = Configuration::new(vec![limited]);
    configuration.module = Some(library());
    configuration.token.insert("catalogue_interval", text("10m"));
    let site = site(&configuration);
    let script = site.for_module("script");
    let environment = format!("{{ PKCS11_SHIM_SCRIPT = \"{}\" }}", script.display());
    configuration.token.insert("environment", environment);
    site.configure(&configuration);
    let daemon = Daemon::start(site);
    let kms = Caller::new(&daemon, &demo());
    let body = encrypt_body(b"x", None);
    set_script(&script, "C_Encrypt delay 5ms\n");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut connection = kms.connect();
                while !is_over.load(Ordering::Relaxed) {
                    connection.send(&kms.request("keys/demo-key/encrypt", &body).to_bytes());
                    let answer = connection.receive();
                    if answer.status == 429 {
                        is_over.store(true, Ordering::Relaxed);
                        assert_refused(&answer, 429, THROTTLING);
                    }
                }
            });
        }
    });
    let sample = "xksd_over_quota_total{keystore=\"demo\",limit=\"concurrent\",quota=\"keystore\"}";
    daemon.wait_for_metric(sample, 1.0);
    // One at a time passes.
    kms.accepted("keys/demo-key/encrypt", &body);
}
