//! The public keys under which material travels.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey,
    PublicKeyComponents,
};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::OaepHash;
use crate::secret::Plaintext;

/// Length of a new RSA pair for wrapping, in bits: as strong as AES-128 (NIST SP 800-57 part 1, table
/// 2), and what KMS's own import takes.
pub const RSA_BITS: usize = 3072;

/// Longest RSA modulus that is taken, in bytes.
const MODULUS_MAX: usize = 1024;

/// A public key for wrapping.
#[derive(Clone, PartialEq, Eq)]
pub struct RsaPublicKey {
    modulus: Vec<u8>,
    exponent: Vec<u8>,
}

impl RsaPublicKey {
    /// Two big-endian numbers; `None` where they are none of an RSA key of at least [`RSA_BITS`].
    pub fn new(modulus: &[u8], exponent: &[u8]) -> Option<Self> {
        let number = |bytes: &[u8]| {
            let leading = bytes.iter().take_while(|byte| **byte == 0).count();
            bytes[leading..].to_vec()
        };
        let key = Self { modulus: number(modulus), exponent: number(exponent) };
        let is_long = (RSA_BITS / 8..=MODULUS_MAX).contains(&key.modulus.len());
        (is_long && key.modulus[0] >= 0x80 && key.encrypting().is_some()).then_some(key)
    }

    /// The modulus, big-endian, without leading zeros.
    pub fn modulus(&self) -> &[u8] {
        &self.modulus
    }

    /// The public exponent, likewise.
    pub fn exponent(&self) -> &[u8] {
        &self.exponent
    }

    /// SubjectPublicKeyInfo in PEM, as openssl reads it.
    pub fn pem(&self) -> String {
        let der = self.der();
        let text = BASE64_STANDARD.encode(der.as_ref());
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    /// SHA-256 of the SubjectPublicKeyInfo, in hexadecimal, for people to compare.
    pub fn fingerprint(&self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.der().as_ref());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Encrypts material under this key with RSA-OAEP.
    pub fn encrypt(&self, hash: OaepHash, material: &Plaintext) -> Vec<u8> {
        let algorithm = match hash {
            OaepHash::Sha1 => &OAEP_SHA1_MGF1SHA1,
            OaepHash::Sha256 => &OAEP_SHA256_MGF1SHA256,
        };
        let mut output = vec![0; self.modulus.len()];
        let key = self.encrypting().expect("it was one when this was made");
        let encrypted = key.encrypt(algorithm, material.expose(), &mut output, None);
        let length = encrypted.expect("the material is far shorter than the modulus").len();
        output.truncate(length);
        output
    }

    fn encrypting(&self) -> Option<OaepPublicEncryptingKey> {
        let key: PublicEncryptingKey = self.components().try_into().ok()?;
        OaepPublicEncryptingKey::new(key).ok()
    }

    fn components(&self) -> PublicKeyComponents<&[u8]> {
        PublicKeyComponents { n: &self.modulus, e: &self.exponent }
    }

    fn der(&self) -> PublicKeyX509Der<'static> {
        self.components().as_der().expect("it is a key")
    }
}

impl fmt::Debug for RsaPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RsaPublicKey({} bits)", self.modulus.len() * 8)
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rsa::{KeySize, OaepPrivateDecryptingKey, PrivateDecryptingKey};
    use x509_cert::der::Decode;
    use x509_cert::spki::SubjectPublicKeyInfoOwned;

    use super::*;
    use crate::hsm::transport::{MATERIAL_LEN, WrappingAlgorithm};

    /// Modulus and exponent of a key, by another parser.
    fn parts(key: &PrivateDecryptingKey) -> (Vec<u8>, Vec<u8>) {
        let der = key.public_key().as_der().unwrap();
        let info = SubjectPublicKeyInfoOwned::from_der(der.as_ref()).unwrap();
        let bytes = info.subject_public_key.raw_bytes();
        // SEQUENCE, INTEGER, 0x00 before a first bit that is set.
        let modulus = bytes[9..9 + 384].to_vec();
        (modulus, bytes[bytes.len() - 3..].to_vec())
    }

    #[test]
    fn what_is_encrypted_is_decrypted_by_the_private_key() {
        let private = PrivateDecryptingKey::generate(KeySize::Rsa3072).unwrap();
        let (modulus, exponent) = parts(&private);
        let padded = [&[0][..], &modulus].concat();
        let public = RsaPublicKey::new(&padded, &exponent).unwrap();
        assert_eq!(RsaPublicKey::new(&modulus, &exponent).unwrap(), public);
        assert!(public.pem().contains("\n-----END PUBLIC KEY-----\n"));
        assert_eq!(public.fingerprint().len(), 64);
        let private = OaepPrivateDecryptingKey::new(private).unwrap();
        for (hash, algorithm) in
            [(OaepHash::Sha1, &OAEP_SHA1_MGF1SHA1), (OaepHash::Sha256, &OAEP_SHA256_MGF1SHA256)]
        {
            let sealed = public.encrypt(hash, &Plaintext::new(vec![7; MATERIAL_LEN]));
            assert_eq!(sealed.len(), WrappingAlgorithm::Oaep(hash).length(384));
            let mut output = vec![0; private.min_output_size()];
            let opened = private.decrypt(algorithm, &sealed, &mut output, None).unwrap();
            assert_eq!(opened, [7; MATERIAL_LEN]);
        }
    }

    #[test]
    fn short_and_odd_keys_are_none() {
        let long = [0xc5; 384];
        assert!(RsaPublicKey::new(&long, &[1, 0, 1]).is_some());
        assert_eq!(RsaPublicKey::new(&long[..256], &[1, 0, 1]), None);
        assert_eq!(RsaPublicKey::new(&[], &[1, 0, 1]), None);
        assert_eq!(RsaPublicKey::new(&[0; 384], &[1, 0, 1]), None);
        assert_eq!(RsaPublicKey::new(&long, &[]), None);
        assert_eq!(RsaPublicKey::new(&vec![0xc5; MODULUS_MAX + 1], &[1, 0, 1]), None);
    }
}
