//! AWS's sample proxy, as far as its ciphertexts go: what it makes and what it takes, by its rules
//! (`docs/ciphertext-format.md`) and by an AES-GCM that is not the token's.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::request::{base64, unbase64};

/// One of its keys.
#[derive(Debug)]
pub struct SampleProxy(LessSafeKey);

impl SampleProxy {
    /// With this key.
    ///
    /// # Panics
    /// Where it has other than 32 bytes.
    pub fn new(key: &[u8]) -> Self {
        Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("32 bytes")))
    }

    /// Its answer to Encrypt with this `ciphertext_metadata_b64` in its settings.
    ///
    /// # Panics
    /// Never, for sizes that the protocol allows.
    pub fn encrypt(&self, text: &[u8], aad: Option<&[u8]>, metadata: Option<&[u8]>) -> Value {
        let mut iv = [0; 12];
        aws_lc_rs::rand::fill(&mut iv).expect("there is randomness");
        let mut sealed = text.to_vec();
        let frame = Aad::from(frame(aad, metadata.unwrap_or_default()));
        let nonce = Nonce::assume_unique_for_key(iv);
        let tag = self.0.seal_in_place_separate_tag(nonce, frame, &mut sealed).expect("it fits");
        let mut answer = json!({
            "ciphertext": base64(&sealed),
            "initializationVector": base64(&iv),
            "authenticationTag": base64(tag.as_ref()),
        });
        if let Some(metadata) = metadata {
            answer["ciphertextMetadata"] = base64(metadata).into();
        }
        answer
    }

    /// What it decrypts from an answer to Encrypt. It asks nothing of the metadata but that they are
    /// those which were authenticated.
    ///
    /// # Panics
    /// Where the answer lacks a member, or its IV has other than 12 bytes.
    pub fn decrypt(&self, sealed: &Value, aad: Option<&[u8]>) -> Option<Vec<u8>> {
        let metadata = sealed.get("ciphertextMetadata").map(unbase64).unwrap_or_default();
        let nonce = Nonce::try_assume_unique_for_key(&unbase64(&sealed["initializationVector"]));
        let mut text = unbase64(&sealed["ciphertext"]);
        text.extend(unbase64(&sealed["authenticationTag"]));
        let frame = Aad::from(frame(aad, &metadata));
        let opened = self.0.open_in_place(nonce.expect("12 bytes"), frame, &mut text);
        opened.ok().map(|text| text.to_vec())
    }
}

fn frame(aad: Option<&[u8]>, metadata: &[u8]) -> Vec<u8> {
    let len = u16::try_from(aad.map_or(0, <[u8]>::len)).expect("AADs are no longer");
    let mut frame = len.to_be_bytes().to_vec();
    if let Some(aad) = aad {
        frame.extend_from_slice(digest(&SHA256, aad).as_ref());
    }
    frame.push(u8::try_from(metadata.len()).expect("metadata are no longer"));
    frame.extend_from_slice(metadata);
    frame
}
