//! How a request's AAD and the ciphertext metadata become the AAD that the HSM is given (P-42): a
//! frame for each format of ciphertexts.

use aws_lc_rs::digest;

/// Why there is no frame for two byte strings: a length does not fit its field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The AAD's length has two bytes.
    #[error("additional authenticated data of {len} bytes do not fit a 2-byte length")]
    Aad {
        /// Bytes of AAD.
        len: usize,
    },
    /// The metadata's length has one byte.
    #[error("ciphertext metadata of {len} bytes do not fit a 1-byte length")]
    Metadata {
        /// Bytes of metadata.
        len: usize,
    },
}

/// P-42: 2-byte big-endian length of the AAD ‖ AAD ‖ 1-byte length of the metadata ‖ metadata.
///
/// An absent AAD or metadata is given as an empty slice. The lengths make the frame injective: no
/// two pairs share one, so metadata can never be passed off as AAD.
pub fn frame(aad: &[u8], ciphertext_metadata: &[u8]) -> Result<Vec<u8>, FrameError> {
    assemble(aad.len(), aad, ciphertext_metadata)
}

/// The frame of AWS's sample proxy: 2-byte big-endian length of the AAD ‖ SHA-256 of the AAD, if
/// there is an AAD ‖ 1-byte length of the metadata ‖ metadata.
///
/// An AAD that is there and empty is hashed, one that is absent is not. No two triples of AAD, its
/// presence and metadata of up to 20 bytes are known to share a frame: without an AAD it has 23
/// bytes at most, with one at least 35, and there SHA-256 has to collide.
pub fn digest_frame(aad: Option<&[u8]>, ciphertext_metadata: &[u8]) -> Result<Vec<u8>, FrameError> {
    let digest = aad.map(|aad| digest::digest(&digest::SHA256, aad));
    let digest = digest.as_ref().map_or(&[][..], AsRef::as_ref);
    assemble(aad.map_or(0, <[u8]>::len), digest, ciphertext_metadata)
}

/// Puts a frame together; `aad_or_digest` is what stands for an AAD of `aad_len` bytes.
fn assemble(
    aad_len: usize,
    aad_or_digest: &[u8],
    ciphertext_metadata: &[u8],
) -> Result<Vec<u8>, FrameError> {
    let aad_len = u16::try_from(aad_len).map_err(|_| FrameError::Aad { len: aad_len })?;
    let metadata_len = u8::try_from(ciphertext_metadata.len())
        .map_err(|_| FrameError::Metadata { len: ciphertext_metadata.len() })?;
    let fields: [&[u8]; 4] =
        [&aad_len.to_be_bytes(), aad_or_digest, &[metadata_len], ciphertext_metadata];
    Ok(fields.concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Takes a frame apart again; there is exactly one way to.
    fn unframe(frame: &[u8]) -> (&[u8], &[u8]) {
        let (len, rest) = frame.split_at(2);
        let (aad, rest) = rest.split_at(usize::from(u16::from_be_bytes([len[0], len[1]])));
        assert_eq!(usize::from(rest[0]), rest.len() - 1);
        (aad, &rest[1..])
    }

    /// Whether there is an AAD, its length, and that of the metadata.
    type Cut = (bool, usize, usize);

    fn cut() -> impl Strategy<Value = Cut> {
        (any::<bool>(), 0..80usize, 0..=20usize)
    }

    #[test]
    fn the_layout_is_that_of_p_42() {
        assert_eq!(frame(b"", b"").unwrap(), [0, 0, 0]);
        assert_eq!(frame(b"ab", b"xyz").unwrap(), *b"\x00\x02ab\x03xyz");
        assert_eq!(frame(&[9; 258], b"").unwrap()[..3], [1, 2, 9]);
    }

    /// `printf '' | sha256sum` and `printf ab | sha256sum`.
    #[test]
    fn the_sample_proxy_hashes_an_aad_that_is_there() {
        let hex = |bytes: Vec<u8>| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let frame = |aad, metadata| hex(digest_frame(aad, metadata).unwrap());
        assert_eq!(frame(None, b""), "000000");
        assert_eq!(frame(None, b"xyz"), "00000378797a");
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(frame(Some(b""), b""), format!("0000{empty}00"));
        let ab = "fb8e20fc2e4c3f248c60c39bd652f3c1347298bb977b8b4d5903b85055620603";
        assert_eq!(frame(Some(b"ab"), b"xyz"), format!("0002{ab}0378797a"));
    }

    #[test]
    fn lengths_at_the_edge_of_their_fields_p_42() {
        assert_eq!(frame(&vec![0; 65_535], &[0; 255]).unwrap().len(), 2 + 65_535 + 1 + 255);
        assert_eq!(frame(&vec![0; 65_536], b""), Err(FrameError::Aad { len: 65_536 }));
        assert_eq!(frame(b"", &[0; 256]), Err(FrameError::Metadata { len: 256 }));
        assert_eq!(digest_frame(Some(&vec![0; 65_535]), b"").unwrap().len(), 2 + 32 + 1);
        let long = vec![0; 65_536];
        assert_eq!(digest_frame(Some(&long), b""), Err(FrameError::Aad { len: 65_536 }));
        assert_eq!(digest_frame(None, &[0; 256]), Err(FrameError::Metadata { len: 256 }));
    }

    proptest! {
        #[test]
        fn a_frame_has_one_origin_p_42(
            aad in proptest::collection::vec(any::<u8>(), 0..600),
            metadata in proptest::collection::vec(any::<u8>(), 0..=20),
        ) {
            let framed = frame(&aad, &metadata).unwrap();
            prop_assert_eq!(unframe(&framed), (&aad[..], &metadata[..]));
            // Passing the metadata off as AAD gives another frame.
            if aad != metadata {
                prop_assert_ne!(Ok(framed), frame(&metadata, &aad));
            }
        }

        /// Of two that differ only in what of one becomes of the other: an AAD that begins with the
        /// other's, metadata that begin with the other's, an AAD that is only there.
        #[test]
        fn a_digest_frame_has_one_origin_p_42(
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
            (one, other) in (cut(), cut()),
        ) {
            let frame = |&(has_aad, aad, metadata): &Cut| {
                let aad = bytes.get(..aad).unwrap_or(&bytes);
                let metadata = bytes.get(..metadata).unwrap_or(&bytes);
                let aad = has_aad.then_some(aad);
                ((aad, metadata), digest_frame(aad, metadata).unwrap())
            };
            let ((one, one_frame), (other, other_frame)) = (frame(&one), frame(&other));
            prop_assert_eq!(one == other, one_frame == other_frame);
        }
    }
}
