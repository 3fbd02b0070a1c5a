//! Which external keys a key store may reach.

use std::fmt;
use std::str::FromStr;

use crate::names::{ExternalKeyId, NameError};

/// One or several external key ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRule {
    /// This one.
    Exact(ExternalKeyId),
    /// All that begin so; written with a `*` at the end. Empty: all.
    Prefix(Box<str>),
}

/// Why a text is no key rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyRuleError {
    /// A `*` elsewhere than at the end.
    #[error("a `*` may only stand at the end")]
    InnerStar,
    /// No external key id could fit.
    #[error("{0}")]
    Name(#[from] NameError),
}

impl FromStr for KeyRule {
    type Err = KeyRuleError;

    fn from_str(text: &str) -> Result<Self, KeyRuleError> {
        let Some(prefix) = text.strip_suffix('*') else {
            if text.contains('*') {
                return Err(KeyRuleError::InnerStar);
            }
            return Ok(Self::Exact(text.parse()?));
        };
        if prefix.contains('*') {
            return Err(KeyRuleError::InnerStar);
        }
        if !prefix.is_empty() {
            prefix.parse::<ExternalKeyId>()?;
        }
        Ok(Self::Prefix(prefix.into()))
    }
}

impl KeyRule {
    /// Whether this external key id is among them.
    pub fn allows(&self, id: &ExternalKeyId) -> bool {
        match self {
            Self::Exact(exact) => exact == id,
            Self::Prefix(prefix) => id.as_str().starts_with(&**prefix),
        }
    }
}

impl fmt::Display for KeyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(id) => id.fmt(f),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_rules_are_exact_or_prefixes() {
        let rule = |text: &str| text.parse::<KeyRule>();
        let id = |text: &str| text.parse::<ExternalKeyId>().unwrap();
        assert!(rule("abc").unwrap().allows(&id("abc")));
        assert!(!rule("abc").unwrap().allows(&id("abcd")));
        assert!(rule("abc*").unwrap().allows(&id("abcd")));
        assert!(!rule("abc*").unwrap().allows(&id("ab")));
        assert!(rule("*").unwrap().allows(&id("anything")));
        assert_eq!(rule("a*b"), Err(KeyRuleError::InnerStar));
        assert_eq!(rule("a**"), Err(KeyRuleError::InnerStar));
        assert!(matches!(rule("a:*"), Err(KeyRuleError::Name(_))));
        assert!(matches!(rule(""), Err(KeyRuleError::Name(_))));
    }
}
