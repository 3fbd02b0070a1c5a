//! Finds what will go wrong before KMS does: each [`Finding`] says what it is and what to do.
//!
//! [`configuration`] tells what the configuration itself is at fault in; where it is valid,
//! [`examine`] goes on with `certificate`, `network` and, token by token, `hsm` and `keys`. Every check
//! reports, good or bad, so that the list also tells what was looked at.

mod certificate;
mod hsm;
mod keys;
mod network;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::Serialize;

use crate::config::{Config, ConfigErrors, Fault, Transport};

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
    pub check: &'static str,
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

/// Everything about one subject goes here.
struct Findings<'a> {
    subject: String,
    report: &'a mut dyn FnMut(Finding),
}

impl Findings<'_> {
    fn ok(&mut self, check: &'static str, message: impl Into<String>) {
        self.add(check, Status::Ok, message.into(), None);
    }

    fn warn(&mut self, check: &'static str, message: impl Into<String>, advice: impl Into<String>) {
        self.add(check, Status::Warn, message.into(), Some(advice.into()));
    }

    fn fail(&mut self, check: &'static str, message: impl Into<String>, advice: impl Into<String>) {
        self.add(check, Status::Fail, message.into(), Some(advice.into()));
    }

    fn add(
        &mut self,
        check: &'static str,
        status: Status,
        message: String,
        advice: Option<String>,
    ) {
        let subject = self.subject.clone();
        (self.report)(Finding { check, subject, status, message, advice });
    }
}

/// What the configuration itself is at fault in.
pub fn configuration(outcome: Result<&Config, &ConfigErrors>, report: &mut dyn FnMut(Finding)) {
    const CHECK: &str = "configuration";
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
        file.warn("configuration.safety", warning, advice);
    }
}

/// Looks at everything that a valid configuration names. Afterwards the process must be left
/// through [`crate::hsm::pkcs11::exit_now`]: HSM libraries are loaded, and may be hung.
pub fn examine(config: Config, low_count: LowCount, report: &mut dyn FnMut(Finding)) {
    if let Transport::Tls(settings) = &config.server.transport {
        certificate::examine(settings, report);
    }
    network::examine(&config, report);
    let Config { tokens, keystores, .. } = config;
    for (name, token) in tokens {
        let subject = format!("tokens.{name}");
        let wanted = keystores.iter().filter(|keystore| keystore.tokens.contains(&name));
        let wanted = wanted.map(|keystore| keys::Wanted {
            keystore: keystore.name.clone(),
            rules: keystore.keys.clone(),
            formats: keystore.formats.clone(),
        });
        let wanted = wanted.collect();
        let patient = hsm::Patient { name, token, wanted, low_count };
        watch(subject, HSM_PATIENCE, report, move |findings| patient.examine(findings));
    }
}

/// Examines a token on a thread of its own: a library that hangs is a finding too.
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
                Findings { subject, report }.fail("token.answers", message, advice);
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
            findings.ok("token.module", "loads");
            wait.recv().expect_err("nothing is ever sent");
        });
        assert_eq!(found, [("token.module", Status::Ok), ("token.answers", Status::Fail)]);
        drop(never);
    }
}
