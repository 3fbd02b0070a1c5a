//! A wrong PIN: real HSMs lock after three to ten tries.

use std::fs;
use std::sync::Arc;

use support::caller::Caller;
use support::daemon::Daemon;
use support::load::{Load, Proof, Vault};
use support::shim::Counts;

use crate::figures::Row;
use crate::world::{Isolation, Scale, demo, site};

/// The PIN is tried once, however long requests come, and the daemon says what it is waiting for.
pub(crate) fn wrong_pin(scale: Scale, isolation: Isolation) -> Row {
    let settings = [("catalogue_interval", "100ms"), ("probe_interval", "100ms")];
    let site = site(scale, isolation, &settings);
    let counts = site.for_module("counts");
    // Making the keys took logins too.
    let before = Counts::read(&counts);
    fs::write(site.path().join("token.pin"), "canary-wrong-PIN").expect("it can be written");
    let mut daemon = Daemon::launch(Arc::new(site), &[]);
    daemon.wait_for_line("the PIN was refused and is not tried again");
    let vault = Vault::new();
    // Many times the intervals of readings and probes, of which each request asks for some.
    let requests = scale.pick(100, 3000);
    let load = Load::new(&Caller::new(&daemon, &demo()), scale.rate());
    let report = load.send(&vault, requests);
    let failed = report.failed();
    assert_eq!(failed.keys().copied().collect::<Vec<_>>(), ["InternalException"], "{failed:?}");
    assert_eq!(failed["InternalException"], report.records.len());
    assert_eq!(Counts::read(&counts).since(&before).of("C_Login"), 1);
    assert!(daemon.is_running());
    let (status, text) = daemon.ask(daemon.ops, "/readyz");
    assert_eq!(status, 503, "{text}");
    let what = format!("wrong PIN at start ({})", isolation.name());
    let none = Proof { ciphertexts: 0, lost: Vec::new() };
    Row::new(&what, &report, &none).remark("one C_Login")
}

#[test]
fn a_wrong_pin_is_tried_once_in_a_process_of_its_own() {
    wrong_pin(Scale::Short, Isolation::Process);
}

#[test]
fn a_wrong_pin_is_tried_once_on_threads() {
    wrong_pin(Scale::Short, Isolation::Thread);
}
