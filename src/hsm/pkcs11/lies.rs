//! Tests against a module that answers CKR_OK and lies: lengths, counts, handles, IVs.

use std::cell::Cell;
use std::sync::Arc;

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_BBOOL, CK_BYTE, CK_FUNCTION_LIST, CK_GCM_PARAMS, CK_MECHANISM,
    CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SLOT_ID, CK_ULONG, CKR_OK,
};

use super::library::Library;
use super::session::{Pkcs11Session, TokenSelector, find_token};
use super::stage::{self, HANDLE, KEY, close, generate, metrics, open};
use crate::hsm::backend::{Session, Signing, TAG_LEN};
use crate::hsm::codes;
use crate::hsm::fault::{Cause, Fault, FaultKind};
use crate::hsm::profile;

const TEXT: &[u8] = b"sixteen byte iv";

thread_local! {
    /// The length or count that the module claims to have written, added to what it was given.
    static CLAIM: Cell<i64> = const { Cell::new(0) };
    /// Whether it writes an IV of its own.
    static OWN_IV: Cell<bool> = const { Cell::new(false) };
    /// How often a search was ended.
    static FINALS: Cell<u32> = const { Cell::new(0) };
}

fn claim(length: *mut CK_ULONG) -> CK_RV {
    // SAFETY: a caller gives a valid place for the length.
    unsafe { *length = (*length).wrapping_add_signed(CLAIM.get()) };
    CKR_OK
}

extern "C" fn find_final(_: CK_SESSION_HANDLE) -> CK_RV {
    FINALS.set(FINALS.get() + 1);
    CKR_OK
}

extern "C" fn init(_: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, _: CK_ULONG) -> CK_RV {
    if OWN_IV.get() {
        // SAFETY: the caller gives AES-GCM parameters with an IV.
        unsafe { *(*(*mechanism).pParameter.cast::<CK_GCM_PARAMS>()).pIv = 0xff };
    }
    CKR_OK
}

extern "C" fn crypt(
    _: CK_SESSION_HANDLE,
    _: *mut CK_BYTE,
    _: CK_ULONG,
    _: *mut CK_BYTE,
    length: *mut CK_ULONG,
) -> CK_RV {
    claim(length)
}

extern "C" fn find_init(_: CK_SESSION_HANDLE, _: *mut CK_ATTRIBUTE, _: CK_ULONG) -> CK_RV {
    CKR_OK
}

extern "C" fn find(
    _: CK_SESSION_HANDLE,
    _: *mut CK_OBJECT_HANDLE,
    most: CK_ULONG,
    count: *mut CK_ULONG,
) -> CK_RV {
    // SAFETY: the caller gives a valid place.
    unsafe { *count = most };
    claim(count)
}

/// Gives not one of them, as no module should.
extern "C" fn attributes(
    _: CK_SESSION_HANDLE,
    _: CK_ULONG,
    _: *mut CK_ATTRIBUTE,
    _: CK_ULONG,
) -> CK_RV {
    codes::ATTRIBUTE_TYPE_INVALID.0
}

extern "C" fn slots(_: CK_BBOOL, _: *mut CK_SLOT_ID, count: *mut CK_ULONG) -> CK_RV {
    claim(count)
}

fn library() -> Arc<Library> {
    Arc::new(Library::of_functions(CK_FUNCTION_LIST {
        C_OpenSession: Some(open),
        C_CloseSession: Some(close),
        C_EncryptInit: Some(init),
        C_DecryptInit: Some(init),
        C_Encrypt: Some(crypt),
        C_Decrypt: Some(crypt),
        C_SignInit: Some(init),
        C_Sign: Some(crypt),
        C_FindObjectsInit: Some(find_init),
        C_FindObjects: Some(find),
        C_FindObjectsFinal: Some(find_final),
        C_GenerateKey: Some(generate),
        C_GetAttributeValue: Some(attributes),
        C_GetSlotList: Some(slots),
        ..CK_FUNCTION_LIST::default()
    }))
}

fn session() -> Pkcs11Session {
    stage::session(library(), &profile::GENERIC).expect("it has a number")
}

/// A lie is noticed, and costs the session: nobody knows in which state it is.
fn nonsense<T>(result: Result<T, Fault>) {
    let fault = result.err().expect("it was a lie");
    assert!(matches!(fault.cause, Cause::Nonsense(_)), "{fault}");
    assert!(fault.kind == FaultKind::Bug && !fault.kind.keeps_session());
}

#[test]
fn a_ciphertext_has_the_length_of_the_plaintext_and_a_tag() {
    // P-41
    for lie in [-32, -16, -1, 1, 1 << 40, -(1 << 40)] {
        CLAIM.set(lie);
        nonsense(session().encrypt(KEY, &[1; 12], b"", TEXT));
    }
    CLAIM.set(0);
    assert!(session().encrypt(KEY, &[1; 12], b"", TEXT).is_ok());
}

#[test]
fn a_plaintext_has_the_length_of_the_ciphertext() {
    // P-50; the truth is a tag less than the buffer that the module was given.
    let truth = -i64::try_from(TAG_LEN).expect("it is small");
    for lie in [-32, truth - 1, truth + 1, 0, 1, 1 << 40] {
        CLAIM.set(lie);
        nonsense(session().decrypt(KEY, &[1; 12], b"", TEXT, &[0; TAG_LEN]));
    }
    CLAIM.set(truth);
    let opened = session().decrypt(KEY, &[1; 12], b"", TEXT, &[0; TAG_LEN]);
    assert_eq!(opened.expect("that is the length").len(), TEXT.len());
}

#[test]
fn a_signature_has_the_length_of_its_kind() {
    for how in [Signing::EcdsaP256, Signing::HmacSha256] {
        for lie in [-32, -1, 1, 1 << 40, -(1 << 40)] {
            CLAIM.set(lie);
            nonsense(session().sign(KEY, how, TEXT));
        }
        CLAIM.set(0);
        let signature = session().sign(KEY, how, TEXT).expect("that is the length");
        assert_eq!(signature.len(), how.signature_len());
    }
}

#[test]
fn an_iv_of_the_modules_own_is_noticed() {
    OWN_IV.set(true);
    nonsense(session().encrypt(KEY, &[1; 12], b"", TEXT));
}

#[test]
fn no_iv_but_of_12_or_16_bytes_reaches_a_module() {
    // P-50
    for length in [0, 1, 11, 13, 15, 17, 32] {
        let opened = session().decrypt(KEY, &vec![1; length], b"", TEXT, &[0; TAG_LEN]);
        assert_eq!(opened.expect_err("it is refused").kind, FaultKind::BadCiphertext);
    }
}

#[test]
fn a_search_ends_whatever_is_found() {
    // More objects than there was room for, and objects without end.
    for lie in [1, 1 << 40, 0] {
        CLAIM.set(lie);
        FINALS.set(0);
        nonsense(session().objects());
        assert_eq!(FINALS.get(), 1);
    }
}

#[test]
fn the_number_of_nothing_is_no_session_and_no_key() {
    let mut session = session();
    HANDLE.set(0);
    nonsense(session.make_probe_key());
    nonsense(stage::session(library(), &profile::GENERIC));
}

/// Else a key would lose its label, its kind or its usage by an accident of the token's.
#[test]
fn an_object_without_attributes_is_no_answer() {
    nonsense(session().read_changeable(KEY));
    nonsense(session().read_attributes(KEY));
}

#[test]
fn more_slots_than_room_are_refused() {
    CLAIM.set(1);
    nonsense(find_token(&library(), &metrics(), &TokenSelector::Label("any".into())));
}

#[test]
fn a_function_that_is_missing_is_not_called() {
    let fault = session().random(&mut [0; 12]).expect_err("there is none");
    assert_eq!((fault.kind, fault.function), (FaultKind::Bug, "C_GenerateRandom"));
}
