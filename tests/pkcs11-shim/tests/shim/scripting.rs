//! Delays come true and change while the client runs.
//!
//! Time is compared with lower bounds only: a sleep guarantees no more. That a delay has gone is
//! seen from a call that returns at all after a script had an hour for it.

use std::thread;
use std::time::{Duration, Instant};

use cryptoki::session::Session;
use support::shim::{set_script, wait_for_calls};

use crate::house::{Client, House, path_in, run, with_script};

fn time_of_call(session: &Session) -> Duration {
    let start = Instant::now();
    session.generate_random_vec(12).expect("there are random bytes");
    start.elapsed()
}

#[test]
fn a_call_takes_at_least_its_delay() {
    if let Some(client) = Client::of_this_process() {
        let session = client.log_in();
        assert!(time_of_call(&session) >= Duration::from_millis(30));
        return;
    }
    let house = House::build();
    set_script(
        &house.script(),
        "# twice, and another function for an hour\nC_GenerateRandom delay 10ms\n\
         C_GenerateRandom delay 20000us # they add up\nC_SeedRandom delay 3600s\n",
    );
    let mut client = house.client("scripting::a_call_takes_at_least_its_delay");
    assert_eq!(run(client.env("PKCS11_SHIM_SCRIPT", house.script())), "");
}

#[test]
fn a_delay_by_chance_is_within_its_range() {
    let script = "C_GenerateRandom delay 5ms..10ms\nC_SeedRandom delay 0s..3600s nth 2";
    with_script("scripting::a_delay_by_chance_is_within_its_range", script, |client| {
        let session = client.log_in();
        for _ in 0..10 {
            assert!(time_of_call(&session) >= Duration::from_millis(5));
        }
        session.seed_random(b"seed").expect("only the second is delayed");
    });
}

#[test]
fn the_script_may_come_change_and_go_while_the_client_runs() {
    if let Some(client) = Client::of_this_process() {
        let script = path_in("PKCS11_SHIM_SCRIPT");
        assert!(!script.exists());
        let session = client.log_in();
        time_of_call(&session);
        set_script(&script, "C_GenerateRandom delay 20ms");
        assert!(time_of_call(&session) >= Duration::from_millis(20));
        set_script(&script, "C_GenerateRandom delay 3600s");
        set_script(&script, "C_GenerateRandom delay 30ms");
        assert!(time_of_call(&session) >= Duration::from_millis(30));
        set_script(&script, "C_GenerateRandom delay 3600s");
        std::fs::remove_file(&script).expect("it is there");
        time_of_call(&session);
        return;
    }
    let house = House::build();
    let test = "scripting::the_script_may_come_change_and_go_while_the_client_runs";
    assert_eq!(run(house.client(test).env("PKCS11_SHIM_SCRIPT", house.script())), "");
}

#[test]
fn a_bad_line_is_reported_and_keeps_the_script_before() {
    if let Some(client) = Client::of_this_process() {
        let script = path_in("PKCS11_SHIM_SCRIPT");
        let session = client.log_in();
        set_script(&script, "C_GenerateRandom delay 20ms");
        assert!(time_of_call(&session) >= Duration::from_millis(20));
        set_script(&script, "C_GenerateRandom delay 3600s\nC_GenerateRandom delay soon\n");
        for _ in 0..3 {
            assert!(time_of_call(&session) >= Duration::from_millis(20));
        }
        return;
    }
    let house = House::build();
    let test = "scripting::a_bad_line_is_reported_and_keeps_the_script_before";
    let stderr = run(house.client(test).env("PKCS11_SHIM_SCRIPT", house.script()));
    let path = house.script().display().to_string();
    assert_eq!(
        stderr,
        format!(
            "pkcs11-shim: {path}:2: `soon` is no time: a whole number and `us`, `ms` or `s`, like \
             `2ms`\npkcs11-shim: {path}: the script before stays in force\n"
        ),
        "each fault is reported, and once"
    );
}

#[test]
fn a_delayed_call_holds_up_no_other() {
    if let Some(client) = Client::of_this_process() {
        client.initialize().expect("the module behind the shim starts");
        let (delayed, other) = (client.open_session(), client.open_session());
        // Detached, and asleep in the shim when the process ends.
        thread::spawn(move || delayed.seed_random(b"seed"));
        wait_for_calls(&path_in("PKCS11_SHIM_COUNTS"), "C_SeedRandom", 1);
        set_script(&path_in("PKCS11_SHIM_SCRIPT"), "C_GenerateRandom delay 10ms");
        assert!(time_of_call(&other) >= Duration::from_millis(10));
        return;
    }
    let house = House::build();
    set_script(&house.script(), "C_SeedRandom delay 3600s");
    let mut client = house.client("scripting::a_delayed_call_holds_up_no_other");
    client.env("PKCS11_SHIM_COUNTS", house.counts());
    run(client.env("PKCS11_SHIM_SCRIPT", house.script()));
}
