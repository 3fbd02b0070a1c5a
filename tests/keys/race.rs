//! `rotate`, as three daemons that find a key due at the same moment have it run.

use std::collections::BTreeSet;

use serde_json::Value;
use support::shim::wait_for_calls;

use crate::house::{House, Said};

const WAYS: [&str; 3] = ["a-1", "a-2", "a-3"];

/// The versions of `key`, newest first.
fn versions(house: &House) -> Vec<Value> {
    let key = house.good("describe key --token a-1 --json").json();
    assert_ne!(key["status"], "ambiguous", "{key}");
    key["versions"].as_array().expect("there are some").clone()
}

/// Runs these commands at the same time: each is inside this function before any of them leaves it.
fn together(house: &House, function: &str, lines: &[String]) -> Vec<Said> {
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        for (way, line) in WAYS.iter().zip(lines) {
            let before = house.counts(way).of(function);
            house.script(way, &format!("{function} hang"));
            running.push(scope.spawn(move || house.good(&format!("{line} --token {way}"))));
            // One after the other: SoftHSM2 may miss a token that another process logs in to.
            wait_for_calls(&house.path(&format!("{way}.counts")), function, before + 1);
        }
        for way in WAYS {
            house.script(way, "");
        }
        running.into_iter().map(|run| run.join().expect("it went well")).collect()
    })
}

fn race(house: &House) {
    let before = versions(house);
    let (number, newest) = (&before[0]["version"], before[0]["object_id"].as_str());
    let line = format!("rotate key --json --follow {number}:{}", newest.expect("it has one"));
    // Each makes one before it has seen those of the others.
    let begun = together(house, "C_GenerateKey", &[(); 3].map(|()| format!("{line} --begin")));
    let own = begun.iter().map(|said| said.json()["own"].as_str().expect("it made one").to_owned());
    let own: Vec<String> = own.collect();
    assert_eq!(versions(house).len(), before.len() + 3);
    // Each is about to put one in use.
    let lines: Vec<_> = own.iter().map(|own| format!("{line} --own {own}")).collect();
    let said = together(house, "C_SetAttributeValue", &lines);
    let after = versions(house);
    let made: Vec<_> = after.iter().filter(|version| !before.contains(version)).collect();
    assert_eq!(made.len(), 1, "one winner, and nothing left of the others: {after:?}");
    let winner = made[0]["object_id"].as_str();
    assert_eq!(winner, own.iter().min().map(String::as_str));
    assert_eq!(made[0]["status"], "enabled");
    assert_eq!(made[0]["version"].as_u64(), number.as_u64().map(|number| number + 1));
    let named = said.iter().map(|said| said.json()["object_id"].as_str().map(str::to_owned));
    assert_eq!(named.collect::<BTreeSet<_>>(), BTreeSet::from([winner.map(str::to_owned)]));
    assert!(before.iter().all(|version| after.contains(version)), "nothing is lost: {after:?}");
    // Who comes later finds it done.
    let late = house.good(&format!("{line} --begin --token a-1"));
    assert_eq!((late.stdout.as_str(), late.stderr.contains("nothing to do")), ("", true));
}

fn races(rounds: usize) {
    let house = House::new(&WAYS);
    house.good("create key --token a-1");
    for way in WAYS {
        // The first call that each counts.
        house.good(&format!("list --token {way}"));
    }
    for _round in 0..rounds {
        race(&house);
    }
    assert_eq!(versions(&house).len(), rounds + 1);
}

#[test]
fn of_three_that_race_one_wins_and_nothing_else_is_left() {
    races(3);
}

/// What was begun is destroyed even if another has won long before.
#[test]
fn a_loser_that_comes_late_destroys_its_own_and_nothing_else() {
    let house = House::new(&WAYS);
    house.good("create key --token a-1");
    for way in WAYS {
        house.good(&format!("list --token {way}"));
    }
    let newest = versions(&house)[0]["object_id"].as_str().expect("it has one").to_owned();
    let line = format!("rotate key --json --follow 1:{newest}");
    let begun = together(&house, "C_GenerateKey", &[(); 3].map(|()| format!("{line} --begin")));
    let own: Vec<Value> = begun.iter().map(|said| said.json()["own"].clone()).collect();
    house.good(&format!("{line} --own {} --token a-1", own[0].as_str().expect("it made one")));
    // Which of the others are still pending depends on whose object id was the lowest.
    house.good("rotate key --token a-2");
    let enabled = |house: &House| {
        let versions = versions(house).into_iter().filter(|version| version["status"] == "enabled");
        versions.map(|version| version["object_id"].clone()).collect::<Vec<_>>()
    };
    let in_use = enabled(&house);
    for own in &own[1..] {
        let own = own.as_str().expect("it made one");
        house.good(&format!("{line} --own {own} --token a-3"));
        let said = house.run(&format!("{line} --own {own} --token a-3"));
        assert!(said.stderr.contains("nothing to do"), "{said:?}");
    }
    assert_eq!(enabled(&house), in_use, "what is in use stays, whoever made it");
    assert_eq!(versions(&house).len(), in_use.len(), "nothing is pending");
}

#[test]
#[ignore = "takes two minutes: make soak"]
fn of_three_that_race_fifty_times_one_wins_each_time() {
    races(50);
}
