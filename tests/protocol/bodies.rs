//! Rows of the table: what can be wrong with a body of our own format (P-23, P-51), beside what
//! `xksd conformance` asks of every proxy.

use serde_json::Value;
use support::request::{base64, encrypt_body, unbase64};

use crate::bad_requests::{AAD, Expect, Table};
use crate::world::{INVALID_CIPHERTEXT, KEY_NOT_FOUND, UNSUPPORTED, VALIDATION};

const INVALID: Expect = Expect::Refused(400, VALIDATION);
const UNFIT: Expect = Expect::Refused(400, INVALID_CIPHERTEXT);
const TOO_MUCH: Expect = Expect::Refused(501, UNSUPPORTED);

const DECRYPT: &str = "keys/demo-key/decrypt";

pub(crate) fn fill(table: &mut Table) {
    escapes(table);
    lengths(table);
    seals(table);
}

/// A good body with one member in the place of another, or of nothing.
fn with(body: &Value, member: &str, value: impl Into<Value>) -> Value {
    let mut body = body.clone();
    body[member] = value.into();
    body
}

/// Base64 is still Base64 where JSON escapes a character of it (P-40).
fn escapes(t: &mut Table) {
    let escaped = t.encrypt.to_string().replacen("AES_GCM", "\\u0041ES_GCM", 1);
    t.raw_body("an escaped algorithm", Expect::Served, escaped);
}

/// P-51: metadata of lengths that no format of ours has; P-23: an AAD that does not fit in its frame.
fn lengths(t: &mut Table) {
    let zeros = |len: usize| base64(&vec![0; len]);
    let decrypt = t.decrypt.clone();
    for len in [0, 12, 14, 20] {
        let body = with(&decrypt, "ciphertextMetadata", zeros(len));
        t.body(format!("ciphertextMetadata of {len}"), UNFIT, DECRYPT, &body);
    }
    for len in [65535, 65536] {
        let body = with(&decrypt, "additionalAuthenticatedData", zeros(len));
        t.body(format!("decrypt, AAD of {len}"), TOO_MUCH, DECRYPT, &body);
    }
}

/// P-51: parts that are well formed and do not belong together.
fn seals(t: &mut Table) {
    let good = t.decrypt.clone();
    let metadata = unbase64(&good["ciphertextMetadata"]);
    for (what, at, value) in [
        ("another format", 0, 2),
        ("format 0", 0, 0),
        ("another version", 4, 2),
        ("another object id", 12, metadata[12] ^ 1),
    ] {
        let mut changed = metadata.clone();
        changed[at] = value;
        let body = with(&good, "ciphertextMetadata", base64(&changed));
        t.body(format!("ciphertextMetadata of {what}"), UNFIT, DECRYPT, &body);
    }
    let of_foreign =
        with(&good, "ciphertextMetadata", base64(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    t.body("ciphertextMetadata of a foreign key", UNFIT, DECRYPT, &of_foreign);
    let neighbour = t.kms.accepted("keys/demo-second/encrypt", &encrypt_body(b"x", Some(AAD)));
    let of_neighbour = with(&good, "ciphertextMetadata", neighbour["ciphertextMetadata"].clone());
    t.body("ciphertextMetadata of another key", UNFIT, DECRYPT, &of_neighbour);
    t.body(
        "a key that does not exist",
        Expect::Refused(404, KEY_NOT_FOUND),
        "keys/demo-none/decrypt",
        &good,
    );
    // P-71: the body is judged before the key.
    let bad = with(&good, "authenticationTag", "");
    t.body("a bad body for a key that does not exist", INVALID, "keys/demo-none/decrypt", &bad);
}
