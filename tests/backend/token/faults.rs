//! Who mends what: sessions, the connection, the catalogue.

use std::pin::pin;
use std::time::Instant;

use support::gate::Gate;
use support::memory::{Act, MemoryKey};
use xksd::hsm::codes::{self, Code};
use xksd::hsm::fault::FaultKind;
use xksd::hsm::token::TokenState;

use super::{Bench, begin, fault, settings, soon, wait_for};

#[tokio::test]
async fn a_lost_session_is_replaced_by_its_worker() {
    let lost = [
        codes::SESSION_HANDLE_INVALID,
        codes::SESSION_CLOSED,
        codes::OPERATION_ACTIVE,
        codes::OPERATION_NOT_INITIALIZED,
        codes::BUFFER_TOO_SMALL,
        Code(0x8000_0001),
    ];
    for code in lost {
        let bench = Bench::up(settings(1)).await;
        assert!(bench.encrypt().await.is_ok());
        let sessions = bench.backend.calls("C_OpenSession");
        bench.backend.next("C_Encrypt", Act::Return(code));
        assert!(!fault(bench.encrypt().await).kind.keeps_session(), "{code}");
        assert!(bench.encrypt().await.is_ok(), "{code}");
        assert_eq!(bench.backend.calls("C_OpenSession") - sessions, 1, "{code}");
        assert_eq!(bench.backend.calls("C_Login"), 1, "{code}");
        assert_eq!(bench.token.state(), TokenState::Up);
    }
}

#[tokio::test]
async fn a_callers_or_a_keys_fault_costs_no_session() {
    let bench = Bench::up(settings(1)).await;
    assert!(bench.encrypt().await.is_ok());
    let sessions = bench.backend.calls("C_OpenSession");
    let kept = [
        (codes::KEY_FUNCTION_NOT_PERMITTED, FaultKind::KeyUsage),
        (codes::KEY_TYPE_INCONSISTENT, FaultKind::KeyUsage),
        (codes::KEY_HANDLE_INVALID, FaultKind::HandleStale),
        (codes::DEVICE_MEMORY, FaultKind::Busy),
    ];
    for (code, kind) in kept {
        bench.backend.next("C_EncryptInit", Act::Return(code));
        assert_eq!(fault(bench.encrypt().await).kind, kind);
    }
    let mut opening = bench.sealed().await;
    opening.tag[0] ^= 1;
    assert_eq!(fault(bench.decrypt(opening).await).kind, FaultKind::BadCiphertext);
    assert!(bench.encrypt().await.is_ok());
    assert_eq!(bench.backend.calls("C_OpenSession"), sessions);
}

#[tokio::test]
async fn a_lost_connection_is_made_anew_once_with_other_handles() {
    let lost = [
        (codes::USER_NOT_LOGGED_IN, FaultKind::LoginLost),
        (codes::DEVICE_ERROR, FaultKind::TokenLost),
        (codes::TOKEN_NOT_PRESENT, FaultKind::TokenLost),
        (codes::CRYPTOKI_NOT_INITIALIZED, FaultKind::LibraryLost),
    ];
    for (code, kind) in lost {
        let bench = Bench::up(settings(3)).await;
        // After the next connection the old numbers name the other key.
        bench.backend.add(MemoryKey::aes_256("other"));
        let old = bench.handle();
        bench.backend.next("C_EncryptInit", Act::Return(code));
        assert_eq!(fault(bench.encrypt().await).kind, kind, "{code}");
        let new = bench.reconnected(old).await;
        assert_eq!(new, bench.handle());
        assert!(new.number != old.number, "the test is about numbers that change");
        let stale = bench.encrypt_with(old, soon()).await;
        assert_eq!(fault(stale).kind, FaultKind::HandleStale, "{code}");
        assert!(bench.encrypt().await.is_ok(), "{code}");
        assert_eq!(bench.backend.calls("C_Login"), 2, "{code}");
    }
}

#[tokio::test]
async fn a_session_that_notices_late_costs_no_second_connection() {
    let bench = Bench::up(settings(2)).await;
    let old = bench.handle();
    let gate = Gate::closed();
    bench.backend.next("C_Encrypt", Act::HangThenReturn(gate.clone(), codes::DEVICE_ERROR));
    let mut late = pin!(bench.encrypt());
    begin(&mut late).await;
    gate.wait_for(1);
    bench.backend.next("C_Encrypt", Act::Return(codes::DEVICE_ERROR));
    assert_eq!(fault(bench.encrypt().await).kind, FaultKind::TokenLost);
    bench.reconnected(old).await;
    gate.open();
    assert_eq!(fault(late.await).kind, FaultKind::TokenLost);
    // Each worker is at its next job, so the late one has said what it had to say.
    let gates = [bench.backend.hang("C_Encrypt"), bench.backend.hang("C_Encrypt")];
    let (mut one, mut other) = (pin!(bench.encrypt()), pin!(bench.encrypt()));
    begin(&mut one).await;
    begin(&mut other).await;
    for gate in &gates {
        gate.wait_for(1);
    }
    let read = super::catalogue_since(&bench.token, Instant::now(), soon()).await;
    assert!(read.is_ok());
    gates.iter().for_each(Gate::open);
    assert!(one.await.is_ok() && other.await.is_ok());
    assert_eq!(bench.backend.calls("C_Login"), 2);
}

#[tokio::test]
async fn a_stale_handle_has_the_keys_read_again() {
    let bench = Bench::up(settings(1)).await;
    bench.backend.add(MemoryKey::aes_256("other"));
    let old = bench.handle();
    let before = bench.token.catalogue().expect("it was read").started();
    bench.backend.destroy(bench.key);
    let stale = fault(bench.encrypt_with(old, soon()).await);
    assert_eq!(stale.kind, FaultKind::HandleStale);
    // Nobody asks for this reading but the worker.
    let gate = bench.backend.hang("C_FindObjects");
    gate.open();
    let catalogue = super::catalogue_since(&bench.token, Instant::now(), soon()).await;
    let catalogue = catalogue.expect("the token can be read");
    let key = "key".parse().expect("it is an external key id");
    assert!(catalogue.started() > before && catalogue.find(&key).is_none());
}

#[tokio::test]
async fn no_session_to_be_had_is_no_reason_to_connect_anew() {
    let bench = Bench::up(settings(1)).await;
    assert!(bench.encrypt().await.is_ok());
    for code in [codes::SESSION_COUNT, codes::HOST_MEMORY] {
        bench.backend.next("C_Encrypt", Act::Return(codes::SESSION_CLOSED));
        bench.backend.next("C_OpenSession", Act::Return(code));
        assert_eq!(fault(bench.encrypt().await).kind, FaultKind::SessionLost);
        assert!(bench.encrypt().await.is_ok());
    }
    assert_eq!(bench.backend.calls("C_Login"), 1);
}

#[tokio::test]
async fn a_token_that_fails_its_probes_goes_down_and_comes_back() {
    let bench = Bench::up(settings(1)).await;
    let old = bench.handle();
    // The probe decrypts to something else, twice.
    bench.backend.always("C_Decrypt", Some(Act::FlipBit));
    bench.backend.next("C_Encrypt", Act::Return(codes::SESSION_CLOSED));
    assert_eq!(fault(bench.encrypt().await).kind, FaultKind::SessionLost);
    super::wait_for(&bench.token, |state| matches!(state, TokenState::Down(_))).await;
    bench.backend.always("C_Decrypt", None);
    bench.reconnected(old).await;
    assert!(bench.encrypt().await.is_ok());
}

/// Requests are served from the keys as they were read before; the reading is made once more.
#[tokio::test]
async fn one_reading_that_fails_costs_no_connection() {
    let bench = Bench::up(settings(1)).await;
    for code in [codes::GENERAL_ERROR, codes::DEVICE_MEMORY, codes::ARGUMENTS_BAD] {
        bench.backend.next("C_FindObjects", Act::Return(code));
        let read = super::catalogue_since(&bench.token, Instant::now(), soon()).await;
        assert!(read.is_ok(), "{code}");
        assert_eq!(bench.token.state(), TokenState::Up, "{code}");
    }
    assert_eq!(bench.backend.calls("C_Login"), 1);
}

/// A token whose storage was removed shows no keys, while its sessions and the probe's session key
/// work on. "No such key" is final for KMS, so an emptied token says nothing until it is back.
#[tokio::test]
async fn a_token_that_lost_all_its_keys_is_down_until_they_are_back() {
    let bench = Bench::up(settings(1)).await;
    bench.backend.destroy(bench.key);
    let is_down = |state: &TokenState| matches!(state, TokenState::Down(_));
    let state = tokio::select! {
        state = wait_for(&bench.token, is_down) => state,
        _ = super::catalogue_since(&bench.token, Instant::now(), soon()) => {
            panic!("an emptied token said what it holds")
        }
    };
    assert!(matches!(state, TokenState::Down(fault) if fault.kind == FaultKind::TokenLost));
    bench.backend.add(MemoryKey::aes_256("key"));
    wait_for(&bench.token, |state| *state == TokenState::Up).await;
}
