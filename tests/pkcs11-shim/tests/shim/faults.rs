//! Calls that hang, end the process, or are answered with what the script says.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use cryptoki::error::RvError;
use cryptoki_sys::{CKR_DEVICE_ERROR, CKR_GENERAL_ERROR, CKR_OPERATION_ACTIVE};
use support::shim::{Counts, set_script, wait_for_calls};

use crate::gcm::{Gcm, TAG};
use crate::house::{
    Client, House, answer, change_script, counts, generate_key, path_in, start, with_script,
};

#[test]
fn return_answers_without_the_real_call() {
    with_script(
        "faults::return_answers_without_the_real_call",
        "C_Initialize return CKR_CANT_LOCK nth 1",
        |client| {
            assert_eq!(answer(client.initialize()), RvError::CantLock);
            assert_eq!(answer(client.pkcs11.get_library_info()), RvError::CryptokiNotInitialized);
            let session = client.log_in();
            let key = generate_key(&session, "key");
            change_script("C_Encrypt return CKR_DEVICE_ERROR");
            let gcm = Gcm::new(&session, key);
            assert_eq!(gcm.encrypt_init(&mut [0; 12]), 0);
            assert_eq!(gcm.encrypt(b"plaintext", Some(99)).code, CKR_DEVICE_ERROR);
            assert_eq!(gcm.encrypt_init(&mut [0; 12]), CKR_OPERATION_ACTIVE, "it still waits");
            assert_eq!(counts().of("C_Encrypt"), 1, "a call that was not made is counted");
        },
    );
}

#[test]
fn return_after_makes_the_real_call() {
    with_script("faults::return_after_makes_the_real_call", "", |client| {
        let session = client.log_in();
        let key = generate_key(&session, "key");
        change_script("C_Encrypt return 0x80000383 after\nC_GetInfo return CKR_OK after");
        let gcm = Gcm::new(&session, key);
        for _ in 0..2 {
            assert_eq!(gcm.encrypt_init(&mut [0; 12]), 0, "the one before is done");
            assert_eq!(gcm.encrypt(b"plaintext", Some(99)).code, 0x8000_0383);
        }
    });
}

#[test]
fn return_for_replaces_one_code() {
    let script = "C_Decrypt return CKR_DEVICE_ERROR for CKR_GENERAL_ERROR\n\
                  C_Decrypt return CKR_HOST_MEMORY for CKR_DATA_INVALID";
    with_script("faults::return_for_replaces_one_code", script, |client| {
        let session = client.log_in();
        let gcm = Gcm::new(&session, generate_key(&session, "key"));
        assert_eq!(gcm.encrypt_init(&mut [7; 12]), 0);
        let mut ciphertext = gcm.encrypt(b"plaintext", Some(9 + TAG)).output();
        assert_eq!(gcm.decrypt(&mut [7; 12], &ciphertext).output(), b"plaintext");
        ciphertext[0] ^= 1;
        assert_eq!(gcm.decrypt(&mut [7; 12], &ciphertext).code, CKR_DEVICE_ERROR);
        change_script("");
        assert_eq!(gcm.decrypt(&mut [7; 12], &ciphertext).code, CKR_GENERAL_ERROR);
    });
}

#[test]
fn the_first_rule_that_answers_ends_the_call() {
    let script = "C_GenerateRandom return CKR_DEVICE_MEMORY nth 1\n\
                  C_GenerateRandom return CKR_DEVICE_REMOVED first 2\n\
                  C_GenerateRandom hang first 2\n\
                  C_GenerateRandom return CKR_FUNCTION_FAILED after nth 3\n\
                  C_GenerateRandom return CKR_DEVICE_ERROR for CKR_FUNCTION_FAILED";
    with_script("faults::the_first_rule_that_answers_ends_the_call", script, |client| {
        let session = client.log_in();
        let random = || answer(session.generate_random_vec(1));
        assert_eq!(random(), RvError::DeviceMemory);
        assert_eq!(random(), RvError::DeviceRemoved);
        assert_eq!(random(), RvError::DeviceError, "replaced, and replaced again");
    });
}

#[test]
fn a_call_hangs_until_the_script_changes_and_then_goes_on() {
    let script = "C_GenerateRandom hang nth 2";
    with_script(
        "faults::a_call_hangs_until_the_script_changes_and_then_goes_on",
        script,
        |client| {
            let session = client.log_in();
            let other = client.open_session();
            session.generate_random_vec(1).expect("the first is not selected");
            let (answered, answer) = mpsc::channel();
            let hanging = thread::spawn(move || {
                let random = session.generate_random_vec(12);
                answered.send(()).expect("the test waits");
                random
            });
            wait_for_calls(&path_in("PKCS11_SHIM_COUNTS"), "C_GenerateRandom", 2);
            // Never fails while the call hangs; on a slow machine it may miss one that does not.
            answer.recv_timeout(Duration::from_millis(50)).expect_err("it hangs");
            other.generate_random_vec(1).expect("the third is not selected");
            change_script("C_GenerateRandom hang nth 1000");
            let random = hanging.join().expect("it does not panic");
            assert_eq!(random.expect("the real call is made").len(), 12);
        },
    );
}

/// How a process ended whose first C_GenerateRandom has this rule, and what it called.
fn end_by(test: &str, rule: &str) -> (ExitStatus, Counts) {
    if let Some(client) = Client::of_this_process() {
        let session = client.log_in();
        assert!(path_in("PKCS11_SHIM_SCRIPT").exists());
        let random = session.generate_random_vec(1);
        panic!("the process goes on: {random:?}");
    }
    let house = House::build();
    set_script(&house.script(), rule);
    let output = start(&mut house.scripted_client(test)).wait_with_output().expect("a child ends");
    (output.status, Counts::read(&house.counts()))
}

#[test]
fn crash_aborts_the_process() {
    let (status, counts) = end_by("faults::crash_aborts_the_process", "C_GenerateRandom crash");
    assert_eq!(status.signal(), Some(6), "SIGABRT: {status}");
    assert_eq!(counts.of("C_GenerateRandom"), 1);
}

#[test]
fn exit_ends_the_process_with_a_status() {
    let (status, _) =
        end_by("faults::exit_ends_the_process_with_a_status", "C_GenerateRandom exit 23");
    assert_eq!(status.code(), Some(23), "{status}");
}

#[test]
fn a_bad_seed_is_an_error_of_c_initialize() {
    if let Some(client) = Client::of_this_process() {
        assert_eq!(answer(client.initialize()), RvError::GeneralError);
        return;
    }
    let house = House::build();
    let mut client = house.scripted_client("faults::a_bad_seed_is_an_error_of_c_initialize");
    let stderr = crate::house::run(client.env("PKCS11_SHIM_SEED", "-1"));
    assert_eq!(stderr, "pkcs11-shim: PKCS11_SHIM_SEED: `-1` is no whole number below 2^64\n");
}
