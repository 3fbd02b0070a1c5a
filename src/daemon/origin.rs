//! What a token was started from, and what has to happen for it to be as another configuration says.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{self, Isolation};
use crate::hsm::pkcs11::TokenSelector;
use crate::hsm::token::{self, TokenState};
use crate::secret::{Fingerprint, Fingerprints};

/// All that makes a token what it is; of its PIN only whether it is the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    module: PathBuf,
    selector: TokenSelector,
    pub(super) pin: Fingerprint,
    pin_place: String,
    profile: Option<&'static str>,
    initialization: Option<CString>,
    isolation: Isolation,
    call_limit: Duration,
    environment: BTreeMap<String, String>,
    settings: token::Settings,
}

/// How a token comes to be as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// It is.
    None,
    /// Another one takes its place.
    Replace,
    /// These of its keys take a restart of xksd; until then it stays as it is.
    Restart(Vec<&'static str>),
}

impl Origin {
    pub(super) fn of(token: &config::Token, fingerprints: &Fingerprints) -> Self {
        let config::Token {
            module,
            selector,
            pin,
            pin_source,
            profile,
            initialization,
            isolation,
            call_limit,
            environment,
            settings,
        } = token;
        Self {
            module: module.clone(),
            selector: selector.clone(),
            pin: fingerprints.of(&[pin.expose().as_bytes()]),
            // In all of its words: a command's arguments are told nobody, and count here.
            pin_place: format!("{pin_source:?}"),
            profile: profile.map(|profile| profile.name),
            initialization: initialization.clone(),
            isolation: *isolation,
            call_limit: *call_limit,
            environment: environment.clone(),
            settings: settings.clone(),
        }
    }

    /// What has to happen to a token that was started from this and is in this state.
    pub(super) fn change(&self, wanted: &Self, state: TokenState) -> Change {
        if self == wanted {
            return Change::None;
        }
        let mut restart = wanted.impossible_inside();
        if self.isolation == Isolation::Thread && wanted.isolation == Isolation::Thread {
            let is_same_token = self.module == wanted.module && self.selector == wanted.selector;
            // A login is the whole process's (PKCS#11 2.40, 6.7.4): as long as the token is logged in,
            // another PIN can't be tried, and a wrong one would show with the next connection only.
            if is_same_token && self.pin != wanted.pin && state != TokenState::PinRefused {
                restart.push("pin");
            }
            // C_Initialize is called once.
            if self.module == wanted.module && self.initialization != wanted.initialization {
                restart.push("initialization");
            }
        }
        if restart.is_empty() { Change::Replace } else { Change::Restart(restart) }
    }

    /// Its keys that a module inside this process can only have from the start on.
    pub(super) fn impossible_inside(&self) -> Vec<&'static str> {
        let differs = |(name, value): (&String, &String)| {
            std::env::var_os(name).is_none_or(|ours| ours != value.as_str())
        };
        // The environment of a running process can't be changed safely.
        let is_lacking =
            self.isolation == Isolation::Thread && self.environment.iter().any(differs);
        if is_lacking { vec!["environment"] } else { Vec::new() }
    }
}
