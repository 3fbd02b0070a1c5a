//! Ending: no thread may be left inside the library when the process leaves.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::gate::PATIENCE;
use support::memory::{Act, MemoryBackend};
use xksd::hsm::codes;
use xksd::hsm::token::{Token, TokenState};
use xksd::metrics::Metrics;

use super::{Bench, settings, start, wait_for};

#[tokio::test]
async fn all_threads_end() {
    let bench = Bench::up(settings(8)).await;
    assert!(bench.encrypt().await.is_ok());
    assert!(bench.token.stop(PATIENCE));
    // Again, with nobody left to stop.
    assert!(bench.token.stop(Duration::ZERO));
}

#[tokio::test]
async fn a_token_that_never_came_can_be_stopped() {
    let backend = MemoryBackend::new();
    backend.always("C_OpenSession", Some(Act::Return(codes::DEVICE_REMOVED)));
    let token = start(&backend, settings(2));
    wait_for(&token, |state| matches!(state, TokenState::Down(_))).await;
    assert!(token.stop(PATIENCE));
}

#[tokio::test]
async fn a_worker_inside_the_library_is_told_of() {
    let bench = Bench::up(settings(2)).await;
    let gate = bench.backend.hang("C_Encrypt");
    let mut hanging = pin!(bench.encrypt());
    assert!(tokio::time::timeout(Duration::ZERO, &mut hanging).await.is_err());
    gate.wait_for(1);
    assert!(!bench.token.stop(Duration::from_millis(1)));
    gate.open();
    assert!(bench.token.stop(PATIENCE));
    assert!(hanging.await.is_ok());
}

#[tokio::test]
async fn a_steward_inside_the_library_is_told_of() {
    let backend = MemoryBackend::new();
    let gate = backend.hang("C_Login");
    let token = start(&backend, settings(1));
    gate.wait_for(1);
    assert!(!token.stop(Duration::from_millis(1)));
    gate.open();
    assert!(token.stop(PATIENCE));
}

#[tokio::test]
async fn a_token_that_is_dropped_ends_by_itself() {
    let backend = Arc::new(MemoryBackend::new());
    let name: xksd::names::TokenName = "test".parse().expect("it is a token name");
    let metrics = Metrics::new().token(&name);
    let token = Token::start(name, settings(2), backend.clone(), metrics);
    wait_for(&token, |state| *state == TokenState::Up).await;
    drop(token);
    let start = Instant::now();
    // Each thread holds the backend for as long as it lives.
    while Arc::strong_count(&backend) > 1 {
        assert!(start.elapsed() < PATIENCE, "its threads go on");
        std::thread::yield_now();
    }
}
