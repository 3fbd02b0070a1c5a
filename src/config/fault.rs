//! What is wrong with a configuration: every fault at once, each with its place and its remedy.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The configuration file.
    File(PathBuf),
    /// An environment variable that overrides the file.
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where the value came from, or would have to be put.
    pub origin: Origin,
    /// Which key: `keystores.demo.credentials[0].secret`. Empty: the file as a whole.
    pub key: String,
    /// What stands there. `None` where nothing does, and wherever a secret might.
    pub value: Option<String>,
    /// What is wrong with it, and what is allowed.
    pub problem: String,
    /// What to do about it, where that does not follow.
    pub hint: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, key, value, problem, hint: _ } = self;
        write!(f, "{origin}: ")?;
        match (key.as_str(), value) {
            ("", _) => {}
            (key, None) => write!(f, "{key}: ")?,
            (key, Some(value)) => write!(f, "{key} = {value}: ")?,
        }
        f.write_str(problem)
    }
}

/// Everything that is wrong with a configuration; at least one fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// In the order of the sections.
    pub faults: Vec<Fault>,
    /// What is allowed and should not be.
    pub warnings: Vec<String>,
    /// Every file that was read, or was to be.
    pub files: BTreeSet<PathBuf>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
