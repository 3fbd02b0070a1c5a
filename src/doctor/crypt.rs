//! What a token does with AES-GCM: whose IV it uses, whether it authenticates, and how long it takes.

use std::time::{Duration, Instant};

use super::{Check, Findings};
use crate::hsm::backend::{IV_LEN, ObjectHandle, Sealed, Session};
use crate::hsm::fault::{Fault, FaultKind};
use crate::hsm::profile::IvSource;

const PLAINTEXT: &[u8] = b"a plaintext of doctor's";
const AAD: &[u8] = b"and its AAD";

/// How often the time is taken; the shortest counts.
const ROUNDS: usize = 5;

/// How often making a key is tried: SoftHSM2 fails at it for no reason now and then.
const KEY_ATTEMPTS: usize = 5;

/// How long the token may take.
pub(super) struct Budget {
    /// Whether an encryption is decrypted again before it is answered.
    pub(super) verifies: bool,
    /// For a request.
    pub(super) deadline: Duration,
    /// For an attempt, where another token can be tried after this one.
    pub(super) attempt: Option<Duration>,
}

pub(super) fn random(session: &mut dyn Session, findings: &mut Findings<'_>) {
    const CHECK: Check = Check::TokenRandom;
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
pub(super) fn round_trip(
    session: &mut dyn Session,
    iv_source: IvSource,
    budget: &Budget,
    findings: &mut Findings<'_>,
) {
    const CHECK: Check = Check::TokenAesGcm;
    let mut iv = [0; IV_LEN];
    let made = session.random(&mut iv).and_then(|()| probe_key(session)).and_then(|key| {
        let sealed = session.encrypt(key, &iv, AAD, PLAINTEXT)?;
        let opened = open(session, key, &sealed)?;
        Ok((key, sealed, opened))
    });
    let (key, sealed, is_same) = match made {
        Ok(parts) => parts,
        Err(fault) => {
            let advice = "the user must be allowed to make session keys and to use AES-GCM with \
                an IV of the caller's: look at the HSM's policy, or name the profile of an HSM that \
                makes IVs itself (docs/hsm.md)";
            return findings.fail(CHECK, fault.to_string(), advice);
        }
    };
    if !is_same || sealed.ciphertext == PLAINTEXT {
        let advice = "do not use this token";
        return findings.fail(CHECK, "what was encrypted does not decrypt to itself", advice);
    }
    wrong_tag(session, key, sealed.clone(), findings);
    whose_iv(session, (key, &iv), &sealed, iv_source, findings);
    time(session, (key, &iv), budget, findings);
}

fn probe_key(session: &mut dyn Session) -> Result<ObjectHandle, Fault> {
    let mut made = session.make_probe_key();
    for _ in 1..KEY_ATTEMPTS {
        match made {
            Err(fault) if fault.kind == FaultKind::Ambiguous => made = session.make_probe_key(),
            _ => break,
        }
    }
    made
}

fn open(session: &mut dyn Session, key: ObjectHandle, sealed: &Sealed) -> Result<bool, Fault> {
    let Sealed { iv, ciphertext, tag } = sealed;
    let opened = session.decrypt(key, iv.as_bytes(), AAD, ciphertext, tag)?;
    Ok(opened.expose() == PLAINTEXT)
}

fn wrong_tag(
    session: &mut dyn Session,
    key: ObjectHandle,
    mut sealed: Sealed,
    findings: &mut Findings<'_>,
) {
    const CHECK: Check = Check::TokenAesGcm;
    sealed.tag[0] ^= 1;
    match open(session, key, &sealed) {
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

/// The same text once more under the same IV, where that is the caller's: a token that uses it gives the
/// same ciphertext. (It is the same text, under a key that nobody else has.)
fn whose_iv(
    session: &mut dyn Session,
    (key, iv): (ObjectHandle, &[u8; IV_LEN]),
    first: &Sealed,
    iv_source: IvSource,
    findings: &mut Findings<'_>,
) {
    const CHECK: Check = Check::TokenIv;
    const ADVICE: &str = "look which profile is the HSM's (docs/hsm.md): a wrong one can make two \
        messages share an IV, which breaks AES-GCM";
    let second = match session.encrypt(key, iv, AAD, PLAINTEXT) {
        Ok(second) => second,
        Err(fault) => return findings.fail(CHECK, fault.to_string(), ADVICE),
    };
    let is_same = first.iv == second.iv || first.ciphertext == second.ciphertext;
    match (iv_source.is_token(), is_same) {
        (false, true) => findings.ok(CHECK, "it encrypts under the IV that it is given"),
        (true, false) => findings.ok(CHECK, "it makes IVs itself, and another each time"),
        (false, false) => {
            let message = "it encrypts under another IV than the one that it is given";
            findings.fail(CHECK, message, ADVICE);
        }
        (true, true) => findings.fail(CHECK, "it makes the same IV twice", ADVICE),
    }
}

fn time(
    session: &mut dyn Session,
    (key, iv): (ObjectHandle, &[u8; IV_LEN]),
    budget: &Budget,
    findings: &mut Findings<'_>,
) {
    const CHECK: Check = Check::TokenTime;
    let (mut encrypt, mut decrypt) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let sealed = session.encrypt(key, iv, AAD, PLAINTEXT);
        encrypt = encrypt.min(start.elapsed());
        let start = Instant::now();
        let opened = sealed.and_then(|sealed| open(session, key, &sealed));
        decrypt = decrypt.min(start.elapsed());
        if let Err(fault) = opened {
            let advice = "it worked a moment ago: look at the vendor's client and log";
            return findings.fail(CHECK, fault.to_string(), advice);
        }
    }
    let Budget { verifies, deadline, attempt } = *budget;
    let whole = if verifies { encrypt + decrypt } else { encrypt.max(decrypt) };
    let message = format!(
        "encryption {encrypt:.1?}, decryption {decrypt:.1?}: a request takes {whole:.1?} of {deadline:?}"
    );
    let advice = "the fastest of several: look at the network to the HSM and at its load; a proxy should be \
        near its HSM. verify_writes = \"when_asked\" saves the second operation";
    if whole > deadline {
        findings.fail(CHECK, message, advice);
    } else if whole > deadline / 2 || attempt.is_some_and(|attempt| encrypt.max(decrypt) > attempt)
    {
        let attempt = attempt.map(|attempt| format!(", an attempt {attempt:?} at most"));
        findings.warn(CHECK, message + attempt.as_deref().unwrap_or_default(), advice);
    } else {
        findings.ok(CHECK, message);
    }
}
