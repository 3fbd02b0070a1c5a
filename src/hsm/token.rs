//! A token, as the asynchronous side sees it: a bounded queue before threads that own sessions.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::backend::{Backend, ObjectHandle, Sealed, TAG_LEN, TokenIdentity};
use super::fault::Fault;
use super::lanes::Lane;
use super::shared::Shared;
use super::{steward, worker};
use crate::catalogue::Catalogue;
use crate::clock::Deadline;
use crate::metrics::{JobRefused, TokenMetrics};
use crate::names::TokenName;
use crate::secret::Plaintext;

/// How a token is used. Everything here can be set in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How many sessions serve requests, one thread each.
    pub sessions: usize,
    /// How many jobs may wait for a session. One more is refused (429): the newcomer, or the newest
    /// of the key store that has most there.
    pub queue: usize,
    /// How often the token's keys are read.
    pub catalogue_interval: Duration,
    /// How often the token is probed (P-61).
    pub probe_interval: Duration,
    /// How long an attempt may take on this token where another token can be tried after it.
    pub attempt_limit: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sessions: 8,
            queue: 128,
            catalogue_interval: Duration::from_secs(5),
            probe_interval: Duration::from_secs(5),
            attempt_limit: Duration::from_millis(40),
        }
    }
}

/// Whether a token can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenState {
    /// Not yet connected to since the start.
    Probing,
    /// Serving.
    Up,
    /// Serving where no other token can: it was late several times, or its last probe failed or was
    /// slow. The next probe decides.
    Suspect,
    /// Not serving, for this reason; tried again by itself.
    Down(Fault),
    /// Not serving, and not tried again: the PIN was refused, and a further try may lock the HSM.
    PinRefused,
}

impl TokenState {
    /// The names of all states.
    pub const NAMES: [&str; 5] = ["probing", "up", "suspect", "down", "pin_refused"];

    /// Its name in metrics and in `xksd status`.
    pub const fn name(self) -> &'static str {
        let [probing, up, suspect, down, pin_refused] = Self::NAMES;
        match self {
            Self::Probing => probing,
            Self::Up => up,
            Self::Suspect => suspect,
            Self::Down(_) => down,
            Self::PinRefused => pin_refused,
        }
    }

    /// Whether requests are sent to it.
    pub fn serves(self) -> bool {
        matches!(self, Self::Up | Self::Suspect)
    }
}

/// Why a job gave nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// As many jobs wait as may wait, and others than this one have a better right to.
    #[error("the queue of the token is full")]
    QueueFull,
    /// More jobs would be served first than the token does before this one's deadline.
    #[error("the token has more to do than it can do in time")]
    Overloaded,
    /// The deadline passed: in the queue, in the HSM, or while waiting for the catalogue.
    #[error("the token did not answer in time")]
    Late,
    /// The token is not connected.
    #[error("the token is not available")]
    Down,
    /// The token answered with a fault.
    #[error("{0}")]
    Fault(#[from] Fault),
}

/// What a token gave, and where the time went: of a failure too, and of a job that was late.
#[derive(Debug)]
#[must_use]
pub struct Timed<T> {
    /// The result.
    pub result: Result<T, TokenError>,
    /// When what happened.
    pub times: Times,
}

/// The moments of a job, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// It was given to the token.
    pub asked: Instant,
    /// A session took it. `None`: none did, and all of the time was spent waiting.
    pub taken: Option<Instant>,
    /// It was done, or whoever waited gave up. The HSM may still be at it then.
    pub ended: Instant,
}

impl Times {
    /// Time in the queue.
    pub fn queued(&self) -> Duration {
        self.taken.unwrap_or(self.ended).saturating_duration_since(self.asked)
    }

    /// Time in the HSM.
    pub fn hsm(&self) -> Duration {
        self.taken.map_or(Duration::ZERO, |taken| self.ended.saturating_duration_since(taken))
    }
}

/// A ciphertext and what is needed to decrypt it.
#[derive(Debug)]
pub struct Opening {
    /// Initialization vector of 12 or 16 bytes.
    pub iv: Vec<u8>,
    /// The framed AAD (P-42).
    pub aad: Arc<[u8]>,
    /// The ciphertext without its tag.
    pub ciphertext: Vec<u8>,
    /// The tag.
    pub tag: [u8; TAG_LEN],
}

/// One piece of work for a session.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) deadline: Deadline,
    pub(super) queued_at: Instant,
    /// When a session took it, for whoever waits: also where no answer comes in time.
    pub(super) taken: Arc<OnceLock<Instant>>,
    pub(super) work: Work,
}

impl Job {
    /// Whether there is no use in doing it any more.
    pub(super) fn is_dead(&self) -> bool {
        self.deadline.has_passed() || self.work.is_abandoned()
    }

    /// Answers with an error.
    pub(super) fn refuse(self, error: TokenError) {
        match self.work {
            Work::Encrypt { reply, .. } => drop(reply.send((Err(error), Instant::now()))),
            Work::Decrypt { reply, .. } => drop(reply.send((Err(error), Instant::now()))),
        }
    }

    /// Gives up a job that is dead.
    pub(super) fn discard(self, metrics: &TokenMetrics) {
        metrics.queued(self.queued_at.elapsed());
        if self.deadline.has_passed() {
            metrics.refused(JobRefused::Expired);
            self.refuse(TokenError::Late);
        }
    }
}

/// What is to be done, and who waits for it.
#[derive(Debug)]
pub(super) enum Work {
    Encrypt { key: ObjectHandle, aad: Arc<[u8]>, plaintext: Arc<Plaintext>, reply: Reply<Sealed> },
    Decrypt { key: ObjectHandle, opening: Arc<Opening>, reply: Reply<Plaintext> },
}

impl Work {
    /// Whether nobody waits for the answer any more.
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Encrypt { reply, .. } => reply.is_closed(),
            Self::Decrypt { reply, .. } => reply.is_closed(),
        }
    }
}

/// Takes the answer to whoever waits for it, with the moment it was there.
pub(super) type Reply<T> = oneshot::Sender<(Result<T, TokenError>, Instant)>;

/// A token and the threads that serve it.
pub struct Token {
    name: TokenName,
    backend: Arc<dyn Backend>,
    metrics: Arc<TokenMetrics>,
    settings: Settings,
    /// Jobs that somebody waits for.
    outstanding: AtomicUsize,
    shared: Arc<Shared>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Token {
    /// Starts the threads of a token. Returns at once: connecting happens in the background, so
    /// that a token that is down does not keep the daemon from starting.
    ///
    /// # Errors
    /// If the operating system has no threads left; those that were started end by themselves.
    pub fn try_start(
        name: TokenName,
        settings: Settings,
        backend: Arc<dyn Backend>,
        metrics: Arc<TokenMetrics>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(name.clone(), metrics.clone(), settings.queue));
        let told = Arc::downgrade(&shared);
        backend.on_lost(Box::new(move || {
            if let Some(shared) = told.upgrade() {
                shared.ask_for_probe();
            }
        }));
        // Made before its threads: dropped half-way, it asks those that there are to stop.
        let outstanding = AtomicUsize::new(0);
        let token = Self { name, backend, metrics, settings, outstanding, shared };
        let Self { backend, settings, shared, .. } = &token;
        steward::spawn(shared.clone(), backend.clone(), settings.clone())?;
        for number in 0..settings.sessions.max(1) {
            worker::spawn(number, shared.clone(), backend.clone(), settings.attempt_limit)?;
        }
        Ok(token)
    }

    /// The same, for those to whom the operating system gives threads.
    ///
    /// # Panics
    /// If it does not.
    pub fn start(
        name: TokenName,
        settings: Settings,
        backend: Arc<dyn Backend>,
        metrics: Arc<TokenMetrics>,
    ) -> Self {
        Self::try_start(name, settings, backend, metrics)
            .expect("the operating system gives threads")
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &TokenName {
        &self.name
    }

    /// What the token said of itself when it was last connected to.
    pub fn identity(&self) -> TokenIdentity {
        self.backend.identity()
    }

    /// Its metrics.
    pub fn metrics(&self) -> &TokenMetrics {
        &self.metrics
    }

    /// Whether it can be used now.
    pub fn state(&self) -> TokenState {
        *self.shared.state.borrow()
    }

    /// Changes of its state.
    pub fn watch_state(&self) -> watch::Receiver<TokenState> {
        self.shared.state.subscribe()
    }

    /// Readings of its keys; `None` before the first.
    pub fn watch_catalogue(&self) -> watch::Receiver<Option<Arc<Catalogue>>> {
        self.shared.catalogue.subscribe()
    }

    /// Has its keys read soon.
    pub fn ask_for_reading(&self) {
        self.shared.ask_for_reading();
    }

    /// How it is used.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How many sessions serve requests now.
    pub fn sessions(&self) -> usize {
        self.shared.load.sessions()
    }

    /// Whether every session that it should have is open.
    pub fn has_all_sessions(&self) -> bool {
        self.sessions() >= self.settings.sessions
    }

    /// How many jobs somebody waits for, in the queue or in the HSM.
    pub fn waiting(&self) -> usize {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// How long one job more would take, from what those before it took and how many there are.
    pub fn expected(&self) -> Duration {
        self.shared.load.expected(self.waiting())
    }

    /// When the token last proved that it encrypts and decrypts; `None` if never (P-61).
    pub fn last_proved(&self) -> Option<Instant> {
        *self.shared.proved.lock().expect("nothing panics while holding this lock")
    }

    /// Encrypts under a new IV of the token's making, for whom the lane says.
    ///
    /// With the answer, other than [`TokenError::Late`], the token has let go of what it was given.
    ///
    /// # Errors
    /// See [`TokenError`]; they are in [`Timed::result`]. After [`TokenError::Late`] the HSM may have encrypted all the same.
    pub async fn encrypt(
        &self,
        lane: &Lane,
        key: ObjectHandle,
        aad: Arc<[u8]>,
        plaintext: Arc<Plaintext>,
        deadline: Deadline,
    ) -> Timed<Sealed> {
        self.submit(lane, deadline, |reply| Work::Encrypt { key, aad, plaintext, reply }).await
    }

    /// Decrypts, for whom the lane says, or says that the ciphertext does not fit.
    ///
    /// With the answer, other than [`TokenError::Late`], the token has let go of what it was given.
    ///
    /// # Errors
    /// See [`TokenError`]; they are in [`Timed::result`]. That the ciphertext does not fit is
    /// [`FaultKind::BadCiphertext`](super::fault::FaultKind::BadCiphertext).
    pub async fn decrypt(
        &self,
        lane: &Lane,
        key: ObjectHandle,
        opening: Arc<Opening>,
        deadline: Deadline,
    ) -> Timed<Plaintext> {
        self.submit(lane, deadline, |reply| Work::Decrypt { key, opening, reply }).await
    }

    /// The keys as they were last read; `None` before the first reading.
    pub fn catalogue(&self) -> Option<Arc<Catalogue>> {
        self.shared.catalogue.borrow().clone()
    }

    /// Asks all threads to end and waits for them. Says whether they did: one may be inside the
    /// library, which cannot be left by force.
    pub fn stop(&self, patience: Duration) -> bool {
        self.shared.stop(patience)
    }

    async fn submit<T>(
        &self,
        lane: &Lane,
        deadline: Deadline,
        work: impl FnOnce(Reply<T>) -> Work,
    ) -> Timed<T> {
        let asked = Instant::now();
        let taken = Arc::new(OnceLock::new());
        let (reply, answer) = oneshot::channel();
        let job = Job { deadline, queued_at: asked, taken: taken.clone(), work: work(reply) };
        let (result, ended) = self.answer(lane, job, answer).await;
        Timed { result, times: Times { asked, taken: taken.get().copied(), ended } }
    }

    /// Puts a job into the queue and waits for its answer, until its deadline.
    async fn answer<T>(
        &self,
        lane: &Lane,
        job: Job,
        answer: oneshot::Receiver<(Result<T, TokenError>, Instant)>,
    ) -> (Result<T, TokenError>, Instant) {
        let _outstanding = Outstanding::count(&self.outstanding);
        let load = &self.shared.load;
        let done_before = load.jobs_done();
        let deadline = job.deadline;
        let is_too_much = |place| load.is_too_much(place, deadline.remaining());
        let _ticket = match self.shared.queue.push(lane, job, is_too_much) {
            Ok(ticket) => ticket,
            Err(refused) => return (Err(refused), Instant::now()),
        };
        match tokio::time::timeout_at(deadline.instant().into(), answer).await {
            Ok(Ok(answered)) => answered,
            // The worker dropped the job: it panicked, or is being stopped.
            Ok(Err(_dropped)) => (Err(TokenError::Down), Instant::now()),
            Err(_elapsed) => {
                // A queue that moves on is no token that hangs; a late job tells of itself.
                if load.jobs_done() == done_before {
                    self.shared.late();
                }
                (Err(TokenError::Late), Instant::now())
            }
        }
    }
}

/// Counts a job for as long as somebody waits for it.
struct Outstanding<'a>(&'a AtomicUsize);

impl<'a> Outstanding<'a> {
    fn count(jobs: &'a AtomicUsize) -> Self {
        jobs.fetch_add(1, Ordering::Relaxed);
        Self(jobs)
    }
}

impl Drop for Outstanding<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Token {
    /// Threads of a token that nobody has any more end by themselves.
    fn drop(&mut self) {
        self.shared.ask_to_stop();
    }
}
