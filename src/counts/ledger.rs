//! What is written down: how many encryptions are reserved for each version of a key.
//!
//! ```text
//! xksd-counts 1
//! lost hsm-a,hsm-b
//! version 0f8e4a5b6c7d8e9f 1048576
//! foreign orders hsm-a,hsm-b 2097152
//! end
//! ```
//!
//! A file without its last line was not written to its end, and is not believed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::sync::Arc;

use crate::names::{ExternalKeyId, ObjectId, TokenName};

/// What the first line begins with.
const TITLE: &str = "xksd-counts ";

/// The release of the format that is written.
const FORMAT: &str = "1";

/// The last line.
const END: &str = "end";

/// Tokens that hold the same keys, in whatever order: their names in order, with commas.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenSet(Arc<str>);

impl TokenSet {
    /// These tokens.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a TokenName>) -> Self {
        let names: BTreeSet<&str> = names.into_iter().map(TokenName::as_str).collect();
        Self(names.into_iter().collect::<Vec<_>>().join(",").into())
    }

    /// Their names, with commas.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a token is in both.
    pub fn shares_with(&self, other: &Self) -> bool {
        self.0.split(',').any(|name| other.0.split(',').any(|theirs| theirs == name))
    }

    fn parse(text: &str) -> Option<Self> {
        let names = text.split(',').map(str::parse).collect::<Result<Vec<TokenName>, _>>().ok()?;
        let set = Self::new(&names);
        (set.as_str() == text).then_some(set)
    }
}

/// What is counted by itself: one version of a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Counted {
    /// A version that xksd made: its object id is the same wherever it is.
    Version(ObjectId),
    /// A key that xksd did not make has no object id: it is known by its label and its tokens.
    Foreign(ExternalKeyId, TokenSet),
}

impl Counted {
    /// A version of a key of these tokens.
    pub fn new(key: &ExternalKeyId, object_id: ObjectId, tokens: &TokenSet) -> Self {
        match object_id {
            ObjectId::FOREIGN => Self::Foreign(key.clone(), tokens.clone()),
            object_id => Self::Version(object_id),
        }
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(object_id) => write!(f, "version {object_id}"),
            Self::Foreign(key, tokens) => write!(f, "foreign {key} {}", tokens.as_str()),
        }
    }
}

/// Everything that is written down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Encryptions that may have been made. More than that were not.
    pub reserved: BTreeMap<Counted, u64>,
    /// Tokens of whose keys nothing was known when they were last looked at: what of them is not in
    /// here may have used all of its share.
    pub lost: BTreeSet<TokenSet>,
}

/// Why a text is no ledger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// It is something else, or was changed, from this line on.
    #[error("line {0} is not as xksd writes it")]
    Line(usize),
    /// Its end is missing.
    #[error("its end is missing")]
    Torn,
    /// A later release wrote it.
    #[error("it is of format {0}, which a later release of xksd writes")]
    Format(String),
}

impl Ledger {
    /// Reads what [`fmt::Display`] writes.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn parse(text: &str) -> Result<Self, LedgerError> {
        let mut lines = text.split_inclusive('\n').enumerate();
        let format =
            lines.next().and_then(|(_, line)| line.strip_prefix(TITLE)?.strip_suffix('\n'));
        match format.ok_or(LedgerError::Line(1))? {
            FORMAT => {}
            other => return Err(LedgerError::Format(other.chars().take(20).collect())),
        }
        let mut ledger = Self::default();
        for (number, line) in lines.by_ref() {
            let line = line.strip_suffix('\n').ok_or(LedgerError::Torn)?;
            if line == END {
                let rest = lines.next();
                return rest.map_or(Ok(ledger), |(number, _)| Err(LedgerError::Line(number + 1)));
            }
            ledger.line(line).ok_or(LedgerError::Line(number + 1))?;
        }
        Err(LedgerError::Torn)
    }

    fn line(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split(' ').collect();
        let (counted, reserved) = match words[..] {
            ["lost", tokens] => {
                return self.lost.insert(TokenSet::parse(tokens)?).then_some(());
            }
            ["version", object_id, reserved] => {
                let object_id = ObjectId::from_hex(object_id).filter(|id| *id != ObjectId::FOREIGN);
                (Counted::Version(object_id?), reserved)
            }
            ["foreign", key, tokens, reserved] => {
                (Counted::Foreign(key.parse().ok()?, TokenSet::parse(tokens)?), reserved)
            }
            _ => return None,
        };
        let reserved = reserved.parse().ok()?;
        self.reserved.insert(counted, reserved).is_none().then_some(())
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{TITLE}{FORMAT}\n");
        for tokens in &self.lost {
            writeln!(text, "lost {}", tokens.as_str())?;
        }
        for (counted, reserved) in &self.reserved {
            writeln!(text, "{counted} {reserved}")?;
        }
        writeln!(text, "{END}")?;
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "xksd-counts 1\nlost hsm-a,hsm-b\nversion 0f8e4a5b6c7d8e9f 1048576\n\
                           foreign orders hsm-a,hsm-b 2097152\nend\n";

    fn set(names: &[&str]) -> TokenSet {
        TokenSet::new(&names.iter().map(|name| name.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn the_documented_example_is_read_and_written() {
        let ledger = Ledger::parse(EXAMPLE).unwrap();
        assert_eq!(ledger.lost, BTreeSet::from([set(&["hsm-b", "hsm-a"])]));
        assert_eq!(ledger.reserved.len(), 2);
        assert_eq!(ledger.to_string(), EXAMPLE);
    }

    #[test]
    fn what_was_cut_is_not_believed() {
        for length in 0..EXAMPLE.len() {
            assert!(Ledger::parse(&EXAMPLE[..length]).is_err(), "{length}");
        }
        assert_eq!(Ledger::parse(&EXAMPLE[..60]), Err(LedgerError::Torn));
    }

    #[test]
    fn other_texts_are_refused_and_the_line_is_named() {
        let with = |line: &str| Ledger::parse(&format!("xksd-counts 1\n{line}\nend\n"));
        for bad in [
            "",
            "version 0f8e4a5b6c7d8e9f",
            "version 0F8E4A5B6C7D8E9F 1",
            "version 0000000000000000 1",
            "version 0f8e4a5b6c7d8e9f -1",
            "version 0f8e4a5b6c7d8e9f 18446744073709551616",
            "version 0f8e4a5b6c7d8e9f 1\nversion 0f8e4a5b6c7d8e9f 2",
            "foreign a:b hsm 1",
            "foreign orders hsm-b,hsm-a 1",
            "foreign orders  1",
            "other",
        ] {
            assert!(matches!(with(bad), Err(LedgerError::Line(2 | 3))), "{bad:?}");
        }
        let later = Ledger::parse("xksd-counts 2\nanything\n");
        assert_eq!(later, Err(LedgerError::Format("2".to_owned())));
        assert_eq!(Ledger::parse(&format!("{EXAMPLE}more\n")), Err(LedgerError::Line(6)));
    }

    #[test]
    fn sets_of_tokens_know_each_other_by_members() {
        assert!(set(&["a", "b"]).shares_with(&set(&["b", "c"])));
        assert!(!set(&["a", "b"]).shares_with(&set(&["ab"])));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            versions in proptest::collection::btree_map(1u64.., any::<u64>(), 0..5),
            foreign in proptest::collection::btree_map("[A-Za-z0-9._-]{1,9}", any::<u64>(), 0..5),
            tokens in proptest::collection::vec("[a-z0-9_-]{1,5}", 1..4),
        ) {
            let tokens: Vec<TokenName> = tokens.iter().map(|name| name.parse().unwrap()).collect();
            let tokens = TokenSet::new(&tokens);
            let own = versions
                .into_iter()
                .map(|(id, n)| (Counted::Version(ObjectId::new(id.to_be_bytes())), n));
            let others = foreign
                .into_iter()
                .map(|(key, n)| (Counted::Foreign(key.parse().unwrap(), tokens.clone()), n));
            let reserved = own.chain(others).collect();
            let ledger = Ledger { reserved, lost: BTreeSet::from([tokens.clone()]) };
            prop_assert_eq!(Ledger::parse(&ledger.to_string()), Ok(ledger));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}") {
            let _ = Ledger::parse(&format!("xksd-counts 1\n{text}"));
        }
    }
}
