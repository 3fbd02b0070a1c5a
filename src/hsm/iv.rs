//! Initialization vectors from the token's random number generator, each used once.
//!
//! A worker fetches a few at a time, since each C_GenerateRandom is a round trip to a network HSM.
//! A virtual machine that is snapshot and started twice must not use one IV twice, so none is
//! older than a second when it is used, and what is left over is cleared when the worker idles.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use zeroize::{Zeroize, Zeroizing};

use super::backend::{IV_LEN, Session};
use super::fault::Fault;

/// How many IVs one C_GenerateRandom call fetches.
pub const BATCH: usize = 64;

/// Age from which on an IV is not used any more.
pub const MAX_AGE: Duration = Duration::from_secs(1);

/// How many batches are remembered by their first IV.
const WITNESSES: usize = 64;

type Iv = [u8; IV_LEN];

/// Stands for an IV where none of ours is wanted. No session encrypts with it.
pub const NONE: Iv = [0; IV_LEN];

/// A moment by both clocks of the machine.
///
/// The monotonic clock stands still while a virtual machine is stopped; the wall clock can be set.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Never set back.
    pub monotonic: Instant,
    /// Goes on while the machine is stopped.
    pub wall: SystemTime,
}

impl Moment {
    /// The moment that is now.
    pub fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// Whether what was fetched then is too old now, by either clock. A wall clock that was set
    /// back makes it too old as well: nothing is known of its age.
    fn is_too_old(self, now: Self) -> bool {
        let monotonic = now.monotonic.saturating_duration_since(self.monotonic);
        let wall = now.wall.duration_since(self.wall);
        monotonic >= MAX_AGE || wall.map_or(true, |age| age >= MAX_AGE)
    }
}

/// Remembers a little of what a token's generator gave, to all sessions: one that stands still
/// gives it again, perhaps to another session.
#[derive(Debug, Default)]
pub struct Witness(Mutex<VecDeque<Iv>>);

impl Witness {
    /// Whether these can be random bytes; if so, they are remembered.
    fn believes(&self, ivs: &[Iv]) -> bool {
        let mut sorted = ivs.to_vec();
        sorted.sort_unstable();
        let repeats = sorted.windows(2).any(|pair| pair[0] == pair[1]);
        // A buffer that was not written to, or not to its end.
        if repeats || sorted.first() == Some(&[0; IV_LEN]) {
            return false;
        }
        let mut seen = self.0.lock().expect("nothing panics while holding this lock");
        if ivs.iter().any(|iv| seen.contains(iv)) {
            return false;
        }
        seen.truncate(WITNESSES - 1);
        seen.extend(ivs.first());
        seen.rotate_right(1);
        true
    }
}

/// The unused IVs of one worker.
#[derive(Debug)]
pub struct IvPool {
    ivs: Vec<Iv>,
    fetched: Moment,
    witness: Arc<Witness>,
}

impl IvPool {
    /// An empty pool. All pools of a token share a witness.
    pub fn new(witness: Arc<Witness>) -> Self {
        Self { ivs: Vec::with_capacity(BATCH), fetched: Moment::now(), witness }
    }

    /// Takes an IV that has never been given out before; it is gone from the pool.
    ///
    /// # Errors
    /// The token's fault, or [`super::fault::Cause::Nonsense`] if what it gave cannot be random.
    pub fn take(&mut self, session: &mut dyn Session, now: Moment) -> Result<Iv, Fault> {
        if self.ivs.is_empty() || self.fetched.is_too_old(now) {
            self.fetch(session)?;
            // Of before the call: nobody knows when in it the bytes were made.
            self.fetched = now;
        }
        let mut iv = [0; IV_LEN];
        let last = self.ivs.last_mut().ok_or(Fault::nonsense("C_GenerateRandom", "no bytes"))?;
        std::mem::swap(&mut iv, last);
        self.ivs.pop();
        Ok(iv)
    }

    /// An IV for an encryption on this session: none of ours, where the token makes its own.
    ///
    /// # Errors
    /// As [`IvPool::take`].
    pub fn for_encryption(&mut self, session: &mut dyn Session, now: Moment) -> Result<Iv, Fault> {
        if session.makes_ivs() { Ok(NONE) } else { self.take(session, now) }
    }

    /// Forgets all IVs.
    pub fn clear(&mut self) {
        self.ivs.iter_mut().for_each(Zeroize::zeroize);
        self.ivs.clear();
    }

    fn fetch(&mut self, session: &mut dyn Session) -> Result<(), Fault> {
        self.clear();
        let mut bytes = Zeroizing::new([0_u8; BATCH * IV_LEN]);
        session.random(bytes.as_mut_slice())?;
        let (ivs, _) = bytes.as_chunks::<IV_LEN>();
        // A generator that answers CKR_OK without writing, or always the same, would repeat IVs,
        // and two messages under one IV give the key's authentication away.
        if !self.witness.believes(ivs) {
            return Err(Fault::nonsense("C_GenerateRandom", "bytes that are not random"));
        }
        self.ivs.extend_from_slice(ivs);
        Ok(())
    }
}

impl Drop for IvPool {
    fn drop(&mut self) {
        self.clear();
    }
}
