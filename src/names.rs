//! The words of the protocol as types: what has one of these types was checked once, at the edge.
//!
//! Every name has a private field and one fallible constructor ([`std::str::FromStr`]), so a
//! function that takes an [`ExternalKeyId`] need not ask what is in it.

use std::fmt;
use std::str::FromStr;

/// Why a string is not one of the names of this module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Shorter or longer than the name may be.
    #[error("{what} must have {min} to {max} characters, not {actual}")]
    Length {
        /// What the name is called.
        what: &'static str,
        /// Fewest characters allowed.
        min: usize,
        /// Most characters allowed.
        max: usize,
        /// Characters found.
        actual: usize,
    },
    /// A character outside the allowed set.
    #[error("{what} may only contain {allowed}")]
    Character {
        /// What the name is called.
        what: &'static str,
        /// The allowed set, in words.
        allowed: &'static str,
    },
    /// The characters are allowed, their order is not.
    #[error("{what} {rule}")]
    Form {
        /// What the name is called.
        what: &'static str,
        /// The rule that was broken.
        rule: &'static str,
    },
}

/// Checks length and alphabet, which is all that most names ask for.
fn check(
    text: &str,
    what: &'static str,
    (min, max): (usize, usize),
    allowed: &'static str,
    is_allowed: fn(u8) -> bool,
) -> Result<(), NameError> {
    if !(min..=max).contains(&text.len()) {
        let actual = text.chars().count();
        return Err(NameError::Length { what, min, max, actual });
    }
    if !text.bytes().all(is_allowed) {
        return Err(NameError::Character { what, allowed });
    }
    Ok(())
}

/// Defines a checked string: private field, `FromStr`, `Display`, `Debug`, `as_str`.
macro_rules! checked_string {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// The name as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> Result<(), NameError> = $check;
                check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

checked_string!(
    /// Names one external key (P-6): 1 to 128 characters of `A-Z a-z 0-9 - . _`.
    ///
    /// It is also the `CKA_LABEL` of the key's objects in the HSM. Labels of objects that xksd
    /// makes for itself contain a colon, so no external key id can ever name one of those.
    ExternalKeyId,
    |text| check(text, "an external key id", (1, 128), "A-Z a-z 0-9 - . _", |b| {
        b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')
    })
);

checked_string!(
    /// Names one SigV4 secret, over the whole proxy (P-14): 20 to 30 characters of `A-Z 2-7`.
    AccessKeyId,
    |text| check(text, "an access key id", (20, 30), "A-Z 2-7", |b| {
        b.is_ascii_uppercase() || matches!(b, b'2'..=b'7')
    })
);

checked_string!(
    /// An AWS Region as it stands in a credential scope, `us-east-1` for one.
    Region,
    |text| check(text, "a Region", (1, 32), "a-z 0-9 -", |b| {
        b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'
    })
);

checked_string!(
    /// The operator's name for an HSM token in the configuration; a metric label.
    TokenName,
    |text| check(text, "a token name", (1, 64), "a-z 0-9 - _", is_config_name)
);

checked_string!(
    /// The operator's name for a key store in the configuration; a metric label.
    KeystoreName,
    |text| check(text, "a key store name", (1, 64), "a-z 0-9 - _", is_config_name)
);

/// Lower case only: environment overrides of the configuration cannot carry letter case.
fn is_config_name(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_')
}

checked_string!(
    /// What stands before `/kms/xks/v1` in the URI path, without outer slashes; may be empty.
    ///
    /// Each prefix is one isolated tenant, a key store (P-4). The whole path up to and including
    /// `v1` has at most 128 characters of `A-Z a-z 0-9 / - _`.
    PathPrefix,
    |text| {
        const WHAT: &str = "a path prefix";
        let longest = 128 - 1 - API_ROOT.len();
        check(text, WHAT, (0, longest), "A-Z a-z 0-9 / - _", |b| {
            b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_')
        })?;
        if text.starts_with('/') || text.ends_with('/') {
            let rule = "is written without a slash at its ends";
            return Err(NameError::Form { what: WHAT, rule });
        }
        if text.contains("//") {
            return Err(NameError::Form { what: WHAT, rule: "must not contain an empty segment" });
        }
        Ok(())
    }
);

/// The fixed part of every operation's path, which follows the prefix (P-4).
pub const API_ROOT: &str = "/kms/xks/v1";

impl PathPrefix {
    /// The `XksProxyUriPath` that KMS is given: `/<prefix>/kms/xks/v1`, or `/kms/xks/v1` (P-4).
    pub fn uri_path(&self) -> String {
        match self.as_str() {
            "" => API_ROOT.to_owned(),
            prefix => format!("/{prefix}{API_ROOT}"),
        }
    }
}

/// Number of a key's version. 0 is a key that xksd did not make ("foreign"), 1 the first of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyVersion(u32);

impl KeyVersion {
    /// The version of every object whose `CKA_ID` is not in our format.
    pub const FOREIGN: Self = Self(0);
    /// The version that creation gives a key.
    pub const FIRST: Self = Self(1);

    /// Any number is a version; 0 is [`KeyVersion::FOREIGN`].
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number, as it is written into ciphertext metadata.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for KeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identity of one version's key material: eight random bytes, the same on every token holding it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId([u8; 8]);

impl ObjectId {
    /// The object id of every foreign key: there is none in its `CKA_ID`.
    pub const FOREIGN: Self = Self([0; 8]);

    /// Takes the eight bytes as they stand in `CKA_ID` or in ciphertext metadata.
    pub const fn new(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// Reads what [`fmt::Display`] writes: 16 hexadecimal digits in lower case.
    pub fn from_hex(text: &str) -> Option<Self> {
        let id = Self(u64::from_str_radix(text, 16).ok()?.to_be_bytes());
        (id.to_string() == text).then_some(id)
    }

    /// The eight bytes.
    pub const fn bytes(self) -> [u8; 8] {
        self.0
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parses<T: FromStr>(text: &str) -> bool {
        text.parse::<T>().is_ok()
    }

    #[test]
    fn external_key_id_keeps_p_6() {
        assert!(parses::<ExternalKeyId>("a"));
        assert!(parses::<ExternalKeyId>("Az09-._"));
        assert!(parses::<ExternalKeyId>(&"k".repeat(128)));
        for bad in ["", "a/b", "a:b", "a b", "ключ", "a%2e", &"k".repeat(129)] {
            assert!(!parses::<ExternalKeyId>(bad), "{bad:?}");
        }
    }

    #[test]
    fn access_key_id_keeps_p_14() {
        assert!(parses::<AccessKeyId>("ABCDEFGHIJKLMNOPQRST"));
        assert!(parses::<AccessKeyId>("ABCDEFGHIJKLMNOPQRSTUVWXYZ2345"));
        for bad in ["", "ABCDEFGHIJKLMNOPQRS", "abcdefghijklmnopqrst", "ABCDEFGHIJKLMNOPQRS1"] {
            assert!(!parses::<AccessKeyId>(bad), "{bad:?}");
        }
        assert!(!parses::<AccessKeyId>(&"A".repeat(31)));
    }

    #[test]
    fn path_prefix_keeps_p_4() {
        for good in ["", "a", "example/uri/path-prefix_1", &"p".repeat(116)] {
            assert!(parses::<PathPrefix>(good), "{good:?}");
        }
        for bad in ["/", "/a", "a/", "a//b", "a.b", "a%20", &"p".repeat(117)] {
            assert!(!parses::<PathPrefix>(bad), "{bad:?}");
        }
        let longest: PathPrefix = "p".repeat(116).parse().unwrap();
        assert_eq!(longest.uri_path().len(), 128);
        assert_eq!("".parse::<PathPrefix>().unwrap().uri_path(), "/kms/xks/v1");
        assert_eq!("a/b".parse::<PathPrefix>().unwrap().uri_path(), "/a/b/kms/xks/v1");
    }

    #[test]
    fn errors_say_what_is_allowed() {
        let error = "a:b".parse::<ExternalKeyId>().unwrap_err();
        assert_eq!(error.to_string(), "an external key id may only contain A-Z a-z 0-9 - . _");
        let error = "short".parse::<AccessKeyId>().unwrap_err();
        assert_eq!(error.to_string(), "an access key id must have 20 to 30 characters, not 5");
    }
}
