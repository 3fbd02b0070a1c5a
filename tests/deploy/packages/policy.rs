//! `deny.toml`: by cargo-deny where it is installed, and what matters most of it everywhere.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use super::{has, inventory, run, source};

fn policy() -> toml::Table {
    fs::read_to_string(source("deny.toml")).unwrap().parse().unwrap()
}

fn components() -> Vec<Value> {
    let document: Value = serde_json::from_str(&inventory("sbom")).unwrap();
    document["components"].as_array().unwrap().clone()
}

/// Whether one may choose licences that are all allowed.
fn is_allowed(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    // No crate nests deeper: alternatives in parentheses, all of which are asked for.
    expression.split(" AND ").all(|part| {
        let part = part.trim_matches(['(', ')']);
        part.split(" OR ").any(|licence| allowed.contains(licence))
    })
}

#[test]
fn every_licence_is_allowed() {
    let policy = policy();
    let allowed = policy["licenses"]["allow"].as_array().unwrap();
    let allowed: BTreeSet<&str> = allowed.iter().filter_map(|name| name.as_str()).collect();
    let mut used = BTreeSet::new();
    for component in components() {
        let expression = component["licenses"][0]["expression"].as_str();
        let expression = expression.unwrap_or_else(|| panic!("no licence: {component}"));
        assert!(is_allowed(expression, &allowed), "{}: {expression}", component["name"]);
        used.extend(allowed.iter().filter(|name| expression.contains(**name)));
    }
    assert_eq!(used, allowed, "what is allowed and not used");
}

#[test]
fn a_licence_that_is_not_allowed_is_noticed() {
    let allowed = BTreeSet::from(["MIT", "ISC"]);
    for expression in ["MIT", "GPL-3.0 OR MIT", "ISC AND (GPL-3.0 OR MIT)"] {
        assert!(is_allowed(expression, &allowed), "{expression}");
    }
    for expression in ["GPL-3.0", "MIT AND GPL-3.0", "ISC AND (GPL-3.0 OR MPL-2.0)", ""] {
        assert!(!is_allowed(expression, &allowed), "{expression}");
    }
}

#[test]
fn no_banned_crate_is_in_the_build() {
    let policy = policy();
    let banned = policy["bans"]["deny"].as_array().unwrap();
    let banned: BTreeSet<&str> =
        banned.iter().filter_map(|entry| entry.get("crate")?.as_str()).collect();
    assert!(banned.contains("openssl-sys"), "{banned:?}");
    for component in components() {
        assert!(!banned.contains(component["name"].as_str().unwrap()), "{component}");
    }
}

/// All but advisories, which are fetched: docs/release.md has them looked at with each release.
#[test]
fn cargo_deny_agrees() {
    if !has(&["cargo-deny"], "cargo deny") {
        return;
    }
    let mut command = Command::new("cargo");
    command.args(["deny", "--offline", "--locked", "check", "bans", "licenses", "sources"]);
    run(command.current_dir(env!("CARGO_MANIFEST_DIR")));
}
