//! `list` and `describe`

use serde_json::{Value, json};

use crate::house::House;

const OURS: &str = "xksd1:0f8e4a5b6c7d8e9f:1:enabled:3:20260101:-:-";

#[test]
fn every_version_is_shown_on_every_token() {
    let house = House::new(&["a", "b"]);
    house.import(&["a", "b"], "shared", OURS);
    house.import(&["b"], "shared", "xksd1:00000000000000aa:2:pending:1:20260102:-:-");
    house.import(&["a"], "vendors", "whatever");
    let key = house.describe("shared");
    assert_eq!((&key["status"], &key["unreached"]), (&json!("enabled"), &json!([])));
    let versions = key["versions"].as_array().unwrap();
    assert_eq!(versions.len(), 2);
    let (pending, enabled) = (&versions[0], &versions[1]);
    assert_eq!(pending["status"], "pending");
    assert_eq!(pending["missing"], json!(["a"]));
    assert_eq!(enabled["object_id"], "0f8e4a5b6c7d8e9f");
    assert_eq!(enabled["created"], "2026-01-01");
    assert_eq!((&enabled["epoch"], &enabled["missing"]), (&json!(3), &json!([])));
    let objects = enabled["objects"].as_array().unwrap();
    let tokens: Vec<_> = objects.iter().map(|object| &object["token"]).collect();
    assert_eq!(tokens, ["a", "b"]);
    assert_eq!(objects[0]["protection"]["sensitive"], true);
    assert_eq!(objects[0]["check_value"], objects[1]["check_value"]);
    let text = house.good("describe shared").stdout;
    assert!(text.contains("version 1 0f8e4a5b6c7d8e9f enabled AES_256 encrypt,decrypt"), "{text}");

    let listed = house.good("list --json").json();
    let row = |key: &Value| format!("{} {}", key["id"].as_str().unwrap(), key["token"]);
    let rows: Vec<_> = listed.as_array().unwrap().iter().map(row).collect();
    assert_eq!(rows, ["shared \"a\"", "shared \"b\"", "vendors \"a\""]);
    assert_eq!(listed[2]["versions"][0]["epoch"], json!(null));
    assert_eq!(house.good("list --json --token b").json().as_array().unwrap().len(), 1);
    let table = house.good("list --keystore demo").stdout;
    assert!(table.lines().nth(1).unwrap().ends_with("(1 pending)"), "{table}");
    house.run("describe nothing").bad(73, &["key `nothing`: there is no such key"]);
    house.run("list --keystore other").bad(64, &["no key store `other`", "key stores", "demo"]);
}

#[test]
fn a_list_without_a_token_is_no_list() {
    let house = House::new(&["a", "b"]);
    house.script("b", "C_OpenSession return CKR_DEVICE_REMOVED");
    let said = house.run("list");
    said.bad(69, &["token `b`: C_OpenSession returned CKR_DEVICE_REMOVED"]);
    assert_eq!(said.stdout, "");
}
