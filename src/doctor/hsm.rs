//! One HSM token, from the file of its module to the keys that the key stores want of it.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::config::Token;
use crate::hsm::backend::Backend;
use crate::hsm::codes;
use crate::hsm::fault::{Cause, Fault, FaultKind};
use crate::hsm::pkcs11::inspect::{Mechanism, Module, Needed, PinState, TokenSummary};
use crate::hsm::pkcs11::{Pkcs11Backend, TokenSelector};
use crate::hsm::profile::IvSource;
use crate::metrics::Metrics;
use crate::names::TokenName;
use crate::secret::Secret;

use super::{Check, Findings, LowCount, crypt, keys};

/// Sessions that a daemon holds besides those that serve requests.
const OTHER_SESSIONS: usize = 1;

/// A token to look at.
pub(super) struct Patient {
    pub(super) name: TokenName,
    pub(super) token: Token,
    /// What the key stores on this token want of it.
    pub(super) wanted: Vec<keys::Wanted>,
    pub(super) low_count: LowCount,
    /// Another section of the same token, whose PIN was refused a moment ago.
    pub(super) refused: Option<TokenName>,
    /// How many proxies have sessions with it.
    pub(super) proxies: NonZeroU32,
    /// How long a request may take.
    pub(super) deadline: Duration,
    /// Whether an encryption is decrypted again.
    pub(super) verifies: bool,
    /// Whether another token can be tried after it.
    pub(super) has_others: bool,
}

impl Patient {
    /// Step by step: what a step needs and does not find ends the examination.
    pub(super) fn examine(&self, findings: &mut Findings<'_>) {
        let metrics = Metrics::new().token(&self.name);
        let path = &self.token.module;
        let module = match Module::load(path, self.token.initialization.clone(), metrics.clone()) {
            Ok(module) => module,
            Err(error) => {
                let advice = "module must be the PKCS#11 library (.so) of the HSM's vendor, and \
                    what it needs itself must be installed: `ldd` names what is missing";
                return findings.fail(Check::TokenModule, error.to_string(), advice);
            }
        };
        match module.info() {
            Ok(info) => {
                let (about, version) = (&info.description, &info.version);
                let (by, cryptoki) = (&info.manufacturer, &info.cryptoki);
                let about = format!("{about} {version} by {by}, PKCS#11 {cryptoki}");
                findings.ok(Check::TokenModule, format!("`{}` loads: {about}", path.display()));
            }
            Err(fault) => {
                let advice = "its initialisation may have gone wrong: look at the vendor's log";
                findings.warn(Check::TokenModule, format!("it loads, but {fault}"), advice);
            }
        }
        let Some(token) = self.find(&module, findings) else { return };
        self.sessions(&token, findings);
        self.mechanisms(&module, &token, findings);
        if !self.may_log_in(&token, findings) {
            return;
        }
        let pin = Secret::new(self.token.pin.expose().clone());
        let selector = self.token.selector.clone();
        let backend = Pkcs11Backend::new(module.library().clone(), selector, pin, metrics);
        let backend = backend.with_profile(self.token.profile);
        // Its login is that of all sessions, and ends with the last one.
        let mut officer = match backend.administer() {
            Ok(session) => Some(session),
            Err(fault) if is_write_protected(&fault) => None,
            Err(fault) => return self.no_login(fault, findings),
        };
        let session = match officer {
            // Of the kind that requests are served by.
            Some(_) => backend.open_session(),
            None => backend.connect(),
        };
        let mut session = match session {
            Ok(session) => session,
            Err(fault) => return self.no_login(fault, findings),
        };
        findings.ok(Check::TokenLogin, "the PIN is accepted");
        crypt::random(&mut *session, findings);
        let budget = crypt::Budget {
            verifies: self.verifies,
            deadline: self.deadline,
            attempt: self.has_others.then_some(self.token.settings.attempt_limit),
        };
        let iv_source = self.token.profile.map_or(IvSource::HostFromTokenRng, |p| p.iv_source);
        crypt::round_trip(&mut *session, iv_source, &budget, findings);
        keys::examine(&self.name, &self.wanted, (&mut *session, officer.as_deref_mut()), findings);
    }

    fn find(&self, module: &Module, findings: &mut Findings<'_>) -> Option<TokenSummary> {
        const CHECK: Check = Check::TokenFound;
        let (key, wanted) = match &self.token.selector {
            TokenSelector::Label(label) => ("label", label),
            TokenSelector::Serial(serial) => ("serial", serial),
        };
        let tokens = match module.tokens() {
            Ok(tokens) => tokens,
            Err(fault) => {
                let advice = "the HSM may be unreachable: look at the vendor's client and log";
                findings.fail(CHECK, fault.to_string(), advice);
                return None;
            }
        };
        let mut fitting = tokens.iter().filter(|token| token.is(&self.token.selector));
        match (fitting.next(), fitting.next()) {
            (Some(token), None) => {
                let TokenSummary { label, serial, model, .. } = token;
                let message = format!("{model}, label `{label}`, serial `{serial}`");
                findings.ok(CHECK, message);
                Some(token.clone())
            }
            (Some(_), Some(_)) => {
                let message = format!("several tokens have the {key} `{wanted}`");
                findings.fail(CHECK, message, format!("name one by its serial: {}", list(&tokens)));
                None
            }
            (None, _) => {
                let advice = match list(&tokens) {
                    none if none.is_empty() => {
                        "it has no token at all: the HSM may be unreachable, or the module lacks an \
                         environment variable (SOFTHSM2_CONF for SoftHSM2): name it in \
                         [tokens.NAME.environment]"
                            .to_owned()
                    }
                    there => format!("there are: {there}"),
                };
                let message = format!("the module has no token with the {key} `{wanted}`");
                findings.fail(CHECK, message, advice);
                None
            }
        }
    }

    fn sessions(&self, token: &TokenSummary, findings: &mut Findings<'_>) {
        const CHECK: Check = Check::TokenSessions;
        let (each, proxies) = (self.token.settings.sessions + OTHER_SESSIONS, self.proxies);
        let wanted = each as u64 * u64::from(proxies.get());
        let message = match proxies.get() {
            1 => format!("{wanted} sessions are wanted"),
            _ => format!("{proxies} proxies with {each} sessions each want {wanted}"),
        };
        match token.max_sessions {
            Some(most) if most < wanted => {
                let advice = "lower sessions: each proxy of a fleet takes as many (fleet.size, or \
                    --proxies); or raise the limit of the HSM";
                findings.fail(CHECK, format!("{message}, the token allows {most}"), advice);
            }
            Some(most) => findings.ok(CHECK, format!("{message}, the token allows {most}")),
            None => findings.ok(CHECK, format!("{message}; the token names no limit")),
        }
    }

    fn mechanisms(&self, module: &Module, token: &TokenSummary, findings: &mut Findings<'_>) {
        const CHECK: Check = Check::TokenMechanisms;
        const ADVICE: &str = "xksd needs AES-GCM with keys of 256 bits: look for a policy or \
            firmware of the HSM that allows it";
        for needed in [Needed::AesGcm, Needed::AesKeyGen] {
            let name = needed.name();
            match module.mechanism(token, needed) {
                Ok(Mechanism::Usable) => findings.ok(CHECK, format!("{name} with 256 bits")),
                Ok(Mechanism::Absent) => {
                    findings.fail(CHECK, format!("the token has no {name}"), ADVICE);
                }
                Ok(Mechanism::WrongUse) => {
                    findings.fail(CHECK, format!("{name} is not for this use"), ADVICE);
                }
                // What counts is the round trip; modules have been seen to misstate sizes.
                Ok(Mechanism::WrongSize { min, max }) => {
                    findings.warn(CHECK, format!("{name} takes keys of {min} to {max}"), ADVICE);
                }
                Err(fault) => findings.warn(CHECK, format!("{name}: {fault}"), ADVICE),
            }
        }
    }

    /// One try is all that doctor takes, and none that could be the last.
    fn may_log_in(&self, token: &TokenSummary, findings: &mut Findings<'_>) -> bool {
        const CHECK: Check = Check::TokenLogin;
        const OTHERWISE: &str = "log in once by the vendor's own tool, which resets the count; or \
            run `xksd doctor --try-pin` if you are sure of the PIN";
        if !token.is_initialized {
            let advice = "initialise it by the vendor's own tool";
            findings.fail(CHECK, "the token is not initialised", advice);
            return false;
        }
        if let Some(other) = &self.refused {
            let message = format!("the PIN of `{other}`, the same token, was refused a moment ago");
            let message = format!("{message}: not tried, and the keys not looked at");
            findings.warn(CHECK, message, "mend that one first: each try may be the last");
            return false;
        }
        let (message, advice) = match token.pin {
            PinState::Ready => return true,
            PinState::CountLow | PinState::FinalTry if self.low_count == LowCount::Try => {
                return true;
            }
            PinState::Missing => {
                let advice = "the security officer has to set one, by the vendor's own tool";
                findings.fail(CHECK, "the token has no user PIN", advice);
                return false;
            }
            PinState::Locked => {
                let advice = "the security officer has to reset it, by the vendor's own tool";
                findings.fail(CHECK, "the user PIN is locked", advice);
                return false;
            }
            PinState::ToBeChanged => {
                let advice = "change it by the vendor's own tool; until then logins may be refused";
                findings.warn(CHECK, "the user PIN must be changed", advice);
                return true;
            }
            PinState::CountLow => ("a wrong user PIN was tried before", OTHERWISE),
            PinState::FinalTry => ("the next wrong user PIN locks the token", OTHERWISE),
        };
        findings.warn(CHECK, format!("{message}: not tried, and the keys not looked at"), advice);
        false
    }

    fn no_login(&self, fault: Fault, findings: &mut Findings<'_>) {
        // What comes after the login: a token that is to make IVs has to prove it.
        if !matches!(fault.function, "C_Initialize" | "C_OpenSession" | "C_Login")
            && self.token.profile.is_some_and(|profile| profile.iv_source.is_token())
        {
            let advice = "profile names an HSM that makes IVs itself, and this one does not, or \
                otherwise: leave profile out to have it recognised (docs/hsm.md)";
            return findings.fail(Check::TokenIv, fault.to_string(), advice);
        }
        let pin = format!("the PIN is the one that tokens.{}.pin names", self.name);
        let advice = match fault.kind {
            FaultKind::PinRefused => {
                format!("{pin}; it was tried once: HSMs lock after three to ten wrong ones")
            }
            FaultKind::Busy => "the token has no session left: another program may hold them all; \
                lower sessions there or here"
                .to_owned(),
            _ => "look at the vendor's client and log".to_owned(),
        };
        findings.fail(Check::TokenLogin, fault.to_string(), advice);
    }
}

fn is_write_protected(fault: &Fault) -> bool {
    let Cause::Returned(code) = fault.cause else { return false };
    matches!(code, codes::TOKEN_WRITE_PROTECTED | codes::SESSION_READ_ONLY)
}

/// The tokens of a module, in a line.
fn list(tokens: &[TokenSummary]) -> String {
    let one = |token: &TokenSummary| match token.is_initialized {
        true => format!("label `{}` serial `{}`", token.label, token.serial),
        false => "one that is not initialised".to_owned(),
    };
    tokens.iter().map(one).collect::<Vec<_>>().join(", ")
}
