//! A worker: one thread that owns one session, takes jobs from the token's queue, and replaces
//! its session when that is lost.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backend::{Backend, Session};
use super::canary::Verdict;
use super::codes;
use super::fault::{Cause, Fault, FaultKind};
use super::iv::{self, IvPool, Moment};
use super::shared::{Shared, Trouble};
use super::token::{Job, Opening, Reply, TokenError, Work};
use crate::secret::Plaintext;

/// First and longest pause between two attempts to open a session.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How often an idle worker looks whether it should stop or clear its IVs.
const IDLE: Duration = iv::MAX_AGE;

/// Starts a worker's thread.
pub(super) fn spawn(
    number: usize,
    shared: Arc<Shared>,
    backend: Arc<dyn Backend>,
    attempt_limit: Duration,
) -> io::Result<()> {
    let name = format!("{}-{number}", shared.name());
    let running = shared.running();
    std::thread::Builder::new()
        .name(name)
        .spawn(move || {
            // Dropped last, and on a panic too: it tells that this thread has left the library.
            let _running = running;
            Worker { shared, backend, attempt_limit, job: None }.run();
        })
        .map(drop)
}

struct Worker {
    shared: Arc<Shared>,
    backend: Arc<dyn Backend>,
    /// A job that takes longer is late, whatever time it had.
    attempt_limit: Duration,
    /// Taken from the queue, but not done, since the session had to be replaced first.
    job: Option<Job>,
}

/// Why a worker stops using a session.
enum Left {
    /// The session is no good any more.
    Lost,
    /// The token was connected to anew.
    Reconnected,
    /// Everything ends.
    Stopping,
}

impl Worker {
    fn run(mut self) {
        let mut pause = BACKOFF.0;
        while let Some(connection) = self.shared.wait_connected() {
            match self.backend.open_session() {
                Ok(session) => {
                    pause = BACKOFF.0;
                    self.shared.metrics().sessions().inc();
                    let shared = self.shared.clone();
                    let _taking = shared.load.taking();
                    // A panic is a defect; it costs one job and one session, not the worker.
                    let left = catch_unwind(AssertUnwindSafe(|| self.serve(session, connection)));
                    self.shared.metrics().sessions().dec();
                    if let Ok(Left::Stopping) = left {
                        return;
                    }
                }
                Err(fault) => {
                    tracing::warn!(token = %self.shared.name(), %fault, "cannot open a session");
                    self.refuse_job_in_hand(fault);
                    self.shared.report(Trouble::of(fault), connection);
                    self.shared.pause(pause);
                    pause = (pause * 2).min(BACKOFF.1);
                }
            }
        }
    }

    /// Works with one session for as long as it is good.
    fn serve(&mut self, mut session: Box<dyn Session>, connection: u64) -> Left {
        let mut ivs = IvPool::new(self.shared.witness.clone());
        loop {
            let job = self.job.take().or_else(|| self.shared.queue.take(IDLE));
            match self.shared.connection() {
                None => return Left::Stopping,
                Some(now) if now != connection => {
                    self.job = job;
                    return Left::Reconnected;
                }
                Some(_) => {}
            }
            let Some(job) = job else {
                ivs.clear();
                continue;
            };
            if let Err(fault) = self.work(job, session.as_mut(), &mut ivs) {
                self.shared.report(Trouble::of(fault), connection);
                if !fault.kind.keeps_session() {
                    return Left::Lost;
                }
            }
        }
    }

    /// Does one job and answers it. A fault is returned as well, for what it says of the session.
    fn work(&self, job: Job, session: &mut dyn Session, ivs: &mut IvPool) -> Result<(), Fault> {
        // Nobody waits for an answer that would come too late, and the HSM has better to do.
        if job.is_dead() {
            job.discard(self.shared.metrics());
            return Ok(());
        }
        let start = Instant::now();
        self.shared.metrics().queued(start.saturating_duration_since(job.queued_at));
        job.taken.set(start).expect("a job is taken out of the queue once, and done once");
        // Each closure takes its input with it: whoever gets the answer shares the input with
        // nobody any more.
        let is_telling = job.work.is_telling();
        let done = match job.work {
            Work::Encrypt { key, aad, plaintext, reply } => answer(reply, move || {
                let iv = ivs.for_encryption(session, Moment::now())?;
                session.encrypt(key, &iv, &aad, plaintext.expose())
            }),
            Work::Decrypt { key, opening, reply } => answer(reply, move || {
                let Opening { iv, aad, ciphertext, tag } = &*opening;
                let fault = match session.decrypt(key, iv, aad, ciphertext, tag) {
                    Err(fault) if is_in_doubt(fault) => fault,
                    settled => return settled,
                };
                match self.settle(fault, session) {
                    bad if bad.kind == FaultKind::BadCiphertext => {
                        self.look_again(bad, || session.decrypt(key, iv, aad, ciphertext, tag))
                    }
                    trouble => Err(trouble),
                }
            }),
            Work::Sign { key, how, input, reply } => {
                answer(reply, move || session.sign(key, how, &input))
            }
        };
        if !is_telling {
            return done;
        }
        let took = start.elapsed();
        self.shared.load.done(took);
        if took > self.attempt_limit {
            self.shared.late();
        } else {
            self.shared.breaker.in_time();
        }
        done
    }

    /// Settles what an ambiguous failure of a decryption means by decrypting a known canary.
    fn settle(&self, fault: Fault, session: &mut dyn Session) -> Fault {
        match self.shared.canaries.judge(session) {
            Verdict::Sound => fault.settled(FaultKind::BadCiphertext),
            Verdict::Trouble(kind) => fault.settled(kind),
            // Nothing is proved, and KMS is not told that its data is bad.
            Verdict::Unproved => fault,
        }
    }

    /// Decrypts once more what a sound token refused; if it refuses again, the ciphertext is bad.
    fn look_again(
        &self,
        bad: Fault,
        again: impl FnOnce() -> Result<Plaintext, Fault>,
    ) -> Result<Plaintext, Fault> {
        if !self.shared.canaries.allow_second_look() {
            return Err(bad);
        }
        again().map_err(|fault| if is_in_doubt(fault) { bad } else { fault })
    }

    fn refuse_job_in_hand(&mut self, fault: Fault) {
        if let Some(job) = self.job.take() {
            job.refuse(fault.into());
        }
    }
}

/// Whether a decryption failed in a way that may be the ciphertext's doing, or the HSM's. C_DecryptInit
/// sees none, only the IV, of which some tokens take no other length than 12 bytes (P-50 allows 16).
fn is_in_doubt(fault: Fault) -> bool {
    let refused_iv = Cause::Returned(codes::MECHANISM_PARAM_INVALID);
    let sees_it = matches!(fault.function, "C_Decrypt" | "C_DecryptMessage")
        || fault.function == "C_DecryptInit" && fault.cause == refused_iv;
    fault.kind == FaultKind::Ambiguous && sees_it
}

fn answer<T>(reply: Reply<T>, work: impl FnOnce() -> Result<T, Fault>) -> Result<(), Fault> {
    let result = work();
    let fault = result.as_ref().err().copied();
    // Whoever waited may have given up; the result is then zeroized here.
    drop(reply.send((result.map_err(TokenError::from), Instant::now())));
    fault.map_or(Ok(()), Err)
}
