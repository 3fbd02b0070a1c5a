//! `deploy/systemd`: the units are what systemd understands, and as tight as `docs/systemd.md` says.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Highest exposure of the unit by itself, and of it with any one drop-in, by `systemd-analyze
/// security`. What is measured is in docs/systemd.md; other versions of systemd weigh a little
/// differently.
const EXPOSURE: f64 = 1.5;
const EXPOSURE_WITH_DROP_IN: f64 = 2.0;

/// The first systemd that rates units without running them.
const VERSION: u32 = 250;

const UNITS: [&str; 3] = ["xksd.service", "xksd.socket", "xksd-ops.socket"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd")
}

fn drop_ins() -> BTreeSet<String> {
    let entries = fs::read_dir(folder().join("xksd.service.d")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Whether this machine's systemd-analyze can do it.
fn can_analyze() -> bool {
    let output = Command::new("systemd-analyze").arg("--version").output();
    let version = output.ok().and_then(|output| {
        // systemd 252 (252.38-1~deb12u1)
        String::from_utf8_lossy(&output.stdout).split_whitespace().nth(1)?.parse::<u32>().ok()
    });
    let can = version.is_some_and(|version| version >= VERSION);
    if !can {
        support::not_run(
            "the units of systemd: there is no systemd-analyze of version 250 or later",
        );
    }
    can
}

/// The units as they would be installed, with at most one drop-in, and this build as the program.
fn installed(drop_in: Option<&str>) -> TempDir {
    let place = tempfile::tempdir().unwrap();
    for unit in UNITS {
        let text = fs::read_to_string(folder().join(unit)).unwrap();
        let text = text.replace("/usr/bin/xksd", env!("CARGO_BIN_EXE_xksd"));
        fs::write(place.path().join(unit), text).unwrap();
    }
    if let Some(name) = drop_in {
        let beside = place.path().join("xksd.service.d");
        fs::create_dir(&beside).unwrap();
        fs::copy(folder().join("xksd.service.d").join(name), beside.join(name)).unwrap();
    }
    place
}

/// What systemd-analyze says of them; the colon keeps systemd's own units in reach.
fn analyze(place: &TempDir, arguments: &[&str], units: &[&str]) -> (bool, String) {
    let path = place.path();
    let output = Command::new("systemd-analyze")
        .args(arguments)
        .args(units.iter().map(|unit| path.join(unit)))
        .env("SYSTEMD_UNIT_PATH", format!("{}:", path.display()))
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn variants() -> Vec<Option<String>> {
    [None].into_iter().chain(drop_ins().into_iter().map(Some)).collect()
}

#[test]
fn systemd_understands_the_units() {
    if !can_analyze() {
        return;
    }
    for drop_in in variants() {
        let place = installed(drop_in.as_deref());
        let (verified, said) = analyze(&place, &["verify", "--man=no"], &UNITS);
        // An unknown key or value is only warned of. Other units of the machine are not ours.
        let ours = said.lines().find(|line| line.contains("xksd"));
        assert!(verified && ours.is_none(), "{drop_in:?}: {said}");
    }
}

/// `systemd-analyze verify` would say so: else the test before could not fail.
#[test]
fn a_unit_that_systemd_does_not_understand_is_noticed() {
    if !can_analyze() {
        return;
    }
    let place = installed(None);
    let unit = place.path().join("xksd.service");
    let text = fs::read_to_string(&unit).unwrap();
    fs::write(&unit, text.replace("NoNewPrivileges=yes", "NoNewPrivilege=yes")).unwrap();
    let (_, said) = analyze(&place, &["verify", "--man=no"], &UNITS);
    assert!(said.lines().any(|line| line.contains("xksd") && line.contains("NoNewPrivilege")));
}

#[test]
fn the_service_is_tight() {
    if !can_analyze() {
        return;
    }
    for drop_in in variants() {
        let place = installed(drop_in.as_deref());
        let arguments = ["security", "--offline=true", "--no-pager"];
        let (_, said) = analyze(&place, &arguments, &["xksd.service"]);
        let (_, level) = said.split_once("Overall exposure level for xksd.service: ").unwrap();
        let exposure: f64 = level.split_whitespace().next().unwrap().parse().unwrap();
        let most = if drop_in.is_some() { EXPOSURE_WITH_DROP_IN } else { EXPOSURE };
        assert!(exposure <= most, "{drop_in:?}: {said}");
    }
}

/// Every file is explained, and every file that is explained is there.
#[test]
fn the_document_names_every_file() {
    let document =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/systemd.md")).unwrap();
    let named: BTreeSet<String> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter(|cell| cell.ends_with(".conf"))
        .map(str::to_owned)
        .collect();
    assert_eq!(named, drop_ins());
    for unit in UNITS.iter().chain(&["xksd.sysusers"]) {
        assert!(document.contains(&format!("`{unit}`")), "{unit}");
    }
}
