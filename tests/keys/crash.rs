//! The command is killed at each C call in turn, on each token: what is left is in order, and another run
//! completes it.

use serde_json::Value;
use support::token::SO_PIN;

use crate::house::{House, MATERIAL, Said};

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

/// Where a command can be killed: at a token's call of a function, the nth time.
type Point = (&'static str, String, u64);

/// Every call of a command that nothing stops.
fn points(house: &House, tokens: &[&'static str], command: &str) -> Vec<Point> {
    house.good("list");
    let before: Vec<_> = tokens.iter().map(|token| house.counts(token)).collect();
    house.good(command);
    let mut points = Vec::new();
    for (token, before) in tokens.iter().zip(before) {
        let calls = house.counts(token).since(&before);
        for (function, calls) in calls.called() {
            points.extend((1..=calls).map(|nth| (*token, function.to_owned(), nth)));
        }
    }
    points
}

/// Runs the command once for each of its calls, and kills it there; then once more.
fn killed_everywhere(
    tokens: &[&'static str],
    prepare: fn(&House),
    command: &str,
    after_kill: fn(&House),
    after_rerun: fn(&House, &Said),
) {
    let houses = || Some(House::new(tokens));
    let every = |_: &str| true;
    killed_in(houses, every, tokens, prepare, command, after_kill, after_rerun);
}

/// The same in houses like this one, at the calls of these functions; not at all where its module is not
/// at hand.
fn killed_in(
    houses: impl Fn() -> Option<House> + Sync,
    functions: fn(&str) -> bool,
    tokens: &[&'static str],
    prepare: fn(&House),
    command: &str,
    after_kill: fn(&House),
    after_rerun: fn(&House, &Said),
) {
    let prepared = || {
        let house = houses()?;
        prepare(&house);
        house.keep();
        Some(house)
    };
    let Some(first) = prepared() else { return };
    let mut points: Vec<Point> = points(&first, tokens, command);
    points.retain(|(_, function, _)| functions(function));
    assert!(points.len() > 10, "{points:?}");
    let share = points.len().div_ceil(AT_ONCE);
    let prepared = &prepared;
    std::thread::scope(|scope| {
        for share in points.chunks(share) {
            scope.spawn(move || {
                let house = prepared().expect("there was one before");
                for (token, function, nth) in share {
                    house.restore();
                    house.script(token, &format!("{function} nth {nth} crash"));
                    let said = house.run(command);
                    assert_eq!(said.code, None, "{token} {function} {nth}: {said:?}");
                    house.script(token, "");
                    after_kill(&house);
                    after_rerun(&house, &house.run(command));
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
        &["a"],
        |_| {},
        "create key",
        |house| {
            let left = versions(house).unwrap_or_default();
            let allowed = [vec![], pending_before(&[]), enabled(&[1])];
            assert!(allowed.contains(&left), "{left:?}");
        },
        |house, said| {
            // It had been enabled before the kill.
            let was_done = said.stderr.contains("exists already");
            assert_eq!(said.code, Some(if was_done { 73 } else { 0 }), "{said:?}");
            assert_eq!(versions(house), Some(enabled(&[1])));
        },
    );
}

#[test]
fn rotate_is_killed_at_each_call() {
    killed_everywhere(
        &["a"],
        |house| house.import(&["a"], "key", "xksd1:0f8e4a5b6c7d8e9f:1:enabled:1:20260101:-:-"),
        "rotate key",
        |house| {
            let left = versions(house).expect("the key is there");
            let allowed = [enabled(&[1]), pending_before(&[1]), enabled(&[2, 1])];
            assert!(allowed.contains(&left), "{left:?}");
        },
        |house, said| {
            // After a rotation that was done, this is the next one.
            let left = versions(house).expect("the key is there");
            assert_eq!(said.code, Some(0), "{said:?}");
            assert!([enabled(&[2, 1]), enabled(&[3, 2, 1])].contains(&left), "{left:?}");
        },
    );
}

#[test]
fn disable_is_killed_at_each_call() {
    fn either(house: &House) {
        let left = versions(house).expect("the key is there");
        let status = &left[0].1;
        assert!(left.len() == 1 && (status == "enabled" || status == "disabled"), "{left:?}");
    }
    killed_everywhere(
        &["a"],
        |house| house.import(&["a"], "key", "xksd1:0f8e4a5b6c7d8e9f:1:enabled:1:20260101:-:-"),
        "disable key",
        either,
        |house, said| {
            assert_eq!(said.code, Some(0), "{said:?}");
            assert_eq!(versions(house), Some(vec![(1, "disabled".to_owned())]));
        },
    );
}

/// What is left of a key that is made in two tokens: nothing, what nobody uses, or the key.
fn nothing_or_all(house: &House) {
    let left = versions(house).unwrap_or_default();
    let allowed = [vec![], pending_before(&[]), enabled(&[1])];
    assert!(allowed.contains(&left), "{left:?}");
}

/// The key is in all tokens, and the same; `enable` tells the second what the first knew already.
fn is_complete(house: &House, said: &Said) {
    let was_done = said.stderr.contains("exists already");
    assert_eq!(said.code, Some(if was_done { 73 } else { 0 }), "{said:?}");
    assert_eq!(versions(house), Some(enabled(&[1])));
    if was_done {
        house.good("enable key");
    }
    let found = house.good("verify key --json").json();
    let tokens = house.tokens();
    assert!(found.as_array().is_some_and(|rows| rows.len() == tokens), "{found}");
}

#[test]
fn create_replicable_is_killed_at_each_call() {
    killed_everywhere(
        &["a", "b"],
        // The pairs are made once.
        |house| drop(house.good("import-parameters --out .")),
        "create key --replicable",
        nothing_or_all,
        is_complete,
    );
}

#[test]
fn import_is_killed_at_each_call() {
    killed_everywhere(
        &["a", "b"],
        |house| house.file("material", MATERIAL),
        "import key --material material",
        nothing_or_all,
        is_complete,
    );
}

/// At the calls that may change a token, or that the proof is made of: a login to NSS takes its time.
fn create_and_import_are_killed_in(houses: fn() -> Option<House>) {
    let functions = |function: &str| {
        let parts = ["Generate", "Object", "Wrap", "Unwrap", "SetAttribute", "crypt"];
        parts.iter().any(|part| function.contains(part)) && !function.contains("Find")
    };
    let prepare: fn(&House) = |house| {
        house.file("material", MATERIAL);
        house.good("import-parameters --out .");
    };
    for command in ["create key --replicable", "import key --material material"] {
        killed_in(houses, functions, &["a"], prepare, command, nothing_or_all, is_complete);
    }
}

#[test]
fn kryoptic_is_left_at_each_call() {
    create_and_import_are_killed_in(House::of_kryoptic);
}

#[test]
fn nss_is_left_at_each_call() {
    create_and_import_are_killed_in(House::of_nss);
}

#[test]
fn replicate_is_killed_at_each_call() {
    killed_everywhere(
        &["a", "b"],
        |house| {
            house.file("so.pin", SO_PIN.as_bytes());
            house.good("trust --on a --so-pin so.pin");
            house.good("create key --replicable --under-trusted --token a");
        },
        "replicate key",
        |house| assert_eq!(versions(house), Some(enabled(&[1]))),
        |house, said| {
            assert_eq!(said.code, Some(0), "{said:?}");
            assert_eq!(versions(house), Some(enabled(&[1])));
            let found = house.good("verify key --json").json();
            assert!(found.as_array().is_some_and(|rows| rows.len() == 2), "{found}");
        },
    );
}

/// Before and after a token has made its pair: the next run makes one, or uses it.
#[test]
fn a_pair_is_made_once_or_again() {
    for token in ["a", "b"] {
        for call in ["C_GenerateKeyPair crash", "C_UnwrapKey crash"] {
            let house = House::new(&["a", "b"]);
            house.script(token, call);
            assert_eq!(house.run("create key --replicable").code, None, "{token} {call}");
            house.script(token, "");
            house.good("create key --replicable");
            let pairs = house.counts(token).of("C_GenerateKeyPair");
            assert_eq!(pairs, if call.starts_with("C_Unwrap") { 1 } else { 2 });
            house.good("verify key");
        }
    }
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
        &["a"],
        prepare,
        &format!("{FOLLOW} --begin"),
        |house| {
            let left = versions(house).expect("the key is there");
            assert!([enabled(&[1]), pending_before(&[1])].contains(&left), "{left:?}");
        },
        |house, said| {
            assert_eq!(said.code, Some(0), "{said:?}");
            assert_eq!(versions(house), Some(pending_before(&[1])), "{said:?}");
        },
    );
    killed_everywhere(
        &["a"],
        |house| {
            prepare(house);
            house.good(&format!("{FOLLOW} --begin"));
        },
        FOLLOW,
        |house| {
            let left = versions(house).expect("the key is there");
            assert!([pending_before(&[1]), enabled(&[2, 1])].contains(&left), "{left:?}");
        },
        |house, said| {
            assert_eq!(said.code, Some(0), "{said:?}");
            assert_eq!(versions(house), Some(enabled(&[2, 1])), "{said:?}");
        },
    );
}
