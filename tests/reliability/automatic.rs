//! Three daemons rotate a key by themselves, again and again, while all of them serve it.

use std::sync::Arc;

use serde_json::Value;
use support::caller::Caller;
use support::daemon::{Daemon, PATIENCE, poll};
use support::load::Load;
use support::site::Site;

use crate::figures::Row;
use crate::rotation::not_late;
use crate::world::{Isolation, Scale, World, demo, site};

/// How many proxies, and how many encryptions of each make the key due.
const FLEET: usize = 3;
const EACH: usize = 15;

/// Number and status of each version in the HSM, oldest first; `None`: the token cannot be read now, since
/// SoftHSM2 hides it from others for a moment while a process logs in.
fn versions(site: &Site) -> Option<Vec<(usize, String)>> {
    let output = site.command(&["keys", "describe", "demo-key", "--json"]).output();
    let key: Value = serde_json::from_slice(&output.expect("xksd can be started").stdout).ok()?;
    assert_ne!(key["status"], "ambiguous", "{key}");
    let versions = key["versions"].as_array()?.iter().rev();
    let read = |version: &Value| {
        let number = usize::try_from(version["version"].as_u64()?).ok()?;
        Some((number, version["status"].as_str()?.to_owned()))
    };
    versions.map(read).collect()
}

/// All find the key due at about the same time. One of the versions that they make is put in use, the
/// others are destroyed, and whatever was encrypted can be decrypted by each.
pub(crate) fn raced(scale: Scale) -> Row {
    let rounds = scale.pick(3, 50);
    let site = Arc::new(site(scale, Isolation::Process, &[("catalogue_interval", "100ms")]));
    let before = (FLEET * EACH).to_string();
    let start = |number: usize| {
        let directory = site.path().join(format!("state-{number}"));
        let environment = [
            ("XKSD_STATE__DIRECTORY", directory.to_str().expect("it is UTF-8")),
            ("XKSD_FLEET__SIZE", "3"),
            ("XKSD_KEYSTORES__DEMO__ROTATION__BEFORE", &before),
        ];
        let mut init = site.command(&["state", "init"]);
        let output = init.envs(environment).output().expect("xksd can be started");
        assert!(output.status.success(), "{output:?}");
        Daemon::start_with(site.clone(), &environment)
    };
    let mut daemons: Vec<Daemon> = (0..FLEET).map(start).collect();
    let mut world = World::of(scale, daemons.remove(0));
    let load = |kms: &Caller| {
        let rate = scale.rate() / FLEET as f64;
        let load = Load { rate, keys: vec!["demo-key".to_owned()], ..Load::new(kms, rate) };
        load.start(&world.vault)
    };
    let running = load(&world.kms);
    let beside: Vec<_> = daemons.iter().map(|other| load(&Caller::new(other, &demo()))).collect();
    let begun = std::time::Instant::now();
    let is_done = |versions: &[(usize, String)]| {
        versions.iter().filter(|(_, status)| status == "enabled").count() > rounds
    };
    while !versions(&site).is_some_and(|versions| is_done(&versions)) {
        assert!(begun.elapsed() < PATIENCE * rounds as u32, "{}", world.said());
        running.wait_served(10);
    }
    for (running, other) in beside.into_iter().zip(&daemons) {
        assert_eq!(not_late(&running.finish()), [""; 0], "{}", other.logged());
    }
    let report = running.finish();
    assert_eq!(not_late(&report), [""; 0], "{}", world.said());
    // What has been begun is ended, and what has lost is destroyed.
    let is_settled = || {
        let versions = versions(&site)?;
        Some(versions.iter().all(|(_, status)| status == "enabled"))
    };
    poll(|| is_settled() == Some(true), || format!("{:?}:\n{}", versions(&site), world.said()));
    for other in &daemons {
        let proof = world.vault.prove(&Caller::new(other, &demo()));
        assert_eq!(proof.lost, [""; 0]);
    }
    let row = world.finish("a key is rotated by three daemons", &report);
    let mut made = None;
    poll(
        || {
            made = versions(&site);
            made.is_some()
        },
        || world.said(),
    );
    let numbers: Vec<usize> = made.into_iter().flatten().map(|(number, _)| number).collect();
    let expected: Vec<usize> = (1..=numbers.len()).collect();
    assert_eq!(numbers, expected, "one winner each");
    row.remark(format!("{} times, one winner each", numbers.len() - 1))
}

#[test]
fn of_three_daemons_that_rotate_a_key_one_wins() {
    raced(Scale::Short);
}
