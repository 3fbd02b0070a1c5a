//! Clauses on encryption, decryption, random numbers, and the handles they take.

use std::collections::BTreeSet;
use std::thread;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use xksd::catalogue::Reader;
use xksd::hsm::backend::{Backend, IV_LEN, ObjectHandle, Sealed, Session, TAG_LEN};
use xksd::hsm::fault::{Fault, FaultKind};
use xksd::hsm::key::Usage;
use xksd::secret::Plaintext;
use xksd::wire::gcm::Iv;

use super::{BOTH, Keys, VALUE, bytes, connect, find, iv, refused, round_trip, with_key};
use crate::foreign::Material;

/// Every size of plaintext and AAD that the protocol asks for comes back (P-40, P-42, P-50).
pub fn round_trips(backend: &dyn Backend, keys: &dyn Keys) {
    let (mut session, key) = with_key(backend, keys);
    for plaintext in [16, 4300, 8192] {
        // The longest: 2 bytes of length, 16,384 of AAD, 1 of length, 13 of metadata (P-42).
        for aad in [0, 1, 3, 16, 8195, 2 + 16_384 + 1 + 13] {
            round_trip(session.as_mut(), key, &bytes(aad), &bytes(plaintext));
        }
    }
    // One byte encrypts to itself once in 256 times: compared with a vector instead, where the IV is
    // ours.
    let one = session.encrypt(key, &FIXED_IV, b"", &[0x73]).expect("the key encrypts");
    let opened = session.decrypt(key, one.iv.as_bytes(), b"", &one.ciphertext, &one.tag);
    assert_eq!(opened.expect("it fits").expose(), [0x73]);
    assert_eq!(one.ciphertext.len(), 1);
    assert!(session.makes_ivs() || one.ciphertext == [0x34]);
}

const FIXED_IV: [u8; IV_LEN] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
const TEXT: &[u8] = b"sixteen byte iv";

/// It is AES-256-GCM: equal to what an implementation of nobody's here gives.
pub fn known_answer(backend: &dyn Backend, keys: &dyn Keys) {
    let (mut session, key) = with_key(backend, keys);
    let ciphertext = b"\x34\x6b\xae\x6f\xa0\x80\xac\x3b\xef\x38\xe3\xee\x91\x80\x0e";
    let tag = *b"\xd9\x93\x6c\xe4\x26\x5a\x5b\xcc\x79\x2e\xdf\x6f\x58\x2b\xe6\xdd";
    let opened = session.decrypt(key, &FIXED_IV, b"aad", ciphertext, &tag);
    assert_eq!(opened.expect("the key decrypts").expose(), TEXT);
    let sealed = session.encrypt(key, &FIXED_IV, b"aad", TEXT).expect("the key encrypts");
    if session.makes_ivs() {
        let theirs = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, VALUE).expect("it is a key"));
        let iv = Nonce::try_assume_unique_for_key(sealed.iv.as_bytes()).expect("it has 12 bytes");
        let mut bytes = [&sealed.ciphertext[..], &sealed.tag].concat();
        let opened = theirs.open_in_place(iv, Aad::from(b"aad"), &mut bytes);
        assert_eq!(opened.expect("it fits"), TEXT);
    } else {
        let iv = Iv::Twelve(FIXED_IV);
        assert_eq!(sealed, Sealed { iv, ciphertext: ciphertext.to_vec(), tag });
    }
}

/// What was encrypted under an IV of 16 bytes is decrypted; a token that can't says that the
/// ciphertext is bad, or what a canary settles as that, and not that the HSM is in trouble (P-50).
pub fn long_iv(backend: &dyn Backend, keys: &dyn Keys) {
    let (mut session, key) = with_key(backend, keys);
    let iv: Vec<u8> = (0..16).collect();
    let ciphertext = b"\x14\x05\xd8\x02\x5c\x81\x24\x08\xff\x86\xaf\x4c\x75\xcd\x5a";
    let tag = b"\xdb\xc2\x9c\x1f\xb7\xca\xe8\x94\xfe\x3d\xc2\x4f\x5a\x25\x59\x3e";
    let opened = session.decrypt(key, &iv, b"aad", ciphertext, tag);
    if keys.takes_long_ivs() {
        assert_eq!(opened.expect("the token takes it").expose(), TEXT);
    } else {
        refused(opened, &[FaultKind::Ambiguous, FaultKind::BadCiphertext]);
    }
    round_trip(session.as_mut(), key, b"aad", &bytes(64));
}

/// What does not fit is refused as a bad ciphertext, or as something that a canary settles, and the
/// same session goes on working (P-51).
pub fn bad_ciphertext(backend: &dyn Backend, keys: &dyn Keys) {
    let (mut session, key) = with_key(backend, keys);
    let session = session.as_mut();
    keys.add(b"other", b"", Material::Aes(&[9; 32]), BOTH);
    let other = find(session, b"other");
    let (plaintext, aad, iv) = (bytes(64), bytes(20), iv(session));
    let Sealed { iv, ciphertext, tag } =
        session.encrypt(key, &iv, &aad, &plaintext).expect("the key encrypts");
    let iv = iv.as_bytes().try_into().expect("it has 12 bytes");
    let good = Attempt { key, iv, aad, ciphertext, tag };
    let cases: [(&str, Spoil); 9] = [
        ("first bit of the tag", |a| a.tag[0] ^= 0x80),
        ("last bit of the tag", |a| a.tag[15] ^= 1),
        ("first bit", |a| a.ciphertext[0] ^= 0x80),
        ("last bit", |a| a.ciphertext[63] ^= 1),
        ("IV", |a| a.iv[11] ^= 1),
        ("AAD", |a| a.aad[19] ^= 1),
        ("AAD left out", |a| a.aad.clear()),
        ("shortened", |a| a.ciphertext.truncate(63)),
        ("one byte", |a| a.ciphertext.truncate(1)),
    ];
    let bad = cases.map(|(case, spoil)| {
        let mut attempt = good.clone();
        spoil(&mut attempt);
        (case, attempt)
    });
    let another_key = ("another key", Attempt { key: other, ..good.clone() });
    for (case, attempt) in bad.into_iter().chain([another_key]) {
        let kinds = &[FaultKind::BadCiphertext, FaultKind::Ambiguous];
        let fault = refused(attempt.decrypt(session), kinds);
        assert!(["C_Decrypt", "C_DecryptMessage"].contains(&fault.function), "{case}: {fault}");
        round_trip(session, key, &good.aad, &plaintext);
    }
    let opened = good.decrypt(session).expect("the token is unharmed");
    assert_eq!(opened.expose(), plaintext);
}

/// Makes an attempt one that must fail.
type Spoil = fn(&mut Attempt);

/// Everything that a decryption takes.
#[derive(Clone)]
struct Attempt {
    key: ObjectHandle,
    iv: [u8; IV_LEN],
    aad: Vec<u8>,
    ciphertext: Vec<u8>,
    tag: [u8; TAG_LEN],
}

impl Attempt {
    fn decrypt(&self, session: &mut dyn Session) -> Result<Plaintext, Fault> {
        session.decrypt(self.key, &self.iv, &self.aad, &self.ciphertext, &self.tag)
    }
}

/// A usage that a key does not have is denied as such, and the session goes on working.
pub fn denied_usage(backend: &dyn Backend, keys: &dyn Keys) {
    let (mut session, both) = with_key(backend, keys);
    let session = session.as_mut();
    keys.add(b"encrypts", b"1", Material::Aes(VALUE), Usage { decrypt: false, ..BOTH });
    keys.add(b"decrypts", b"2", Material::Aes(VALUE), Usage { encrypt: false, ..BOTH });
    let (encrypts, decrypts) = (find(session, b"encrypts"), find(session, b"decrypts"));
    let iv = iv(session);
    refused(session.encrypt(decrypts, &iv, b"", b"text"), &[FaultKind::KeyUsage]);
    let sealed = session.encrypt(encrypts, &iv, b"", b"text").expect("this one may");
    let (iv, ciphertext, tag) = (sealed.iv.as_bytes(), &sealed.ciphertext, &sealed.tag);
    refused(session.decrypt(encrypts, iv, b"", ciphertext, tag), &[FaultKind::KeyUsage]);
    for key in [decrypts, both] {
        let opened = session.decrypt(key, iv, b"", ciphertext, tag);
        assert_eq!(opened.expect("these may").expose(), b"text");
    }
    round_trip(session, both, b"", &bytes(64));
}

/// The handle of a destroyed object names nothing, for every call that takes one.
pub fn destroyed_object(backend: &dyn Backend, keys: &dyn Keys) {
    let (mut session, key) = with_key(backend, keys);
    let session = session.as_mut();
    keys.add(b"doomed", b"1", Material::Aes(VALUE), BOTH);
    let doomed = find(session, b"doomed");
    keys.destroy(b"doomed");
    let iv = iv(session);
    let stale = &[FaultKind::HandleStale];
    refused(session.encrypt(doomed, &iv, b"", b"text"), stale);
    refused(session.decrypt(doomed, &iv, b"", b"text", &[0; TAG_LEN]), stale);
    refused(session.read_changeable(doomed), stale);
    refused(session.read_attributes(doomed), stale);
    round_trip(session, key, b"", &bytes(64));
}

/// What one session of any kind encrypts, every other one decrypts, with however many keys, before and
/// after the keys are read, and when a key has taken another's place.
pub fn many_keys(backend: &dyn Backend, keys: &dyn Keys) {
    let mut session = connect(backend);
    let mut worker = backend.open_session().expect("the token has room");
    let values: [&[u8]; 6] = [VALUE, &[1; 32], &[2; 32], &[3; 32], &[4; 32], &[5; 32]];
    let labels = ["a", "b", "c", "d", "e", "f"].map(str::as_bytes);
    for (label, value) in labels.iter().zip(values) {
        keys.add(label, label, Material::Aes(value), BOTH);
    }
    for round in 0..3 {
        session.keys_were_read().expect("the token is there");
        for label in labels {
            let key = find(session.as_mut(), label);
            for (from, to) in [(0, 1), (1, 0), (1, 1)] {
                let sessions = [&mut session, &mut worker];
                let iv = iv(sessions[from].as_mut());
                let sealed = sessions[from].encrypt(key, &iv, b"aad", label);
                let Sealed { iv, ciphertext, tag } = sealed.expect("the key encrypts");
                let opened = sessions[to].decrypt(key, iv.as_bytes(), b"aad", &ciphertext, &tag);
                assert_eq!(opened.expect("the key decrypts").expose(), label, "{round}");
            }
        }
        // Some tokens give the new key the handle of the one before.
        keys.destroy(labels[round]);
        keys.add(labels[round], labels[round], Material::Aes(&[9; 32]), BOTH);
    }
    let key = find(session.as_mut(), labels[0]);
    session.keys_were_read().expect("the token is there");
    round_trip(worker.as_mut(), key, b"", &bytes(64));
}

/// Handles and sessions of an earlier connection are refused, whatever their numbers name now.
pub fn earlier_connection(backend: &dyn Backend, keys: &dyn Keys) {
    let (mut old_session, old_key) = with_key(backend, keys);
    let mut old_worker = backend.open_session().expect("the token has room");
    round_trip(old_worker.as_mut(), old_key, b"", &bytes(64));
    let mut session = connect(backend);
    let key = find(session.as_mut(), b"key");
    assert_ne!(key, old_key);
    let mut worker = backend.open_session().expect("the token has room");
    let iv = iv(worker.as_mut());
    for new in [&mut session, &mut worker] {
        refused(new.encrypt(old_key, &iv, b"", b"text"), &[FaultKind::HandleStale]);
        refused(new.decrypt(old_key, &iv, b"", b"t", &[0; 16]), &[FaultKind::HandleStale]);
        refused(new.read_changeable(old_key), &[FaultKind::HandleStale]);
    }
    for old in [&mut old_session, &mut old_worker] {
        refused(old.encrypt(old_key, &iv, b"", b"text"), &[FaultKind::SessionLost]);
        refused(old.decrypt(key, &iv, b"", b"t", &[0; 16]), &[FaultKind::SessionLost]);
        refused(old.random(&mut [0; 12]), &[FaultKind::SessionLost]);
        refused(old.objects(), &[FaultKind::SessionLost]);
        refused(old.make_probe_key(), &[FaultKind::SessionLost]);
    }
    drop((old_session, old_worker));
    round_trip(session.as_mut(), key, b"", &bytes(64));
    round_trip(worker.as_mut(), key, b"", &bytes(64));
}

/// The probe key works on every session, bears no external key's name, and goes with the session
/// that made it (P-61).
pub fn probe_key(backend: &dyn Backend, _keys: &dyn Keys) {
    let mut session = connect(backend);
    let mut maker = backend.open_session().expect("the token has room");
    let key = maker.make_probe_key().expect("the token makes AES keys");
    round_trip(maker.as_mut(), key, b"aad", &bytes(64));
    round_trip(session.as_mut(), key, b"aad", &bytes(64));
    let label = session.read_changeable(key).expect("it can be read").label;
    assert_eq!(label, b"xksd:probe");
    let catalogue = Reader::default().read(session.as_mut()).expect("the token can be read");
    assert!(catalogue.is_empty());
    drop(maker);
    session.keys_were_read().expect("the token is there");
    let iv = iv(session.as_mut());
    refused(session.encrypt(key, &iv, b"", b"text"), &[FaultKind::HandleStale]);
    assert!(session.objects().expect("the token can be searched").is_empty());
}

/// Random bytes differ, and fill the whole buffer.
pub fn random(backend: &dyn Backend, _keys: &dyn Keys) {
    let mut session = connect(backend);
    let mut seen = BTreeSet::new();
    for _ in 0..4 {
        let mut buffer = [0; 64 * IV_LEN];
        session.random(&mut buffer).expect("the token gives random bytes");
        let (ivs, _) = buffer.as_chunks::<IV_LEN>();
        seen.extend(ivs.iter().copied());
    }
    assert_eq!(seen.len(), 4 * 64);
}

/// Sessions in threads of their own do not disturb each other, not even by bad ciphertexts.
pub fn threads(backend: &dyn Backend, keys: &dyn Keys) {
    let (_session, key) = with_key(backend, keys);
    thread::scope(|scope| {
        for thread in 1..=6 {
            scope.spawn(move || {
                let mut session = backend.open_session().expect("the token has room");
                for round in 0..50 {
                    round_trip(session.as_mut(), key, &[thread], &bytes(100 + round));
                    let opened = session.decrypt(key, &FIXED_IV, b"", b"text", &[thread; 16]);
                    refused(opened, &[FaultKind::BadCiphertext, FaultKind::Ambiguous]);
                }
            });
        }
    });
}
