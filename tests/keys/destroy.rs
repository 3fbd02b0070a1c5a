//! `destroy`

use serde_json::json;

use crate::house::House;

const OLD: &str = "xksd1:0000000000000001:1:enabled:1:20260101:-:-";
const NEWEST: &str = "0000000000000002";
/// Its date has come long ago.
const DUE: &str = "xksd1:0000000000000002:2:deleting:3:20260101:20260110:-";

fn ids(house: &House) -> usize {
    house.good("list --json").json().as_array().unwrap().len()
}

#[test]
fn a_whole_key_goes_oldest_version_first() {
    let house = House::new(&["a", "b"]);
    house.import(&["a", "b"], "key", OLD);
    house.import(&["a", "b"], "key", DUE);
    let destroy = |rest: &str| house.run(&format!("destroy key --object {NEWEST} {rest}"));
    house.run("destroy key --force --yes").bad(64, &["--object"]);
    destroy("--yes").bad(73, &["version 2 was in use", "--force"]);
    destroy("--force").bad(64, &["nobody is there to confirm", "--yes"]);
    let planned = destroy("--force --dry-run --json").json();
    let order: Vec<_> =
        planned["objects"].as_array().unwrap().iter().map(|o| &o["version"]).collect();
    assert_eq!(order, [1, 1, 2, 2]);
    assert_eq!(ids(&house), 2);
    let done = destroy("--force --yes --json").json();
    assert_eq!((&done["whole_key"], &done["objects"]), (&json!(true), &planned["objects"]));
    assert_eq!(ids(&house), 0);
}

#[test]
fn nothing_goes_before_its_date_or_while_a_token_is_away() {
    let house = House::new(&["a", "b"]);
    house.import(&["a", "b"], "key", OLD);
    let destroy = "destroy key --object 0000000000000001 --force --yes";
    house.run(destroy).bad(73, &["its deletion is not scheduled", "schedule-deletion"]);
    house.good("schedule-deletion key --days 7");
    house.run(destroy).bad(73, &["it may not be destroyed before"]);
    let house = House::new(&["a", "b"]);
    house.import(&["a", "b"], "key", DUE);
    house.script("b", "C_OpenSession return CKR_DEVICE_REMOVED");
    let destroy = format!("destroy key --object {NEWEST} --force --yes");
    house.run(&destroy).bad(69, &["token `b`", "needs every token"]);
    house.script("b", "");
    assert_eq!(ids(&house), 2);
    house.good(&destroy);
    assert_eq!(ids(&house), 0);
}

/// Killed between any two objects, the key stays one that is to be deleted.
#[test]
fn half_a_destruction_leaves_no_older_version_in_use() {
    for survivors in 1..4 {
        let house = House::new(&["a", "b"]);
        house.import(&["a", "b"], "key", OLD);
        house.import(&["a", "b"], "key", DUE);
        // Each token destroys two: the older version first on both.
        let (token, nth) = [("a", 1), ("b", 1), ("a", 2), ("b", 2)][survivors];
        house.script(token, &format!("C_DestroyObject nth {nth} crash"));
        let destroy = format!("destroy key --object {NEWEST} --force --yes");
        assert_eq!(house.run(&destroy).code, None);
        house.script(token, "");
        let key = house.describe("key");
        assert_eq!(
            (&key["status"], &key["versions"][0]["object_id"]),
            (&json!("deleting"), &json!(NEWEST))
        );
        house.good(&destroy);
        assert_eq!(ids(&house), 0);
    }
}

#[test]
fn a_foreign_version_would_come_back() {
    let house = House::new(&["a"]);
    house.import(&["a"], "key", "somebody's");
    house.import(&["a"], "key", DUE);
    let said = house.run(&format!("destroy key --object {NEWEST} --force --yes"));
    said.bad(73, &["version 0 of this key was not made by xksd"]);
    house.run("destroy key --object 0000000000000000 --force --yes").bad(73, &["never rewritten"]);
}

#[test]
fn a_single_version_goes_by_itself() {
    let house = House::new(&["a"]);
    house.import(&["a"], "key", OLD);
    house.import(&["a"], "key", "xksd1:0000000000000002:2:enabled:3:20260101:-:-");
    house.import(&["a"], "key", "xksd1:0000000000000003:3:pending:1:20260101:-:-");
    // Never in use: neither a date nor force.
    house.good("destroy key --object 0000000000000003 --yes");
    house.run("destroy key --object 0000000000000001 --force --yes").bad(73, &["not scheduled"]);
    house.good("schedule-deletion key --object 0000000000000001");
    house.run("destroy key --object 0000000000000001 --force --yes").bad(73, &["before"]);
    assert_eq!(house.describe("key")["status"], "enabled");
    assert_eq!(house.describe("key")["versions"].as_array().unwrap().len(), 2);
}
