//! The 13 bytes that xksd returns with each ciphertext, by which decryption finds the key version.
//!
//! `0x01` ‖ version (4 bytes, big-endian) ‖ object id (8 bytes). They are bound into the AAD
//! (P-42), so a changed byte makes decryption fail. The format is for life: see
//! `docs/ciphertext-format.md`.

use crate::names::{KeyVersion, ObjectId};

/// Which version of an external key made a ciphertext.
///
/// A foreign key, one that xksd did not make, has [`KeyVersion::FOREIGN`] and
/// [`ObjectId::FOREIGN`]. Whether the named version exists is for the catalogue to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CiphertextMetadata {
    /// The version's number.
    pub version: KeyVersion,
    /// The identity of the version's key material.
    pub object_id: ObjectId,
}

/// Length of the encoded form, in bytes; the protocol allows 20 (P-41).
pub const ENCODED_LEN: usize = 13;

/// First byte of the encoded form.
const FORMAT: u8 = 0x01;

impl CiphertextMetadata {
    /// Of a key that xksd did not make.
    pub const FOREIGN: Self = Self { version: KeyVersion::FOREIGN, object_id: ObjectId::FOREIGN };

    /// The bytes that KMS keeps for us.
    pub fn encode(&self) -> [u8; ENCODED_LEN] {
        let [v0, v1, v2, v3] = self.version.number().to_be_bytes();
        let [o0, o1, o2, o3, o4, o5, o6, o7] = self.object_id.bytes();
        [FORMAT, v0, v1, v2, v3, o0, o1, o2, o3, o4, o5, o6, o7]
    }

    /// Reads what KMS gives back.
    ///
    /// Fails for anything that no release of this format wrote; decryption answers that with
    /// `InvalidCiphertextException` (P-51).
    pub fn decode(bytes: &[u8]) -> Result<Self, UnknownFormat> {
        match *bytes {
            [FORMAT, v0, v1, v2, v3, o0, o1, o2, o3, o4, o5, o6, o7] => Ok(Self {
                version: KeyVersion::new(u32::from_be_bytes([v0, v1, v2, v3])),
                object_id: ObjectId::new([o0, o1, o2, o3, o4, o5, o6, o7]),
            }),
            _ => Err(UnknownFormat),
        }
    }
}

/// Ciphertext metadata of a format that this release does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("ciphertext metadata has a format that this release does not know")]
pub struct UnknownFormat;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_layout_is_for_life() {
        let metadata = CiphertextMetadata {
            version: KeyVersion::new(0x0102_0304),
            object_id: ObjectId::new([0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7]),
        };
        let bytes = [1, 1, 2, 3, 4, 0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7];
        assert_eq!(metadata.encode(), bytes);
        assert_eq!(CiphertextMetadata::decode(&bytes), Ok(metadata));
    }

    #[test]
    fn other_formats_are_unknown_p_51() {
        for first in (0..=u8::MAX).filter(|&first| first != 1) {
            let mut bytes = [0; ENCODED_LEN];
            bytes[0] = first;
            assert_eq!(CiphertextMetadata::decode(&bytes), Err(UnknownFormat));
        }
        for len in (0..=20).filter(|&len| len != ENCODED_LEN) {
            assert_eq!(CiphertextMetadata::decode(&vec![1; len]), Err(UnknownFormat), "{len}");
        }
    }

    proptest! {
        #[test]
        fn every_value_is_read_back(version: u32, object_id: [u8; 8]) {
            let metadata = CiphertextMetadata {
                version: KeyVersion::new(version),
                object_id: ObjectId::new(object_id),
            };
            prop_assert_eq!(CiphertextMetadata::decode(&metadata.encode()), Ok(metadata));
        }

        #[test]
        fn what_is_read_is_written_the_same(bytes: [u8; ENCODED_LEN]) {
            if let Ok(metadata) = CiphertextMetadata::decode(&bytes) {
                prop_assert_eq!(metadata.encode(), bytes);
            }
        }
    }
}
