//! The bounded queue, deadlines, and who waits for whom.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use support::memory::Act;
use xksd::clock::Deadline;
use xksd::hsm::lanes::Lane;
use xksd::hsm::token::{Settings, TokenError};
use xksd::secret::Plaintext;

use super::{AAD, Bench, TEXT, begin, settings, soon};

#[tokio::test]
async fn one_job_too_many_is_refused() {
    let bench = Bench::up(Settings { queue: 1, ..settings(1) }).await;
    let gate = bench.backend.hang("C_Encrypt");
    let mut running = pin!(bench.encrypt());
    begin(&mut running).await;
    gate.wait_for(1);
    let mut waiting = pin!(bench.encrypt());
    begin(&mut waiting).await;
    assert_eq!(bench.encrypt().await, Err(TokenError::QueueFull));
    gate.open();
    assert!(running.await.is_ok());
    assert!(waiting.await.is_ok());
    assert!(bench.encrypt().await.is_ok());
}

#[tokio::test]
async fn an_expired_job_is_never_started() {
    let bench = Bench::up(settings(1)).await;
    let started = bench.backend.calls("C_EncryptInit");
    let gate = bench.backend.hang("C_Encrypt");
    let mut running = pin!(bench.encrypt());
    begin(&mut running).await;
    gate.wait_for(1);
    // Whoever waits for it is not told before the worker has seen it.
    let deadline = Deadline::after(Duration::from_millis(400));
    let mut expired = pin!(bench.encrypt_with(bench.handle(), deadline));
    begin(&mut expired).await;
    while !deadline.has_passed() {
        std::thread::yield_now();
    }
    // Nor is one for which nobody waits any more.
    {
        let mut abandoned = pin!(bench.encrypt());
        begin(&mut abandoned).await;
    }
    gate.open();
    assert!(running.await.is_ok());
    assert!(bench.encrypt().await.is_ok());
    assert_eq!(expired.await.err(), Some(TokenError::Late));
    assert_eq!(bench.backend.calls("C_EncryptInit") - started, 2);
}

/// Late in the queue and late in the HSM are told apart by their times.
#[tokio::test]
async fn a_late_job_says_where_its_time_went() {
    let bench = Bench::up(settings(1)).await;
    let gate = bench.backend.hang("C_Encrypt");
    let send = || {
        let (aad, text) = (AAD.into(), Arc::new(Plaintext::new(TEXT.to_vec())));
        bench.token.encrypt(&Lane::Internal, bench.handle(), aad, text, soon())
    };
    let mut hung = pin!(send());
    begin(&mut hung).await;
    gate.wait_for(1);
    // Deadlines pass as soon as nothing else is to be done.
    tokio::time::pause();
    let hung = hung.await;
    assert_eq!(hung.result.err(), Some(TokenError::Late));
    assert!(hung.times.taken.is_some(), "a session hangs with it");
    let waited = send().await;
    assert_eq!(waited.result.err(), Some(TokenError::Late));
    assert_eq!(waited.times.taken, None, "no session was free");
    assert_eq!(waited.times.hsm(), Duration::ZERO);
    gate.open();
}

#[tokio::test]
async fn a_session_that_hangs_leaves_the_others_serving() {
    let bench = Bench::up(settings(2)).await;
    let gate = bench.backend.hang("C_Encrypt");
    let mut hanging =
        pin!(bench.encrypt_with(bench.handle(), Deadline::after(Duration::from_millis(400))));
    begin(&mut hanging).await;
    gate.wait_for(1);
    for _ in 0..10 {
        assert!(bench.encrypt().await.is_ok());
    }
    assert_eq!(hanging.await.err(), Some(TokenError::Late));
    gate.open();
    assert!(bench.token.stop(support::gate::PATIENCE));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_answer_the_input_is_let_go() {
    let bench = Bench::up(settings(4)).await;
    let opening = Arc::new(bench.sealed().await);
    let plaintext = Arc::new(Plaintext::new(TEXT.to_vec()));
    let aad: Arc<[u8]> = AAD.into();
    // P-43: the very bytes that were decrypted are sent; they are taken out of this Arc.
    let lane = Lane::Internal;
    for _ in 0..2000 {
        let opened = bench.token.decrypt(&lane, bench.handle(), opening.clone(), soon()).await;
        assert_eq!(Arc::strong_count(&opening), 1);
        assert_eq!(opened.result.expect("it fits").expose(), TEXT);
        let (handle, aad, text) = (bench.handle(), aad.clone(), plaintext.clone());
        let sealed = bench.token.encrypt(&lane, handle, aad, text, soon()).await;
        sealed.result.expect("the token encrypts");
        assert_eq!(Arc::strong_count(&plaintext), 1);
    }
}

#[tokio::test]
async fn a_panic_costs_one_job() {
    let bench = Bench::up(settings(1)).await;
    bench.backend.next("C_Encrypt", Act::Panic);
    assert_eq!(bench.encrypt().await, Err(TokenError::Down));
    assert!(bench.encrypt().await.is_ok());
    assert!(bench.token.stop(support::gate::PATIENCE));
}
