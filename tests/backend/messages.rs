//! The message functions of PKCS#11 3.0: kryoptic behind the shim, which counts and spoils.

use std::sync::Arc;

use support::child::{TokenAtHand, Way, with_token};
use support::contract::{BOTH, Keys, VALUE};
use support::foreign::{ForeignTool, Material};
use xksd::hsm::backend::{Backend, ObjectHandle, Sealed, Session};
use xksd::hsm::codes;
use xksd::hsm::fault::{Fault, FaultKind};
use xksd::hsm::iv::{IvPool, Moment};
use xksd::hsm::profile;
use xksd::secret::Plaintext;

use crate::contract::pkcs11_backend;
use crate::isolation::isolated_backend;

const AAD: &[u8] = b"aad";
const TEXT: &[u8] = b"sixteen byte iv";

fn key(session: &mut dyn Session) -> ObjectHandle {
    session.objects().expect("the token can be searched")[0]
}

fn add_key(token: &TokenAtHand) {
    let tool = ForeignTool::login(&token.module, &token.label, token.pin);
    Keys::add(&tool, b"key", b"", Material::Aes(VALUE), BOTH);
}

fn encrypt(session: &mut dyn Session, key: ObjectHandle) -> Result<Sealed, Fault> {
    let iv = IvPool::new(Arc::default()).for_encryption(session, Moment::now())?;
    session.encrypt(key, &iv, AAD, TEXT)
}

fn decrypt(
    session: &mut dyn Session,
    key: ObjectHandle,
    sealed: &Sealed,
) -> Result<Plaintext, Fault> {
    session.decrypt(key, sealed.iv.as_bytes(), AAD, &sealed.ciphertext, &sealed.tag)
}

/// Nothing else is called, not even for an IV.
fn is_one_call(token: &TokenAtHand, backend: &dyn Backend) {
    const TIMES: u64 = 200;
    add_key(token);
    let mut steward = backend.connect().expect("the token is there");
    let mut session = backend.open_session().expect("the token has room");
    let key = key(steward.as_mut());
    let before = token.counts();
    for _ in 0..TIMES {
        let sealed = encrypt(session.as_mut(), key).expect("the key encrypts");
        assert_eq!(decrypt(session.as_mut(), key, &sealed).expect("it fits").expose(), TEXT);
    }
    let counts = token.counts().since(&before);
    let mut called = counts.called();
    assert_eq!(called.remove("C_EncryptMessage"), Some(TIMES));
    assert_eq!(called.remove("C_DecryptMessage"), Some(TIMES));
    assert_eq!(called.remove("C_OpenSession"), Some(2));
    // An operation is begun anew each second.
    for function in ["C_MessageEncryptInit", "C_MessageDecryptInit"] {
        let begun = called.remove(function).expect("it has to be begun");
        assert!(begun < TIMES / 4, "{begun} times {function}");
    }
    called.remove("C_MessageEncryptFinal");
    called.remove("C_MessageDecryptFinal");
    assert!(called.is_empty(), "{called:?}");
}

#[test]
fn an_operation_is_one_call() {
    with_token("messages::an_operation_is_one_call", Way::ShimKryoptic, |token| {
        is_one_call(token, &pkcs11_backend(token));
    });
}

#[test]
fn an_operation_is_one_call_in_a_process_of_its_own() {
    let test = "messages::an_operation_is_one_call_in_a_process_of_its_own";
    with_token(test, Way::ShimKryoptic, |token| is_one_call(token, &isolated_backend(token)));
}

/// What a module claims and does not prove is not used, and costs nothing but a call.
#[test]
fn what_is_not_proved_is_not_used() {
    with_token("messages::what_is_not_proved_is_not_used", Way::ShimKryoptic, |token| {
        add_key(token);
        for script in [
            "C_EncryptMessage flip",
            "C_EncryptMessage short",
            "C_EncryptMessage long",
            "C_EncryptMessage iv in-place same",
            "C_EncryptMessage return CKR_FUNCTION_NOT_SUPPORTED",
            "C_DecryptMessage flip nth 3",
            "C_DecryptMessage return CKR_OK after",
            "C_MessageEncryptInit return CKR_MECHANISM_INVALID",
            "C_MessageDecryptInit nth 2 return CKR_DEVICE_ERROR",
        ] {
            token.script(script);
            let backend = pkcs11_backend(token);
            let mut session = backend.connect().expect("it can be used all the same");
            assert!(!session.makes_ivs(), "{script}");
            let key = key(session.as_mut());
            let sealed = encrypt(session.as_mut(), key).expect("it encrypts by two calls");
            assert_eq!(decrypt(session.as_mut(), key, &sealed).expect("it fits").expose(), TEXT);
            token.script("");
            assert!(pkcs11_backend(token).connect().expect("it is there").makes_ivs(), "{script}");
        }
        // Of an IV of the shim's own making: nothing is wrong with it.
        token.script("C_EncryptMessage iv in-place");
        assert!(pkcs11_backend(token).connect().expect("it is there").makes_ivs());
    });
}

/// A module of PKCS#11 2.40 by another name, and one whose newer functions do nothing.
#[test]
fn a_module_without_them_is_asked_and_used_as_ever() {
    let test = "messages::a_module_without_them_is_asked_and_used_as_ever";
    with_token(test, Way::Shim, |token| {
        add_key(token);
        let backend = pkcs11_backend(token).with_profile(Some(&profile::KRYOPTIC));
        let mut session = backend.connect().expect("the token is there");
        assert!(!session.makes_ivs());
        let key = key(session.as_mut());
        encrypt(session.as_mut(), key).expect("it encrypts by two calls");
        assert!(token.counts().of("C_MessageEncryptInit") > 0);
        // By its own name nobody would ask.
        let before = token.counts();
        pkcs11_backend(token).connect().expect("the token is there");
        assert_eq!(token.counts().since(&before).of("C_MessageEncryptInit"), 0);
    });
}

/// A generator that stands still after it has proved that it does not.
#[test]
fn an_iv_that_comes_again_ends_the_use_of_the_token() {
    let test = "messages::an_iv_that_comes_again_ends_the_use_of_the_token";
    with_token(test, Way::ShimKryoptic, |token| {
        add_key(token);
        let backend = pkcs11_backend(token);
        let mut session = backend.connect().expect("the token is there");
        let key = key(session.as_mut());
        token.script("C_EncryptMessage iv in-place same");
        encrypt(session.as_mut(), key).expect("the first is new");
        let fault = encrypt(session.as_mut(), key).expect_err("it came before");
        assert_eq!(fault.kind, FaultKind::TokenLost);
        token.script("");
        assert!(backend.connect().is_err(), "never again");
    });
}

/// A flipped bit is found by the decryption that checks it, and by nothing else.
#[test]
fn a_flipped_bit_is_found_by_the_check() {
    with_token("messages::a_flipped_bit_is_found_by_the_check", Way::ShimKryoptic, |token| {
        add_key(token);
        let backend = pkcs11_backend(token);
        let mut session = backend.connect().expect("the token is there");
        let key = key(session.as_mut());
        token.script("C_EncryptMessage flip every 2");
        for _ in 0..10 {
            let good = encrypt(session.as_mut(), key).expect("the key encrypts");
            assert_eq!(decrypt(session.as_mut(), key, &good).expect("it fits").expose(), TEXT);
            let bad = encrypt(session.as_mut(), key).expect("it claims to");
            let fault = decrypt(session.as_mut(), key, &bad).expect_err("it does not fit");
            assert_eq!(fault.kind, FaultKind::BadCiphertext);
        }
    });
}

/// Whatever is answered, what is encrypted afterwards can be decrypted, here and by two calls; before
/// and after the module has done what it denies.
#[test]
fn no_code_of_any_message_function_loses_anything() {
    let test = "messages::no_code_of_any_message_function_loses_anything";
    with_token(test, Way::ShimKryoptic, |token| {
        add_key(token);
        let backend = pkcs11_backend(token);
        let mut steward = backend.connect().expect("the token is there");
        let key = key(steward.as_mut());
        let mut session = backend.open_session().expect("the token has room");
        let mut exchanged = 0;
        let failing = codes::ALL.iter().filter(|(code, _)| *code != codes::OK);
        for (code, name) in failing {
            for function in ["C_MessageEncryptInit", "C_EncryptMessage", "C_DecryptMessage"] {
                for when in ["", " after"] {
                    token.script(&format!("{function} nth 1 return {name}{when}"));
                    // As when the keys are read: operations are begun anew.
                    steward.keys_were_read().expect("the token is there");
                    for _ in 0..2 {
                        let sealed = encrypt(session.as_mut(), key);
                        let checked = sealed.and_then(|sealed| {
                            let opened = decrypt(session.as_mut(), key, &sealed)?;
                            assert_eq!(opened.expose(), TEXT, "{function} {name}");
                            Ok(())
                        });
                        if let Err(fault) = checked {
                            assert!(fault.function.contains("Message"), "{fault}");
                            if !fault.kind.keeps_session() {
                                session = backend.open_session().expect("the token has room");
                                exchanged += 1;
                            }
                        }
                    }
                    let sealed = encrypt(session.as_mut(), key).unwrap_or_else(|fault| {
                        panic!("after {function} {name} ({code}){when}: {fault}")
                    });
                    let opened = decrypt(session.as_mut(), key, &sealed).expect("it fits");
                    assert_eq!(opened.expose(), TEXT, "{function} {name}");
                }
            }
        }
        assert!(exchanged > 50, "{exchanged} sessions were replaced");
        // By two calls, in a connection of its own.
        token.script("");
        let sealed = encrypt(session.as_mut(), key).expect("the key encrypts");
        let two = pkcs11_backend(token).with_profile(Some(&profile::GENERIC));
        let mut two = two.connect().expect("the token is there");
        let key = self::key(two.as_mut());
        assert_eq!(decrypt(two.as_mut(), key, &sealed).expect("it fits").expose(), TEXT);
    });
}
