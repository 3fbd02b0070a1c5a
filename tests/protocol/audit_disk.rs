//! The audit log on a disk of its own, which fills up or is read-only. Where this user may not mount
//! one, that is said, and `audit::log` holds the same on disks that it plays.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use support::audit_log::{of_type, verify};
use support::caller::Caller;
use support::daemon::{Daemon, poll};
use support::request::encrypt_body;
use support::site::{Configuration, Site, text};

use crate::world::{demo, small_site};

/// A small file system in memory. Unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path, options: &str) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).stderr(Stdio::null());
        if mount.status().is_ok_and(|status| status.success()) {
            return Some(Self(at.to_owned()));
        }
        support::not_run("the audit log on a disk that is full or read-only (mount)");
        None
    }

    /// Takes all room that is left.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = fs::File::create(&path).unwrap();
        while file.write_all(&[0; 1024]).is_ok() {}
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The daemon may still have a file there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn site(on_failure: &str) -> Site {
    let mut configuration = Configuration::new(vec![demo()]);
    configuration.audit = Some(BTreeMap::from([("on_failure", text(on_failure))]));
    small_site_of(&configuration)
}

fn small_site_of(configuration: &Configuration) -> Site {
    let site = small_site(configuration);
    // What `keys create` has recorded is not looked at here.
    fs::remove_dir_all(site.audit()).unwrap();
    xksd::audit::store::make_directory(&site.audit()).unwrap();
    site
}

#[test]
fn where_the_disk_is_full_both_policies_do_as_they_say() {
    for (on_failure, status) in [("refuse", 500), ("warn", 200)] {
        let site = site(on_failure);
        let Some(disk) = Disk::mount(&site.audit(), "size=256k,mode=0700") else { return };
        let daemon = Daemon::start(site);
        let kms = Caller::new(&daemon, &demo());
        let body = encrypt_body(b"x", None);
        let call = || kms.call("keys/demo-key/encrypt", &body).status;
        assert_eq!(call(), 200);
        let site = daemon.site.clone();
        let directory = site.audit();
        poll(|| of_type(&directory, "request").len() == 1, || format!("{on_failure}: no record"));
        let filler = disk.fill();
        // What fits into the last block is still written.
        let mut answered = 1;
        let failing = || daemon.metrics().contains("\nxksd_audit_failures_total 0\n");
        while failing() {
            answered += usize::from(call() == 200);
        }
        poll(|| call() == status, || format!("{on_failure}: not {status}"));
        let ready = if on_failure == "refuse" { 503 } else { 200 };
        assert_eq!(daemon.ask(daemon.ops, "/readyz").0, ready);
        fs::remove_file(filler).unwrap();
        poll(|| daemon.ask(daemon.ops, "/readyz").0 == 200, || "not ready".to_owned());
        assert_eq!(call(), 200);
        daemon.wait_for_line("the audit log is written again");
        poll(|| of_type(&directory, "request").len() > answered, || "no records".to_owned());
        daemon.signal("TERM");
        let (exit, log) = daemon.wait_exit();
        assert_eq!(exit.code(), Some(0), "{log}");
        assert_eq!(verify(&directory).findings, [], "{on_failure}");
        if on_failure == "refuse" {
            let gaps = of_type(&directory, "gap");
            assert!(gaps.iter().any(|gap| gap["refused"] != json!(0)), "{gaps:?} {log}");
        } else {
            assert_eq!(of_type(&directory, "gap").len(), 0);
        }
    }
}

#[test]
fn a_read_only_disk_is_a_fault_of_the_configuration() {
    let site = site("refuse");
    let Some(_disk) = Disk::mount(&site.audit(), "size=64k,mode=0700,ro") else { return };
    let output = site.command(&["config", "check"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{stderr}");
    assert!(stderr.contains("audit.directory"), "{stderr}");
    assert!(stderr.contains("cannot be written to: Read-only file system"), "{stderr}");
    let output = site.command(&["serve"]).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
}
