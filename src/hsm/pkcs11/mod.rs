//! The C boundary: PKCS#11 modules, and the only place that names `cryptoki-sys` and `unsafe`.
//!
//! Catalogue and data path use one function list through single C calls into presized buffers
//! (`library`, `session`, `data`, `objects`). `admin` adds what the `keys` commands change, `transport`
//! (with the calls in `wrapping`) how they bring key material in, `officer` who is trusted.

#![allow(unsafe_code, reason = "PKCS#11 is a C interface; each block says why it is sound")]

mod admin;
mod data;
pub mod inspect;
mod library;
#[cfg(test)]
mod lies;
mod objects;
mod officer;
mod own_process;
#[cfg(test)]
mod plays;
mod session;
#[cfg(test)]
mod stage;
mod template;
mod token_iv;
mod transport;
mod wrapping;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

pub use library::{Library, LoadError, exit_now};
pub use own_process::{close_inherited_descriptors, ignore_requests_to_leave};
pub use session::TokenSelector;
pub(super) use token_iv::distrusted;

use super::backend::{Backend, Session, TokenIdentity};
use super::fault::{Fault, FaultKind};
use super::profile::{self, Profile, Recognised, SessionKind, Words};
use crate::metrics::TokenMetrics;
use crate::secret::Secret;
use session::{Link, Pkcs11Session};
use token_iv::TokenIvs;

/// A token reached through a PKCS#11 module in this process.
pub struct Pkcs11Backend {
    library: Arc<Library>,
    selector: TokenSelector,
    pin: Secret<String>,
    metrics: Arc<TokenMetrics>,
    /// As the operator says; else it is recognised.
    profile: Option<&'static Profile>,
    token_ivs: Arc<TokenIvs>,
    /// Grows with each connection, so that handles and sessions of an earlier one are recognised.
    generation: Arc<AtomicU64>,
    connected: Mutex<Option<Connected>>,
}

/// What is known of the token since the last connection.
#[derive(Clone)]
struct Connected {
    slot: cryptoki_sys::CK_SLOT_ID,
    generation: u64,
    profile: &'static Profile,
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
        let (generation, token_ivs, connected) = Default::default();
        Self { library, selector, pin, metrics, profile: None, token_ivs, generation, connected }
    }

    /// The same, with the profile that the operator names; `None`: it is recognised.
    pub fn with_profile(self, profile: Option<&'static Profile>) -> Self {
        Self { profile, ..self }
    }

    fn connected(&self) -> Option<Connected> {
        self.connected.lock().expect("nothing panics while holding this lock").clone()
    }

    fn open(
        &self,
        slot: cryptoki_sys::CK_SLOT_ID,
        generation: u64,
        profile: &'static Profile,
        kind: SessionKind,
    ) -> Result<Pkcs11Session, Fault> {
        let link = Link {
            library: self.library.clone(),
            metrics: self.metrics.clone(),
            profile,
            token_ivs: self.token_ivs.clone(),
            current: self.generation.clone(),
        };
        Pkcs11Session::open(link, slot, generation, kind)
    }

    /// The profile that the operator named, or the one that the module's words tell.
    fn profile(&self, identity: &TokenIdentity) -> &'static Profile {
        if let Some(profile) = self.profile {
            return profile;
        }
        // One that can't be asked is one of which nothing is known.
        let Ok(info) = inspect::module_info(&self.library, &self.metrics) else {
            return &profile::GENERIC;
        };
        let words = Words {
            library_manufacturer: &info.manufacturer,
            library_description: &info.description,
            token_manufacturer: &identity.manufacturer,
            token_model: &identity.model,
        };
        match profile::recognise(words) {
            Recognised::As(profile) => profile,
            Recognised::Perhaps(profile) => {
                tracing::warn!(%profile, "the module looks like one of a profile that must be named");
                &profile::GENERIC
            }
            Recognised::Unknown => &profile::GENERIC,
        }
    }
}

impl Pkcs11Backend {
    /// Connects; the session is of the kind that the profile names, unless another is asked for.
    fn connect_as(&self, kind: Option<SessionKind>) -> Result<Pkcs11Session, Fault> {
        self.connect_with(kind, cryptoki_sys::CKU_USER, self.pin.expose())
    }

    fn connect_with(
        &self,
        kind: Option<SessionKind>,
        user: cryptoki_sys::CK_USER_TYPE,
        pin: &str,
    ) -> Result<Pkcs11Session, Fault> {
        // Before anything that gives old numbers a new meaning.
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        self.library.initialize(&self.metrics)?;
        // Slot numbers change (SoftHSM after initialising a token), so the token is looked for
        // anew with each connection.
        let (slot, identity) = session::find_token(&self.library, &self.metrics, &self.selector)?;
        let profile = self.profile(&identity);
        tracing::debug!(%profile, "the token's profile");
        self.token_ivs.check()?;
        let kind = kind.unwrap_or(profile.session_kind);
        let mut session = self.open(slot, generation, profile, kind)?;
        session.login(user, pin)?;
        if profile.iv_source.is_token() && user == cryptoki_sys::CKU_USER {
            // In a session of its own, with which the probe key goes.
            token_iv::admit(&mut self.open(slot, generation, profile, kind)?)?;
        }
        let connected = Connected { slot, generation, profile, identity };
        *self.connected.lock().expect("nothing panics while holding this lock") = Some(connected);
        Ok(session)
    }
}

impl Backend for Pkcs11Backend {
    fn connect(&self) -> Result<Box<dyn Session>, Fault> {
        Ok(Box::new(self.connect_as(None)?))
    }

    fn open_session(&self) -> Result<Box<dyn Session>, Fault> {
        let Some(connected) = self.connected() else {
            let why = "the token has not been connected to yet";
            return Err(Fault::refused(FaultKind::TokenLost, "C_OpenSession", why));
        };
        let Connected { slot, generation, profile, .. } = connected;
        Ok(Box::new(self.open(slot, generation, profile, profile.session_kind)?))
    }

    fn identity(&self) -> TokenIdentity {
        self.connected().map(|connected| connected.identity).unwrap_or_default()
    }
}
