//! Key material on its way: from one token to another, or from outside into one.
//!
//! It travels only encrypted for one token: under the public key of an RSA pair that this token has
//! generated, and whose private key never leaves it and does nothing but unwrap. Such a pair is made
//! on first use and bears a label with a colon in it, so that no external key id names it.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey,
    PublicKeyComponents,
};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::backend::{Leaves, NewKey, ObjectHandle};
use super::fault::Fault;
use crate::secret::Plaintext;

/// Length of key material, in bytes: AES-256.
pub const MATERIAL_LEN: usize = 32;

/// Length of a new RSA pair for wrapping, in bits: as strong as AES-128 (NIST SP 800-57 part 1, table
/// 2), and what KMS's own import takes.
pub const RSA_BITS: usize = 3072;

/// Length of [`MATERIAL_LEN`] bytes under AES-KWP (RFC 5649): padded to eight, and eight more.
pub const KWP_LEN: usize = MATERIAL_LEN + 8;

/// Longest RSA modulus that is taken, in bytes.
const MODULUS_MAX: usize = 1024;

/// Label of the RSA pair for keys that may leave this way ([`Leaves`]).
pub fn pair_label(leaves: Leaves) -> &'static str {
    match leaves {
        Leaves::Never => "xksd:wrap:1",
        Leaves::UnderTrusted => "xksd:wrap:trusted:1",
    }
}

/// Label of another token's public key that this token's security officer trusts.
pub const PEER_LABEL: &str = "xksd:wrap:peer";

/// Brings key material into a token, or out of it under an RSA key.
pub trait Transport {
    /// The RSA pairs of this token's own, for keys that may leave in this way.
    fn pairs(&mut self, leaves: Leaves) -> Result<Vec<Pair>, Fault>;

    /// Has the token generate such a pair. Where it can, it binds the private key to unwrap nothing
    /// that could be read or wrapped.
    fn make_pair(&mut self, leaves: Leaves) -> Result<(), Fault>;

    /// Whether a pair unwraps what was encrypted under its public key with this hash: tried with 32
    /// random bytes, of which nothing is left.
    fn unwraps(&mut self, pair: &Pair, leaves: Leaves, hash: OaepHash) -> Result<bool, Fault>;

    /// Generates an AES-256 key that lives no longer than this call, and wraps it for each of these.
    /// It is destroyed in every outcome.
    fn generate_wrapped(
        &mut self,
        recipients: &[(&RsaPublicKey, OaepHash)],
    ) -> Result<Vec<Vec<u8>>, Fault>;

    /// Makes a key from material of outside.
    fn receive(&mut self, arrival: &Arrival<'_>, new: &NewKey<'_>) -> Result<ObjectHandle, Fault>;

    /// This token's object of another one's public key that its security officer has marked as
    /// trusted, if there is one.
    fn trusted(&mut self, public: &RsaPublicKey) -> Result<Option<ObjectHandle>, Fault>;

    /// Wraps a key of the token under a public key of it that is trusted.
    fn wrap_under_trusted(
        &mut self,
        key: ObjectHandle,
        trusted: ObjectHandle,
        hash: OaepHash,
    ) -> Result<Vec<u8>, Fault>;

    /// Whether the token refuses to wrap a key under a public key that nobody trusts.
    fn refuses_untrusted(
        &mut self,
        key: ObjectHandle,
        public: &RsaPublicKey,
        hash: OaepHash,
    ) -> Result<bool, Fault>;
}

/// The security officer of a token.
pub trait Officer {
    /// Puts another token's public key here as one that is trusted, and says whether it was not yet.
    ///
    /// # Errors
    /// The token's: not every one lets a public key be trusted.
    fn trust(&mut self, public: &RsaPublicKey) -> Result<bool, Fault>;
}

/// An RSA pair for wrapping, of the token's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The private key.
    pub private: ObjectHandle,
    /// The public key, as the token tells it of the private one.
    pub public: RsaPublicKey,
    /// Whether the token says that the private key was generated in it, never was outside, and can
    /// do nothing but unwrap: what somebody has put there says otherwise.
    pub is_sound: bool,
}

/// How key material comes in.
pub enum Arrival<'a> {
    /// As it is.
    Plain(&'a Plaintext),
    /// Encrypted for the private key of a pair.
    Wrapped {
        /// The private key.
        private: ObjectHandle,
        /// How it was encrypted.
        algorithm: WrappingAlgorithm,
        /// The ciphertext.
        bytes: &'a [u8],
        /// Length of the pair's modulus in bytes, where the second part begins.
        modulus: usize,
    },
}

/// Hash of RSA-OAEP and of its MGF1. SHA-1 is no weakness here: OAEP needs no collision resistance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OaepHash {
    /// All that SoftHSM2 has up to 2.6.
    Sha1,
    /// What others have besides.
    Sha256,
}

impl OaepHash {
    /// In the order in which they are tried.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha1];
}

/// How material is encrypted for a token: the algorithms of KMS's import, by its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrappingAlgorithm {
    /// The material under RSA-OAEP.
    Oaep(OaepHash),
    /// An AES-256 key under RSA-OAEP, and after it the material under that key, AES-KWP.
    AesKeyWrap(OaepHash),
}

impl WrappingAlgorithm {
    /// All that there are.
    pub const ALL: [Self; 4] = [
        Self::AesKeyWrap(OaepHash::Sha256),
        Self::AesKeyWrap(OaepHash::Sha1),
        Self::Oaep(OaepHash::Sha256),
        Self::Oaep(OaepHash::Sha1),
    ];

    /// KMS's name for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Oaep(OaepHash::Sha1) => "RSAES_OAEP_SHA_1",
            Self::Oaep(OaepHash::Sha256) => "RSAES_OAEP_SHA_256",
            Self::AesKeyWrap(OaepHash::Sha1) => "RSA_AES_KEY_WRAP_SHA_1",
            Self::AesKeyWrap(OaepHash::Sha256) => "RSA_AES_KEY_WRAP_SHA_256",
        }
    }

    /// The hash of its RSA-OAEP.
    pub fn hash(self) -> OaepHash {
        match self {
            Self::Oaep(hash) | Self::AesKeyWrap(hash) => hash,
        }
    }

    /// How long an AES-256 key is under it, in bytes, for a modulus of this length.
    pub fn length(self, modulus: usize) -> usize {
        match self {
            Self::Oaep(_) => modulus,
            Self::AesKeyWrap(_) => modulus + KWP_LEN,
        }
    }
}

impl FromStr for WrappingAlgorithm {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|known| known.as_str() == text).ok_or(
            "must be RSA_AES_KEY_WRAP_SHA_256, RSA_AES_KEY_WRAP_SHA_1, RSAES_OAEP_SHA_256 or \
             RSAES_OAEP_SHA_1",
        )
    }
}

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

    #[test]
    fn algorithms_have_the_names_of_kms() {
        for algorithm in WrappingAlgorithm::ALL {
            assert_eq!(algorithm.as_str().parse(), Ok(algorithm));
        }
        assert!("RSAES_PKCS1_V1_5".parse::<WrappingAlgorithm>().is_err());
    }
}
