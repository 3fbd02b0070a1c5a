//! How large a request may be (P-23).

/// Longest request body that is read at all, in bytes (P-23). It is judged before authentication.
pub const MAX_BODY_LEN: usize = 128 * 1024;

/// Longest ARN in the request metadata, in characters (P-20).
pub const MAX_ARN_LEN: usize = 2048;

/// Longest ciphertext metadata, in bytes before Base64 (P-41, P-50).
pub const MAX_CIPHERTEXT_METADATA_LEN: usize = 20;

/// Bytes of plaintext or ciphertext that any proxy must take (P-40).
const LEAST_TEXT: usize = 4300;
/// Bytes of AAD that any proxy must take (P-40).
const LEAST_AAD: usize = 8192;
/// Bytes of plaintext or ciphertext that xksd takes unless a token takes fewer (P-23).
const MOST_TEXT: usize = 8192;
/// Bytes of AAD that xksd takes unless a token takes fewer (P-23).
const MOST_AAD: usize = 16384;

/// Most bytes of a plaintext, a ciphertext and an AAD that are accepted (P-23).
///
/// More is answered with 501 `UnsupportedOperationException`. The default is the most that xksd
/// supports; a token with smaller buffers has lower ones, never under what P-40 asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    text: usize,
    aad: usize,
}

impl Limits {
    /// Limits of `text` bytes for plaintext and ciphertext, and of `aad` bytes for AAD.
    pub fn new(text: usize, aad: usize) -> Result<Self, LimitsError> {
        let within = |what, min, max, actual| {
            let error = LimitsError { what, min, max, actual };
            if (min..=max).contains(&actual) { Ok(actual) } else { Err(error) }
        };
        Ok(Self {
            text: within("plaintext and ciphertext", LEAST_TEXT, MOST_TEXT, text)?,
            aad: within("additional authenticated data", LEAST_AAD, MOST_AAD, aad)?,
        })
    }

    /// Most bytes of a plaintext or of a ciphertext.
    pub const fn text(self) -> usize {
        self.text
    }

    /// Most bytes of AAD.
    pub const fn aad(self) -> usize {
        self.aad
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { text: MOST_TEXT, aad: MOST_AAD }
    }
}

/// A limit under what the protocol demands, or over what xksd supports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the limit for {what} must be {min} to {max} bytes, not {actual}")]
pub struct LimitsError {
    /// What is limited.
    pub what: &'static str,
    /// Lowest limit allowed.
    pub min: usize,
    /// Highest limit allowed.
    pub max: usize,
    /// The limit asked for.
    pub actual: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_stay_between_p_40_and_p_23() {
        let default = Limits::default();
        assert_eq!((default.text(), default.aad()), (8192, 16384));
        assert_eq!(Limits::new(8192, 16384), Ok(default));
        assert!(Limits::new(4300, 8192).is_ok());
        for (text, aad) in [(4299, 8192), (8193, 8192), (4300, 8191), (4300, 16385), (0, 0)] {
            assert!(Limits::new(text, aad).is_err(), "{text} {aad}");
        }
        let error = Limits::new(16, 8192).unwrap_err().to_string();
        assert_eq!(
            error,
            "the limit for plaintext and ciphertext must be 4300 to 8192 bytes, not 16"
        );
    }
}
