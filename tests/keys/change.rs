//! `disable`, `enable`, `schedule-deletion` and `cancel-deletion`

use serde_json::{Value, json};

use crate::house::House;

const OURS: &str = "xksd1:0f8e4a5b6c7d8e9f:1:enabled:1:20260101:-:-";

fn two() -> House {
    let house = House::new(&["a", "b"]);
    house.import(&["a", "b"], "key", OURS);
    house
}

/// Status and epoch on each token of a version, the newest by default.
fn states(house: &House, version: usize) -> Vec<(String, u64)> {
    let key = house.describe("key");
    let objects = key["versions"][version]["objects"].as_array().unwrap().clone();
    let state = |object: &Value| {
        (object["status"].as_str().unwrap().to_owned(), object["epoch"].as_u64().unwrap())
    };
    objects.iter().map(state).collect()
}

fn both(status: &str, epoch: u64) -> Vec<(String, u64)> {
    vec![(status.to_owned(), epoch); 2]
}

#[test]
fn a_key_goes_through_its_states_on_every_token() {
    let house = two();
    let planned = house.good("disable key --dry-run --json").json();
    assert_eq!((&planned["status"], &planned["dry_run"]), (&json!("disabled"), &json!(true)));
    assert_eq!(planned["writes"].as_array().unwrap().len(), 2);
    assert_eq!(states(&house, 0), both("enabled", 1), "a dry run changes nothing");

    let done = house.good("disable key --json").json();
    assert_eq!(done["writes"][0]["from"], OURS);
    assert_eq!(done["writes"][1]["to"], "xksd1:0f8e4a5b6c7d8e9f:1:disabled:2:20260101:-:-");
    assert_eq!(states(&house, 0), both("disabled", 2));
    let again = house.good("disable key");
    assert!(again.stderr.contains("is already disabled"), "{again:?}");
    assert_eq!(states(&house, 0), both("disabled", 2));

    house.good("enable key");
    assert_eq!(states(&house, 0), both("enabled", 3));
    house.run("cancel-deletion key").bad(73, &["its deletion is not scheduled"]);
    for days in ["6", "31"] {
        house.run(&format!("schedule-deletion key --days {days}")).bad(64, &["--days"]);
    }
    let scheduled = house.good("schedule-deletion key --days 7 --json").json();
    let date = scheduled["deletion"].as_str().unwrap().to_owned();
    assert_eq!(states(&house, 0), both("deleting", 4));
    // Another date is not taken without cancelling.
    let again = house.good("schedule-deletion key --days 30 --json").json();
    assert_eq!(again["deletion"], *date);
    house.run("enable key").bad(73, &["it is to be deleted from", &date]);
    house.run("disable key").bad(73, &["it is to be deleted from", &date]);
    house.good("cancel-deletion key");
    assert_eq!(states(&house, 0), both("disabled", 5));
    assert_eq!(house.describe("key")["versions"][0]["deletion"], json!(null));
}

#[test]
fn a_change_is_one_call_per_object() {
    let house = two();
    house.good("disable key");
    for token in ["a", "b"] {
        assert_eq!(house.counts(token).of("C_SetAttributeValue"), 1);
    }
}

#[test]
fn a_token_that_is_away_is_named_and_gets_the_state_later() {
    let house = two();
    house.script("b", "C_OpenSession return CKR_DEVICE_REMOVED");
    house.run("disable key").bad(69, &["token `b`: C_OpenSession returned CKR_DEVICE_REMOVED"]);
    house.script("b", "");
    let behind = [("disabled".to_owned(), 2), ("enabled".to_owned(), 1)];
    assert_eq!(states(&house, 0), behind);
    assert_eq!(house.describe("key")["status"], "disabled", "the higher epoch counts");
    house.good("disable key");
    assert_eq!(states(&house, 0), both("disabled", 2));
    // Nor does the order matter: the first one fails, the second is done.
    house.script("a", "C_SetAttributeValue return CKR_DEVICE_ERROR");
    house.run("enable key").bad(69, &["token `a`: C_SetAttributeValue returned CKR_DEVICE_ERROR"]);
    house.script("a", "");
    assert_eq!(states(&house, 0), [("disabled".to_owned(), 2), ("enabled".to_owned(), 3)]);
}

/// Who wins where two tokens were changed at the same time, each with the other away: the one that
/// allows less, and the next change goes above both.
#[test]
fn of_two_states_of_one_epoch_the_careful_one_counts() {
    let house = two();
    house.good("disable key --token a");
    house.import(&["a"], "unrelated", "x");
    assert_eq!(states(&house, 0), [("disabled".to_owned(), 2), ("enabled".to_owned(), 1)]);
    house.good("disable key --token b");
    house.good("enable key --token b");
    assert_eq!(states(&house, 0), [("disabled".to_owned(), 2), ("enabled".to_owned(), 3)]);
    house.good("enable key");
    assert_eq!(states(&house, 0), both("enabled", 3));
}

#[test]
fn an_older_version_is_named_by_its_object_id() {
    let house = two();
    house.import(&["a", "b"], "key", "xksd1:00000000000000aa:2:enabled:2:20260102:-:-");
    house.good("disable key --object 0f8e4a5b6c7d8e9f");
    assert_eq!((states(&house, 0), states(&house, 1)), (both("enabled", 2), both("disabled", 2)));
    house.run("disable key --object 1111111111111111").bad(73, &["no version", "1111111111111111"]);
    house.run("disable key --object 11").bad(64, &["16 hexadecimal digits"]);
}

#[test]
fn what_xksd_did_not_make_is_never_written() {
    let house = House::new(&["a"]);
    house.import(&["a"], "vendors", "whatever");
    for command in ["disable", "enable", "schedule-deletion", "cancel-deletion"] {
        let said = house.run(&format!("{command} vendors"));
        said.bad(73, &["key `vendors`", "xksd did not make", "never rewritten"]);
    }
    house.import(&["a"], "twins", "one");
    house.import(&["a"], "twins", "two");
    house.run("disable twins").bad(73, &["two objects of one token"]);
    assert_eq!(house.counts("a").of("C_SetAttributeValue"), 0);
}

#[test]
fn a_pending_version_has_no_other_state() {
    let house = House::new(&["a"]);
    house.import(&["a"], "key", "xksd1:00000000000000aa:1:pending:1:20260102:-:-");
    house.run("disable key").bad(73, &["no version of this key is in use yet"]);
    house.run("disable key --object 00000000000000aa").bad(73, &["this version is pending"]);
}

#[test]
fn a_token_that_refuses_the_change_keeps_its_state() {
    let house = two();
    let refusals = [
        ("CKR_TOKEN_WRITE_PROTECTED", "write-protected"),
        ("CKR_ATTRIBUTE_READ_ONLY", "forbids an attribute"),
        ("CKR_DEVICE_MEMORY", "full"),
    ];
    for (code, hint) in refusals {
        for token in ["a", "b"] {
            house.script(token, &format!("C_SetAttributeValue return {code}"));
        }
        let said = house.run("disable key");
        said.bad(73, &["token `a`: C_SetAttributeValue", code, hint, "token `b`"]);
        assert_eq!(states(&house, 0), both("enabled", 1), "{code}");
    }
}
