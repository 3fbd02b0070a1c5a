//! Counts are exact, whoever calls, and cannot fail unnoticed.

use std::collections::BTreeMap;
use std::fs;
use std::thread;

use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};
use support::shim::Counts;

use crate::house::{Client, House, finish, path_in, run, start};

#[test]
fn each_call_is_counted_before_it_returns() {
    if let Some(client) = Client::of_this_process() {
        let path = path_in("PKCS11_SHIM_COUNTS");
        let session = client.log_in();
        let before = Counts::read(&path);
        assert_eq!(before.of("C_GetInterface"), 1);
        assert_eq!(before.of("C_Initialize"), 1);
        assert_eq!(before.of("C_Login"), 1);
        for calls in 1..=100 {
            session.generate_random_vec(12).expect("there are random bytes");
            let called = Counts::read(&path).since(&before);
            assert_eq!(called.called(), BTreeMap::from([("C_GenerateRandom", calls)]));
        }
        return;
    }
    let house = House::build();
    let mut client = house.client("counting::each_call_is_counted_before_it_returns");
    run(client.env("PKCS11_SHIM_COUNTS", house.counts()));
}

#[test]
fn calls_that_fail_are_counted() {
    if let Some(client) = Client::of_this_process() {
        let path = path_in("PKCS11_SHIM_COUNTS");
        client.pkcs11.get_library_info().expect_err("C_Initialize was not called");
        assert_eq!(Counts::read(&path).of("C_GetInfo"), 1);
        return;
    }
    let house = House::build();
    let mut client = house.client("counting::calls_that_fail_are_counted");
    run(client.env("PKCS11_SHIM_COUNTS", house.counts()));
}

#[test]
fn threads_and_processes_share_the_counts() {
    const PROCESSES: u64 = 3;
    const THREADS: u64 = 4;
    const CALLS: u64 = 500;
    if let Some(client) = Client::of_this_process() {
        client.initialize().expect("the module behind the shim starts");
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let session = client.open_session();
                    for _ in 0..CALLS {
                        session.generate_random_vec(1).expect("there are random bytes");
                    }
                });
            }
        });
        return;
    }
    let house = House::build();
    let mut client = house.client("counting::threads_and_processes_share_the_counts");
    client.env("PKCS11_SHIM_COUNTS", house.counts());
    let clients: Vec<_> = (0..PROCESSES).map(|_| start(&mut client)).collect();
    for client in clients {
        finish(client);
    }
    let counts = Counts::read(&house.counts());
    assert_eq!(counts.of("C_GenerateRandom"), PROCESSES * THREADS * CALLS);
    assert_eq!(counts.of("C_OpenSession"), PROCESSES * THREADS);
    assert_eq!(counts.of("C_Initialize"), PROCESSES);
    let drafts = fs::read_dir(house.counts().parent().expect("it is in a directory"))
        .expect("the directory can be read")
        .filter(|entry| {
            let entry = entry.as_ref().expect("the directory can be read");
            entry.path().extension().is_some_and(|extension| extension == "new")
        });
    assert_eq!(drafts.count(), 0, "drafts of the file are left behind");
}

#[test]
fn a_file_that_is_not_ours_is_left_alone_and_c_initialize_fails() {
    if let Some(client) = Client::of_this_process() {
        match client.initialize() {
            Err(Error::Pkcs11(RvError::GeneralError, Function::Initialize)) => return,
            other => panic!("C_Initialize answered {other:?}"),
        }
    }
    let house = House::build();
    fs::write(house.counts(), "somebody's diary").expect("it can be written");
    let test = "counting::a_file_that_is_not_ours_is_left_alone_and_c_initialize_fails";
    let stderr = run(house.client(test).env("PKCS11_SHIM_COUNTS", house.counts()));
    assert!(stderr.contains("was not made by this version of the shim; remove it"), "{stderr}");
    let text = fs::read_to_string(house.counts()).expect("it is still there");
    assert_eq!(text, "somebody's diary");
}
