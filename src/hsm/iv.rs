//! Initialization vectors from the token's random number generator, each used once.
//!
//! A worker fetches a few at a time, since each C_GenerateRandom is a round trip to a network HSM.
//! A virtual machine that is snapshot and started twice must not use one IV twice, so none is
//! older than a second when it is used, and what is left over is cleared when the worker idles.

use std::time::{Duration, Instant};

use zeroize::Zeroize;

use super::backend::{IV_LEN, Session};
use super::fault::Fault;

/// How many IVs one C_GenerateRandom call fetches.
pub const BATCH: usize = 64;

/// Oldest age at which an IV may be used.
pub const MAX_AGE: Duration = Duration::from_secs(1);

/// The unused IVs of one worker.
#[derive(Debug)]
pub struct IvPool {
    ivs: Vec<[u8; IV_LEN]>,
    fetched: Instant,
    /// The first IV of the batch before: a generator that stands still gives it again.
    witness: Option<[u8; IV_LEN]>,
}

impl Default for IvPool {
    fn default() -> Self {
        Self { ivs: Vec::with_capacity(BATCH), fetched: Instant::now(), witness: None }
    }
}

impl IvPool {
    /// Takes an IV that has never been given out before; it is gone from the pool.
    ///
    /// # Errors
    /// The token's fault, or [`super::fault::Cause::Nonsense`] if what it gave cannot be random.
    pub fn take(&mut self, session: &mut dyn Session) -> Result<[u8; IV_LEN], Fault> {
        if self.ivs.is_empty() || self.fetched.elapsed() >= MAX_AGE {
            self.fetch(session)?;
        }
        let mut iv = [0; IV_LEN];
        let last = self.ivs.last_mut().ok_or(Fault::nonsense("C_GenerateRandom", "no bytes"))?;
        std::mem::swap(&mut iv, last);
        self.ivs.pop();
        Ok(iv)
    }

    /// Forgets all IVs.
    pub fn clear(&mut self) {
        self.ivs.iter_mut().for_each(Zeroize::zeroize);
        self.ivs.clear();
    }

    /// Whether there is anything to forget.
    pub fn is_empty(&self) -> bool {
        self.ivs.is_empty()
    }

    fn fetch(&mut self, session: &mut dyn Session) -> Result<(), Fault> {
        self.clear();
        let mut bytes = [0_u8; BATCH * IV_LEN];
        session.random(&mut bytes)?;
        let (ivs, _) = bytes.as_chunks::<IV_LEN>();
        // A generator that answers CKR_OK without writing, or always the same, would repeat IVs,
        // and two messages under one IV give the key's authentication away.
        let repeats = ivs.windows(2).any(|pair| pair[0] == pair[1]);
        if repeats || ivs[0] == [0; IV_LEN] || self.witness == Some(ivs[0]) {
            bytes.zeroize();
            return Err(Fault::nonsense("C_GenerateRandom", "bytes that are not random"));
        }
        self.witness = Some(ivs[0]);
        self.ivs.extend_from_slice(ivs);
        self.fetched = Instant::now();
        bytes.zeroize();
        Ok(())
    }
}

impl Drop for IvPool {
    fn drop(&mut self) {
        self.clear();
    }
}
