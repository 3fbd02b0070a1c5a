//! JSON and Base64, in and out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use serde_json::value::RawValue;
use xksd::secret::Plaintext;
use xksd::wire::cdiv::CdivInput;
use xksd::wire::ciphertext_format::CiphertextFormat;
use xksd::wire::ciphertext_metadata::CiphertextMetadata;
use xksd::wire::gcm::{Iv, Tag};
use xksd::wire::limits::Limits;
use xksd::wire::request::{DecryptRequest, EncryptRequest};
use xksd::wire::response::{DecryptResponse, EncryptResponse};

use crate::timing::compare;

/// What an AAD of KMS is about as long as: the canonical encryption context of an S3 object.
pub(crate) const AAD: &[u8] = &[0xa5; 120];

/// What KMS says of the request's origin.
pub(crate) fn metadata(operation: &str) -> serde_json::Value {
    json!({
        "awsPrincipalArn": "arn:aws:sts::111122223333:assumed-role/payments/i-0123456789abcdef0",
        "kmsKeyArn": "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "kmsOperation": operation,
        "kmsRequestId": "4112f4d6-db54-4af4-ae30-c55a22a8dfae",
        "kmsViaService": "s3.us-east-1.amazonaws.com",
    })
}

/// The body of an Encrypt with a CDIV.
pub(crate) fn encrypt_body(size: usize) -> Vec<u8> {
    let body = json!({
        "requestMetadata": metadata("GenerateDataKey"),
        "plaintext": STANDARD.encode(vec![0x5a; size]),
        "additionalAuthenticatedData": STANDARD.encode(AAD),
        "encryptionAlgorithm": "AES_GCM",
        "ciphertextDataIntegrityValueAlgorithm": "SHA_256",
    });
    body.to_string().into_bytes()
}

fn decrypt_body(size: usize) -> Vec<u8> {
    let body = json!({
        "requestMetadata": metadata("Decrypt"),
        "ciphertext": STANDARD.encode(vec![0x5a; size]),
        "additionalAuthenticatedData": STANDARD.encode(AAD),
        "encryptionAlgorithm": "AES_GCM",
        "initializationVector": STANDARD.encode(IV),
        "authenticationTag": STANDARD.encode(TAG),
        "ciphertextMetadata": STANDARD.encode(CiphertextMetadata::FOREIGN.encode()),
    });
    body.to_string().into_bytes()
}

/// Parsing: the floor scans the JSON once and decodes the same Base64 into a buffer that is at hand.
/// Writing: it encodes the same bytes into such a buffer.
pub(crate) fn measure() {
    let limits = Limits::new(8192, 8192).expect("they may be so");
    for size in [32, 4096] {
        let parts: [&[u8]; 2] = [&vec![0x5a; size], AAD];
        let body = encrypt_body(size);
        let parse = || EncryptRequest::parse(&body, limits).expect("it is a request");
        compare(&format!("wire: Encrypt parsed, {size} bytes"), parse, decoding(&body, &parts));

        let metadata = CiphertextMetadata::FOREIGN.encode();
        let parts: [&[u8]; 5] = [&vec![0x5a; size], AAD, &IV, &TAG, &metadata];
        let body = decrypt_body(size);
        let parse = || DecryptRequest::parse(&body, limits).expect("it is a request");
        compare(&format!("wire: Decrypt parsed, {size} bytes"), parse, decoding(&body, &parts));

        let response = encrypt_response(size);
        let cdiv = response.cdiv.as_ref().map_or(&[][..], |cdiv| cdiv.as_bytes());
        let parts: [&[u8]; 5] = [&response.ciphertext, &IV, &TAG, &metadata, cdiv];
        let write = || response.to_body();
        compare(&format!("wire: Encrypt answered, {size} bytes"), write, encoding(&parts));

        let response = DecryptResponse { plaintext: Plaintext::new(vec![0x5a; size]) };
        let write = || response.to_body();
        let floor = encoding(&parts[..1]);
        compare(&format!("wire: Decrypt answered, {size} bytes"), write, floor);
    }
}

const IV: [u8; 12] = [3; 12];
const TAG: [u8; 16] = [4; 16];

fn encrypt_response(size: usize) -> EncryptResponse {
    let format = CiphertextFormat::One(CiphertextMetadata::FOREIGN);
    let (iv, tag) = (Iv::try_from(&IV[..]).expect("12 bytes are right"), Tag::new(TAG));
    let ciphertext = vec![0x5a; size];
    let metadata = format.metadata();
    let cdiv = CdivInput {
        aad: AAD,
        ciphertext_metadata: metadata.as_bytes(),
        iv: &iv,
        ciphertext: &ciphertext,
        tag: &tag,
    };
    let cdiv = Some(cdiv.digest());
    EncryptResponse { ciphertext, iv, tag, format, cdiv }
}

fn decoding(body: &[u8], parts: &[&[u8]]) -> impl FnMut() -> usize {
    let encoded: Vec<String> = parts.iter().map(|part| STANDARD.encode(part)).collect();
    let mut room = vec![0; 16384];
    move || {
        let scanned: &RawValue = serde_json::from_slice(body).expect("it is JSON");
        let decode = |text: &String| STANDARD.decode_slice(text, &mut room).expect("it is Base64");
        scanned.get().len() + encoded.iter().map(decode).sum::<usize>()
    }
}

fn encoding(parts: &[&[u8]]) -> impl FnMut() -> usize + use<> {
    let mut room = vec![0; 16384];
    let parts: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
    move || {
        let encode =
            |part: &Vec<u8>| STANDARD.encode_slice(part, &mut room).expect("there is room");
        parts.iter().map(encode).sum()
    }
}
