//! What the threads of a token and its facade share: what the steward found out, what is wished
//! of it, and who is still inside the library.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::breaker::Breaker;
use super::canary::Canaries;
use super::fault::{Fault, FaultKind};
use super::iv::Witness;
use super::load::Load;
use super::queue::Queue;
use super::token::TokenState;
use crate::catalogue::Catalogue;
use crate::metrics::TokenMetrics;
use crate::names::TokenName;

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

/// What is wished of the steward. A wish that is there already is not made twice, and none is
/// lost however many come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wishes {
    /// Read the keys.
    pub(super) reading: bool,
    /// Probe the token.
    pub(super) probe: bool,
    /// Connect anew, unless that has happened since this connection.
    pub(super) reconnect: Option<u64>,
}

/// See the module.
pub(super) struct Shared {
    name: TokenName,
    metrics: Arc<TokenMetrics>,
    pub(super) state: watch::Sender<TokenState>,
    pub(super) catalogue: watch::Sender<Option<Arc<Catalogue>>>,
    pub(super) proved: Mutex<Option<Instant>>,
    pub(super) canaries: Canaries,
    pub(super) witness: Arc<Witness>,
    pub(super) load: Load,
    pub(super) breaker: Breaker,
    pub(super) queue: Queue,
    life: Mutex<Life>,
    life_changed: Condvar,
}

#[derive(Default)]
struct Life {
    /// Which connection is in use; `None` while there is none.
    connection: Option<u64>,
    connections: u64,
    wishes: Wishes,
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
    pub(super) fn new(name: TokenName, metrics: Arc<TokenMetrics>, queue: usize) -> Self {
        Self {
            queue: Queue::new(queue, metrics.clone()),
            name,
            metrics,
            state: watch::Sender::new(TokenState::Probing),
            catalogue: watch::Sender::new(None),
            proved: Mutex::new(None),
            canaries: Canaries::default(),
            witness: Arc::default(),
            load: Load::default(),
            breaker: Breaker::default(),
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

    /// The token can be used from now on.
    pub(super) fn connected(&self) {
        {
            let mut life = self.life();
            life.connections += 1;
            life.connection = Some(life.connections);
        }
        self.life_changed.notify_all();
        self.queue.open();
        self.set_state(TokenState::Up);
    }

    /// The token cannot be used any more, or the attempt to connect to it failed.
    pub(super) fn disconnected(&self, fault: Fault) {
        self.life().connection = None;
        self.canaries.replace(None);
        self.set_state(match fault.kind {
            FaultKind::PinRefused => TokenState::PinRefused,
            _ => TokenState::Down(fault),
        });
        self.queue.close();
    }

    /// Waits, but not when everything ends.
    pub(super) fn pause(&self, time: Duration) {
        let life = self.life();
        drop(self.life_changed.wait_timeout_while(life, time, |life| !life.stopping));
    }

    /// Has the catalogue read soon.
    pub(super) fn ask_for_reading(&self) {
        self.wish(|wishes| wishes.reading = true);
    }

    /// Has the token probed soon. If its connection is gone, the probe finds out, and takes it
    /// down; if there is another by now, the probe does no harm.
    pub(super) fn ask_for_probe(&self) {
        self.wish(|wishes| wishes.probe = true);
    }

    /// Tells the steward what a worker met on a session of this connection.
    pub(super) fn report(&self, trouble: Trouble, connection: u64) {
        match trouble {
            Trouble::None => {}
            Trouble::Reading => self.wish(|wishes| wishes.reading = true),
            Trouble::Probe => self.wish(|wishes| wishes.probe = true),
            Trouble::Reconnect => {
                self.wish(|wishes| wishes.reconnect = wishes.reconnect.max(Some(connection)));
            }
        }
    }

    fn wish(&self, wish: impl FnOnce(&mut Wishes)) {
        wish(&mut self.life().wishes);
        self.life_changed.notify_all();
    }

    /// Waits until somebody wishes something, or this moment, or everything ends.
    pub(super) fn wait_for_wishes(&self, until: Instant) -> Wishes {
        let idle = |life: &mut Life| !life.stopping && life.wishes == Wishes::default();
        let patience = until.saturating_duration_since(Instant::now());
        let (mut life, _timeout) = self
            .life_changed
            .wait_timeout_while(self.life(), patience, idle)
            .expect("nothing panics while holding this lock");
        std::mem::take(&mut life.wishes)
    }

    /// Asks all threads to end, without waiting for them.
    pub(super) fn ask_to_stop(&self) {
        self.life().stopping = true;
        self.life_changed.notify_all();
    }

    /// Ends all threads; says whether they ended in time.
    pub(super) fn stop(&self, patience: Duration) -> bool {
        self.ask_to_stop();
        let (life, _timeout) = self
            .life_changed
            .wait_timeout_while(self.life(), patience, |life| life.threads > 0)
            .expect("nothing panics while holding this lock");
        life.threads == 0
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.life().stopping
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().expect("nothing panics while holding this lock")
    }

    /// A job was not done in time. After several of them requests go to other tokens, until a probe
    /// shows that this one is well again.
    pub(super) fn late(&self) {
        let suspect = |state: &mut TokenState| {
            let was_up = *state == TokenState::Up;
            if was_up {
                *state = TokenState::Suspect;
            }
            was_up
        };
        if self.breaker.late() && self.state.send_if_modified(suspect) {
            self.announce(TokenState::Suspect);
            self.wish(|wishes| wishes.probe = true);
        }
    }

    pub(super) fn set_state(&self, state: TokenState) {
        let before = self.state.send_replace(state);
        if before != state {
            self.announce(state);
        }
    }

    fn announce(&self, state: TokenState) {
        self.metrics.is(state);
        let token = self.name.as_str();
        match state {
            TokenState::Probing => {}
            TokenState::Up => tracing::info!(token, "token is up"),
            TokenState::Suspect => tracing::warn!(token, "token is suspect: it fails or is slow"),
            TokenState::Down(fault) => tracing::error!(token, %fault, "token is down"),
            TokenState::PinRefused => tracing::error!(
                token,
                "the PIN was refused and is not tried again, since HSMs lock after a few tries: \
                 correct the PIN and reload"
            ),
        }
    }
}
