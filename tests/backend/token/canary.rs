//! Decryptions that fail for a reason which may be the ciphertext or the HSM.

use std::time::Instant;

use support::memory::Act;
use xksd::hsm::codes;
use xksd::hsm::fault::FaultKind;
use xksd::hsm::token::{Opening, TokenState};

use super::{Bench, TEXT, fault, settings};

/// A token that refuses a wrong tag as SoftHSM2 does, and a ciphertext whose tag is wrong.
async fn softhsm_like(sessions: usize) -> (Bench, Opening) {
    let bench = Bench::up(settings(sessions)).await;
    bench.backend.set_bad_tag(codes::GENERAL_ERROR);
    let mut opening = bench.sealed().await;
    opening.tag[0] ^= 1;
    (bench, opening)
}

fn again(opening: &Opening) -> Opening {
    let Opening { iv, aad, ciphertext, tag } = opening;
    Opening { iv: iv.clone(), aad: aad.clone(), ciphertext: ciphertext.clone(), tag: *tag }
}

#[tokio::test]
async fn a_bad_ciphertext_is_called_so_and_costs_nothing() {
    // P-51
    let (bench, bad) = softhsm_like(1).await;
    let sessions = bench.backend.calls("C_OpenSession");
    for _ in 0..20 {
        let fault = fault(bench.decrypt(again(&bad)).await);
        assert_eq!(fault.kind, FaultKind::BadCiphertext);
    }
    let good = bench.sealed().await;
    assert_eq!(bench.decrypt(good).await.expect("it fits").expose(), TEXT);
    assert_eq!(bench.backend.calls("C_OpenSession"), sessions);
    assert_eq!(bench.backend.calls("C_Login"), 1);
    assert_eq!(bench.token.state(), TokenState::Up);
}

#[tokio::test]
async fn an_hsm_in_trouble_is_never_called_a_bad_ciphertext() {
    let (bench, _) = softhsm_like(1).await;
    let old = bench.handle();
    let good = bench.sealed().await;
    bench.backend.always("C_Decrypt", Some(Act::Return(codes::GENERAL_ERROR)));
    assert_eq!(fault(bench.decrypt(again(&good)).await).kind, FaultKind::TokenLost);
    bench.backend.always("C_Decrypt", None);
    bench.reconnected(old).await;
    assert_eq!(bench.decrypt(good).await.expect("it fits").expose(), TEXT);
}

#[tokio::test]
async fn a_token_that_decrypts_wrongly_is_in_trouble() {
    let (bench, bad) = softhsm_like(1).await;
    bench.backend.next("C_Decrypt", Act::Return(codes::GENERAL_ERROR));
    bench.backend.next("C_Decrypt", Act::FlipBit);
    assert_eq!(fault(bench.decrypt(bad).await).kind, FaultKind::TokenLost);
}

#[tokio::test]
async fn a_session_in_trouble_is_no_token_in_trouble() {
    let (bench, bad) = softhsm_like(1).await;
    bench.backend.next("C_Decrypt", Act::Return(codes::GENERAL_ERROR));
    bench.backend.next("C_DecryptInit", Act::Hang(open_gate()));
    bench.backend.next("C_DecryptInit", Act::Return(codes::SESSION_HANDLE_INVALID));
    assert_eq!(fault(bench.decrypt(again(&bad)).await).kind, FaultKind::SessionLost);
    assert_eq!(fault(bench.decrypt(bad).await).kind, FaultKind::BadCiphertext);
    assert_eq!(bench.backend.calls("C_Login"), 1);
}

/// For a call that is to do nothing special before the one that does.
fn open_gate() -> support::gate::Gate {
    let gate = support::gate::Gate::closed();
    gate.open();
    gate
}

#[tokio::test]
async fn what_fails_before_the_ciphertext_is_seen_does_not_blame_it() {
    let (bench, _) = softhsm_like(1).await;
    let good = bench.sealed().await;
    for code in [codes::GENERAL_ERROR, codes::FUNCTION_FAILED] {
        bench.backend.next("C_DecryptInit", Act::Return(code));
        assert_eq!(fault(bench.decrypt(again(&good)).await).kind, FaultKind::Ambiguous);
    }
    assert_eq!(bench.decrypt(good).await.expect("it fits").expose(), TEXT);
}

#[tokio::test]
async fn an_iv_that_the_token_cannot_take_is_a_bad_ciphertext() {
    // P-50: 16 bytes are allowed, and were never given out by this token.
    let (bench, _) = softhsm_like(1).await;
    let sessions = bench.backend.calls("C_OpenSession");
    let opening = Opening { iv: vec![7; 16], ..bench.sealed().await };
    assert_eq!(fault(bench.decrypt(opening).await).kind, FaultKind::BadCiphertext);
    assert_eq!(bench.backend.calls("C_OpenSession"), sessions);
}

#[tokio::test]
async fn canaries_and_second_looks_are_bounded_whatever_is_sent() {
    const GARBAGE: u64 = 500;
    let (bench, bad) = softhsm_like(1).await;
    let before = bench.backend.calls("C_Decrypt");
    let start = Instant::now();
    for _ in 0..GARBAGE {
        let fault = fault(bench.decrypt(again(&bad)).await);
        assert_eq!(fault.kind, FaultKind::BadCiphertext);
    }
    // A canary for each 100 ms that this took, and a second look for each 10, however long that was.
    let took = start.elapsed().as_millis();
    let most = 2 + took / 100 + took / 10;
    let more = bench.backend.calls("C_Decrypt") - before - GARBAGE;
    assert!((2..=most).contains(&u128::from(more)), "{more} more, not {most}");
}

#[tokio::test]
async fn an_accident_is_no_bad_ciphertext() {
    let (bench, _) = softhsm_like(1).await;
    let good = bench.sealed().await;
    bench.backend.next("C_Decrypt", Act::Return(codes::GENERAL_ERROR));
    assert_eq!(bench.decrypt(good).await.expect("the second time").expose(), TEXT);
}

#[tokio::test]
async fn without_a_probe_key_nothing_is_claimed() {
    let backend = support::memory::MemoryBackend::new();
    let key = backend.add(support::memory::MemoryKey::aes_256("key"));
    backend.set_bad_tag(codes::GENERAL_ERROR);
    backend.always("C_GenerateKey", Some(Act::Return(codes::FUNCTION_NOT_SUPPORTED)));
    let token = super::start(&backend, settings(1));
    let bench = Bench { backend, key, token };
    // P-61: failing to make the key is no failed probe.
    super::wait_for(&bench.token, |state| *state == TokenState::Up).await;
    let mut opening = bench.sealed().await;
    opening.tag[0] ^= 1;
    assert_eq!(fault(bench.decrypt(opening).await).kind, FaultKind::Ambiguous);
    assert!(bench.encrypt().await.is_ok());
}

#[tokio::test]
async fn an_administrators_key_serves_for_probes_p_61() {
    // One that may not decrypt is of no use.
    for (decrypt, verdict) in [(true, FaultKind::BadCiphertext), (false, FaultKind::Ambiguous)] {
        let backend = support::memory::MemoryBackend::new();
        let key = backend.add(support::memory::MemoryKey::aes_256("key"));
        let health = backend.add(support::memory::MemoryKey::aes_256("xksd:health"));
        backend.change(health, |health| health.usage.decrypt = decrypt);
        backend.set_bad_tag(codes::GENERAL_ERROR);
        backend.always("C_GenerateKey", Some(Act::Return(codes::FUNCTION_NOT_SUPPORTED)));
        let token = super::start(&backend, settings(1));
        let bench = Bench { backend, key, token };
        super::wait_for(&bench.token, |state| *state == TokenState::Up).await;
        assert_eq!(bench.backend.calls("C_GenerateKey") > 0, !decrypt);
        let mut opening = bench.sealed().await;
        opening.tag[0] ^= 1;
        assert_eq!(fault(bench.decrypt(opening).await).kind, verdict);
    }
}

#[tokio::test]
async fn the_probe_key_is_made_although_the_token_fails_at_first() {
    let backend = support::memory::MemoryBackend::new();
    let key = backend.add(support::memory::MemoryKey::aes_256("key"));
    backend.set_bad_tag(codes::GENERAL_ERROR);
    for _ in 0..4 {
        backend.next("C_GenerateKey", Act::Return(codes::GENERAL_ERROR));
    }
    let token = super::start(&backend, settings(1));
    let bench = Bench { backend, key, token };
    super::wait_for(&bench.token, |state| *state == TokenState::Up).await;
    let mut opening = bench.sealed().await;
    opening.tag[0] ^= 1;
    assert_eq!(fault(bench.decrypt(opening).await).kind, FaultKind::BadCiphertext);
}
