//! Every ciphertext that was answered, to be decrypted at the end: none may be lost.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::Value;

use super::Outcome;
use super::line::Line;
use crate::caller::Caller;
use crate::daemon::PATIENCE;
use crate::request::{base64, decrypt_body, unbase64};

/// How many decrypt at once at the end: few, so that none is refused for too much load.
const DECRYPTERS: usize = 4;

/// An answer of Encrypt; number and key say what was asked.
#[derive(Debug)]
pub struct Sealed {
    pub(super) number: u64,
    pub(super) key: String,
    pub(super) answer: Value,
}

/// The ciphertexts of one load or several.
#[derive(Debug, Default)]
pub struct Vault(Mutex<Vec<Arc<Sealed>>>);

/// What became of the ciphertexts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// How many there were.
    pub ciphertexts: usize,
    /// What was said of those that did not decrypt to what was encrypted.
    pub lost: Vec<String>,
}

impl Vault {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    pub(super) fn keep(&self, key: &str, number: u64, answer: Value) {
        self.all().push(Arc::new(Sealed { number, key: key.to_owned(), answer }));
    }

    /// One of them, in no order that matters.
    pub(super) fn any(&self, number: u64) -> Option<Arc<Sealed>> {
        let all = self.all();
        let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        (!all.is_empty()).then(|| all[(scattered % all.len() as u64) as usize].clone())
    }

    /// Decrypts every one of them through a daemon that is in good order.
    ///
    /// # Panics
    /// Where one is refused in a way that a second try may mend, for longer than [`PATIENCE`].
    pub fn prove(&self, kms: &Caller) -> Proof {
        let all = self.all().clone();
        let shares = all.chunks(all.len().div_ceil(DECRYPTERS).max(1));
        let lost = std::thread::scope(|scope| {
            let prove = |share| scope.spawn(move || lost(share, kms));
            let threads: Vec<_> = shares.map(prove).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("it decrypts")).collect()
        });
        Proof { ciphertexts: all.len(), lost }
    }

    fn all(&self) -> MutexGuard<'_, Vec<Arc<Sealed>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lost(share: &[Arc<Sealed>], kms: &Caller) -> Vec<String> {
    let mut line = Line::new(kms.clone());
    let mut lost = Vec::new();
    for sealed in share {
        let body = decrypt_body(&sealed.answer, aad(sealed.number).as_deref());
        let start = Instant::now();
        loop {
            let outcome = line.ask(&format!("keys/{}/decrypt", sealed.key), &body, |json| {
                let same = unbase64(&json["plaintext"]) == plaintext(sealed.number);
                if same { Ok(()) } else { Err("another plaintext".to_owned()) }
            });
            match &outcome {
                Outcome::Served => break,
                Outcome::Wrong(what) => lost.push(what.clone()),
                // Final for KMS, and so for us.
                Outcome::Refused(name) if is_final(name) => lost.push(name.clone()),
                Outcome::Refused(_) | Outcome::Unanswered(_) => {
                    assert!(start.elapsed() < PATIENCE, "no daemon in good order: {outcome:?}");
                    continue;
                }
            }
            break;
        }
    }
    lost
}

/// Whether asking again is of no use (P-70).
fn is_final(error_name: &str) -> bool {
    let passing = ["InternalException", "DependencyTimeoutException", "ThrottlingException"];
    !passing.contains(&error_name)
}

/// What the request of this number encrypts.
pub fn plaintext(number: u64) -> Vec<u8> {
    let length = 1 + number as usize % 200;
    number.to_be_bytes().into_iter().cycle().take(length).collect()
}

/// What it authenticates beside; nothing, in each fourth.
pub fn aad(number: u64) -> Option<Vec<u8>> {
    (!number.is_multiple_of(4)).then(|| format!("number={number}").into_bytes())
}

/// The CDIV of an answer of Encrypt (P-43).
pub(super) fn cdiv(answer: &Value, aad: Option<&[u8]>) -> String {
    let mut hash = Context::new(&SHA256);
    hash.update(aad.unwrap_or_default());
    for member in ["ciphertextMetadata", "initializationVector", "ciphertext", "authenticationTag"]
    {
        hash.update(&unbase64(&answer[member]));
    }
    base64(hash.finish().as_ref())
}
