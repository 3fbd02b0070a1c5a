//! The answers of the operations on a key, as JSON. That of GetHealthStatus is in
//! [`super::health`].

use std::collections::BTreeSet;
use std::fmt;

use zeroize::Zeroizing;

use super::cdiv::Cdiv;
use super::ciphertext_format::CiphertextFormat;
use super::gcm::{Iv, Tag};
use super::json::{JsonWriter, base64_len};
use crate::secret::Plaintext;

/// The finished body of an answer, zeroized when dropped: one of them carries a plaintext (P-45).
///
/// It owns its bytes, is `Send` and `'static`, so that `bytes::Bytes::from_owner` takes it and the
/// last reader's drop clears it.
pub struct ResponseBody(Zeroizing<Vec<u8>>);

impl ResponseBody {
    pub(super) fn new(json: Zeroizing<Vec<u8>>) -> Self {
        Self(json)
    }
}

impl AsRef<[u8]> for ResponseBody {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Shows the length only: there may be a plaintext in it.
impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes redacted>", self.0.len())
    }
}

/// Kind and size of an external key, as GetKeyMetadata names it (P-30).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySpec {
    /// An AES key; KMS takes only 256 bits.
    Aes {
        /// Length of the key.
        bits: u16,
    },
    /// Another key, named truthfully, `RSA_2048` for one. KMS refuses it.
    Other(String),
}

impl fmt::Display for KeySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aes { bits } => write!(f, "AES_{bits}"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// Something that a key may be used for (P-30).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyUsage {
    /// `ENCRYPT`
    Encrypt,
    /// `DECRYPT`
    Decrypt,
    /// `SIGN`
    Sign,
    /// `VERIFY`
    Verify,
    /// `WRAP`
    Wrap,
    /// `UNWRAP`
    Unwrap,
    /// `DERIVE`
    Derive,
}

impl KeyUsage {
    /// All seven: under the ten that an answer may name (P-30).
    pub const ALL: [Self; 7] = [
        Self::Encrypt,
        Self::Decrypt,
        Self::Sign,
        Self::Verify,
        Self::Wrap,
        Self::Unwrap,
        Self::Derive,
    ];

    /// The word of the protocol.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Encrypt => "ENCRYPT",
            Self::Decrypt => "DECRYPT",
            Self::Sign => "SIGN",
            Self::Verify => "VERIFY",
            Self::Wrap => "WRAP",
            Self::Unwrap => "UNWRAP",
            Self::Derive => "DERIVE",
        }
    }
}

/// Whether a key is in service (P-30).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyStatus {
    /// `ENABLED`
    Enabled,
    /// `DISABLED`
    Disabled,
}

impl KeyStatus {
    /// The word of the protocol.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "ENABLED",
            Self::Disabled => "DISABLED",
        }
    }
}

/// Answer of GetKeyMetadata (P-30).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataResponse {
    /// Kind and size of the key.
    pub key_spec: KeySpec,
    /// What it may be used for. A set, so that no usage is named twice and never more than ten.
    pub key_usage: BTreeSet<KeyUsage>,
    /// Whether it is in service.
    pub key_status: KeyStatus,
}

impl MetadataResponse {
    /// The JSON.
    pub fn to_body(&self) -> ResponseBody {
        let mut json = JsonWriter::with_capacity(160);
        json.raw("{\"keySpec\":").text(&self.key_spec.to_string());
        json.raw(",\"keyUsage\":[");
        for (i, usage) in self.key_usage.iter().enumerate() {
            json.raw(if i == 0 { "" } else { "," }).text(usage.as_str());
        }
        json.raw("],\"keyStatus\":").text(self.key_status.as_str()).raw("}");
        json.finish()
    }
}

/// Answer of Encrypt (P-41).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptResponse {
    /// As long as the plaintext.
    pub ciphertext: Vec<u8>,
    /// The vector that the ciphertext was made with.
    pub iv: Iv,
    /// The authentication tag.
    pub tag: Tag,
    /// Gives the ciphertext metadata, by which Decrypt finds format and key version again. There
    /// may be none.
    pub format: CiphertextFormat,
    /// Present whenever its algorithm was named in the request.
    pub cdiv: Option<Cdiv>,
}

impl EncryptResponse {
    /// The JSON.
    pub fn to_body(&self) -> ResponseBody {
        let capacity = base64_len(self.ciphertext.len()).saturating_add(320);
        let mut json = JsonWriter::with_capacity(capacity);
        json.raw("{\"ciphertext\":").base64(&self.ciphertext);
        let metadata = self.format.metadata();
        if !metadata.as_bytes().is_empty() {
            json.raw(",\"ciphertextMetadata\":").base64(metadata.as_bytes());
        }
        json.raw(",\"initializationVector\":").base64(self.iv.as_bytes());
        json.raw(",\"authenticationTag\":").base64(self.tag.as_bytes());
        if let Some(cdiv) = &self.cdiv {
            json.raw(",\"ciphertextDataIntegrityValue\":").base64(cdiv.as_bytes());
        }
        json.raw("}");
        json.finish()
    }
}

/// Answer of Decrypt (P-50).
#[derive(Debug, PartialEq)]
pub struct DecryptResponse {
    /// As long as the ciphertext.
    pub plaintext: Plaintext,
}

impl DecryptResponse {
    /// The JSON, written into a buffer of exactly its length: the plaintext's Base64 exists there
    /// and nowhere else (P-45).
    pub fn to_body(&self) -> ResponseBody {
        const HEAD: &str = "{\"plaintext\":";
        const TAIL: &str = "}";
        const AROUND: usize = HEAD.len() + 2 + TAIL.len();
        let capacity = base64_len(self.plaintext.len()).saturating_add(AROUND);
        let mut json = JsonWriter::with_capacity(capacity);
        json.raw(HEAD).base64(self.plaintext.expose()).raw(TAIL);
        json.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{KeyVersion, ObjectId};
    use crate::wire::cdiv::CdivInput;
    use crate::wire::ciphertext_metadata::CiphertextMetadata;

    fn text(body: &ResponseBody) -> &str {
        std::str::from_utf8(body.as_ref()).unwrap()
    }

    #[test]
    fn metadata_answers_p_30() {
        let mut response = MetadataResponse {
            key_spec: KeySpec::Aes { bits: 256 },
            key_usage: BTreeSet::from([KeyUsage::Decrypt, KeyUsage::Encrypt]),
            key_status: KeyStatus::Enabled,
        };
        assert_eq!(
            text(&response.to_body()),
            r#"{"keySpec":"AES_256","keyUsage":["ENCRYPT","DECRYPT"],"keyStatus":"ENABLED"}"#
        );
        response.key_spec = KeySpec::Other("RSA_2048".to_owned());
        response.key_usage.clear();
        response.key_status = KeyStatus::Disabled;
        assert_eq!(
            text(&response.to_body()),
            r#"{"keySpec":"RSA_2048","keyUsage":[],"keyStatus":"DISABLED"}"#
        );
        response.key_usage.extend(KeyUsage::ALL);
        assert!(
            text(&response.to_body())
                .contains(r#"["ENCRYPT","DECRYPT","SIGN","VERIFY","WRAP","UNWRAP","DERIVE"]"#)
        );
    }

    #[test]
    fn encrypt_answers_p_41() {
        let mut response = EncryptResponse {
            ciphertext: b"\xfb\xff".to_vec(),
            iv: Iv::Twelve([0; 12]),
            tag: Tag::new([1; 16]),
            format: CiphertextFormat::One(CiphertextMetadata {
                version: KeyVersion::FIRST,
                object_id: ObjectId::new([2; 8]),
            }),
            cdiv: None,
        };
        let without = r#"{"ciphertext":"+/8=","ciphertextMetadata":"AQAAAAECAgICAgICAg==","#
            .to_owned()
            + r#""initializationVector":"AAAAAAAAAAAAAAAA","#
            + r#""authenticationTag":"AQEBAQEBAQEBAQEBAQEBAQ==""#;
        assert_eq!(text(&response.to_body()), format!("{without}}}"));

        let empty = CdivInput {
            aad: b"",
            ciphertext_metadata: b"",
            iv: &response.iv,
            ciphertext: b"",
            tag: &response.tag,
        };
        response.cdiv = Some(empty.digest());
        let body = response.to_body();
        let cdiv = text(&body).strip_prefix(&without).unwrap();
        assert!(cdiv.starts_with(r#","ciphertextDataIntegrityValue":""#), "{cdiv}");
        assert_eq!(cdiv.len(), r#","ciphertextDataIntegrityValue":""}"#.len() + 44);
    }

    #[test]
    fn metadata_of_another_format_are_written_and_absent_ones_left_out_p_41() {
        let answer = |constant: &str| {
            let response = EncryptResponse {
                ciphertext: b"\xfb\xff".to_vec(),
                iv: Iv::Twelve([0; 12]),
                tag: Tag::new([1; 16]),
                format: CiphertextFormat::AwsSample(constant.parse().unwrap()),
                cdiv: None,
            };
            text(&response.to_body()).to_owned()
        };
        let rest = r#""initializationVector":"AAAAAAAAAAAAAAAA","authenticationTag":"AQEBAQEBAQEBAQEBAQEBAQ=="}"#;
        assert_eq!(answer(""), r#"{"ciphertext":"+/8=","#.to_owned() + rest);
        let with = r#"{"ciphertext":"+/8=","ciphertextMetadata":"djAuMC4x","#;
        assert_eq!(answer("djAuMC4x"), with.to_owned() + rest);
    }

    #[test]
    fn decrypt_answers_p_50() {
        let response = DecryptResponse { plaintext: Plaintext::new(b"Hello World!".to_vec()) };
        assert_eq!(text(&response.to_body()), r#"{"plaintext":"SGVsbG8gV29ybGQh"}"#);
    }

    #[test]
    fn a_plaintext_is_written_without_moving_the_buffer_p_45() {
        for len in [0usize, 1, 2, 3, 4300, 8192] {
            let body = DecryptResponse { plaintext: Plaintext::new(vec![7; len]) }.to_body();
            // A buffer that had grown would have more room than it needs, and left a copy behind.
            assert_eq!(body.0.capacity(), body.0.len(), "{len}");
            assert!(!format!("{body:?}").contains("plaintext"));
        }
    }

    #[test]
    fn a_body_can_be_handed_to_bytes() {
        let body = DecryptResponse { plaintext: Plaintext::new(vec![7]) }.to_body();
        assert_eq!(&bytes::Bytes::from_owner(body)[..], br#"{"plaintext":"Bw=="}"#);
    }
}
