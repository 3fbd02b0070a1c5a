//! Finds what will go wrong before KMS does: each [`Finding`] says what it is and what to do.
//!
//! [`configuration`] tells what the configuration itself is at fault in; where it is valid,
//! [`examine`] goes on with `files`, `clock`, `certificate` and `network`, then as KMS would with `reach`
//! (by `endpoint` and `way`; `verdict` says what came of it), then, token by token, with `hsm` and
//! `keys`, and with `groups` of tokens. Every check reports, good or bad, so that the list also tells
//! what was looked at; each has a name in [`Check`].

mod authorities;
mod certificate;
mod check;
mod clock;
mod crypt;
mod endpoint;
mod files;
mod groups;
mod hsm;
mod keys;
mod network;
mod reach;
mod verdict;
mod way;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::Serialize;

pub use authorities::{Authorities, ListError};
pub use check::Check;

use crate::client::Endpoint;
use crate::config::{Config, ConfigErrors, Fault, Transport};
use crate::hsm::pkcs11::TokenSelector;
use crate::keystore::VerifyWrites;
use crate::names::TokenName;

/// How long the HSM library may stay in one step of the examination.
const HSM_PATIENCE: Duration = Duration::from_secs(30);

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works, and something should be done.
    Warn,
    /// KMS will not get what it asks for.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was checked, by a name that stays: `token.login`.
    pub check: Check,
    /// Where in the configuration it belongs: `tokens.softhsm`.
    pub subject: String,
    /// How bad it is.
    pub status: Status,
    /// What was found.
    pub message: String,
    /// What to do about it.
    pub advice: Option<String>,
}

/// Whether a PIN is tried of which the token says that a wrong one was tried before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LowCount {
    /// It is left alone.
    Spare,
    /// It is tried once, as any other.
    Try,
}

/// What is looked at, beside the configuration.
#[derive(Debug)]
pub struct Options {
    /// Whether a PIN is tried that may be wrong.
    pub low_count: LowCount,
    /// How many proxies share the tokens; `None`: as many as the fleet has.
    pub proxies: Option<NonZeroU32>,
    /// Where KMS will find the proxy; `None`: where the configuration says.
    pub endpoint: Option<Endpoint>,
    /// Where that is looked for, whatever its name resolves to.
    pub connect: Option<SocketAddr>,
    /// The certificate authorities that KMS accepts.
    pub authorities: Authorities,
}

/// Everything about one subject goes here.
struct Findings<'a> {
    subject: String,
    report: &'a mut dyn FnMut(Finding),
}

impl Findings<'_> {
    fn ok(&mut self, check: Check, message: impl Into<String>) {
        self.add(check, Status::Ok, message.into(), None);
    }

    fn warn(&mut self, check: Check, message: impl Into<String>, advice: impl Into<String>) {
        self.add(check, Status::Warn, message.into(), Some(advice.into()));
    }

    fn fail(&mut self, check: Check, message: impl Into<String>, advice: impl Into<String>) {
        self.add(check, Status::Fail, message.into(), Some(advice.into()));
    }

    fn add(&mut self, check: Check, status: Status, message: String, advice: Option<String>) {
        let subject = self.subject.clone();
        (self.report)(Finding { check, subject, status, message, advice });
    }
}

/// What the configuration itself is at fault in.
pub fn configuration(outcome: Result<&Config, &ConfigErrors>, report: &mut dyn FnMut(Finding)) {
    const CHECK: Check = Check::Configuration;
    let warnings = match outcome {
        Ok(config) => &config.warnings,
        Err(errors) => &errors.warnings,
    };
    let mut file = Findings { subject: String::new(), report };
    match outcome {
        Ok(config) => {
            let (keystores, tokens) = (config.keystores.len(), config.tokens.len());
            file.ok(CHECK, format!("valid; key stores: {keystores}, tokens: {tokens}"));
        }
        Err(errors) => {
            for fault in &errors.faults {
                let Fault { origin, key, value, problem, hint } = fault;
                file.subject.clone_from(key);
                let value = value.as_ref().map(|value| format!("{value}: ")).unwrap_or_default();
                let message = format!("{value}{problem} ({origin})");
                let advice = "`xksd config template` shows every key with its meaning";
                file.fail(CHECK, message, hint.as_deref().unwrap_or(advice));
            }
            file.subject.clear();
            let advice = "mend the faults above and run it again";
            let message = "nothing else was looked at, since the configuration is not valid";
            file.warn(CHECK, message, advice);
        }
    }
    for warning in warnings {
        let advice = "it is allowed, and should not be: secrets belong to files that only the \
            daemon's user can read";
        file.warn(Check::Safety, warning, advice);
    }
}

/// Looks at everything that a valid configuration names. Afterwards the process must be left
/// through [`crate::hsm::pkcs11::exit_now`]: HSM libraries are loaded, and may be hung.
pub fn examine(config: Config, options: &Options, report: &mut dyn FnMut(Finding)) {
    files::examine(&config, report);
    clock::examine(&mut Findings { subject: String::new(), report });
    let endpoint = options.endpoint.as_ref().or(config.endpoint.as_ref());
    let own = match &config.server.transport {
        Transport::Tls(settings) => {
            let host = endpoint.map(Endpoint::host);
            certificate::examine(settings, host, &options.authorities, report)
        }
        Transport::PlainOnLoopback => None,
    };
    let is_running = network::examine(&config, report);
    let own = own.as_ref();
    reach::Journey { config: &config, options, own, is_running }.examine(report);
    tokens(config, options, report);
}

/// Looks at each token, and then at those that stand together.
fn tokens(config: Config, options: &Options, report: &mut dyn FnMut(Finding)) {
    let Config { tokens, keystores, fleet_size, server, .. } = config;
    let wanted = |name: &TokenName| -> Vec<keys::Wanted> {
        let of = keystores.iter().filter(|keystore| keystore.tokens.contains(name));
        let wanted = of.map(|keystore| keys::Wanted {
            keystore: keystore.name.clone(),
            rules: keystore.keys.clone(),
            formats: keystore.formats.clone(),
        });
        wanted.collect()
    };
    let groups: BTreeSet<_> = keystores.iter().map(|keystore| keystore.tokens.clone()).collect();
    let groups = groups.into_iter().filter(|names| names.len() > 1).map(|names| {
        let members = names.iter().filter_map(|name| tokens.get_key_value(name));
        (groups::Group::new(members, wanted(&names[0])), names)
    });
    let groups: Vec<_> = groups.collect();
    let mut open = BTreeSet::new();
    let mut refused: Vec<(PathBuf, TokenSelector, TokenName)> = Vec::new();
    for (name, token) in tokens {
        let of = || keystores.iter().filter(|keystore| keystore.tokens.contains(&name));
        let patient = hsm::Patient {
            wanted: wanted(&name),
            low_count: options.low_count,
            refused: refused
                .iter()
                .find(|(module, selector, _)| {
                    (module, selector) == (&token.module, &token.selector)
                })
                .map(|(_, _, name)| name.clone()),
            proxies: options.proxies.unwrap_or(fleet_size),
            deadline: server.deadline,
            verifies: of().any(|keystore| keystore.verify_writes == VerifyWrites::Always),
            has_others: of().any(|keystore| keystore.tokens.len() > 1),
            name: name.clone(),
            token,
        };
        let subject = format!("tokens.{name}");
        let same = (patient.token.module.clone(), patient.token.selector.clone());
        let mut pass_on = |finding: Finding| {
            match (finding.check, finding.status) {
                (Check::TokenKeys, Status::Ok) => drop(open.insert(name.clone())),
                (Check::TokenLogin, Status::Fail) => {
                    refused.push((same.0.clone(), same.1.clone(), name.clone()));
                }
                _ => {}
            }
            report(finding);
        };
        watch(subject, HSM_PATIENCE, &mut pass_on, move |findings| patient.examine(findings));
    }
    for (group, names) in groups {
        // Whoever could not be looked at alone is not looked at with others.
        if names.iter().all(|name| open.contains(name)) {
            let names = names.iter().map(TokenName::as_str).collect::<Vec<_>>().join(", ");
            let subject = format!("tokens {names}");
            watch(subject, HSM_PATIENCE, report, move |findings| group.examine(findings));
        }
    }
}

/// Examines tokens on a thread of its own: a library that hangs is a finding too.
fn watch(
    subject: String,
    patience: Duration,
    report: &mut dyn FnMut(Finding),
    examine: impl FnOnce(&mut Findings<'_>) + Send + 'static,
) {
    let (sender, findings) = mpsc::channel();
    let theirs = subject.clone();
    thread::spawn(move || {
        let mut send = |finding| drop(sender.send(finding));
        examine(&mut Findings { subject: theirs, report: &mut send });
    });
    loop {
        match findings.recv_timeout(patience) {
            Ok(finding) => report(finding),
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let message = format!("the HSM library has not returned for {patience:?}");
                let advice = "the step after the last one above hangs: look at the network to the \
                    HSM and at its vendor's client and log";
                Findings { subject, report }.fail(Check::TokenAnswers, message, advice);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_hangs_is_a_finding() {
        let (never, wait) = mpsc::channel::<()>();
        let mut found = Vec::new();
        let subject = "tokens.hung".to_owned();
        let mut report = |finding: Finding| found.push((finding.check, finding.status));
        watch(subject, Duration::from_millis(50), &mut report, move |findings| {
            findings.ok(Check::TokenModule, "loads");
            wait.recv().expect_err("nothing is ever sent");
        });
        assert_eq!(found, [(Check::TokenModule, Status::Ok), (Check::TokenAnswers, Status::Fail)]);
        drop(never);
    }
}
