//! The steward of a token: one thread that connects, keeps the session that holds the login,
//! reads the catalogue, and probes.
//!
//! What it finds out is in [`Shared`], from where workers and the asynchronous side take it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use tokio::sync::watch;

use super::backend::{Backend, ObjectHandle, Sealed, Session};
use super::fault::{Fault, FaultKind};
use super::iv::IvPool;
use super::token::{Settings, TokenState};
use crate::catalogue::{Catalogue, Reader};
use crate::metrics::TokenMetrics;
use crate::names::TokenName;

/// First and longest pause between two attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// For how long one canary's result settles what the next failures mean.
const CANARY_SHARED: Duration = Duration::from_millis(100);

/// Shortest time between two readings of the catalogue: requests for keys that do not exist, of
/// which each asks for a reading, must not keep the token busy with searches.
const READING_SPACING: Duration = Duration::from_millis(25);

/// What the canary and the probes encrypt.
const CANARY_PLAINTEXT: &[u8] = b"xksd:canary";
const CANARY_AAD: &[u8] = b"xksd:probe";

/// What somebody wants of the steward.
enum Wish {
    Reading,
    Probe,
    /// Connect anew, unless that has happened since this connection.
    Reconnect(u64),
    Stop,
}

/// What a worker's fault asks of the steward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nothing: the caller's fault, or one the worker mends by itself.
    None,
    /// The catalogue is stale.
    Reading,
    /// The token may be in trouble.
    Probe,
    /// The connection is gone.
    Reconnect,
}

impl Trouble {
    pub(super) fn of(fault: Fault) -> Self {
        match fault.kind {
            FaultKind::BadCiphertext | FaultKind::KeyUsage | FaultKind::Busy => Self::None,
            FaultKind::HandleStale => Self::Reading,
            FaultKind::SessionLost | FaultKind::Ambiguous | FaultKind::Bug => Self::Probe,
            FaultKind::LoginLost
            | FaultKind::TokenLost
            | FaultKind::LibraryLost
            | FaultKind::PinRefused => Self::Reconnect,
        }
    }
}

/// A ciphertext of the token's own, known to be good.
struct Canary {
    key: ObjectHandle,
    sealed: Sealed,
}

impl Canary {
    fn make(session: &mut dyn Session, key: ObjectHandle, ivs: &mut IvPool) -> Result<Self, Fault> {
        let iv = ivs.take(session)?;
        let sealed = session.encrypt(key, &iv, CANARY_AAD, CANARY_PLAINTEXT)?;
        let canary = Self { key, sealed };
        if canary.sings(session)? { Ok(canary) } else { Err(lies()) }
    }

    /// Whether the token decrypts it to what it was made from.
    fn sings(&self, session: &mut dyn Session) -> Result<bool, Fault> {
        let Sealed { iv, ciphertext, tag } = &self.sealed;
        let plaintext = session.decrypt(self.key, iv, CANARY_AAD, ciphertext, tag)?;
        Ok(plaintext.expose() == CANARY_PLAINTEXT)
    }
}

fn lies() -> Fault {
    Fault::nonsense("C_Decrypt", "the probe was decrypted to something else")
}

/// What the threads of a token and its facade share.
pub(super) struct Shared {
    name: TokenName,
    metrics: Arc<TokenMetrics>,
    pub(super) state: watch::Sender<TokenState>,
    pub(super) catalogue: watch::Sender<Option<Arc<Catalogue>>>,
    pub(super) proved: Mutex<Option<Instant>>,
    canary: Mutex<CanaryState>,
    wishes: Sender<Wish>,
    wishes_received: Receiver<Wish>,
    life: Mutex<Life>,
    life_changed: Condvar,
}

#[derive(Default)]
struct CanaryState {
    canary: Option<Arc<Canary>>,
    last: Option<(Instant, bool)>,
}

#[derive(Default)]
struct Life {
    /// Which connection is in use; `None` while there is none.
    connection: Option<u64>,
    connections: u64,
    stopping: bool,
    threads: usize,
}

/// Held by each thread for as long as it may be inside the library.
pub(super) struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.life().threads -= 1;
        self.0.life_changed.notify_all();
    }
}

impl Shared {
    pub(super) fn new(name: TokenName, metrics: Arc<TokenMetrics>) -> Self {
        // Wishes of one kind are the same wish: a short queue is enough, a full one loses none.
        let (wishes, wishes_received) = crossbeam_channel::bounded(16);
        Self {
            name,
            metrics,
            state: watch::Sender::new(TokenState::Probing),
            catalogue: watch::Sender::new(None),
            proved: Mutex::new(None),
            canary: Mutex::default(),
            wishes,
            wishes_received,
            life: Mutex::default(),
            life_changed: Condvar::new(),
        }
    }

    pub(super) fn name(&self) -> &TokenName {
        &self.name
    }

    pub(super) fn metrics(&self) -> &TokenMetrics {
        &self.metrics
    }

    /// Counts a thread that is about to start.
    pub(super) fn running(self: &Arc<Self>) -> Running {
        self.life().threads += 1;
        Running(self.clone())
    }

    /// Waits until the token is connected. `None`: everything ends.
    pub(super) fn wait_connected(&self) -> Option<u64> {
        let mut life = self.life();
        loop {
            if life.stopping {
                return None;
            }
            if let Some(connection) = life.connection {
                return Some(connection);
            }
            life = self.life_changed.wait(life).expect("nothing panics while holding this lock");
        }
    }

    /// Which connection is in use. `None`: everything ends. While the token is down it is the
    /// last one, so that workers keep their sessions until there is a new one.
    pub(super) fn connection(&self) -> Option<u64> {
        let life = self.life();
        (!life.stopping).then_some(life.connections)
    }

    /// Waits, but not when everything ends.
    pub(super) fn pause(&self, time: Duration) {
        let life = self.life();
        drop(self.life_changed.wait_timeout_while(life, time, |life| !life.stopping));
    }

    /// Has the catalogue read soon.
    pub(super) fn ask_for_reading(&self) {
        let _ = self.wishes.try_send(Wish::Reading);
    }

    /// Tells the steward what a worker met on a session of this connection.
    pub(super) fn report(&self, trouble: Trouble, connection: u64) {
        let wish = match trouble {
            Trouble::None => return,
            Trouble::Reading => Wish::Reading,
            Trouble::Probe => Wish::Probe,
            Trouble::Reconnect => Wish::Reconnect(connection),
        };
        let _ = self.wishes.try_send(wish);
    }

    /// Decrypts the canary on this session. `None`: there is none. A result is shared for a
    /// while, so that garbage sent to us can't double the HSM's load.
    pub(super) fn canary_sings(&self, session: &mut dyn Session) -> Option<bool> {
        let canary = {
            let state = self.canary();
            match state.last {
                Some((at, result)) if at.elapsed() < CANARY_SHARED => return Some(result),
                _ => state.canary.clone()?,
            }
        };
        // No lock is held around the C calls.
        let result = canary.sings(session).unwrap_or(false);
        self.canary().last = Some((Instant::now(), result));
        Some(result)
    }

    /// Ends all threads; says whether they ended in time.
    pub(super) fn stop(&self, patience: Duration) -> bool {
        self.life().stopping = true;
        self.life_changed.notify_all();
        let _ = self.wishes.try_send(Wish::Stop);
        let life = self.life();
        let (life, _) = self
            .life_changed
            .wait_timeout_while(life, patience, |life| life.threads > 0)
            .expect("nothing panics while holding this lock");
        life.threads == 0
    }

    fn is_stopping(&self) -> bool {
        self.life().stopping
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().expect("nothing panics while holding this lock")
    }

    fn canary(&self) -> MutexGuard<'_, CanaryState> {
        self.canary.lock().expect("nothing panics while holding this lock")
    }

    fn set_state(&self, state: TokenState) {
        let before = self.state.send_replace(state);
        if before == state {
            return;
        }
        self.metrics.up(state.serves());
        let token = self.name.as_str();
        match state {
            TokenState::Probing => {}
            TokenState::Up => tracing::info!(token, "token is up"),
            TokenState::Suspect => tracing::warn!(token, "token is suspect: its probe failed"),
            TokenState::Down(fault) => tracing::error!(token, %fault, "token is down"),
            TokenState::PinRefused => tracing::error!(
                token,
                "the PIN was refused and is not tried again, since HSMs lock after a few tries: \
                 correct the PIN and restart"
            ),
        }
    }
}

/// Starts the steward's thread.
pub(super) fn spawn(shared: Arc<Shared>, backend: Arc<dyn Backend>, settings: Settings) {
    let running = shared.running();
    std::thread::Builder::new()
        .name(format!("{}-steward", shared.name))
        .spawn(move || {
            let _running = running;
            Steward { shared, backend, settings }.run();
        })
        .expect("the operating system gives threads when starting");
}

struct Steward {
    shared: Arc<Shared>,
    backend: Arc<dyn Backend>,
    settings: Settings,
}

/// One connection to the token: the session that holds the login, and what lives with it.
struct Connection {
    session: Box<dyn Session>,
    reader: Reader,
    /// `None` where the token does not let us make one; probes then only ask for random bytes.
    probe_key: Option<ObjectHandle>,
    ivs: IvPool,
}

impl Steward {
    fn run(self) {
        let mut pause = BACKOFF.0;
        while !self.shared.is_stopping() {
            let fault = match self.connect() {
                Ok(connection) => {
                    pause = BACKOFF.0;
                    match self.watch(connection) {
                        Ok(()) => return,
                        Err(fault) => fault,
                    }
                }
                Err(fault) => fault,
            };
            self.disconnected(fault);
            if fault.kind == FaultKind::PinRefused {
                // One wrong PIN is one failed try at the HSM. There is no second.
                return;
            }
            self.shared.pause(pause);
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// Connects, makes the canary and reads the keys: only then is the token up.
    fn connect(&self) -> Result<Connection, Fault> {
        let mut session = self.backend.connect()?;
        let probe_key = match session.make_probe_key() {
            Ok(key) => Some(key),
            Err(fault) => {
                let token = self.shared.name.as_str();
                tracing::warn!(token, %fault, "no probe key: health rests on random numbers only");
                None
            }
        };
        let (reader, ivs) = (Reader::default(), IvPool::default());
        let mut connection = Connection { session, reader, probe_key, ivs };
        self.probe(&mut connection)?;
        self.read(&mut connection)?;
        {
            let mut life = self.shared.life();
            life.connections += 1;
            life.connection = Some(life.connections);
        }
        self.shared.life_changed.notify_all();
        self.shared.set_state(TokenState::Up);
        Ok(connection)
    }

    fn disconnected(&self, fault: Fault) {
        self.shared.life().connection = None;
        *self.shared.canary() = CanaryState::default();
        self.shared.set_state(match fault.kind {
            FaultKind::PinRefused => TokenState::PinRefused,
            _ => TokenState::Down(fault),
        });
    }

    /// Reads and probes until everything ends, or until the connection is lost.
    fn watch(&self, mut connection: Connection) -> Result<(), Fault> {
        let mut last_reading = Instant::now();
        let mut next_reading = last_reading + self.settings.catalogue_interval;
        let mut next_probe = Instant::now() + self.settings.probe_interval;
        loop {
            let wish = self.shared.wishes_received.recv_deadline(next_reading.min(next_probe));
            if self.shared.is_stopping() {
                return Ok(());
            }
            match wish {
                Ok(Wish::Stop) => return Ok(()),
                Ok(Wish::Reading) => {
                    next_reading = next_reading.min(last_reading + READING_SPACING)
                }
                Ok(Wish::Probe) => next_probe = Instant::now(),
                // Told by a worker that had not noticed yet that this was done.
                Ok(Wish::Reconnect(of)) if Some(of) != self.shared.connection() => {}
                Ok(Wish::Reconnect(_)) => {
                    let why = "a session met a fault that a new connection mends";
                    return Err(Fault::refused(FaultKind::TokenLost, "connection", why));
                }
                Err(_timeout) => {}
            }
            if next_probe <= Instant::now() {
                self.probe_or_doubt(&mut connection)?;
                next_probe = Instant::now() + self.settings.probe_interval;
            }
            if next_reading <= Instant::now() {
                self.read(&mut connection)?;
                last_reading = Instant::now();
                next_reading = last_reading + self.settings.catalogue_interval;
            }
        }
    }

    /// A failed probe makes the token suspect; a second one, at once, takes it down.
    fn probe_or_doubt(&self, connection: &mut Connection) -> Result<(), Fault> {
        if let Err(fault) = self.probe(connection) {
            self.shared.set_state(TokenState::Suspect);
            tracing::warn!(token = %self.shared.name, %fault, "health probe failed");
            self.probe(connection)?;
        }
        self.shared.set_state(TokenState::Up);
        Ok(())
    }

    /// Encrypts and decrypts in the token with a key that is no KMS key (P-61).
    fn probe(&self, connection: &mut Connection) -> Result<(), Fault> {
        let start = Instant::now();
        let Connection { session, probe_key, ivs, .. } = connection;
        match *probe_key {
            Some(key) => {
                let canary = Canary::make(session.as_mut(), key, ivs)?;
                *self.shared.canary() = CanaryState { canary: Some(Arc::new(canary)), last: None };
            }
            None => {
                ivs.clear();
                ivs.take(session.as_mut())?;
            }
        }
        self.shared.metrics.probed(start.elapsed());
        *self.shared.proved.lock().expect("nothing panics while holding this lock") =
            Some(Instant::now());
        Ok(())
    }

    fn read(&self, connection: &mut Connection) -> Result<(), Fault> {
        let catalogue = connection.reader.read(connection.session.as_mut())?;
        self.shared.metrics.catalogue(catalogue.len());
        let before = self.shared.catalogue.borrow().clone();
        for (key, fault) in catalogue.faults() {
            // Said when it appears, not with every reading.
            let known = before.as_ref().and_then(|b| b.find(key)).is_some_and(|k| k == Err(fault));
            if !known {
                let token = self.shared.name.as_str();
                tracing::error!(token, %key, %fault, "key refused");
            }
        }
        self.shared.catalogue.send_replace(Some(Arc::new(catalogue)));
        Ok(())
    }
}
