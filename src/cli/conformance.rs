//! `xksd conformance`

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap::builder::TypedValueParser;
use clap::error::ErrorKind;

use super::access::{Access, read_secret, seconds};
use super::failure::{print, say};
use super::{Exit, Failure};
use crate::client::{Endpoint, Scheme};
use crate::conformance::report::CaseReport;
use crate::conformance::{
    self, Credential, Examination, Keys, Neighbour, Only, Report, Severity, Subject, UNSEEN,
};
use crate::names::{AccessKeyId, ExternalKeyId};
use crate::sigv4::SecretAccessKey;

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Conformance {
    #[command(flatten)]
    access: Access,
    /// External key that may encrypt and decrypt
    #[arg(long, value_name = "KEY", env = "KEY_ID", hide_env_values = true)]
    key: ExternalKeyId,
    /// Key that may only encrypt
    #[arg(long, value_name = "KEY", env = "ENCRYPT_ONLY_KEY_ID", hide_env_values = true)]
    encrypt_only_key: Option<ExternalKeyId>,
    /// Key that may only decrypt
    #[arg(long, value_name = "KEY", env = "DECRYPT_ONLY_KEY_ID", hide_env_values = true)]
    decrypt_only_key: Option<ExternalKeyId>,
    /// Key that may do neither
    #[arg(long, value_name = "KEY", env = "IMPOTENT_KEY_ID", hide_env_values = true)]
    no_use_key: Option<ExternalKeyId>,
    /// Disabled key
    #[arg(long, value_name = "KEY")]
    disabled_key: Option<ExternalKeyId>,
    /// Another key that may encrypt and decrypt
    #[arg(long, value_name = "KEY")]
    second_key: Option<ExternalKeyId>,
    /// Key that is no AES key of 256 bits
    #[arg(long, value_name = "KEY")]
    other_kind_key: Option<ExternalKeyId>,
    /// Access key id of a second credential of the same key store
    #[arg(long, value_name = "ID", requires = "second_secret_file")]
    second_access_key_id: Option<AccessKeyId>,
    /// File with its secret access key
    #[arg(long, value_name = "FILE", requires = "second_access_key_id")]
    second_secret_file: Option<PathBuf>,
    /// Another key store of the same proxy: the same host with another prefix
    #[arg(long, value_name = "URL")]
    #[arg(requires_all = ["other_access_key_id", "other_secret_file", "other_key"])]
    other_url: Option<Endpoint>,
    /// Access key id of that key store
    #[arg(long, value_name = "ID", requires = "other_url")]
    other_access_key_id: Option<AccessKeyId>,
    /// File with its secret access key
    #[arg(long, value_name = "FILE", requires = "other_url")]
    other_secret_file: Option<PathBuf>,
    /// Key that only that key store may use
    #[arg(long, value_name = "KEY", requires = "other_url")]
    other_key: Option<ExternalKeyId>,
    /// Where load balancers ask: https://host[:port]/path, or http of this machine
    #[arg(long, value_name = "URL")]
    balancer_url: Option<Endpoint>,
    /// Examine only this rule (P-43) or case; may be given again
    #[arg(long, value_name = "RULE")]
    only: Vec<Only>,
    /// Count as failures what the specification recommends (S) or leaves to the proxy (D), too
    #[arg(long)]
    strict: bool,
    /// End after so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    time_limit: Duration,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Write the report as JUnit XML to this file, too
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// List rules and cases, and examine nothing
    #[arg(long, num_args = 0, default_missing_value = "", value_parser = Listing)]
    list: Option<()>,
}

/// Ends the parsing of the command line with the list, as `--help` does with its text: nothing that
/// an examination needs is asked for.
#[derive(Debug, Clone)]
struct Listing;

impl TypedValueParser for Listing {
    type Value = ();

    fn parse_ref(
        &self,
        command: &clap::Command,
        _argument: Option<&clap::Arg>,
        _value: &OsStr,
    ) -> Result<(), clap::Error> {
        Err(clap::Error::raw(ErrorKind::DisplayHelp, list()).with_cmd(command))
    }
}

const AFTER_HELP: &str = "It sends signed requests, good and bad, one at a time, and changes \
    nothing: no keys are made. Exit codes: 0 no rule is broken (there may be notes), 1 one is, 64 \
    wrong command line, 69 the proxy cannot be reached, 74 a report cannot be written.";

/// Exit code where a rule is broken.
const BROKEN: u8 = 1;

impl Conformance {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let severity = if self.strict { Severity::Strict } else { Severity::Lenient };
        let examination = Examination::new(self.subject()?, &self.only, severity, self.time_limit);
        let (cases, requests) = (examination.cases(), examination.requests());
        let limit = self.time_limit.as_secs_f64();
        let most = examination.most();
        say(&format!(
            "{cases} cases, {requests} requests (up to {most} of a busy proxy), at most {limit} seconds"
        ));
        let as_it_goes = |case: &CaseReport| {
            if !self.json {
                // Where stdout is gone nobody reads on; the exit code still tells.
                let _ = print(&format!("{case}\n"));
            }
        };
        let report = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(Exit::OsError, error))?
            .block_on(examination.run(as_it_goes))
            .map_err(|error| {
                Failure::new(Exit::Unavailable, error)
                    .hint("--cacert names the CA of a private certificate")
            })?;
        self.conclude(&report)
    }

    fn conclude(&self, report: &Report) -> Result<ExitCode, Failure> {
        if self.json {
            print(&format!("{}\n", report.to_json()))?;
        }
        if let Some(file) = &self.junit {
            fs::write(file, report.to_junit()).map_err(|error| {
                Failure::new(Exit::Io, format!("cannot write `{}`: {error}", file.display()))
            })?;
        }
        say(&report.to_string());
        Ok(if report.failed > 0 { ExitCode::from(BROKEN) } else { ExitCode::SUCCESS })
    }

    fn subject(&self) -> Result<Subject, Failure> {
        let Self { access, key, .. } = self;
        let over_tls = access.url.scheme() == Scheme::Https;
        let trust = if over_tls { Some(access.trust()?) } else { None };
        let second = match (&self.second_access_key_id, &self.second_secret_file) {
            (Some(id), Some(file)) => Some(credential(id, file, "--second-secret-file")?),
            _ => None,
        };
        // The same form as the secrets of a configuration, P-14; what is examined with is sound.
        access.signer_to(&access.url)?;
        Ok(Subject {
            connector: access.connector_to(&access.url)?,
            trust,
            identity: access.identity()?,
            credential: Credential::new(access.access_key_id.as_str(), access.secret()?),
            second_credential: second,
            region: access.region.to_string(),
            key: key.clone(),
            keys: Keys {
                encrypt_only: self.encrypt_only_key.clone(),
                decrypt_only: self.decrypt_only_key.clone(),
                no_use: self.no_use_key.clone(),
                disabled: self.disabled_key.clone(),
                second: self.second_key.clone(),
                other_kind: self.other_kind_key.clone(),
            },
            neighbour: self.neighbour(&access.url)?,
            balancer: self.balancer_url.clone(),
        })
    }

    fn neighbour(&self, url: &Endpoint) -> Result<Option<Neighbour>, Failure> {
        let (Some(endpoint), Some(id), Some(file), Some(key)) =
            (&self.other_url, &self.other_access_key_id, &self.other_secret_file, &self.other_key)
        else {
            return Ok(None);
        };
        if endpoint.authority() != url.authority() || endpoint.prefix() == url.prefix() {
            let failure = "--other-url must be of the same host and port, with another prefix";
            return Err(Failure::new(Exit::Usage, failure));
        }
        let credential = credential(id, file, "--other-secret-file")?;
        Ok(Some(Neighbour { endpoint: endpoint.clone(), credential, key: key.clone() }))
    }
}

fn credential(
    id: &AccessKeyId,
    file: &std::path::Path,
    option: &str,
) -> Result<Arc<Credential>, Failure> {
    let checked = SecretAccessKey::new(read_secret(file, option)?);
    checked.map_err(|error| Failure::new(Exit::Usage, format!("{option}: {error}")))?;
    Ok(Credential::new(id.as_str(), read_secret(file, option)?))
}

/// Every case, and every rule that has none.
fn list() -> String {
    let mut text = String::new();
    for case in conformance::all() {
        let rules: Vec<String> = case.rules.iter().map(|rule| format!("P-{rule}")).collect();
        let needs: Vec<&str> = case.needs.iter().map(|need| need.option()).collect();
        let needs =
            if needs.is_empty() { String::new() } else { format!(" (needs {})", needs.join(", ")) };
        let (letter, name) = (case.letter.as_str(), case.name);
        text.push_str(&format!("{:<15} {letter} {name}: {}{needs}\n", rules.join(" "), case.why));
    }
    for (rule, why) in UNSEEN {
        text.push_str(&format!("{:<15} - not examined: {why}\n", format!("P-{rule}")));
    }
    text
}
