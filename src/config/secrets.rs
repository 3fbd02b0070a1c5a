//! Secrets, wherever they are kept: file, systemd credential, environment, a command, or inline.
//!
//! No fault shows any of one. What is kept inline passes through the memory of the TOML parser,
//! which is not wiped: one more reason for the warning.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use config::{Value, ValueKind};
use zeroize::Zeroize;

use super::command::SecretCommand;
use super::reader::Section;
use super::report::{Report, Wrong};
use crate::secret::Secret;

/// Where a secret can be kept.
const PLACES: [&str; 5] = [
    "{ file = \"...\" }",
    "{ credential = \"...\" }",
    "{ env = \"...\" }",
    "{ command = [\"...\"] }",
    "{ inline = \"...\" }",
];

/// Where systemd puts the credentials of a service.
pub const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Where all secrets of a configuration are kept.
#[derive(Debug, Default)]
pub struct SecretPlaces {
    /// Files, each with one of them, and directories that hold nothing else.
    pub files: BTreeSet<PathBuf>,
    /// Environment variables of this process.
    pub variables: BTreeSet<String>,
}

impl SecretPlaces {
    fn note(&mut self, source: &SecretSource) {
        match source {
            SecretSource::File(file) => drop(self.files.insert(file.clone())),
            SecretSource::Variable(name) => drop(self.variables.insert(name.clone())),
            SecretSource::Command(_) | SecretSource::Kept(_) => {}
        }
    }
}

/// Where a secret can be found again.
#[derive(Debug)]
pub enum SecretSource {
    /// The whole of a file, but for one line end.
    File(PathBuf),
    /// An environment variable of this process.
    Variable(String),
    /// What a command prints.
    Command(SecretCommand),
    /// It stood in the configuration itself.
    Kept(Secret<String>),
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "`{}`", file.display()),
            Self::Variable(name) => write!(f, "the environment variable `{name}`"),
            Self::Command(command) => command.fmt(f),
            Self::Kept(_) => f.write_str("the configuration itself"),
        }
    }
}

impl SecretSource {
    /// Reads it again; `None` where it is not there any more, or empty.
    pub fn read(&self) -> Option<Secret<String>> {
        let secret = match self {
            Self::File(file) => from_file(file).ok()?,
            Self::Variable(name) => Secret::new(std::env::var(name).ok()?),
            Self::Command(command) => command
                .run()
                .inspect_err(|wrong| tracing::error!(problem = wrong.problem, "no secret"))
                .ok()?,
            Self::Kept(secret) => Secret::new(secret.expose().clone()),
        };
        filled(secret).ok()
    }
}

/// Reads the secret that `key` tells the place of, which must be there, and where it can be found again.
pub(super) fn located_secret(
    section: &mut Section<'_>,
    key: &'static str,
) -> Option<(Secret<String>, SecretSource)> {
    let path = section.path(key);
    if !section.has(key) {
        let wrong = Wrong::from(format!("is missing; it takes {}", forms()));
        section.take(key, None);
        section.missing(key, wrong);
        return None;
    }
    let mut place = match section.take(key, None).map(|value| value.kind) {
        Some(ValueKind::String(text)) => return inline(section.report, &path, text),
        Some(ValueKind::Table(place)) => place,
        _ => {
            section.fault(key, None, format!("must be {}", forms()));
            return None;
        }
    };
    // A variable that names another place replaces the file's, which stands beside it here.
    let is_override = |name: &String| section.report.is_override(&format!("{path}.{name}"));
    if place.keys().any(is_override) {
        place.retain(|name, _| is_override(name));
    }
    let mut entries = place.into_iter();
    let (Some((name, value)), None) = (entries.next(), entries.next()) else {
        section.fault(key, None, format!("must be {}, and only one of them", forms()));
        return None;
    };
    let report = section.report;
    if name == "command" {
        let found = command(report, &format!("{path}.command"), value.kind)
            .and_then(|command| Ok((filled(command.run()?)?, SecretSource::Command(command))));
        return found.map_err(|wrong| report.fault(&path, None, wrong)).ok();
    }
    let ValueKind::String(value) = value.kind else {
        section.fault(key, None, format!("`{name}` must be a string, in quotes"));
        return None;
    };
    let read = match name.as_str() {
        "inline" => return inline(report, &path, value),
        "file" => {
            let file = report.path(&value);
            report.note_file(&file);
            let read = from_file(&file);
            if read.is_ok() {
                warn_if_readable(report, &path, &file);
            }
            read.map(|secret| (secret, SecretSource::File(file)))
        }
        "credential" => from_credential(report, &value),
        "env" => {
            from_environment(report, &value).map(|secret| (secret, SecretSource::Variable(value)))
        }
        _ => Err(Wrong::from(format!("has no place `{name}`; it takes {}", forms()))),
    };
    let found = read.and_then(|(secret, source)| Ok((filled(secret)?, source)));
    let (secret, source) = found.map_err(|wrong| report.fault(&path, None, wrong)).ok()?;
    report.secret_places.borrow_mut().note(&source);
    Some((secret, source))
}

/// Warns if others than the owner, and than those whom root has let in, can read what only the owner should.
pub(super) fn warn_if_readable(report: &Report, key: &str, file: &Path) {
    let Ok(metadata) = fs::metadata(file) else { return };
    let mode = metadata.mode() & 0o777;
    if is_exposed(mode, metadata.uid(), rustix::process::geteuid().as_raw()) {
        let file = file.display();
        report.warn(key, format!("others than its owner can read `{file}` (mode {mode:03o})"));
    }
}

/// A file of root's that a daemon of another user reads can only be for its group: so Kubernetes mounts
/// secrets, and so does an administrator who lets the daemon read what it may not change.
fn is_exposed(mode: u32, owner: u32, ours: u32) -> bool {
    let is_for_our_group = owner == 0 && ours != 0;
    mode & 0o004 != 0 || (mode & 0o040 != 0 && !is_for_our_group)
}

fn forms() -> String {
    let [places @ .., last] = PLACES;
    format!("`{}` or `{last}`", places.join("`, `"))
}

/// A program and its arguments, as a list: there is no shell that would take them apart.
fn command(report: &Report, path: &str, value: ValueKind) -> Result<SecretCommand, Wrong> {
    let text = |item: Value| match item.kind {
        ValueKind::String(text) => Some(text),
        _ => None,
    };
    let words = match value {
        ValueKind::Array(items) => items.into_iter().map(text).collect(),
        ValueKind::String(text) if report.is_override(path) => {
            Some(text.split(',').map(|word| word.trim().to_owned()).collect())
        }
        _ => None,
    };
    let mut words = words.unwrap_or_else(Vec::new).into_iter();
    match words.next().filter(|program| !program.is_empty()) {
        Some(program) => {
            Ok(SecretCommand { program: report.path(&program), arguments: words.collect() })
        }
        None => {
            let wrong = Wrong::from("`command` must be a list: a program and its arguments");
            Err(wrong
                .hint("for instance { command = [\"/usr/bin/pass\", \"show\", \"xks/demo\"] }"))
        }
    }
}

fn inline(report: &Report, key: &str, text: String) -> Option<(Secret<String>, SecretSource)> {
    let hint = "keep it in a file of its own instead: { file = \"...\" }";
    report.warn(key, format!("a secret stands in plain sight; {hint}"));
    let secret = filled(Secret::new(text)).map_err(|wrong| report.fault(key, None, wrong)).ok()?;
    if !report.is_override(key) {
        report.secret_places.borrow_mut().files.insert(report.configuration_file());
    }
    let kept = SecretSource::Kept(Secret::new(secret.expose().clone()));
    Some((secret, kept))
}

pub(super) fn filled(secret: Secret<String>) -> Result<Secret<String>, Wrong> {
    if secret.expose().is_empty() { Err("is empty".into()) } else { Ok(secret) }
}

/// The whole file, but for one line end.
pub(super) fn from_file(file: &Path) -> Result<Secret<String>, Wrong> {
    let read = fs::read(file);
    let bytes = read.map_err(|error| format!("cannot read `{}`: {error}", file.display()))?;
    let mut text = String::from_utf8(bytes).map_err(|error| {
        error.into_bytes().zeroize();
        format!("`{}` is not UTF-8 text", file.display())
    })?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(Secret::new(text))
}

fn from_credential(report: &Report, name: &str) -> Result<(Secret<String>, SecretSource), Wrong> {
    let Some(directory) = report.environment.get(CREDENTIALS_DIRECTORY) else {
        let wrong = Wrong::from(format!(
            "takes the systemd credential `{name}`, and {CREDENTIALS_DIRECTORY} is not set"
        ));
        return Err(wrong.hint(format!("the unit needs LoadCredential={name}:/path/of/the/secret")));
    };
    if name.is_empty() || name.contains('/') {
        return Err("`credential` must be the name of a credential, without slashes".into());
    }
    let file = PathBuf::from(directory).join(name);
    report.note_file(&file);
    from_file(&file).map(|secret| (secret, SecretSource::File(file)))
}

fn from_environment(report: &Report, name: &str) -> Result<Secret<String>, Wrong> {
    // What is no name may be the secret itself, put here by mistake: it is not shown.
    let is_name = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    match report.environment.get(name) {
        Some(value) => Ok(Secret::new(value.clone())),
        None if is_name => Err(format!("the environment variable `{name}` is not set").into()),
        None => {
            let wrong = Wrong::from("`env` must name an environment variable that is set");
            Err(wrong.hint("it takes the variable's name, not the secret"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_exposed;

    #[test]
    fn a_group_may_read_what_root_gave_it() {
        for (mode, owner, ours, exposed) in [
            (0o600, 1000, 1000, false),
            (0o640, 1000, 1000, true),
            (0o440, 0, 1000, false),
            (0o640, 0, 1000, false),
            (0o644, 0, 1000, true),
            (0o404, 0, 1000, true),
            (0o640, 2000, 1000, true),
            // Root does not need a group.
            (0o600, 0, 0, false),
            (0o640, 0, 0, true),
        ] {
            assert_eq!(is_exposed(mode, owner, ours), exposed, "{mode:o} {owner} {ours}");
        }
    }
}
