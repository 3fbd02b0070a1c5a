//! Writes the JSON of answers: infallible, and without a copy of what it writes.
//!
//! serde_json would do for most answers, but it grows its buffer as it goes, and what a growing
//! buffer leaves behind is not zeroized. The answers are flat enough to be written by hand.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::response::ResponseBody;

/// Appends JSON to one buffer. A buffer that was made large enough is never moved.
pub(super) struct JsonWriter(Zeroizing<Vec<u8>>);

/// Length of the Base64 of `len` bytes, padding included.
pub(super) fn base64_len(len: usize) -> usize {
    len.div_ceil(3).saturating_mul(4)
}

impl JsonWriter {
    /// A buffer for `capacity` bytes. An answer with a plaintext must give its exact length.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(capacity)))
    }

    /// Punctuation and member names, as they are.
    pub(super) fn raw(&mut self, json: &str) -> &mut Self {
        self.0.extend_from_slice(json.as_bytes());
        self
    }

    /// A string of any content, quoted and escaped.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.0.push(b'"');
        for byte in text.bytes() {
            match byte {
                b'"' | b'\\' => self.0.extend([b'\\', byte]),
                0..0x20 => {
                    let digit =
                        |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
                    self.0.extend(*b"\\u00");
                    self.0.extend([digit(byte >> 4), digit(byte & 0xf)]);
                }
                _ => self.0.push(byte),
            }
        }
        self.0.push(b'"');
        self
    }

    /// Bytes as a quoted string of standard Base64 with padding.
    pub(super) fn base64(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.push(b'"');
        let start = self.0.len();
        // Encoded in place: the crate's writers and strings keep un-zeroized copies on the way.
        // The room is exactly what the encoder asks for, so it does not fail. If it did, the
        // member would be a run of `=`, which nobody takes for Base64.
        self.0.resize(start.saturating_add(base64_len(bytes.len())), b'=');
        if let Some(room) = self.0.get_mut(start..) {
            let _ = STANDARD.encode_slice(bytes, room);
        }
        self.0.push(b'"');
        self
    }

    /// The finished answer.
    pub(super) fn finish(self) -> ResponseBody {
        ResponseBody::new(self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_buffer_of_the_right_size_never_moves_p_45() {
        let mut json = JsonWriter::with_capacity(4 + 2 + base64_len(4300));
        assert!(json.0.capacity() >= 4 + 2 + base64_len(4300));
        let place = json.0.as_ptr();
        json.raw("{m").base64(&[7; 4300]).raw(":}");
        assert_eq!(json.0.as_ptr(), place);
    }

    proptest! {
        #[test]
        fn strings_and_bytes_are_read_back(
            text in any::<String>(), bytes in proptest::collection::vec(any::<u8>(), 0..100)
        ) {
            let mut json = JsonWriter::with_capacity(0);
            json.raw("[").text(&text).raw(",").base64(&bytes).raw("]");
            let (read, base64): (String, String) =
                serde_json::from_slice(json.finish().as_ref()).unwrap();
            prop_assert_eq!(read, text);
            prop_assert_eq!(base64.len(), base64_len(bytes.len()));
            prop_assert_eq!(STANDARD.decode(base64).unwrap(), bytes);
        }
    }
}
