//! Sessions: finding the token, opening, logging in, closing.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cryptoki_sys::{
    CK_FUNCTION_LIST, CK_RV, CK_SESSION_HANDLE, CK_SLOT_ID, CK_TOKEN_INFO, CK_USER_TYPE,
    CKF_RW_SESSION, CKF_SERIAL_SESSION,
};

use super::library::{Library, padded};
use super::messages::{MessageFunctions, Operations};
use super::token_iv::TokenIvs;
use crate::hsm::backend::TokenIdentity;
use crate::hsm::codes;
use crate::hsm::fault::{Cause, Fault, FaultKind};
use crate::hsm::profile::{Profile, SessionKind};
use crate::metrics::TokenMetrics;

/// How a token is told from the others of its module. Slot numbers change, these do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSelector {
    /// By `label`, as given when the token was initialised.
    Label(String),
    /// By `serialNumber`.
    Serial(String),
}

/// What all sessions with a token share.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) library: Arc<Library>,
    pub(super) metrics: Arc<TokenMetrics>,
    pub(super) profile: &'static Profile,
    /// The IVs that the token has made, if it is the one to make them.
    pub(super) token_ivs: Arc<TokenIvs>,
    /// Those of the module, if the token has proved that they do what they say.
    pub(super) messages: Option<MessageFunctions>,
    /// How often the token's keys have been read.
    pub(super) readings: Arc<AtomicU64>,
    /// The generation of the connection that is in use now.
    pub(super) current: Arc<AtomicU64>,
}

/// One PKCS#11 session. Closed when dropped.
pub(super) struct Pkcs11Session {
    pub(super) link: Link,
    pub(super) handle: CK_SESSION_HANDLE,
    pub(super) generation: u64,
    /// What sessions beside it hold open.
    pub(super) operations: Operations,
    slot: CK_SLOT_ID,
    kind: SessionKind,
    /// Of the library when the session was opened.
    initialisation: u64,
}

impl Pkcs11Session {
    /// Opens a session of this kind.
    pub(super) fn open(
        link: Link,
        slot: CK_SLOT_ID,
        generation: u64,
        kind: SessionKind,
    ) -> Result<Self, Fault> {
        let initialisation = link.library.initialisation();
        let mut handle: CK_SESSION_HANDLE = 0;
        let access = match kind {
            SessionKind::ReadWrite => CKF_RW_SESSION,
            SessionKind::ReadOnly => 0,
        };
        link.library.call_as(link.profile, &link.metrics, "C_OpenSession", |list| {
            let flags = CKF_SERIAL_SESSION | access;
            // SAFETY: no notification callback is given (CloudHSM wants both null); `handle` is a
            // valid place for the answer.
            list.C_OpenSession
                .map(|f| unsafe { f(slot, flags, ptr::null_mut(), None, &mut handle) })
        })?;
        // CK_INVALID_HANDLE
        if handle == 0 {
            return Err(Fault::nonsense("C_OpenSession", "the number of no session"));
        }
        let operations = Operations::default();
        Ok(Self { link, handle, generation, operations, slot, kind, initialisation })
    }

    /// Opens a session beside this one, of the same connection.
    pub(super) fn open_another(&self) -> Result<Self, Fault> {
        Self::open(self.link.clone(), self.slot, self.generation, self.kind)
    }

    /// Calls one C function of the token's module.
    pub(super) fn call(
        &self,
        function: &'static str,
        call: impl FnOnce(&CK_FUNCTION_LIST) -> Option<CK_RV>,
    ) -> Result<(), Fault> {
        let Link { library, profile, metrics, .. } = &self.link;
        library.call_as(profile, metrics, function, call)
    }

    /// Whether the token has been connected to anew since: this session may be another's by now.
    pub(super) fn check_connection(&self) -> Result<(), Fault> {
        if self.link.current.load(Ordering::Acquire) == self.generation {
            return Ok(());
        }
        let why = "it belongs to an earlier connection";
        Err(Fault::refused(FaultKind::SessionLost, "session", why))
    }

    /// Logs the process in at the token. That somebody has is as good.
    pub(super) fn login(&mut self, user: CK_USER_TYPE, pin: &str) -> Result<(), Fault> {
        let length = pin.len() as cryptoki_sys::CK_ULONG;
        let handle = self.handle;
        let login = self.call("C_Login", |list| {
            // SAFETY: the PIN lives through the call and is only read, although C says `*mut`.
            list.C_Login.map(|f| unsafe { f(handle, user, pin.as_ptr().cast_mut(), length) })
        });
        match login {
            Err(Fault { cause: Cause::Returned(codes::USER_ALREADY_LOGGED_IN), .. }) => Ok(()),
            other => other,
        }
    }
}

impl Drop for Pkcs11Session {
    fn drop(&mut self) {
        // The session went with the library's state, and its number may have been given out again.
        if self.initialisation != self.link.library.initialisation() {
            return;
        }
        let handle = self.handle;
        let closed = self.call("C_CloseSession", |list| {
            // SAFETY: the handle came from C_OpenSession; one that died since is refused.
            list.C_CloseSession.map(|f| unsafe { f(handle) })
        });
        if let Err(fault) = closed {
            tracing::debug!(%fault, "closing a session failed");
        }
    }
}

/// Looks for the token in all slots of the module.
///
/// Two that fit are refused: which of them comes first may change with every start, and a key that
/// is in the other one would be called unknown.
pub(super) fn find_token(
    library: &Library,
    metrics: &TokenMetrics,
    selector: &TokenSelector,
) -> Result<(CK_SLOT_ID, TokenIdentity), Fault> {
    let mut only = None;
    for slot in slots(library, metrics)? {
        // Other tokens' troubles are not ours.
        let Ok(info) = token_info(library, metrics, slot) else { continue };
        let found = match selector {
            TokenSelector::Label(label) => padded(&info.label) == *label,
            TokenSelector::Serial(serial) => padded(&info.serialNumber) == *serial,
        };
        if found && only.replace((slot, identity(&info))).is_some() {
            let why = "two tokens of the module bear the configured label: name one by its serial";
            return Err(Fault::refused(FaultKind::TokenLost, "C_GetSlotList", why));
        }
    }
    let why = "no slot of the module holds the configured token";
    only.ok_or(Fault::refused(FaultKind::TokenLost, "C_GetSlotList", why))
}

/// All slots with a token in them.
pub(super) fn slots(library: &Library, metrics: &TokenMetrics) -> Result<Vec<CK_SLOT_ID>, Fault> {
    // More slots than any module has, so that one call is enough; a module with more says so.
    let mut slots: Vec<CK_SLOT_ID> = vec![0; 1024];
    let mut count = slots.len() as cryptoki_sys::CK_ULONG;
    library.call(metrics, "C_GetSlotList", |list| {
        // SAFETY: `slots` has room for `count` numbers.
        list.C_GetSlotList
            .map(|f| unsafe { f(cryptoki_sys::CK_TRUE, slots.as_mut_ptr(), &mut count) })
    })?;
    if count as usize > slots.len() {
        return Err(Fault::nonsense("C_GetSlotList", "more slots than the buffer holds"));
    }
    slots.truncate(count as usize);
    Ok(slots)
}

pub(super) fn token_info(
    library: &Library,
    metrics: &TokenMetrics,
    slot: CK_SLOT_ID,
) -> Result<CK_TOKEN_INFO, Fault> {
    // SAFETY: CK_TOKEN_INFO is plain data, for which all zeros is a value.
    let mut info: CK_TOKEN_INFO = unsafe { std::mem::zeroed() };
    library.call(metrics, "C_GetTokenInfo", |list| {
        // SAFETY: `info` is a valid place for the answer.
        list.C_GetTokenInfo.map(|f| unsafe { f(slot, &mut info) })
    })?;
    Ok(info)
}

fn identity(info: &CK_TOKEN_INFO) -> TokenIdentity {
    let (hardware, firmware) = (info.hardwareVersion, info.firmwareVersion);
    TokenIdentity {
        manufacturer: padded(&info.manufacturerID),
        model: format!(
            "{} hardware {}.{} firmware {}.{}",
            padded(&info.model),
            hardware.major,
            hardware.minor,
            firmware.major,
            firmware.minor
        ),
        serial: padded(&info.serialNumber),
    }
}
