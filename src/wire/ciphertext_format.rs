//! The formats of ciphertexts: which metadata they have, how AAD and metadata are framed, and which
//! version of a key they are of (`docs/ciphertext-format.md`).
//!
//! There are format 1, xksd's own, and that of AWS's sample proxy (`aws-samples/aws-kms-xks-proxy`),
//! by which a key store moves from there to here without encrypting anything anew. Which one a
//! ciphertext has is told by its metadata alone. Both are bound to them by the HSM: a frame of one
//! format is no frame of the other, so metadata that were exchanged make decryption fail.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::aad::{FrameError, digest_frame, frame};
use super::ciphertext_metadata::{CiphertextMetadata, ENCODED_LEN};
use super::limits::MAX_CIPHERTEXT_METADATA_LEN;

/// The format of one ciphertext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CiphertextFormat {
    /// Format 1, xksd's own: the metadata name the key's version.
    One(CiphertextMetadata),
    /// That of AWS's sample proxy: the metadata are a constant of its settings, or absent, and the
    /// key is one that xksd did not make.
    AwsSample(SampleMetadata),
}

impl CiphertextFormat {
    /// The version of the key that made it.
    pub fn made_by(&self) -> CiphertextMetadata {
        match self {
            Self::One(metadata) => *metadata,
            Self::AwsSample(_) => CiphertextMetadata::FOREIGN,
        }
    }

    /// What KMS keeps for us; where that is nothing, the answer has no such member.
    pub fn metadata(&self) -> MetadataBytes {
        match self {
            Self::One(metadata) => MetadataBytes::One(metadata.encode()),
            Self::AwsSample(constant) => MetadataBytes::AwsSample(*constant),
        }
    }

    /// The AAD for the HSM (P-42). `None` is a request without AAD, which only the sample proxy
    /// tells from one with an empty AAD.
    pub fn frame(&self, aad: Option<&[u8]>) -> Result<Vec<u8>, FrameError> {
        let metadata = self.metadata();
        match self {
            Self::One(_) => frame(aad.unwrap_or_default(), metadata.as_bytes()),
            Self::AwsSample(_) => digest_frame(aad, metadata.as_bytes()),
        }
    }

    /// What a format that is not xksd's own is called in the configuration and in the log.
    pub fn foreign_name(self) -> Option<&'static str> {
        match self {
            Self::One(_) => None,
            Self::AwsSample(_) => Some(AWS_SAMPLE),
        }
    }
}

/// The word for the format of AWS's sample proxy.
pub const AWS_SAMPLE: &str = "aws-sample";

/// Ciphertext metadata as they are sent, kept without an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataBytes {
    /// Of format 1.
    One([u8; ENCODED_LEN]),
    /// Of AWS's sample proxy.
    AwsSample(SampleMetadata),
}

impl MetadataBytes {
    /// The bytes; an empty slice stands for metadata that are absent.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::One(bytes) => bytes,
            Self::AwsSample(constant) => constant.as_bytes(),
        }
    }
}

/// The ciphertext metadata of AWS's sample proxy, `ciphertext_metadata_b64` of its settings: up to
/// 20 bytes, the same for all of its ciphertexts. Empty where its settings have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleMetadata {
    len: u8,
    room: [u8; MAX_CIPHERTEXT_METADATA_LEN],
}

/// Why there is no such constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SampleMetadataError {
    /// As the sample proxy asks for it.
    #[error("must be standard Base64 with padding")]
    Base64,
    /// P-41
    #[error("must be at most {MAX_CIPHERTEXT_METADATA_LEN} bytes before Base64, not {actual}")]
    Length {
        /// Bytes found.
        actual: usize,
    },
    /// A ciphertext with it could be taken for one of xksd's own.
    #[error("would be read as metadata of xksd's own, or let a frame end as xksd's own do")]
    Ours,
}

impl SampleMetadata {
    /// That of settings which have none.
    pub const ABSENT: Self = Self { len: 0, room: [0; MAX_CIPHERTEXT_METADATA_LEN] };

    /// Takes the bytes. Those by which a ciphertext of the sample proxy could be taken for one of
    /// ours are refused: metadata of format 1, and what ends in a length of 13 and such metadata,
    /// because then the two formats would have a frame in common.
    pub fn new(bytes: &[u8]) -> Result<Self, SampleMetadataError> {
        let actual = bytes.len();
        let too_long = SampleMetadataError::Length { actual };
        let len = u8::try_from(actual).map_err(|_| too_long)?;
        let mut room = [0; MAX_CIPHERTEXT_METADATA_LEN];
        room.get_mut(..actual).ok_or(too_long)?.copy_from_slice(bytes);
        let (before, end) = bytes.split_at(actual.saturating_sub(ENCODED_LEN));
        // What stands before the end in a frame: a byte of the constant, or else its length.
        let length = before.last().map_or(actual, |&byte| usize::from(byte));
        if length == ENCODED_LEN && CiphertextMetadata::decode(end).is_ok() {
            return Err(SampleMetadataError::Ours);
        }
        Ok(Self { len, room })
    }

    /// The bytes; an empty slice stands for metadata that are absent.
    pub fn as_bytes(&self) -> &[u8] {
        self.room.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// Reads it as it stands in the sample proxy's settings: Base64.
impl FromStr for SampleMetadata {
    type Err = SampleMetadataError;

    fn from_str(text: &str) -> Result<Self, SampleMetadataError> {
        let bytes = STANDARD.decode(text).map_err(|_| SampleMetadataError::Base64)?;
        Self::new(&bytes)
    }
}

/// The metadata that a sample proxy has had over time. What its settings said when a ciphertext was
/// made is what KMS keeps, so all of them count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleConstants {
    /// What its settings say now: this is written.
    pub now: SampleMetadata,
    /// What they have said before.
    pub before: Vec<SampleMetadata>,
}

/// Which formats a key store reads, and which it writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Formats {
    /// Format 1.
    Own,
    /// Reads both, writes format 1.
    ReadAwsSample(SampleConstants),
    /// Reads both, writes that of AWS's sample proxy, so that one can be put in this one's place.
    WriteAwsSample(SampleConstants),
}

impl Formats {
    /// The format of a ciphertext with these metadata, if it is one of those that are read. Absent
    /// metadata are an empty slice.
    pub fn of(&self, ciphertext_metadata: &[u8]) -> Option<CiphertextFormat> {
        // No constant decodes as one of these: see `SampleMetadata::new`.
        if let Ok(metadata) = CiphertextMetadata::decode(ciphertext_metadata) {
            return Some(CiphertextFormat::One(metadata));
        }
        let (Self::ReadAwsSample(constants) | Self::WriteAwsSample(constants)) = self else {
            return None;
        };
        let SampleConstants { now, before } = constants;
        let mut known = std::iter::once(now).chain(before);
        let constant = known.find(|constant| constant.as_bytes() == ciphertext_metadata)?;
        Some(CiphertextFormat::AwsSample(*constant))
    }

    /// The format to write under this version of a key; `None` if it can't name that version.
    pub fn to_write(&self, version: CiphertextMetadata) -> Option<CiphertextFormat> {
        match self {
            Self::Own | Self::ReadAwsSample(_) => Some(CiphertextFormat::One(version)),
            Self::WriteAwsSample(constants) => (version == CiphertextMetadata::FOREIGN)
                .then_some(CiphertextFormat::AwsSample(constants.now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::names::{KeyVersion, ObjectId};

    const FOREIGN: [u8; ENCODED_LEN] = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    fn constants(now: &[u8], before: &[&[u8]]) -> SampleConstants {
        let constant = |bytes: &[u8]| SampleMetadata::new(bytes).unwrap();
        SampleConstants { now: constant(now), before: before.iter().map(|b| constant(b)).collect() }
    }

    fn version(number: u32) -> CiphertextMetadata {
        CiphertextMetadata { version: KeyVersion::new(number), object_id: ObjectId::new([5; 8]) }
    }

    #[test]
    fn metadata_tell_the_format_p_51() {
        let two = constants(b"v1", &[b""]);
        let read = Formats::ReadAwsSample(two.clone());
        for formats in [&read, &Formats::WriteAwsSample(two)] {
            for known in [&b"v1"[..], b""] {
                let format = formats.of(known).unwrap();
                assert!(matches!(format, CiphertextFormat::AwsSample(_)), "{format:?}");
                assert_eq!(format.metadata().as_bytes(), known);
                assert_eq!(format.made_by(), CiphertextMetadata::FOREIGN);
                assert_eq!(format.foreign_name(), Some("aws-sample"));
                assert_eq!(Formats::Own.of(known), None, "it was not asked for");
            }
            for unknown in [&b"v"[..], b"v2", b"v1\0", &[0], &[1; 12], &[2; 13], &[1; 20]] {
                assert_eq!(formats.of(unknown), None, "{unknown:?}");
            }
            let own = CiphertextFormat::One(CiphertextMetadata::FOREIGN);
            assert_eq!(formats.of(&FOREIGN), Some(own));
            assert_eq!(own.foreign_name(), None);
        }
        let only = Formats::ReadAwsSample(constants(b"v1", &[]));
        assert_eq!(only.of(b""), None, "the constant must not be left out");
    }

    #[test]
    fn what_knows_no_versions_is_written_under_version_0_alone() {
        let foreign = CiphertextMetadata::FOREIGN;
        let write = Formats::WriteAwsSample(constants(b"v2", &[b"v1"]));
        let written = write.to_write(foreign).unwrap();
        assert_eq!(written.metadata().as_bytes(), b"v2", "what the settings say now");
        assert_eq!(write.to_write(version(1)), None);
        for own in [Formats::Own, Formats::ReadAwsSample(constants(b"v2", &[]))] {
            for version in [foreign, version(1)] {
                assert_eq!(own.to_write(version), Some(CiphertextFormat::One(version)));
            }
        }
    }

    #[test]
    fn the_constant_is_read_as_the_sample_proxy_reads_it() {
        use SampleMetadataError::{Base64, Length};
        let parse = |text: &str| text.parse::<SampleMetadata>();
        assert_eq!(parse("djAuMC4x").unwrap().as_bytes(), b"v0.0.1");
        assert_eq!(parse("").unwrap().as_bytes(), b"");
        assert_eq!(parse(&STANDARD.encode([9; 20])).unwrap().as_bytes(), [9; 20]);
        assert_eq!(parse(&STANDARD.encode([9; 21])), Err(Length { actual: 21 }));
        // No padding, trailing bits, another alphabet, a blank.
        for bad in ["djE", "djF=", "dj-_", "djAu MC4x", "djAuMC4x\n"] {
            assert_eq!(parse(bad), Err(Base64), "{bad:?}");
        }
    }

    #[test]
    fn a_constant_that_looks_like_ours_is_refused() {
        let new = SampleMetadata::new;
        assert_eq!(new(&version(1).encode()), Err(SampleMetadataError::Ours));
        assert_eq!(new(&FOREIGN), Err(SampleMetadataError::Ours));
        let ends = |before: &[u8]| [before, &FOREIGN].concat();
        assert_eq!(new(&ends(&[13])), Err(SampleMetadataError::Ours));
        assert_eq!(new(&ends(&[0, 13])), Err(SampleMetadataError::Ours));
        for good in [&ends(&[12])[..], &ends(&[13, 0]), &[1; 12], &[1; 14], &[13; 14], &[2; 13]] {
            assert_eq!(new(good).unwrap().as_bytes(), good);
        }
    }

    /// Why: with such a constant, a caller could choose an AAD by which our ciphertext, authenticated
    /// under that AAD, is the sample proxy's under another.
    #[test]
    fn a_refused_constant_would_have_shared_a_frame() {
        let constant = [&[7, 7, 7, 13][..], &FOREIGN].concat();
        let other_aad = [3; 36];
        let theirs = digest_frame(Some(&other_aad), &constant).unwrap();
        let aad = &theirs[2..theirs.len() - 1 - ENCODED_LEN];
        assert_eq!(aad.len(), other_aad.len());
        assert_eq!(frame(aad, &FOREIGN).unwrap(), theirs);
    }

    proptest! {
        /// Whatever the AAD of the one, no AAD of the other gives its frame: not even where the lengths
        /// would allow it, and the constant ends as close to ours as it may.
        #[test]
        fn no_frame_is_of_two_formats_p_42(
            (mut aad, is_fit) in (proptest::option::of(proptest::collection::vec(any::<u8>(), 0..80)), any::<bool>()),
            (begin, length, is_close) in (proptest::collection::vec(any::<u8>(), 0..=6), 12..=14u8, any::<bool>()),
            object_id: [u8; 8],
        ) {
            let constant =
                if is_close { [&begin[..], &[length], &FOREIGN].concat() } else { begin };
            let constant = SampleMetadata::new(&constant[constant.len().saturating_sub(20)..]);
            if let Ok(constant) = constant {
                if let (Some(aad), true) = (&mut aad, is_fit) {
                    // 2 + 32 + 1 + constant = 2 + AAD + 1 + 13
                    aad.resize(19 + constant.as_bytes().len(), 0);
                }
                let theirs = CiphertextFormat::AwsSample(constant).frame(aad.as_deref()).unwrap();
                // The only AAD that could make ours of it is what stands where ours has it.
                let len = usize::from(u16::from_be_bytes([theirs[0], theirs[1]]));
                if let Some(ours) = theirs.get(2..2 + len) {
                    for metadata in [CiphertextMetadata::FOREIGN, CiphertextMetadata {
                        version: KeyVersion::FIRST, object_id: ObjectId::new(object_id),
                    }] {
                        let ours = CiphertextFormat::One(metadata).frame(Some(ours)).unwrap();
                        prop_assert_ne!(&ours, &theirs);
                    }
                }
            }
        }
    }
}
