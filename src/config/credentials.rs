//! The SigV4 credentials of a key store: sections of the configuration, files of a directory, or both.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::fault::ConfigErrors;
use super::reader::{Section, Shape};
use super::report::{Report, Wrong};
use super::secrets::{SecretSource, filled, from_file, located_secret, warn_if_readable};
use super::source;
use crate::names::{AccessKeyId, KeystoreName};
use crate::sigv4::{Credentials, SecretAccessKey};

/// The key that names a directory with one file for each credential.
const DIRECTORY: &str = "credentials_directory";

/// What a secret that is none is told.
const SECRET_HINT: &str = "43 characters of Base64 hold the 256 bits that AWS asks for";

/// Where one credential is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialPlace {
    /// Whose it is.
    pub keystore: KeystoreName,
    /// Its access key id.
    pub id: AccessKeyId,
    /// Where its secret is, in words.
    pub place: String,
    /// The file of it in the key store's directory of credentials, if it is there.
    pub file: Option<PathBuf>,
    /// When the file with its secret was last changed, if it is in one.
    pub since: Option<SystemTime>,
}

/// Which access key ids were seen, and in which key store first.
pub(super) type SeenIds = BTreeMap<AccessKeyId, String>;

/// A credential as it is read.
type Pair = (AccessKeyId, SecretAccessKey);

/// At least one credential; an access key id names one secret over the whole proxy (P-14).
pub(super) fn credentials(
    keystore: Option<&KeystoreName>,
    name: &str,
    section: &mut Section<'_>,
    seen: &mut SeenIds,
) -> Option<Credentials> {
    let report = section.report;
    let directory = section
        .optional(DIRECTORY, Shape::Text, |text| Ok(report.path(&super::parse::filled(text)?)));
    let members = "access_key_id and secret";
    let mut sections = match &directory {
        Some(Some(_)) if !section.has("credentials") => Some(Vec::new()),
        _ => section.required_sections("credentials", members),
    };
    let mut reading = Reading { report, keystore, name, seen, pairs: Vec::new(), is_whole: true };
    for section in sections.iter_mut().flatten() {
        reading.section(section);
    }
    if let Some(Some(directory)) = &directory {
        reading.directory(section, directory);
    }
    directory?;
    sections?;
    let Reading { pairs, is_whole, .. } = reading;
    if !is_whole {
        return None;
    }
    if pairs.is_empty() {
        let wrong = Wrong::from("holds no credential, and there is no other");
        let hint = format!("`xksd credentials create --keystore {name}` makes one");
        section.fault(DIRECTORY, None, wrong.hint(hint));
        return None;
    }
    Some(Credentials::new(pairs).expect("neither empty nor twice the same id, as checked above"))
}

struct Reading<'a, 'b> {
    report: &'a Report,
    keystore: Option<&'b KeystoreName>,
    name: &'b str,
    seen: &'b mut SeenIds,
    pairs: Vec<Pair>,
    /// Nothing was at fault.
    is_whole: bool,
}

impl Reading<'_, '_> {
    fn section(&mut self, section: &mut Section<'_>) {
        // Not shown if it is at fault: it may be the secret, put in the wrong place.
        let id = section.required("access_key_id", Shape::Hidden, |text| self.id(text));
        let located = located_secret(section, "secret");
        let (secret, source) = match located {
            Some((secret, source)) => match SecretAccessKey::new(secret) {
                Ok(secret) => (Some(secret), Some(source)),
                Err(error) => {
                    section.fault("secret", None, Wrong::from(error).hint(SECRET_HINT));
                    (None, None)
                }
            },
            None => (None, None),
        };
        let (Some(id), Some(secret), Some(source)) = (id, secret, source) else {
            self.is_whole = false;
            return;
        };
        let since = match &source {
            SecretSource::File(file) => changed(file),
            _ => None,
        };
        self.note(&id, source.to_string(), None, since);
        self.pairs.push((id, secret));
    }

    /// Every file of the directory, but for those whose names begin with a dot: what is being written,
    /// and what Kubernetes mounts beside the files.
    fn directory(&mut self, section: &Section<'_>, directory: &Path) {
        self.report.note_file(directory);
        self.report.secret_places.borrow_mut().files.insert(directory.to_owned());
        let entries = fs::read_dir(directory).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut entries: Vec<DirEntry> = match entries {
            Ok(entries) => entries,
            Err(error) => {
                let problem = format!("cannot read `{}`: {error}", directory.display());
                let hint = format!("`xksd credentials create --keystore {}` makes it", self.name);
                section.fault(DIRECTORY, None, Wrong::from(problem).hint(hint));
                self.is_whole = false;
                return;
            }
        };
        let mode = fs::metadata(directory).map(|directory| directory.mode()).unwrap_or(0);
        // In one with the sticky bit everybody can only remove what is theirs.
        if mode & 0o022 != 0 && mode & 0o1000 == 0 {
            let (shown, mode) = (directory.display(), mode & 0o777);
            let what = format!("others can remove files from `{shown}` (mode {mode:03o})");
            self.report.warn(&section.path(DIRECTORY), what);
        }
        entries.retain(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
        entries.sort_by_key(DirEntry::file_name);
        for entry in entries {
            let file = entry.path();
            let place = format!("`{}`", file.display());
            match self.file(&file) {
                Ok((id, secret)) => {
                    warn_if_readable(self.report, &section.path(DIRECTORY), &file);
                    let since = changed(&file);
                    self.note(&id, place, Some(file), since);
                    self.pairs.push((id, secret));
                }
                Err(wrong) => {
                    let problem = format!("{place}: {}", wrong.problem);
                    section.fault(DIRECTORY, None, Wrong { problem, ..wrong });
                    self.is_whole = false;
                }
            }
        }
    }

    fn file(&mut self, file: &Path) -> Result<Pair, Wrong> {
        let hint = "a credential's file has its access key id for a name, and holds its secret";
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let id = self.id(name).map_err(|wrong| match wrong.hint {
            None => wrong.hint(hint),
            Some(_) => wrong,
        })?;
        expect_trusted_owner(file)?;
        let secret = filled(from_file(file)?)?;
        let secret = SecretAccessKey::new(secret);
        Ok((id, secret.map_err(|error| Wrong::from(error).hint(SECRET_HINT))?))
    }

    fn id(&mut self, text: &str) -> Result<AccessKeyId, Wrong> {
        // P-14
        let id: AccessKeyId = text.parse()?;
        match self.seen.insert(id.clone(), self.name.to_owned()) {
            None => Ok(id),
            Some(other) => {
                let problem = format!("{id} is there twice, first in key store `{other}`");
                Err(Wrong::from(problem).hint("an id names one secret over the whole proxy"))
            }
        }
    }

    fn note(
        &self,
        id: &AccessKeyId,
        place: String,
        file: Option<PathBuf>,
        since: Option<SystemTime>,
    ) {
        let Some(keystore) = self.keystore.cloned() else { return };
        let place = CredentialPlace { keystore, id: id.clone(), place, file, since };
        self.report.credentials.borrow_mut().push(place);
    }
}

/// Whoever can put a file here is let in: it must be root's or our own, link and target.
fn expect_trusted_owner(file: &Path) -> Result<(), Wrong> {
    let ours = rustix::process::geteuid().as_raw();
    for metadata in [fs::symlink_metadata(file), fs::metadata(file)] {
        let owner = metadata.map_err(|error| format!("cannot be read: {error}"))?.uid();
        if owner != 0 && owner != ours {
            let wrong = Wrong::from(format!("belongs to user {owner}, who is neither root nor us"));
            return Err(
                wrong.hint("whoever can make a file here is let in: chown it, if it is yours")
            );
        }
    }
    Ok(())
}

fn changed(file: &Path) -> Option<SystemTime> {
    fs::metadata(file).and_then(|metadata| metadata.modified()).ok()
}

/// The key stores of a configuration, and the directories of their credentials, whatever else is wrong
/// with it: what is lacking may be the credentials that are about to be made.
///
/// # Errors
/// If it can't be read, or is no TOML.
pub fn credentials_directories(
    path: &Path,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<BTreeMap<KeystoreName, Option<PathBuf>>, ConfigErrors> {
    let environment = environment.collect();
    let tree = source::read(path, &environment)?;
    let report = Report::new(path, tree.variables, environment);
    let mut root = Section::root(&report, tree.values);
    let directory = |(name, mut section): (String, Section<'_>)| {
        let text = section.optional(DIRECTORY, Shape::Text, |text| Ok(text.to_owned()));
        Some((name.parse().ok()?, text?.map(|text| report.path(&text))))
    };
    Ok(root.named("keystores").into_iter().filter_map(directory).collect())
}
