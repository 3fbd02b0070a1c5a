//! C calls per operation, counted by the shim in front of SoftHSM2.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::child::{TokenAtHand, Way, with_token};
use support::gate::PATIENCE;
use xksd::clock::Deadline;
use xksd::hsm::backend::{NewKeyUsage, ObjectHandle, Sealed};
use xksd::hsm::lanes::Lane;
use xksd::hsm::token::{Opening, Settings, Token, TokenError, TokenState};
use xksd::lifecycle::{Error, Kind, Office, Order, Refusal, bear};
use xksd::metrics::Metrics;
use xksd::secret::Plaintext;

use crate::contract::pkcs11_backend;

const TEXT: &[u8] = b"a secret of somebody's";

/// Makes a key as `xksd keys create` does.
fn create(token: &TokenAtHand, id: &str) -> Result<String, Error> {
    let name = "test".parse().expect("it is a token name");
    let mut office = Office::new([(name, pkcs11_backend(token).administer())]);
    let usage = NewKeyUsage { encrypt: true, decrypt: true };
    let id = id.parse().expect("it is an external key id");
    let birth = bear(&mut office, &id, &Order::generated(Kind::Create(usage), Duration::ZERO))?;
    Ok(birth.state.to_string())
}

/// A token that is up, with a key, one session, and nothing to do by itself.
async fn up(at_hand: &TokenAtHand) -> (Token, ObjectHandle) {
    create(at_hand, "key").expect("the token makes AES keys");
    let never = Duration::from_secs(3600);
    let settings = Settings {
        sessions: 1,
        queue: 8,
        catalogue_interval: never,
        probe_interval: never,
        attempt_limit: never,
    };
    let name: xksd::names::TokenName = "test".parse().expect("it is a token name");
    let metrics = Metrics::new().token(&name);
    let token = Token::start(name, settings, Arc::new(pkcs11_backend(at_hand)), metrics);
    let mut states = token.watch_state();
    let up = states.wait_for(|state| *state == TokenState::Up);
    tokio::time::timeout(PATIENCE, up).await.expect("it comes up").expect("it is there");
    let id = "key".parse().expect("it is an external key id");
    let key = token.catalogue().expect("it was read").find(&id).expect("it is there");
    let handle = key.expect("it is usable").newest().at;
    // The worker opens its session when the token is up; with this it has.
    encrypt(&token, handle).await;
    (token, handle)
}

async fn encrypt(token: &Token, key: ObjectHandle) -> Sealed {
    let text = Arc::new(Plaintext::new(TEXT.to_vec()));
    let (aad, deadline) = (b"aad"[..].into(), Deadline::after(PATIENCE));
    let sealed = token.encrypt(&Lane::Internal, key, aad, text, deadline).await;
    sealed.result.expect("the key encrypts")
}

async fn decrypt(
    token: &Token,
    key: ObjectHandle,
    opening: &Arc<Opening>,
) -> Result<Plaintext, TokenError> {
    token.decrypt(&Lane::Internal, key, opening.clone(), Deadline::after(PATIENCE)).await.result
}

fn run(test: &str, body: impl AsyncFnOnce(&TokenAtHand, Token, ObjectHandle)) {
    with_token(test, Way::Shim, |at_hand| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("the operating system gives a runtime");
        runtime.block_on(async {
            let (token, key) = up(at_hand).await;
            body(at_hand, token, key).await;
        });
    });
}

#[test]
fn encrypt_is_two_calls_and_one_for_many_ivs() {
    const BATCHES: u64 = 10;
    const BATCH: u64 = 64;
    run("counts::encrypt_is_two_calls_and_one_for_many_ivs", async |at_hand, token, key| {
        let (before, start) = (at_hand.counts(), Instant::now());
        for _ in 0..BATCHES * BATCH {
            encrypt(&token, key).await;
        }
        let took = start.elapsed();
        let after = at_hand.counts().since(&before);
        let mut called = after.called();
        let random = called.remove("C_GenerateRandom").expect("IVs are from the token");
        // Exactly one in 64, and one more for each second that this took, however long that was.
        assert!((BATCHES..=BATCHES + took.as_secs() + 1).contains(&random), "{random} fetched");
        let each = BATCHES * BATCH;
        assert_eq!(called, BTreeMap::from([("C_EncryptInit", each), ("C_Encrypt", each)]));
        assert!(token.stop(PATIENCE));
    });
}

#[test]
fn decrypt_is_two_calls() {
    run("counts::decrypt_is_two_calls", async |at_hand, token, key| {
        let Sealed { iv, ciphertext, tag } = encrypt(&token, key).await;
        let aad = b"aad"[..].into();
        let opening = Arc::new(Opening { iv: iv.as_bytes().to_vec(), aad, ciphertext, tag });
        let before = at_hand.counts();
        for calls in 1..=100 {
            let opened = decrypt(&token, key, &opening).await;
            assert_eq!(opened.expect("it fits").expose(), TEXT);
            let called = at_hand.counts().since(&before);
            let expected = BTreeMap::from([("C_DecryptInit", calls), ("C_Decrypt", calls)]);
            assert_eq!(called.called(), expected);
        }
        assert!(token.stop(PATIENCE));
    });
}

#[test]
fn garbage_costs_two_calls_and_seldom_more() {
    use xksd::hsm::fault::FaultKind;
    let test = "counts::garbage_costs_two_calls_and_seldom_more";
    run(test, async |at_hand, token, key| {
        const GARBAGE: u64 = 50;
        let aad = b"aad"[..].into();
        let opening = Opening { iv: vec![1; 12], aad, ciphertext: vec![2; 20], tag: [3; 16] };
        let opening = Arc::new(opening);
        let (before, start) = (at_hand.counts(), Instant::now());
        for _ in 0..GARBAGE {
            let opened = decrypt(&token, key, &opening).await;
            // P-51
            match opened {
                Err(TokenError::Fault(fault)) => assert_eq!(fault.kind, FaultKind::BadCiphertext),
                other => panic!("{other:?}"),
            }
        }
        // A canary for each 100 ms, and a second look for each 10.
        let took = u64::try_from(start.elapsed().as_millis()).expect("it is short");
        let most = 2 + took / 100 + took / 10;
        let after = at_hand.counts().since(&before);
        let more = after.of("C_Decrypt") - GARBAGE;
        assert!((2..=most).contains(&more), "{more} more in {took} ms");
        let each = GARBAGE + more;
        let expected = BTreeMap::from([("C_DecryptInit", each), ("C_Decrypt", each)]);
        assert_eq!(after.called(), expected);
        assert!(token.stop(PATIENCE));
    });
}

#[test]
fn a_search_is_always_ended() {
    run("counts::a_search_is_always_ended", async |at_hand, token, _key| {
        create(at_hand, "other").expect("the token makes AES keys");
        // P-6: one label, one key.
        let again = create(at_hand, "other");
        assert!(matches!(again, Err(Error::Refused(Refusal::Exists))), "{again:?}");
        let fresh =
            crate::token::catalogue_since(&token, Instant::now(), Deadline::after(PATIENCE)).await;
        assert_eq!(fresh.expect("the token can be read").len(), 2);
        assert!(token.stop(PATIENCE));
        let counts = at_hand.counts();
        assert_eq!(counts.of("C_FindObjectsInit"), counts.of("C_FindObjectsFinal"));
        assert_eq!(counts.of("C_Finalize"), 0);
    });
}

#[test]
fn a_wrong_pin_reaches_the_token_once() {
    with_token("counts::a_wrong_pin_reaches_the_token_once", Way::Shim, |at_hand| {
        let mut wrong = at_hand.clone();
        wrong.pin = "0000";
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("the operating system gives a runtime");
        runtime.block_on(async {
            let name: xksd::names::TokenName = "test".parse().expect("it is a token name");
            let metrics = Metrics::new().token(&name);
            let backend = Arc::new(pkcs11_backend(&wrong));
            let token = Token::start(name, Settings::default(), backend, metrics);
            let mut states = token.watch_state();
            let refused = states.wait_for(|state| *state == TokenState::PinRefused);
            tokio::time::timeout(PATIENCE, refused).await.expect("it comes").expect("it is there");
            let deadline = Deadline::after(Duration::from_millis(600));
            crate::token::catalogue_since(&token, Instant::now(), deadline)
                .await
                .expect_err("it is not tried");
            assert!(token.stop(PATIENCE));
        });
        assert_eq!(at_hand.counts().of("C_Login"), 1);
    });
}
