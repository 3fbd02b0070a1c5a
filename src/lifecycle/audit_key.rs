//! The key that signs checkpoints of the audit log: made, and its public half shown.

use super::office::Office;
use super::{Error, Refusal};
use crate::audit::checkpoint::{AUDIT_KEY, PublicKey};
use crate::audit::seal;
use crate::hsm::backend::Signing;

/// Has the first token make the audit key.
///
/// # Errors
/// Where it holds one; the token's.
pub fn make_audit_key(office: &mut Office, how: Signing) -> Result<(), Error> {
    if audit_key(office)?.is_some() {
        return Err(Refusal::Exists.into());
    }
    office.with(0, |session| session.generate_signing_key(AUDIT_KEY, how))
}

/// How the first token's audit key signs; `None` if it holds none.
///
/// # Errors
/// The token's.
pub fn audit_key(office: &mut Office) -> Result<Option<Signing>, Error> {
    office.with(0, |session| Ok(seal::find(session)?.map(|(_, how)| how)))
}

/// The public keys with the label of the audit key.
///
/// # Errors
/// The token's.
pub fn audit_public_keys(office: &mut Office) -> Result<Vec<PublicKey>, Error> {
    let points = office.with(0, |session| session.public_points(AUDIT_KEY))?;
    Ok(points.iter().filter_map(|point| PublicKey::from_point(point).ok()).collect())
}

/// What the first token makes of a message with its audit key, if that is one for HMAC.
///
/// # Errors
/// The token's.
pub fn hmac(office: &mut Office, message: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    office.with(0, |session| match seal::find(session)? {
        Some((key, how @ Signing::HmacSha256)) => session.sign(key, how, message).map(Some),
        _ => Ok(None),
    })
}
