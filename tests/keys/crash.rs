//! The command is killed at each C call in turn: what is left is in order, and another run completes it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::house::{House, Said};

/// How many kills are tried at the same time, each on a token of its own.
const AT_ONCE: usize = 6;

/// Number and status of each version.
type Versions = Vec<(u64, String)>;

/// The versions of `key`, newest first; `None`: there is no such key.
fn versions(house: &House) -> Option<Versions> {
    let said = house.run("describe key --json");
    if said.stderr.contains("there is no such key") {
        return None;
    }
    let version = |version: &Value| {
        let status = version["status"].as_str().expect("it is a word").to_owned();
        (version["version"].as_u64().expect("it is a number"), status)
    };
    let key = said.json();
    assert_ne!(key["status"], "ambiguous", "{key}");
    Some(key["versions"].as_array().expect("there are some").iter().map(version).collect())
}

/// What a command calls when nothing stops it, by function.
fn calls(prepare: fn(&House), command: &str) -> BTreeMap<String, u64> {
    let house = House::new(&["a"]);
    prepare(&house);
    house.good("list");
    let before = house.counts("a");
    house.good(command);
    let calls = house.counts("a").since(&before);
    calls.called().into_iter().map(|(name, calls)| (name.to_owned(), calls)).collect()
}

/// Runs the command once for each of its calls, and kills it there; then once more.
fn killed_everywhere(
    prepare: fn(&House),
    command: &str,
    after_kill: fn(Option<Versions>),
    after_rerun: fn(&Said, Option<Versions>),
) {
    let calls = calls(prepare, command);
    let points: Vec<(String, u64)> = calls
        .into_iter()
        .flat_map(|(function, calls)| (1..=calls).map(move |nth| (function.clone(), nth)))
        .collect();
    assert!(points.len() >= 20, "{points:?}");
    let share = points.len().div_ceil(AT_ONCE);
    std::thread::scope(|scope| {
        for share in points.chunks(share) {
            scope.spawn(move || {
                for (function, nth) in share {
                    let house = House::new(&["a"]);
                    prepare(&house);
                    house.script("a", &format!("{function} nth {nth} crash"));
                    let said = house.run(command);
                    assert_eq!(said.code, None, "{function} {nth}: {said:?}");
                    house.script("a", "");
                    after_kill(versions(&house));
                    after_rerun(&house.run(command), versions(&house));
                }
            });
        }
    });
}

fn enabled(numbers: &[u64]) -> Vec<(u64, String)> {
    numbers.iter().map(|number| (*number, "enabled".to_owned())).collect()
}

fn pending_before(numbers: &[u64]) -> Vec<(u64, String)> {
    let newest = numbers.first().copied().unwrap_or(0);
    [vec![(newest + 1, "pending".to_owned())], enabled(numbers)].concat()
}

#[test]
fn create_is_killed_at_each_call() {
    killed_everywhere(
        |_| {},
        "create key",
        |left| {
            let left = left.unwrap_or_default();
            let allowed = [vec![], pending_before(&[]), enabled(&[1])];
            assert!(allowed.contains(&left), "{left:?}");
        },
        |said, left| {
            // It had been enabled before the kill.
            let was_done = said.stderr.contains("exists already");
            assert_eq!(said.code, Some(if was_done { 73 } else { 0 }), "{said:?}");
            assert_eq!(left, Some(enabled(&[1])));
        },
    );
}

#[test]
fn rotate_is_killed_at_each_call() {
    killed_everywhere(
        |house| house.import(&["a"], "key", "xksd1:0f8e4a5b6c7d8e9f:1:enabled:1:20260101:-:-"),
        "rotate key",
        |left| {
            let left = left.expect("the key is there");
            let allowed = [enabled(&[1]), pending_before(&[1]), enabled(&[2, 1])];
            assert!(allowed.contains(&left), "{left:?}");
        },
        |said, left| {
            // After a rotation that was done, this is the next one.
            let left = left.expect("the key is there");
            assert_eq!(said.code, Some(0), "{said:?}");
            assert!([enabled(&[2, 1]), enabled(&[3, 2, 1])].contains(&left), "{left:?}");
        },
    );
}

#[test]
fn disable_is_killed_at_each_call() {
    fn either(left: Option<Versions>) {
        let left = left.expect("the key is there");
        let status = &left[0].1;
        assert!(left.len() == 1 && (status == "enabled" || status == "disabled"), "{left:?}");
    }
    killed_everywhere(
        |house| house.import(&["a"], "key", "xksd1:0f8e4a5b6c7d8e9f:1:enabled:1:20260101:-:-"),
        "disable key",
        either,
        |said, left| {
            assert_eq!(said.code, Some(0), "{said:?}");
            assert_eq!(left, Some(vec![(1, "disabled".to_owned())]));
        },
    );
}

/// As a daemon has it run, in two commands: whoever comes next goes on from what is left, or finds it
/// done, and never makes one more.
#[test]
fn rotate_for_a_daemon_is_killed_at_each_call() {
    const FOLLOW: &str = "rotate key --follow 1:0f8e4a5b6c7d8e9f";
    fn prepare(house: &House) {
        house.import(&["a"], "key", "xksd1:0f8e4a5b6c7d8e9f:1:enabled:1:20260101:-:-");
    }
    killed_everywhere(
        prepare,
        &format!("{FOLLOW} --begin"),
        |left| {
            let left = left.expect("the key is there");
            assert!([enabled(&[1]), pending_before(&[1])].contains(&left), "{left:?}");
        },
        |said, left| {
            assert_eq!(said.code, Some(0), "{said:?}");
            assert_eq!(left, Some(pending_before(&[1])), "{said:?}");
        },
    );
    killed_everywhere(
        |house| {
            prepare(house);
            house.good(&format!("{FOLLOW} --begin"));
        },
        FOLLOW,
        |left| {
            let left = left.expect("the key is there");
            assert!([pending_before(&[1]), enabled(&[2, 1])].contains(&left), "{left:?}");
        },
        |said, left| {
            assert_eq!(said.code, Some(0), "{said:?}");
            assert_eq!(left, Some(enabled(&[2, 1])), "{said:?}");
        },
    );
}
