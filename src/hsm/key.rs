//! An external key as the catalogue describes it: one label, one or several versions.

use std::sync::Arc;

use super::backend::{ChangeableAttributes, ObjectHandle};
use super::state::{Date, KeyState, VersionStatus};
use crate::names::{ExternalKeyId, KeyVersion, ObjectId};

/// What kind of key an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyKind {
    /// An AES key of this many bits; 256 is what KMS wants.
    Aes {
        /// Length of the key in bits.
        bits: u16,
    },
    /// Any other key, by the name it has in `keySpec`.
    Other(String),
}

impl KeyKind {
    /// Whether it is what the protocol's cryptographic operations need.
    pub fn is_aes_256(&self) -> bool {
        *self == Self::Aes { bits: 256 }
    }
}

/// What an object may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// `CKA_ENCRYPT`
    pub encrypt: bool,
    /// `CKA_DECRYPT`
    pub decrypt: bool,
    /// `CKA_SIGN`
    pub sign: bool,
    /// `CKA_VERIFY`
    pub verify: bool,
    /// `CKA_WRAP`
    pub wrap: bool,
    /// `CKA_UNWRAP`
    pub unwrap: bool,
    /// `CKA_DERIVE`
    pub derive: bool,
}

/// What the token says of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyAttributes {
    /// Label, `CKA_ID` and the usages that can change.
    pub changeable: ChangeableAttributes,
    /// Kind and length.
    pub kind: KeyKind,
    /// All usages.
    pub usage: Usage,
    /// `CKA_CHECK_VALUE`, where the token tells it.
    pub check_value: Option<CheckValue>,
}

/// `CKA_CHECK_VALUE`: the first three bytes of a block of zeros encrypted under the key (PKCS#11
/// 2.40, 4.8.2). Equal keys have equal ones; one in 16 million of others has, too.
pub type CheckValue = [u8; 3];

/// One version of an external key, and where its objects are: on one token ([`ObjectHandle`]), or
/// on those of a group ([`Holders`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version<At = ObjectHandle> {
    /// Its object, or objects.
    pub at: At,
    /// Its number; [`KeyVersion::FOREIGN`] if xksd did not make it.
    pub version: KeyVersion,
    /// Its identity; [`ObjectId::FOREIGN`] if xksd did not make it.
    pub object_id: ObjectId,
    /// Whether it may be used.
    pub status: VersionStatus,
    /// Which of two tokens knows the newer state of this version; 0 if xksd did not make it.
    pub epoch: u64,
    /// When it was made; `None` if xksd did not make it.
    pub created: Option<Date>,
    /// Kind and length.
    pub kind: KeyKind,
    /// What it may be used for.
    pub usage: Usage,
    /// `CKA_CHECK_VALUE`, where the token tells it.
    pub check_value: Option<CheckValue>,
}

/// Where the objects of a version are among the tokens of a group, in the group's order.
pub type Holders = Arc<[Holder]>;

/// One token's object of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Which token of the group.
    pub token: usize,
    /// The object.
    pub handle: ObjectHandle,
    /// Whether it may be used.
    pub standing: Standing,
}

/// What is known of one token's object, compared with the other tokens' of the same version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It has the same key material as another token's.
    Proved,
    /// No other token has an object of this version.
    Only,
    /// It is used although another token may have other material under this name, because that
    /// token cannot be asked.
    Trusted,
    /// Not compared yet, and not used.
    Pending,
    /// Nothing can prove that it is the same: not used.
    Unproved,
    /// It is another key, or one with other usages: not used.
    Unequal,
}

impl Standing {
    /// Every one of them.
    pub const ALL: [Self; 6] =
        [Self::Proved, Self::Only, Self::Trusted, Self::Pending, Self::Unproved, Self::Unequal];

    /// The word for it in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Proved => "proved",
            Self::Only => "only",
            Self::Trusted => "trusted",
            Self::Pending => "pending",
            Self::Unproved => "unproved",
            Self::Unequal => "unequal",
        }
    }

    /// Whether the object is used.
    pub fn is_admitted(self) -> bool {
        matches!(self, Self::Proved | Self::Only | Self::Trusted)
    }
}

impl Version {
    /// Describes an object; one whose `CKA_ID` is not ours is foreign and enabled.
    pub fn new(at: ObjectHandle, attributes: &KeyAttributes) -> Self {
        let KeyAttributes { changeable, kind, usage, check_value } = attributes;
        let state = KeyState::parse(&changeable.id).ok();
        let created = state.as_ref().map(|state| state.created);
        let (version, object_id, status, epoch) = match state {
            Some(state) => (state.version, state.object_id, state.status, state.epoch),
            None => (KeyVersion::FOREIGN, ObjectId::FOREIGN, VersionStatus::Enabled, 0),
        };
        let (kind, usage, check_value) = (kind.clone(), *usage, *check_value);
        Self { at, version, object_id, status, epoch, created, kind, usage, check_value }
    }
}

impl<At> Version<At> {
    /// What tells it from every other version of its key.
    pub fn identity(&self) -> (KeyVersion, ObjectId) {
        (self.version, self.object_id)
    }
}

/// An external key: everything in a token, or in the tokens of a group, that bears one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key<At = ObjectHandle> {
    id: ExternalKeyId,
    /// Newest first; never empty.
    versions: Vec<Version<At>>,
}

/// Why the objects under one label are no usable key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// Two objects bear the label that xksd did not make, or that have the same version and
    /// identity: nothing says which one is meant (P-6).
    #[error("two objects in the HSM bear this label, and nothing says which one is meant")]
    Ambiguous,
    /// There are versions, and none of them is ready: all are pending.
    #[error("no version of this key is in use yet")]
    NoneReady,
}

impl<At> Key<At> {
    /// Puts the objects of one label together.
    pub fn new(id: ExternalKeyId, mut versions: Vec<Version<At>>) -> Result<Self, KeyFault> {
        let foreign = versions.iter().filter(|v| v.version == KeyVersion::FOREIGN).count();
        if foreign > 1 {
            return Err(KeyFault::Ambiguous);
        }
        versions.retain(|version| version.status != VersionStatus::Pending);
        if versions.is_empty() {
            return Err(KeyFault::NoneReady);
        }
        // The same order on every proxy: version, then object id.
        versions.sort_by_key(|version| std::cmp::Reverse(version.identity()));
        if versions.windows(2).any(|pair| pair[0].identity() == pair[1].identity()) {
            return Err(KeyFault::Ambiguous);
        }
        Ok(Self { id, versions })
    }

    /// Its external key id.
    pub fn id(&self) -> &ExternalKeyId {
        &self.id
    }

    /// The version that encrypts, and whose status is the key's. A disabled newest version does
    /// not make an older one the newest: it disables the key.
    pub fn newest(&self) -> &Version<At> {
        &self.versions[0]
    }

    /// Whether the key may be used at all.
    pub fn is_enabled(&self) -> bool {
        self.newest().status == VersionStatus::Enabled
    }

    /// The version that a ciphertext was made with, by identity; its number must fit as well.
    pub fn version(&self, version: KeyVersion, object_id: ObjectId) -> Option<&Version<At>> {
        self.versions.iter().find(|v| v.identity() == (version, object_id))
    }

    /// All versions, newest first.
    pub fn versions(&self) -> &[Version<At>] {
        &self.versions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u32, object: u8, status: VersionStatus) -> Version {
        Version {
            at: ObjectHandle { generation: 1, number: u64::from(object) },
            version: KeyVersion::new(number),
            object_id: ObjectId::new([object; 8]),
            status,
            epoch: 1,
            created: None,
            kind: KeyKind::Aes { bits: 256 },
            usage: Usage::default(),
            check_value: None,
        }
    }

    fn key(versions: Vec<Version>) -> Result<Key, KeyFault> {
        Key::new("k".parse().unwrap(), versions)
    }

    #[test]
    fn the_newest_is_by_version_and_then_by_object_id() {
        use VersionStatus::Enabled;
        let key = key(vec![version(1, 9, Enabled), version(2, 3, Enabled), version(2, 4, Enabled)]);
        assert_eq!(key.unwrap().newest().object_id, ObjectId::new([4; 8]));
    }

    #[test]
    fn a_disabled_newest_version_disables_the_key() {
        let versions =
            vec![version(1, 1, VersionStatus::Enabled), version(2, 2, VersionStatus::Disabled)];
        let key = key(versions).unwrap();
        assert!(!key.is_enabled());
        assert_eq!(key.newest().version, KeyVersion::new(2));
    }

    #[test]
    fn a_pending_version_does_not_exist_yet() {
        let versions =
            vec![version(1, 1, VersionStatus::Enabled), version(2, 2, VersionStatus::Pending)];
        let with_older = key(versions).unwrap();
        assert_eq!(with_older.newest().version, KeyVersion::new(1));
        assert_eq!(with_older.version(KeyVersion::new(2), ObjectId::new([2; 8])), None);
        let alone = key(vec![version(1, 1, VersionStatus::Pending)]);
        assert_eq!(alone, Err(KeyFault::NoneReady));
    }

    #[test]
    fn two_foreign_objects_of_one_label_are_refused() {
        let versions =
            vec![version(0, 0, VersionStatus::Enabled), version(0, 0, VersionStatus::Enabled)];
        assert_eq!(key(versions), Err(KeyFault::Ambiguous));
    }

    #[test]
    fn two_objects_of_one_identity_are_refused() {
        let twins = || vec![version(1, 7, VersionStatus::Enabled); 2];
        assert_eq!(key(twins()), Err(KeyFault::Ambiguous));
    }

    #[test]
    fn a_version_is_found_by_number_and_identity_together() {
        let key = key(vec![version(1, 1, VersionStatus::Enabled)]).unwrap();
        assert!(key.version(KeyVersion::new(1), ObjectId::new([1; 8])).is_some());
        assert!(key.version(KeyVersion::new(2), ObjectId::new([1; 8])).is_none());
        assert!(key.version(KeyVersion::new(1), ObjectId::new([2; 8])).is_none());
    }
}
