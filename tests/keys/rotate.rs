//! `create` and `rotate`: a version is pending, proved, enabled

use serde_json::{Value, json};
use support::shim::wait_for_calls;

use crate::house::House;

const OURS: &str = "xksd1:0f8e4a5b6c7d8e9f:1:enabled:1:20260101:-:-";
const PENDING: &str = "xksd1:00000000000000aa:2:pending:1:20260102:-:-";

/// Number and status of each version, newest first.
fn versions(house: &House, id: &str) -> Vec<(u64, String)> {
    let key = house.describe(id);
    let version = |version: &Value| {
        let status = version["status"].as_str().expect("it is a word").to_owned();
        (version["version"].as_u64().expect("it is a number"), status)
    };
    key["versions"].as_array().expect("there are some").iter().map(version).collect()
}

fn enabled(numbers: &[u64]) -> Vec<(u64, String)> {
    numbers.iter().map(|number| (*number, "enabled".to_owned())).collect()
}

#[test]
fn a_new_version_is_made_and_the_old_one_stays() {
    let house = House::new(&["a"]);
    let planned = house.good("create key --dry-run --json").json();
    assert_eq!((&planned["version"], &planned["dry_run"]), (&json!(1), &json!(true)));
    let first = house.good("create key --json").json();
    assert_eq!(
        (&first["status"], &first["epoch"], &first["was_begun"]),
        (&json!("enabled"), &json!(2), &json!(false))
    );
    assert!(house.good("rotate key --dry-run").stderr.contains("would make version 2"));
    assert_eq!(versions(&house, "key"), enabled(&[1]), "a dry run makes nothing");
    let second = house.good("rotate key --json").json();
    assert_eq!((&second["version"], &second["usage"]), (&json!(2), &json!(["encrypt", "decrypt"])));
    assert_eq!(versions(&house, "key"), enabled(&[2, 1]));
    let key = house.describe("key");
    for version in key["versions"].as_array().unwrap() {
        let kept = &version["objects"][0]["protection"];
        for (attribute, value) in [
            ("token", true),
            ("private", true),
            ("sensitive", true),
            ("always_sensitive", true),
            ("extractable", false),
            ("never_extractable", true),
            ("modifiable", true),
        ] {
            assert_eq!(kept[attribute], value, "{attribute}");
        }
    }
    assert_ne!(key["versions"][0]["check_value"], key["versions"][1]["check_value"]);
    house.good("create narrow --usage encrypt");
    assert_eq!(house.good("rotate narrow --json").json()["usage"], json!(["encrypt"]));
}

#[test]
fn a_foreign_key_gets_its_first_version() {
    let house = House::new(&["a"]);
    house.import(&["a"], "vendors", "whatever");
    house.good("rotate vendors");
    assert_eq!(versions(&house, "vendors"), enabled(&[1, 0]));
}

#[test]
fn what_is_stopped_is_not_rotated() {
    let house = House::new(&["a"]);
    house.import(&["a"], "key", OURS);
    for command in ["disable", "schedule-deletion"] {
        house.good(&format!("{command} key"));
        house.run("rotate key").bad(73, &["a new one would put the key in use again"]);
    }
    house.run("rotate nothing").bad(73, &["there is no such key"]);
    assert_eq!(house.counts("a").of("C_GenerateKey"), 0);
}

/// The tokens are two ways to one, as in an HSM that replicates.
#[test]
fn a_version_that_comes_to_all_tokens_by_itself_is_proved_on_each() {
    let house = House::new(&["a-1", "a-2"]);
    house.good("create key --token a-1");
    house.good("rotate key");
    assert_eq!(versions(&house, "key"), enabled(&[2, 1]));
    // In both directions, and on the first by itself.
    assert_eq!(house.counts("a-2").of("C_Encrypt"), 1);
    assert_eq!(house.counts("a-2").of("C_Decrypt"), 1);
}

#[test]
fn tokens_that_do_not_replicate_are_left_as_they_were() {
    let house = House::new(&["a", "b"]);
    house.import(&["a", "b"], "key", OURS);
    let said = house.run("rotate key --wait 0");
    said.bad(73, &["token `b` does not show the new key", "nothing was changed"]);
    assert_eq!(versions(&house, "key"), enabled(&[1]));
    assert_eq!(house.counts("a").of("C_DestroyObject"), 1);
    house.script("b", "C_OpenSession return CKR_DEVICE_REMOVED");
    house.run("rotate key").bad(69, &["token `b`", "this needs every token"]);
    assert_eq!(house.counts("a").of("C_GenerateKey"), 1);
}

/// What runs at the same time have made: all go on with the lowest object id.
#[test]
fn what_another_run_has_begun_is_completed() {
    let house = House::new(&["a"]);
    house.good("create key");
    house.good("create other");
    // Made by a tool that was stopped right after it.
    house.script("a", "C_GenerateKey return CKR_DEVICE_ERROR after");
    house.run("rotate key").bad(69, &["C_GenerateKey returned CKR_DEVICE_ERROR"]);
    house.run("create third").bad(69, &["C_GenerateKey returned CKR_DEVICE_ERROR"]);
    house.script("a", "");
    assert_eq!(versions(&house, "key")[0], (2, "pending".to_owned()));
    let begun = house.describe("key")["versions"][0]["object_id"].clone();
    let made = house.good("rotate key --json").json();
    assert_eq!((&made["object_id"], &made["was_begun"]), (&begun, &json!(true)));
    assert_eq!(versions(&house, "key"), enabled(&[2, 1]));
    house.good("create third");
    assert_eq!(versions(&house, "third"), enabled(&[1]));
    house.run("create third").bad(73, &["exists already"]);
}

/// Imported, and for signing too: whoever made it, it is not what was asked for.
#[test]
fn a_pending_object_that_is_no_good_is_destroyed() {
    let house = House::new(&["a"]);
    house.import(&["a"], "key", OURS);
    house.import(&["a"], "key", PENDING);
    house.run("rotate key").bad(73, &["token `a` made a key with another usage"]);
    assert_eq!(versions(&house, "key"), enabled(&[1]));
    house.good("rotate key");
    assert_eq!(versions(&house, "key"), enabled(&[2, 1]));
}

#[test]
fn a_key_that_does_not_decrypt_is_never_enabled() {
    let house = House::new(&["a"]);
    house.good("create key");
    house.script("a", "C_Encrypt flip");
    house.run("rotate key").bad(73, &["token `a` does not decrypt what was encrypted"]);
    assert_eq!(versions(&house, "key"), enabled(&[1]));
    house.run("create second").bad(73, &["token `a` does not decrypt what was encrypted"]);
    house.script("a", "");
    house.run("describe second").bad(73, &["there is no such key"]);
}

#[test]
fn a_token_that_refuses_keeps_its_keys() {
    let house = House::new(&["a"]);
    house.good("create key");
    let refusals = [
        ("C_OpenSession return CKR_TOKEN_WRITE_PROTECTED", "write-protected"),
        ("C_GenerateKey return CKR_TOKEN_WRITE_PROTECTED", "write-protected"),
        ("C_GenerateKey return CKR_DEVICE_MEMORY", "full"),
        ("C_GenerateKey return CKR_TEMPLATE_INCONSISTENT", "forbids an attribute"),
        ("C_GenerateKey return CKR_ATTRIBUTE_VALUE_INVALID", "forbids an attribute"),
    ];
    for (script, hint) in refusals {
        house.script("a", script);
        for command in ["rotate key", "create second"] {
            let code = script.split(' ').next_back().expect("there are words");
            house.run(command).bad(73, &["token `a`", code, hint]);
        }
        house.script("a", "");
        assert_eq!(versions(&house, "key"), enabled(&[1]), "{script}");
        house.run("describe second").bad(73, &["there is no such key"]);
    }
    // The object is there, and may not be changed: it stays pending, which nobody uses.
    house.script("a", "C_SetAttributeValue return CKR_ATTRIBUTE_READ_ONLY");
    house.run("rotate key").bad(73, &["C_SetAttributeValue", "forbids an attribute"]);
    assert_eq!(versions(&house, "key"), [(2, "pending".to_owned()), (1, "enabled".to_owned())]);
}

/// C_GenerateKey of SoftHSM2 sometimes fails for no reason, and one that fails may have made a key.
#[test]
fn a_generation_that_failed_for_no_reason_is_tried_again() {
    let house = House::new(&["a"]);
    house.script("a", "C_GenerateKey nth 1 return CKR_GENERAL_ERROR");
    house.good("create key");
    house.script("a", "C_GenerateKey nth 1 return CKR_FUNCTION_FAILED after");
    house.good("rotate key");
    assert_eq!(versions(&house, "key"), enabled(&[2, 1]));
    assert_eq!(house.counts("a").of("C_GenerateKey"), 3);
}

/// Several operators at once: whoever comes second goes on with what is there, or finds it done.
#[test]
fn rotations_at_the_same_time_leave_nothing_ambiguous() {
    let ways = ["a-1", "a-2", "a-3", "a-4"];
    let house = House::new(&ways);
    house.good("create key --token a-1");
    house.good("list");
    std::thread::scope(|scope| {
        for way in ways {
            house.script(way, "C_GenerateKey hang");
            let house = &house;
            scope.spawn(move || {
                let said = house.run(&format!("rotate key --token {way}"));
                let was_overtaken = said.stderr.contains("another run changed the key meanwhile");
                assert!(said.code == Some(0) || was_overtaken, "{said:?}");
            });
            // One after the other: SoftHSM2 may miss a token that another process logs in to.
            let before = if way == "a-1" { 1 } else { 0 };
            wait_for_calls(&house.path(&format!("{way}.counts")), "C_GenerateKey", before + 1);
        }
        for way in ways {
            house.script(way, "");
        }
    });
    let key = house.good("describe key --token a-1 --json").json();
    let versions = key["versions"].as_array().expect("there are some");
    assert!(versions.iter().all(|version| version["status"] == "enabled"), "{key}");
    let mut numbers: Vec<_> = versions.iter().rev().map(|version| &version["version"]).collect();
    // Two may have been enabled in the same moment: then the choice is by object id, everywhere.
    numbers.dedup();
    let expected: Vec<_> = (1..=numbers.len()).collect();
    assert_eq!(numbers, expected);
    assert!(numbers.len() > 1);
}

/// Runs one command up to the call that counts, then the other to its end, then the first to its end.
fn one_inside_the_other(outer: &str, inner: &str) {
    let house = House::new(&["a-1", "a-2"]);
    house.good("create key --token a-1");
    house.good("list");
    let before = house.counts("a-1").of("C_SetAttributeValue");
    house.script("a-1", "C_SetAttributeValue first 1 hang");
    std::thread::scope(|scope| {
        scope.spawn(|| house.good(&format!("{outer} --token a-1")));
        let counts = house.path("a-1.counts");
        wait_for_calls(&counts, "C_SetAttributeValue", before + 1);
        house.good(&format!("{inner} --token a-2"));
        house.script("a-1", "");
    });
    let key = house.good("describe key --token a-1 --json").json();
    assert_eq!(key["status"], "disabled", "{key}");
    assert_eq!(key["versions"][0]["version"], 2, "{key}");
}

#[test]
fn a_key_that_is_disabled_during_its_rotation_stays_disabled() {
    one_inside_the_other("rotate key", "disable key");
}

#[test]
fn a_key_that_is_rotated_while_it_is_being_disabled_is_disabled() {
    one_inside_the_other("disable key", "rotate key");
}

/// A version that ciphertexts can't name would stop all encryption under the key.
#[test]
fn a_key_of_a_key_store_that_writes_the_sample_proxys_format_is_not_rotated() {
    let house = House::new(&["a"]);
    house.import(&["a"], "key", "made by somebody else");
    let lines = "accept_ciphertexts_of = \"aws-sample\"\nencrypt_as = \"aws-sample\"\n";
    house.configure("[keystores.demo]\n", lines);
    house.run("rotate key").bad(73, &["which know no versions", "take `encrypt_as` out of"]);
    assert_eq!(versions(&house, "key"), [(0, "enabled".to_owned())]);
}
