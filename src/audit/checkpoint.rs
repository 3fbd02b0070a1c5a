//! Checkpoints: that a chain had this head at this time, signed by a key that never leaves the HSM.
//!
//! What is signed stands in the record as it was signed, so that it can be verified by hand
//! (`docs/audit.md`).

use std::time::SystemTime;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::chain::{ChainId, Head};
use super::json::{Object, time_text, unhex};
use crate::hsm::backend::Signing;

/// Label of the key that signs. Of the colon in it: no external key id names it.
pub const AUDIT_KEY: &str = "xksd:audit";

/// What a statement begins with, so that no other use of the key can be taken for one.
const FORMAT: &str = "xksd-audit-checkpoint-1";

/// SubjectPublicKeyInfo of a P-256 key (RFC 5480) up to the point, of 65 bytes.
const SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// An uncompressed point of P-256.
const POINT_LEN: usize = 65;

/// What is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Which chain.
    pub chain: ChainId,
    /// Its last record.
    pub head: Head,
    /// When, as it is written.
    pub time: String,
    /// The machine.
    pub host: String,
}

impl Statement {
    /// A new one.
    pub fn new(chain: ChainId, head: Head, time: SystemTime, host: &str) -> Self {
        Self { chain, head, time: time_text(time), host: host.to_owned() }
    }

    /// The bytes that are signed.
    pub fn text(&self) -> String {
        let mut object = Object::new();
        object.text("format", FORMAT);
        object.bytes("chain", self.chain.as_bytes());
        object.number("seq", self.head.seq);
        object.bytes("hash", self.head.hash.as_bytes());
        object.text("time", &self.time);
        object.text("host", &self.host);
        object.finish()
    }
}

/// A statement with its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// What is signed.
    pub statement: Statement,
    /// In which token.
    pub token: String,
    /// How: by what the token's key is for.
    pub algorithm: Signing,
    /// ECDSA: DER, as openssl takes it. HMAC: 32 bytes.
    pub signature: Vec<u8>,
}

/// A record's own members.
#[derive(Deserialize)]
struct Written {
    statement: WrittenStatement,
    token: String,
    algorithm: String,
    signature: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenStatement {
    format: String,
    chain: String,
    seq: u64,
    hash: String,
    time: String,
    host: String,
}

impl Sealed {
    /// Adds its members to a record.
    pub fn write(&self, object: &mut Object) {
        object.object("statement", &self.statement.text());
        object.text("token", &self.token);
        object.text("algorithm", self.algorithm.as_str());
        object.bytes("signature", &self.signature);
    }

    /// Reads them from a record's line. `None` if they are not all there, or not as they are written.
    pub fn read(line: &str) -> Option<Self> {
        let Written { statement, token, algorithm, signature } = serde_json::from_str(line).ok()?;
        let WrittenStatement { format, chain, seq, hash, time, host } = statement;
        if format != FORMAT {
            return None;
        }
        let head = Head { seq, hash: hash.parse().ok()? };
        let statement = Statement { chain: chain.parse().ok()?, head, time, host };
        // What is verified is what stands there, and not something that means the same.
        if !line.contains(&statement.text()) {
            return None;
        }
        let algorithm = Signing::named(&algorithm)?;
        Some(Self { statement, token, algorithm, signature: unhex(&signature)? })
    }
}

/// The public half of an audit key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    point: [u8; POINT_LEN],
}

/// Why a text is no public key of an audit key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no PEM file with the public key (SubjectPublicKeyInfo) of a P-256 key")]
pub struct NoPublicKey;

impl PublicKey {
    /// From the value of `CKA_EC_POINT`: an uncompressed point, in a DER OCTET STRING or without one,
    /// as modules differ.
    ///
    /// # Errors
    /// Where it is no point of P-256 in this form.
    pub fn from_point(value: &[u8]) -> Result<Self, NoPublicKey> {
        let point = match value {
            [0x04, 0x41, point @ ..] if point.len() == POINT_LEN => point,
            point => point,
        };
        let point: [u8; POINT_LEN] = point.try_into().map_err(|_| NoPublicKey)?;
        // SEC 1, 2.3.3: uncompressed.
        if point.first() == Some(&0x04) { Ok(Self { point }) } else { Err(NoPublicKey) }
    }

    /// From PEM, as [`PublicKey::pem`] writes it.
    ///
    /// # Errors
    /// Where it is something else.
    pub fn from_pem(text: &str) -> Result<Self, NoPublicKey> {
        let (_, rest) = text.split_once("-----BEGIN PUBLIC KEY-----").ok_or(NoPublicKey)?;
        let (body, _) = rest.split_once("-----END PUBLIC KEY-----").ok_or(NoPublicKey)?;
        let body: String = body.split_ascii_whitespace().collect();
        let der = STANDARD.decode(body).map_err(|_| NoPublicKey)?;
        Self::from_point(der.strip_prefix(&SPKI).ok_or(NoPublicKey)?)
    }

    /// As PEM.
    pub fn pem(&self) -> String {
        let body = STANDARD.encode([&SPKI[..], &self.point].concat());
        let (lines, rest) = body.as_bytes().as_chunks::<64>();
        let lines = lines.iter().map(|line| &line[..]).chain([rest]);
        let lines: String = lines
            .filter(|line| !line.is_empty())
            .map(|line| String::from_utf8_lossy(line).into_owned() + "\n")
            .collect();
        format!("-----BEGIN PUBLIC KEY-----\n{lines}-----END PUBLIC KEY-----\n")
    }

    /// Whether it made this signature, in DER.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.point)
            .verify(message, signature)
            .is_ok()
    }
}

/// A signature as PKCS#11 gives it, r and s of 32 bytes each, in the DER that other tools take.
pub fn der_signature(raw: &[u8; 64]) -> Vec<u8> {
    let (r, s) = raw.split_at(32);
    let (r, s) = (integer(r), integer(s));
    let length = r.len().saturating_add(s.len());
    // At most 70: one byte is enough for the length.
    let mut der = vec![0x30, u8::try_from(length).unwrap_or(u8::MAX)];
    der.extend([r, s].concat());
    der
}

/// A positive INTEGER in DER: as short as it can be, with a zero before what would be a sign.
fn integer(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let digits = number.get(zeros..).unwrap_or_default();
    let sign: &[u8] = if digits.first().is_none_or(|first| first & 0x80 != 0) { &[0] } else { &[] };
    let length = sign.len().saturating_add(digits.len());
    [&[0x02, u8::try_from(length).unwrap_or(u8::MAX)], sign, digits].concat()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

    use super::super::chain::Hash;
    use super::*;

    fn pair() -> EcdsaKeyPair {
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
    }

    fn statement() -> Statement {
        let head = Head { seq: 7, hash: Hash::of(b"record") };
        Statement::new(ChainId::new([1; 16]), head, SystemTime::UNIX_EPOCH, "host \"a\"")
    }

    #[test]
    fn what_a_token_signs_verifies_offline() {
        let pair = pair();
        let key = PublicKey::from_point(pair.public_key().as_ref()).unwrap();
        let text = statement().text();
        // Often enough that r and s come with and without leading zeros and signs.
        for _ in 0..300 {
            let raw = pair.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
            let signature = der_signature(raw.as_ref().try_into().unwrap());
            assert!(key.verifies(text.as_bytes(), &signature));
            assert!(!key.verifies(b"something else", &signature));
        }
        assert_eq!(integer(&[0, 0]), [2, 1, 0]);
        assert_eq!(integer(&[0, 0x80]), [2, 2, 0, 0x80]);
        assert_eq!(integer(&[0, 0x7f]), [2, 1, 0x7f]);
    }

    #[test]
    fn a_public_key_is_read_as_it_is_written() {
        let key = PublicKey::from_point(pair().public_key().as_ref()).unwrap();
        assert_eq!(PublicKey::from_pem(&key.pem()), Ok(key.clone()));
        let wrapped = [&[0x04, 0x41][..], &key.point].concat();
        assert_eq!(PublicKey::from_point(&wrapped), Ok(key.clone()));
        let private = key.pem().replace("PUBLIC", "PRIVATE");
        let cut = key.pem().replace('\n', "").replace("=", "");
        for text in
            ["", &private, &cut, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"]
        {
            assert_eq!(PublicKey::from_pem(text), Err(NoPublicKey), "{text}");
        }
    }

    #[test]
    fn a_checkpoint_is_read_as_it_is_written() {
        let sealed = Sealed {
            statement: statement(),
            token: "hsm".to_owned(),
            algorithm: Signing::HmacSha256,
            signature: vec![9; 32],
        };
        let mut object = Object::new();
        object.number("seq", 8);
        sealed.write(&mut object);
        let line = object.finish();
        assert_eq!(Sealed::read(&line), Some(sealed));
        let spaced = line.replace(r#""seq":7"#, r#""seq": 7"#);
        let other = line.replace(FORMAT, "xksd-audit-checkpoint-2");
        let upper = line.replace("0909", "0A09");
        for line in ["{}", &spaced, &other, &upper] {
            assert_eq!(Sealed::read(line), None, "{line}");
        }
    }
}
