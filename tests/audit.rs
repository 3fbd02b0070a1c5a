//! The audit log as an auditor and an administrator meet it: `xksd audit`, and what `xksd keys` records.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use support::audit_log::{of_type, records};
use support::caller::Caller;
use support::daemon::{Daemon, poll};
use support::request::{bare_body, encrypt_body, unhex};
use support::site::{Configuration, Site, Tenant, text};

const XKSD: &str = env!("CARGO_BIN_EXE_xksd");

fn demo() -> Tenant {
    Tenant::new("demo", "demo", &["demo-*"], 'A')
}

fn configuration(lines: &[(&'static str, &str)]) -> Configuration {
    let mut configuration = Configuration::new(vec![demo()]);
    let lines: BTreeMap<_, _> = lines.iter().map(|(key, value)| (*key, text(value))).collect();
    configuration.audit = Some(lines);
    configuration
}

fn site(lines: &[(&'static str, &str)]) -> Site {
    let site = Site::new(XKSD);
    site.configure(&configuration(lines));
    site
}

fn run(site: &Site, arguments: &[&str]) -> Output {
    site.command(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn administration(site: &Site) -> PathBuf {
    site.audit().join("administration")
}

fn public_key(site: &Site) -> PathBuf {
    let path = site.path().join("audit.pem");
    fs::write(&path, site.run(&["audit", "public-key"])).unwrap();
    path
}

fn only_file(directory: &Path) -> PathBuf {
    let is_log = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "jsonl");
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(is_log).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

/// A site whose key signs, a daemon that has served, and its end.
fn served() -> Site {
    let site = site(&[("token", "softhsm"), ("checkpoint_interval", "1s")]);
    site.run(&["audit", "create-key"]);
    site.create_key("demo-key", "encrypt,decrypt");
    let daemon = Daemon::start(site);
    let kms = Caller::new(&daemon, &demo());
    let mut body = encrypt_body(b"x", None);
    body["requestMetadata"]["kmsRequestId"] = "the-request".into();
    kms.accepted("keys/demo-key/encrypt", &body);
    for _ in 0..3 {
        kms.accepted("health", &bare_body("KmsHealthCheck"));
    }
    let directory = daemon.site.audit();
    let covered = || {
        let last = of_type(&directory, "request").pop().map(|r| r["seq"].as_u64());
        let checkpoint = of_type(&directory, "checkpoint").pop();
        checkpoint.map(|c| c["statement"]["seq"].as_u64()) >= last && last.is_some()
    };
    poll(covered, || format!("{:#?}", records(&directory)));
    let site = daemon.site.clone();
    daemon.signal("TERM");
    assert_eq!(daemon.wait_exit().0.code(), Some(0));
    std::sync::Arc::try_unwrap(site).unwrap()
}

#[test]
fn an_auditor_verifies_offline_and_finds_what_was_changed() {
    let site = served();
    let pem = public_key(&site);
    let pem = pem.to_str().unwrap();
    let file = only_file(&site.audit());
    let log = file.to_str().unwrap();
    let verify = |arguments: &[&str]| {
        let output = Command::new(XKSD).args(["audit", "verify"]).args(arguments).output().unwrap();
        (output.status.code(), stdout(&output), stderr(&output))
    };
    let (code, out, err) = verify(&[log, "--public-key", pem]);
    assert_eq!((code, &*err), (Some(0), ""), "{out}");
    assert!(out.contains("signed up to record"), "{out}");
    let (code, out, _) = verify(&[log, "--public-key", pem, "--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["good"], &report["findings"]), (Some(0), &json!(true), &json!([])));
    // Directory and configuration lead to the same files, and to those of administrators.
    let both = site.run(&["audit", "verify", "--public-key", pem, "--json"]);
    let both: Value = serde_json::from_str(&both).unwrap();
    assert_eq!(both["chains"].as_array().unwrap().len(), 2);
    let (code, _, _) = verify(&[site.audit().to_str().unwrap(), "--public-key", pem]);
    assert_eq!(code, Some(0));
    // By hand, as docs/audit.md says.
    by_hand(&site, &of_type(&site.audit(), "checkpoint")[0], pem);

    let whole = fs::read_to_string(&file).unwrap();
    let head = site.run(&["audit", "head", log]).trim().to_owned();
    let (code, _, _) = verify(&[log, "--expect-head", &head]);
    assert_eq!(code, Some(0));
    // One byte of a record.
    let at = whole.lines().position(|line| line.contains("the-request")).unwrap() + 1;
    fs::write(&file, whole.replace("the-request", "the-requesT")).unwrap();
    let (code, out, err) = verify(&[log, "--public-key", pem]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains(&format!("{log}:{at}: record {at} was changed")), "{out}");
    assert!(err.contains("error: 1 place is not as it was written"), "{err}");
    // Cut after the last checkpoint: good by itself, and not beside a head that was kept.
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let last = lines.iter().rposition(|line| line.contains(r#""type":"checkpoint""#)).unwrap();
    fs::write(&file, lines[..=last].concat()).unwrap();
    assert_eq!(verify(&[log, "--public-key", pem]).0, Some(0));
    let (code, _, err) = verify(&[log, "--public-key", pem, "--expect-head", &head]);
    assert_eq!(code, Some(1));
    assert!(err.contains("the log was cut, set back or rewritten"), "{err}");
    // Another key signed nothing of it.
    let other = served_key_of_another_token();
    fs::write(&file, &whole).unwrap();
    let (code, out, err) = verify(&[log, "--public-key", other.1.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(out.contains("no key that was given signed this checkpoint"), "{out}");
    assert!(err.contains("is signed by this key"), "{err}");
    // Nothing to judge is no proof.
    fs::write(&file, "").unwrap();
    let (code, _, err) = verify(&[log]);
    assert_eq!((code, err.contains("there are no records")), (Some(1), true), "{err}");
}

fn served_key_of_another_token() -> (Site, PathBuf) {
    let site = site(&[]);
    site.run(&["audit", "create-key"]);
    let pem = public_key(&site);
    (site, pem)
}

/// openssl knows nothing of us.
fn by_hand(site: &Site, checkpoint: &Value, pem: &str) {
    let line = fs::read_to_string(only_file(&site.audit())).unwrap();
    let line = line.lines().find(|line| line.contains(r#""type":"checkpoint""#)).unwrap();
    let (_, rest) = line.split_once(r#""statement":"#).unwrap();
    let statement = format!("{}}}", rest.split_once('}').unwrap().0);
    let [text, signature] = ["statement", "signature"].map(|name| site.path().join(name));
    fs::write(&text, &statement).unwrap();
    fs::write(&signature, unhex(checkpoint["signature"].as_str().unwrap())).unwrap();
    let output = Command::new("openssl")
        .args(["dgst", "-sha256", "-verify", pem, "-signature"])
        .arg(&signature)
        .arg(&text)
        .output()
        .unwrap();
    assert_eq!(stdout(&output).trim(), "Verified OK", "{}", stderr(&output));
}

#[test]
fn records_are_found_by_request_key_and_time() {
    let site = served();
    let found = |arguments: &[&str]| {
        let output = run(&site, &[&["audit", "search"], arguments, &["--json"]].concat());
        let text = stdout(&output);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let by_request = found(&["--request-id", "the-request"]);
    assert_eq!((by_request.len(), &by_request[0]["operation"]), (1, &json!("Encrypt")));
    let by_key = found(&["--key", "demo-key"]);
    assert!(by_key.iter().any(|record| record["type"] == "administration"));
    assert!(by_key.iter().any(|record| record["type"] == "request"));
    let day = &by_request[0]["time"].as_str().unwrap()[..10];
    let all = found(&[]).len();
    assert_eq!(found(&["--since", "2020-01-01"]).len(), all);
    assert_eq!(found(&["--since", day, "--until", "2999"]).len(), all);
    assert_eq!(run(&site, &["audit", "search", "--until", "2020"]).status.code(), Some(1));
    let wrong = run(&site, &["audit", "search", "--since", "yesterday"]);
    assert_eq!(wrong.status.code(), Some(64), "{}", stderr(&wrong));
    let shown = site.run(&["audit", "search", "--request-id", "the-request"]);
    assert!(shown.contains(" request operation=Encrypt outcome=OK keystore=demo"), "{shown}");
}

#[test]
fn every_change_by_an_administrator_is_recorded_and_signed() {
    let site = site(&[("token", "softhsm")]);
    site.run(&["audit", "create-key"]);
    site.create_key("demo-key", "encrypt,decrypt");
    for command in ["rotate", "disable", "enable", "schedule-deletion", "cancel-deletion"] {
        site.run(&["keys", command, "demo-key"]);
    }
    // Its date has come.
    let object = "00000000000000d1";
    let state = format!("xksd1:{object}:1:deleting:2:20260101:20260201:-");
    site.import_aes("demo-old", state.as_bytes(), &[3; 32]);
    site.run(&["keys", "destroy", "demo-old", "--object", object, "--force", "--yes"]);
    // Looking, and saying what would be done, changes nothing; what fails is recorded as failed.
    site.run(&["keys", "list"]);
    site.run(&["keys", "disable", "demo-key", "--dry-run"]);
    assert_eq!(run(&site, &["keys", "rotate", "demo-nothing"]).status.code(), Some(73));
    let directory = administration(&site);
    let steps = of_type(&directory, "administration");
    let of_step = |step: &str| -> Vec<&Value> {
        steps.iter().filter(|record| record["step"] == step).collect()
    };
    let begun: Vec<&Value> = of_step("begun").iter().map(|record| &record["action"]).collect();
    let commands = [
        "audit create-key",
        "keys create",
        "keys rotate",
        "keys disable",
        "keys enable",
        "keys schedule-deletion",
        "keys cancel-deletion",
        "keys destroy",
        "keys rotate",
    ];
    assert_eq!(begun, commands);
    let ended: Vec<&Value> = of_step("ended").iter().map(|record| &record["outcome"]).collect();
    let (last, others) = ended.split_last().unwrap();
    assert!(others.iter().all(|outcome| **outcome == "OK"), "{others:?}");
    assert_eq!(**last, "key `demo-nothing`: there is no such key");
    let changed = of_step("changed");
    let changes: Vec<&str> = changed.iter().map(|r| r["change"].as_str().unwrap()).collect();
    assert_eq!(changes[..3], ["generate_signing_key", "generate", "write_state"]);
    assert!(changes.contains(&"destroy"));
    for record in &changed {
        assert_eq!((&record["token"], &record["outcome"]), (&json!("softhsm"), &json!("OK")));
        assert_eq!(record["uid"], json!(rustix::process::getuid().as_raw()));
    }
    assert!(changed.iter().any(|record| record["object"].as_str().unwrap().contains(object)));
    // Each command ends with a checkpoint; the one that made the key, too.
    assert_eq!(of_type(&directory, "checkpoint").len(), commands.len());
    let pem = public_key(&site);
    let path = directory.to_str().unwrap();
    let report = site.run(&["audit", "verify", path, "--public-key", pem.to_str().unwrap()]);
    assert!(report.contains("; 1 after it are not"), "{report}");
}

#[test]
fn what_cannot_be_recorded_is_not_changed_unless_that_is_allowed() {
    let site = site(&[]);
    // No directory can be made there.
    fs::write(administration(&site), "in the way").unwrap();
    let refused = run(&site, &["keys", "create", "demo-key"]);
    assert_eq!(refused.status.code(), Some(73), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("cannot write to the directory of the audit log"));
    assert!(stderr(&refused).contains("hint: audit.on_failure is \"refuse\": nothing was changed"));
    assert!(!site.run(&["keys", "list"]).contains("demo-key"));
    site.configure(&configuration(&[("on_failure", "warn")]));
    let warned = run(&site, &["keys", "create", "demo-key"]);
    assert_eq!(warned.status.code(), Some(0), "{}", stderr(&warned));
    assert!(stderr(&warned).contains("warning: not recorded: cannot write to"));
    assert!(site.run(&["keys", "list"]).contains("demo-key"));
}

#[test]
fn a_token_without_ecdsa_seals_and_judges_itself() {
    let site = site(&[("token", "softhsm")]);
    site.run(&["audit", "create-key", "--hmac"]);
    let again = run(&site, &["audit", "create-key"]);
    assert_eq!(again.status.code(), Some(73));
    assert!(stderr(&again).contains("holds a key `xksd:audit` already"), "{}", stderr(&again));
    assert_eq!(run(&site, &["audit", "public-key"]).status.code(), Some(73));
    let without = site.run(&["audit", "verify"]);
    assert!(without.contains("2 checkpoints, not judged without"), "{without}");
    let judged = site.run(&["audit", "verify", "--with-hsm"]);
    assert!(judged.contains("signed up to record"), "{judged}");
    let file = only_file(&administration(&site));
    let log = fs::read_to_string(&file).unwrap();
    let at = log.rfind("\"signature\":\"").unwrap() + 13;
    let digit = if &log[at..=at] == "0" { "1" } else { "0" };
    fs::write(&file, format!("{}{digit}{}", &log[..at], &log[at + 1..])).unwrap();
    let forged = run(&site, &["audit", "verify", "--with-hsm"]);
    assert_eq!(forged.status.code(), Some(1));
    assert!(stdout(&forged).contains("no key that was given signed"), "{}", stdout(&forged));
}
