//! What every [`Backend`] owes, whatever HSM is behind it.
//!
//! Each function is one clause, for a token that holds no keys yet. A caller brings the backend and
//! a [`Keys`] that makes keys in its token by another way than the backend.

mod cryptography;
mod objects;
mod signatures;

pub use cryptography::*;
pub use objects::*;
pub use signatures::*;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use xksd::hsm::backend::{Backend, IV_LEN, ObjectHandle, Session};
use xksd::hsm::fault::{Fault, FaultKind};
use xksd::hsm::key::{KeyKind, Usage};

use crate::foreign::{ForeignTool, Material};
use crate::memory::{MemoryBackend, MemoryKey};

/// Makes keys in the token of a backend, as an administrator does.
pub trait Keys {
    /// Adds a key.
    fn add(&self, label: &[u8], id: &[u8], material: Material, usage: Usage);
    /// Renames the key of this label.
    fn rename(&self, label: &[u8], new: &[u8]);
    /// Destroys all keys of this label.
    fn destroy(&self, label: &[u8]);
    /// Whether the token decrypts what was encrypted under an IV of 16 bytes (P-50).
    fn takes_long_ivs(&self) -> bool;
    /// `CKA_EC_POINT` of the public key of this label.
    fn point(&self, label: &[u8]) -> Vec<u8>;
    /// Whether the token takes labels that are no UTF-8.
    fn takes_any_label(&self) -> bool;
}

impl Keys for ForeignTool {
    fn add(&self, label: &[u8], id: &[u8], material: Material, usage: Usage) {
        ForeignTool::add(self, label, id, material, usage);
    }

    fn rename(&self, label: &[u8], new: &[u8]) {
        ForeignTool::rename(self, label, new);
    }

    fn destroy(&self, label: &[u8]) {
        ForeignTool::destroy(self, label);
    }

    fn takes_long_ivs(&self) -> bool {
        true
    }

    fn point(&self, label: &[u8]) -> Vec<u8> {
        ForeignTool::point(self, label)
    }

    fn takes_any_label(&self) -> bool {
        ForeignTool::takes_any_label(self)
    }
}

impl Keys for MemoryBackend {
    fn add(&self, label: &[u8], id: &[u8], material: Material, usage: Usage) {
        let mut key = MemoryKey::aes_256(label);
        key.id = id.to_vec();
        key.usage = usage;
        match material {
            Material::Aes(value) => match value.try_into() {
                Ok(value) => key.value = value,
                Err(_) => key.kind = aes(value.len()),
            },
            Material::GenericSecret => {
                key.kind = KeyKind::Other("GENERIC_SECRET".into());
                key.value = [7; 32];
            }
            Material::EcP256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
                let pair = pair.and_then(|pair| pair.to_pkcs8v1()).expect("keys can be made");
                key.kind = KeyKind::Other("EC".into());
                key.pair = Some(pair.as_ref().to_vec());
            }
            Material::Rsa2048 => key.kind = KeyKind::Other("RSA_2048".into()),
        }
        MemoryBackend::add(self, key);
    }

    fn rename(&self, label: &[u8], new: &[u8]) {
        let key = self.find(label).expect("the key is there");
        self.change(key, |key| key.label = new.to_vec());
    }

    fn destroy(&self, label: &[u8]) {
        while let Some(key) = self.find(label) {
            MemoryBackend::destroy(self, key);
        }
    }

    fn takes_long_ivs(&self) -> bool {
        false
    }

    fn point(&self, label: &[u8]) -> Vec<u8> {
        let key = self.find(label).expect("the key is there");
        let mut point = Vec::new();
        self.change(key, |key| {
            let pair = key.pair.as_ref().expect("it is an EC key");
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pair);
            point = pair.expect("it was made here").public_key().as_ref().to_vec();
        });
        point
    }

    fn takes_any_label(&self) -> bool {
        true
    }
}

/// Value of the keys in this suite, `00 01 .. 1f`, whose ciphertexts can be checked elsewhere.
pub const VALUE: &[u8] = &{
    let mut value = [0; 32];
    let mut i = 0;
    while i < value.len() {
        value[i] = i as u8;
        i += 1;
    }
    value
};

/// Encrypt and decrypt, nothing else.
pub const BOTH: Usage = Usage {
    encrypt: true,
    decrypt: true,
    sign: false,
    verify: false,
    wrap: false,
    unwrap: false,
    derive: false,
};

fn aes(bytes: usize) -> KeyKind {
    KeyKind::Aes { bits: u16::try_from(bytes * 8).expect("AES keys are short") }
}

/// The connection's own session, which stays for as long as any other is used.
fn connect(backend: &dyn Backend) -> Box<dyn Session> {
    backend.connect().expect("the token is there and the PIN right")
}

fn find(session: &mut dyn Session, label: &[u8]) -> ObjectHandle {
    let objects = session.objects().expect("the token can be searched");
    let is_it = |object: &&ObjectHandle| {
        session.read_changeable(**object).expect("it can be read").label == label
    };
    let mut found = objects.iter().filter(is_it).copied().collect::<Vec<_>>();
    assert_eq!(found.len(), 1, "objects of the label {}", label.escape_ascii());
    found.remove(0)
}

fn with_key(backend: &dyn Backend, keys: &dyn Keys) -> (Box<dyn Session>, ObjectHandle) {
    let mut session = connect(backend);
    keys.add(b"key", b"", Material::Aes(VALUE), BOTH);
    let key = find(session.as_mut(), b"key");
    (session, key)
}

fn iv(session: &mut dyn Session) -> [u8; IV_LEN] {
    let mut iv = [0; IV_LEN];
    session.random(&mut iv).expect("the token gives random bytes");
    iv
}

fn bytes(length: usize) -> Vec<u8> {
    (0..=250_u8).cycle().take(length).collect()
}

fn round_trip(session: &mut dyn Session, key: ObjectHandle, aad: &[u8], plaintext: &[u8]) {
    let iv = iv(session);
    let sealed = session.encrypt(key, &iv, aad, plaintext).expect("the key encrypts");
    assert_eq!(sealed.iv.as_bytes() == iv, !session.makes_ivs());
    // P-41: the ciphertext is as long as the plaintext.
    assert_eq!(sealed.ciphertext.len(), plaintext.len());
    assert_ne!(sealed.ciphertext, plaintext);
    let opened = session.decrypt(key, sealed.iv.as_bytes(), aad, &sealed.ciphertext, &sealed.tag);
    assert_eq!(opened.expect("the key decrypts").expose(), plaintext);
}

fn refused<T>(result: Result<T, Fault>, kinds: &[FaultKind]) -> Fault {
    let fault = result.err().expect("the token refuses");
    assert!(kinds.contains(&fault.kind), "{fault}: {:?} is none of {kinds:?}", fault.kind);
    fault
}
