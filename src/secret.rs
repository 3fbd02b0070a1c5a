//! Values that must not be seen: no `Debug` of the content, no `Display`, no serialisation,
//! zeroized when dropped, compared in constant time.

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A secret of the configuration: a PIN or a SigV4 secret access key.
///
/// It can be read only through [`Secret::expose`], which makes each use findable.
pub struct Secret<T: Zeroize>(Zeroizing<T>);

impl<T: Zeroize> Secret<T> {
    /// Takes the value over; the caller keeps no other copy.
    pub fn new(value: T) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The value itself. What is made from it must be zeroized too.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl<T: Zeroize + AsRef<[u8]>> PartialEq for Secret<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_ref().ct_eq(other.0.as_ref()).into()
    }
}

/// Tells whether two secrets are the same without keeping either: one of them may be long gone.
///
/// It is keyed, by a key that is made for each and never shown. Who can read the memory of the
/// process can still try all values of a short secret.
pub struct Fingerprints(hmac::Key);

/// What is kept of a secret by [`Fingerprints`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprints {
    /// With a new key.
    pub fn new() -> Self {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        Self(key.expect("the operating system gives random numbers"))
    }

    /// The fingerprint of these parts, in their order.
    pub fn of(&self, parts: &[&[u8]]) -> Fingerprint {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let tag = context.sign();
        Fingerprint(tag.as_ref().try_into().expect("SHA-256 gives 32 bytes"))
    }
}

impl Default for Fingerprints {
    fn default() -> Self {
        Self::new()
    }
}

impl Fingerprint {
    /// To make a fingerprint of several.
    pub fn bytes(&self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Debug for Fingerprints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// What KMS gives to encrypt or gets from a decryption (P-45): never logged, never in an error.
///
/// The buffer must not grow after it was filled, since a reallocation leaves a copy behind;
/// the constructor therefore takes the finished bytes and there is no way to append.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Plaintext(Vec<u8>);

impl Plaintext {
    /// Takes the bytes over; the caller keeps no other copy.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes themselves.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes, which is no secret: the ciphertext has the same.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes redacted>", self.0.len())
    }
}

impl PartialEq for Plaintext {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        let secret = Secret::new(String::from("hunter2"));
        assert_eq!(format!("{secret:?}"), "<redacted>");
        let plaintext = Plaintext::new(b"hunter2".to_vec());
        assert_eq!(format!("{plaintext:?}"), "<7 bytes redacted>");
    }

    #[test]
    fn fingerprints_are_equal_where_all_parts_are() {
        let prints = Fingerprints::new();
        assert!(prints.of(&[b"a", b"b"]) == prints.of(&[b"a", b"b"]));
        for other in [&[&b"ab"[..], b""][..], &[b"a"], &[b"b", b"a"], &[b"", b"ab"], &[]] {
            assert!(prints.of(&[b"a", b"b"]) != prints.of(other));
        }
        assert!(prints.of(&[b"a"]) != Fingerprints::new().of(&[b"a"]));
        assert_eq!(format!("{prints:?} {:?}", prints.of(&[b"a"])), "<redacted> <redacted>");
    }

    #[test]
    fn equality_is_by_content() {
        let secret = |text: &str| Secret::new(text.to_owned());
        assert!(secret("a") == secret("a"));
        assert!(secret("a") != secret("b"));
        assert!(secret("a") != secret("aa"));
        assert!(Plaintext::new(vec![1]) == Plaintext::new(vec![1]));
        assert!(Plaintext::new(vec![1]) != Plaintext::new(vec![2]));
    }
}
