//! The four operations, as they should go.

use serde_json::{Value, json};
use support::request::{bare_body, decrypt_body, encrypt_body, hex, sha256_hex, unbase64};

use crate::world::{INVALID_CIPHERTEXT, INVALID_KEY_USAGE, KEY_NOT_FOUND, caller, daemon, demo};

const AAD: &[u8] = b"project=nile,department=marketing";

/// P-40, P-41, P-50: what was encrypted is decrypted, at every size that has to work.
#[test]
fn a_plaintext_comes_back() {
    let kms = caller(&demo());
    for (plaintext, aad) in [(1, 0), (1, 1), (16, 8192), (4300, 8192), (8192, 16384)] {
        let (plaintext, aad) = (vec![0x5a; plaintext], vec![0xa5; aad]);
        let aad = (!aad.is_empty()).then_some(&*aad);
        let sealed = kms.accepted("keys/demo-key/encrypt", &encrypt_body(&plaintext, aad));
        assert_eq!(unbase64(&sealed["ciphertext"]).len(), plaintext.len());
        // One byte is what it was in one of 256 ciphertexts.
        if plaintext.len() > 1 {
            assert_ne!(unbase64(&sealed["ciphertext"]), plaintext);
        }
        assert_eq!(unbase64(&sealed["initializationVector"]).len(), 12);
        assert_eq!(unbase64(&sealed["authenticationTag"]).len(), 16);
        assert_eq!(unbase64(&sealed["ciphertextMetadata"]).len(), 13);
        assert_eq!(sealed.get("ciphertextDataIntegrityValue"), None, "P-41: only where asked for");
        let opened = kms.accepted("keys/demo-key/decrypt", &decrypt_body(&sealed, aad));
        assert_eq!(unbase64(&opened["plaintext"]), plaintext);
        assert_eq!(opened.as_object().unwrap().len(), 1);
    }
}

/// P-41: every encryption has an IV of its own.
#[test]
fn no_two_encryptions_are_alike() {
    let kms = caller(&demo());
    let seal = || kms.accepted("keys/demo-key/encrypt", &encrypt_body(b"the same", None));
    let ivs: std::collections::HashSet<_> =
        (0..70).map(|_| unbase64(&seal()["initializationVector"])).collect();
    assert_eq!(ivs.len(), 70);
}

/// P-43: the CDIV is that of the answer's own parts, raw and in this order; checked by a SHA-256
/// that is not the one of `wire::cdiv`'s caller.
#[test]
fn the_cdiv_covers_the_answer() {
    let kms = caller(&demo());
    for aad in [None, Some(&b""[..]), Some(AAD)] {
        let mut body = encrypt_body(b"data key", aad);
        body["ciphertextDataIntegrityValueAlgorithm"] = "SHA_256".into();
        let sealed = kms.accepted("keys/demo-key/encrypt", &body);
        let mut parts = aad.unwrap_or_default().to_vec();
        for member in
            ["ciphertextMetadata", "initializationVector", "ciphertext", "authenticationTag"]
        {
            parts.extend(unbase64(&sealed[member]));
        }
        let cdiv = hex(&unbase64(&sealed["ciphertextDataIntegrityValue"]));
        assert_eq!(cdiv, sha256_hex(&parts));
        let opened = kms.accepted("keys/demo-key/decrypt", &decrypt_body(&sealed, aad));
        assert_eq!(unbase64(&opened["plaintext"]), b"data key");
    }
}

/// P-44: the specification's worked example, by the SHA-256 that these tests check CDIVs with.
#[test]
fn these_tests_know_a_cdiv_when_they_see_one() {
    let parts = [
        hex(AAD),
        hex(b"key_version=1"),
        "1ccae5470f39700254779031821c642b5b71783367deaf18bc1c4dda7707d6812447c5955e99b261".into(),
    ];
    let expected = "a8703f2260bd8791ec2d15ea0b23e65a0631eedcf2a13a65cc82db3f47cf5ec7";
    assert_eq!(sha256_hex(&support::request::unhex(&parts.concat())), expected);
}

/// P-51: nothing that belongs to a ciphertext can be changed, left out or added.
#[test]
fn what_does_not_fit_is_an_invalid_ciphertext() {
    let kms = caller(&demo());
    let sealed = kms.accepted("keys/demo-key/encrypt", &encrypt_body(b"secret", Some(AAD)));
    let good = decrypt_body(&sealed, Some(AAD));
    let flip = |member: &str| {
        let mut bytes = unbase64(&good[member]);
        *bytes.last_mut().unwrap() ^= 1;
        support::request::base64(&bytes)
    };
    for member in [
        "ciphertext",
        "initializationVector",
        "authenticationTag",
        "ciphertextMetadata",
        "additionalAuthenticatedData",
    ] {
        let mut bad = good.clone();
        bad[member] = flip(member).into();
        kms.refused("keys/demo-key/decrypt", &bad, 400, INVALID_CIPHERTEXT);
    }
    for member in ["ciphertextMetadata", "additionalAuthenticatedData"] {
        let mut bad = good.clone();
        bad.as_object_mut().unwrap().remove(member);
        kms.refused("keys/demo-key/decrypt", &bad, 400, INVALID_CIPHERTEXT);
    }
    // The right key's name decides, not the metadata: another key of this key store.
    kms.refused("keys/demo-second/decrypt", &good, 400, INVALID_CIPHERTEXT);
    assert_eq!(kms.call("keys/demo-key/decrypt", &good).status, 200);
}

/// P-42: metadata cannot be passed off as AAD: the frame has lengths.
#[test]
fn metadata_are_not_aad() {
    let kms = caller(&demo());
    let sealed = kms.accepted("keys/demo-foreign/encrypt", &encrypt_body(b"secret", None));
    let mut bad = decrypt_body(&sealed, None);
    bad["additionalAuthenticatedData"] = bad["ciphertextMetadata"].clone();
    kms.refused("keys/demo-foreign/decrypt", &bad, 400, INVALID_CIPHERTEXT);
    bad.as_object_mut().unwrap().remove("ciphertextMetadata");
    kms.refused("keys/demo-foreign/decrypt", &bad, 400, INVALID_CIPHERTEXT);
}

/// P-30: what KMS wants to hear of a key that it may use.
#[test]
fn a_key_is_described() {
    let kms = caller(&demo());
    let metadata =
        |key: &str| kms.accepted(&format!("keys/{key}/metadata"), &bare_body("DescribeKey"));
    let usage = |key: &str| metadata(key)["keyUsage"].clone();
    assert_eq!(
        metadata("demo-key"),
        json!({"keySpec": "AES_256", "keyUsage": ["ENCRYPT", "DECRYPT"], "keyStatus": "ENABLED"})
    );
    assert_eq!(usage("demo-encrypt-only"), json!(["ENCRYPT"]));
    assert_eq!(usage("demo-decrypt-only"), json!(["DECRYPT"]));
    assert_eq!(usage("demo-no-use"), json!([]));
}

/// P-46, P-70: a key does what it is for and nothing else.
#[test]
fn usage_is_kept_to() {
    let kms = caller(&demo());
    let plain = encrypt_body(b"x", None);
    let mut checked = plain.clone();
    checked["ciphertextDataIntegrityValueAlgorithm"] = "SHA_256".into();
    let sealed = kms.accepted("keys/demo-encrypt-only/encrypt", &plain);
    let to_open = decrypt_body(&sealed, None);
    // P-46: with a CDIV, encryption promises a decryption.
    kms.refused("keys/demo-encrypt-only/encrypt", &checked, 400, INVALID_KEY_USAGE);
    kms.refused("keys/demo-encrypt-only/decrypt", &to_open, 400, INVALID_KEY_USAGE);
    for (key, body) in
        [("demo-decrypt-only", &plain), ("demo-decrypt-only", &checked), ("demo-no-use", &plain)]
    {
        kms.refused(&format!("keys/{key}/encrypt"), body, 400, INVALID_KEY_USAGE);
    }
}

/// P-60 to P-63: the health of the token behind the key store.
#[test]
fn health_is_reported() {
    let kms = caller(&demo());
    let health = kms.accepted("health", &bare_body("KmsHealthCheck"));
    let mut members: Vec<&String> = health.as_object().unwrap().keys().collect();
    members.sort();
    assert_eq!(
        members,
        ["ekmFleetDetails", "ekmVendor", "xksProxyFleetSize", "xksProxyModel", "xksProxyVendor"]
    );
    assert_eq!(health["xksProxyFleetSize"], 1);
    let fleet = health["ekmFleetDetails"].as_array().unwrap();
    assert_eq!(fleet.len(), 1);
    assert_eq!(fleet[0]["id"], "softhsm");
    assert_eq!(fleet[0]["healthStatus"], "ACTIVE", "P-61: probed before it was ready");
    for text in [
        &health["ekmVendor"],
        &health["xksProxyVendor"],
        &health["xksProxyModel"],
        &fleet[0]["model"],
    ] {
        assert!(!text.as_str().unwrap().is_empty(), "{health}");
    }
}

/// P-9: load balancers ask elsewhere, with a plain GET.
#[test]
fn load_balancers_are_told() {
    let daemon = daemon();
    assert_eq!(daemon.ask(daemon.ops, "/readyz").0, 200);
    assert_eq!(daemon.ask(daemon.ops, "/livez").0, 200);
    assert_eq!(daemon.ask(daemon.ops, "/kms/xks/v1/health").0, 404);
}

/// P-20, P-21, P-62: what KMS may send some day is taken today.
#[test]
fn tomorrows_requests_are_taken() {
    let kms = caller(&demo());
    for operation in ["KmsHealthCheck", "CreateCustomKeyStore", "ConnectCustomKeyStore", "Tomorrow"]
    {
        kms.accepted(
            "health",
            &json!({"requestMetadata": {"kmsRequestId": "", "kmsOperation": operation}}),
        );
    }
    let mut body = encrypt_body(b"x", None);
    body["requestMetadata"]["kmsOperation"] = "BulkEncrypt".into();
    body["requestMetadata"]["sourceIdentity"] = json!({"nested": [1, {"deep": null}]});
    body["requestMetadata"]["kmsRequestId"] = "not a UUID \u{1f511} \"\\\n".into();
    body["nitroAttestation"] = json!({"pcr0": "00"});
    body["additionalAuthenticatedData"] = Value::Null;
    body["ciphertextDataIntegrityValueAlgorithm"] = Value::Null;
    kms.accepted("keys/demo-key/encrypt", &body);
    // CreateKey has no KMS key yet, and AWS services are no ARN.
    let create = json!({"requestMetadata": {
        "awsPrincipalArn": "AWS Internal", "kmsOperation": "CreateKey", "kmsRequestId": "1"}});
    kms.accepted("keys/demo-key/metadata", &create);
    // P-20: ARNs of 2,048 characters.
    let mut body = encrypt_body(b"x", None);
    for arn in ["awsPrincipalArn", "kmsKeyArn"] {
        body["requestMetadata"][arn] = "a".repeat(2048).into();
    }
    kms.accepted("keys/demo-key/encrypt", &body);
}

/// A key that was made a moment ago, by another process, is there for the next request: nobody
/// waits for the next reading of the token, which is ten minutes away.
#[test]
fn a_new_key_is_found_at_once() {
    let kms = caller(&demo());
    kms.refused("keys/demo-new/encrypt", &encrypt_body(b"x", None), 404, KEY_NOT_FOUND);
    daemon().site.create_key("demo-new", "encrypt,decrypt");
    let sealed = kms.accepted("keys/demo-new/encrypt", &encrypt_body(b"x", None));
    kms.accepted("keys/demo-new/decrypt", &decrypt_body(&sealed, None));
}

/// P-81: each request leaves one line, with KMS's own id for it.
#[test]
fn each_request_is_logged() {
    let kms = caller(&demo());
    let mut body = encrypt_body(b"x", None);
    body["requestMetadata"]["kmsRequestId"] = "line-of-a-good-one".into();
    kms.accepted("keys/demo-key/encrypt", &body);
    let line = daemon().wait_for_line("line-of-a-good-one");
    let line: Value = serde_json::from_str(&line).unwrap();
    for (member, value) in [
        ("level", "INFO"),
        ("message", "request"),
        ("keystore", "demo"),
        ("op", "Encrypt"),
        ("key", "demo-key"),
        ("version", "1"),
        ("token", "softhsm"),
        ("outcome", "ok"),
        ("principal", "arn:aws:iam::123456789012:user/Alice"),
        ("region", "us-east-1"),
        ("access_key_id", demo().credentials[0].id.as_str()),
    ] {
        assert_eq!(line[member], value, "{member}: {line}");
    }
    for member in ["queue_ms", "hsm_ms", "total_ms"] {
        assert!(line[member].as_f64().is_some(), "{member}: {line}");
    }
    body["requestMetadata"]["kmsRequestId"] = "line-of-a-bad-one\r\nforged".into();
    body["plaintext"] = "?".into();
    kms.refused("keys/demo-key/encrypt", &body, 400, crate::world::VALIDATION);
    // P-22: escaped, so that nobody forges a line.
    let line: Value = serde_json::from_str(&daemon().wait_for_line("line-of-a-bad-one")).unwrap();
    assert_eq!(line["kms_request_id"], "line-of-a-bad-one\\r\\nforged");
    assert_eq!(
        (&line["outcome"], &line["error"]),
        (&json!("refused"), &json!("ValidationException"))
    );
}
