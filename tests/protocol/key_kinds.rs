//! Keys that xksd did not make, keys of other kinds, and keys that may not be used.

use serde_json::json;
use support::request::{bare_body, decrypt_body, encrypt_body, unbase64};

use crate::world::{FOREIGN_KEY, INVALID_KEY_USAGE, INVALID_STATE, caller, daemon, demo};

/// A key made by another program works as it is: version 0, nobody's object id.
#[test]
fn a_foreign_key_is_version_0() {
    let kms = caller(&demo());
    let description = kms.accepted("keys/demo-foreign/metadata", &bare_body("CreateKey"));
    assert_eq!(description["keySpec"], "AES_256");
    assert_eq!(description["keyStatus"], "ENABLED");
    let sealed = kms.accepted("keys/demo-foreign/encrypt", &encrypt_body(b"Hello", Some(b"a")));
    let metadata = unbase64(&sealed["ciphertextMetadata"]);
    assert_eq!(metadata, [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let opened = kms.accepted("keys/demo-foreign/decrypt", &decrypt_body(&sealed, Some(b"a")));
    assert_eq!(unbase64(&opened["plaintext"]), b"Hello");

    // P-42, by an AES-GCM that is not the token's, over the frame as the specification has it.
    use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &FOREIGN_KEY).unwrap());
    let mut frame = vec![0, 1, b'a', 13];
    frame.extend_from_slice(&metadata);
    let mut text = unbase64(&sealed["ciphertext"]);
    text.extend(unbase64(&sealed["authenticationTag"]));
    let nonce =
        Nonce::try_assume_unique_for_key(&unbase64(&sealed["initializationVector"])).unwrap();
    assert_eq!(key.open_in_place(nonce, Aad::from(frame), &mut text).unwrap(), b"Hello");
}

/// P-30: other kinds are named truthfully, and KMS refuses them; no operation works with them.
#[test]
fn keys_of_other_kinds_are_named_truthfully() {
    let kms = caller(&demo());
    daemon().site.make_rsa("demo-rsa", b"\x20");
    for (key, spec) in [("demo-aes-128", "AES_128"), ("demo-rsa", "RSA_2048")] {
        let description = kms.accepted(&format!("keys/{key}/metadata"), &bare_body("CreateKey"));
        assert_eq!(description["keySpec"], spec);
        let body = encrypt_body(b"x", None);
        kms.refused(&format!("keys/{key}/encrypt"), &body, 400, INVALID_KEY_USAGE);
    }
}

/// P-30, P-70: a disabled key is described, and does nothing.
#[test]
fn a_disabled_key_is_described_and_nothing_else() {
    let kms = caller(&demo());
    let description = kms.accepted("keys/demo-disabled/metadata", &bare_body("DescribeKey"));
    assert_eq!(description["keyStatus"], json!("DISABLED"));
    kms.refused("keys/demo-disabled/encrypt", &encrypt_body(b"x", None), 400, INVALID_STATE);
    let sealed = kms.accepted("keys/demo-key/encrypt", &encrypt_body(b"x", None));
    let body = decrypt_body(&sealed, None);
    kms.refused("keys/demo-disabled/decrypt", &body, 400, INVALID_STATE);
}

/// P-6: a label that two foreign objects bear names no key without ambiguity.
#[test]
fn an_ambiguous_label_is_refused() {
    let kms = caller(&demo());
    for (operation, body) in
        [("metadata", bare_body("CreateKey")), ("encrypt", encrypt_body(b"x", None))]
    {
        kms.refused(&format!("keys/demo-twice/{operation}"), &body, 400, INVALID_STATE);
    }
}

/// A version that is not proved on every token yet is no key to encrypt with.
#[test]
fn a_pending_key_is_not_ready() {
    let kms = caller(&demo());
    kms.refused("keys/demo-pending/encrypt", &encrypt_body(b"x", None), 400, INVALID_STATE);
}
