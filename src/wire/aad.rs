//! How a request's AAD and the ciphertext metadata become the AAD that the HSM is given (P-42).

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
    let aad_len = u16::try_from(aad.len()).map_err(|_| FrameError::Aad { len: aad.len() })?;
    let metadata_len = u8::try_from(ciphertext_metadata.len())
        .map_err(|_| FrameError::Metadata { len: ciphertext_metadata.len() })?;
    let fields: [&[u8]; 4] = [&aad_len.to_be_bytes(), aad, &[metadata_len], ciphertext_metadata];
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

    #[test]
    fn the_layout_is_that_of_p_42() {
        assert_eq!(frame(b"", b"").unwrap(), [0, 0, 0]);
        assert_eq!(frame(b"ab", b"xyz").unwrap(), *b"\x00\x02ab\x03xyz");
        assert_eq!(frame(&[9; 258], b"").unwrap()[..3], [1, 2, 9]);
    }

    #[test]
    fn lengths_at_the_edge_of_their_fields_p_42() {
        assert_eq!(frame(&vec![0; 65_535], &[0; 255]).unwrap().len(), 2 + 65_535 + 1 + 255);
        assert_eq!(frame(&vec![0; 65_536], b""), Err(FrameError::Aad { len: 65_536 }));
        assert_eq!(frame(b"", &[0; 256]), Err(FrameError::Metadata { len: 256 }));
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
    }
}
