//! What the modules that tests play have in common: sessions that open and close, and keys that have
//! a number.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_BBOOL, CK_BYTE, CK_FLAGS, CK_FUNCTION_LIST, CK_MECHANISM, CK_NOTIFY,
    CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SLOT_ID, CK_TOKEN_INFO, CK_ULONG, CK_USER_TYPE,
    CKR_OK,
};

use super::library::Library;
use super::session::{Link, Pkcs11Session};
use super::token_iv::TokenIvs;
use super::{Pkcs11Backend, TokenSelector};
use crate::hsm::backend::ObjectHandle;
use crate::hsm::fault::Fault;
use crate::hsm::profile::{Profile, SessionKind};
use crate::metrics::{Metrics, TokenMetrics};
use crate::secret::Secret;

pub(super) const KEY: ObjectHandle = ObjectHandle { generation: 1, number: 7 };

thread_local! {
    /// The number of every session and key.
    pub(super) static HANDLE: Cell<CK_ULONG> = const { Cell::new(1) };
}

pub(super) extern "C" fn open(
    _: CK_SLOT_ID,
    _: CK_FLAGS,
    _: *mut std::ffi::c_void,
    _: CK_NOTIFY,
    session: *mut CK_SESSION_HANDLE,
) -> CK_RV {
    // SAFETY: the caller gives a valid place.
    unsafe { *session = HANDLE.get() };
    CKR_OK
}

pub(super) extern "C" fn close(_: CK_SESSION_HANDLE) -> CK_RV {
    CKR_OK
}

pub(super) extern "C" fn generate(
    _: CK_SESSION_HANDLE,
    _: *mut CK_MECHANISM,
    _: *mut CK_ATTRIBUTE,
    _: CK_ULONG,
    key: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    // SAFETY: the caller gives a valid place.
    unsafe { *key = HANDLE.get() };
    CKR_OK
}

extern "C" fn login(_: CK_SESSION_HANDLE, _: CK_USER_TYPE, _: *mut CK_BYTE, _: CK_ULONG) -> CK_RV {
    CKR_OK
}

extern "C" fn slots(_: CK_BBOOL, slots: *mut CK_SLOT_ID, count: *mut CK_ULONG) -> CK_RV {
    // SAFETY: the caller gives room for more than one.
    unsafe { (*slots, *count) = (0, 1) };
    CKR_OK
}

extern "C" fn token_info(_: CK_SLOT_ID, info: *mut CK_TOKEN_INFO) -> CK_RV {
    let mut label = [b' '; 32];
    label[..4].copy_from_slice(b"play");
    // SAFETY: the caller gives a valid place.
    unsafe { (*info).label = label };
    CKR_OK
}

/// The functions of a module that needs no more than these, and those that it plays itself.
pub(super) fn functions() -> CK_FUNCTION_LIST {
    CK_FUNCTION_LIST {
        C_GetSlotList: Some(slots),
        C_GetTokenInfo: Some(token_info),
        C_OpenSession: Some(open),
        C_CloseSession: Some(close),
        C_Login: Some(login),
        C_GenerateKey: Some(generate),
        ..CK_FUNCTION_LIST::default()
    }
}

pub(super) fn metrics() -> Arc<TokenMetrics> {
    Metrics::new().token(&"test".parse().expect("it is a token name"))
}

/// The token of a module whose functions begin with [`functions`].
pub(super) fn backend(library: Arc<Library>, profile: Option<&'static Profile>) -> Pkcs11Backend {
    let (selector, pin) = (TokenSelector::Label("play".into()), Secret::new("1234".to_owned()));
    Pkcs11Backend::new(library, selector, pin, metrics()).with_profile(profile)
}

/// A session of the connection that [`KEY`] belongs to.
pub(super) fn session(
    library: Arc<Library>,
    profile: &'static Profile,
) -> Result<Pkcs11Session, Fault> {
    let current = Arc::new(AtomicU64::new(KEY.generation));
    let token_ivs = Arc::new(TokenIvs::default());
    let (messages, readings) = (library.message_functions(&metrics()), Arc::default());
    let link =
        Link { library, metrics: metrics(), profile, token_ivs, messages, readings, current };
    Pkcs11Session::open(link, 0, KEY.generation, SessionKind::ReadWrite)
}
