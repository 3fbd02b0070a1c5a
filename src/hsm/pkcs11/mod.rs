//! The C boundary: PKCS#11 modules, and the only place that names `cryptoki-sys` and `unsafe`.
//!
//! Catalogue and data path use one function list through single C calls into presized buffers
//! (`library`, `session`, `data`, `objects`), and the data path the message functions where a token
//! has proved its own (`messages`, `message_proof`). `admin` adds what the `keys` commands change, `transport`
//! (with the calls in `wrapping`) how they bring key material in, `officer` who is trusted.

#![allow(unsafe_code, reason = "PKCS#11 is a C interface; each block says why it is sound")]

mod admin;
mod data;
pub mod inspect;
mod library;
#[cfg(test)]
mod lies;
#[cfg(test)]
mod message_plays;
mod message_proof;
mod messages;
mod objects;
mod officer;
mod own_process;
#[cfg(test)]
mod plays;
mod session;
mod signing;
#[cfg(test)]
mod stage;
mod template;
mod token_iv;
mod transport;
mod wrapping;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub use library::{Library, LoadError, exit_now};
pub use own_process::{clock_is_kept, close_inherited_descriptors, ignore_requests_to_leave};
pub use session::TokenSelector;
pub(super) use token_iv::distrusted;

use super::backend::{Backend, Session, TokenIdentity};
use super::fault::{Fault, FaultKind};
use super::profile::{self, MessageApi, Profile, Recognised, SessionKind, Words};
use crate::metrics::TokenMetrics;
use crate::secret::Secret;
use messages::MessageFunctions;
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
    /// How often the token's keys have been read.
    readings: Arc<AtomicU64>,
    /// That its message functions are not used was said.
    said_two_calls: AtomicBool,
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
    /// Used if they are there.
    messages: Option<MessageFunctions>,
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
        let (generation, token_ivs, readings, connected) = Default::default();
        let (profile, said_two_calls) = (None, AtomicBool::new(false));
        Self {
            library,
            selector,
            pin,
            metrics,
            profile,
            token_ivs,
            readings,
            said_two_calls,
            generation,
            connected,
        }
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
            messages: None,
            readings: self.readings.clone(),
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
        // Whoever changes keys makes two calls an operation: it destroys keys whose handles may be
        // others' a moment later.
        let serves_requests = kind.is_none();
        let kind = kind.unwrap_or(profile.session_kind);
        let mut session = self.open(slot, generation, profile, kind)?;
        session.login(user, pin)?;
        if profile.iv_source.is_token() && user == cryptoki_sys::CKU_USER {
            // In a session of its own, with which the probe key goes.
            token_iv::admit(&mut self.open(slot, generation, profile, kind)?)?;
        }
        if serves_requests && profile.message_api == MessageApi::WhereProved {
            session.link.messages = self.proved_messages(&session);
        }
        let messages = session.link.messages;
        let connected = Connected { slot, generation, profile, messages, identity };
        *self.connected.lock().expect("nothing panics while holding this lock") = Some(connected);
        Ok(session)
    }
}

impl Pkcs11Backend {
    /// The message functions of the module, if it has them and the token proves that they do what
    /// they say. Else an operation is two calls, which is never wrong.
    fn proved_messages(&self, session: &Pkcs11Session) -> Option<MessageFunctions> {
        let functions = self.library.message_functions(&self.metrics)?;
        let prove = || {
            // Sessions of their own, with which the probe key goes.
            let mut plain = session.open_another()?;
            let mut messaging = [session.open_another()?, session.open_another()?];
            let token_ivs = Arc::<TokenIvs>::default();
            for session in &mut messaging {
                session.link.messages = Some(functions);
                // Of IVs that prove nothing, nobody else is to learn.
                session.link.token_ivs = token_ivs.clone();
            }
            message_proof::prove(&mut plain, messaging.each_mut())
        };
        match prove() {
            Ok(()) => Some(functions),
            Err(fault) => {
                if !self.said_two_calls.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        %fault,
                        "the module's message functions give no proof: an operation is two calls"
                    );
                }
                None
            }
        }
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
        let Connected { slot, generation, profile, messages, .. } = connected;
        let mut session = self.open(slot, generation, profile, profile.session_kind)?;
        session.link.messages = messages;
        Ok(Box::new(session))
    }

    fn identity(&self) -> TokenIdentity {
        self.connected().map(|connected| connected.identity).unwrap_or_default()
    }
}
