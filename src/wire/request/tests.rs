use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn b64(bytes: &[u8]) -> Value {
    json!(STANDARD.encode(bytes))
}

fn metadata() -> Value {
    json!({
        "awsPrincipalArn": "arn:aws:iam::123456789012:user/Alice",
        "kmsKeyArn": "arn:aws:kms:us-east-2:111122223333:key/1",
        "kmsOperation": "GenerateDataKey",
        "kmsRequestId": "4112f4d6",
    })
}

fn encrypt() -> Value {
    json!({
        "requestMetadata": metadata(),
        "additionalAuthenticatedData": b64(b"project=nile"),
        "plaintext": b64(b"Hello World!"),
        "encryptionAlgorithm": "AES_GCM",
        "ciphertextDataIntegrityValueAlgorithm": "SHA_256",
    })
}

fn decrypt() -> Value {
    json!({
        "requestMetadata": metadata(),
        "additionalAuthenticatedData": b64(b"project=nile"),
        "encryptionAlgorithm": "AES_GCM",
        "ciphertext": b64(b"cipher"),
        "ciphertextMetadata": b64(&[1; 13]),
        "initializationVector": b64(&[2; 12]),
        "authenticationTag": b64(&[3; 16]),
    })
}

fn with(mut request: Value, member: &str, value: Value) -> Value {
    request[member] = value;
    request
}

/// Parses a request to encrypt or to decrypt, whichever it looks like.
fn parse(request: &Value) -> Result<(), RequestError> {
    parse_within(request, Limits::default())
}

fn parse_within(request: &Value, limits: Limits) -> Result<(), RequestError> {
    let body = request.to_string();
    let result = if request.get("authenticationTag").is_some() {
        DecryptRequest::parse(body.as_bytes(), limits).map(|_| ())
    } else {
        EncryptRequest::parse(body.as_bytes(), limits).map(|_| ())
    };
    result.map_err(|rejected| {
        assert_eq!(rejected.metadata.kms_request_id(), "4112f4d6");
        rejected.error
    })
}

#[test]
fn an_encrypt_request_is_read_p_40() {
    let request = EncryptRequest::parse(encrypt().to_string().as_bytes(), Limits::default());
    let request = request.unwrap();
    assert_eq!(request.metadata.kms_operation(), "GenerateDataKey");
    assert_eq!(request.plaintext.expose(), b"Hello World!");
    assert_eq!(request.aad.as_deref(), Some(&b"project=nile"[..]));
    assert_eq!(request.integrity, IntegrityValue::Sha256);
    // P-45
    let shown = format!("{request:?}");
    assert!(!shown.contains("Hello") && !shown.contains("72, 101"), "{shown}");
}

#[test]
fn a_decrypt_request_is_read_p_50() {
    let request = DecryptRequest::parse(decrypt().to_string().as_bytes(), Limits::default());
    let request = request.unwrap();
    assert_eq!(request.metadata.kms_request_id(), "4112f4d6");
    assert_eq!(request.ciphertext, b"cipher");
    assert_eq!(request.iv, Iv::Twelve([2; 12]));
    assert_eq!(request.tag, Tag::new([3; 16]));
    assert_eq!(request.aad.as_deref(), Some(&b"project=nile"[..]));
    assert_eq!(request.ciphertext_metadata.as_deref(), Some(&[1; 13][..]));
    let sixteen = with(decrypt(), IV, b64(&[2; 16])).to_string();
    let request = DecryptRequest::parse(sixteen.as_bytes(), Limits::default()).unwrap();
    assert_eq!(request.iv, Iv::Sixteen([2; 16]));
}

#[test]
fn metadata_and_health_requests_are_read_p_20() {
    let body = json!({"requestMetadata": metadata()}).to_string();
    let request = MetadataRequest::parse(body.as_bytes()).unwrap();
    assert_eq!(request.metadata.kms_operation(), "GenerateDataKey");
    // P-62: health asks for two members, and no operation is unknown to it.
    let body = r#"{"requestMetadata": {"kmsRequestId": "", "kmsOperation": "NeverHeardOf"}}"#;
    let request = HealthRequest::parse(body.as_bytes()).unwrap();
    assert_eq!(request.metadata.kms_operation(), "NeverHeardOf");
    let missing = RequestError::Missing { member: "awsPrincipalArn" };
    assert_eq!(MetadataRequest::parse(body.as_bytes()).unwrap_err().error, missing);
}

#[test]
fn absent_and_empty_options_are_kept_apart_p_22() {
    for (value, expected) in
        [(Value::Null, None), (b64(b""), Some(vec![])), (b64(b"a"), Some(vec![b'a']))]
    {
        let body = with(with(decrypt(), AAD, value.clone()), CIPHERTEXT_METADATA, value.clone());
        let request =
            DecryptRequest::parse(body.to_string().as_bytes(), Limits::default()).unwrap();
        assert_eq!(request.aad, expected);
        assert_eq!(request.ciphertext_metadata, expected);
        let body = with(encrypt(), AAD, value).to_string();
        let request = EncryptRequest::parse(body.as_bytes(), Limits::default()).unwrap();
        assert_eq!(request.aad, expected);
    }
    let mut body = with(encrypt(), CDIV_ALGORITHM, Value::Null);
    body.as_object_mut().unwrap().remove(AAD);
    let request = EncryptRequest::parse(body.to_string().as_bytes(), Limits::default()).unwrap();
    assert_eq!(request.aad, None);
    assert_eq!(request.integrity, IntegrityValue::NotAsked);
}

#[test]
fn required_members_are_required_p_22_p_51() {
    let cases = [
        (encrypt(), &[PLAINTEXT, ALGORITHM][..]),
        (decrypt(), &[CIPHERTEXT, IV, TAG, ALGORITHM][..]),
    ];
    for (request, members) in cases {
        for &member in members {
            // The other operation would be guessed if the tag were gone: null is absent.
            let null = with(request.clone(), member, Value::Null);
            assert_eq!(parse(&null), Err(RequestError::Missing { member }));
            let empty = match member {
                ALGORITHM => RequestError::Algorithm { member, allowed: AES_GCM },
                _ => RequestError::Empty { member },
            };
            assert_eq!(parse(&with(request.clone(), member, json!(""))), Err(empty));
        }
    }
}

#[test]
fn types_and_base64_are_strict_p_22_p_40() {
    for (request, members) in [
        (encrypt(), &[PLAINTEXT, AAD][..]),
        (decrypt(), &[CIPHERTEXT, IV, TAG, AAD, CIPHERTEXT_METADATA][..]),
    ] {
        for &member in members {
            for bad in ["AA", "AA=", "A===", "-_-_", "AB==", "AA==\n", " AA==", "AA==AA==", "é"] {
                let request = with(request.clone(), member, json!(bad));
                assert_eq!(parse(&request), Err(RequestError::NotBase64 { member }), "{bad}");
            }
        }
        for &member in members.iter().chain(&[ALGORITHM]) {
            for other in [json!(1), json!(false), json!([]), json!({}), json!([65, 66])] {
                let wrong = RequestError::WrongType { member, expected: "a JSON string" };
                assert_eq!(parse(&with(request.clone(), member, other)), Err(wrong));
            }
        }
    }
}

#[test]
fn the_algorithms_are_those_of_version_1_p_23() {
    for bad in ["", "aes_gcm", "AES_GCM ", "AES_CBC", "AES_GCM_256"] {
        let error = RequestError::Algorithm { member: ALGORITHM, allowed: "AES_GCM" };
        for request in [encrypt(), decrypt()] {
            assert_eq!(parse(&with(request, ALGORITHM, json!(bad))), Err(error.clone()));
        }
    }
    for bad in ["", "sha_256", "SHA256", "SHA_512"] {
        let error = RequestError::Algorithm { member: CDIV_ALGORITHM, allowed: "SHA_256" };
        assert_eq!(parse(&with(encrypt(), CDIV_ALGORITHM, json!(bad))), Err(error));
    }
}

#[test]
fn iv_tag_and_metadata_have_their_lengths_p_51() {
    for len in 1..=64usize {
        for (member, allowed, fits) in [
            (IV, "12 or 16 bytes", len == 12 || len == 16),
            (TAG, "16 bytes", len == 16),
            (CIPHERTEXT_METADATA, "at most 20 bytes", len <= 20),
        ] {
            let result = parse(&with(decrypt(), member, b64(&vec![0; len])));
            let error = RequestError::Length { member, allowed, actual: len };
            assert_eq!(result, if fits { Ok(()) } else { Err(error) });
        }
    }
}

#[test]
fn sizes_over_the_limits_are_unsupported_p_23() {
    let lowest = Limits::new(4300, 8192).unwrap();
    for (limits, text, aad) in [(Limits::default(), 8192, 16384), (lowest, 4300, 8192)] {
        for (request, member, max) in [
            (encrypt(), PLAINTEXT, text),
            (encrypt(), AAD, aad),
            (decrypt(), CIPHERTEXT, text),
            (decrypt(), AAD, aad),
        ] {
            let sized = |len| with(request.clone(), member, b64(&vec![0; len]));
            assert_eq!(parse_within(&sized(1), limits), Ok(()));
            assert_eq!(parse_within(&sized(max), limits), Ok(()), "{member} {max}");
            for actual in [max + 1, 65_536] {
                let error = RequestError::Unsupported { member, max, actual };
                assert!(error.is_unsupported());
                assert_eq!(parse_within(&sized(actual), limits), Err(error));
            }
        }
    }
}

#[test]
fn broken_bodies_are_refused_p_22() {
    let good = encrypt().to_string();
    let parse = |body: &str| {
        EncryptRequest::parse(body.as_bytes(), Limits::default()).map_err(|rejected| rejected.error)
    };
    assert!(parse(&format!(" \t\r\n{good}\n ")).is_ok());
    assert_eq!(parse("").unwrap_err(), RequestError::NotAnObject);
    assert_eq!(parse(&format!("[{good}]")).unwrap_err(), RequestError::NotAnObject);
    for cut in 1..good.len() {
        let error = parse(&good[..cut]).unwrap_err();
        assert!(matches!(error, RequestError::Malformed { .. }), "{cut}: {error}");
    }
    for tail in ["x", "{}", ",", "\0", "\u{feff}"] {
        let error = parse(&format!("{good}{tail}")).unwrap_err();
        assert!(matches!(error, RequestError::Malformed { .. }), "{tail:?}: {error}");
    }
    for member in [REQUEST_METADATA, PLAINTEXT, AAD, ALGORITHM, CDIV_ALGORITHM] {
        let twice = format!("{{\"{member}\": null, {}", &good[1..]);
        assert_eq!(parse(&twice).unwrap_err(), RequestError::Duplicate { member });
    }
    // P-21: unknown members are accepted, on every level.
    assert!(parse(&format!("{{\"a\": [{{\"b\": null}}], {}", &good[1..])).is_ok());
    let twice = parse(&format!("{{\"a\": [{{\"b\": 1, \"b\": 1}}], {}", &good[1..])).unwrap_err();
    assert!(matches!(twice, RequestError::Duplicate { .. }));
    // A member of another operation is an unknown one.
    assert!(parse(&with(encrypt(), IV, json!(5)).to_string()).is_ok());
}

#[test]
fn a_refused_request_keeps_its_metadata_for_the_log() {
    let good = encrypt().to_string();
    let metadata = metadata();
    for body in [
        // A member twice after the metadata, and a body cut short.
        format!("{{\"requestMetadata\": {metadata}, \"x\": 1, \"x\": 2, {}", &good[1..]),
        format!("{{\"requestMetadata\": {metadata}, \"plaintext\": \"SGVs"),
        with(encrypt(), PLAINTEXT, json!(7)).to_string(),
        json!({"requestMetadata": {"kmsRequestId": "4112f4d6"}}).to_string(),
    ] {
        let rejected = EncryptRequest::parse(body.as_bytes(), Limits::default()).unwrap_err();
        assert_eq!(rejected.metadata.kms_request_id(), "4112f4d6", "{body}");
    }
    let rejected = EncryptRequest::parse(b"{", Limits::default()).unwrap_err();
    assert_eq!(*rejected.metadata, RequestMetadata::default());
}

#[test]
fn errors_hold_nothing_of_the_request_p_45() {
    // Whatever is wrong, no text of the request comes back in the message.
    for body in [
        with(encrypt(), PLAINTEXT, json!("CANARY")),
        with(encrypt(), PLAINTEXT, json!(["CANARY"])),
        with(encrypt(), ALGORITHM, json!("CANARY")),
        with(encrypt(), REQUEST_METADATA, json!("CANARY")),
        with(encrypt(), AAD, json!({"CANARY": "CANARY"})),
    ] {
        let body = body.to_string();
        let rejected = EncryptRequest::parse(body.as_bytes(), Limits::default()).unwrap_err();
        assert!(!format!("{rejected} {:?}", rejected.error).contains("CANARY"), "{rejected}");
    }
    let twice = br#"{"CANARY": 1, "CANARY": 2}"#;
    let rejected = EncryptRequest::parse(twice, Limits::default()).unwrap_err();
    assert!(!format!("{rejected:?} {rejected}").contains("CANARY"));
}

fn option() -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300))
}

proptest! {
    #[test]
    fn what_was_written_is_read_p_40_p_50(
        text in proptest::collection::vec(any::<u8>(), 1..300),
        aad in option(),
        iv in prop_oneof![any::<[u8; 12]>().prop_map(Iv::Twelve), any::<[u8; 16]>().prop_map(Iv::Sixteen)],
        tag: [u8; 16],
        metadata_bytes in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..=20)),
    ) {
        let base64 = |bytes: &Option<Vec<u8>>| bytes.as_deref().map_or(Value::Null, b64);
        let body = with(with(encrypt(), PLAINTEXT, b64(&text)), AAD, base64(&aad)).to_string();
        let request = EncryptRequest::parse(body.as_bytes(), Limits::default()).unwrap();
        prop_assert_eq!(request.plaintext.expose(), &text);
        prop_assert_eq!(&request.aad, &aad);

        let body = json!({
            "requestMetadata": metadata(), "encryptionAlgorithm": "AES_GCM",
            "ciphertext": b64(&text), "initializationVector": b64(iv.as_bytes()),
            "authenticationTag": b64(&tag), "additionalAuthenticatedData": base64(&aad),
            "ciphertextMetadata": base64(&metadata_bytes),
        });
        let request =
            DecryptRequest::parse(body.to_string().as_bytes(), Limits::default()).unwrap();
        prop_assert_eq!(request.ciphertext, text);
        prop_assert_eq!(request.iv, iv);
        prop_assert_eq!(request.tag, Tag::new(tag));
        prop_assert_eq!(request.aad, aad);
        prop_assert_eq!(request.ciphertext_metadata, metadata_bytes);
    }

    #[test]
    fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = MetadataRequest::parse(&body);
        let _ = HealthRequest::parse(&body);
        let _ = EncryptRequest::parse(&body, Limits::default());
        let _ = DecryptRequest::parse(&body, Limits::default());
    }

    #[test]
    fn no_changed_byte_panics(at in any::<prop::sample::Index>(), byte: u8) {
        for request in [encrypt(), decrypt()] {
            let mut body = request.to_string().into_bytes();
            let at = at.index(body.len());
            body[at] = byte;
            for rejected in [
                EncryptRequest::parse(&body, Limits::default()).err(),
                DecryptRequest::parse(&body, Limits::default()).err(),
            ].into_iter().flatten() {
                prop_assert!(rejected.to_string().bytes().all(|b| (0x20..=0x7e).contains(&b)));
            }
        }
    }
}
