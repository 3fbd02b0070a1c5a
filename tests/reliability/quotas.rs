//! A key store that is asked for ten times its quota, beside another on the same token.

use support::caller::Caller;
use support::daemon::Daemon;
use support::load::{Load, Vault};
use support::site::Tenant;

use crate::figures::{Row, millis};
use crate::world::{Isolation, Scale, World, demo, site_of};

/// The key store that has a quota.
fn greedy(scale: Scale) -> Tenant {
    let quota = scale.pick(
        "quota = { requests_per_second = 20, burst = 20 }",
        "quota = { requests_per_second = 100, burst = 100 }",
    );
    let lines = vec!["verify_writes = \"when_asked\"", quota];
    Tenant { lines, ..Tenant::new("greedy", "greedy", &["demo-*"], 'B') }
}

/// The usual load on one key store: alone, and while the other is over its quota.
pub(crate) fn neighbours(scale: Scale) -> Vec<Row> {
    let tenants = vec![demo(), greedy(scale)];
    let daemon = Daemon::start(site_of(tenants, scale, Isolation::Process, &[]));
    let flood_kms = Caller::new(&daemon, &greedy(scale));
    let mut world = World::of(scale, daemon);
    let requests = scale.pick(150, 6000);
    let alone = world.load().send(&world.vault, requests);
    let flood_vault = Vault::new();
    let flood = Load::new(&flood_kms, scale.pick(200.0, 1000.0)).start(&flood_vault);
    // The burst is over.
    flood.wait(scale.pick(100, 1000));
    let beside = world.load().send(&world.vault, requests);
    let flooded = flood.finish();
    assert_eq!(flooded.wrong(), [""; 0]);
    let throttled = flooded.failed().get("ThrottlingException").copied().unwrap_or_default();
    assert!(throttled > scale.pick(0, flooded.records.len() / 2), "{:?}", flooded.failed());
    assert_eq!(beside.failed().get("ThrottlingException"), None);
    let p99 = [&alone, &beside].map(|report| report.latency(0.99));
    let ratio = p99[1].as_secs_f64() / p99[0].as_secs_f64();
    let passed = flooded.records.len() - flooded.failed().values().sum::<usize>();
    let remark = format!(
        "p99 {ratio:.2} times that of alone ({}); of {} requests of the other {passed} passed",
        millis(p99[0]),
        flooded.records.len(),
    );
    let first = world.finish("a key store, alone", &alone);
    let second = world.finish("the same beside another at ten times its quota", &beside);
    vec![first, second.remark(remark)]
}

#[test]
fn a_key_store_over_its_quota_is_no_other_ones_matter() {
    neighbours(Scale::Short);
}
