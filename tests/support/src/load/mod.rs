//! Steady load on a daemon, as KMS gives it, and a memory of all that was answered.
//!
//! [`Load`] sends requests at a fixed rate, whatever becomes of the answers, over connections that
//! are kept alive, and measures each from the moment it was due: who waits for a free connection
//! because an earlier answer was late has waited for the daemon. What came back is checked, and
//! every ciphertext is kept in a [`Vault`], to be decrypted when all is over.

mod line;
mod report;
mod vault;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::caller::Caller;
use crate::daemon::poll;
use crate::request::{bare_body, decrypt_body, encrypt_body, unbase64};
use crate::site::Credential;
use line::Line;
pub use report::{Outcome, Record, Report};
pub use vault::{Proof, Sealed, Vault, aad, plaintext};

/// Longest sleep of a connection whose next request is not yet due.
const LONGEST_SLEEP: Duration = Duration::from_millis(20);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Encrypt.
    Encrypt,
    /// Encrypt, with a CDIV asked for (P-43).
    EncryptCdiv,
    /// Decrypt, of something that was encrypted under this load; until there is such, Encrypt.
    Decrypt,
    /// GetKeyMetadata.
    Metadata,
}

/// What KMS might send: every request number takes its turn in it.
pub const MIX: &[Operation] = {
    use Operation::{Decrypt, Encrypt, EncryptCdiv, Metadata};
    &[Encrypt, Decrypt, EncryptCdiv, Decrypt, Encrypt, Decrypt, Metadata, Decrypt, Encrypt, Decrypt]
};

/// How much load, on what.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where, and by whose signature.
    pub kms: Caller,
    /// External key ids; requests take turns with them.
    pub keys: Vec<String>,
    /// Operations; requests take turns with them.
    pub mix: &'static [Operation],
    /// Requests per second.
    pub rate: f64,
    /// Connections, each with one request at a time. Too few for the rate and the time that answers
    /// take, and requests wait for a free one, which counts as their latency.
    pub connections: usize,
}

impl Load {
    /// The usual mix on `demo-key`.
    pub fn new(kms: &Caller, rate: f64) -> Self {
        let keys = vec!["demo-key".to_owned()];
        Self { kms: kms.clone(), keys, mix: MIX, rate, connections: 16 }
    }

    /// Begins, and goes on until [`Running::finish`].
    pub fn start(self, vault: &Arc<Vault>) -> Running {
        let connections = self.connections;
        let who = Mutex::new(Arc::new(self.kms.clone()));
        let shared = Arc::new(Shared {
            load: self,
            vault: vault.clone(),
            who,
            start: Instant::now(),
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            through: AtomicUsize::new(0),
            served: AtomicUsize::new(0),
            retried: AtomicUsize::new(0),
        });
        let work = |_| {
            let shared = shared.clone();
            std::thread::spawn(move || work(&shared))
        };
        let threads = (0..connections).map(work).collect();
        Running { shared, threads }
    }

    /// Sends so many requests and gives what became of them.
    pub fn send(self, vault: &Arc<Vault>, requests: usize) -> Report {
        let running = self.start(vault);
        running.wait(requests);
        running.finish()
    }
}

/// What the connections share.
struct Shared {
    load: Load,
    vault: Arc<Vault>,
    /// Who asks, and where new connections go. Each request has it until it is answered.
    who: Mutex<Arc<Caller>>,
    start: Instant,
    next: AtomicU64,
    stop: AtomicBool,
    through: AtomicUsize,
    served: AtomicUsize,
    retried: AtomicUsize,
}

/// A load that goes on; it ends when this is dropped.
pub struct Running {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Vec<Record>>>,
}

impl Running {
    /// Waits until so many more requests have been answered, in whatever way.
    ///
    /// # Panics
    /// Where none is answered within [`crate::daemon::PATIENCE`].
    pub fn wait(&self, requests: usize) {
        self.wait_more(&self.shared.through, requests);
    }

    /// Waits until so many more requests have been answered with 200.
    ///
    /// # Panics
    /// Where none is within [`crate::daemon::PATIENCE`].
    pub fn wait_served(&self, requests: usize) {
        self.wait_more(&self.shared.served, requests);
    }

    /// Sends new connections to another daemon, as a load balancer does.
    pub fn turn_to(&self, address: SocketAddr) {
        self.turn(|kms| kms.address = address);
    }

    /// Signs with another credential, and waits until all requests that the one before has signed are
    /// answered.
    ///
    /// # Panics
    /// Where they are not within [`crate::daemon::PATIENCE`].
    pub fn sign_with(&self, credential: &Credential) {
        let before = self.turn(|kms| kms.credential = credential.clone());
        poll(|| Arc::strong_count(&before) == 1, || "a request is not answered".to_owned());
    }

    fn turn(&self, change: impl FnOnce(&mut Caller)) -> Arc<Caller> {
        let mut who = self.shared.who.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Caller::clone(&who);
        change(&mut next);
        std::mem::replace(&mut *who, Arc::new(next))
    }

    /// How long it has gone on.
    pub fn elapsed(&self) -> Duration {
        self.shared.start.elapsed()
    }

    /// Ends it; what has been sent is waited for.
    ///
    /// # Panics
    /// Where a connection's thread has.
    pub fn finish(mut self) -> Report {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut records = Vec::new();
        for thread in self.threads.drain(..) {
            records.extend(thread.join().unwrap_or_else(|why| std::panic::resume_unwind(why)));
        }
        let elapsed = self.shared.start.elapsed();
        Report::new(records, elapsed, self.shared.retried.load(Ordering::Relaxed))
    }

    /// In steps, each of which has to come soon.
    fn wait_more(&self, count: &AtomicUsize, requests: usize) {
        let goal = count.load(Ordering::Relaxed) + requests;
        loop {
            let now = count.load(Ordering::Relaxed);
            if now >= goal {
                return;
            }
            let goes_on = || count.load(Ordering::Relaxed) > now;
            poll(goes_on, || format!("no more than {now} requests, of {goal}"));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Its panic is no reason for another one.
            let _ = thread.join();
        }
    }
}

/// Sends requests over one connection until told to stop.
fn work(shared: &Shared) -> Vec<Record> {
    let mut records = Vec::new();
    let mut line = Line::new(shared.load.kms.clone());
    loop {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        let due = Duration::from_secs_f64(number as f64 / shared.load.rate);
        loop {
            if shared.stop.load(Ordering::Relaxed) {
                return records;
            }
            let wait = due.saturating_sub(shared.start.elapsed());
            if wait.is_zero() {
                break;
            }
            std::thread::sleep(wait.min(LONGEST_SLEEP));
        }
        let who = shared.who.lock().unwrap_or_else(PoisonError::into_inner).clone();
        line.turn_to(&who);
        let (operation, outcome) = request(shared, &mut line, number);
        drop(who);
        let served = outcome == Outcome::Served;
        records.push(Record { operation, due, latency: shared.start.elapsed() - due, outcome });
        shared.retried.fetch_add(line.take_retried(), Ordering::Relaxed);
        shared.served.fetch_add(served.into(), Ordering::Relaxed);
        shared.through.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends one request and judges its answer.
fn request(shared: &Shared, line: &mut Line, number: u64) -> (Operation, Outcome) {
    let Load { keys, mix, .. } = &shared.load;
    let turn = |of: usize| (number % of as u64) as usize;
    let operation = mix[turn(mix.len())];
    let key = &keys[turn(mix.len() * keys.len()) / mix.len()];
    let sealed = match operation {
        Operation::Decrypt => shared.vault.any(number),
        _ => None,
    };
    match (operation, sealed) {
        (Operation::Metadata, _) => {
            let body = bare_body("DescribeKey");
            let outcome = line.ask(&format!("keys/{key}/metadata"), &body, |json| {
                let sound = json["keySpec"] == "AES_256" && json["keyStatus"] == "ENABLED";
                if sound { Ok(()) } else { Err(format!("metadata: {json}")) }
            });
            (operation, outcome)
        }
        (_, Some(sealed)) => {
            let body = decrypt_body(&sealed.answer, aad(sealed.number).as_deref());
            let outcome = line.ask(&format!("keys/{}/decrypt", sealed.key), &body, |json| {
                let same = unbase64(&json["plaintext"]) == plaintext(sealed.number);
                if same { Ok(()) } else { Err("another plaintext than was encrypted".to_owned()) }
            });
            (operation, outcome)
        }
        (_, None) => {
            let mut body = encrypt_body(&plaintext(number), aad(number).as_deref());
            let with_cdiv = operation == Operation::EncryptCdiv;
            if with_cdiv {
                body["ciphertextDataIntegrityValueAlgorithm"] = "SHA_256".into();
            }
            let outcome = line.ask(&format!("keys/{key}/encrypt"), &body, |json| {
                let cdiv = vault::cdiv(json, aad(number).as_deref());
                let sound = with_cdiv == (json["ciphertextDataIntegrityValue"] == *cdiv);
                shared.vault.keep(key, number, json.clone());
                if sound { Ok(()) } else { Err("a wrong CDIV, or one not asked for".to_owned()) }
            });
            let operation = if with_cdiv { operation } else { Operation::Encrypt };
            (operation, outcome)
        }
    }
}

/// What a refusal is counted by.
fn error_name(body: &[u8]) -> Result<String, String> {
    let json: Option<BTreeMap<String, Value>> = serde_json::from_slice(body).ok();
    let name = json.as_ref().and_then(|json| json.get("errorName")?.as_str());
    name.map(str::to_owned).ok_or_else(|| String::from_utf8_lossy(body).into_owned())
}
