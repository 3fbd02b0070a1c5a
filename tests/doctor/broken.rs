//! Installations that are broken for real, each in one place, and what doctor says of it.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;

use serde_json::Value;
use xksd::doctor::Check;

use crate::cases::{CASES, Case, Served, Still};
use crate::installation::Installation;

/// Findings that are about the machine that runs the test, not about the installation.
const OF_THE_MACHINE: [&str; 4] =
    ["clock.synchronised", "limits.memory", "endpoint.time", "token.time"];

pub(crate) fn is_of_the_machine(finding: &Value) -> bool {
    OF_THE_MACHINE.iter().any(|name| finding["check"] == *name)
}

#[test]
fn a_healthy_installation_has_nothing_but_good_findings() {
    let installation = Installation::new();
    let still = installation.examine();
    assert_eq!(still.of("fail").collect::<Vec<_>>(), Vec::<&Value>::new());
    // Nobody answers yet.
    let waiting = still.messages("warn");
    assert!(matches!(waiting[..], [("endpoint.tls" | "endpoint.reach", _)]), "{waiting:#?}");
    let _daemon = installation.start();
    let served = installation.examine();
    assert_eq!(served.of("fail").collect::<Vec<_>>(), Vec::<&Value>::new());
    assert_eq!(served.messages("warn"), []);
    assert_eq!(served.code, 0);
    served.assert_no_secrets();
    // Nearly every check there is has looked at something.
    let passed: BTreeSet<_> =
        served.of("ok").map(|finding| finding["check"].as_str().unwrap()).collect();
    let unseen: Vec<_> = Check::ALL.iter().map(|check| check.name()).collect();
    let unseen: Vec<_> = unseen.into_iter().filter(|name| !passed.contains(name)).collect();
    let only_bad = [
        "configuration.safety",
        "endpoint.tls",
        "endpoint.client_certificate",
        "endpoint.host",
        "endpoint.path",
        "endpoint.answer",
        "token.answers",
    ];
    let unexpected: Vec<_> = unseen
        .iter()
        .filter(|name| !only_bad.contains(name) && !OF_THE_MACHINE.contains(name))
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:?} were not looked at");
}

#[test]
fn each_broken_installation_is_named() {
    let next = Mutex::new(CASES.iter());
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let case = next.lock().unwrap().next();
                    let Some(case) = case else { return };
                    if catch_unwind(AssertUnwindSafe(|| examine(case))).is_err() {
                        failures.lock().unwrap().push(case.name);
                    }
                }
            });
        }
    });
    assert_eq!(failures.into_inner().unwrap(), Vec::<&str>::new());
    assert!(CASES.len() >= 20);
}

fn examine(case: &Case) {
    let mut installation = Installation::new();
    let daemon = match case.breaking {
        Still(breaking) => {
            breaking(&mut installation);
            None
        }
        Served(before, after) => {
            before(&mut installation);
            let daemon = installation.start();
            after(&mut installation, &daemon);
            Some(daemon)
        }
    };
    let diagnosis = installation.examine();
    drop(daemon);
    diagnosis.assert_no_secrets();
    let name = case.name;
    let found = diagnosis.findings.iter().find(|finding| {
        let says =
            |key: &str, words| finding[key].as_str().is_some_and(|text| text.contains(words));
        finding["check"] == case.check
            && finding["status"] == case.status
            && says("message", case.message)
            && says("advice", case.advice)
    });
    let bad: Vec<_> = diagnosis.findings.iter().filter(|f| f["status"] != "ok").collect();
    let found = found.unwrap_or_else(|| panic!("{name}: {} is not among {bad:#?}", case.check));
    assert_ne!(found["advice"], "", "{name}");
    let is_of_case =
        |check: &Value| *check == case.check || case.also.iter().any(|also| *check == **also);
    let others: Vec<_> = diagnosis.of("fail").filter(|f| !is_of_case(&f["check"])).collect();
    assert!(others.is_empty(), "{name}: more than was broken: {others:#?}");
    let has_failed = diagnosis.of("fail").next().is_some();
    assert_eq!(diagnosis.code, i32::from(has_failed), "{name}");
}

/// docs/doctor.md has a row for each check, and for no other.
#[test]
fn every_check_is_in_the_documentation_and_no_other() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/doctor.md"));
    let text = text.unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let rows: Vec<&str> = rows.collect();
    let names: Vec<&str> = Check::ALL.iter().map(|check| check.name()).collect();
    assert_eq!(rows, names);
}
