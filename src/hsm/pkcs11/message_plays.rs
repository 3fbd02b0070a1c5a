//! Tests against modules that play message functions: honest ones, and some that would lose data.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::Arc;

use cryptoki_sys::{
    CK_BYTE, CK_FLAGS, CK_FUNCTION_LIST, CK_FUNCTION_LIST_3_0, CK_GCM_MESSAGE_PARAMS,
    CK_GCM_PARAMS, CK_MECHANISM, CK_NOTIFY, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SLOT_ID,
    CK_ULONG, CKG_GENERATE_RANDOM, CKG_NO_GENERATE, CKR_ENCRYPTED_DATA_INVALID, CKR_OK,
    CKR_OPERATION_ACTIVE, CKR_OPERATION_NOT_INITIALIZED, CKR_SESSION_COUNT,
};

use super::session::Pkcs11Session;
use super::stage::{self, KEY};
use super::{Library, Pkcs11Backend};
use crate::hsm::backend::{Backend, ObjectHandle, Sealed, Session};
use crate::hsm::codes::Code;
use crate::hsm::fault::{Cause, Fault, FaultKind};
use crate::hsm::iv;
use crate::hsm::profile;

const TEXT: &[u8] = b"somebody's";
const AAD: &[u8] = b"aad";
const TAG: usize = 16;

/// What the module's message functions do.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Play {
    /// What they say.
    Honest,
    /// IVs are a counter, which begins anew with each operation (CKG_GENERATE in kryoptic).
    Counts,
    /// IVs are a counter over all sessions.
    CountsOn,
    /// The same IV again and again.
    Repeats,
    /// No IV is written: the caller's zeros are used.
    TakesTheQuestion,
    /// Another IV is told than was used.
    TellsAnother,
    /// What does not fit is decrypted.
    TakesAnything,
    /// The tag follows the ciphertext.
    AppendsTheTag,
    /// Only they decrypt what they encrypt.
    IsAnotherCipher,
    /// There are none.
    Unsupported,
}

thread_local! {
    static PLAY: Cell<Play> = const { Cell::new(Play::Honest) };
    static MADE: Cell<u64> = const { Cell::new(0) };
    /// Open sessions, and the most there may be.
    static SESSIONS: Cell<(CK_ULONG, CK_ULONG)> = const { Cell::new((0, CK_ULONG::MAX)) };
    /// What keys are, where that was changed since.
    static KEYS: RefCell<BTreeMap<CK_ULONG, u8>> = const { RefCell::new(BTreeMap::new()) };
    /// The key and its IVs' number, of the one operation of a session.
    static ACTIVE: RefCell<BTreeMap<CK_SESSION_HANDLE, (u8, u64)>> =
        const { RefCell::new(BTreeMap::new()) };
    /// IV, AAD and key of the operation that C_EncryptInit or C_DecryptInit began.
    static BEGUN: RefCell<(Vec<u8>, Vec<u8>, u8)> = const { RefCell::new((vec![], vec![], 0)) };
    static CALLS: RefCell<BTreeMap<&'static str, u32>> = const { RefCell::new(BTreeMap::new()) };
}

fn count(function: &'static str) {
    CALLS.with_borrow_mut(|calls| *calls.entry(function).or_default() += 1);
}

fn calls(what: impl FnOnce()) -> Vec<(&'static str, u32)> {
    CALLS.take();
    what();
    CALLS.take().into_iter().collect()
}

fn value_of(key: CK_OBJECT_HANDLE) -> u8 {
    KEYS.with_borrow(|keys| keys.get(&key).copied()).unwrap_or(key as u8)
}

/// No cipher, but key, IV and AAD are all in what comes out.
fn apply(key: u8, iv: &[u8], aad: &[u8], input: &[u8]) -> Vec<u8> {
    let mask = iv.iter().chain(aad).fold(key, |mask, byte| mask.rotate_left(3) ^ byte);
    input.iter().map(|byte| byte ^ mask).collect()
}

fn tag(key: u8, iv: &[u8], aad: &[u8], plaintext: &[u8]) -> [u8; TAG] {
    let sum = plaintext.iter().fold(0x5a, |sum: u8, byte| sum.rotate_left(1) ^ byte);
    let bytes = apply(key, iv, aad, &[sum; TAG]);
    bytes.try_into().expect("it is as long")
}

/// # Safety
/// It points to so many bytes.
unsafe fn slice<'a>(start: *mut CK_BYTE, length: CK_ULONG) -> &'a mut [u8] {
    if length == 0 {
        return &mut [];
    }
    // SAFETY: as the caller says.
    unsafe { std::slice::from_raw_parts_mut(start, length as usize) }
}

extern "C" fn init(_: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_ULONG) -> CK_RV {
    // SAFETY: the caller gives AES-GCM parameters with an IV.
    let (iv, aad) = unsafe {
        let gcm = *(*mechanism).pParameter.cast::<CK_GCM_PARAMS>();
        (slice(gcm.pIv, gcm.ulIvLen).to_vec(), slice(gcm.pAAD, gcm.ulAADLen).to_vec())
    };
    BEGUN.set((iv, aad, value_of(key)));
    CKR_OK
}

extern "C" fn encrypt(
    _: CK_SESSION_HANDLE,
    input: *mut CK_BYTE,
    input_length: CK_ULONG,
    output: *mut CK_BYTE,
    length: *mut CK_ULONG,
) -> CK_RV {
    count("C_Encrypt");
    let (iv, aad, key) = BEGUN.take();
    // SAFETY: the caller gives buffers of these lengths.
    unsafe {
        let input = slice(input, input_length);
        let bytes = [apply(key, &iv, &aad, input), tag(key, &iv, &aad, input).to_vec()].concat();
        slice(output, *length).copy_from_slice(&bytes);
    }
    CKR_OK
}

extern "C" fn decrypt(
    _: CK_SESSION_HANDLE,
    input: *mut CK_BYTE,
    input_length: CK_ULONG,
    output: *mut CK_BYTE,
    length: *mut CK_ULONG,
) -> CK_RV {
    count("C_Decrypt");
    let (iv, aad, key) = BEGUN.take();
    // SAFETY: the caller gives buffers of these lengths.
    unsafe {
        let (input, given) = slice(input, input_length).split_at(input_length as usize - TAG);
        let plaintext = apply(key, &iv, &aad, input);
        if tag(key, &iv, &aad, &plaintext) != given {
            return CKR_ENCRYPTED_DATA_INVALID;
        }
        slice(output, plaintext.len() as CK_ULONG).copy_from_slice(&plaintext);
        *length = plaintext.len() as CK_ULONG;
    }
    CKR_OK
}

fn message_init(function: &'static str, session: CK_SESSION_HANDLE, key: CK_ULONG) -> CK_RV {
    count(function);
    if PLAY.get() == Play::Unsupported {
        return crate::hsm::codes::FUNCTION_NOT_SUPPORTED.0;
    }
    ACTIVE.with_borrow_mut(|active| {
        if active.contains_key(&session) {
            return CKR_OPERATION_ACTIVE;
        }
        active.insert(session, (value_of(key), 0));
        CKR_OK
    })
}

fn message_final(function: &'static str, session: CK_SESSION_HANDLE) -> CK_RV {
    count(function);
    match ACTIVE.with_borrow_mut(|active| active.remove(&session)) {
        Some(_) => CKR_OK,
        None => CKR_OPERATION_NOT_INITIALIZED,
    }
}

extern "C" fn encrypt_init(s: CK_SESSION_HANDLE, _: *mut CK_MECHANISM, key: CK_ULONG) -> CK_RV {
    message_init("C_MessageEncryptInit", s, key)
}

extern "C" fn decrypt_init(s: CK_SESSION_HANDLE, _: *mut CK_MECHANISM, key: CK_ULONG) -> CK_RV {
    message_init("C_MessageDecryptInit", s, key)
}

extern "C" fn encrypt_final(s: CK_SESSION_HANDLE) -> CK_RV {
    message_final("C_MessageEncryptFinal", s)
}

extern "C" fn decrypt_final(s: CK_SESSION_HANDLE) -> CK_RV {
    message_final("C_MessageDecryptFinal", s)
}

/// What looks random, and is another each time.
fn fresh() -> [u8; 12] {
    MADE.set(MADE.get() + 1);
    let mut state = MADE.get();
    [(); 12].map(|()| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
}

fn counted(number: u64) -> [u8; 12] {
    let mut iv = [1; 12];
    iv[4..].copy_from_slice(&number.to_be_bytes());
    iv
}

extern "C" fn encrypt_message(
    session: CK_SESSION_HANDLE,
    parameter: *mut c_void,
    parameter_length: CK_ULONG,
    aad: *mut CK_BYTE,
    aad_length: CK_ULONG,
    input: *mut CK_BYTE,
    input_length: CK_ULONG,
    output: *mut CK_BYTE,
    length: *mut CK_ULONG,
) -> CK_RV {
    count("C_EncryptMessage");
    let begun = ACTIVE.with_borrow_mut(|active| {
        active.get_mut(&session).map(|(key, number)| {
            *number += 1;
            (*key, *number)
        })
    });
    let Some((key, number)) = begun else { return CKR_OPERATION_NOT_INITIALIZED };
    assert_eq!(parameter_length as usize, size_of::<CK_GCM_MESSAGE_PARAMS>());
    // SAFETY: the caller gives parameters, IV, tag and buffers of these lengths.
    unsafe {
        let gcm = *parameter.cast::<CK_GCM_MESSAGE_PARAMS>();
        assert_eq!((gcm.ivGenerator, gcm.ulIvFixedBits), (CKG_GENERATE_RANDOM, 0));
        assert_eq!((gcm.ulIvLen, gcm.ulTagBits), (12, 128));
        let (used, told) = match PLAY.get() {
            Play::Counts => (counted(number), counted(number)),
            Play::CountsOn => {
                MADE.set(MADE.get() + 1);
                (counted(MADE.get()), counted(MADE.get()))
            }
            Play::Repeats => ([7; 12], [7; 12]),
            Play::TakesTheQuestion => ([0; 12], [0; 12]),
            Play::TellsAnother => (fresh(), fresh()),
            _ => {
                let iv = fresh();
                (iv, iv)
            }
        };
        let key = if PLAY.get() == Play::IsAnotherCipher { key ^ 0xff } else { key };
        let (input, aad) = (slice(input, input_length), slice(aad, aad_length));
        let ciphertext = apply(key, &used, aad, input);
        let tag = tag(key, &used, aad, input);
        slice(gcm.pIv, 12).copy_from_slice(&told);
        slice(gcm.pTag, 16).copy_from_slice(&tag);
        let bytes = match PLAY.get() {
            Play::AppendsTheTag => [ciphertext, tag.to_vec()].concat(),
            _ => ciphertext,
        };
        slice(output, *length)[..bytes.len()].copy_from_slice(&bytes);
        *length = bytes.len() as CK_ULONG;
    }
    CKR_OK
}

extern "C" fn decrypt_message(
    session: CK_SESSION_HANDLE,
    parameter: *mut c_void,
    _: CK_ULONG,
    aad: *mut CK_BYTE,
    aad_length: CK_ULONG,
    input: *mut CK_BYTE,
    input_length: CK_ULONG,
    output: *mut CK_BYTE,
    length: *mut CK_ULONG,
) -> CK_RV {
    count("C_DecryptMessage");
    let begun = ACTIVE.with_borrow(|active| active.get(&session).copied());
    let Some((key, _)) = begun else { return CKR_OPERATION_NOT_INITIALIZED };
    // SAFETY: the caller gives parameters, IV, tag and buffers of these lengths.
    unsafe {
        let gcm = *parameter.cast::<CK_GCM_MESSAGE_PARAMS>();
        assert_eq!(gcm.ivGenerator, CKG_NO_GENERATE);
        let key = if PLAY.get() == Play::IsAnotherCipher { key ^ 0xff } else { key };
        let (iv, aad) = (slice(gcm.pIv, gcm.ulIvLen), slice(aad, aad_length));
        let plaintext = apply(key, iv, aad, slice(input, input_length));
        if tag(key, iv, aad, &plaintext) != slice(gcm.pTag, 16) && PLAY.get() != Play::TakesAnything
        {
            return CKR_ENCRYPTED_DATA_INVALID;
        }
        slice(output, *length)[..plaintext.len()].copy_from_slice(&plaintext);
        *length = plaintext.len() as CK_ULONG;
    }
    CKR_OK
}

extern "C" fn open(
    _: CK_SLOT_ID,
    _: CK_FLAGS,
    _: *mut c_void,
    _: CK_NOTIFY,
    session: *mut CK_SESSION_HANDLE,
) -> CK_RV {
    let (opened, most) = SESSIONS.get();
    if opened == most {
        return CKR_SESSION_COUNT;
    }
    SESSIONS.set((opened + 1, most));
    // SAFETY: the caller gives a valid place.
    unsafe { *session = opened + 1 };
    CKR_OK
}

extern "C" fn random(_: CK_SESSION_HANDLE, output: *mut CK_BYTE, length: CK_ULONG) -> CK_RV {
    // SAFETY: the caller gives a buffer of this length.
    unsafe { slice(output, length) }.copy_from_slice(&fresh()[..length as usize]);
    CKR_OK
}

fn library() -> Arc<Library> {
    let functions = CK_FUNCTION_LIST {
        C_OpenSession: Some(open),
        C_GenerateRandom: Some(random),
        C_EncryptInit: Some(init),
        C_DecryptInit: Some(init),
        C_Encrypt: Some(encrypt),
        C_Decrypt: Some(decrypt),
        ..stage::functions()
    };
    let newer = CK_FUNCTION_LIST_3_0 {
        C_MessageEncryptInit: Some(encrypt_init),
        C_EncryptMessage: Some(encrypt_message),
        C_MessageEncryptFinal: Some(encrypt_final),
        C_MessageDecryptInit: Some(decrypt_init),
        C_DecryptMessage: Some(decrypt_message),
        C_MessageDecryptFinal: Some(decrypt_final),
        ..CK_FUNCTION_LIST_3_0::default()
    };
    Arc::new(Library::of_both(functions, &newer))
}

fn backend() -> Pkcs11Backend {
    stage::backend(library(), Some(&profile::KRYOPTIC))
}

fn session() -> Pkcs11Session {
    stage::session(library(), &profile::KRYOPTIC).expect("there is room")
}

fn key(number: u64) -> ObjectHandle {
    ObjectHandle { number, ..KEY }
}

fn sealed(session: &mut dyn Session, key: ObjectHandle) -> Result<Sealed, Fault> {
    session.encrypt(key, &iv::NONE, AAD, TEXT)
}

fn opened(session: &mut dyn Session, key: ObjectHandle, sealed: &Sealed) -> Result<(), Fault> {
    let Sealed { iv, ciphertext, tag } = sealed;
    let opened = session.decrypt(key, iv.as_bytes(), AAD, ciphertext, tag)?;
    assert_eq!(opened.expose(), TEXT);
    Ok(())
}

#[test]
fn an_operation_is_one_call() {
    let mut session = session();
    assert!(session.makes_ivs());
    let first = sealed(&mut session, KEY).expect("it encrypts");
    opened(&mut session, KEY, &first).expect("it decrypts");
    let calls = calls(|| {
        for _ in 0..10 {
            let next = sealed(&mut session, KEY).expect("it encrypts");
            assert_ne!(next.iv, first.iv);
            assert_eq!(next.ciphertext.len(), TEXT.len());
            opened(&mut session, KEY, &next).expect("it decrypts");
        }
    });
    assert_eq!(calls, [("C_DecryptMessage", 10), ("C_EncryptMessage", 10)]);
}

/// A handle is given out again: what is open under it is the key that it named before.
#[test]
fn what_was_open_before_a_reading_is_not_used_after_it() {
    let mut session = session();
    let before = sealed(&mut session, KEY).expect("it encrypts");
    opened(&mut session, KEY, &before).expect("it decrypts");
    KEYS.with_borrow_mut(|keys| keys.insert(KEY.number, 99));
    session.keys_were_read().expect("nothing is called");
    let calls = calls(|| {
        let after = sealed(&mut session, KEY).expect("it encrypts");
        opened(&mut session, KEY, &after).expect("it decrypts");
        // The new key's, whatever was open.
        opened(&mut self::session(), KEY, &after).expect("any session decrypts it");
    });
    assert!(calls.contains(&("C_MessageEncryptFinal", 1)), "{calls:?}");
    assert!(calls.contains(&("C_MessageDecryptFinal", 1)), "{calls:?}");
    let fault = opened(&mut session, KEY, &before).expect_err("it was another key's");
    assert_eq!(fault.kind, FaultKind::BadCiphertext);
}

/// Another session's reading counts too: the steward reads, workers encrypt.
#[test]
fn a_reading_of_one_session_is_one_for_all() {
    let backend = backend();
    let mut steward = backend.connect().expect("it proves all");
    let mut worker = backend.open_session().expect("there is room");
    let handle = steward.make_probe_key().expect("there is one");
    sealed(worker.as_mut(), handle).expect("it encrypts");
    steward.keys_were_read().expect("nothing is called");
    let calls = calls(|| drop(sealed(worker.as_mut(), handle).expect("it encrypts")));
    assert_eq!(
        calls,
        [("C_EncryptMessage", 1), ("C_MessageEncryptFinal", 1), ("C_MessageEncryptInit", 1)]
    );
}

#[test]
fn a_few_keys_stay_open_and_the_least_used_makes_room() {
    let mut session = session();
    for number in 1..=4 {
        sealed(&mut session, key(number)).expect("it encrypts");
    }
    let of_four = calls(|| {
        for number in 1..=4 {
            sealed(&mut session, key(number)).expect("it encrypts");
        }
    });
    assert_eq!(of_four, [("C_EncryptMessage", 4)]);
    let fifth = calls(|| drop(sealed(&mut session, key(5)).expect("it encrypts")));
    let began =
        [("C_EncryptMessage", 1), ("C_MessageEncryptFinal", 1), ("C_MessageEncryptInit", 1)];
    assert_eq!(fifth, began);
    let last = calls(|| drop(sealed(&mut session, key(4)).expect("it encrypts")));
    assert_eq!(last, [("C_EncryptMessage", 1)]);
    let first = calls(|| drop(sealed(&mut session, key(1)).expect("it encrypts")));
    assert_eq!(first, began);
}

#[test]
fn who_gets_no_session_more_uses_those_that_there_are() {
    SESSIONS.set((0, 2));
    let mut session = session();
    for number in 1..=3 {
        sealed(&mut session, key(number)).expect("there is one for whichever key");
    }
    // Not one for decrypting.
    let first = sealed(&mut session, KEY).expect("it encrypts");
    assert_eq!(opened(&mut session, KEY, &first).expect_err("no room").kind, FaultKind::Busy);
}

#[test]
fn a_bad_ciphertext_costs_an_operation_and_no_session() {
    let mut session = session();
    let good = sealed(&mut session, KEY).expect("it encrypts");
    let bad = Sealed { tag: [1; TAG], ..good.clone() };
    let before = SESSIONS.get();
    for _ in 0..3 {
        let fault = opened(&mut session, KEY, &bad).expect_err("it does not fit");
        assert_eq!((fault.kind, fault.function), (FaultKind::BadCiphertext, "C_DecryptMessage"));
        opened(&mut session, KEY, &good).expect("it goes on");
    }
    assert_eq!(SESSIONS.get().0, before.0 + 1, "one for decrypting");
}

#[test]
fn an_operation_that_vanished_is_begun_anew() {
    let mut session = session();
    let first = sealed(&mut session, KEY).expect("it encrypts");
    ACTIVE.take();
    let second = sealed(&mut session, KEY).expect("it is begun anew");
    assert_ne!(first.iv, second.iv);
    opened(&mut session, KEY, &second).expect("it decrypts");
    ACTIVE.take();
    opened(&mut session, KEY, &second).expect("this one too");
}

#[test]
fn an_iv_that_came_before_is_refused_and_never_forgiven() {
    let mut session = session();
    sealed(&mut session, KEY).expect("it is new");
    PLAY.set(Play::Repeats);
    sealed(&mut session, KEY).expect("this one is new, too");
    assert_eq!(sealed(&mut session, KEY).expect_err("it is not").kind, FaultKind::TokenLost);
    PLAY.set(Play::Honest);
    assert!(sealed(&mut session, KEY).is_err(), "it lied once");
}

#[test]
fn a_length_that_is_not_the_plaintexts_is_nonsense() {
    // P-41
    PLAY.set(Play::AppendsTheTag);
    let fault = sealed(&mut session(), KEY).expect_err("it is too long");
    assert!(matches!(fault.cause, Cause::Nonsense(_)), "{fault}");
}

/// Two calls an operation are never wrong.
#[test]
fn without_a_proof_an_operation_is_two_calls() {
    for play in [
        Play::Counts,
        Play::CountsOn,
        Play::Repeats,
        Play::TakesTheQuestion,
        Play::TellsAnother,
        Play::TakesAnything,
        Play::AppendsTheTag,
        Play::IsAnotherCipher,
        Play::Unsupported,
    ] {
        PLAY.set(play);
        let backend = backend();
        let mut session = backend.connect().expect("it can be used all the same");
        assert!(!session.makes_ivs(), "{play:?}");
        let worker = backend.open_session().expect("there is room");
        assert!(!worker.makes_ivs(), "{play:?}");
        let handle = session.make_probe_key().expect("there is one");
        let given = [9; 12];
        let calls = calls(|| {
            let sealed = session.encrypt(handle, &given, AAD, TEXT).expect("it encrypts");
            assert_eq!(sealed.iv.as_bytes(), given);
        });
        assert_eq!(calls, [("C_Encrypt", 1)], "{play:?}");
    }
    PLAY.set(Play::Honest);
    assert!(backend().connect().expect("it proves all").makes_ivs());
}

#[test]
fn who_changes_keys_makes_two_calls() {
    let session = backend().administer().expect("it is connected to");
    assert!(!session.makes_ivs());
}

#[test]
fn nothing_is_encrypted_under_no_iv() {
    let mut session = session();
    session.link.messages = None;
    let calls = calls(|| {
        let fault = sealed(&mut session, KEY).expect_err("there is no IV");
        assert_eq!(fault.kind, FaultKind::Bug);
    });
    assert_eq!(calls, []);
}

#[test]
fn every_code_is_that_of_the_function_without_messages() {
    for (of_messages, without) in [
        ("C_MessageEncryptInit", "C_EncryptInit"),
        ("C_EncryptMessage", "C_Encrypt"),
        ("C_MessageDecryptInit", "C_DecryptInit"),
        ("C_DecryptMessage", "C_Decrypt"),
    ] {
        for &(code, name) in crate::hsm::codes::ALL {
            let kind = |function, code: Code| {
                crate::hsm::fault::classify(&profile::KRYOPTIC, function, code)
            };
            // Of an IV, which comes with the message and not with the beginning.
            if (code, without) == (crate::hsm::codes::MECHANISM_PARAM_INVALID, "C_DecryptInit") {
                assert_eq!(kind("C_DecryptMessage", code), kind(without, code));
            } else if code != crate::hsm::codes::MECHANISM_PARAM_INVALID {
                assert_eq!(kind(of_messages, code), kind(without, code), "{of_messages} {name}");
            }
        }
    }
}
