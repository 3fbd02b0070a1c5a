//! `xksd doctor`

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::failure::{print, say};
use super::startup::{Surroundings, configuration, configuration_for_modules};
use super::{ConfigFile, Exit, Failure};
use crate::client::{Endpoint, Scheme};
use crate::config::Token;
use crate::doctor::{self, Authorities, Finding, LowCount, Options, Status};
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
    /// What KMS is given as XksProxyUriEndpoint, in place of fleet.endpoint
    #[arg(long, value_name = "URL")]
    endpoint: Option<Endpoint>,
    /// Connect there for the endpoint, and do not resolve its name: a load balancer before DNS leads to it
    #[arg(long, value_name = "ADDRESS:PORT")]
    connect: Option<SocketAddr>,
    /// How many proxies share the tokens, in place of fleet.size
    #[arg(long, value_name = "N")]
    proxies: Option<NonZeroU32>,
    /// CAs that KMS accepts, in place of the list of AWS that is built in: a newer one, in AWS's form
    #[arg(long, value_name = "FILE")]
    trusted_cas: Option<PathBuf>,
    /// Exit with 1 for warnings, too
    #[arg(long)]
    strict: bool,
    /// Print the findings as a JSON array
    #[arg(long)]
    json: bool,
    /// Try the PIN even where the token says that a wrong one was tried before
    #[arg(long)]
    try_pin: bool,
}

const AFTER_HELP: &str = "It may run beside the daemon, and changes nothing: the one key that it \
    makes vanishes with its session. Exit codes: 0 nothing failed (there may be warnings, but with \
    --strict), 1 something did, 64 wrong command line.";

/// Exit code where a check failed.
const FAILED: u8 = 1;

impl Doctor {
    /// Does not return after an HSM was used: modules do not survive an ordinary exit.
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        crate::daemon::hide_memory();
        let options = self.options()?;
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
            doctor::examine(config, &options, &mut report);
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

    fn options(&self) -> Result<Options, Failure> {
        let is_bare = |url: &Endpoint| url.scheme() == Scheme::Https && url.base_path().is_empty();
        if !self.endpoint.as_ref().is_none_or(is_bare) {
            let failure = "--endpoint takes https:// and a host, without a path";
            return Err(Failure::new(Exit::Usage, failure));
        }
        let authorities = match &self.trusted_cas {
            None => Authorities::shipped(),
            Some(file) => Authorities::from_file(file).map_err(|error| {
                let failure = format!("--trusted-cas `{}`: {error}", file.display());
                Failure::new(Exit::Usage, failure)
            })?,
        };
        Ok(Options {
            low_count: if self.try_pin { LowCount::Try } else { LowCount::Spare },
            proxies: self.proxies,
            endpoint: self.endpoint.clone(),
            connect: self.connect,
            authorities,
        })
    }

    fn conclude(&self, findings: &[Finding]) -> Result<u8, Failure> {
        if self.json {
            let json = serde_json::to_string_pretty(findings);
            print(&format!("{}\n", json.expect("findings always have a JSON form")))?;
        }
        let count = |status| findings.iter().filter(|finding| finding.status == status).count();
        let (failed, warnings) = (count(Status::Fail), count(Status::Warn));
        say(&format!("{} checks: {failed} failed, {warnings} warnings", findings.len()));
        let is_bad = failed > 0 || self.strict && warnings > 0;
        Ok(if is_bad { FAILED } else { 0 })
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
    let mut text = format!("{word} {check:<27} {subject}{message}\n");
    if let Some(advice) = advice {
        text.push_str(&format!("     {:<27} -> {advice}\n", ""));
    }
    text
}
