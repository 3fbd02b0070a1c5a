//! What the commands that bring keys, trust and freeze leave in the administrators' log.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use support::audit_log::{of_type, verify};
use support::token::SO_PIN;
use xksd::audit::store::make_directory;

use crate::house::{House, MATERIAL};

/// Two tokens and an audit log that `a` signs.
fn audited() -> House {
    let house = House::new(&["a", "b"]);
    for name in ["audit", "credentials"] {
        make_directory(&house.path(name)).expect("a test's directory can be written");
    }
    house.configure("version = 1\n", "[audit]\ndirectory = \"audit\"\ntoken = \"a\"\n");
    house.configure("[keystores.demo]\n", "credentials_directory = \"credentials\"\n");
    xksd(&house, "audit create-key --token a");
    house
}

fn xksd(house: &House, line: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xksd"));
    command.args(line.split_whitespace()).current_dir(house.path("."));
    let output = command.env_clear().env("XKSD_CONFIG", "xksd.toml").output();
    let output = output.expect("xksd can be started");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it is text")
}

/// What was recorded of the last command: token and change of each step.
fn changes(house: &House, action: &str) -> Vec<(Value, String)> {
    let records = of_type(&house.path("audit/administration"), "administration");
    let begun = records.iter().rposition(|record| record["step"] == "begun");
    let last = &records[begun.expect("a command was recorded")..];
    assert!(last.iter().all(|record| record["action"] == action), "{last:#?}");
    let (ended, last) = last[1..].split_last().expect("it has ended");
    assert_eq!((&ended["step"], &ended["outcome"]), (&json!("ended"), &json!("OK")));
    let change = |record: &Value| {
        assert_eq!((&record["step"], &record["outcome"]), (&json!("changed"), &json!("OK")));
        (record["token"].clone(), record["change"].as_str().expect("it has one").to_owned())
    };
    last.iter().map(change).collect()
}

fn of(token: &str, change: &str) -> (Value, String) {
    (token.into(), change.to_owned())
}

/// How many signatures there are, each over all that was recorded before it.
fn signatures(house: &House) -> usize {
    of_type(&house.path("audit/administration"), "checkpoint").len()
}

#[test]
fn what_brings_key_material_is_recorded() {
    let house = audited();
    house.file("key.bin", MATERIAL);
    house.good("import imported --material key.bin");
    let made = changes(&house, "keys import");
    for token in ["a", "b"] {
        assert!(made.contains(&of(token, "receive")), "{made:?}");
        assert!(made.contains(&of(token, "write_state")), "{made:?}");
    }
    fs::create_dir(house.path("out")).expect("a test's directory can be written");
    house.good("import-parameters --out out");
    assert_eq!(
        changes(&house, "keys import-parameters"),
        [of("a", "make_pair"), of("b", "make_pair")]
    );
    house.file("so.pin", SO_PIN.as_bytes());
    house.good("trust --on a --so-pin so.pin");
    assert_eq!(changes(&house, "keys trust"), [of("b", "make_pair"), of("a", "trust")]);
    house.good("create key --replicable --under-trusted --token a");
    let before = signatures(&house);
    house.good("replicate key");
    let made = changes(&house, "keys replicate");
    assert_eq!(made[0], of("a", "wrap_under_trusted"));
    assert!(made.contains(&of("b", "receive")), "{made:?}");
    assert_eq!(signatures(&house), before + 1);
    assert_eq!(verify(&house.path("audit/administration")).findings, []);
}

#[test]
fn the_token_signs_although_its_officer_was_at_work() {
    let house = audited();
    house.file("so.pin", SO_PIN.as_bytes());
    let before = signatures(&house);
    house.good("trust --on a --so-pin so.pin");
    assert_eq!(signatures(&house), before + 1);
    house.file("so.pin", b"0000-wrong");
    house.run("trust --on a --so-pin so.pin").bad(77, &["security officer"]);
    assert_eq!(signatures(&house), before + 2);
}

#[test]
fn freezing_is_recorded() {
    let house = audited();
    house.good("freeze --keystore demo --dry-run");
    assert_eq!(signatures(&house), 1, "that of `create-key`");
    house.good("freeze --keystore demo");
    assert_eq!(changes(&house, "keys freeze"), [of("a", "generate"), of("b", "generate")]);
    let records = of_type(&house.path("audit/administration"), "administration");
    assert_eq!(records.last().expect("there are some")["key"], "xksd:freeze:demo");
    house.good("unfreeze --keystore demo");
    assert_eq!(changes(&house, "keys unfreeze"), [of("a", "destroy"), of("b", "destroy")]);
}

#[test]
fn credentials_are_recorded() {
    let house = audited();
    let id = xksd(&house, "credentials create --keystore demo");
    let id = id.trim();
    let made = |change: &str| (Value::Null, change.to_owned());
    assert_eq!(changes(&house, "credentials create"), [made("create_credential")]);
    let records = of_type(&house.path("audit/administration"), "administration");
    assert_eq!(records[records.len() - 2]["object"], id);
    xksd(&house, &format!("credentials revoke {id} --keystore demo --yes"));
    assert_eq!(changes(&house, "credentials revoke"), [made("remove_credential")]);
}
