//! What Kubernetes mounts, and replaces by turning one link: Secrets and ConfigMaps.

use std::fs;
use std::os::unix::fs::symlink;

use support::caller::Caller;
use support::certificates::{Authority, KeyKind};
use support::daemon::poll;
use support::http::{Connection, connect, trusting};
use support::request::bare_body;
use support::site::{Credential, text};
use support::volume::Volume;

use super::World;
use crate::world::{AUTHENTICATION_FAILED, demo};

/// Configuration, certificate and credentials are volumes of their own, and none is written to in place.
#[test]
fn what_kubernetes_mounts_reloads() {
    let mut volumes = None;
    let [old, new] = ['A', 'N'].map(Credential::of);
    let secret = |credential: &Credential| (credential.id.clone(), credential.secret.clone());
    let (old_file, new_file) = (secret(&old), secret(&new));
    let old_file = (old_file.0.as_str(), old_file.1.as_str());
    let new_file = (new_file.0.as_str(), new_file.1.as_str());
    let world = World::with(|site, configuration| {
        let [mut tls, mut credentials] =
            ["tls", "credentials"].map(|name| Volume::new(site.path().join(name)));
        let read = |path| fs::read_to_string(path).expect("it was made a moment ago");
        let (certificate, key) = (read(&site.server.certificate), read(&site.server.key));
        tls.hold(&[("tls.crt", &certificate), ("tls.key", &key)]);
        credentials.hold(&[old_file]);
        let lines = configuration.tls.as_mut().expect("the default has TLS");
        lines.insert("certificate", text("tls/tls.crt"));
        lines.insert("private_key", text("tls/tls.key"));
        configuration.reload.insert("on_change", text("1s"));
        configuration.tenants[0].credentials.clear();
        configuration.tenants[0].lines.push("credentials_directory = \"credentials\"");
        // The configuration is written through its link, and seen as a file of the volume.
        let mut config = Volume::new(site.path().join("config"));
        config.hold(&[("xksd.toml", "")]);
        symlink("config/xksd.toml", site.path().join("xksd.toml")).expect("it can be linked");
        volumes = Some((tls, credentials, config));
    });
    let (mut tls, mut credentials, mut config) = volumes.expect("they were made");
    let health = bare_body("KmsHealthCheck");
    let by =
        |credential: &Credential| Caller { credential: credential.clone(), ..world.kms(&demo()) };
    let (by_old, by_new) = (by(&old), by(&new));
    by_old.accepted("health", &health);
    by_new.refused("health", &health, 401, AUTHENTICATION_FAILED);
    let logged = || world.daemon.logged();

    // The next credential beside the one before, then alone.
    credentials.hold(&[old_file, new_file]);
    poll(|| by_new.call("health", &health).status == 200, logged);
    by_old.accepted("health", &health);
    credentials.hold(&[new_file]);
    poll(|| by_old.call("health", &health).status == 401, logged);
    by_new.accepted("health", &health);

    // A certificate of another CA, whose key comes with it.
    let authority = Authority::new(world.site.path(), "next-ca");
    let next = authority.issue("next", "/CN=localhost", KeyKind::Ec);
    let read = |path| fs::read_to_string(path).expect("it was made a moment ago");
    tls.hold(&[("tls.crt", &read(&next.certificate)), ("tls.key", &read(&next.key))]);
    let trusted = trusting(authority.certificate());
    let is_next = || Connection::tls(connect(by_new.address), trusted.clone()).is_ok();
    poll(is_next, logged);
    let by_new = Caller { tls: Some(trusted.clone()), ..by_new };

    // The configuration itself, and one that is wrong in between.
    let toml = read(&config.path().join("xksd.toml"));
    config.hold(&[("xksd.toml", "version = 2")]);
    world.daemon.wait_for_metric("xksd_reload_refused", 1.0);
    by_new.accepted("health", &health);
    let other_prefix = toml.replace("\"example/prefix\"", "\"moved\"");
    assert_ne!(toml, other_prefix);
    config.hold(&[("xksd.toml", &other_prefix)]);
    let moved = Caller { prefix: "moved".to_owned(), ..by_new };
    poll(|| moved.call("health", &health).status == 200, logged);
    assert_eq!(world.metric("xksd_reload_refused"), 0.0);
}
