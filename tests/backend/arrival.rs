//! Key material that comes into a token, on each module: what it allows, and what becomes of it.

use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded};
use support::child::{TokenAtHand, Way, with_token};
use support::foreign::ForeignTool;
use support::token::SO_PIN;
use xksd::hsm::backend::{Leaves, NewKeyUsage};
use xksd::hsm::key::KeyKind;
use xksd::hsm::state::{Origin, VersionStatus};
use xksd::hsm::transport::{OaepHash, WrappingAlgorithm, pair_label};
use xksd::lifecycle::{
    Agreement, Door, Error, Kind, Office, Order, Refusal, Source, bear, door, verify,
};
use xksd::names::ExternalKeyId;
use xksd::secret::Plaintext;

use crate::contract::pkcs11_backend;

const BOTH: NewKeyUsage = NewKeyUsage { encrypt: true, decrypt: true };
const MATERIAL: [u8; 32] = *b"canary: 32 bytes that none shows";
const TEXT: &[u8] = b"what the owner of the key wrote before";

/// What a module allows.
struct Allows {
    /// With which hash it unwraps RSA-OAEP.
    hash: OaepHash,
    /// It tells the length of what it unwrapped.
    length: bool,
    /// It holds a key back from those whom nobody trusts.
    restraint: bool,
    /// Its security officer can trust a public key.
    trust: bool,
    /// It binds a pair to unwrap nothing that could be read (CKA_UNWRAP_TEMPLATE).
    binding: bool,
    /// What is not modifiable stays as it is.
    unmodifiable: bool,
}

const SOFTHSM: Allows = Allows {
    hash: OaepHash::Sha1,
    length: false,
    restraint: true,
    trust: true,
    binding: true,
    unmodifiable: true,
};
const KRYOPTIC: Allows = Allows {
    hash: OaepHash::Sha256,
    length: true,
    restraint: true,
    trust: false,
    binding: true,
    unmodifiable: true,
};
const NSS: Allows = Allows {
    hash: OaepHash::Sha256,
    length: true,
    restraint: false,
    trust: false,
    binding: false,
    unmodifiable: true,
};

fn id(text: &str) -> ExternalKeyId {
    text.parse().expect("it is an external key id")
}

fn office(token: &TokenAtHand) -> Office {
    let name = "test".parse().expect("it is a token name");
    Office::new([(name, pkcs11_backend(token).administer())])
}

fn order(kind: Kind, source: Source, leaves: Leaves) -> Order {
    Order { kind, source, leaves, patience: Duration::ZERO }
}

/// Makes a key; says why not.
fn made(office: &mut Office, key: &str, source: Source, leaves: Leaves) -> Result<(), Refusal> {
    match bear(office, &id(key), &order(Kind::Create(BOTH), source, leaves)) {
        Ok(birth) => {
            assert_eq!(birth.state.status, VersionStatus::Enabled);
            Ok(())
        }
        Err(Error::Refused(refusal)) => {
            let left = office.survey(&id(key)).expect("the token is there");
            assert!(left.versions.is_empty(), "{left:?}");
            Err(refusal)
        }
        Err(error) => panic!("{key}: {error}"),
    }
}

/// That a ciphertext which another AES-GCM made of the material is decrypted, and is known to be under
/// an AES-256 key that never leaves.
fn assert_is_material(token: &TokenAtHand, office: &mut Office, key: &str) {
    let survey = office.survey(&id(key)).expect("the token is there");
    let object = &survey.versions[0].objects[0];
    assert_eq!(object.attributes.kind, KeyKind::Aes { bits: 256 }, "{key}");
    let kept = office.protection(object).expect("the token tells");
    assert_eq!((kept.sensitive, kept.extractable), (Some(true), Some(false)), "{key}");
    let mut text = TEXT.to_vec();
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &MATERIAL).expect("32 bytes"));
    let (iv, aad) = ([5; 12], b"the owner's");
    let nonce = Nonce::assume_unique_for_key(iv);
    let tag = cipher.seal_in_place_separate_tag(nonce, Aad::from(aad), &mut text);
    let tag = tag.expect("it is short").as_ref().try_into().expect("16 bytes");
    let mut session = pkcs11_backend(token).administer().expect("the token is there");
    let handle = session.labelled(key).expect("it is there")[0].handle;
    let opened = session.decrypt(handle, &iv, aad, &text, &tag).expect("it is the same key");
    assert_eq!(opened.expose(), TEXT, "{key}");
}

fn foreign_tool(token: &TokenAtHand) -> ForeignTool {
    let initialization = token.initialization.as_deref();
    ForeignTool::login_initializing(&token.module, &token.label, token.pin, initialization)
}

fn wrapped(door: &Door, algorithm: WrappingAlgorithm) -> Source {
    let public = &door.pair.public;
    let bytes = match algorithm {
        WrappingAlgorithm::Oaep(hash) => public.encrypt(hash, &Plaintext::new(MATERIAL.to_vec())),
        WrappingAlgorithm::AesKeyWrap(hash) => {
            let between = [3; 32];
            let mut second = [0; 40];
            let kek = AesKek::new(&AES_256, &between).expect("32 bytes");
            kek.wrap_with_padding(&MATERIAL, &mut second).expect("there is room");
            let first = public.encrypt(hash, &Plaintext::new(between.to_vec()));
            [&first[..], &second].concat()
        }
    };
    Source::Wrapped(algorithm, vec![bytes])
}

fn material_comes_in(token: &TokenAtHand, allows: &Allows) {
    let mut office = office(token);
    let plain = || Source::Plain(Plaintext::new(MATERIAL.to_vec()));
    assert_eq!(made(&mut office, "plain", plain(), Leaves::Never), Ok(()));
    assert_is_material(token, &mut office, "plain");
    let door = door(&mut office, 0, Leaves::Never).expect("the token unwraps");
    assert!(door.pair.is_sound);
    assert_eq!(door.hash, allows.hash);
    let nested = wrapped(&door, WrappingAlgorithm::AesKeyWrap(door.hash));
    assert_eq!(made(&mut office, "nested", nested, Leaves::Never), Ok(()));
    assert_is_material(token, &mut office, "nested");
    let oaep = wrapped(&door, WrappingAlgorithm::Oaep(door.hash));
    let done = made(&mut office, "oaep", oaep, Leaves::Never);
    if allows.length {
        assert_eq!(done, Ok(()));
        assert_is_material(token, &mut office, "oaep");
    } else {
        assert!(matches!(done, Err(Refusal::Attribute { attribute: "length", .. })), "{done:?}");
    }
    // What is encrypted for somebody else.
    let noise = Source::Wrapped(WrappingAlgorithm::Oaep(door.hash), vec![vec![1; 384]]);
    let done = made(&mut office, "noise", noise, Leaves::Never);
    assert!(matches!(done, Err(Refusal::NotUnwrapped(..))), "{done:?}");
    assert_eq!(office.failures(), []);

    // What somebody can do who has the PIN, and a ciphertext that was meant for the token.
    let tool = foreign_tool(token);
    let stolen = door.pair.public.encrypt(OaepHash::Sha1, &Plaintext::new(MATERIAL.to_vec()));
    for leaves in [Leaves::Never, Leaves::UnderTrusted] {
        xksd::lifecycle::door(&mut office, 0, leaves).expect("the token unwraps");
        let label = pair_label(leaves).as_bytes();
        assert_eq!(tool.could_decrypt(label), !allows.unmodifiable);
    }
    let seen = tool.peek(pair_label(Leaves::Never).as_bytes(), &stolen);
    assert_eq!(seen.is_none(), allows.binding);
}

fn a_key_is_shared(token: &TokenAtHand, allows: &Allows) {
    let mut office = office(token);
    assert_eq!(made(&mut office, "key", Source::Shared, Leaves::Never), Ok(()));
    let rotate = order(Kind::Rotate, Source::Generated, Leaves::Never);
    let birth = bear(&mut office, &id("key"), &rotate).expect("it is rotated");
    assert_eq!(birth.state.origin, Origin::Replicable, "it is inherited");
    let survey = office.survey(&id("key")).expect("the token is there");
    for object in survey.versions.iter().flat_map(|held| &held.objects) {
        assert_eq!(object.attributes.kind, KeyKind::Aes { bits: 256 });
        let kept = office.protection(object).expect("the token tells");
        assert_eq!((kept.sensitive, kept.extractable), (Some(true), Some(false)));
        // kryoptic tells neither.
        assert_ne!(kept.never_extractable, Some(true));
        assert_ne!(kept.always_sensitive, Some(true));
    }
    let found = verify(&mut office, &survey).expect("the token proves it");
    assert!(found.iter().all(|row| row.agreement == Agreement::Decrypts), "{found:?}");
    let done = made(&mut office, "trusted", Source::Shared, Leaves::UnderTrusted);
    match allows.restraint {
        true => assert_eq!(done, Ok(())),
        false => assert!(matches!(done, Err(Refusal::WrapsForAnybody(_))), "{done:?}"),
    }
    let pair = door(&mut office, 0, Leaves::UnderTrusted).expect("the token unwraps").pair;
    drop(office);
    let officer = pkcs11_backend(token).officer(SO_PIN);
    let trusts = officer.and_then(|mut officer| officer.trust(&pair.public));
    assert_eq!(trusts.is_ok(), allows.trust, "{trusts:?}");
}

#[test]
fn softhsm_takes_material() {
    with_token("arrival::softhsm_takes_material", Way::Direct, |token| {
        material_comes_in(token, &SOFTHSM);
    });
}

#[test]
fn kryoptic_takes_material() {
    with_token("arrival::kryoptic_takes_material", Way::Kryoptic, |token| {
        material_comes_in(token, &KRYOPTIC);
    });
}

#[test]
fn nss_takes_material() {
    with_token("arrival::nss_takes_material", Way::Nss, |token| material_comes_in(token, &NSS));
}

#[test]
fn softhsm_shares_a_key() {
    with_token("arrival::softhsm_shares_a_key", Way::Direct, |token| {
        a_key_is_shared(token, &SOFTHSM);
    });
}

#[test]
fn kryoptic_shares_a_key() {
    with_token("arrival::kryoptic_shares_a_key", Way::Kryoptic, |token| {
        a_key_is_shared(token, &KRYOPTIC);
    });
}

#[test]
fn nss_shares_a_key() {
    with_token("arrival::nss_shares_a_key", Way::Nss, |token| a_key_is_shared(token, &NSS));
}
