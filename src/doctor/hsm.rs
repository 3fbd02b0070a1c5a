//! One HSM token, from the file of its module to the keys that the key stores want of it.

use crate::config::Token;
use crate::hsm::backend::{Backend, IV_LEN, Session};
use crate::hsm::fault::{Fault, FaultKind};
use crate::hsm::pkcs11::inspect::{Mechanism, Module, Needed, PinState, TokenSummary};
use crate::hsm::pkcs11::{Pkcs11Backend, TokenSelector};
use crate::metrics::Metrics;
use crate::names::TokenName;
use crate::secret::Secret;

use super::{Findings, LowCount, keys};

/// Sessions that a daemon holds besides those that serve requests.
const OTHER_SESSIONS: usize = 1;

/// A token to look at.
pub(super) struct Patient {
    pub(super) name: TokenName,
    pub(super) token: Token,
    /// What the key stores on this token want of it.
    pub(super) wanted: Vec<keys::Wanted>,
    pub(super) low_count: LowCount,
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
                return findings.fail("token.module", error.to_string(), advice);
            }
        };
        match module.info() {
            Ok(info) => {
                let (about, version) = (&info.description, &info.version);
                let (by, cryptoki) = (&info.manufacturer, &info.cryptoki);
                let about = format!("{about} {version} by {by}, PKCS#11 {cryptoki}");
                findings.ok("token.module", format!("`{}` loads: {about}", path.display()));
            }
            Err(fault) => {
                let advice = "its initialisation may have gone wrong: look at the vendor's log";
                findings.warn("token.module", format!("it loads, but {fault}"), advice);
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
        match backend.connect() {
            Ok(mut session) => {
                findings.ok("token.login", "the PIN is accepted");
                random(&mut *session, findings);
                round_trip(&mut *session, findings);
                keys::examine(&self.name, &self.wanted, &mut *session, findings);
            }
            Err(fault) => self.no_login(fault, findings),
        }
    }

    fn find(&self, module: &Module, findings: &mut Findings<'_>) -> Option<TokenSummary> {
        const CHECK: &str = "token.found";
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
        const CHECK: &str = "token.sessions";
        let wanted = self.token.settings.sessions + OTHER_SESSIONS;
        match token.max_sessions {
            Some(most) if most < wanted as u64 => {
                let message = format!("{wanted} sessions are wanted, the token allows {most}");
                findings.fail(
                    CHECK,
                    message,
                    "lower sessions; each proxy of a fleet takes as many",
                );
            }
            Some(most) => {
                let message = format!("{wanted} sessions are wanted, the token allows {most}");
                findings.ok(CHECK, message);
            }
            None => findings.ok(CHECK, format!("{wanted} sessions; the token names no limit")),
        }
    }

    fn mechanisms(&self, module: &Module, token: &TokenSummary, findings: &mut Findings<'_>) {
        const CHECK: &str = "token.mechanisms";
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
        const CHECK: &str = "token.login";
        const OTHERWISE: &str = "log in once by the vendor's own tool, which resets the count; or \
            run `xksd doctor --try-pin` if you are sure of the PIN";
        if !token.is_initialized {
            let advice = "initialise it by the vendor's own tool";
            findings.fail(CHECK, "the token is not initialised", advice);
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
        findings.fail("token.login", fault.to_string(), advice);
    }
}

fn random(session: &mut dyn Session, findings: &mut Findings<'_>) {
    const CHECK: &str = "token.random";
    const ADVICE: &str = "IVs come from it, and one that repeats breaks AES-GCM: do not use this \
        token";
    let mut bytes = [[0_u8; 32]; 2];
    for buffer in &mut bytes {
        if let Err(fault) = session.random(buffer) {
            return findings.fail(CHECK, fault.to_string(), ADVICE);
        }
    }
    if bytes[0] == bytes[1] || bytes.contains(&[0; 32]) {
        findings.fail(CHECK, "C_GenerateRandom repeats itself", ADVICE);
    } else {
        findings.ok(CHECK, "C_GenerateRandom gives fresh bytes");
    }
}

/// Encrypts and decrypts under a key that vanishes with the session, as every request will.
fn round_trip(session: &mut dyn Session, findings: &mut Findings<'_>) {
    const CHECK: &str = "token.aes_gcm";
    const PLAINTEXT: &[u8] = b"a plaintext of doctor's";
    const AAD: &[u8] = b"and its AAD";
    let mut iv = [0; IV_LEN];
    let sealed = session.random(&mut iv).and_then(|()| session.make_probe_key()).and_then(|key| {
        let sealed = session.encrypt(key, &iv, AAD, PLAINTEXT)?;
        let opened =
            session.decrypt(key, sealed.iv.as_bytes(), AAD, &sealed.ciphertext, &sealed.tag)?;
        Ok((key, sealed, opened))
    });
    let (key, mut sealed, opened) = match sealed {
        Ok(parts) => parts,
        Err(fault) => {
            let advice = "the user must be allowed to make session keys and to use AES-GCM with \
                an IV of the caller's: look at the HSM's policy, or name the profile of an HSM that \
                makes IVs itself (docs/hsm.md)";
            return findings.fail(CHECK, fault.to_string(), advice);
        }
    };
    if opened.expose() != PLAINTEXT || sealed.ciphertext == PLAINTEXT {
        let advice = "do not use this token";
        return findings.fail(CHECK, "what was encrypted does not decrypt to itself", advice);
    }
    sealed.tag[0] ^= 1;
    match session.decrypt(key, sealed.iv.as_bytes(), AAD, &sealed.ciphertext, &sealed.tag) {
        Ok(_) => {
            let advice = "the token does not authenticate: do not use it";
            findings.fail(CHECK, "a wrong tag is accepted", advice);
        }
        // Some modules say a wrong tag by a code that may mean trouble too.
        Err(fault) if matches!(fault.kind, FaultKind::BadCiphertext | FaultKind::Ambiguous) => {
            let message = format!("a key of its own encrypts and decrypts; a wrong tag: {fault}");
            findings.ok(CHECK, message);
        }
        Err(fault) => {
            let advice = "callers with bad ciphertexts will cost sessions: please report this \
                module and its code";
            findings.warn(CHECK, format!("a wrong tag is refused by {fault}"), advice);
        }
    }
}

/// The tokens of a module, in a line.
fn list(tokens: &[TokenSummary]) -> String {
    let one = |token: &TokenSummary| match token.is_initialized {
        true => format!("label `{}` serial `{}`", token.label, token.serial),
        false => "one that is not initialised".to_owned(),
    };
    tokens.iter().map(one).collect::<Vec<_>>().join(", ")
}
