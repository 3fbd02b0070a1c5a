//! IVs that a token makes: none is believed unseen.
//!
//! A token that is asked for an IV and does not know how takes the question for the IV: zeros, or
//! nothing, each time. Two messages under one IV give the key's authentication away, so such a token
//! is never used again by this process, whatever it answers later.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::session::Pkcs11Session;
use crate::hsm::backend::{ObjectHandle, Sealed, Session};
use crate::hsm::canary::probe_key;
use crate::hsm::fault::{Fault, FaultKind};
use crate::wire::gcm::Iv;

/// How many of a token's last IVs are remembered.
const REMEMBERED: usize = 256;

const TEXT: &[u8] = b"xksd:admission";

/// What is said of a token that must not be used again.
pub(in crate::hsm) fn distrusted() -> Fault {
    let why = "the token gave the IV that it was passed, or one twice: correct its profile and \
               restart";
    Fault::refused(FaultKind::TokenLost, "C_Encrypt", why)
}

/// What a token's sessions know together of the IVs that it has made.
#[derive(Debug, Default)]
pub(super) struct TokenIvs {
    last: Mutex<VecDeque<Iv>>,
    distrusted: AtomicBool,
}

impl TokenIvs {
    /// Takes an IV for one that the token made, or never believes the token again.
    pub(super) fn believe(&self, iv: &Iv) -> Result<(), Fault> {
        self.check()?;
        let is_question = iv.as_bytes().iter().all(|byte| *byte == 0);
        let mut last = self.last();
        if is_question || last.contains(iv) {
            self.distrusted.store(true, Ordering::Release);
            drop(last);
            tracing::error!(
                "the token does not make its IVs itself: its profile is not the right one"
            );
            return self.check();
        }
        last.truncate(REMEMBERED - 1);
        last.push_front(iv.clone());
        Ok(())
    }

    /// Whether the token may be used.
    pub(super) fn check(&self) -> Result<(), Fault> {
        if !self.distrusted.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(distrusted())
    }

    fn last(&self) -> MutexGuard<'_, VecDeque<Iv>> {
        self.last.lock().expect("nothing panics while holding this lock")
    }
}

/// Has a token that makes its IVs prove it: two encryptions of one text under a probe key, with two
/// IVs, which decrypt.
///
/// # Errors
/// The token's, or that it gave no proof. It must not be used then.
pub(super) fn admit(session: &mut Pkcs11Session) -> Result<(), Fault> {
    let key = probe_key(session)?;
    let first = sealed(session, key)?;
    let second = sealed(session, key)?;
    if first.iv == second.iv || first.ciphertext == second.ciphertext {
        return Err(Fault::nonsense("C_Encrypt", "two encryptions under one IV"));
    }
    Ok(())
}

/// A ciphertext that is decrypted by the IV that came with it: that was the one used.
fn sealed(session: &mut Pkcs11Session, key: ObjectHandle) -> Result<Sealed, Fault> {
    let none_of_ours = [0; crate::hsm::backend::IV_LEN];
    let sealed = session.encrypt(key, &none_of_ours, b"", TEXT)?;
    let Sealed { iv, ciphertext, tag } = &sealed;
    let opened = session.decrypt(key, iv.as_bytes(), b"", ciphertext, tag)?;
    if opened.expose() != TEXT {
        return Err(Fault::nonsense("C_Decrypt", "the probe was decrypted to something else"));
    }
    Ok(sealed)
}
