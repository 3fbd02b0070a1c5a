//! The cases, one file for each part of the protocol.

mod bodies;
mod decryption;
mod encryption;
mod errors;
mod health;
mod keys;
mod paths;
mod signatures;
mod sizes;
mod tenants;
mod transport;

use super::subject::Facts;
use super::{Ask, Case, Expect, Probe};

/// Errors come last: they judge what was answered to all others.
pub(super) const ALL: [&[Case]; 11] = [
    transport::CASES,
    paths::CASES,
    signatures::CASES,
    tenants::CASES,
    bodies::CASES,
    sizes::CASES,
    encryption::CASES,
    decryption::CASES,
    keys::CASES,
    health::CASES,
    errors::CASES,
];

const VALIDATION: Expect = Expect::Refused(&[(400, "ValidationException")]);
const INVALID_STATE: Expect = Expect::Refused(&[(400, "InvalidStateException")]);
const INVALID_CIPHERTEXT: Expect = Expect::Refused(&[(400, "InvalidCiphertextException")]);
const INVALID_KEY_USAGE: Expect = Expect::Refused(&[(400, "InvalidKeyUsageException")]);
const STRANGER: Expect = Expect::Refused(&[(401, "AuthenticationFailedException")]);
const KEY_NOT_FOUND: Expect = Expect::Refused(&[(404, "KeyNotFoundException")]);
const NOWHERE: Expect = Expect::Refused(&[(404, "InvalidUriPathException")]);
const TOO_MUCH: Expect = Expect::Refused(&[(501, "UnsupportedOperationException")]);

impl Probe {
    fn new(name: impl Into<String>, ask: Ask, expect: Expect) -> Self {
        Self { name: name.into(), ask, expect }
    }

    /// A good request of GetHealthStatus, spoiled before it is signed.
    fn spoiled(
        facts: &Facts,
        name: impl Into<String>,
        expect: Expect,
        spoil: impl FnOnce(&mut Ask),
    ) -> Self {
        let mut ask = facts.health();
        spoil(&mut ask);
        Self::new(name, ask, expect)
    }

    /// A good request of GetHealthStatus, its headers spoiled after it was signed.
    fn tampered(
        facts: &Facts,
        name: impl Into<String>,
        expect: Expect,
        tamper: impl Fn(&mut Vec<(String, String)>) + Send + Sync + 'static,
    ) -> Self {
        let mut ask = facts.health();
        ask.tamper = Some(std::sync::Arc::new(tamper));
        Self::new(name, ask, expect)
    }
}
