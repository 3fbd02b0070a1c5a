//! The example bodies of AWS's own specification, values as they stand there (with the commas
//! that two of them lack).

use serde_json::{Value, json};
use support::request::unbase64;

use crate::world::{INVALID_CIPHERTEXT, caller, demo};

fn body(text: &str) -> Value {
    serde_json::from_str(text).expect("the examples are JSON")
}

/// P-20, P-30, P-40, P-50, P-60: all four.
#[test]
fn the_examples_of_the_specification_are_served() {
    let kms = caller(&demo());
    let metadata = body(
        r#"{
    "requestMetadata": {
        "awsPrincipalArn": "arn:aws:iam::123456789012:user/Alice",
        "kmsKeyArn": "arn:aws:kms:us-east-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "kmsOperation": "DescribeKey",
        "kmsRequestId": "4112f4d6-db54-4af4-ae30-c55a22a8dfae",
        "kmsViaService": "ebs"
    }
}"#,
    );
    assert_eq!(
        kms.accepted("keys/demo-key/metadata", &metadata),
        json!({"keySpec": "AES_256", "keyUsage": ["ENCRYPT", "DECRYPT"], "keyStatus": "ENABLED"})
    );

    let encrypt = body(
        r#"{
    "requestMetadata": {
        "awsPrincipalArn": "arn:aws:iam::123456789012:user/Alice",
        "kmsKeyArn": "arn:aws:kms:us-east-2:123456789012:/key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "kmsOperation": "Encrypt",
        "kmsRequestId": "4112f4d6-db54-4af4-ae30-c55a22a8dfae",
        "kmsViaService": "ebs"
    },
    "additionalAuthenticatedData": "cHJvamVjdD1uaWxlLGRlcGFydG1lbnQ9bWFya2V0aW5n",
    "plaintext": "SGVsbG8gV29ybGQh",
    "encryptionAlgorithm": "AES_GCM",
    "ciphertextDataIntegrityValueAlgorithm": "SHA_256"
}"#,
    );
    let sealed = kms.accepted("keys/demo-key/encrypt", &encrypt);
    let mut members: Vec<&String> = sealed.as_object().unwrap().keys().collect();
    members.sort();
    assert_eq!(
        members,
        [
            "authenticationTag",
            "ciphertext",
            "ciphertextDataIntegrityValue",
            "ciphertextMetadata",
            "initializationVector"
        ]
    );
    assert_eq!(unbase64(&sealed["ciphertext"]).len(), b"Hello World!".len());

    // The example's ciphertext was made by another proxy, with a key of its own.
    let mut decrypt = body(
        r#"{
    "requestMetadata": {
        "awsPrincipalArn": "arn:aws:iam::123456789012:user/Alice",
        "kmsKeyArn": "arn:aws:kms:us-east-2:123456789012:/key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "kmsOperation": "Decrypt",
        "kmsRequestId": "5112f4d6-db54-4af4-ae30-c55a22a8dfae",
        "kmsViaService": "ebs"
    },
    "additionalAuthenticatedData": "cHJvamVjdD1uaWxlLGRlcGFydG1lbnQ9bWFya2V0aW5n",
    "encryptionAlgorithm": "AES_GCM",
    "ciphertext": "ghxkK1txeDNn3q8Y",
    "ciphertextMetadata": "a2V5X3ZlcnNpb249MQ==",
    "initializationVector": "HMrlRw85cAJUd5Ax",
    "authenticationTag": "vBxN2ncH1oEkR8WVXpmyYQ=="
}"#,
    );
    kms.refused("keys/demo-key/decrypt", &decrypt, 400, INVALID_CIPHERTEXT);
    for member in ["ciphertext", "ciphertextMetadata", "initializationVector", "authenticationTag"]
    {
        decrypt[member] = sealed[member].clone();
    }
    let opened = kms.accepted("keys/demo-key/decrypt", &decrypt);
    assert_eq!(opened, json!({"plaintext": "SGVsbG8gV29ybGQh"}), "as in the specification");

    let health = body(
        r#"{
    "requestMetadata": {
        "kmsRequestId": "4112f4d6-db54-4af4-ae30-c55a22a8dfae",
        "kmsOperation": "CreateCustomKeyStore"
    }
}"#,
    );
    assert_eq!(kms.accepted("health", &health)["ekmFleetDetails"][0]["healthStatus"], "ACTIVE");
}
