//! The control socket and `xksd status`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use serde_json::Value;
use support::caller::{Caller, assert_refused};
use support::daemon::Daemon;
use support::request::{decrypt_body, encrypt_body};
use support::site::{Configuration, Site, text};

use crate::world::{INVALID_STATE, XKSD, demo, small_site};

/// A site whose daemon has a control socket, and where.
fn site() -> (Arc<Site>, PathBuf) {
    let mut configuration = Configuration::new(vec![demo()]);
    configuration.ops.insert("control_socket", text("control.sock"));
    configuration.token.insert("catalogue_interval", text("10m"));
    configuration.token.insert("probe_interval", text("30s"));
    let site = Arc::new(small_site(&configuration));
    let socket = site.path().join("control.sock");
    (site, socket)
}

fn status(site: &Site, arguments: &[&str]) -> Output {
    let command = site.command(&[&["status"], arguments].concat()).output();
    command.expect("xksd can be started")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_daemon_says_how_it_is() {
    let (site, socket) = site();
    let daemon = Daemon::start(site.clone());
    daemon.wait_for_metric("xksd_hsm_sessions{token=\"softhsm\"}", 8.0);
    let answer: Value = serde_json::from_str(&site.run(&["status", "--json"])).expect("it is JSON");
    assert_eq!(answer["pid"], daemon.pid());
    assert_eq!(answer["phase"], "serving");
    assert_eq!(answer["keystores"][0]["name"], "demo");
    assert_eq!(answer["keystores"][0]["served"], true);
    let token = &answer["tokens"][0];
    assert_eq!((&token["name"], &token["state"]), (&"softhsm".into(), &"up".into()));
    assert_eq!((&token["sessions"], &token["fault"]), (&8.into(), &Value::Null));
    assert!(token["keys"].as_u64().expect("it was read") > 0, "{token}");
    assert!(token["manufacturer"].as_str().expect("it is text").contains("SoftHSM"));
    let shown = site.run(&["status"]);
    assert!(
        shown.contains("key store demo (prefix \"example/prefix\"): served, tokens softhsm"),
        "{shown}"
    );
    assert!(shown.contains("token softhsm: UP, sessions 8 of 8"), "{shown}");
    // Only its owner can open it.
    let mode = fs::metadata(&socket).expect("it is there").mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// What was changed in the HSM counts at once where that is asked for, and without any request that
/// would have had the keys read.
#[test]
fn a_refresh_has_the_keys_read() {
    let (site, _socket) = site();
    let daemon = Daemon::start(site.clone());
    let keys = |daemon: &Daemon| {
        let sample = "xksd_catalogue_keys{token=\"softhsm\"} ";
        let metrics = daemon.metrics();
        let line = metrics.lines().find_map(|line| line.strip_prefix(sample)).map(str::to_owned);
        line.expect("it is a metric").parse::<u64>().expect("it is a number")
    };
    let before = keys(&daemon);
    site.import_aes("new-key", b"nk", &[7; 32]);
    assert_eq!(keys(&daemon), before);
    assert_eq!(site.run(&["status", "--refresh"]), "softhsm: read\n");
    assert_eq!(keys(&daemon), before + 1);
    assert_eq!(site.run(&["status", "--refresh", "--json"]), "{\"read\":{\"softhsm\":true}}\n");
}

/// As in docs/operations.md: a marker by another program, a refresh, and nobody uses a key any more.
#[test]
fn a_marker_stops_the_use_of_keys_at_once() {
    let (site, _socket) = site();
    let daemon = Daemon::start(site.clone());
    let kms = Caller::new(&daemon, &demo());
    let body = encrypt_body(b"x", None);
    let sealed = kms.accepted("keys/demo-key/encrypt", &body);
    site.import_aes("xksd:freeze:demo", b"xs", &[1; 32]);
    assert_eq!(site.run(&["status", "--refresh"]), "softhsm: read\n");
    assert_refused(&kms.call("keys/demo-key/encrypt", &body), 400, INVALID_STATE);
    let opened = kms.call("keys/demo-key/decrypt", &decrypt_body(&sealed, None));
    assert_refused(&opened, 400, INVALID_STATE);
    let shown = site.run(&["status"]);
    assert!(shown.contains(": FROZEN by a marker in the HSM, tokens softhsm"), "{shown}");
}

/// What `xksd keys` does counts at once on the daemon of this machine, and without any request that
/// would have had the keys read.
#[test]
fn a_command_counts_at_once_where_the_daemon_can_be_told() {
    let (site, _socket) = site();
    site.create_key("demo-stopped", "encrypt,decrypt");
    let daemon = Daemon::start(site.clone());
    let kms = Caller::new(&daemon, &demo());
    let body = encrypt_body(b"x", None);
    let encrypt = |key: &str| kms.call(&format!("keys/{key}/encrypt"), &body);
    let told = |arguments: &[&str]| {
        let output = site.command(&[&["keys"], arguments].concat()).output();
        let output = output.expect("xksd can be started");
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("the daemon here has read its tokens"), "{output:?}");
    };
    assert_eq!(encrypt("demo-stopped").status, 200);
    told(&["disable", "demo-stopped"]);
    assert_refused(&encrypt("demo-stopped"), 400, INVALID_STATE);
    assert_eq!(encrypt("demo-key").status, 200);
    told(&["enable", "demo-stopped"]);
    assert_eq!(encrypt("demo-stopped").status, 200);
    told(&["freeze", "--keystore", "demo"]);
    assert_refused(&encrypt("demo-key"), 400, INVALID_STATE);
    told(&["unfreeze", "--keystore", "demo"]);
    assert_eq!(encrypt("demo-key").status, 200);
    told(&["freeze", "--all"]);
    assert_refused(&encrypt("demo-key"), 400, INVALID_STATE);
    // Nothing is said to a daemon that is not there, and of one that does not answer it is said.
    drop(daemon);
    let output =
        site.command(&["keys", "unfreeze", "--all"]).output().expect("xksd can be started");
    assert!(output.status.success() && !stderr(&output).contains("daemon"), "{output:?}");
}

#[test]
fn a_socket_that_was_left_behind_is_replaced_and_one_in_use_is_not() {
    let (site, socket) = site();
    let first = Daemon::start(site.clone());
    let second = site.command(&["serve"]).output().expect("xksd can be started");
    assert_eq!(second.status.code(), Some(71), "{}", stderr(&second));
    assert!(stderr(&second).contains("another xksd answers at"), "{}", stderr(&second));
    // It was not disturbed.
    assert!(status(&site, &[]).status.success());
    first.signal("KILL");
    drop(first);
    assert!(socket.exists());
    let refused = status(&site, &[]);
    assert_eq!(refused.status.code(), Some(69), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("no xksd answers at"), "{}", stderr(&refused));
    let third = Daemon::start(site.clone());
    assert!(status(&site, &[]).status.success());
    Caller::new(&third, &demo()).accepted("keys/demo-key/encrypt", &encrypt_body(b"x", None));
}

#[test]
fn what_is_no_socket_is_not_replaced() {
    let (site, socket) = site();
    fs::write(&socket, "somebody's").expect("it can be written");
    let refused = site.command(&["serve"]).output().expect("xksd can be started");
    assert_eq!(refused.status.code(), Some(71), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("is no socket"), "{}", stderr(&refused));
    assert_eq!(fs::read(&socket).expect("it is there"), b"somebody's");
}

#[test]
fn a_configuration_without_one_says_so() {
    let site = small_site(&Configuration::new(vec![demo()]));
    let refused = status(&site, &[]);
    assert_eq!(refused.status.code(), Some(78));
    assert!(stderr(&refused).contains("sets no ops.control_socket"), "{}", stderr(&refused));
}

/// The kernel says who asks, whatever the file's mode has become.
#[test]
fn another_user_is_refused() {
    let (site, socket) = site();
    let daemon = Daemon::start(site.clone());
    // Somebody has opened the way.
    for path in [site.path(), &socket] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("they are ours");
    }
    let program = Path::new("/usr/bin/setpriv");
    let reachable = fs::metadata(XKSD).is_ok_and(|xksd| xksd.mode() & 0o001 != 0)
        && Path::new(XKSD).ancestors().skip(1).all(|directory| {
            fs::metadata(directory).is_ok_and(|directory| directory.mode() & 0o001 != 0)
        });
    if fs::metadata("/proc/self").expect("it is there").uid() != 0
        || !program.exists()
        || !reachable
    {
        support::not_run(
            "another user at the control socket: this takes root, setpriv, and a tree that all can read",
        );
        return;
    }
    let socket = socket.display().to_string();
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups", XKSD];
    let other = Command::new(program).args(user).args(["status", "--socket", &socket]).output();
    let other = other.expect("it can be started");
    assert_eq!(other.status.code(), Some(77), "{}", stderr(&other));
    daemon.wait_for_line("refused at the control socket");
}
