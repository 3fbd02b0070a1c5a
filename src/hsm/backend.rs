//! What xksd needs of an HSM token, as two narrow synchronous traits.
//!
//! A [`Backend`] leads to one token; a [`Session`] belongs to one thread. Calls block, for as long
//! as the HSM pleases: they are never made on a thread of the asynchronous runtime.

use std::fmt;

use super::fault::Fault;
use super::key::KeyAttributes;
use super::state::KeyState;
use super::transport::Transport;
use crate::secret::Plaintext;
use crate::wire::gcm::Iv;

/// Length of the initialization vectors that xksd makes: 96 bits, the only length for which
/// AES-GCM with random IVs is bounded at 2^32 encryptions per key (NIST SP 800-38D, 8.3).
pub const IV_LEN: usize = 12;

/// Length of every authentication tag (P-41).
pub const TAG_LEN: usize = 16;

/// An object's number in one connection to a token. It means nothing in any other connection:
/// after a reconnection the same number may name another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectHandle {
    /// Which connection the number belongs to; grows with each reconnection.
    pub generation: u64,
    /// `CK_OBJECT_HANDLE`.
    pub number: u64,
}

/// What an encryption gave: never sent before its parts' lengths were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The initialization vector that was used: the caller's, or one that the token made.
    pub iv: Iv,
    /// As long as the plaintext.
    pub ciphertext: Vec<u8>,
    /// The authentication tag.
    pub tag: [u8; TAG_LEN],
}

/// How a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signing {
    /// ECDSA over P-256: of a SHA-256 hash, as r and s of 32 bytes each.
    EcdsaP256,
    /// HMAC with SHA-256: of a message of any length, 32 bytes.
    HmacSha256,
}

impl Signing {
    /// Its name in records and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "ECDSA-P256-SHA256",
            Self::HmacSha256 => "HMAC-SHA256",
        }
    }

    /// Reads it.
    pub fn named(name: &str) -> Option<Self> {
        [Self::EcdsaP256, Self::HmacSha256].into_iter().find(|known| known.as_str() == name)
    }

    /// Length of a signature, as the token gives it.
    pub fn signature_len(self) -> usize {
        match self {
            Self::EcdsaP256 => 64,
            Self::HmacSha256 => 32,
        }
    }
}

/// Who made the token, for GetHealthStatus and the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenIdentity {
    /// `manufacturerID` of the token.
    pub manufacturer: String,
    /// `model` of the token, with its hardware and firmware versions.
    pub model: String,
    /// `serialNumber` of the token.
    pub serial: String,
}

/// Called on any thread when a connection may have been lost that nobody was using. It returns at
/// once, and may be called too often.
pub type OnLost = Box<dyn Fn() + Send + Sync>;

/// Leads to one token of one HSM.
pub trait Backend: Send + Sync + fmt::Debug {
    /// Connects: loads the library if need be, finds the token, opens a session and logs in.
    ///
    /// The caller keeps this session for as long as the connection lives: closing a token's last
    /// session logs out and takes its handles with it (PKCS#11 2.40, C_CloseSession).
    fn connect(&self) -> Result<Box<dyn Session>, Fault>;

    /// Opens one more session of the connection that [`Backend::connect`] made.
    fn open_session(&self) -> Result<Box<dyn Session>, Fault>;

    /// Says whom to tell of a connection that is lost, once and before connecting. Most backends
    /// learn of it only from their next call, and tell nobody.
    fn on_lost(&self, _hook: OnLost) {}

    /// What the token said of itself when it was last connected to.
    fn identity(&self) -> TokenIdentity;
}

/// One session with a token, owned by one thread.
pub trait Session {
    /// Fills the buffer from the token's random number generator.
    fn random(&mut self, buffer: &mut [u8]) -> Result<(), Fault>;

    /// Whether the token makes its IVs itself (see [`IvSource`](super::profile::IvSource) and
    /// [`MessageApi`](super::profile::MessageApi)): none has to be fetched for it. It is so for as
    /// long as the session lives.
    fn makes_ivs(&self) -> bool {
        false
    }

    /// Encrypts with AES-GCM under an IV of the caller's, which must never have been used before and
    /// is not [`NONE`](super::iv::NONE).
    ///
    /// A token that makes its IVs itself uses one of its own instead; [`Sealed::iv`] is what was used
    /// in any case.
    fn encrypt(
        &mut self,
        key: ObjectHandle,
        iv: &[u8; IV_LEN],
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Sealed, Fault>;

    /// Decrypts in a single step, so that nothing is released before the tag was checked.
    fn decrypt(
        &mut self,
        key: ObjectHandle,
        iv: &[u8],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<Plaintext, Fault>;

    /// Every secret and private key that this token shows to the session.
    fn objects(&mut self) -> Result<Vec<ObjectHandle>, Fault>;

    /// What can change in an object's life, in one call: label, `CKA_ID`, usage.
    fn read_changeable(&mut self, object: ObjectHandle) -> Result<ChangeableAttributes, Fault>;

    /// Everything that the catalogue wants to know of an object seen for the first time.
    fn read_attributes(&mut self, object: ObjectHandle) -> Result<KeyAttributes, Fault>;

    /// Says that a reading of the token's keys has ended, before anybody is shown what was read. What
    /// sessions hold open for a key since before may be another key's, whose handle it was then, and
    /// is not used for it any more.
    fn keys_were_read(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    /// Makes an AES-256 key that lives no longer than this session, for probes (P-61).
    fn make_probe_key(&mut self) -> Result<ObjectHandle, Fault>;

    /// Signs a hash or a message, as [`Signing`] says; gives [`Signing::signature_len`] bytes.
    fn sign(&mut self, key: ObjectHandle, how: Signing, input: &[u8]) -> Result<Vec<u8>, Fault>;
}

/// A session that may also change the token. No daemon ever has one.
pub trait Administration: Session + Transport {
    /// Everything that bears this `CKA_LABEL`, keys and other objects.
    fn labelled(&mut self, label: &str) -> Result<Vec<Labelled>, Fault>;

    /// What the token says of how an object is kept.
    fn read_protection(&mut self, object: ObjectHandle) -> Result<Protection, Fault>;

    /// Has the token make an AES-256 key.
    fn generate(&mut self, new: &NewKey<'_>) -> Result<ObjectHandle, Fault>;

    /// Gives an object this state, in one C_SetAttributeValue of its `CKA_ID`.
    fn write_state(&mut self, object: ObjectHandle, state: &KeyState) -> Result<(), Fault>;

    /// Has the token make a key of this label that signs and never leaves it: a pair for ECDSA.
    fn generate_signing_key(&mut self, label: &str, how: Signing) -> Result<(), Fault>;

    /// `CKA_EC_POINT` of the public keys of this label.
    fn public_points(&mut self, label: &str) -> Result<Vec<Vec<u8>>, Fault>;

    /// Destroys an object for good.
    fn destroy(&mut self, object: ObjectHandle) -> Result<(), Fault>;
}

/// An object that bears a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Labelled {
    /// The object.
    pub handle: ObjectHandle,
    /// Whether it is a secret or private key: what the catalogue looks at.
    pub is_key: bool,
}

/// A key that is to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewKey<'a> {
    /// `CKA_LABEL`
    pub label: &'a str,
    /// `CKA_ID`
    pub state: &'a KeyState,
    /// What it may be used for.
    pub usage: NewKeyUsage,
    /// Whether it may leave its token.
    pub leaves: Leaves,
}

/// Whether a key may leave its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaves {
    /// `CKA_EXTRACTABLE` is false.
    Never,
    /// Wrapped under a key that the security officer trusts: `CKA_EXTRACTABLE` and
    /// `CKA_WRAP_WITH_TRUSTED` are true.
    UnderTrusted,
}

/// What a new key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewKeyUsage {
    /// `CKA_ENCRYPT`
    pub encrypt: bool,
    /// `CKA_DECRYPT`
    pub decrypt: bool,
}

/// How the token keeps an object; `None` where it does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Protection {
    /// `CKA_TOKEN`: it outlives the session.
    pub token: Option<bool>,
    /// `CKA_PRIVATE`: seen only after login.
    pub private: Option<bool>,
    /// `CKA_SENSITIVE`: its value is not shown.
    pub sensitive: Option<bool>,
    /// `CKA_ALWAYS_SENSITIVE`: never was.
    pub always_sensitive: Option<bool>,
    /// `CKA_EXTRACTABLE`: it can be wrapped.
    pub extractable: Option<bool>,
    /// `CKA_NEVER_EXTRACTABLE`: never could be.
    pub never_extractable: Option<bool>,
    /// `CKA_MODIFIABLE`: its state can be changed.
    pub modifiable: Option<bool>,
    /// `CKA_WRAP_WITH_TRUSTED`: it can be wrapped only under what the security officer trusts.
    pub wrap_with_trusted: Option<bool>,
    /// `CKA_VALUE_LEN`, in bytes.
    pub value_len: Option<u64>,
}

/// The attributes that an administrator can change while the object lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeableAttributes {
    /// `CKA_LABEL`, as bytes: a token may hold anything.
    pub label: Vec<u8>,
    /// `CKA_ID`.
    pub id: Vec<u8>,
    /// `CKA_ENCRYPT`.
    pub encrypt: bool,
    /// `CKA_DECRYPT`.
    pub decrypt: bool,
}
