//! `xksd policy`: what the authorization policies say, before and after they say it.

mod analyze;
mod check;
mod explain;
mod question;
mod test;

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;

use super::{Exit, Failure};
use crate::policy::PolicyFault;

#[derive(Debug, Subcommand)]
pub(super) enum Policy {
    /// Validate the policies of all key stores: every fault with file, line and column
    Check(check::Check),
    /// Put test cases to policies: those of the file, or those of the configured key stores
    Test(test::Test),
    /// Tell why a request is allowed or denied: which policies apply
    Explain(explain::Explain),
    /// Put every kind of request of some callers to the policies: which keys nobody can use, which
    /// policies never decide
    Analyze(analyze::Analyze),
    /// Print the schema that policies are validated against
    Schema,
}

impl Policy {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        match self {
            Self::Check(check) => check.run(),
            Self::Test(test) => test.run(),
            Self::Explain(explain) => explain.run(),
            Self::Analyze(analyze) => analyze.run(),
            Self::Schema => {
                super::failure::print(crate::policy::SCHEMA).map(|()| ExitCode::SUCCESS)
            }
        }
    }
}

/// Reads a TOML file.
fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let failed =
        |problem: String| Failure::new(Exit::Config, format!("{}: {problem}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| failed(format!("cannot be read: {e}")))?;
    toml::from_str(&text).map_err(|error| {
        let before = error.span().map_or("", |span| text.get(..span.start).unwrap_or_default());
        let line = before.matches('\n').count() + 1;
        failed(format!("line {line}: {}", error.message()))
    })
}

/// All faults, as errors of one failure.
fn faults(faults: &[PolicyFault]) -> Failure {
    let add = |failure: Option<Failure>, fault: &PolicyFault| {
        let failure = match failure {
            None => Failure::new(Exit::Config, fault),
            Some(failure) => failure.and(fault),
        };
        let hint = fault.hint.iter();
        Some(hint.fold(failure, |failure, hint| failure.hint(hint.clone())))
    };
    let failure = faults.iter().fold(None, add);
    failure.expect("what is refused has a fault")
}

fn unusable(error: question::Unusable) -> Failure {
    match error {
        question::Unusable::Setting(problem) => Failure::new(Exit::Config, problem),
        question::Unusable::Policies(found) => faults(&found),
    }
}
