//! `xksd credentials`, beside a daemon that serves.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Output;

use serde_json::Value;
use support::caller::Caller;
use support::daemon::Daemon;
use support::request::bare_body;
use support::site::{Configuration, Credential, Site, Tenant, text};

use crate::world::{AUTHENTICATION_FAILED, XKSD};

const DIRECTORY: &str = "credentials_directory = \"credentials/demo\"";

/// A key store whose credentials are in a directory, and nowhere else. None is there yet.
pub(crate) fn site(configure: impl FnOnce(&mut Configuration)) -> Site {
    let mut tenant = Tenant::new("demo", "demo", &["demo-*"], 'A');
    tenant.credentials.clear();
    tenant.lines.push(DIRECTORY);
    let mut configuration = Configuration::new(vec![tenant]);
    configuration.ops.insert("control_socket", text("control.sock"));
    configure(&mut configuration);
    let site = Site::new(XKSD);
    site.configure(&configuration);
    site
}

fn run(site: &Site, arguments: &[&str]) -> Output {
    let arguments = [&["credentials"], arguments].concat();
    site.command(&arguments).output().expect("xksd can be started")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn create(site: &Site) -> String {
    site.run(&["credentials", "create", "--keystore", "demo"]).trim().to_owned()
}

/// The credential of this id, from its file.
fn credential(site: &Site, id: &str) -> Credential {
    let file = site.path().join("credentials/demo").join(id);
    let secret = fs::read_to_string(file).expect("it was made").trim().to_owned();
    Credential { id: id.to_owned(), secret }
}

fn list(site: &Site) -> Vec<Value> {
    let listed = site.run(&["credentials", "list", "--json"]);
    serde_json::from_str(&listed).expect("it is JSON")
}

/// P-14: from a key store that has none to one that has had three.
#[test]
fn the_life_of_a_credential() {
    let site = site(|_configuration| {});
    // The first one is made although the configuration is not sound without it.
    let first = create(&site);
    let file = site.path().join("credentials/demo").join(&first);
    assert_eq!(fs::metadata(&file).expect("it is there").mode() & 0o777, 0o600);
    let directory = fs::metadata(file.parent().expect("it has one")).expect("it is there");
    assert_eq!(directory.mode() & 0o777, 0o700);
    let secret = credential(&site, &first).secret;
    assert_eq!((first.len(), secret.len()), (20, 43), "P-14");
    let rows = list(&site);
    assert_eq!((rows.len(), &rows[0]["access_key_id"]), (1, &first.as_str().into()));
    assert_eq!((&rows[0]["in_force"], &rows[0]["last_used"]), (&Value::Null, &Value::Null));
    let site = std::sync::Arc::new(site);
    let daemon = Daemon::start(site.clone());
    let (health, anybody) = (bare_body("KmsHealthCheck"), Tenant::new("demo", "demo", &[], 'A'));
    let by =
        |id: &str| Caller { credential: credential(&site, id), ..Caller::new(&daemon, &anybody) };
    let old = by(&first);
    old.accepted("health", &health);
    let second = create(&site);
    let new = by(&second);
    let rows = list(&site);
    let row = |id: &str| rows.iter().find(|row| row["access_key_id"] == *id).expect("it is listed");
    assert_eq!(
        (&row(&second)["in_force"], &row(&second)["last_used"]),
        (&true.into(), &Value::Null)
    );
    assert!(row(&first)["last_used"].as_u64().is_some() && row(&first)["age_seconds"].is_u64());
    let shown = site.run(&["credentials", "list", "--keystore", "demo"]);
    assert!(shown.contains("last used not since xksd was started"), "{shown}");
    for kms in [&old, &new] {
        kms.accepted("health", &health);
    }
    let created = format!(
        "xksd_credential_created_timestamp_seconds{{access_key_id=\"{second}\",keystore=\"demo\"}}"
    );
    daemon.wait_for_metric(&created, 1.0);
    let revoke = ["revoke", &first, "--keystore", "demo"];
    let unconfirmed = run(&site, &revoke);
    assert_eq!(unconfirmed.status.code(), Some(64), "{}", stderr(&unconfirmed));
    old.accepted("health", &health);
    let revoked = run(&site, &[&revoke[..], &["--yes"]].concat());
    assert!(stderr(&revoked).contains("requests that it signs are refused from now on"));
    old.refused("health", &health, 401, AUTHENTICATION_FAILED);
    new.accepted("health", &health);
    assert!(!file.exists());
    // The last one goes only if that is meant, and leaves another.
    let last = ["revoke", &second, "--keystore", "demo", "--yes"];
    let refused = run(&site, &last);
    assert_eq!(refused.status.code(), Some(73), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("is the only credential of key store `demo`"));
    new.accepted("health", &health);
    let forced = run(&site, &[&last[..], &["--force", "--json"]].concat());
    let done: Value = serde_json::from_slice(&forced.stdout).expect("it is JSON");
    new.refused("health", &health, 401, AUTHENTICATION_FAILED);
    by(done["next"].as_str().expect("there is one")).accepted("health", &health);
    // No secret is said by anything of this.
    let secret = |id: &str| credential(&site, id).secret;
    let all = [daemon.logged(), stderr(&revoked), stderr(&forced), site.run(&["status", "--json"])];
    assert!(all.iter().all(|said| !said.contains(&secret(done["next"].as_str().unwrap()))));
}

/// What KMS is given, for its owner alone, and printed only where that is asked for.
#[test]
fn what_kms_is_given() {
    let site = site(|_configuration| {});
    let id = create(&site);
    let secret = credential(&site, &id).secret;
    let to = site.path().join("kms.json").display().to_string();
    let export = ["export", &id, "--keystore", "demo", "--to", &to];
    let exported = run(&site, &export);
    assert!(exported.status.success(), "{}", stderr(&exported));
    let command = format!(
        "aws kms update-custom-key-store --custom-key-store-id cks-... --cli-input-json \
         'file://{to}'\n"
    );
    assert_eq!(String::from_utf8_lossy(&exported.stdout), command);
    assert!(!stderr(&exported).contains(&secret));
    assert_eq!(fs::metadata(&to).expect("it is there").permissions().mode() & 0o777, 0o600);
    let document: Value = serde_json::from_slice(&fs::read(&to).expect("it is there")).unwrap();
    let expected = serde_json::json!({
        "XksProxyUriPath": "/demo/kms/xks/v1",
        "XksProxyAuthenticationCredential": { "AccessKeyId": id, "RawSecretAccessKey": secret },
    });
    assert_eq!(document, expected);
    // What is there is not replaced.
    let again = run(&site, &export);
    assert_eq!(again.status.code(), Some(73), "{}", stderr(&again));
    let printed = site.run(&["credentials", "export", &id, "--keystore", "demo", "--to", "-"]);
    assert_eq!(serde_json::from_str::<Value>(&printed).expect("it is JSON"), expected);
}

/// What cannot be done is said, with what to do instead.
#[test]
fn what_cannot_be_done_is_said() {
    let mut tenant = Tenant::new("demo", "demo", &["demo-*"], 'A');
    let plain = Site::new(XKSD);
    plain.configure(&Configuration::new(vec![tenant.clone()]));
    let id = tenant.credentials[0].id.clone();
    let said = |site: &Site, arguments: &[&str], code: i32, words: &str| {
        let output = run(site, arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{arguments:?}: {}", stderr(&output));
    };
    let words = "credentials_directory = \"credentials/demo\" in its section";
    said(&plain, &["create", "--keystore", "demo"], 78, words);
    said(&plain, &["create", "--keystore", "other"], 78, "known: demo");
    let words = "the configuration itself names";
    said(&plain, &["revoke", &id, "--keystore", "demo", "--yes"], 73, words);
    let nobody = "BBBBBBBBBBBBBBBBBBBB";
    said(&plain, &["revoke", nobody, "--keystore", "demo", "--yes"], 73, "has no credential");
    said(&plain, &["export", nobody, "--keystore", "demo", "--to", "-"], 73, "has no credential");
    // Without a daemon that answers a file is all that is made.
    tenant.lines.push(DIRECTORY);
    plain.configure(&Configuration::new(vec![tenant]));
    let made = run(&plain, &["create", "--keystore", "demo"]);
    assert!(made.status.success(), "{}", stderr(&made));
    assert!(stderr(&made).contains("there is no ops.control_socket"), "{}", stderr(&made));
}

/// A daemon that refuses to reload goes on with what it had, which is said.
#[test]
fn a_daemon_that_refuses_is_told_of() {
    let site = std::sync::Arc::new(site(|_configuration| {}));
    let id = create(&site);
    let daemon = Daemon::start(site.clone());
    let anybody = Tenant::new("demo", "demo", &[], 'A');
    let old = Caller { credential: credential(&site, &id), ..Caller::new(&daemon, &anybody) };
    let next = create(&site);
    fs::write(site.path().join("token.pin"), "canary-wrong-PIN").expect("it can be written");
    let revoked = run(&site, &["revoke", &id, "--keystore", "demo", "--yes"]);
    assert_eq!(revoked.status.code(), Some(77), "{}", stderr(&revoked));
    assert!(stderr(&revoked).contains("tokens.softhsm.pin"), "{}", stderr(&revoked));
    assert!(stderr(&revoked).contains("the daemon is as before"), "{}", stderr(&revoked));
    old.accepted("health", &bare_body("KmsHealthCheck"));
    let rows = list(&site);
    let row = |id: &str| rows.iter().find(|row| row["access_key_id"] == *id).expect("it is listed");
    assert_eq!((&row(&id)["place"], &row(&id)["in_force"]), (&Value::Null, &true.into()));
    assert_eq!(row(&next)["in_force"], true);
    assert!(site.run(&["credentials", "list"]).contains("REVOKED, and good until the daemon is"));
}
