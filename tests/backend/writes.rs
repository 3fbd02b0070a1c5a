//! `verify_writes`: an HSM that spoils some of what it encrypts, and the whole path of a request.

use serde_json::Value;
use support::memory::{Act, MemoryBackend, MemoryKey};
use support::request::encrypt_body;
use xksd::hsm::codes;
use xksd::hsm::key::Usage;
use xksd::keystore::VerifyWrites;

use crate::proxy::{Proxy, TEXT};

/// A proxy, and its HSM.
async fn proxy(verify_writes: VerifyWrites) -> (Proxy, MemoryBackend) {
    let hsm = MemoryBackend::new();
    hsm.add(MemoryKey::aes_256("key"));
    let usage = Usage { encrypt: true, ..Usage::default() };
    hsm.add(MemoryKey { usage, ..MemoryKey::aes_256("encrypt-only") });
    (Proxy::new(std::slice::from_ref(&hsm), verify_writes).await, hsm)
}

fn plain() -> Value {
    encrypt_body(TEXT, None)
}

fn with_cdiv() -> Value {
    let mut body = plain();
    body["ciphertextDataIntegrityValueAlgorithm"] = "SHA_256".into();
    body
}

/// One in a hundred encryptions has a wrong bit, in the ciphertext or in the tag. Gives how many of
/// the answers can't be decrypted.
async fn spoiled(proxy: &Proxy, hsm: &MemoryBackend, body: &Value) -> usize {
    let mut answers = Vec::new();
    for number in 0..1000 {
        if number % 100 == 50 {
            let act = if number % 200 == 50 { Act::FlipBit } else { Act::FlipTagBit };
            hsm.next("C_Encrypt", act);
        }
        // The second attempt succeeds: nobody is refused.
        answers.push(proxy.encrypt("key", body).await.expect("it is answered"));
    }
    let mut spoiled = 0;
    for answer in &answers {
        spoiled += usize::from(proxy.open(answer).await.is_err());
    }
    spoiled
}

#[tokio::test]
async fn always_means_that_nothing_undecryptable_is_answered() {
    let (proxy, hsm) = proxy(VerifyWrites::default()).await;
    assert_eq!(spoiled(&proxy, &hsm, &plain()).await, 0);
    assert_eq!(proxy.metric("xksd_write_checks_failed_total"), 10);
    assert_eq!(spoiled(&proxy, &hsm, &with_cdiv()).await, 0);
    assert_eq!(proxy.metric("xksd_write_checks_failed_total"), 20);
    assert!(
        proxy
            .encrypt("key", &plain())
            .await
            .expect("it is answered")
            .get("ciphertextDataIntegrityValue")
            .is_none()
    );
}

#[tokio::test]
async fn when_asked_proves_what_has_a_cdiv_p_43() {
    let (proxy, hsm) = proxy(VerifyWrites::WhenAsked).await;
    assert_eq!(spoiled(&proxy, &hsm, &with_cdiv()).await, 0);
    assert_eq!(proxy.metric("xksd_write_checks_failed_total"), 10);
    // What is left to KMS, and the other tests show to be noticed: these ten are lost.
    assert_eq!(spoiled(&proxy, &hsm, &plain()).await, 10);
}

#[tokio::test]
async fn an_hsm_that_spoils_everything_gets_nothing_answered() {
    let (proxy, hsm) = proxy(VerifyWrites::Always).await;
    for act in [Act::FlipBit, Act::FlipTagBit] {
        hsm.always("C_Encrypt", Some(act));
        assert_eq!(proxy.encrypt("key", &plain()).await, Err(500));
        assert_eq!(proxy.encrypt("key", &with_cdiv()).await, Err(500));
    }
    hsm.always("C_Encrypt", None);
    // Nor is an answer given whose check did not come to an end.
    hsm.always("C_Decrypt", Some(Act::Return(codes::HOST_MEMORY)));
    assert!(proxy.encrypt("key", &plain()).await.is_err());
}

#[tokio::test]
async fn a_key_that_does_not_decrypt_is_skipped_and_counted() {
    let (proxy, hsm) = proxy(VerifyWrites::Always).await;
    for skipped in 1..=2 {
        let sealed = proxy.encrypt("encrypt-only", &plain()).await;
        assert!(sealed.is_ok(), "{sealed:?}");
        assert_eq!(proxy.metric("xksd_write_checks_skipped_total"), skipped);
    }
    // P-46: with a CDIV it is refused, before any call to the HSM.
    let before = hsm.calls("C_EncryptInit");
    assert_eq!(proxy.encrypt("encrypt-only", &with_cdiv()).await, Err(400));
    assert_eq!(hsm.calls("C_EncryptInit"), before);
    assert_eq!(proxy.metric("xksd_write_checks_skipped_total"), 2);
    let (asked, _hsm) = self::proxy(VerifyWrites::WhenAsked).await;
    assert!(asked.encrypt("encrypt-only", &plain()).await.is_ok());
    assert_eq!(asked.metric("xksd_write_checks_skipped_total"), 0);
}

#[tokio::test]
async fn each_check_is_one_decryption() {
    for (verify_writes, checks) in
        [(VerifyWrites::WhenAsked, [0, 1]), (VerifyWrites::Always, [1, 1])]
    {
        let (proxy, hsm) = self::proxy(verify_writes).await;
        for (body, checks) in [plain(), with_cdiv()].iter().zip(checks) {
            let count = |name| hsm.calls(name);
            let before = (count("C_Encrypt"), count("C_Decrypt"));
            proxy.encrypt("key", body).await.expect("it is answered");
            assert_eq!((count("C_Encrypt"), count("C_Decrypt")), (before.0 + 1, before.1 + checks));
        }
    }
}
