//! The ciphertext data integrity value (CDIV), by which KMS knows that what it stores is what the
//! proxy checked (P-43).

use aws_lc_rs::digest;

use super::gcm::{Iv, Tag};

/// SHA-256 over AAD ‖ metadata ‖ IV ‖ ciphertext ‖ tag (P-43).
#[derive(Debug, Clone)]
pub struct Cdiv(digest::Digest);

impl Cdiv {
    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_ref()
    }
}

impl PartialEq for Cdiv {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Cdiv {}

/// What a CDIV is computed over: raw bytes, as they are sent. An absent part is an empty slice.
#[derive(Debug, Clone, Copy)]
pub struct CdivInput<'a> {
    /// The AAD of the request, not the frame that the HSM was given.
    pub aad: &'a [u8],
    /// The ciphertext metadata of the answer.
    pub ciphertext_metadata: &'a [u8],
    /// The initialization vector of the answer.
    pub iv: &'a Iv,
    /// The ciphertext of the answer.
    pub ciphertext: &'a [u8],
    /// The authentication tag of the answer.
    pub tag: &'a Tag,
}

impl CdivInput<'_> {
    /// The CDIV of these parts, in the order of P-43.
    pub fn digest(&self) -> Cdiv {
        let mut sha256 = digest::Context::new(&digest::SHA256);
        for part in [
            self.aad,
            self.ciphertext_metadata,
            self.iv.as_bytes(),
            self.ciphertext,
            self.tag.as_bytes(),
        ] {
            sha256.update(part);
        }
        Cdiv(sha256.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the hexadecimal notation of P-44.
    fn hex(text: &str) -> Vec<u8> {
        let digits = text.as_bytes().chunks(2);
        digits.map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
    }

    #[test]
    fn the_worked_example_of_the_specification_p_44() {
        let iv = Iv::try_from(&hex("1ccae5470f39700254779031")[..]).unwrap();
        let tag = Tag::try_from(&hex("bc1c4dda7707d6812447c5955e99b261")[..]).unwrap();
        let ciphertext = hex("821c642b5b71783367deaf18");
        let input = CdivInput {
            aad: b"project=nile,department=marketing",
            ciphertext_metadata: b"key_version=1",
            iv: &iv,
            ciphertext: &ciphertext,
            tag: &tag,
        };
        let expected = hex("a8703f2260bd8791ec2d15ea0b23e65a0631eedcf2a13a65cc82db3f47cf5ec7");
        assert_eq!(input.digest().as_bytes(), expected);
        assert_ne!(CdivInput { aad: b"", ..input }.digest().as_bytes(), expected);
    }
}
