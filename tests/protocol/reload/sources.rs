//! Who may ask for a reload: a signal, the control socket, a file that has changed.

use std::fs;

use support::daemon::poll;
use support::request::bare_body;
use support::site::{Configuration, Credential, text};

use super::World;
use crate::world::{AUTHENTICATION_FAILED, demo};

fn rotate(configuration: &mut Configuration) {
    configuration.tenants[0].credentials[0] = Credential::of('N');
}

#[test]
fn sighup_reloads() {
    let mut world = World::new();
    let kms = world.kms(&demo());
    world.write(rotate);
    world.daemon.signal("HUP");
    world.daemon.wait_for_metric("xksd_reloads_total{outcome=\"applied\"}", 1.0);
    kms.refused("health", &bare_body("KmsHealthCheck"), 401, AUTHENTICATION_FAILED);
    let status = world.site.run(&["status", "--json"]);
    assert!(status.contains("\"source\":\"signal\""), "{status}");
    // One that is bad leaves the daemon as it is.
    fs::write(world.site.path().join("xksd.toml"), "nonsense").expect("it can be written");
    world.daemon.signal("HUP");
    world.daemon.wait_for_metric("xksd_reload_refused", 1.0);
    kms.refused("health", &bare_body("KmsHealthCheck"), 401, AUTHENTICATION_FAILED);
}

/// A file that is named counts as much as the configuration itself; what is half-written is waited for.
#[test]
fn a_change_of_a_file_reloads() {
    let mut world = World::with(|_site, configuration| {
        configuration.reload.insert("on_change", text("1s"));
    });
    let health = bare_body("KmsHealthCheck");
    let kms = world.kms(&demo());
    let secret = world.site.path().join("TESTACCESSKEY2345AAAAA.secret");
    fs::write(&secret, "too short").expect("it can be written");
    world.daemon.wait_for_metric("xksd_reload_refused", 1.0);
    kms.accepted("health", &health);
    fs::write(&secret, Credential::of('X').secret).expect("it can be written");
    let is_refused = || kms.call("health", &health).status == 401;
    poll(is_refused, || world.daemon.logged());
    poll(|| world.metric("xksd_reload_refused") == 0.0, || world.daemon.logged());
    world.write(rotate);
    let mut kms = world.kms(&demo());
    kms.credential = Credential::of('N');
    poll(|| kms.call("health", &health).status == 200, || world.daemon.logged());
    // And no more, where the new configuration says so.
    world.applied(|configuration| configuration.reload.clear());
    assert!(world.site.run(&["status", "--json"]).contains("\"source\":\"control\""));
}

/// Requests that come while another reload is under way are each answered.
#[test]
fn several_may_ask_at_once() {
    let world = World::new();
    std::thread::scope(|scope| {
        let reloads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| world.reload_as_written().status.success())).collect();
        for _ in 0..4 {
            world.daemon.signal("HUP");
        }
        assert!(reloads.into_iter().all(|reload| reload.join().expect("it ends")));
    });
    world.daemon.wait_for_metric("xksd_reloads_total{outcome=\"applied\"}", 5.0);
    world.kms(&demo()).accepted("health", &bare_body("KmsHealthCheck"));
}
