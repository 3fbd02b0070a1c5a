//! Ciphertexts of format 1, made by another program, are decrypted for ever
//! (`docs/ciphertext-format.md`).

use serde_json::Value;
use support::request::{bare_body, base64, hex, unbase64, unhex};

use crate::world::{caller, demo};

/// One vector of `tests/vectors/ciphertext-v1.json`.
pub(crate) struct Vector(Value);

/// All of them.
pub(crate) fn all() -> Vec<Vector> {
    let file: Value =
        serde_json::from_str(include_str!("../vectors/ciphertext-v1.json")).expect("it is JSON");
    file.as_array().expect("it is a list").iter().cloned().map(Vector).collect()
}

impl Vector {
    fn text(&self, member: &str) -> &str {
        self.0[member].as_str().unwrap_or_else(|| panic!("no {member}: {}", self.0["name"]))
    }

    fn version(&self) -> u64 {
        self.0["version"].as_u64().expect("a version is a number")
    }

    pub(crate) fn key(&self) -> &str {
        self.text("key")
    }

    /// A label of its own for each object.
    pub(crate) fn key_id(&self) -> String {
        format!("demo-vector-{}-{}", self.text("object_id"), self.version())
    }

    /// What makes the object the one that the metadata name.
    pub(crate) fn cka_id(&self) -> String {
        match self.version() {
            0 => "foreign".to_owned(),
            version => {
                format!("xksd1:{}:{version}:enabled:1:20260101:-:-", self.text("object_id"))
            }
        }
    }

    fn decrypt_body(&self) -> Value {
        let mut body = bare_body("Decrypt");
        body["encryptionAlgorithm"] = "AES_GCM".into();
        for (member, name) in [
            ("ciphertext", "ciphertext"),
            ("initializationVector", "iv"),
            ("authenticationTag", "tag"),
            ("ciphertextMetadata", "ciphertext_metadata"),
        ] {
            body[member] = base64(&unhex(self.text(name))).into();
        }
        if let Some(aad) = self.0["aad"].as_str() {
            body["additionalAuthenticatedData"] = base64(&unhex(aad)).into();
        }
        body
    }
}

/// P-42, P-50: every vector, an IV of 16 bytes among them, through the daemon and the token.
#[test]
fn every_vector_is_decrypted() {
    let kms = caller(&demo());
    let vectors = all();
    assert!(vectors.iter().any(|vector| vector.text("iv").len() == 32), "P-50: IVs of 16 bytes");
    for vector in vectors {
        let rest = format!("keys/{}/decrypt", vector.key_id());
        let opened = kms.accepted(&rest, &vector.decrypt_body());
        assert_eq!(hex(&unbase64(&opened["plaintext"])), vector.text("plaintext"));
    }
}
