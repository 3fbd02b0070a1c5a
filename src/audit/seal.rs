//! Signing a checkpoint with a token's audit key.

use super::chain::sha256;
use super::checkpoint::{AUDIT_KEY, Sealed, Statement, der_signature};
use crate::hsm::backend::{ObjectHandle, Session, Signing};
use crate::hsm::fault::{Fault, FaultKind};
use crate::hsm::key::{KeyAttributes, KeyKind};

/// How an object signs checkpoints; `None` if it is no audit key.
pub fn signing(attributes: &KeyAttributes) -> Option<Signing> {
    if attributes.changeable.label != AUDIT_KEY.as_bytes() || !attributes.usage.sign {
        return None;
    }
    match &attributes.kind {
        KeyKind::Other(name) if name == "EC" => Some(Signing::EcdsaP256),
        KeyKind::Other(name) if name == "GENERIC_SECRET" => Some(Signing::HmacSha256),
        _ => None,
    }
}

/// What the token is given to sign: it hashes only where it must.
pub fn input(statement: &str, how: Signing) -> Vec<u8> {
    match how {
        Signing::EcdsaP256 => sha256(statement.as_bytes()).to_vec(),
        Signing::HmacSha256 => statement.as_bytes().to_vec(),
    }
}

/// The checkpoint, from what the token gave. `None` if that has another length than it must have.
pub fn sealed(statement: Statement, token: &str, how: Signing, raw: &[u8]) -> Option<Sealed> {
    let signature = match how {
        Signing::EcdsaP256 => der_signature(raw.try_into().ok()?),
        Signing::HmacSha256 => raw.to_vec(),
    };
    Some(Sealed { statement, token: token.to_owned(), algorithm: how, signature })
}

/// Has a token sign; `None` if it holds no audit key.
///
/// # Errors
/// The token's.
pub fn seal(
    session: &mut dyn Session,
    statement: Statement,
    token: &str,
) -> Result<Option<Sealed>, Fault> {
    let Some((key, how)) = find(session)? else { return Ok(None) };
    let raw = session.sign(key, how, &input(&statement.text(), how))?;
    let nonsense = Fault::nonsense("C_Sign", "not the length of such a signature");
    sealed(statement, token, how, &raw).ok_or(nonsense).map(Some)
}

/// Looks for the audit key, the same one each time should there be several.
///
/// # Errors
/// The token's.
pub fn find(session: &mut dyn Session) -> Result<Option<(ObjectHandle, Signing)>, Fault> {
    let mut found = Vec::new();
    for object in session.objects()? {
        let is_ours = match session.read_changeable(object) {
            Ok(changeable) => changeable.label == AUDIT_KEY.as_bytes(),
            // About this object, or destroyed since it was found.
            Err(fault)
                if matches!(
                    fault.kind,
                    FaultKind::HandleStale | FaultKind::Ambiguous | FaultKind::Bug
                ) =>
            {
                false
            }
            Err(fault) => return Err(fault),
        };
        if is_ours && let Some(how) = signing(&session.read_attributes(object)?) {
            found.push((object, how));
        }
    }
    Ok(found.into_iter().min_by_key(|(object, _)| object.number))
}
