//! Configurations that are refused, and change nothing.

use std::fs;

use support::caller::Caller;
use support::certificates::KeyKind;
use support::request::encrypt_body;
use support::site::{Configuration, Credential, Tenant, text};

use super::World;
use crate::world::{AUTHENTICATION_FAILED, demo};

/// Whatever is wrong, all is as before: the credential that was to be revoked is good, the one that was
/// to be added is not. What is wrong is said at once, all of it.
#[test]
fn a_bad_configuration_changes_nothing() {
    let mut world = World::new();
    let good = world.configuration.clone();
    let kms = world.kms(&demo());
    let new = Caller { credential: Credential::of('N'), ..kms.clone() };
    let body = encrypt_body(b"text", None);
    let revoke = |c: &mut Configuration| c.tenants[0].credentials[0] = Credential::of('N');
    let mut refused = |change: &dyn Fn(&mut Configuration), words: &str| {
        let change = |configuration: &mut Configuration| {
            *configuration = good.clone();
            revoke(configuration);
            change(configuration);
        };
        world.refused(change, 78, words);
        kms.accepted("keys/demo-key/encrypt", &body);
        new.refused("keys/demo-key/encrypt", &body, 401, AUTHENTICATION_FAILED);
    };
    refused(&|c| drop(c.server.insert("deadline", text("300ms"))), "must be 1ms to 250ms");
    refused(&|c| drop(c.server.insert("dedline", text("100ms"))), "is no known key");
    refused(&|c| drop(c.log.insert("level", text("=="))), "log.level");
    refused(&|c| drop(c.token.insert("label", "[".to_owned())), "is not TOML");
    refused(&|c| c.tenants[0].credentials.clear(), "keystores.demo.credentials: is missing");
    refused(&|c| c.tenants[0].keys = vec!["a*b"], "a `*` may only stand at the end");
    refused(&|c| c.tenants.push(Tenant::clone(&c.tenants[0])), "is not TOML");
    let twice = |c: &mut Configuration| {
        let credentials = c.tenants[0].credentials.clone();
        c.tenants.push(Tenant { credentials, ..super::second() });
    };
    refused(&twice, "is there twice, first in key store `demo`");
    let certificate = |c: &mut Configuration, path: &str| {
        c.tls.as_mut().expect("it is TLS").insert("certificate", text(path));
    };
    refused(&|c| certificate(c, "nowhere.pem"), "server.tls.certificate: cannot read");
    refused(&|c| c.module = Some("nowhere.so".into()), "nowhere.so");
    // Two things at once are both named.
    let two = |c: &mut Configuration| {
        c.server.insert("deadline", text("300ms"));
        c.log.insert("level", text("=="));
    };
    refused(&two, "must be 1ms to 250ms");
    refused(&two, "log.level");
}

/// Files that the configuration names, and the configuration itself, on their way from one state to
/// another.
#[test]
fn files_that_are_half_there_change_nothing() {
    let mut world = World::new();
    let (kms, body) = (world.kms(&demo()), encrypt_body(b"text", None));
    let file = |name: &str| world.site.path().join(name);
    let (toml, secret) = (file("xksd.toml"), file("TESTACCESSKEY2345AAAAA.secret"));
    let (certificate, key) =
        (world.site.server.certificate.clone(), &world.site.server.key.clone());
    let refused = |world: &mut World, words: &str| {
        let socket = world.site.path().join("control.sock").display().to_string();
        let output = world.site.command(&["reload", "--socket", &socket]).output();
        let output = output.expect("xksd can be started");
        assert_eq!(output.status.code(), Some(78), "{}", super::stderr(&output));
        assert!(super::stderr(&output).contains(words), "{}", super::stderr(&output));
        kms.accepted("keys/demo-key/encrypt", &body);
    };
    let with = |world: &mut World, path: &std::path::Path, content: Option<&[u8]>, words: &str| {
        let whole = fs::read(path).expect("it is there");
        match content {
            Some(content) => fs::write(path, content).expect("it can be written"),
            None => fs::remove_file(path).expect("it is there"),
        }
        refused(world, words);
        fs::write(path, whole).expect("it can be written");
    };
    with(&mut world, &toml, None, "cannot be read");
    with(&mut world, &toml, Some(b""), "is missing");
    with(&mut world, &toml, Some(b"version = 1\n[serv"), "is not TOML");
    with(&mut world, &toml, Some(&[0xff, 0xfe]), "cannot be read");
    with(&mut world, &secret, None, "cannot read");
    with(&mut world, &secret, Some(b"too short"), "43 to 64 characters");
    // A certificate of the next key, and the key of the one before.
    let next = world.site.authority.issue("next", "/CN=localhost", KeyKind::Ec);
    let next_certificate = fs::read(next.certificate).expect("it was made");
    let next_key = fs::read(next.key).expect("it was made");
    with(&mut world, &certificate, Some(&next_certificate), "do not fit");
    with(&mut world, key, Some(&next_key), "do not fit");
    with(&mut world, key, Some(&next_key[..40]), "server.tls.private_key");
    assert_eq!(world.metric("xksd_reloads_total{outcome=\"refused\"}"), 9.0);
    // What was refused is not in the way of what is good.
    world.applied(|_configuration| {});
    assert_eq!(world.metric("xksd_reload_refused"), 0.0);
}
