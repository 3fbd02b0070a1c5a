//! What a session owes in signing checkpoints of the audit log.

use std::time::SystemTime;

use xksd::audit::chain::{ChainId, Hash, Head};
use xksd::audit::checkpoint::{AUDIT_KEY, PublicKey, Statement};
use xksd::audit::seal;
use xksd::catalogue::Reader;
use xksd::hsm::backend::{Backend, Session, Signing};
use xksd::hsm::fault::FaultKind;
use xksd::hsm::key::Usage;

use super::{Keys, connect, refused};
use crate::foreign::Material;

const SIGN: Usage = Usage {
    encrypt: false,
    decrypt: false,
    sign: true,
    verify: false,
    wrap: false,
    unwrap: false,
    derive: false,
};

fn statement() -> Statement {
    let head = Head { seq: 7, hash: Hash::of(b"record") };
    Statement::new(ChainId::new([1; 16]), head, SystemTime::UNIX_EPOCH, "host")
}

fn sign(session: &mut dyn Session) -> (Signing, Vec<u8>) {
    let found = seal::find(session).expect("the token can be searched");
    let catalogue = Reader::default().read(session).expect("the token can be read");
    assert_eq!(catalogue.audit_key(), found);
    let (key, how) = found.expect("the key is there");
    let text = statement().text();
    let raw = session.sign(key, how, &seal::input(&text, how)).expect("the key signs");
    let sealed = seal::sealed(statement(), "hsm", how, &raw).expect("it has its length");
    (how, sealed.signature)
}

/// An EC key signs what its public key verifies elsewhere.
pub fn ecdsa(backend: &dyn Backend, keys: &dyn Keys) {
    let mut session = connect(backend);
    assert_eq!(seal::find(session.as_mut()).expect("the token can be searched"), None);
    keys.add(AUDIT_KEY.as_bytes(), b"audit", Material::EcP256, SIGN);
    let point = keys.point(AUDIT_KEY.as_bytes());
    let public = PublicKey::from_point(&point).expect("it is a point of P-256");
    for _ in 0..20 {
        let (how, signature) = sign(session.as_mut());
        assert_eq!(how, Signing::EcdsaP256);
        assert!(public.verifies(statement().text().as_bytes(), &signature));
        assert!(!public.verifies(b"something else", &signature));
    }
    let (key, how) = seal::find(session.as_mut()).expect("searched").expect("it is there");
    keys.destroy(AUDIT_KEY.as_bytes());
    let gone = session.sign(key, how, &[1; 32]);
    refused(gone, &[FaultKind::HandleStale]);
}

/// A generic secret makes the HMAC of its value.
pub fn hmac(backend: &dyn Backend, keys: &dyn Keys) {
    let mut session = connect(backend);
    keys.add(AUDIT_KEY.as_bytes(), b"audit", Material::GenericSecret, SIGN);
    let (how, signature) = sign(session.as_mut());
    assert_eq!(how, Signing::HmacSha256);
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &[7; 32]);
    let expected = aws_lc_rs::hmac::sign(&key, statement().text().as_bytes());
    assert_eq!(expected.as_ref(), signature);
}
