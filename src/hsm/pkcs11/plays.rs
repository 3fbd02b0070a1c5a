//! Tests against modules that play those of vendors: tokens that make their IVs, and some that only
//! seem to.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use cryptoki_sys::{
    CK_BYTE, CK_FUNCTION_LIST, CK_GCM_PARAMS, CK_INFO, CK_MECHANISM, CK_RV, CK_SESSION_HANDLE,
    CK_ULONG, CKR_ENCRYPTED_DATA_INVALID, CKR_OK,
};

use super::session::Pkcs11Session;
use super::stage::{self, KEY};
use super::token_iv::admit;
use super::{Library, Pkcs11Backend};
use crate::hsm::backend::{Backend, Sealed, Session};
use crate::hsm::fault::{Cause, Fault, FaultKind};
use crate::hsm::profile::{self, IvSource, Profile};
use crate::wire::gcm::Iv;

const TEXT: &[u8] = b"somebody's";
const TAG: usize = 16;

/// What the module does when it is asked for an IV.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Play {
    /// Writes a new one over the zeros.
    InPlace,
    /// Appends a new one.
    Appended,
    /// Takes the zeros, or nothing, for the IV (SoftHSM2).
    TakesTheQuestion,
    /// Makes a new one in place, and gives another.
    TellsAnother,
    /// Gives one that it gave before.
    Repeats,
    /// Appends one that is too short.
    AppendsTooLittle,
}

thread_local! {
    static PLAY: Cell<Play> = const { Cell::new(Play::InPlace) };
    static MADE: Cell<u8> = const { Cell::new(0) };
    /// Where the caller's IV is, and its length.
    static GIVEN: Cell<(*mut CK_BYTE, usize)> = const { Cell::new((std::ptr::null_mut(), 0)) };
    static SLOT_WORDS: RefCell<&'static str> = const { RefCell::new("") };
}

extern "C" fn init(_: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, _: CK_ULONG) -> CK_RV {
    // SAFETY: the caller gives AES-GCM parameters.
    let gcm = unsafe { *(*mechanism).pParameter.cast::<CK_GCM_PARAMS>() };
    assert_eq!(gcm.ulIvBits, gcm.ulIvLen * 8);
    assert_eq!(gcm.pIv.is_null(), gcm.ulIvLen == 0);
    GIVEN.set((gcm.pIv, gcm.ulIvLen as usize));
    CKR_OK
}

/// No cipher, but one text under two IVs is two ciphertexts, and the tag fits one IV only.
fn apply(iv: &[u8], input: &[u8]) -> (Vec<u8>, [u8; TAG]) {
    let mask = iv.first().map_or(0x5a, |byte| byte ^ 0xa5);
    (input.iter().map(|byte| byte ^ mask).collect(), [mask; TAG])
}

extern "C" fn encrypt(
    _: CK_SESSION_HANDLE,
    input: *mut CK_BYTE,
    input_length: CK_ULONG,
    output: *mut CK_BYTE,
    length: *mut CK_ULONG,
) -> CK_RV {
    let (given, given_length) = GIVEN.get();
    if PLAY.get() != Play::Repeats {
        MADE.set(MADE.get() + 1);
    }
    let made = |length| vec![MADE.get(); length];
    // SAFETY: the caller's IV lives until the operation ends.
    let question = || unsafe { std::slice::from_raw_parts(given, given_length) }.to_vec();
    let (used, told, appended) = match PLAY.get() {
        Play::InPlace | Play::Repeats => (made(12), made(12), vec![]),
        Play::Appended => (made(16), vec![], made(16)),
        Play::TakesTheQuestion if given.is_null() => (vec![], vec![], vec![]),
        Play::TakesTheQuestion => (question(), question(), vec![]),
        Play::TellsAnother => (made(12), vec![MADE.get() ^ 0x80; 12], vec![]),
        Play::AppendsTooLittle => (made(12), vec![], made(12)),
    };
    // SAFETY: the caller gives a text of this length.
    let input = unsafe { std::slice::from_raw_parts(input, input_length as usize) };
    let (ciphertext, tag) = apply(&used, input);
    let bytes = [&ciphertext[..], &tag, &appended].concat();
    // SAFETY: the caller gives a buffer of this length, and an IV of the length it says.
    unsafe {
        assert!(bytes.len() <= *length as usize);
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), output, bytes.len());
        *length = bytes.len() as CK_ULONG;
        if !told.is_empty() {
            assert_eq!((given_length, &*question()), (12, &[0; 12][..]), "the question is zeros");
            std::ptr::copy_nonoverlapping(told.as_ptr(), given, told.len());
        }
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
    let (given, given_length) = GIVEN.get();
    // SAFETY: the caller gives an IV and a text of these lengths.
    let (iv, input) = unsafe {
        let iv = std::slice::from_raw_parts(given, given_length);
        (iv, std::slice::from_raw_parts(input, input_length as usize))
    };
    let (ciphertext, tag) = input.split_at(input.len() - TAG);
    let (plaintext, expected) = apply(iv, ciphertext);
    if expected != tag {
        return CKR_ENCRYPTED_DATA_INVALID;
    }
    // SAFETY: the buffer is as long as the input.
    unsafe {
        std::ptr::copy_nonoverlapping(plaintext.as_ptr(), output, plaintext.len());
        *length = plaintext.len() as CK_ULONG;
    }
    CKR_OK
}

extern "C" fn module_info(info: *mut CK_INFO) -> CK_RV {
    let words = SLOT_WORDS.with_borrow(|words| words.as_bytes());
    let mut description = [b' '; 32];
    description[..words.len()].copy_from_slice(words);
    // SAFETY: the caller gives a valid place.
    unsafe { (*info).libraryDescription = description };
    CKR_OK
}

fn library() -> Arc<Library> {
    Arc::new(Library::of_functions(CK_FUNCTION_LIST {
        C_GetInfo: Some(module_info),
        C_EncryptInit: Some(init),
        C_DecryptInit: Some(init),
        C_Encrypt: Some(encrypt),
        C_Decrypt: Some(decrypt),
        ..stage::functions()
    }))
}

fn session(profile: &'static Profile) -> Pkcs11Session {
    stage::session(library(), profile).expect("it has a number")
}

fn encrypted(session: &mut Pkcs11Session) -> Result<Sealed, Fault> {
    session.encrypt(KEY, &[9; 12], b"aad", TEXT)
}

fn backend(profile: Option<&'static Profile>) -> Pkcs11Backend {
    stage::backend(library(), profile)
}

/// The profiles whose tokens make IVs, each with a play that fits.
const PLAYS: [(&Profile, Play); 3] = [
    (&profile::CLOUDHSM, Play::InPlace),
    (&profile::NSHIELD, Play::InPlace),
    (&profile::LUNA_FIPS, Play::Appended),
];

#[test]
fn the_tokens_iv_is_the_one_that_comes_back() {
    for (profile, play) in PLAYS {
        PLAY.set(play);
        let mut session = session(profile);
        let (first, second) = (encrypted(&mut session), encrypted(&mut session));
        let (first, second) = (first.expect("it is new"), second.expect("it is new"));
        assert_ne!(first.iv, second.iv);
        let in_place = profile.iv_source == IvSource::TokenInPlace;
        assert_eq!(matches!(first.iv, Iv::Twelve(_)), in_place, "{profile}");
        for Sealed { iv, ciphertext, tag } in [first, second] {
            // P-41
            assert_eq!(ciphertext.len(), TEXT.len());
            let opened = session.decrypt(KEY, iv.as_bytes(), b"aad", &ciphertext, &tag);
            assert_eq!(opened.expect("it fits").expose(), TEXT);
        }
    }
}

#[test]
fn an_iv_that_is_the_question_is_never_used_and_never_forgiven() {
    PLAY.set(Play::TakesTheQuestion);
    for profile in [&profile::CLOUDHSM, &profile::NSHIELD] {
        let mut session = session(profile);
        let fault = encrypted(&mut session).expect_err("it is the question");
        assert_eq!(fault.kind, FaultKind::TokenLost);
        PLAY.set(Play::InPlace);
        assert!(encrypted(&mut session).is_err(), "it lied once");
        PLAY.set(Play::TakesTheQuestion);
    }
    // No IV was appended: the output is too short.
    let fault = encrypted(&mut session(&profile::LUNA_FIPS)).expect_err("there is none");
    assert!(matches!(fault.cause, Cause::Nonsense(_)), "{fault}");
}

#[test]
fn an_iv_that_came_before_is_refused() {
    PLAY.set(Play::InPlace);
    let mut session = session(&profile::CLOUDHSM);
    encrypted(&mut session).expect("it is new");
    PLAY.set(Play::Repeats);
    assert_eq!(encrypted(&mut session).expect_err("it is not").kind, FaultKind::TokenLost);
    // Sessions know it of each other.
    let mut another = self::session(&profile::CLOUDHSM);
    another.link.token_ivs = session.link.token_ivs.clone();
    assert!(encrypted(&mut another).is_err());
}

#[test]
fn lengths_are_exact() {
    // P-41
    for (profile, play) in [
        (&profile::LUNA_FIPS, Play::AppendsTooLittle),
        (&profile::LUNA_FIPS, Play::TakesTheQuestion),
    ] {
        PLAY.set(play);
        let fault = encrypted(&mut session(profile)).expect_err("it is too short");
        assert!(matches!(fault.cause, Cause::Nonsense(_)), "{fault}");
    }
}

#[test]
fn who_makes_ivs_proves_it_before_it_is_used() {
    for (profile, play) in PLAYS {
        PLAY.set(play);
        admit(&mut session(profile)).expect("it proves it");
        assert!(backend(Some(profile)).connect().is_ok(), "{profile}");
        for other in [Play::TakesTheQuestion, Play::TellsAnother, Play::Repeats] {
            PLAY.set(other);
            if profile.iv_source == IvSource::TokenInPlace {
                assert!(admit(&mut session(profile)).is_err(), "{profile} {other:?}");
                assert!(backend(Some(profile)).connect().is_err(), "{profile} {other:?}");
            }
        }
    }
    PLAY.set(Play::TakesTheQuestion);
    assert!(backend(Some(&profile::LUNA_FIPS)).connect().is_err());
}

#[test]
fn by_its_name_no_token_is_asked_for_an_iv() {
    for words in ["CloudHSM", "nShield", "SoftHSM", "Luna", "none of these"] {
        SLOT_WORDS.set(words);
        let backend = backend(None);
        // Whatever it does with zeros: it is given none.
        backend.connect().expect("nothing has to be proved");
        let chosen = backend.connected().expect("it is").profile;
        assert_eq!(chosen.iv_source, IvSource::HostFromTokenRng, "{words}");
    }
    SLOT_WORDS.set("SoftHSM");
    let recognised = backend(None);
    recognised.connect().expect("nothing has to be proved");
    assert_eq!(recognised.connected().expect("it is").profile, &profile::SOFTHSM2);
    // What the operator says counts more.
    let named = backend(Some(&profile::LUNA));
    named.connect().expect("nothing has to be proved");
    assert_eq!(named.connected().expect("it is").profile, &profile::LUNA);
}
