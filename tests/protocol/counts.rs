//! Encryptions counted against the limit of their key, by the real daemon.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use support::caller::Caller;
use support::daemon::{Daemon, poll};
use support::request::{decrypt_body, encrypt_body};
use support::site::{Configuration, Site, Tenant, text};

use crate::world::{INVALID_STATE, demo, small_site};

/// The share of a proxy of the largest fleet, 2^32 / 10000.
const SHARE: u64 = 429_496;

fn configuration(lines: &[&'static str]) -> Configuration {
    let tenant = Tenant { lines: lines.to_vec(), ..demo() };
    let mut configuration = Configuration::new(vec![tenant]);
    configuration.others.insert("state", BTreeMap::from([("directory", text("state"))]));
    configuration.others.insert("fleet", BTreeMap::from([("size", "10000".to_owned())]));
    configuration.token.insert("catalogue_interval", text("100ms"));
    configuration
}

/// A site whose counts begin at zero.
fn new_site(lines: &[&'static str]) -> Arc<Site> {
    let site = small_site(&configuration(lines));
    site.run(&["state", "init"]);
    Arc::new(site)
}

fn file(site: &Site) -> PathBuf {
    site.path().join("state/encryption-counts")
}

fn object_id(site: &Site) -> String {
    let listed: Value = serde_json::from_str(&site.run(&["keys", "list", "--json"])).unwrap();
    listed[0]["versions"][0]["object_id"].as_str().expect("it has one").to_owned()
}

fn encrypt(kms: &Caller) -> u16 {
    kms.call("keys/demo-key/encrypt", &encrypt_body(b"counted", None)).status
}

/// What `keys describe` says of the newest version's encryptions.
fn described(site: &Site) -> u64 {
    let key = site.run(&["keys", "describe", "demo-key", "--json"]);
    let key: Value = serde_json::from_str(&key).unwrap();
    let encryptions = &key["versions"][0]["encryptions"];
    assert_eq!(
        (&encryptions["share"], &encryptions["limit"]),
        (&SHARE.into(), &4_294_967_296_u64.into())
    );
    encryptions["reserved"].as_u64().expect("it is counted")
}

fn sample(daemon: &Daemon, name: &str) -> Option<u64> {
    let metrics = daemon.metrics();
    let line = metrics.lines().find(|line| line.starts_with(name))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn the_counts_go_on_where_they_were_after_an_end() {
    let site = new_site(&[]);
    let counted_id = object_id(&site);
    site.create_key("demo-unused", "encrypt,decrypt");
    let daemon = Daemon::start(site.clone());
    let kms = Caller::new(&daemon, &demo());
    let sealed = kms.accepted("keys/demo-key/encrypt", &encrypt_body(b"counted", None));
    kms.accepted("keys/demo-key/decrypt", &decrypt_body(&sealed, None));
    for _ in 0..4 {
        assert_eq!(encrypt(&kms), 200);
    }
    let counted = "xksd_key_encryptions_counted{key=\"demo-key\",";
    poll(|| sample(&daemon, counted) == Some(5), || daemon.metrics());
    assert_eq!(sample(&daemon, "xksd_key_encryptions_share "), Some(SHARE));
    let metrics = daemon.metrics();
    let labels = format!("object_id=\"{counted_id}\",tokens=\"softhsm\",version=\"1\"");
    assert!(metrics.contains(&labels), "{metrics}");
    daemon.signal("TERM");
    let (status, log) = daemon.wait_exit();
    assert!(status.success(), "{log}");
    let written = fs::read_to_string(file(&site)).unwrap();
    assert_eq!(written, format!("xksd-counts 1\nversion {counted_id} 5\nend\n"));
    assert_eq!(described(&site), 5, "decryptions and the checks of writes do not count");
    let text = site.run(&["keys", "describe", "demo-key"]);
    assert!(text.contains("encryptions here: at most 5 of 429496 (1%)"), "{text}");
    let daemon = Daemon::start(site.clone());
    assert_eq!(encrypt(&Caller::new(&daemon, &demo())), 200);
    poll(|| sample(&daemon, counted) == Some(6), || daemon.metrics());
    drop(daemon);
    assert!(described(&site) > 6, "what was reserved counts after a crash");
}

#[test]
fn no_encryption_is_forgotten_when_the_daemon_is_killed() {
    let site = new_site(&[]);
    let answered = AtomicU64::new(0);
    for _round in 0..3 {
        let daemon = Daemon::start(site.clone());
        let before = answered.load(Ordering::Relaxed);
        let kms = Caller::new(&daemon, &demo());
        std::thread::scope(|scope| {
            let ask = || {
                while encrypt(&kms) == 200 {
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            };
            let callers = [scope.spawn(ask), scope.spawn(ask)];
            let enough = || answered.load(Ordering::Relaxed) > before + 20;
            poll(enough, || daemon.logged());
            daemon.signal("KILL");
            for caller in callers {
                // A connection that breaks is a panic of the caller's, and what is waited for.
                let _broken = caller.join();
            }
        });
        drop(daemon);
        let (made, counted) = (answered.load(Ordering::Relaxed), described(&site));
        assert!(counted >= made, "{made} were answered, {counted} are counted");
    }
}

#[test]
fn at_the_limit_nothing_is_encrypted_until_the_key_is_rotated() {
    let site = new_site(&["encryption_limit = { at_limit = \"refuse\" }"]);
    let line = format!("version {} {}", object_id(&site), SHARE - 3);
    fs::write(file(&site), format!("xksd-counts 1\n{line}\nend\n")).unwrap();
    let daemon = Daemon::start(site);
    let kms = Caller::new(&daemon, &demo());
    let sealed = kms.accepted("keys/demo-key/encrypt", &encrypt_body(b"counted", None));
    let warned = daemon.wait_for_line("nears this proxy's share");
    assert!(
        warned.contains("\"key\":\"demo-key\"") && warned.contains("\"version\":\"1\""),
        "{warned}"
    );
    assert_eq!((encrypt(&kms), encrypt(&kms)), (200, 200));
    daemon.wait_for_line("has used this proxy's share");
    let asked = "xksd_key_encryptions_total{key=\"demo-key\"";
    for _ in 0..3 {
        let body = encrypt_body(b"counted", None);
        kms.refused("keys/demo-key/encrypt", &body, 400, INVALID_STATE);
    }
    assert_eq!(sample(&daemon, asked), Some(3));
    let decrypted = kms.accepted("keys/demo-key/decrypt", &decrypt_body(&sealed, None));
    assert_eq!(decrypted["plaintext"], support::request::base64(b"counted"));
    daemon.site.run(&["keys", "rotate", "demo-key"]);
    poll(|| encrypt(&kms) == 200, || daemon.logged());
    kms.accepted("keys/demo-key/decrypt", &decrypt_body(&sealed, None));
}

#[test]
fn lost_counts_are_the_whole_share_of_the_keys_that_there_are() {
    let site = Arc::new(small_site(&configuration(&[])));
    fs::create_dir(site.path().join("state")).unwrap();
    let daemon = Daemon::start(site.clone());
    let line = daemon.wait_for_line("what these versions of keys have encrypted is not known");
    assert!(line.contains("\"versions\":1"), "{line}");
    assert_eq!(encrypt(&Caller::new(&daemon, &demo())), 200, "it is only warned of");
    daemon.wait_for_line("has used this proxy's share");
    poll(|| described(&site) >= SHARE, || daemon.logged());
    // What comes later begins at zero, here and after a crash.
    site.run(&["keys", "rotate", "demo-key"]);
    poll(|| (1..SHARE).contains(&described(&site)), || daemon.logged());
    drop(daemon);
    assert!(described(&site) < SHARE);
    let daemon = Daemon::start(site.clone());
    let counted = || sample(&daemon, "xksd_key_encryptions_counted{").is_some();
    poll(counted, || daemon.metrics());
    assert!(!daemon.logged().contains("is not known"), "{}", daemon.logged());
}

#[test]
fn a_state_directory_is_for_one_daemon_and_its_counts_are_begun_once() {
    let site = new_site(&[]);
    let again = site.command(&["state", "init"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&again.stderr);
    assert_eq!(again.status.code(), Some(73), "{stderr}");
    assert!(stderr.contains("exists already"), "{stderr}");
    let counts = fs::read(site.path().join("state/encryption-counts")).unwrap();
    site.run(&["state", "init", "--if-missing"]);
    assert_eq!(fs::read(site.path().join("state/encryption-counts")).unwrap(), counts);
    let _daemon = Daemon::start(site.clone());
    let second = site.command(&["serve"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(71), "{stderr}");
    assert!(stderr.contains("another xksd uses the state directory"), "{stderr}");
}
