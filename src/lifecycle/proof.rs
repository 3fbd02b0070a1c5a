//! Whether two objects are the same key: one encrypts, the other decrypts.

use super::Error;
use super::office::Office;
use super::survey::Object;
use crate::hsm::backend::IV_LEN;
use crate::hsm::fault::FaultKind;
use crate::hsm::proof::{AAD, TEXT, TRIES};

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
        let sealed = office.with(writer.token, |session| {
            let mut iv = [0; IV_LEN];
            session.random(&mut iv)?;
            session.encrypt(writer.handle, &iv, AAD, TEXT)
        })?;
        let is_same = office.with(reader.token, |session| {
            let (iv, tag) = (sealed.iv.as_bytes(), &sealed.tag);
            match session.decrypt(reader.handle, iv, AAD, &sealed.ciphertext, tag) {
                Ok(opened) => Ok(opened.expose() == TEXT),
                // SoftHSM says of a wrong tag what others say of a failure: in either case it is no
                // proof.
                Err(fault)
                    if matches!(fault.kind, FaultKind::BadCiphertext | FaultKind::Ambiguous) =>
                {
                    Ok(false)
                }
                Err(fault) => Err(fault),
            }
        })?;
        if is_same {
            return Ok(true);
        }
    }
    Ok(false)
}
