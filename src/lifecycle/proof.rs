//! Whether two objects are the same key, or an object and what it was made of: one encrypts, the other
//! decrypts.

use std::time::Duration;

use aws_lc_rs::aead::{self, AES_256_GCM, LessSafeKey, Nonce, UnboundKey};

use super::Error;
use super::office::Office;
use super::survey::Object;
use crate::hsm::backend::{IV_LEN, NewKeyUsage, ObjectHandle, Sealed, Session, TAG_LEN};
use crate::hsm::codes;
use crate::hsm::fault::{Cause, Fault, FaultKind};
use crate::hsm::proof::{AAD, TEXT, TRIES};
use crate::secret::Plaintext;
use crate::wire::gcm::Iv;

/// How often an object is looked at that is no key yet.
const LOOKS: usize = 10;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Whether `reader` decrypts what `writer` encrypted. Of one and the same object: whether it works.
///
/// # Errors
/// A token's, where it says nothing about the keys.
pub(super) fn decrypts(
    office: &mut Office,
    writer: &Object,
    reader: &Object,
) -> Result<bool, Error> {
    for _try in 0..TRIES {
        let sealed = office.with(writer.token, |session| encrypted(session, writer.handle))?;
        let Some(sealed) = sealed else { return Ok(false) };
        if office.with(reader.token, |session| opens(session, reader.handle, &sealed))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether an object is this key, as far as it may be used for finding out: what one encrypts, our own
/// AES-GCM decrypts, and the other way round. `true` of a key that may do neither.
///
/// # Errors
/// A token's, where it says nothing about the key.
pub(super) fn holds(
    office: &mut Office,
    object: &Object,
    material: &Plaintext,
    usage: NewKeyUsage,
) -> Result<bool, Error> {
    let Ok(key) = UnboundKey::new(&AES_256_GCM, material.expose()) else { return Ok(false) };
    let key = LessSafeKey::new(key);
    for _try in 0..TRIES {
        let is_same = office.with(object.token, |session| {
            let by_token = match usage.encrypt {
                true => match encrypted(session, object.handle)? {
                    Some(sealed) => opens_here(&key, &sealed).unwrap_or(usage.decrypt),
                    None => false,
                },
                false => true,
            };
            let by_us = match usage.decrypt {
                true => {
                    let mut iv = [0; IV_LEN];
                    session.random(&mut iv)?;
                    opens(session, object.handle, &encrypted_here(&key, iv))?
                }
                false => true,
            };
            Ok(by_token && by_us)
        })?;
        if is_same {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `None`: the object is no key that AES-GCM takes, and does not become one.
fn encrypted<S: Session + ?Sized>(
    session: &mut S,
    key: ObjectHandle,
) -> Result<Option<Sealed>, Fault> {
    for _look in 0..LOOKS {
        let mut iv = [0; IV_LEN];
        session.random(&mut iv)?;
        match session.encrypt(key, &iv, AAD, TEXT) {
            // SoftHSM2 unwraps AES keys of any length; and one that another process is just making has
            // none for a moment.
            Err(Fault {
                function: "C_EncryptInit",
                cause: Cause::Returned(codes::MECHANISM_INVALID | codes::KEY_SIZE_RANGE),
                ..
            }) => std::thread::sleep(PAUSE),
            sealed => return sealed.map(Some),
        }
    }
    Ok(None)
}

fn opens<S: Session + ?Sized>(
    session: &mut S,
    key: ObjectHandle,
    sealed: &Sealed,
) -> Result<bool, Fault> {
    match session.decrypt(key, sealed.iv.as_bytes(), AAD, &sealed.ciphertext, &sealed.tag) {
        Ok(opened) => Ok(opened.expose() == TEXT),
        // SoftHSM says of a wrong tag what others say of a failure: in either case it is no proof.
        Err(fault) if matches!(fault.kind, FaultKind::BadCiphertext | FaultKind::Ambiguous) => {
            Ok(false)
        }
        Err(fault) => Err(fault),
    }
}

fn encrypted_here(key: &LessSafeKey, iv: [u8; IV_LEN]) -> Sealed {
    let mut ciphertext = TEXT.to_vec();
    let nonce = Nonce::assume_unique_for_key(iv);
    let tag = key.seal_in_place_separate_tag(nonce, aead::Aad::from(AAD), &mut ciphertext);
    let mut bytes = [0; TAG_LEN];
    bytes.copy_from_slice(tag.expect("the text is short").as_ref());
    Sealed { iv: Iv::Twelve(iv), ciphertext, tag: bytes }
}

/// `None` where the token made an IV of 16 bytes, which our own AES-GCM does not take.
fn opens_here(key: &LessSafeKey, sealed: &Sealed) -> Option<bool> {
    let Iv::Twelve(iv) = sealed.iv else { return None };
    let mut bytes = [&sealed.ciphertext[..], &sealed.tag].concat();
    let nonce = Nonce::assume_unique_for_key(iv);
    let opened = key.open_in_place(nonce, aead::Aad::from(AAD), &mut bytes);
    Some(opened.is_ok_and(|text| text == TEXT))
}
