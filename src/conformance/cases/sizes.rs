//! P-23, P-40: how much is accepted, and how little has to be.

use super::super::answer::base64;
use super::super::subject::{Facts, encryption, with, with_aad};
use super::super::{Case, Expect, Letter, Probe, Steps};
use super::{INVALID_CIPHERTEXT, TOO_MUCH, VALIDATION};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "required-sizes",
        rules: &[40],
        letter: Letter::Must,
        why: "plaintexts of 4,300 bytes and AADs of 8,192 bytes have to work",
        needs: &[],
        steps: Steps::Probes(required),
    },
    Case {
        name: "largest-sizes",
        rules: &[23],
        letter: Letter::Decided,
        why: "plaintexts of 8,192 bytes, AADs of 16,384 and bodies of 128 KiB are accepted",
        needs: &[],
        steps: Steps::Probes(largest),
    },
    Case {
        name: "larger-than-supported",
        rules: &[23],
        letter: Letter::Decided,
        why: "a larger parameter is UnsupportedOperationException",
        needs: &[],
        steps: Steps::Probes(larger),
    },
    Case {
        name: "body-too-large",
        rules: &[23, 71],
        letter: Letter::Decided,
        why: "a body over 128 KiB is refused before anybody is authenticated",
        needs: &[],
        steps: Steps::Probes(body_too_large),
    },
];

/// Largest body, in bytes (P-23).
const MAX_BODY: usize = 128 * 1024;

fn encrypts(facts: &Facts, plaintext: usize, aad: usize, expect: Expect) -> Probe {
    let body = with_aad(encryption(&vec![7; plaintext]), &vec![9; aad]);
    let name = format!("a plaintext of {plaintext} bytes and an AAD of {aad}");
    Probe::new(name, facts.request(&facts.rest("encrypt"), &body), expect)
}

fn required(facts: &Facts) -> Vec<Probe> {
    [(1, 0), (1, 1), (4300, 0), (1, 8192), (4300, 8192)]
        .map(|(plaintext, aad)| encrypts(facts, plaintext, aad, Expect::Served))
        .into()
}

fn largest(facts: &Facts) -> Vec<Probe> {
    let mut padded = facts.encryption();
    padded.body.resize(MAX_BODY, b' ');
    vec![
        encrypts(facts, 8192, 16384, Expect::Served),
        Probe::new("a body of 128 KiB", padded, Expect::Served),
        decrypts(facts, "ciphertext", 8192, INVALID_CIPHERTEXT),
        decrypts(facts, "additionalAuthenticatedData", 16384, INVALID_CIPHERTEXT),
    ]
}

fn decrypts(facts: &Facts, member: &str, bytes: usize, expect: Expect) -> Probe {
    let body = with(&facts.decrypt, member, base64(&vec![0; bytes]));
    let ask = facts.request(&facts.rest("decrypt"), &body);
    Probe::new(format!("decrypt: {member} of {bytes} bytes"), ask, expect)
}

fn larger(facts: &Facts) -> Vec<Probe> {
    vec![
        encrypts(facts, 8193, 0, TOO_MUCH),
        encrypts(facts, 65536, 0, TOO_MUCH),
        encrypts(facts, 1, 16385, TOO_MUCH),
        encrypts(facts, 1, 65536, TOO_MUCH),
        decrypts(facts, "ciphertext", 8193, TOO_MUCH),
        decrypts(facts, "additionalAuthenticatedData", 16385, TOO_MUCH),
    ]
}

fn body_too_large(facts: &Facts) -> Vec<Probe> {
    [("signed", true), ("not signed", false)]
        .map(|(name, signed)| {
            let mut ask = facts.encryption();
            ask.body.resize(MAX_BODY + 1, b' ');
            if !signed {
                ask.signing.credential = None;
            }
            Probe::new(format!("a body of 128 KiB and a byte, {name}"), ask, VALIDATION)
        })
        .into()
}
