//! P-51: what belongs to a ciphertext can't be changed, left out or added.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::super::answer::base64;
use super::super::exam::Exam;
use super::super::subject::{Facts, with, without};
use super::super::{Case, Letter, Need, Probe, Steps, Verdict};
use super::{INVALID_CIPHERTEXT, VALIDATION};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "altered-ciphertexts",
        rules: &[51],
        letter: Letter::Must,
        why: "one bit in any part makes a ciphertext invalid",
        needs: &[],
        steps: Steps::Probes(altered),
    },
    Case {
        name: "other-aads",
        rules: &[51, 42],
        letter: Letter::Must,
        why: "the AAD is authenticated: another one, none, or one too many does not fit",
        needs: &[],
        steps: Steps::Probes(other_aads),
    },
    Case {
        name: "other-metadata",
        rules: &[51],
        letter: Letter::Must,
        why: "ciphertextMetadata that are another's, unknown or left out do not fit",
        needs: &[],
        steps: Steps::Probes(other_metadata),
    },
    Case {
        name: "ciphertext-of-another-key",
        rules: &[51],
        letter: Letter::Must,
        why: "a ciphertext is decrypted by the key in the path, and by no other",
        needs: &[Need::SecondKey],
        steps: Steps::Scenario { requests: 1, run: |exam| Box::pin(another_key(exam)) },
    },
    Case {
        name: "lengths-of-no-form",
        rules: &[51],
        letter: Letter::Decided,
        why: "an IV is of 12 or 16 bytes, a tag of 16, metadata of 20 at most: others are invalid",
        needs: &[],
        steps: Steps::Probes(lengths),
    },
    Case {
        name: "tag-and-ciphertext",
        rules: &[51],
        letter: Letter::Decided,
        why: "the boundary between ciphertext and tag can't be moved",
        needs: &[],
        steps: Steps::Probes(boundary),
    },
    Case {
        name: "bodies-exchanged",
        rules: &[50, 40],
        letter: Letter::Must,
        why: "a body of Encrypt is none of Decrypt, nor the other way round",
        needs: &[],
        steps: Steps::Probes(exchanged),
    },
];

fn decrypts(facts: &Facts, name: impl Into<String>, body: &Value, expect: super::Expect) -> Probe {
    Probe::new(name, facts.request(&facts.rest("decrypt"), body), expect)
}

/// The bytes of a member of the good body.
fn bytes(facts: &Facts, member: &str) -> Vec<u8> {
    let text = facts.decrypt.get(member).and_then(Value::as_str).unwrap_or_default();
    STANDARD.decode(text).unwrap_or_default()
}

fn altered(facts: &Facts) -> Vec<Probe> {
    let mut probes = Vec::new();
    for member in ["ciphertext", "initializationVector", "authenticationTag"] {
        let good = bytes(facts, member);
        for at in [0, good.len() / 2, good.len().saturating_sub(1)] {
            let mut bad = good.clone();
            if let Some(byte) = bad.get_mut(at) {
                *byte ^= 1;
            }
            let body = with(&facts.decrypt, member, base64(&bad));
            let name = format!("a bit of byte {at} of {member}");
            probes.push(decrypts(facts, name, &body, INVALID_CIPHERTEXT));
        }
    }
    let shorter = bytes(facts, "ciphertext");
    let body = with(&facts.decrypt, "ciphertext", base64(shorter.get(1..).unwrap_or_default()));
    probes.push(decrypts(facts, "the first byte left out", &body, INVALID_CIPHERTEXT));
    probes
}

fn other_aads(facts: &Facts) -> Vec<Probe> {
    const MEMBER: &str = "additionalAuthenticatedData";
    let good = bytes(facts, MEMBER);
    let longer = [&good[..], b"x"].concat();
    let mut flipped = good.clone();
    if let Some(byte) = flipped.last_mut() {
        *byte ^= 1;
    }
    let shorter = &good[..good.len() - 1];
    let mut probes: Vec<Probe> = [
        ("a bit of the AAD", flipped.as_slice()),
        ("a byte more of AAD", &longer),
        ("a byte less of AAD", shorter),
        ("another AAD", b"project=blue,department=finance"),
        ("an empty AAD", b""),
    ]
    .map(|(name, aad)| {
        decrypts(facts, name, &with(&facts.decrypt, MEMBER, base64(aad)), INVALID_CIPHERTEXT)
    })
    .into();
    let none = without(&facts.decrypt, MEMBER);
    probes.push(decrypts(facts, "the AAD left out", &none, INVALID_CIPHERTEXT));
    probes
}

fn other_metadata(facts: &Facts) -> Vec<Probe> {
    const MEMBER: &str = "ciphertextMetadata";
    let good = bytes(facts, MEMBER);
    let mut others: Vec<(String, Vec<u8>)> = vec![
        ("metadata of nobody's format, 20 bytes".to_owned(), vec![0xee; 20]),
        ("metadata of nobody's format, one byte".to_owned(), vec![0xee]),
    ];
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        others.push((format!("a bit of byte {at} of the metadata"), bad));
    }
    let mut probes: Vec<Probe> = others
        .into_iter()
        .map(|(name, metadata)| {
            let body = with(&facts.decrypt, MEMBER, base64(&metadata));
            decrypts(facts, name, &body, INVALID_CIPHERTEXT)
        })
        .collect();
    if !good.is_empty() {
        let none = without(&facts.decrypt, MEMBER);
        probes.push(decrypts(facts, "the metadata left out", &none, INVALID_CIPHERTEXT));
    }
    probes
}

async fn another_key(exam: &mut Exam) -> Verdict {
    let Some(second) = exam.facts.subject.keys.second.clone() else { return Ok(()) };
    let body = exam.facts.decrypt.clone();
    let ask = exam.facts.request(&format!("keys/{second}/decrypt"), &body);
    exam.refused("the first key's ciphertext by the second key", &ask, INVALID_CIPHERTEXT).await
}

fn lengths(facts: &Facts) -> Vec<Probe> {
    let mut probes = Vec::new();
    for (member, lengths) in [
        ("initializationVector", &[1, 11, 13, 15, 17, 32][..]),
        ("authenticationTag", &[1, 12, 15, 17, 32]),
        ("ciphertextMetadata", &[21, 255, 256]),
    ] {
        for &length in lengths {
            let body = with(&facts.decrypt, member, base64(&vec![0; length]));
            let name = format!("{member} of {length} bytes");
            probes.push(decrypts(facts, name, &body, VALIDATION));
        }
    }
    let body = with(&facts.decrypt, "initializationVector", base64(&[0; 16]));
    probes.push(decrypts(facts, "another IV, of 16 bytes", &body, INVALID_CIPHERTEXT));
    probes
}

fn boundary(facts: &Facts) -> Vec<Probe> {
    let joined = [bytes(facts, "ciphertext"), bytes(facts, "authenticationTag")].concat();
    let at = joined.len() - 16;
    let split = |at: usize| {
        let (ciphertext, tag) = joined.split_at(at);
        with(
            &with(&facts.decrypt, "ciphertext", base64(ciphertext)),
            "authenticationTag",
            base64(tag),
        )
    };
    let mut probes: Vec<Probe> = [-4, -1, 1, 4]
        .map(|by| {
            let name = format!("the boundary moved by {by}");
            decrypts(facts, name, &split(at.saturating_add_signed(by)), VALIDATION)
        })
        .into();
    let body = with(&facts.decrypt, "ciphertext", base64(&joined));
    let name = "a ciphertext with the tag at its end, and the tag";
    probes.push(decrypts(facts, name, &body, INVALID_CIPHERTEXT));
    probes
}

fn exchanged(facts: &Facts) -> Vec<Probe> {
    vec![
        decrypts(facts, "a body of Encrypt for Decrypt", &facts.encrypt, VALIDATION),
        Probe::new(
            "a body of Decrypt for Encrypt",
            facts.request(&facts.rest("encrypt"), &facts.decrypt),
            VALIDATION,
        ),
    ]
}
