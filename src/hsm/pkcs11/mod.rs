//! The C boundary: PKCS#11 modules, and the only place that names `cryptoki` and `unsafe`.
//!
//! Catalogue and data path use one function list through single C calls into presized buffers
//! (`library`, `session`, `data`, `objects`). [`admin`] serves the offline `keys` commands
//! with the crate `cryptoki`.

#![allow(unsafe_code, reason = "PKCS#11 is a C interface; each block says why it is sound")]

pub mod admin;
mod data;
pub mod inspect;
mod library;
#[cfg(test)]
mod lies;
mod objects;
mod session;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

pub use library::{Library, LoadError, exit_now};
pub use session::TokenSelector;

use super::backend::{Backend, Session, TokenIdentity};
use super::fault::{Fault, FaultKind};
use crate::metrics::TokenMetrics;
use crate::secret::Secret;
use session::Pkcs11Session;

/// A token reached through a PKCS#11 module in this process.
pub struct Pkcs11Backend {
    library: Arc<Library>,
    selector: TokenSelector,
    pin: Secret<String>,
    metrics: Arc<TokenMetrics>,
    /// Grows with each connection, so that handles and sessions of an earlier one are recognised.
    generation: Arc<AtomicU64>,
    connected: Mutex<Option<Connected>>,
}

/// What is known of the token since the last connection.
#[derive(Clone)]
struct Connected {
    slot: cryptoki_sys::CK_SLOT_ID,
    generation: u64,
    identity: TokenIdentity,
}

impl std::fmt::Debug for Pkcs11Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pkcs11Backend").field("library", &self.library).finish_non_exhaustive()
    }
}

impl Pkcs11Backend {
    /// Describes the way to a token; nothing is loaded or called yet.
    pub fn new(
        library: Arc<Library>,
        selector: TokenSelector,
        pin: Secret<String>,
        metrics: Arc<TokenMetrics>,
    ) -> Self {
        let generation = Arc::default();
        Self { library, selector, pin, metrics, generation, connected: Mutex::new(None) }
    }

    fn connected(&self) -> Option<Connected> {
        self.connected.lock().expect("nothing panics while holding this lock").clone()
    }

    fn open(
        &self,
        slot: cryptoki_sys::CK_SLOT_ID,
        generation: u64,
    ) -> Result<Pkcs11Session, Fault> {
        let (library, metrics) = (self.library.clone(), self.metrics.clone());
        Pkcs11Session::open(library, metrics, slot, generation, self.generation.clone())
    }
}

impl Backend for Pkcs11Backend {
    fn connect(&self) -> Result<Box<dyn Session>, Fault> {
        // Before anything that gives old numbers a new meaning.
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        self.library.initialize(&self.metrics)?;
        // Slot numbers change (SoftHSM after initialising a token), so the token is looked for
        // anew with each connection.
        let (slot, identity) = session::find_token(&self.library, &self.metrics, &self.selector)?;
        let mut session = self.open(slot, generation)?;
        session.login(self.pin.expose())?;
        let connected = Connected { slot, generation, identity };
        *self.connected.lock().expect("nothing panics while holding this lock") = Some(connected);
        Ok(Box::new(session))
    }

    fn open_session(&self) -> Result<Box<dyn Session>, Fault> {
        let Some(connected) = self.connected() else {
            let why = "the token has not been connected to yet";
            return Err(Fault::refused(FaultKind::TokenLost, "C_OpenSession", why));
        };
        Ok(Box::new(self.open(connected.slot, connected.generation)?))
    }

    fn identity(&self) -> TokenIdentity {
        self.connected().map(|connected| connected.identity).unwrap_or_default()
    }
}
