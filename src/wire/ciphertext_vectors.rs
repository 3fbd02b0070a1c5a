//! The checked-in ciphertexts of format 1 must be decrypted by every release
//! (`docs/ciphertext-format.md`). Here by the pure parts; the daemon's own test uses an HSM.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::aad::frame;
use super::cdiv::CdivInput;
use super::ciphertext_metadata::CiphertextMetadata;
use super::gcm::{Iv, Tag};
use crate::names::{KeyVersion, ObjectId};

const VECTORS: &str = include_str!("../../tests/vectors/ciphertext-v1.json");

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    name: String,
    key: String,
    version: u32,
    object_id: String,
    plaintext: String,
    aad: Option<String>,
    iv: String,
    ciphertext: String,
    tag: String,
    ciphertext_metadata: String,
    hsm_aad: String,
    cdiv: String,
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(VECTORS).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
}

/// Decrypts with aws-lc-rs, which knows IVs of 12 bytes only.
fn open(vector: &Vector, hsm_aad: &[u8]) -> Option<Vec<u8>> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &hex(&vector.key)).unwrap());
    let nonce = Nonce::try_assume_unique_for_key(&hex(&vector.iv)).unwrap();
    let mut sealed = hex(&(vector.ciphertext.clone() + &vector.tag));
    key.open_in_place(nonce, Aad::from(hsm_aad), &mut sealed).ok().map(|plain| plain.to_vec())
}

fn hsm_aad(vector: &Vector) -> Vec<u8> {
    let aad = hex(vector.aad.as_deref().unwrap_or_default());
    frame(&aad, &hex(&vector.ciphertext_metadata)).unwrap()
}

#[test]
fn the_vectors_cover_what_must_stay_readable() {
    let vectors = vectors();
    for version in [0, 1, 2, u32::MAX] {
        assert!(vectors.iter().any(|vector| vector.version == version));
    }
    assert!(vectors.iter().any(|vector| vector.aad.is_none()));
    assert!(vectors.iter().any(|vector| vector.aad.as_deref() == Some("")));
    for len in [1, 4300] {
        assert!(vectors.iter().any(|vector| vector.plaintext.len() == 2 * len));
    }
}

#[test]
fn every_vector_is_laid_out_as_we_do_p_42_p_43() {
    for vector in vectors() {
        let name = &vector.name;
        let object_id: [u8; 8] = hex(&vector.object_id).try_into().unwrap();
        let metadata = CiphertextMetadata {
            version: KeyVersion::new(vector.version),
            object_id: ObjectId::new(object_id),
        };
        let encoded = hex(&vector.ciphertext_metadata);
        assert_eq!(metadata.encode()[..], encoded, "{name}");
        assert_eq!(CiphertextMetadata::decode(&encoded), Ok(metadata), "{name}");
        assert_eq!(hsm_aad(&vector), hex(&vector.hsm_aad), "{name}");
        let input = CdivInput {
            aad: &hex(vector.aad.as_deref().unwrap_or_default()),
            ciphertext_metadata: &encoded,
            iv: &Iv::try_from(&hex(&vector.iv)[..]).unwrap(),
            ciphertext: &hex(&vector.ciphertext),
            tag: &Tag::try_from(&hex(&vector.tag)[..]).unwrap(),
        };
        assert_eq!(input.digest().as_bytes(), hex(&vector.cdiv), "{name}");
    }
}

#[test]
fn every_vector_is_decrypted_p_42() {
    let twelve = vectors().into_iter().filter(|vector| vector.iv.len() == 24);
    let mut decrypted = 0;
    for vector in twelve {
        let plaintext = hex(&vector.plaintext);
        assert_eq!(open(&vector, &hsm_aad(&vector)), Some(plaintext), "{}", vector.name);
        decrypted += 1;
    }
    assert_eq!(decrypted, vectors().len() - 1, "all but the one with an IV of 16 bytes");
}

#[test]
fn metadata_cannot_be_changed_moved_or_left_out_p_42() {
    for vector in vectors().into_iter().filter(|vector| vector.iv.len() == 24) {
        let aad = hex(vector.aad.as_deref().unwrap_or_default());
        let metadata = hex(&vector.ciphertext_metadata);
        let mut changed = metadata.clone();
        changed[4] ^= 1;
        let joined = [&aad[..], &metadata[..]].concat();
        for (aad, metadata) in [(&aad, &changed), (&aad, &vec![]), (&joined, &vec![])] {
            let frame = frame(aad, metadata).unwrap();
            assert_eq!(open(&vector, &frame), None, "{}", vector.name);
        }
        if aad.len() <= 20 {
            let swapped = frame(&metadata, &aad).unwrap();
            // One vector has an AAD equal to its metadata, and its frame swapped is its frame.
            assert_eq!(open(&vector, &swapped).is_some(), aad == metadata, "{}", vector.name);
        }
    }
}
