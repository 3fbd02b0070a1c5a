//! `freeze` and `unfreeze`: markers on every token

use serde_json::json;

use crate::house::House;

#[test]
fn a_marker_is_made_on_each_token_and_destroyed_on_each() {
    let house = House::new(&["a", "b"]);
    house.import(&["a", "b"], "key", "xksd1:0f8e4a5b6c7d8e9f:1:enabled:1:20260101:-:-");
    let planned = house.good("freeze --keystore demo --dry-run --json").json();
    let marker = |tokens, dry_run| json!({ "marker": "xksd:freeze:demo", "tokens": tokens, "dry_run": dry_run, "unreached": [] });
    assert_eq!(planned, marker(json!(["a", "b"]), true));
    assert_eq!(
        house.good("freeze --keystore demo --json").json(),
        marker(json!(["a", "b"]), false)
    );
    let again = house.good("freeze --keystore demo");
    assert!(again.stderr.contains("key store `demo` is frozen already"), "{again:?}");
    assert_eq!(house.good("freeze --keystore demo --json").json(), marker(json!([]), false));
    // It is no key of anybody's.
    assert_eq!(house.good("list --json").stdout.matches("xksd:freeze").count(), 0);

    let planned = house.good("unfreeze --keystore demo --dry-run");
    assert!(planned.stderr.contains("token `b`: would destroy the marker"), "{planned:?}");
    let unfrozen = house.good("unfreeze --keystore demo --json").json();
    assert_eq!(unfrozen, marker(json!(["a", "b"]), false));
    let again = house.good("unfreeze --keystore demo");
    assert!(again.stderr.contains("is not frozen by this marker already"), "{again:?}");
}

#[test]
fn a_key_store_that_another_marker_freezes_is_said_to_be_frozen_still() {
    let house = House::new(&["a"]);
    house.good("freeze --keystore demo");
    assert_eq!(house.good("freeze --all --json").json()["marker"], "xksd:freeze:*");
    house.run("unfreeze --keystore demo").bad(1, &["still frozen, by `xksd:freeze:*`"]);
    house.good("unfreeze --all");
    house.good("unfreeze --keystore demo");
}

#[test]
fn a_token_that_is_away_is_named_and_the_others_are_marked() {
    let house = House::new(&["a", "b"]);
    house.script("b", "C_OpenSession return CKR_DEVICE_REMOVED");
    let frozen = house.run("freeze --keystore demo --json");
    frozen.bad(69, &["token `b`: C_OpenSession returned CKR_DEVICE_REMOVED"]);
    assert_eq!(frozen.json()["tokens"], json!(["a"]));
    assert_eq!(frozen.json()["unreached"][0]["token"], "b");
    house.script("b", "");
    assert_eq!(house.good("freeze --keystore demo --json").json()["tokens"], json!(["b"]));
    house.script("a", "C_OpenSession return CKR_DEVICE_REMOVED");
    // What may still freeze is named.
    house.run("unfreeze --keystore demo").bad(69, &["token `a`"]);
    house.script("a", "");
    assert_eq!(house.good("unfreeze --keystore demo --json").json()["tokens"], json!(["a"]));
}

#[test]
fn a_key_that_a_token_failed_to_make_is_made_again() {
    let house = House::new(&["a"]);
    house.script("a", "C_GenerateKey first 2 return CKR_GENERAL_ERROR");
    assert_eq!(house.good("freeze --keystore demo --json").json()["tokens"], json!(["a"]));
    house.script("a", "");
    assert_eq!(house.good("unfreeze --keystore demo --json").json()["tokens"], json!(["a"]));
}

#[test]
fn what_is_to_be_frozen_must_be_said() {
    let house = House::new(&["a"]);
    house.run("freeze").bad(64, &["--all"]);
    house.run("freeze --token a").bad(64, &["--all"]);
    house.run("freeze --keystore demo --all").bad(64, &["--all"]);
    house.run("freeze --keystore other").bad(64, &["there is no key store `other`"]);
    assert_eq!(house.good("freeze --all --token a --json").json()["tokens"], json!(["a"]));
}
