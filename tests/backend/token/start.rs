//! Connecting, and reading the keys.

use std::time::{Duration, Instant};

use support::memory::{Act, MemoryKey};
use xksd::clock::Deadline;
use xksd::hsm::codes;
use xksd::hsm::fault::FaultKind;
use xksd::hsm::token::{TokenError, TokenState};

use super::{Bench, settings, soon, wait_for};

#[tokio::test]
async fn starting_does_not_wait_for_a_token_that_hangs() {
    let backend = support::memory::MemoryBackend::new();
    let key = backend.add(MemoryKey::aes_256("key"));
    let gate = backend.hang("C_OpenSession");
    let token = super::start(&backend, settings(1));
    gate.wait_for(1);
    let bench = Bench { backend, key, token };
    assert_eq!(bench.token.state(), TokenState::Probing);
    assert_eq!(bench.encrypt().await, Err(TokenError::Down));
    assert!(bench.token.catalogue().is_none());
    assert_eq!(bench.token.last_proved(), None);
    gate.open();
    wait_for(&bench.token, |state| *state == TokenState::Up).await;
    // P-61: up means proved.
    assert!(bench.token.last_proved().is_some());
    assert!(bench.encrypt().await.is_ok());
}

#[tokio::test]
async fn a_token_that_is_away_is_tried_until_it_comes() {
    let backend = support::memory::MemoryBackend::new();
    let key = backend.add(MemoryKey::aes_256("key"));
    backend.always("C_OpenSession", Some(Act::Return(codes::TOKEN_NOT_PRESENT)));
    let token = super::start(&backend, settings(1));
    let bench = Bench { backend, key, token };
    let state = wait_for(&bench.token, |state| matches!(state, TokenState::Down(_))).await;
    assert!(!state.serves());
    let answer =
        super::catalogue_since(&bench.token, Instant::now(), Deadline::after(Duration::ZERO)).await;
    assert_eq!(answer.err(), Some(TokenError::Down));
    bench.backend.always("C_OpenSession", None);
    wait_for(&bench.token, |state| *state == TokenState::Up).await;
    assert!(bench.encrypt().await.is_ok());
}

#[tokio::test]
async fn a_refused_pin_is_tried_once() {
    let backend = support::memory::MemoryBackend::new();
    let key = backend.add(MemoryKey::aes_256("key"));
    backend.always("C_Login", Some(Act::Return(codes::PIN_INCORRECT)));
    let token = super::start(&backend, settings(4));
    let bench = Bench { backend, key, token };
    wait_for(&bench.token, |state| *state == TokenState::PinRefused).await;
    assert_eq!(bench.encrypt().await, Err(TokenError::Down));
    // Longer than the first pause between two attempts, and a wish that might wake somebody.
    let deadline = Deadline::after(Duration::from_millis(600));
    let answer = super::catalogue_since(&bench.token, Instant::now(), deadline).await;
    assert_eq!(answer.err(), Some(TokenError::Down));
    assert_eq!(bench.token.state(), TokenState::PinRefused);
    assert_eq!(bench.backend.calls("C_Login"), 1);
    assert_eq!(bench.backend.calls("C_OpenSession"), 1);
}

#[tokio::test]
async fn a_pin_that_was_changed_meanwhile_is_tried_once_too() {
    let bench = Bench::up(settings(2)).await;
    bench.backend.always("C_Login", Some(Act::Return(codes::PIN_LOCKED)));
    bench.backend.next("C_Encrypt", Act::Return(codes::USER_NOT_LOGGED_IN));
    assert_eq!(super::fault(bench.encrypt().await).kind, FaultKind::LoginLost);
    wait_for(&bench.token, |state| *state == TokenState::PinRefused).await;
    assert_eq!(bench.backend.calls("C_Login"), 2);
}

#[tokio::test]
async fn a_key_made_since_is_found_by_one_reading_for_all() {
    let bench = Bench::up(settings(1)).await;
    let id = "new".parse().expect("it is an external key id");
    bench.backend.add(MemoryKey::aes_256("new"));
    assert!(bench.token.catalogue().expect("it was read").find(&id).is_none());
    let readings = bench.backend.calls("C_FindObjects");
    let moment = Instant::now();
    let ask = || super::catalogue_since(&bench.token, moment, soon());
    let (a, b, c, d) = tokio::join!(ask(), ask(), ask(), ask());
    for catalogue in [a, b, c, d] {
        let catalogue = catalogue.expect("the token can be read");
        assert!(catalogue.started() >= moment);
        assert!(catalogue.find(&id).is_some_and(|key| key.is_ok()));
    }
    // One more if somebody asked when it had begun already.
    let readings = bench.backend.calls("C_FindObjects") - readings;
    assert!((1..=2).contains(&readings), "{readings} readings");
}

#[tokio::test]
async fn a_reading_that_began_too_early_does_not_count() {
    let bench = Bench::up(settings(1)).await;
    let gate = bench.backend.hang("C_FindObjects");
    let first =
        super::catalogue_since(&bench.token, Instant::now(), Deadline::after(Duration::ZERO)).await;
    assert_eq!(first.err(), Some(TokenError::Late));
    gate.wait_for(1);
    let moment = Instant::now();
    let late = super::catalogue_since(&bench.token, moment, Deadline::after(Duration::ZERO)).await;
    assert_eq!(late.err(), Some(TokenError::Late));
    let (catalogue, ()) =
        tokio::join!(super::catalogue_since(&bench.token, moment, soon()), async {
            gate.open();
        });
    assert!(catalogue.expect("the token can be read").started() >= moment);
}

#[tokio::test]
async fn a_catalogue_that_is_fresh_enough_costs_no_reading() {
    let bench = Bench::up(settings(1)).await;
    let readings = bench.backend.calls("C_FindObjects");
    let since = bench.token.catalogue().expect("it was read").started();
    let again = super::catalogue_since(&bench.token, since, soon()).await;
    assert_eq!(again.expect("it is there").started(), since);
    assert_eq!(bench.backend.calls("C_FindObjects"), readings);
}
