//! Who may ask, and for what.

use support::caller::{Caller, assert_refused};
use support::daemon::poll;
use support::request::{bare_body, encrypt_body};
use support::site::{Credential, text};

use super::{World, second};
use crate::world::{AUTHENTICATION_FAILED, INVALID_STATE, INVALID_URI_PATH, KEY_NOT_FOUND, demo};

/// P-13: a revoked credential's next request is refused, a new one's is accepted, on the connection that
/// was open all the time.
#[test]
fn credentials_change_between_two_requests_of_a_connection() {
    let mut world = World::new();
    let body = encrypt_body(b"text", None);
    let [old, kept] = ['A', 'B'].map(Credential::of);
    let new = Credential::of('N');
    let by =
        |credential: &Credential| Caller { credential: credential.clone(), ..world.kms(&demo()) };
    let (old, kept, new) = (by(&old), by(&kept), by(&new));
    let mut connection = kept.connect();
    let mut ask = |kms: &Caller| {
        connection.send(&kms.request("keys/demo-key/encrypt", &body).to_bytes());
        connection.receive()
    };
    assert_eq!(ask(&old).status, 200);
    assert_refused(&ask(&new), 401, AUTHENTICATION_FAILED);
    let changes = world
        .applied(|configuration| configuration.tenants[0].credentials[0] = Credential::of('N'));
    assert!(changes.contains("credential TESTACCESSKEY2345NNNNN added"), "{changes}");
    assert!(changes.contains("credential TESTACCESSKEY2345AAAAA removed"), "{changes}");
    assert_refused(&ask(&old), 401, AUTHENTICATION_FAILED);
    for kms in [&new, &kept] {
        let answer = ask(kms);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(world.metric("xksd_reloads_total{outcome=\"applied\"}"), 1.0);
    assert_eq!(world.metric("xksd_reload_refused"), 0.0);
    // Series are those of the configuration: one that has gone has none.
    let shown = || {
        let metrics = world.daemon.metrics();
        let ids = metrics.lines().filter(|line| line.starts_with("xksd_credential_last_used"));
        ids.map(str::to_owned).collect::<Vec<_>>().join("\n")
    };
    poll(|| !shown().contains("AAAAA"), shown);
    assert!(shown().contains("NNNNN") && shown().contains("BBBBB"), "{}", shown());
}

/// What counts is what is in force when all of a request has come.
#[test]
fn a_slow_body_keeps_no_door_open() {
    let mut world = World::new();
    let kms = world.kms(&demo());
    let request = kms.request("keys/demo-key/encrypt", &encrypt_body(b"text", None)).to_bytes();
    let (most, rest) = request.split_at(request.len() - 1);
    let mut connection = kms.connect();
    connection.send(most);
    world.applied(|configuration| configuration.tenants[0].credentials[0] = Credential::of('N'));
    connection.send(rest);
    assert_refused(&connection.receive(), 401, AUTHENTICATION_FAILED);
}

/// The same id with another secret is another credential.
#[test]
fn a_secret_changes() {
    let mut world = World::new();
    let kms = world.kms(&demo());
    let changes =
        world.applied(|c| c.tenants[0].credentials[0].secret = Credential::of('X').secret);
    assert!(changes.contains("credential TESTACCESSKEY2345AAAAA has another secret"), "{changes}");
    kms.refused("health", &bare_body("KmsHealthCheck"), 401, AUTHENTICATION_FAILED);
    let credential = Credential { secret: Credential::of('X').secret, ..kms.credential.clone() };
    let kms = Caller { credential, ..kms };
    kms.accepted("health", &bare_body("KmsHealthCheck"));
}

#[test]
fn key_rules_and_key_stores_change() {
    let mut world = World::new();
    let (kms, body) = (world.kms(&demo()), encrypt_body(b"text", None));
    kms.accepted("keys/demo-key/encrypt", &body);
    kms.refused("keys/other-key/encrypt", &body, 404, KEY_NOT_FOUND);
    world.applied(|configuration| {
        configuration.tenants[0].keys = vec!["other-*"];
        configuration.tenants.push(second());
    });
    kms.accepted("keys/other-key/encrypt", &body);
    kms.refused("keys/demo-key/encrypt", &body, 404, KEY_NOT_FOUND);
    let another = world.kms(&second());
    another.accepted("keys/other-key/encrypt", &body);
    let changes = world.applied(|configuration| {
        configuration.tenants.pop();
        configuration.tenants[0].enabled = false;
    });
    assert_eq!(changes, "key store demo: changed\nkey store second: removed\n");
    another.refused("keys/other-key/encrypt", &body, 404, INVALID_URI_PATH);
    kms.refused("keys/other-key/encrypt", &body, 400, INVALID_STATE);
}

/// One line for each request, or none, without a restart.
#[test]
fn the_level_of_the_log_changes() {
    let mut world = World::new();
    let (kms, body) = (world.kms(&demo()), encrypt_body(b"text", None));
    let lines = |world: &World| world.daemon.logged().matches("\"message\":\"request\"").count();
    kms.accepted("keys/demo-key/encrypt", &body);
    poll(|| lines(&world) == 1, || world.daemon.logged());
    world.applied(|configuration| drop(configuration.log.insert("level", text("error"))));
    kms.accepted("keys/demo-key/encrypt", &body);
    world.applied(|configuration| drop(configuration.log.insert("level", text("info"))));
    kms.accepted("keys/demo-key/encrypt", &body);
    world.daemon.wait_for_line("the configuration was reloaded");
    poll(|| lines(&world) == 2, || world.daemon.logged());
}
