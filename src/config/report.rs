//! What is found while a configuration is read: faults, warnings, and which keys were asked for.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::{Path, PathBuf};

use super::credentials::CredentialPlace;
use super::fault::{Fault, Origin};
use super::secrets::SecretPlaces;

/// What all sections of one configuration share.
#[derive(Debug)]
pub(super) struct Report {
    file: PathBuf,
    /// Where the file lies, an absolute path.
    directory: PathBuf,
    /// Variable by the key path that it overrides.
    variables: BTreeMap<String, String>,
    /// The environment of the process.
    pub(super) environment: BTreeMap<String, String>,
    faults: RefCell<Vec<Fault>>,
    warnings: RefCell<Vec<String>>,
    files: RefCell<BTreeSet<PathBuf>>,
    /// Every key that was asked for, and its default.
    asked: RefCell<BTreeMap<String, Option<&'static str>>>,
    /// Where the secrets that were read are kept.
    pub(super) secret_places: RefCell<SecretPlaces>,
    /// Where the credentials that were read are kept.
    pub(super) credentials: RefCell<Vec<CredentialPlace>>,
}

/// Why a text is not what a key takes.
#[derive(Debug)]
pub(super) struct Wrong {
    /// What is wrong, and what is allowed.
    pub(super) problem: String,
    /// What to do about it.
    pub(super) hint: Option<String>,
}

impl<E: Display> From<E> for Wrong {
    fn from(error: E) -> Self {
        Self { problem: error.to_string(), hint: None }
    }
}

impl Wrong {
    /// Says as well what to do about it.
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl Report {
    pub(super) fn new(
        file: &Path,
        variables: BTreeMap<String, String>,
        environment: BTreeMap<String, String>,
    ) -> Self {
        let file = file.to_owned();
        let absolute = std::path::absolute(&file).unwrap_or_else(|_| file.clone());
        let directory = absolute.parent().unwrap_or(Path::new("/")).to_owned();
        let (faults, warnings, asked, secret_places, credentials) = Default::default();
        let files = RefCell::new(BTreeSet::from([file.clone()]));
        Self {
            file,
            directory,
            variables,
            environment,
            faults,
            warnings,
            files,
            asked,
            secret_places,
            credentials,
        }
    }

    /// Records a fault of a key.
    pub(super) fn fault(&self, key: &str, value: Option<String>, wrong: Wrong) {
        let Wrong { problem, hint } = wrong;
        let (origin, key) = (self.origin(key), key.to_owned());
        self.faults.borrow_mut().push(Fault { origin, key, value, problem, hint });
    }

    /// Records what is allowed and should not be.
    pub(super) fn warn(&self, key: &str, what: impl Display) {
        self.warnings.borrow_mut().push(format!("{}: {key}: {what}", self.origin(key)));
    }

    /// A path of the configuration: relative ones begin where the file lies.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }

    /// The file of the configuration itself.
    pub(super) fn configuration_file(&self) -> PathBuf {
        std::path::absolute(&self.file).unwrap_or_else(|_| self.file.clone())
    }

    /// Whether the value of this key came from a variable.
    pub(super) fn is_override(&self, key: &str) -> bool {
        matches!(self.origin(key), Origin::Variable(_))
    }

    /// Remembers that a key was asked for.
    pub(super) fn note_asked(&self, key: String, default: Option<&'static str>) {
        self.asked.borrow_mut().insert(key, default);
    }

    /// Remembers a file that is part of the configuration, whether or not it can be read.
    pub(super) fn note_file(&self, file: &Path) {
        self.files.borrow_mut().insert(file.to_owned());
    }

    /// Every fault and warning, and every file that was noted.
    pub(super) fn into_parts(self) -> (Vec<Fault>, Vec<String>, BTreeSet<PathBuf>) {
        (self.faults.into_inner(), self.warnings.into_inner(), self.files.into_inner())
    }

    /// Every key that was asked for, and its default.
    #[cfg(test)]
    pub(super) fn asked(&self) -> BTreeMap<String, Option<&'static str>> {
        self.asked.borrow().clone()
    }

    /// Where the value of a key came from: the variable for it, for what it is an item of, or for
    /// something below it.
    fn origin(&self, key: &str) -> Origin {
        let whole = key.split('[').next().unwrap_or(key);
        let below = || {
            let below = format!("{key}.");
            let first = self.variables.range(below.clone()..).next();
            first.filter(|(path, _)| path.starts_with(&below)).map(|(_, variable)| variable)
        };
        let variable = self.variables.get(key).or_else(|| self.variables.get(whole)).or_else(below);
        match variable {
            Some(variable) => Origin::Variable(variable.clone()),
            None => Origin::File(self.file.clone()),
        }
    }
}
