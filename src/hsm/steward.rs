//! The steward of a token: one thread that connects, keeps the session that holds the login,
//! reads the catalogue, and probes.
//!
//! What it finds out is in `Shared`, from where workers and the asynchronous side take it.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backend::{Backend, ObjectHandle, Session};
use super::canary::{self, Canary};
use super::fault::{Fault, FaultKind};
use super::iv::{IvPool, Moment};
use super::shared::Shared;
use super::token::{Settings, TokenState};
use crate::catalogue::{HEALTH_KEY, Reader};

/// First and longest pause between two attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// Longest pause after a connection that came up: the token can be reached and was proved to work, so
/// that there is more to win than by leaving it in peace.
const BACKOFF_AFTER_UP: Duration = Duration::from_secs(1);

/// Shortest time between two readings of the catalogue: requests for keys that do not exist, of
/// which each asks for a reading, must not keep the token busy with searches.
const READING_SPACING: Duration = Duration::from_millis(25);

/// Shortest time between two probes, for the same reason.
const PROBE_SPACING: Duration = canary::SHARED_FOR;

/// How long a suspect token waits for the probe that may give it back its place.
const SUSPECT_INTERVAL: Duration = Duration::from_secs(1);

/// Round trips to the HSM in a probe: random bytes, an encryption, a decryption.
const PROBE_TRIPS: u32 = 3;

/// Starts the steward's thread.
pub(super) fn spawn(
    shared: Arc<Shared>,
    backend: Arc<dyn Backend>,
    settings: Settings,
) -> io::Result<()> {
    let running = shared.running();
    std::thread::Builder::new()
        .name(format!("{}-steward", shared.name()))
        .spawn(move || {
            let _running = running;
            Steward { shared, backend, settings }.run();
        })
        .map(drop)
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
    /// Made for this connection; `None` where the token does not let us, or none is needed.
    session_key: Option<ObjectHandle>,
    ivs: IvPool,
}

impl Steward {
    fn run(self) {
        let mut pause = BACKOFF.0;
        while !self.shared.is_stopping() {
            let mut up_since = None;
            // A panic is a defect, and no reason to leave the token without a steward.
            let result = catch_unwind(AssertUnwindSafe(|| self.connect_and_watch(&mut up_since)));
            let fault = match result {
                Ok(Ok(())) => return,
                Ok(Err(fault)) => fault,
                Err(_panic) => Fault::refused(FaultKind::Bug, "steward", "xksd panicked"),
            };
            self.shared.disconnected(fault);
            if fault.kind == FaultKind::PinRefused {
                // One wrong PIN is one failed try at the HSM. There is no second.
                return;
            }
            pause = earned(pause, up_since.map(|since: Instant| since.elapsed()));
            self.shared.pause(pause);
            pause = (pause * 2).clamp(BACKOFF.0, BACKOFF.1);
        }
    }

    fn connect_and_watch(&self, up_since: &mut Option<Instant>) -> Result<(), Fault> {
        let connection = self.connect()?;
        *up_since = Some(Instant::now());
        self.watch(connection)
    }

    /// Connects, reads the keys and makes the canary: only then is the token up.
    fn connect(&self) -> Result<Connection, Fault> {
        let session = self.backend.connect()?;
        let (reader, ivs) = (Reader::default(), IvPool::new(self.shared.witness.clone()));
        let mut connection = Connection { session, reader, session_key: None, ivs };
        self.read(&mut connection)?;
        if self.probe_key(&mut connection).is_none() {
            let (token, label) = (self.shared.name().as_str(), HEALTH_KEY);
            tracing::warn!(
                token,
                "no key for probes: health rests on random numbers only. An AES key of 256 bits \
                 with the label {label} is used where the token has one"
            );
        }
        self.probe(&mut connection)?;
        self.shared.load.forget();
        self.shared.connected();
        Ok(connection)
    }

    /// The key that probes are made with: an administrator's, or one made for this connection. `None`
    /// where there is neither; probes then only ask for random bytes.
    fn probe_key(&self, connection: &mut Connection) -> Option<ObjectHandle> {
        let Connection { session, reader, session_key, .. } = connection;
        reader.health_key().or_else(|| {
            *session_key = session_key.or_else(|| self.make_session_key(session.as_mut()));
            *session_key
        })
    }

    fn make_session_key(&self, session: &mut dyn Session) -> Option<ObjectHandle> {
        let made = canary::probe_key(session);
        made.inspect_err(|fault| {
            tracing::debug!(token = %self.shared.name(), %fault, "no probe key was made");
        })
        .ok()
    }

    /// Reads and probes until everything ends, or until the connection is lost.
    fn watch(&self, mut connection: Connection) -> Result<(), Fault> {
        let mut last_reading = Instant::now();
        let mut next_reading = last_reading + self.settings.catalogue_interval;
        let mut last_probe = Instant::now();
        let mut next_probe = last_probe + self.settings.probe_interval;
        loop {
            let wishes = self.shared.wait_for_wishes(next_reading.min(next_probe));
            if self.shared.is_stopping() {
                return Ok(());
            }
            if wishes.reading {
                next_reading = next_reading.min(last_reading + READING_SPACING);
            }
            if wishes.probe {
                next_probe = next_probe.min(last_probe + PROBE_SPACING);
            }
            // Else told by a worker that had not noticed yet that this was done.
            if wishes.reconnect.is_some() && wishes.reconnect == self.shared.connection() {
                let why = "a session met a fault that a new connection mends";
                return Err(Fault::refused(FaultKind::TokenLost, "connection", why));
            }
            if next_probe <= Instant::now() {
                self.probe_or_doubt(&mut connection)?;
                last_probe = Instant::now();
                let interval = match *self.shared.state.borrow() {
                    TokenState::Suspect => self.settings.probe_interval.min(SUSPECT_INTERVAL),
                    _ => self.settings.probe_interval,
                };
                next_probe = last_probe + interval;
            }
            if next_reading <= Instant::now() {
                self.read_or_doubt(&mut connection)?;
                last_reading = Instant::now();
                next_reading = last_reading + self.settings.catalogue_interval;
            }
        }
    }

    /// A failed probe makes the token suspect; a second one, at once, takes it down. One that is slow
    /// leaves it suspect: it serves where no other token does.
    fn probe_or_doubt(&self, connection: &mut Connection) -> Result<(), Fault> {
        let took = match self.probe(connection) {
            Ok(took) => took,
            Err(fault) => {
                self.shared.set_state(TokenState::Suspect);
                tracing::warn!(token = %self.shared.name(), %fault, "health probe failed");
                match self.probe(connection) {
                    // A new connection gives a busy token no more room.
                    Err(fault) if fault.kind == FaultKind::Busy => return Ok(()),
                    again => again?,
                }
            }
        };
        if took > self.settings.attempt_limit * PROBE_TRIPS {
            self.shared.set_state(TokenState::Suspect);
            return Ok(());
        }
        if *self.shared.state.borrow() == TokenState::Suspect {
            self.shared.load.forget();
        }
        self.shared.set_state(TokenState::Up);
        Ok(())
    }

    /// Encrypts and decrypts in the token with a key that is no KMS key (P-61); says how long that
    /// took.
    fn probe(&self, connection: &mut Connection) -> Result<Duration, Fault> {
        let start = Instant::now();
        let probe_key = self.probe_key(connection);
        let Connection { session, ivs, .. } = connection;
        // The generator is probed too: not one IV of an earlier call.
        ivs.clear();
        match probe_key {
            Some(key) => {
                let canary = Canary::make(session.as_mut(), key, ivs)?;
                self.shared.canaries.replace(Some(canary));
            }
            None => drop(ivs.take(session.as_mut(), Moment::now())?),
        }
        let took = start.elapsed();
        self.shared.metrics().probed(took);
        *self.shared.proved.lock().expect("nothing panics while holding this lock") =
            Some(Instant::now());
        Ok(took)
    }

    /// One reading that fails costs nobody anything: what was read before stays. A second one, at
    /// once, takes the token down.
    fn read_or_doubt(&self, connection: &mut Connection) -> Result<(), Fault> {
        let Err(fault) = self.read(connection) else { return Ok(()) };
        if needs_a_new_connection(fault) {
            return Err(fault);
        }
        tracing::warn!(token = %self.shared.name(), %fault, "the keys could not be read");
        match self.read(connection) {
            // A new connection gives a busy token no more room.
            Err(fault) if fault.kind == FaultKind::Busy => Ok(()),
            result => result,
        }
    }

    fn read(&self, connection: &mut Connection) -> Result<(), Fault> {
        let catalogue = connection.reader.read(connection.session.as_mut())?;
        connection.session.keys_were_read()?;
        self.shared.metrics().catalogue(catalogue.len());
        let before = self.shared.catalogue.borrow().clone();
        // Somebody may have destroyed the last key. But a token whose storage is gone looks just so,
        // while sessions and session keys work on; and "no such key" is final for KMS.
        if catalogue.is_empty() && before.as_ref().is_some_and(|before| !before.is_empty()) {
            let why = "all keys have vanished from the token: if they were destroyed on purpose, \
                       restart xksd";
            return Err(Fault::refused(FaultKind::TokenLost, "C_FindObjects", why));
        }
        let token = self.shared.name().as_str();
        for (key, fault) in catalogue.faults() {
            // Said when it appears, not with every reading.
            let known = before.as_ref().and_then(|b| b.find(key)).is_some_and(|k| k == Err(fault));
            if !known {
                tracing::error!(token, %key, %fault, "key refused");
            }
        }
        let unread = catalogue.unread();
        if unread > 0 && before.is_none_or(|before| before.unread() != unread) {
            tracing::error!(token, unread, "the token refuses to describe some of its keys");
        }
        self.shared.catalogue.send_replace(Some(Arc::new(catalogue)));
        Ok(())
    }
}

/// Whether the session that met this fault is of no further use.
fn needs_a_new_connection(fault: Fault) -> bool {
    matches!(
        fault.kind,
        FaultKind::SessionLost
            | FaultKind::LoginLost
            | FaultKind::TokenLost
            | FaultKind::LibraryLost
            | FaultKind::PinRefused
    )
}

/// The pause that is left to a connection which held so long; `None` if it never came up. The
/// longer it held, the sooner the next attempt.
fn earned(pause: Duration, held: Option<Duration>) -> Duration {
    held.map_or(pause, |held| pause.min(BACKOFF_AFTER_UP).saturating_sub(held))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_came_up_is_soon_tried_again() {
        let millis = Duration::from_millis;
        // One that can't be reached is left in peace for longer and longer.
        assert_eq!(earned(BACKOFF.1, None), BACKOFF.1);
        // Each of its short lives would otherwise double the time without it.
        assert_eq!(earned(BACKOFF.1, Some(millis(300))), millis(700));
        assert_eq!(earned(BACKOFF.0, Some(millis(100))), millis(150));
        assert_eq!(earned(BACKOFF.1, Some(millis(1000))), Duration::ZERO);
    }
}
