//! Several tokens of one key store: which of them is used for what, and what callers notice when
//! one of them fails.

use std::time::Duration;

use serde_json::json;
use support::gate::{Gate, PATIENCE};
use support::memory::{Act, KeyRef, MemoryBackend, MemoryKey};
use support::request::encrypt_body;
use xksd::hsm::codes;
use xksd::hsm::key::Usage;
use xksd::hsm::token::{Settings, TokenState};
use xksd::keystore::VerifyWrites;

use crate::proxy::{Proxy, TEXT, settings};

/// A token that holds the key `key`, of this material.
fn with_key(value: [u8; 32]) -> (MemoryBackend, KeyRef) {
    let hsm = MemoryBackend::new();
    let key = hsm.add(MemoryKey { value, ..MemoryKey::aes_256("key") });
    (hsm, key)
}

/// Two tokens with the same key, both of them in use.
async fn twins() -> ([MemoryBackend; 2], Proxy) {
    let hsms = [with_key([7; 32]).0, with_key([7; 32]).0];
    let proxy = Proxy::new(&hsms, VerifyWrites::WhenAsked).await;
    proved(&proxy).await;
    (hsms, proxy)
}

/// Waits until both tokens' keys are in use.
async fn proved(proxy: &Proxy) {
    for token in 0..2 {
        standing(proxy, token, "proved", 1).await;
    }
}

async fn standing(proxy: &Proxy, token: usize, standing: &str, versions: u64) {
    let labels = format!("{{standing=\"{standing}\",token=\"hsm-{token}\"}}");
    proxy.wait_for_metric(&format!("xksd_hsm_key_versions{labels}"), versions).await;
}

/// How often each token has encrypted since the last time.
fn encryptions(hsms: &[MemoryBackend]) -> Vec<u64> {
    hsms.iter().map(|hsm| hsm.calls("C_Encrypt")).collect()
}

async fn health(proxy: &Proxy) -> Vec<String> {
    let body = json!({"requestMetadata": {"kmsRequestId": "1", "kmsOperation": "KmsHealthCheck"}});
    let answer = proxy.ask("health", &body).await.expect("health is always answered");
    let ekms = answer["ekmFleetDetails"].as_array().expect("it is a list").clone();
    ekms.iter().map(|ekm| ekm["healthStatus"].as_str().expect("it is text").to_owned()).collect()
}

/// From now on the token fails whatever it is asked.
fn unplug(hsm: &MemoryBackend) {
    for function in ["C_EncryptInit", "C_DecryptInit", "C_OpenSession", "C_FindObjects"] {
        hsm.always(function, Some(Act::Return(codes::DEVICE_REMOVED)));
    }
}

fn plug_in(hsm: &MemoryBackend) {
    for function in ["C_EncryptInit", "C_DecryptInit", "C_OpenSession", "C_FindObjects"] {
        hsm.always(function, None);
    }
}

fn is_down(state: TokenState) -> bool {
    matches!(state, TokenState::Down(_))
}

#[tokio::test]
async fn requests_are_spread_over_both() {
    let (hsms, proxy) = twins().await;
    let before = encryptions(&hsms);
    let mut sealed = Vec::new();
    for _ in 0..100 {
        sealed.push(proxy.seal().await.expect("it is answered"));
    }
    let after = encryptions(&hsms);
    let each: Vec<u64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
    // However slow one of them is on a busy machine: it has its turn.
    assert!(each.iter().all(|count| *count >= 2), "{each:?}");
    for sealed in &sealed {
        assert_eq!(proxy.open(sealed).await, Ok(()));
    }
}

#[tokio::test]
async fn one_that_fails_costs_no_request() {
    let (hsms, proxy) = twins().await;
    for broken in [0, 1] {
        unplug(&hsms[broken]);
        for _ in 0..20 {
            let sealed = proxy.seal().await.expect("the other encrypts");
            assert_eq!(proxy.open(&sealed).await, Ok(()));
        }
        proxy.wait_for(broken, is_down).await;
        let sealed = proxy.seal().await.expect("the other encrypts");
        plug_in(&hsms[broken]);
        proxy.wait_for(broken, |state| state == TokenState::Up).await;
        proved(&proxy).await;
        assert_eq!(proxy.open(&sealed).await, Ok(()));
    }
    assert!(proxy.metric("xksd_hsm_failovers_total") > 0);
}

#[tokio::test]
async fn every_fault_of_one_is_made_good_by_the_other() {
    for &(code, name) in codes::ALL {
        for function in ["C_EncryptInit", "C_Encrypt"] {
            if code == codes::OK {
                continue;
            }
            let (hsms, proxy) = twins().await;
            hsms[0].always(function, Some(Act::Return(code)));
            let before = encryptions(&hsms);
            // They take turns: one of two comes by it.
            for _ in 0..2 {
                let answer = proxy.seal().await;
                assert!(answer.is_ok(), "{name} from {function}: {answer:?}");
            }
            let after = encryptions(&hsms);
            assert!(after[1] - before[1] >= 2, "{name} from {function}: {before:?} {after:?}");
        }
    }
}

#[tokio::test]
async fn a_marker_on_one_token_freezes_the_key_store() {
    let (hsms, proxy) = twins().await;
    let sealed = proxy.seal().await.expect("it is not frozen");
    let body = json!({"requestMetadata": {
        "kmsRequestId": "1", "kmsOperation": "DescribeKey", "awsPrincipalArn": "arn:aws:iam::1:root"
    }});
    let status = async || {
        let described = proxy.ask("keys/key/metadata", &body).await.expect("it is described");
        described["keyStatus"].as_str().expect("it is text").to_owned()
    };
    // Somebody else's is of no account.
    hsms[0].add(MemoryKey::aes_256("xksd:freeze:others"));
    for name in ["memory", "*"] {
        while status().await != "ENABLED" {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let marker = hsms[1].add(MemoryKey::aes_256(format!("xksd:freeze:{name}")));
        proxy.tokens[1].ask_for_reading();
        while status().await != "DISABLED" {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let before = encryptions(&hsms);
        assert_eq!(proxy.seal().await, Err(400));
        assert_eq!(proxy.open(&sealed).await, Err("InvalidStateException".into()));
        assert_eq!(encryptions(&hsms), before);
        // Nor does it help to have the token with the marker out of the way.
        unplug(&hsms[1]);
        proxy.tokens[1].ask_for_reading();
        proxy.wait_for(1, is_down).await;
        assert_eq!(proxy.seal().await, Err(400));
        hsms[1].destroy(marker);
        plug_in(&hsms[1]);
        settled(&proxy).await;
    }
    while status().await != "ENABLED" {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(proxy.open(&sealed).await, Ok(()));
}

/// Waits until both serve again.
async fn settled(proxy: &Proxy) {
    for token in 0..2 {
        proxy.wait_for(token, |state| state == TokenState::Up).await;
    }
    proved(proxy).await;
}

#[tokio::test]
async fn one_that_hangs_is_left_after_its_attempt_limit_and_then_spared() {
    let hsms = [with_key([7; 32]).0, with_key([7; 32]).0];
    let limited = Settings { attempt_limit: Duration::from_millis(20), ..settings() };
    let proxy = Proxy::start(&hsms, VerifyWrites::WhenAsked, limited, PATIENCE);
    settled(&proxy).await;
    let gate = Gate::closed();
    for function in ["C_EncryptInit", "C_GenerateRandom"] {
        hsms[0].always(function, Some(Act::Hang(gate.clone())));
    }
    while proxy.tokens[0].state() != TokenState::Suspect {
        proxy.seal().await.expect("the other encrypts");
    }
    // The steward hangs in its probe: the token stays suspect, and nobody waits for it.
    let before = proxy.metric("xksd_hsm_failovers_total");
    for _ in 0..20 {
        proxy.seal().await.expect("the other encrypts");
    }
    assert_eq!(proxy.metric("xksd_hsm_failovers_total"), before);
    for function in ["C_EncryptInit", "C_GenerateRandom"] {
        hsms[0].always(function, None);
    }
    gate.open();
    proxy.wait_for(0, |state| state == TokenState::Up).await;
}

#[tokio::test]
async fn a_token_with_another_key_of_that_name_is_never_used() {
    let hsms = [with_key([7; 32]).0, with_key([8; 32]).0];
    let proxy = Proxy::new(&hsms, VerifyWrites::WhenAsked).await;
    standing(&proxy, 1, "unequal", 1).await;
    let before = encryptions(&hsms);
    for _ in 0..20 {
        let sealed = proxy.seal().await.expect("the first encrypts");
        assert_eq!(proxy.open(&sealed).await, Ok(()));
    }
    assert_eq!(encryptions(&hsms)[1], before[1]);
    assert_eq!(health(&proxy).await, ["ACTIVE", "DEGRADED"]);
    // Nor when it is the only one left: what it made could not be decrypted by the others.
    unplug(&hsms[0]);
    while !is_down(proxy.tokens[0].state()) {
        let _ = proxy.seal().await;
    }
    assert_eq!(proxy.seal().await, Err(500));
    assert_eq!(encryptions(&hsms)[1], before[1]);
    assert_eq!(health(&proxy).await, ["UNAVAILABLE", "DEGRADED"]);
}

#[tokio::test]
async fn a_token_that_comes_back_with_another_key_is_not_used_again() {
    let ([first, second], proxy) = {
        let (first, _) = with_key([7; 32]);
        let (second, key) = with_key([7; 32]);
        let proxy = Proxy::new(&[first.clone(), second.clone()], VerifyWrites::WhenAsked).await;
        proved(&proxy).await;
        unplug(&second);
        while !is_down(proxy.tokens[1].state()) {
            proxy.seal().await.expect("the other encrypts");
        }
        second.change(key, |key| key.value = [9; 32]);
        ([first, second], proxy)
    };
    plug_in(&second);
    standing(&proxy, 1, "unequal", 1).await;
    let before = encryptions(&[first, second.clone()]);
    for _ in 0..10 {
        proxy.seal().await.expect("the first encrypts");
    }
    assert_eq!(second.calls("C_Encrypt"), before[1]);
}

#[tokio::test]
async fn a_key_that_one_lacks_is_served_by_the_other_and_told_of() {
    let hsms = [MemoryBackend::new(), with_key([7; 32]).0];
    hsms[0].add(MemoryKey { value: [1; 32], ..MemoryKey::aes_256("both") });
    hsms[1].add(MemoryKey { value: [1; 32], ..MemoryKey::aes_256("both") });
    let proxy = Proxy::new(&hsms, VerifyWrites::WhenAsked).await;
    standing(&proxy, 0, "missing", 1).await;
    standing(&proxy, 1, "only", 1).await;
    for _ in 0..5 {
        let sealed = proxy.seal().await.expect("the second has it");
        assert_eq!(proxy.open(&sealed).await, Ok(()));
    }
    // P-63
    assert_eq!(health(&proxy).await, ["DEGRADED", "ACTIVE"]);
    // It is made up for, and noticed.
    hsms[0].add(MemoryKey { value: [7; 32], ..MemoryKey::aes_256("key") });
    proxy.tokens[0].ask_for_reading();
    standing(&proxy, 0, "missing", 0).await;
    standing(&proxy, 0, "proved", 2).await;
    assert_eq!(health(&proxy).await, ["ACTIVE", "ACTIVE"]);
}

#[tokio::test]
async fn that_a_key_does_not_exist_is_said_only_when_all_were_read() {
    let (hsms, proxy) = twins().await;
    let body = encrypt_body(TEXT, None);
    assert_eq!(proxy.encrypt("none", &body).await, Err(404));
    // One that is made on either is found.
    hsms[1].add(MemoryKey::aes_256("new"));
    assert!(proxy.encrypt("new", &body).await.is_ok());
    unplug(&hsms[0]);
    while !is_down(proxy.tokens[0].state()) {
        proxy.seal().await.expect("the other encrypts");
    }
    // KMS would take a 404 as final, and the one that is down may hold it.
    assert_eq!(proxy.encrypt("none", &body).await, Err(500));
    hsms[1].add(MemoryKey::aes_256("newer"));
    assert!(proxy.encrypt("newer", &body).await.is_ok());
}

#[tokio::test]
async fn the_second_serves_alone_from_the_start_and_says_nothing_final_of_ciphertexts() {
    let hsms = [with_key([8; 32]).0, with_key([7; 32]).0];
    unplug(&hsms[0]);
    let proxy = Proxy::start(&hsms, VerifyWrites::WhenAsked, settings(), PATIENCE);
    proxy.wait_for(0, is_down).await;
    proxy.wait_for(1, |state| state == TokenState::Up).await;
    let sealed = proxy.seal().await.expect("the second encrypts");
    assert_eq!(proxy.open(&sealed).await, Ok(()));
    // The first one's key may have made it.
    let mut other = sealed.clone();
    other["authenticationTag"] = support::request::base64(&[0; 16]).into();
    assert_eq!(proxy.open(&other).await, Err("InternalException".into()));
    // The first comes back with another key: what is in use stays in use.
    plug_in(&hsms[0]);
    standing(&proxy, 0, "unequal", 1).await;
    assert_eq!(proxy.open(&sealed).await, Ok(()));
}

#[tokio::test]
async fn a_key_that_cannot_be_tried_is_compared_by_its_check_value() {
    let usage = Usage { encrypt: true, ..Usage::default() };
    let key = |check_value| MemoryKey { usage, check_value, ..MemoryKey::aes_256("key") };
    let cases = [
        (Some([1, 2, 3]), Some([1, 2, 3]), "proved"),
        (Some([1, 2, 3]), Some([1, 2, 4]), "unequal"),
        (Some([1, 2, 3]), None, "unproved"),
        (None, None, "unproved"),
    ];
    for (first, second, wanted) in cases {
        let hsms = [MemoryBackend::new(), MemoryBackend::new()];
        hsms[0].add(key(first));
        hsms[1].add(key(second));
        let proxy = Proxy::new(&hsms, VerifyWrites::WhenAsked).await;
        standing(&proxy, 1, wanted, 1).await;
        let before = hsms[1].calls("C_Encrypt");
        for _ in 0..10 {
            proxy.seal().await.expect("the first encrypts in any case");
        }
        assert_eq!(hsms[1].calls("C_Encrypt") > before, wanted == "proved", "{wanted}");
    }
}

#[tokio::test]
async fn the_state_of_the_higher_epoch_counts_even_of_a_token_that_has_gone() {
    let id =
        |status: &str, epoch| format!("xksd1:0f8e4a5b6c7d8e9f:1:{status}:{epoch}:20261121:-:-");
    let key = |status: &str, epoch| MemoryKey {
        id: id(status, epoch).into(),
        value: [7; 32],
        ..MemoryKey::aes_256("key")
    };
    let hsms = [MemoryBackend::new(), MemoryBackend::new()];
    let first = hsms[0].add(key("disabled", 2));
    hsms[1].add(key("enabled", 1));
    let proxy = Proxy::new(&hsms, VerifyWrites::WhenAsked).await;
    let body = encrypt_body(TEXT, None);
    let encrypt = async || proxy.ask("keys/key/encrypt", &body).await.map_err(|(_, name)| name);
    let disabled = Err("InvalidStateException".to_owned());
    assert_eq!(encrypt().await, disabled);
    unplug(&hsms[0]);
    proxy.tokens[0].ask_for_reading();
    proxy.wait_for(0, is_down).await;
    assert_eq!(encrypt().await, disabled);
    // Enabled again there, by a higher epoch still.
    hsms[0].change(first, |changed| changed.id = id("enabled", 3).into());
    plug_in(&hsms[0]);
    proxy.wait_for(0, |state| state == TokenState::Up).await;
    standing(&proxy, 0, "proved", 1).await;
    assert!(encrypt().await.is_ok());
}
