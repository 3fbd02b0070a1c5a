//! `verify`

use serde_json::{Value, json};

use crate::house::House;

const OURS: &str = "xksd1:0f8e4a5b6c7d8e9f:1:enabled:1:20260101:-:-";

/// Token and result of each row.
fn rows(found: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("it is a word").to_owned();
    let row = |row: &Value| (text(&row["token"]), text(&row["result"]));
    found.as_array().expect("rows").iter().map(row).collect()
}

fn expected(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(token, result)| ((*token).to_owned(), (*result).to_owned())).collect()
}

#[test]
fn equal_tokens_prove_it_in_both_directions() {
    let house = House::new(&["a", "b"]);
    house.import(&["a", "b"], "key", OURS);
    house.import(&["a", "b"], "vendors", "whatever");
    let found = house.good("verify --json").json();
    let all = [("a", "decrypts"), ("b", "decrypts"), ("a", "decrypts"), ("b", "decrypts")];
    assert_eq!(rows(&found), expected(&all));
    assert_eq!((&found[2]["id"], &found[2]["version"]), (&json!("vendors"), &json!(0)));
    // Two keys: on each token once for the other's, and on the first once for its own.
    assert_eq!(house.counts("a").of("C_Encrypt"), 4);
    assert_eq!(house.counts("b").of("C_Decrypt"), 2);
    assert_eq!(house.good("verify key").stdout.lines().count(), 2);
    house.run("verify nothing").bad(73, &["there is no such key"]);
}

#[test]
fn every_difference_is_found() {
    let house = House::new(&["a", "b"]);
    house.import(&["a", "b"], "good", OURS);
    house.import(&["a"], "missing", "xksd1:00000000000000aa:1:enabled:1:20260101:-:-");
    let other = "xksd1:00000000000000bb:1:enabled:1:20260101:-:-";
    house.import(&["a"], "other", other);
    house.import_value(&["b"], "other", other, &[7; 32]);
    house.import(&["a", "b"], "state", "xksd1:00000000000000cc:1:enabled:1:20260101:-:-");
    house.good("disable state --token b");
    let said = house.run("verify --json");
    said.bad(1, &["3 objects are not as the others"]);
    let all = [
        ("a", "decrypts"),
        ("b", "decrypts"),
        ("a", "decrypts"),
        ("b", "missing"),
        ("a", "decrypts"),
        ("b", "differs"),
        ("a", "decrypts"),
        ("b", "other attributes"),
    ];
    assert_eq!(rows(&said.json()), expected(&all));
}

/// Check values alone would not show it: here the token is asked to prove that it works.
#[test]
fn a_token_that_spoils_what_it_encrypts_differs() {
    let house = House::new(&["a", "b"]);
    house.import(&["a", "b"], "key", OURS);
    house.script("b", "C_Encrypt flip");
    let said = house.run("verify key --json");
    said.bad(1, &["1 objects"]);
    assert_eq!(rows(&said.json()), expected(&[("a", "decrypts"), ("b", "differs")]));
    house.script("b", "C_OpenSession return CKR_DEVICE_REMOVED");
    house.run("verify key").bad(69, &["token `b`"]);
}

#[test]
fn keys_that_prove_nothing_are_compared_by_check_value() {
    let house = House::new(&["a-1", "a-2"]);
    house.good("create key --token a-1 --usage encrypt");
    let found = house.good("verify --json").json();
    assert_eq!(rows(&found), expected(&[("a-1", "first"), ("a-2", "check value")]));
}
