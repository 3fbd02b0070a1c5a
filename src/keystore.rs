//! Key stores: what one path prefix may reach.
//!
//! A key store is an isolated tenant (P-4): its own credentials, Regions, key rules and tokens.
//! Access is proved step by step by types. [`Keystore::judge`] wants a [`Verified`] signature, asks the
//! policies, and gives a [`Permit`] for one external key id; only a permit and the key that the catalogue holds
//! under that id make an [`AuthorizedKey`], and only that reaches the HSM.

mod judged;
mod rotation;
mod rule;

use std::collections::HashMap;
use std::sync::Arc;

use crate::counts::limit::EncryptionLimit;
use crate::hsm::freeze::Freezes;
use crate::hsm::key::{Holder, Holders, Key, Version};
use crate::hsm::state::VersionStatus;
use crate::limits::{self, Admission, Exceeded, KeyLimiters, Limiter};
use crate::names::{
    AccessKeyId, ExternalKeyId, KeyVersion, KeystoreName, ObjectId, PathPrefix, Region, TokenName,
};
use crate::policy::{Allowed, Authorization};
use crate::sigv4::{Credentials, Verified};
use crate::wire::ciphertext_format::{CiphertextFormat, Formats};
use crate::wire::ciphertext_metadata::CiphertextMetadata;
use crate::wire::request::IntegrityValue;
pub use rotation::{Due, Rotation};

pub use judged::{Asked, Judged};
pub use rule::{KeyRule, KeyRuleError};

/// What a key store is made from.
#[derive(Debug, PartialEq)]
pub struct Settings {
    /// Its name in the configuration.
    pub name: KeystoreName,
    /// Its path prefix.
    pub prefix: PathPrefix,
    /// Whether it serves at all (P-30).
    pub enabled: bool,
    /// Whether its keys may be described but not used, as with a marker in the HSM.
    pub frozen: bool,
    /// KMS Regions that may sign for it.
    pub regions: Vec<Region>,
    /// Whose signatures are accepted.
    pub credentials: Credentials,
    /// External keys that it may reach.
    pub keys: Vec<KeyRule>,
    /// Where its keys live: one token, or several that hold the same keys, in this order.
    pub tokens: Vec<TokenName>,
    /// Which encryptions are decrypted again before they are answered.
    pub verify_writes: VerifyWrites,
    /// Which ciphertexts are read, and which are written.
    pub formats: Formats,
    /// How much may be asked of it.
    pub quota: limits::Settings,
    /// How much may be asked of each of its keys.
    pub key_quota: limits::Settings,
    /// What its policies say (P-80).
    pub authorization: Authorization,
    /// What is done as a version of a key nears the number of encryptions that it may make.
    pub encryption_limit: EncryptionLimit,
    /// When its keys are rotated by themselves.
    pub rotation: Rotation,
}

/// Which encryptions are decrypted again, and compared, before they are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VerifyWrites {
    /// All of them, but for those under keys that lack `CKA_DECRYPT`.
    #[default]
    Always,
    /// Those that ask for a data integrity value (P-43).
    WhenAsked,
}

/// One key store.
#[derive(Debug)]
pub struct Keystore {
    settings: Settings,
    requests: Arc<Limiter>,
    requests_by_key: Arc<KeyLimiters>,
}

/// Why a caller who is who it says may not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The key store is disabled (P-30).
    #[error("the key store is disabled")]
    KeystoreDisabled,
    /// The key store is frozen: by its configuration, or by a marker in the HSM.
    #[error("the key store is frozen")]
    Frozen,
    /// No rule of the key store allows this external key id.
    #[error("no key rule of the key store allows this external key id")]
    KeyNotAllowed,
    /// The key is disabled, or about to be deleted.
    #[error("the key is disabled")]
    KeyDisabled,
    /// The version that made the ciphertext is disabled.
    #[error("the version of the key that made this ciphertext is disabled")]
    VersionDisabled,
    /// The key exists, and is no AES key of 256 bits.
    #[error("the key is not an AES key of 256 bits")]
    NotAes256,
    /// `CKA_ENCRYPT` is false.
    #[error("the key does not permit encryption")]
    NoEncrypt,
    /// `CKA_DECRYPT` is false.
    #[error("the key does not permit decryption")]
    NoDecrypt,
    /// The CDIV promises that decryption works, and `CKA_DECRYPT` is false (P-46).
    #[error("the key does not permit the decryption that a data integrity value promises")]
    NoDecryptForCdiv,
    /// The key has no such version.
    #[error("the key has no version that made this ciphertext")]
    UnknownVersion,
    /// The key has versions, and the format that the key store writes can't name them.
    #[error("the key has versions, and the key store writes a format that knows none")]
    Versioned,
    /// More requests than the key store's quota allows.
    #[error("more requests than the quota of the key store allows")]
    OverQuota(Exceeded),
    /// More requests than the quota of each key allows.
    #[error("more requests for this key than the key quota of the key store allows")]
    OverKeyQuota(Exceeded),
}

impl PartialEq for Keystore {
    /// The same settings.
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings
    }
}

impl Keystore {
    /// A key store with these settings.
    pub fn new(settings: Settings) -> Self {
        let requests = Arc::new(Limiter::new(&settings.quota));
        let requests_by_key = Arc::new(KeyLimiters::new(settings.key_quota.clone()));
        Self { settings, requests, requests_by_key }
    }

    /// One that takes the place of another: quotas that are the same go on counting, so that nobody gets
    /// a new one by a reload.
    pub fn in_place_of(before: &Self, settings: Settings) -> Self {
        let mut keystore = Self::new(settings);
        if keystore.settings.quota == before.settings.quota {
            keystore.requests = before.requests.clone();
        }
        if keystore.settings.key_quota == before.settings.key_quota {
            keystore.requests_by_key = before.requests_by_key.clone();
        }
        keystore
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &KeystoreName {
        &self.settings.name
    }

    /// Its path prefix.
    pub fn prefix(&self) -> &PathPrefix {
        &self.settings.prefix
    }

    /// Whether it serves at all (P-30).
    pub fn is_enabled(&self) -> bool {
        self.settings.enabled
    }

    /// Whether its configuration says that its keys may be described but not used.
    pub fn is_frozen(&self) -> bool {
        self.settings.frozen
    }

    /// Whose signatures are accepted.
    pub fn credentials(&self) -> &Credentials {
        &self.settings.credentials
    }

    /// KMS Regions that may sign for it.
    pub fn regions(&self) -> &[Region] {
        &self.settings.regions
    }

    /// Where its keys live: never empty.
    pub fn tokens(&self) -> &[TokenName] {
        &self.settings.tokens
    }

    /// Which ciphertexts it reads, and which it writes.
    pub fn formats(&self) -> &Formats {
        &self.settings.formats
    }

    /// Which external keys it may reach.
    pub fn key_rules(&self) -> &[KeyRule] {
        &self.settings.keys
    }

    /// When its keys are rotated by themselves.
    pub fn rotation(&self) -> Rotation {
        self.settings.rotation
    }

    /// P-30: a disabled key store refuses all four operations.
    pub fn open(&self, _caller: &Verified) -> Result<(), Refused> {
        if self.settings.enabled { Ok(()) } else { Err(Refused::KeystoreDisabled) }
    }

    /// Lets one more request of a verified caller in, if the key store's quota has room for it. Nobody
    /// else can use a quota up: it is charged to those whose signature holds.
    pub fn admit(&self, caller: &Verified) -> Result<Admission, Refused> {
        self.open(caller)?;
        self.requests.admit().map_err(Refused::OverQuota)
    }

    /// What its policies say (P-80).
    pub fn authorization(&self) -> &Authorization {
        &self.settings.authorization
    }
}

/// Proof that a verified caller may ask for this external key: by the key rules, and by the policies,
/// whose word is in it.
///
/// It cannot be made elsewhere:
/// ```compile_fail,E0451
/// let id = "any".parse().unwrap();
/// fn permit(keystore: &xksd::keystore::Settings) {
///     let permit = xksd::keystore::Permit { id: &"any".parse().unwrap(), keystore };
/// }
/// ```
#[derive(Debug)]
#[must_use]
pub struct Permit<'a> {
    id: &'a ExternalKeyId,
    keystore: &'a Settings,
    requests: &'a KeyLimiters,
    _allowed: Allowed,
}

/// Whether a decryption follows the encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteCheck {
    /// Encrypt only.
    Skip,
    /// The key store wants it, but the key does not permit it: encrypt only, and count that.
    Impossible,
    /// Decrypt the output again before it is sent.
    Decrypt,
}

/// How an encryption is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writing {
    /// How the ciphertext is framed and what its metadata are.
    pub format: CiphertextFormat,
    /// Whether it is decrypted again before it is answered.
    pub check: WriteCheck,
}

impl Permit<'_> {
    /// The external key that may be named.
    pub fn id(&self) -> &ExternalKeyId {
        self.id
    }

    /// Lets one more request for the key in, if the quota of each key has room for it; `None` if there
    /// is no such quota.
    pub fn admit(&self, key: &Key<Holders>) -> Result<Option<Admission>, Refused> {
        self.expect_same(key);
        self.requests.admit(self.id).map_err(Refused::OverKeyQuota)
    }

    /// What is done as a version of the key nears the number of encryptions that it may make.
    pub fn encryption_limit(&self) -> EncryptionLimit {
        self.keystore.encryption_limit
    }

    /// Whether the key may only be described: its key store is frozen, by its configuration or by one
    /// of these markers.
    pub fn is_frozen(&self, freezes: &Freezes) -> bool {
        self.keystore.frozen || freezes.hold(&self.keystore.name)
    }

    /// The format of a ciphertext with these metadata, among those that the key store reads. Absent
    /// metadata are an empty slice.
    pub fn format_of(&self, ciphertext_metadata: &[u8]) -> Option<CiphertextFormat> {
        self.keystore.formats.of(ciphertext_metadata)
    }

    /// The newest version of the key, to encrypt with, and how: in the format that the key store
    /// writes, if that can name the version. What comes out is checked where a CDIV promises that
    /// decryption works, which is proved by one (P-43); else the key store decides.
    pub fn to_encrypt(
        &self,
        key: &Key<Holders>,
        integrity: IntegrityValue,
    ) -> Result<(AuthorizedKey, Writing), Refused> {
        self.expect_same(key);
        let version = key.newest();
        usable(key)?;
        if !version.usage.encrypt {
            return Err(Refused::NoEncrypt);
        }
        use IntegrityValue::{NotAsked, Sha256};
        let check = match (integrity, self.keystore.verify_writes) {
            // P-46: before any call to the HSM.
            (Sha256, _) if !version.usage.decrypt => return Err(Refused::NoDecryptForCdiv),
            (NotAsked, VerifyWrites::WhenAsked) => WriteCheck::Skip,
            (NotAsked, VerifyWrites::Always) if !version.usage.decrypt => WriteCheck::Impossible,
            (Sha256, _) | (NotAsked, VerifyWrites::Always) => WriteCheck::Decrypt,
        };
        let Version { version: number, object_id, .. } = *version;
        let made_by = CiphertextMetadata { version: number, object_id };
        let format = self.keystore.formats.to_write(made_by).ok_or(Refused::Versioned)?;
        Ok((AuthorizedKey::new(version), Writing { format, check }))
    }

    /// The version of the key that made a ciphertext, to decrypt it.
    pub fn to_decrypt(
        &self,
        key: &Key<Holders>,
        made_by: CiphertextMetadata,
    ) -> Result<AuthorizedKey, Refused> {
        self.expect_same(key);
        usable(key)?;
        let CiphertextMetadata { version, object_id } = made_by;
        let version = key.version(version, object_id).ok_or(Refused::UnknownVersion)?;
        if version.status != VersionStatus::Enabled {
            return Err(Refused::VersionDisabled);
        }
        if !version.kind.is_aes_256() {
            return Err(Refused::NotAes256);
        }
        if !version.usage.decrypt {
            return Err(Refused::NoDecrypt);
        }
        Ok(AuthorizedKey::new(version))
    }

    fn expect_same(&self, key: &Key<Holders>) {
        assert_eq!(key.id(), self.id, "the catalogue gives the key that it was asked for");
    }
}

fn usable(key: &Key<Holders>) -> Result<(), Refused> {
    if !key.is_enabled() {
        return Err(Refused::KeyDisabled);
    }
    if !key.newest().kind.is_aes_256() {
        return Err(Refused::NotAes256);
    }
    Ok(())
}

/// Proof that a caller may use one version of a key for one operation.
///
/// It cannot be made elsewhere:
/// ```compile_fail,E0451
/// let version = xksd::names::KeyVersion::FIRST;
/// let object_id = xksd::names::ObjectId::new([1; 8]);
/// let holders = [].into();
/// let key = xksd::keystore::AuthorizedKey { holders, version, object_id };
/// ```
#[derive(Debug)]
#[must_use]
pub struct AuthorizedKey {
    holders: Holders,
    version: KeyVersion,
    object_id: ObjectId,
}

impl AuthorizedKey {
    fn new(version: &Version<Holders>) -> Self {
        let Version { at, version, object_id, .. } = version;
        Self { holders: at.clone(), version: *version, object_id: *object_id }
    }

    /// The objects of this version, on the tokens of the key store's group.
    pub fn holders(&self) -> &[Holder] {
        &self.holders
    }

    /// The version's number.
    pub fn version(&self) -> KeyVersion {
        self.version
    }

    /// The version's identity.
    pub fn object_id(&self) -> ObjectId {
        self.object_id
    }
}

/// All key stores, by path prefix.
#[derive(Debug, Default)]
pub struct Keystores {
    by_prefix: HashMap<PathPrefix, Arc<Keystore>>,
}

/// Why key stores can't be served side by side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Clash {
    /// Two key stores have one prefix.
    #[error("key stores `{0}` and `{1}` have the same prefix")]
    Prefix(KeystoreName, KeystoreName),
    /// One access key id names two secrets (P-14).
    #[error("key stores `{0}` and `{1}` both have access key id `{2}`")]
    AccessKeyId(KeystoreName, KeystoreName, AccessKeyId),
}

impl Keystores {
    /// Puts key stores side by side, or names every clash between them.
    pub fn new(keystores: Vec<Keystore>) -> Result<Self, Vec<Clash>> {
        let mut clashes = Vec::new();
        let mut owners: HashMap<&AccessKeyId, &KeystoreName> = HashMap::new();
        let mut prefixes: HashMap<&PathPrefix, &KeystoreName> = HashMap::new();
        for keystore in &keystores {
            let name = keystore.name();
            if let Some(other) = prefixes.insert(keystore.prefix(), name) {
                clashes.push(Clash::Prefix(other.clone(), name.clone()));
            }
            // P-14: an id names one secret over the whole proxy. The same id in two key stores,
            // even with the same secret, would let one tenant's caller into the other's.
            for id in keystore.credentials().access_key_ids() {
                if let Some(other) = owners.insert(id, name) {
                    clashes.push(Clash::AccessKeyId(other.clone(), name.clone(), id.clone()));
                }
            }
        }
        if !clashes.is_empty() {
            return Err(clashes);
        }
        let keyed = keystores.into_iter().map(|k| (k.prefix().clone(), Arc::new(k)));
        Ok(Self { by_prefix: keyed.collect() })
    }

    /// The key store of a prefix.
    pub fn find(&self, prefix: &PathPrefix) -> Option<&Arc<Keystore>> {
        self.by_prefix.get(prefix)
    }

    /// All key stores, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Keystore>> {
        self.by_prefix.values()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::secret::Secret;
    use crate::sigv4::SecretAccessKey;

    fn keystore(name: &str, prefix: &str, access_key_id: &str) -> Keystore {
        let secret = SecretAccessKey::new(Secret::new("s".repeat(43))).unwrap();
        Keystore::new(Settings {
            name: name.parse().unwrap(),
            prefix: prefix.parse().unwrap(),
            enabled: true,
            regions: vec!["us-east-1".parse().unwrap()],
            credentials: Credentials::new([(access_key_id.parse().unwrap(), secret)]).unwrap(),
            keys: vec![],
            frozen: false,
            tokens: vec!["t".parse().unwrap()],
            verify_writes: VerifyWrites::default(),
            formats: Formats::Own,
            quota: limits::Settings::default(),
            key_quota: limits::Settings::default(),
            authorization: Authorization::Open,
            encryption_limit: EncryptionLimit::default(),
            rotation: Rotation::default(),
        })
    }

    const ID_A: &str = "AAAAAAAAAAAAAAAAAAAA";
    const ID_B: &str = "BBBBBBBBBBBBBBBBBBBB";

    #[test]
    fn prefixes_are_tenants_p_4() {
        let stores = vec![keystore("a", "one", ID_A), keystore("b", "two", ID_B)];
        let stores = Keystores::new(stores).unwrap();
        assert_eq!(stores.find(&"one".parse().unwrap()).unwrap().name().as_str(), "a");
        assert!(
            stores.find(&"one/".trim_end_matches('/').to_uppercase().parse().unwrap()).is_none()
        );
    }

    #[test]
    fn a_quota_that_stays_the_same_goes_on_counting() {
        let one = |concurrent| {
            let keystore = keystore("a", "one", ID_A);
            let limit = limits::Settings { rate: None, concurrent: NonZeroU32::new(concurrent) };
            Settings { quota: limit.clone(), key_quota: limit, ..keystore.settings }
        };
        let before = Keystore::new(one(1));
        let id = "key".parse().unwrap();
        let held = (before.requests.admit().unwrap(), before.requests_by_key.admit(&id).unwrap());
        let same = Keystore::in_place_of(&before, one(1));
        assert_eq!(same.requests.admit().unwrap_err(), Exceeded::Concurrent);
        assert_eq!(same.requests_by_key.admit(&id).unwrap_err(), Exceeded::Concurrent);
        let other = Keystore::in_place_of(&before, one(2));
        drop((other.requests.admit().unwrap(), other.requests_by_key.admit(&id).unwrap()));
        drop(held);
        assert!(same.requests.admit().is_ok());
    }

    #[test]
    fn every_clash_is_named_p_14() {
        let stores = vec![keystore("a", "one", ID_A), keystore("b", "one", ID_A)];
        assert_eq!(Keystores::new(stores).unwrap_err().len(), 2);
    }
}
