//! Freezes: markers in the HSM by which an administrator stops the use of a whole key store at once.
//!
//! An object with the label `xksd:freeze:NAME`, whatever its kind and whoever made it, freezes the key
//! store of this name on every proxy that reads the token; one with `xksd:freeze:*` freezes all. Of
//! the colons in them: no external key id names them.

use std::collections::BTreeSet;
use std::fmt;

use crate::names::KeystoreName;

/// What the label of a marker begins with.
const PREFIX: &str = "xksd:freeze:";

/// What stands for all key stores.
const ALL: &str = "*";

/// What a marker freezes. Displayed, it is the marker's label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Marker {
    /// The key store of this name.
    Keystore(KeystoreName),
    /// Every key store that reads the token.
    All,
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keystore(name) => write!(f, "{PREFIX}{name}"),
            Self::All => write!(f, "{PREFIX}{ALL}"),
        }
    }
}

/// Which key stores are frozen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Freezes(BTreeSet<String>);

impl Freezes {
    /// Looks at the label of an object, which may be a marker.
    pub fn note(&mut self, label: &str) {
        self.0.extend(label.strip_prefix(PREFIX).map(str::to_owned));
    }

    /// Adds those of another token: one marker anywhere is enough.
    pub fn join(&mut self, others: &Self) {
        self.0.extend(others.0.iter().cloned());
    }

    /// Whether all of these are among them.
    pub fn include(&self, others: &Self) -> bool {
        self.0.is_superset(&others.0)
    }

    /// Whether this key store is frozen, or all are.
    pub fn hold(&self, keystore: &KeystoreName) -> bool {
        self.0.contains(ALL) || self.0.contains(keystore.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_freezes_the_key_store_that_it_names() {
        let names: Vec<KeystoreName> = ["one", "two"].map(|name| name.parse().unwrap()).into();
        for (labels, expected) in [
            (&["key", "xksd:probe", "xksd:freezer:one", "freeze:one"][..], [false, false]),
            (&["xksd:freeze:one"], [true, false]),
            (&["xksd:freeze:three", "xksd:freeze:"], [false, false]),
            (&["xksd:freeze:*"], [true, true]),
        ] {
            let mut freezes = Freezes::default();
            labels.iter().for_each(|label| freezes.note(label));
            let mut joined = Freezes::default();
            joined.join(&freezes);
            let held: Vec<bool> = names.iter().map(|name| joined.hold(name)).collect();
            assert_eq!(held, expected, "{labels:?}");
        }
    }

    #[test]
    fn a_marker_bears_the_label_that_freezes_what_it_names() {
        let names: Vec<KeystoreName> = ["one", "two"].map(|name| name.parse().unwrap()).into();
        let markers =
            [(Marker::Keystore(names[0].clone()), [true, false]), (Marker::All, [true; 2])];
        for (marker, expected) in markers {
            let mut freezes = Freezes::default();
            freezes.note(&marker.to_string());
            assert_eq!([freezes.hold(&names[0]), freezes.hold(&names[1])], expected);
        }
    }
}
