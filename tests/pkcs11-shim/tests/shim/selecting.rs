//! Which calls a rule selects, seen from outside.

use std::fs;
use std::thread;

use cryptoki::error::RvError;
use cryptoki::session::Session;
use support::shim::set_script;

use crate::gcm::close_all_sessions;
use crate::house::{Client, House, answer, change_script, path_in, run, with_script};

/// The numbers of the calls, from 1, that fail.
fn failing(session: &Session, calls: usize) -> Vec<usize> {
    (1..=calls).filter(|_| session.generate_random_vec(1).is_err()).collect()
}

#[test]
fn calls_are_selected_by_their_number_since_the_script_was_loaded() {
    with_script(
        "selecting::calls_are_selected_by_their_number_since_the_script_was_loaded",
        "",
        |client| {
            let session = client.log_in();
            for (selectors, expected) in [
                ("nth 3", vec![3]),
                ("every 10", vec![10, 20]),
                ("first 5", vec![1, 2, 3, 4, 5]),
                ("from 18", vec![18, 19, 20]),
                ("first 6 every 2", vec![2, 4, 6]),
            ] {
                // A script begins to count anew, also one of the same text.
                for _ in 0..2 {
                    let rule = format!("C_GenerateRandom {selectors} return CKR_DEVICE_ERROR");
                    change_script(&rule);
                    assert_eq!(failing(&session, 20), expected, "{selectors}");
                }
            }
            change_script("C_SeedRandom nth 2 return CKR_DEVICE_ERROR");
            assert_eq!(failing(&session, 20), [0; 0], "each function has its own count");
        },
    );
}

#[test]
fn each_number_is_given_to_one_call_however_many_threads_there_are() {
    with_script(
        "selecting::each_number_is_given_to_one_call_however_many_threads_there_are",
        "C_GenerateRandom every 10 return CKR_DEVICE_ERROR",
        |client| {
            client.initialize().expect("the module behind the shim starts");
            let sessions = [(); 4].map(|()| client.open_session());
            let failed = thread::scope(|scope| {
                let count = |session| scope.spawn(move || failing(&session, 250).len());
                let threads = sessions.map(count);
                threads.into_iter().map(|thread| thread.join().expect("no panic")).sum::<usize>()
            });
            assert_eq!(failed, 100);
        },
    );
}

#[test]
fn a_share_is_exact_for_a_seed() {
    const CALLS: usize = 1000;
    const TEST: &str = "selecting::a_share_is_exact_for_a_seed";
    if let Some(client) = Client::of_this_process() {
        let session = client.log_in();
        let failed = failing(&session, CALLS);
        change_script("C_GenerateRandom share 10% return CKR_DEVICE_ERROR # again");
        assert_eq!(failing(&session, CALLS), failed, "the script draws the same again");
        let file = path_in("PKCS11_SHIM_SCRIPT").with_extension("failed");
        return fs::write(file, format!("{failed:?}")).expect("it can be written");
    }
    let house = House::build();
    let failed = |seed: &str| {
        let rule = "C_GenerateRandom share 10% return CKR_DEVICE_ERROR";
        set_script(&house.script(), rule);
        run(house.scripted_client(TEST).env("PKCS11_SHIM_SEED", seed));
        let file = house.script().with_extension("failed");
        fs::read_to_string(file).expect("the client has written it")
    };
    let (first, second) = (failed("1"), failed("2"));
    // Pinned: another number means that old seeds mean something new.
    assert_eq!((first.split(',').count(), second.split(',').count()), (94, 102));
    assert_ne!(first, second);
    assert_eq!(failed("1"), first);
    assert_ne!(failed(""), failed(""), "without a seed nothing repeats");
}

#[test]
fn sessions_beyond_a_limit_are_refused_until_one_is_closed() {
    let script = "C_OpenSession beyond 3 return CKR_SESSION_COUNT";
    let test = "selecting::sessions_beyond_a_limit_are_refused_until_one_is_closed";
    with_script(test, script, |client| {
        client.initialize().expect("the module behind the shim starts");
        let slot = client.slot();
        let open = || client.pkcs11.open_rw_session(slot);
        let mut sessions: Vec<_> = (0..3).map(|_| open().expect("there is room")).collect();
        assert_eq!(answer(open()), RvError::SessionCount);
        sessions.pop();
        sessions.push(open().expect("there is room again"));
        assert_eq!(answer(open()), RvError::SessionCount);
        assert_eq!(close_all_sessions(slot), 0);
        open().expect("there is room again");
        change_script("C_OpenSession beyond 1 return CKR_SESSION_COUNT");
        let open_now = open().expect("`Session` closes itself when it is dropped");
        assert_eq!(answer(open()), RvError::SessionCount);
        drop(open_now);
    });
}

#[test]
fn read_only_sessions_can_be_refused() {
    let script = "C_OpenSession read-only return CKR_FUNCTION_FAILED";
    with_script("selecting::read_only_sessions_can_be_refused", script, |client| {
        client.initialize().expect("the module behind the shim starts");
        let slot = client.slot();
        assert_eq!(answer(client.pkcs11.open_ro_session(slot)), RvError::FunctionFailed);
        client.pkcs11.open_rw_session(slot).expect("these are not");
    });
}

#[test]
fn rules_can_be_for_functions_of_one_beginning() {
    with_script("selecting::rules_can_be_for_functions_of_one_beginning", "", |client| {
        let session = client.log_in();
        change_script("C_G* return CKR_DEVICE_ERROR");
        assert_eq!(failing(&session, 1), [1]);
        assert_eq!(answer(client.pkcs11.get_library_info()), RvError::DeviceError);
        session.seed_random(b"seed").expect("another beginning");
    });
}
