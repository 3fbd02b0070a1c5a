//! A key is rotated again and again while several daemons serve it.

use std::collections::BTreeSet;
use std::sync::Arc;

use support::caller::Caller;
use support::daemon::{Daemon, poll};
use support::load::{Load, Report};
use support::request::{encrypt_body, unbase64};

use crate::figures::Row;
use crate::world::{Isolation, Scale, World, demo, site};

/// The version that a daemon encrypts with now (docs/ciphertext-format.md).
fn version(kms: &Caller) -> Option<u32> {
    let answer = kms.call("keys/demo-key/encrypt", &encrypt_body(b"which version", None));
    let metadata = unbase64(&answer.json()["ciphertextMetadata"]);
    (answer.status == 200).then(|| u32::from_be_bytes(metadata[1..5].try_into().expect("four")))
}

/// Why requests failed, but for the time they took: the machine has other tests to run, and KMS asks
/// again for what was late. Figures show these too.
pub(crate) fn not_late(report: &Report) -> Vec<&str> {
    let late = ["DependencyTimeoutException", "ThrottlingException"];
    report.failed().into_keys().filter(|why| !late.contains(why)).collect()
}

/// The first daemon looks at the token often, and so encrypts with a new version soon. The others
/// would see it in ten minutes: they hear of it from what the first one has encrypted.
pub(crate) fn rotated(scale: Scale) -> Row {
    let rounds: u32 = scale.pick(5, 100);
    let settings = [("catalogue_interval", "300ms")];
    let site = Arc::new(site(scale, Isolation::Process, &settings));
    let first = Daemon::start(site.clone());
    let seldom = [("XKSD_TOKENS__SOFTHSM__CATALOGUE_INTERVAL", "10m")];
    let others: Vec<Daemon> =
        (0..scale.pick(1, 2)).map(|_| Daemon::start_with(site.clone(), &seldom)).collect();
    let mut world = World::of(scale, first);
    let load = |kms: &Caller| {
        let rate = scale.rate() / (1 + others.len()) as f64;
        let load = Load { rate, keys: vec!["demo-key".to_owned()], ..Load::new(kms, rate) };
        load.start(&world.vault)
    };
    let running = load(&world.kms);
    let beside: Vec<_> = others.iter().map(|other| load(&Caller::new(other, &demo()))).collect();
    let mut seen = BTreeSet::new();
    for round in 0..rounds {
        running.wait_served(scale.pick(10, 20));
        let said = site.run(&["keys", "rotate", "demo-key", "--json"]);
        let made: serde_json::Value = serde_json::from_str(&said).expect("it is JSON");
        assert_eq!(made["version"], round + 2, "{made}");
        let newest = Some(round + 2);
        poll(|| version(&world.kms) == newest, || world.daemon.logged());
        seen.extend(newest);
    }
    running.wait_served(scale.pick(10, 20));
    for (running, other) in beside.into_iter().zip(&others) {
        let report = running.finish();
        assert_eq!(not_late(&report), [""; 0], "{}", other.logged());
        let proof = world.vault.prove(&Caller::new(other, &demo()));
        assert_eq!(proof.lost, [""; 0]);
        poll(|| version(&Caller::new(other, &demo())) == Some(rounds + 1), || other.logged());
    }
    let report = running.finish();
    assert_eq!(not_late(&report), [""; 0], "{}", world.said());
    assert_eq!(seen.len(), rounds as usize);
    let what = format!("a key is rotated, {} daemons", 1 + others.len());
    world.finish(&what, &report).remark(format!("{rounds} times"))
}

#[test]
fn no_request_fails_while_a_key_is_rotated() {
    rotated(Scale::Short);
}
