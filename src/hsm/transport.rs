//! Key material on its way: from one token to another, or from outside into one.
//!
//! It travels only encrypted for one token: under the public key of an RSA pair that this token has
//! generated, and whose private key never leaves it and does nothing but unwrap. Such a pair is made
//! on first use and bears a label with a colon in it, so that no external key id names it.

mod rsa;

use std::str::FromStr;

pub use rsa::{RSA_BITS, RsaPublicKey};

use super::backend::{Leaves, NewKey, ObjectHandle};
use super::fault::Fault;
use crate::secret::Plaintext;

/// Length of key material, in bytes: AES-256.
pub const MATERIAL_LEN: usize = 32;

/// Length of [`MATERIAL_LEN`] bytes under AES-KWP (RFC 5649): padded to eight, and eight more.
pub const KWP_LEN: usize = MATERIAL_LEN + 8;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn algorithms_have_the_names_of_kms() {
        for algorithm in WrappingAlgorithm::ALL {
            assert_eq!(algorithm.as_str().parse(), Ok(algorithm));
        }
        assert!("RSAES_PKCS1_V1_5".parse::<WrappingAlgorithm>().is_err());
    }
}
