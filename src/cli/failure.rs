//! How a command fails: in words on stderr, and by exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::ConfigErrors;

/// Exit codes, as sysexits.h names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// What was examined is not as it should be.
    Difference = 1,
    /// The command line is wrong.
    Usage = 64,
    /// The HSM can't be reached.
    Unavailable = 69,
    /// Something failed that should not.
    Software = 70,
    /// The operating system refused.
    OsError = 71,
    /// What should be made or changed can't be: it is there already, or in no state for it.
    CannotCreate = 73,
    /// A file can't be read, or output not be written.
    Io = 74,
    /// The token refused the PIN.
    NoPermission = 77,
    /// The configuration is wrong.
    Config = 78,
}

/// Why a command ends without success.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    errors: Vec<(String, Vec<String>)>,
    warnings: Vec<String>,
}

impl Failure {
    /// One error.
    pub fn new(exit: Exit, error: impl ToString) -> Self {
        Self { exit, errors: vec![(error.to_string(), Vec::new())], warnings: Vec::new() }
    }

    /// Adds another error; the code to end with stays.
    #[must_use]
    pub fn and(mut self, error: impl ToString) -> Self {
        self.errors.push((error.to_string(), Vec::new()));
        self
    }

    /// Says as well what to do about the last error.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Some((_, hints)) = self.errors.last_mut() {
            hints.push(hint.into());
        }
        self
    }

    /// A wrong command line, in clap's words.
    pub(super) fn usage(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        let mut failure = Self { exit: Exit::Usage, errors: Vec::new(), warnings: Vec::new() };
        let mut hints = Vec::new();
        let mut message = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some(tip) = line.strip_prefix("tip: ") {
                hints.push(tip.to_owned());
            } else if let Some(usage) = line.strip_prefix("Usage: ") {
                hints.push(format!("usage: {usage}"));
            } else if let Some(help) = line.strip_prefix("For more information, try ") {
                hints.push(format!("{} tells more", help.trim_end_matches('.').replace('\'', "`")));
            } else {
                message.push(line.strip_prefix("error: ").unwrap_or(line));
            }
        }
        failure.errors.push((message.join(" "), hints));
        failure
    }

    /// Says it on stderr, and gives the code to end with.
    pub fn report(&self) -> ExitCode {
        self.write(&mut io::stderr().lock());
        ExitCode::from(self.code())
    }

    /// The first error, without its hints.
    pub(super) fn headline(&self) -> &str {
        self.errors.first().map_or("", |(error, _)| error)
    }

    /// The code to end with.
    pub fn code(&self) -> u8 {
        self.exit as u8
    }

    fn write(&self, out: &mut impl Write) {
        // Where stderr can't be written to, nobody is left to be told.
        for warning in &self.warnings {
            let _ = writeln!(out, "warning: {warning}");
        }
        for (error, hints) in &self.errors {
            let _ = writeln!(out, "error: {error}");
            for hint in hints {
                let _ = writeln!(out, "hint: {hint}");
            }
        }
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        let ConfigErrors { faults, warnings, .. } = errors;
        let lines = faults.into_iter().map(|f| (f.to_string(), f.hint.into_iter().collect()));
        Self { exit: Exit::Config, errors: lines.collect(), warnings }
    }
}

/// Writes data to stdout.
pub(super) fn print(data: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(data.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| Failure::new(Exit::Io, format!("cannot write to stdout: {error}")))
}

/// Says something on stderr.
pub(super) fn say(talk: &str) {
    let _ = writeln!(io::stderr().lock(), "{talk}");
}
