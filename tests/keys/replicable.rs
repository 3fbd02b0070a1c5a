//! `create --replicable` and `rotate` over tokens that do not copy keys by themselves

use serde_json::{Value, json};

use crate::house::House;

const OURS: &str = "xksd1:0f8e4a5b6c7d8e9f:1:enabled:1:20260101:-:-";
/// Of a run that was stopped: its key material is nowhere else any more.
const HALF: &str = "xksd1:00000000000000aa:1:pending:1:20260102:-:r";

/// Number and status of each version, newest first, and on which tokens it is missing.
fn versions(house: &House, id: &str) -> Vec<(u64, String, Value)> {
    let version = |version: &Value| {
        let status = version["status"].as_str().expect("it is a word").to_owned();
        let number = version["version"].as_u64().expect("it is a number");
        (number, status, version["missing"].clone())
    };
    let key = house.describe(id);
    key["versions"].as_array().expect("there are some").iter().map(version).collect()
}

fn enabled(numbers: &[u64]) -> Vec<(u64, String, Value)> {
    numbers.iter().map(|number| (*number, "enabled".to_owned(), json!([]))).collect()
}

#[test]
fn one_key_is_made_in_all_tokens_and_rotated_in_all() {
    let house = House::new(&["a", "b"]);
    let planned = house.good("create key --replicable --dry-run --json").json();
    assert_eq!(
        (&planned["tokens"], &planned["origin"]),
        (&json!(["a", "b"]), &json!("replicable"))
    );
    house.run("describe key").bad(73, &["there is no such key"]);
    let made = house.good("create key --replicable --json").json();
    assert_eq!((&made["status"], &made["origin"]), (&json!("enabled"), &json!("replicable")));
    assert_eq!(versions(&house, "key"), enabled(&[1]));
    // Inherited.
    let rotated = house.good("rotate key --json").json();
    assert_eq!((&rotated["version"], &rotated["origin"]), (&json!(2), &json!("replicable")));
    assert_eq!(versions(&house, "key"), enabled(&[2, 1]));
    let found = house.good("verify --json").json();
    let results: Vec<_> =
        found.as_array().expect("rows").iter().map(|row| &row["result"]).collect();
    assert_eq!(results, ["decrypts"; 4]);
    let key = house.describe("key");
    for version in key["versions"].as_array().expect("there are some") {
        assert_eq!(
            (&version["origin"], &version["replicable"], &version["key_spec"]),
            (&json!("replicable"), &json!(true), &json!("AES_256"))
        );
        for object in version["objects"].as_array().expect("there are some") {
            let kept = &object["protection"];
            for (attribute, value) in [
                ("token", true),
                ("private", true),
                ("sensitive", true),
                ("extractable", false),
                ("always_sensitive", false),
                ("never_extractable", false),
                ("modifiable", true),
            ] {
                assert_eq!(kept[attribute], value, "{attribute}");
            }
        }
    }
    // One pair for each token, and every key of a session was destroyed: of the first token's the key
    // itself and two public ones for each version, of both the trials of two hashes.
    for token in ["a", "b"] {
        assert_eq!(house.counts(token).of("C_GenerateKeyPair"), 1);
    }
    assert_eq!(house.counts("a").of("C_GenerateKey"), 2);
    assert_eq!(house.counts("b").of("C_GenerateKey"), 0);
    assert_eq!(house.counts("a").of("C_WrapKey"), 4);
    let listed = house.good("list").stdout;
    assert_eq!(listed.lines().filter(|line| line.contains(" replicable")).count(), 2, "{listed}");
    assert_eq!(listed.lines().count(), 2, "the pairs are no external keys: {listed}");
    assert!(house.good("describe key").stdout.contains(" replicable "), "it says so");
}

/// SoftHSM2 tells no CKA_CHECK_VALUE of what it unwrapped.
#[test]
fn a_key_that_proves_nothing_is_not_made_on_several_tokens() {
    let house = House::new(&["a", "b"]);
    let said = house.run("create key --replicable --usage encrypt");
    said.bad(73, &["token `a` tells no check value", "nothing proves"]);
    house.run("describe key").bad(73, &["there is no such key"]);
}

#[test]
fn a_key_of_another_origin_becomes_replicable_with_its_next_version() {
    let house = House::new(&["a", "b"]);
    house.import(&["a", "b"], "key", OURS);
    house.run("rotate key --wait 0").bad(73, &["token `b` does not show", "--replicable"]);
    house.good("rotate key --replicable");
    house.good("rotate key");
    assert_eq!(versions(&house, "key"), enabled(&[3, 2, 1]));
    house.run("create key --replicable").bad(73, &["exists already"]);
    house.good("disable key");
    house.run("rotate key").bad(73, &["a new one would put the key in use again"]);
}

/// Of two ways to one HSM the second shows what the first has unwrapped: it is not made twice.
#[test]
fn an_hsm_with_two_names_gets_one_object() {
    let house = House::new(&["a-1", "a-2"]);
    house.good("create key --replicable");
    let key = house.good("describe key --token a-1 --json").json();
    assert_eq!(key["status"], "enabled");
    assert_eq!(key["versions"][0]["objects"].as_array().map(Vec::len), Some(1));
}

#[test]
fn what_nobody_can_complete_is_destroyed_and_begun_anew() {
    let house = House::new(&["a", "b"]);
    house.import(&["a"], "key", HALF);
    house.good("create key --replicable");
    let key = house.describe("key");
    assert_ne!(key["versions"][0]["object_id"], "00000000000000aa");
    assert_eq!(versions(&house, "key"), enabled(&[1]));
    // Nor is it taken for a key that one token generated.
    let house = House::new(&["a"]);
    house.import(&["a"], "key", HALF);
    house.good("create key");
    let key = house.describe("key");
    assert_eq!(key["versions"][0]["origin"], "generated");
    assert_eq!(key["versions"].as_array().map(Vec::len), Some(1));
}

/// What a token refuses leaves nothing, on none of them.
#[test]
fn tokens_that_refuse_are_left_as_they_were() {
    let house = House::new(&["a", "b"]);
    house.good("create old --replicable");
    let refusals = [
        ("a", "C_GenerateKey return CKR_TEMPLATE_INCONSISTENT", "forbids an attribute"),
        ("a", "C_CreateObject return CKR_DEVICE_MEMORY", "full"),
        ("a", "C_WrapKey return CKR_ATTRIBUTE_VALUE_INVALID", "forbids an attribute"),
        ("b", "C_OpenSession return CKR_TOKEN_WRITE_PROTECTED", "write-protected"),
        // Its first two are the trials of its pair.
        ("b", "C_UnwrapKey from 3 return CKR_TOKEN_WRITE_PROTECTED", "write-protected"),
        ("b", "C_UnwrapKey from 3 return CKR_DEVICE_MEMORY", "full"),
        ("b", "C_UnwrapKey from 3 return CKR_TEMPLATE_INCONSISTENT", "forbids an attribute"),
        ("b", "C_UnwrapKey from 3 return CKR_WRAPPED_KEY_INVALID", "cannot unwrap it"),
    ];
    for (token, script, hint) in refusals {
        house.script(token, script);
        for command in ["create key --replicable", "rotate old"] {
            let said = house.run(command);
            let code = script.split(' ').next_back().expect("there are words");
            said.bad(73, &[&format!("token `{token}`"), code, hint]);
        }
        house.script(token, "");
        house.run("describe key").bad(73, &["there is no such key"]);
        assert_eq!(versions(&house, "old"), enabled(&[1]), "{script}");
    }
    house.good("create key --replicable");
}

#[test]
fn a_token_that_is_away_keeps_the_key_from_being_made() {
    let house = House::new(&["a", "b"]);
    house.script("b", "C_OpenSession return CKR_DEVICE_REMOVED");
    house.run("create key --replicable").bad(69, &["token `b`", "every token"]);
    house.script("b", "");
    house.run("describe key").bad(73, &["there is no such key"]);
    // The connection is lost after the first token has its object.
    house.good("create other --replicable");
    house.script("b", "C_UnwrapKey from 3 return CKR_DEVICE_REMOVED");
    house.run("create key --replicable").bad(69, &["token `b`", "CKR_DEVICE_REMOVED"]);
    house.script("b", "");
    house.good("create key --replicable");
    assert_eq!(versions(&house, "key"), enabled(&[1]));
}

/// A private key that somebody has brought along, and so may know.
#[test]
fn nothing_is_encrypted_for_a_pair_from_elsewhere() {
    let house = House::new(&["a", "b"]);
    house.plant_pair("b", "xksd:wrap:1");
    house.run("create key --replicable").bad(73, &["token `b` was not generated in it"]);
    assert_eq!(house.counts("a").of("C_WrapKey"), 0);
    house.run("describe key").bad(73, &["there is no such key"]);
}
