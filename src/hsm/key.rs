//! An external key as the catalogue describes it: one label, one or several versions.

use super::backend::{ChangeableAttributes, ObjectHandle};
use super::state::{KeyState, VersionStatus};
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
}

/// One version of an external key on one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its object.
    pub handle: ObjectHandle,
    /// Its number; [`KeyVersion::FOREIGN`] if xksd did not make it.
    pub version: KeyVersion,
    /// Its identity; [`ObjectId::FOREIGN`] if xksd did not make it.
    pub object_id: ObjectId,
    /// Whether it may be used.
    pub status: VersionStatus,
    /// Kind and length.
    pub kind: KeyKind,
    /// What it may be used for.
    pub usage: Usage,
}

impl Version {
    /// Describes an object; one whose `CKA_ID` is not ours is foreign and enabled.
    pub fn new(handle: ObjectHandle, attributes: &KeyAttributes) -> Self {
        let (version, object_id, status) = match KeyState::parse(&attributes.changeable.id) {
            Ok(state) => (state.version, state.object_id, state.status),
            Err(_) => (KeyVersion::FOREIGN, ObjectId::FOREIGN, VersionStatus::Enabled),
        };
        let (kind, usage) = (attributes.kind.clone(), attributes.usage);
        Self { handle, version, object_id, status, kind, usage }
    }
}

/// An external key: everything in the token that bears one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    id: ExternalKeyId,
    /// Newest first; never empty.
    versions: Vec<Version>,
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

impl Key {
    /// Puts the objects of one label together.
    pub fn new(id: ExternalKeyId, mut versions: Vec<Version>) -> Result<Self, KeyFault> {
        let foreign = versions.iter().filter(|v| v.version == KeyVersion::FOREIGN).count();
        if foreign > 1 {
            return Err(KeyFault::Ambiguous);
        }
        versions.retain(|version| version.status != VersionStatus::Pending);
        if versions.is_empty() {
            return Err(KeyFault::NoneReady);
        }
        // The same order on every proxy: version, then object id.
        versions.sort_by_key(|v| std::cmp::Reverse((v.version, v.object_id)));
        let identity = |v: &Version| (v.version, v.object_id);
        if versions.windows(2).any(|pair| identity(&pair[0]) == identity(&pair[1])) {
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
    pub fn newest(&self) -> &Version {
        &self.versions[0]
    }

    /// Whether the key may be used at all.
    pub fn is_enabled(&self) -> bool {
        self.newest().status == VersionStatus::Enabled
    }

    /// The version that a ciphertext was made with, by identity; its number must fit as well.
    pub fn version(&self, version: KeyVersion, object_id: ObjectId) -> Option<&Version> {
        self.versions.iter().find(|v| v.object_id == object_id && v.version == version)
    }

    /// All versions, newest first.
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u32, object: u8, status: VersionStatus) -> Version {
        Version {
            handle: ObjectHandle { generation: 1, number: u64::from(object) },
            version: KeyVersion::new(number),
            object_id: ObjectId::new([object; 8]),
            status,
            kind: KeyKind::Aes { bits: 256 },
            usage: Usage::default(),
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
