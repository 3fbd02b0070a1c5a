//! The secret half of a credential, and the signing keys that are derived from it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use zeroize::Zeroizing;

use crate::names::Region;
use crate::secret::Secret;

use super::SERVICE;
use super::date::AmzDate;

/// A SigV4 secret access key (P-14): 43 to 64 characters of `A-Z a-z 0-9 / + =`.
///
/// Zeroized when dropped; neither `Debug` nor an error shows any of it; equality is in constant
/// time.
#[derive(PartialEq)]
pub struct SecretAccessKey(Secret<String>);

/// Why a string is no secret access key. It tells nothing of the string but its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretAccessKeyError {
    /// Shorter or longer than the specification allows.
    #[error("a secret access key must have 43 to 64 characters, not {actual}")]
    Length {
        /// Characters found.
        actual: usize,
    },
    /// A character outside the allowed set.
    #[error("a secret access key may only contain A-Z a-z 0-9 / + =")]
    Character,
}

impl SecretAccessKey {
    /// Takes over what the configuration read.
    ///
    /// # Errors
    /// [`SecretAccessKeyError`] where length or alphabet is not that of P-14. A line break at the
    /// end, as files have it, is the caller's to remove.
    pub fn new(text: Secret<String>) -> Result<Self, SecretAccessKeyError> {
        let exposed = text.expose();
        let actual = exposed.chars().count();
        if !(43..=64).contains(&actual) {
            return Err(SecretAccessKeyError::Length { actual });
        }
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'+' | b'=');
        if !exposed.bytes().all(is_allowed) {
            return Err(SecretAccessKeyError::Character);
        }
        Ok(Self(text))
    }

    /// The text itself, to be given to KMS. What is made from it must be zeroized too.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// Derives the key for one day and Region, for the service of XKS.
    pub(super) fn signing_key(&self, date: AmzDate, region: &Region) -> SigningKey {
        SigningKey::derive(self.0.expose(), date, region.as_str(), SERVICE)
    }

    /// Derives the key for any scope, sound or not.
    pub(super) fn signing_key_for(&self, date: AmzDate, region: &str, service: &str) -> SigningKey {
        SigningKey::derive(self.0.expose(), date, region, service)
    }
}

impl FromStr for SecretAccessKey {
    type Err = SecretAccessKeyError;

    /// Copies the text: for callers whose own copy is no concern, tests above all.
    fn from_str(text: &str) -> Result<Self, SecretAccessKeyError> {
        Self::new(Secret::new(text.to_owned()))
    }
}

impl fmt::Debug for SecretAccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Signs for one secret, day, Region and service. Clones share the key, which is zeroized when
/// the last of them is dropped.
#[derive(Clone)]
pub(super) struct SigningKey(Arc<Zeroizing<Vec<u8>>>);

impl SigningKey {
    /// `HMAC(HMAC(HMAC(HMAC("AWS4" + secret, day), region), service), "aws4_request")`.
    ///
    /// The crate does not wipe what it computes on the way, nor the value that it returns; only
    /// the copy kept here is wiped.
    pub(super) fn derive(secret: &str, date: AmzDate, region: &str, service: &str) -> Self {
        let key = generate_signing_key(secret, date.system_time(), region, service);
        Self(Arc::new(Zeroizing::new(key.as_ref().to_vec())))
    }

    /// The signature in 64 lower-case hex digits. Until it was compared it is a secret too: it
    /// is what a stranger would have to know.
    pub(super) fn sign(&self, string_to_sign: &str) -> Zeroizing<String> {
        Zeroizing::new(calculate_signature(self.0.as_slice(), string_to_sign.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_keep_p_14() {
        // P-14
        let parse = str::parse::<SecretAccessKey>;
        for good in ["a".repeat(43), "a".repeat(64), format!("{}AZ09az/+=", "x".repeat(40))] {
            assert!(parse(&good).is_ok());
        }
        for length in [0, 1, 42, 65, 1000] {
            let error = SecretAccessKeyError::Length { actual: length };
            assert_eq!(parse(&"a".repeat(length)), Err(error));
        }
        for bad in [" ", "\n", "-", "_", "\u{e9}", "\0"] {
            let text = format!("{}{bad}", "a".repeat(43));
            assert_eq!(parse(&text), Err(SecretAccessKeyError::Character), "{bad:?}");
        }
    }

    #[test]
    fn neither_debug_nor_errors_show_it() {
        let text = format!("hunter2{}", "a".repeat(40));
        let key: SecretAccessKey = text.parse().unwrap();
        assert_eq!(format!("{key:?}"), "<redacted>");
        for bad in ["hunter2".to_owned(), format!("{text} ")] {
            let error = bad.parse::<SecretAccessKey>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }
}
