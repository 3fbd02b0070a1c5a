//! The canary: a ciphertext of the token's own, known to be good.
//!
//! A return code that may mean "bad ciphertext" or "HSM in trouble" is settled by decrypting it.
//! KMS is told that its data is bad only where the canary proves that the token is not.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::backend::{ObjectHandle, Sealed, Session};
use super::fault::{Fault, FaultKind};
use super::iv::{IvPool, Moment};

/// For how long one canary's result settles what the next failures mean: garbage that is sent to
/// us can't double the HSM's load.
pub(super) const SHARED_FOR: Duration = Duration::from_millis(100);

/// How often a ciphertext gets a second look: often enough for accidents, while garbage by the
/// thousand is not decrypted twice.
const LOOK_SPACING: Duration = Duration::from_millis(10);

/// What the canary and the probes encrypt.
const PLAINTEXT: &[u8] = b"xksd:canary";
const AAD: &[u8] = b"xksd:probe";

/// How often making a probe key is tried: C_GenerateKey of SoftHSM fails for no reason in about 3% of
/// calls under load, and without that key no ambiguous failure can be settled.
const PROBE_KEY_ATTEMPTS: usize = 5;

/// Makes a probe key, again where the token is in doubt about it.
pub(super) fn probe_key(session: &mut dyn Session) -> Result<ObjectHandle, Fault> {
    let mut attempt = 1;
    loop {
        match session.make_probe_key() {
            Err(fault) if fault.kind == FaultKind::Ambiguous && attempt < PROBE_KEY_ATTEMPTS => {
                attempt += 1;
            }
            made => return made,
        }
    }
}

/// A ciphertext made with a probe key.
#[derive(Debug)]
pub(super) struct Canary {
    key: ObjectHandle,
    sealed: Sealed,
}

impl Canary {
    /// Encrypts it and decrypts it again: a deep probe of the token (P-61).
    pub(super) fn make(
        session: &mut dyn Session,
        key: ObjectHandle,
        ivs: &mut IvPool,
    ) -> Result<Self, Fault> {
        let iv = ivs.take(session, Moment::now())?;
        let sealed = session.encrypt(key, &iv, AAD, PLAINTEXT)?;
        let canary = Self { key, sealed };
        if canary.sings(session)? {
            return Ok(canary);
        }
        Err(Fault::nonsense("C_Decrypt", "the probe was decrypted to something else"))
    }

    /// Whether the token decrypts it to what it was made from.
    fn sings(&self, session: &mut dyn Session) -> Result<bool, Fault> {
        let Sealed { iv, ciphertext, tag } = &self.sealed;
        let plaintext = session.decrypt(self.key, iv.as_bytes(), AAD, ciphertext, tag)?;
        Ok(plaintext.expose() == PLAINTEXT)
    }
}

/// What the canary says of a decryption that failed just before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The token decrypts: the ciphertext was bad.
    Sound,
    /// The token, or only this session, is in trouble.
    Trouble(FaultKind),
    /// Nothing: there is no canary, or its key is gone.
    Unproved,
}

/// The canary of a token, shared by its workers.
#[derive(Debug, Default)]
pub(super) struct Canaries(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    canary: Option<Arc<Canary>>,
    /// When the token was last judged, and whether it was sound.
    last: Option<(Instant, bool)>,
    /// When a ciphertext last got a second look.
    looked: Option<Instant>,
}

impl Canaries {
    /// Puts a fresh canary in place of the last one; `None` while there is no connection.
    pub(super) fn replace(&self, canary: Option<Canary>) {
        let mut state = self.state();
        (state.canary, state.last) = (canary.map(Arc::new), None);
    }

    /// Whether a ciphertext that a sound token refused may be decrypted once more. Such a token fails
    /// by accident, too, and that a ciphertext is bad is final for KMS.
    pub(super) fn allow_second_look(&self) -> bool {
        let mut state = self.state();
        let is_due = state.looked.is_none_or(|at| at.elapsed() >= LOOK_SPACING);
        if is_due {
            state.looked = Some(Instant::now());
        }
        is_due
    }

    /// Decrypts the canary on this session, unless that was done a moment ago.
    pub(super) fn judge(&self, session: &mut dyn Session) -> Verdict {
        let canary = {
            let state = self.state();
            match (state.last, &state.canary) {
                (Some((at, sound)), _) if at.elapsed() < SHARED_FOR => return verdict(sound),
                (_, None) => return Verdict::Unproved,
                (_, Some(canary)) => canary.clone(),
            }
        };
        // No lock is held around the C calls.
        let sound = match canary.sings(session) {
            Ok(sound) => sound,
            Err(fault) => match fault.kind {
                FaultKind::TokenLost
                | FaultKind::Ambiguous
                | FaultKind::BadCiphertext
                | FaultKind::Bug => false,
                // These say nothing of the token: not shared.
                FaultKind::SessionLost | FaultKind::LoginLost | FaultKind::LibraryLost => {
                    return Verdict::Trouble(fault.kind);
                }
                // The probe key goes with the session that made it.
                FaultKind::HandleStale
                | FaultKind::KeyUsage
                | FaultKind::Busy
                | FaultKind::PinRefused => return Verdict::Unproved,
            },
        };
        let mut state = self.state();
        // A connection made meanwhile is not to be judged by the one before.
        if state.canary.as_ref().is_some_and(|now| Arc::ptr_eq(now, &canary)) {
            state.last = Some((Instant::now(), sound));
        }
        verdict(sound)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while holding this lock")
    }
}

fn verdict(sound: bool) -> Verdict {
    if sound { Verdict::Sound } else { Verdict::Trouble(FaultKind::TokenLost) }
}
