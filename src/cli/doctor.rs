//! `xksd doctor`

use std::process::ExitCode;

use clap::Args;

use super::failure::{print, say};
use super::startup::{Surroundings, configuration, configuration_for_modules};
use super::{ConfigFile, Exit, Failure};
use crate::config::Token;
use crate::doctor::{self, Finding, LowCount, Status};
use crate::hsm::pkcs11::exit_now;
use crate::names::TokenName;

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Doctor {
    #[command(flatten)]
    config: ConfigFile,
    /// Of the tokens, look at this one only
    #[arg(long, value_name = "NAME")]
    token: Option<TokenName>,
    /// Print the findings as a JSON array
    #[arg(long)]
    json: bool,
    /// Try the PIN even where the token says that a wrong one was tried before
    #[arg(long)]
    try_pin: bool,
}

const AFTER_HELP: &str = "It may run beside the daemon, and changes nothing: the one key that it \
    makes vanishes with its session. Exit codes: 0 nothing failed (there may be warnings), 1 \
    something did, 64 wrong command line.";

/// Exit code where a check failed.
const FAILED: u8 = 1;

impl Doctor {
    /// Does not return after an HSM was used: modules do not survive an ordinary exit.
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let mut findings = Vec::new();
        let mut report = |finding: Finding| {
            if !self.json {
                // Where stdout is gone nobody reads on; the exit code still tells.
                let _ = print(&in_text(&finding));
            }
            findings.push(finding);
        };
        let outcome = configuration(&self.config);
        let is_valid = outcome.is_ok();
        if !is_valid {
            doctor::configuration(outcome.as_ref(), &mut report);
        } else {
            // Read again: this may start the process anew, in the environment of the modules.
            drop(outcome);
            let is_meant = |name: &TokenName| self.token.as_ref().is_none_or(|one| one == name);
            let of = |name: &TokenName, _: &Token| is_meant(name);
            let mut config = configuration_for_modules(&self.config, Surroundings::AsServed, of)?;
            doctor::configuration(Ok(&config), &mut report);
            config.tokens.retain(|name, _token| is_meant(name));
            if let Some(name) = self.token.as_ref().filter(|_| config.tokens.is_empty()) {
                let failure = format!("there is no [tokens.{name}] in the configuration");
                return Err(Failure::new(Exit::Usage, failure));
            }
            let low_count = if self.try_pin { LowCount::Try } else { LowCount::Spare };
            doctor::examine(config, low_count, &mut report);
        }
        let code = match self.conclude(&findings) {
            Ok(code) => code,
            Err(failure) => {
                failure.report();
                failure.code()
            }
        };
        exit_now(code.into())
    }

    fn conclude(&self, findings: &[Finding]) -> Result<u8, Failure> {
        if self.json {
            let json = serde_json::to_string_pretty(findings);
            print(&format!("{}\n", json.expect("findings always have a JSON form")))?;
        }
        let count = |status| findings.iter().filter(|finding| finding.status == status).count();
        let (failed, warnings) = (count(Status::Fail), count(Status::Warn));
        say(&format!("{} checks: {failed} failed, {warnings} warnings", findings.len()));
        Ok(if failed > 0 { FAILED } else { 0 })
    }
}

fn in_text(finding: &Finding) -> String {
    let Finding { check, subject, status, message, advice } = finding;
    let word = match status {
        Status::Ok => "ok  ",
        Status::Warn => "WARN",
        Status::Fail => "FAIL",
    };
    let subject = if subject.is_empty() { String::new() } else { format!("{subject}: ") };
    let mut text = format!("{word} {check:<20} {subject}{message}\n");
    if let Some(advice) = advice {
        text.push_str(&format!("     {:<20} -> {advice}\n", ""));
    }
    text
}
