//! The fixed-size parts of an AES-GCM ciphertext. Shared with the side that talks to the HSM.

/// Length of every authentication tag, in bytes (P-41, P-50).
pub const TAG_LEN: usize = 16;

/// Initialization vector of 12 or 16 bytes, the two lengths that the protocol knows (P-41, P-50).
///
/// xksd makes only those of 12; the others come from HSMs that choose their own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Iv {
    /// 96 bits.
    Twelve([u8; 12]),
    /// 128 bits.
    Sixteen([u8; 16]),
}

impl Iv {
    /// The bytes, as they go into C_Encrypt's and C_Decrypt's parameters.
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Twelve(bytes) => bytes,
            Self::Sixteen(bytes) => bytes,
        }
    }
}

impl TryFrom<&[u8]> for Iv {
    type Error = LengthError;

    fn try_from(bytes: &[u8]) -> Result<Self, LengthError> {
        let error = LengthError { actual: bytes.len() };
        match bytes.try_into() {
            Ok(twelve) => Ok(Self::Twelve(twelve)),
            Err(_) => bytes.try_into().map(Self::Sixteen).map_err(|_| error),
        }
    }
}

/// Authentication tag of 16 bytes: never longer or shorter, so that the boundary between it and
/// the ciphertext cannot be moved (P-51).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag([u8; TAG_LEN]);

impl Tag {
    /// Takes the sixteen bytes.
    pub const fn new(bytes: [u8; TAG_LEN]) -> Self {
        Self(bytes)
    }

    /// The sixteen bytes.
    pub const fn as_bytes(&self) -> &[u8; TAG_LEN] {
        &self.0
    }
}

impl TryFrom<&[u8]> for Tag {
    type Error = LengthError;

    fn try_from(bytes: &[u8]) -> Result<Self, LengthError> {
        let error = LengthError { actual: bytes.len() };
        bytes.try_into().map(Self).map_err(|_| error)
    }
}

/// Bytes that are too many or too few for an IV or a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{actual} bytes are not an allowed length")]
pub struct LengthError {
    /// How many there were.
    pub actual: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lengths_of_p_50_are_taken() {
        for len in 0..=64usize {
            let bytes = vec![7; len];
            let iv = Iv::try_from(&bytes[..]);
            match len {
                12 | 16 => assert_eq!(iv.unwrap().as_bytes(), bytes),
                _ => assert_eq!(iv, Err(LengthError { actual: len })),
            }
            let tag = Tag::try_from(&bytes[..]);
            match len {
                16 => assert_eq!(tag.unwrap().as_bytes()[..], bytes),
                _ => assert_eq!(tag, Err(LengthError { actual: len })),
            }
        }
    }
}
