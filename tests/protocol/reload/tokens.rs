//! Tokens that come, go and change, each with a process of its own.

use std::fs;
use std::process::Command;

use support::daemon::poll;
use support::process::Process;
use support::request::{decrypt_body, encrypt_body};
use support::shim::{self, Counts};
use support::site::{Configuration, TOKEN, text};
use support::token::{PIN, module};

use super::{World, stderr};
use crate::world::demo;

const ENCRYPT: &str = "keys/demo-key/encrypt";

fn children(world: &World) -> Vec<Process> {
    Process(world.daemon.pid()).children()
}

/// What has another setting is started anew beside itself; what has not stays as it is.
#[test]
fn a_token_is_replaced_while_it_serves() {
    let mut world = World::new();
    let (kms, body) = (world.kms(&demo()), encrypt_body(b"text", None));
    let sealed = kms.accepted(ENCRYPT, &body);
    let before = children(&world);
    world.applied(|configuration| drop(configuration.server.insert("head_timeout", text("6s"))));
    assert_eq!(children(&world), before);
    let changes = world.applied(|configuration| {
        configuration.token.insert("sessions", "3".to_owned());
    });
    assert_eq!(changes, "token softhsm: started anew\n");
    assert_eq!(world.metric("xksd_hsm_sessions{token=\"softhsm\"}"), 3.0);
    assert_eq!(world.metric("xksd_hsm_up{token=\"softhsm\"}"), 1.0);
    kms.accepted("keys/demo-key/decrypt", &decrypt_body(&sealed, None));
    // Nobody uses the one before.
    poll(|| children(&world).len() == 1, || format!("{:?}", children(&world)));
    assert_ne!(children(&world), before);
    kms.accepted(ENCRYPT, &body);
}

#[test]
fn tokens_are_added_and_removed() {
    let mut world = World::new();
    let (kms, body) = (world.kms(&demo()), encrypt_body(b"text", None));
    let sealed = kms.accepted(ENCRYPT, &body);
    world.site.make_twin();
    let conf = format!("{{ SOFTHSM2_CONF = \"{}\" }}", world.site.twin_conf().display());
    let twin = [("environment", conf)].into();
    let changes = world.applied(|configuration| configuration.twin = Some(twin));
    assert_eq!(changes, "key store demo: changed\ntoken twin: added\n");
    // Its keys are compared before it is used.
    let proved = "xksd_hsm_key_versions{standing=\"proved\",token=\"twin\"}";
    world.daemon.wait_for_metric(proved, 2.0);
    // And it is, where the other one does not serve.
    let softhsm = children(&world)[0];
    softhsm.signal("STOP");
    kms.accepted(ENCRYPT, &body);
    softhsm.signal("CONT");
    assert_eq!(children(&world).len(), 2);
    let changes = world.applied(|configuration| configuration.twin = None);
    assert_eq!(changes, "key store demo: changed\ntoken twin: removed\n");
    poll(|| children(&world).len() == 1, || world.daemon.logged());
    let metrics = world.daemon.metrics();
    assert!(!metrics.contains("xksd_hsm_up{token=\"twin\"}"), "{metrics}");
    kms.accepted("keys/demo-key/decrypt", &decrypt_body(&sealed, None));
}

fn change_pin(world: &World, from: &str, to: &str) {
    let (name, value) = world.site.token.env();
    let output = Command::new("pkcs11-tool")
        .arg("--module")
        .arg(module())
        .args(["--token-label", TOKEN, "--login", "--pin", from, "--change-pin", "--new-pin", to])
        .env(name, value)
        .output()
        .expect("pkcs11-tool is there (package opensc)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A PIN that was changed in the HSM is tried before the one that was good before is given up, and used
/// from then on.
#[test]
fn a_pin_changes() {
    const NEW: &str = "canary-PIN-161803";
    let world = World::new();
    let (kms, body) = (world.kms(&demo()), encrypt_body(b"text", None));
    change_pin(&world, PIN, NEW);
    fs::write(world.site.path().join("token.pin"), NEW).expect("it can be written");
    let output = world.reload_as_written();
    assert!(output.status.success(), "{}", stderr(&output));
    kms.accepted(ENCRYPT, &body);
    poll(|| children(&world).len() == 1, || world.daemon.logged());
    children(&world)[0].signal("KILL");
    poll(|| kms.call(ENCRYPT, &body).status == 200, || world.daemon.logged());
    assert!(!world.daemon.logged().contains("canary-PIN"));
}

/// It is tried once for each time that an administrator asks, and never because a file was looked at.
#[test]
fn a_wrong_pin_does_not_take_a_token_down() {
    let mut world = World::with(|site, configuration| {
        configuration.module = Some(shim::library());
        let counts = site.for_module("counts").display().to_string();
        let environment = format!("{{ PKCS11_SHIM_COUNTS = \"{counts}\" }}");
        configuration.token.insert("environment", environment);
    });
    let counts = world.site.for_module("counts");
    let (kms, body) = (world.kms(&demo()), encrypt_body(b"text", None));
    let before = Counts::read(&counts).of("C_Login");
    let logins = || Counts::read(&counts).of("C_Login") - before;
    let write_wrong = |world: &World| {
        fs::write(world.site.path().join("token.pin"), "canary-wrong-PIN").expect("it can be");
    };
    // [`World::refused`] writes the configuration, with the right PIN, and so it is not asked here.
    write_wrong(&world);
    let refused = world.reload_as_written();
    assert_eq!(refused.status.code(), Some(77), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("tokens.softhsm.pin: the HSM refuses it"));
    assert_eq!(logins(), 1);
    kms.accepted(ENCRYPT, &body);
    assert_eq!(world.metric("xksd_hsm_up{token=\"softhsm\"}"), 1.0);
    assert_eq!(world.metric("xksd_reload_refused"), 1.0);
    let looking = |c: &mut Configuration| drop(c.reload.insert("on_change", text("1s")));
    world.applied(looking);
    assert_eq!(logins(), 1);
    write_wrong(&world);
    world.daemon.wait_for_line("tokens.softhsm.pin: the HSM has refused it before");
    assert_eq!(logins(), 1);
    kms.accepted(ENCRYPT, &body);
    assert!(!world.daemon.logged().contains("canary-wrong-PIN"));
}

/// What does not come up does not take the place of what serves.
#[test]
fn a_token_that_cannot_be_reached_is_no_replacement() {
    let mut world = World::new();
    let (kms, body) = (world.kms(&demo()), encrypt_body(b"text", None));
    let elsewhere = |c: &mut Configuration| drop(c.token.insert("label", text("nowhere")));
    world.refused(elsewhere, 69, "tokens.softhsm: the token does not come up");
    kms.accepted(ENCRYPT, &body);
    assert_eq!(world.metric("xksd_hsm_up{token=\"softhsm\"}"), 1.0);
    poll(|| children(&world).len() == 1, || world.daemon.logged());
}
