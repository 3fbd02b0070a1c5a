//! `freeze` and `unfreeze`: the markers by which the use of a key store, or of all, is stopped.
//!
//! A marker on one token of a group is enough, and each gets one: whichever tokens a daemon reaches,
//! it meets a marker.

use super::Error;
use super::making::mark;
use super::office::Office;
use crate::hsm::backend::ObjectHandle;
use crate::hsm::fault::FaultKind;
use crate::hsm::freeze::Marker;

/// Where markers of this label are: the token, by its place in the group, and the object.
///
/// # Errors
/// [`Error::NoToken`] where none is left.
pub fn markers(office: &mut Office, marker: &Marker) -> Result<Vec<(usize, ObjectHandle)>, Error> {
    let label = marker.to_string();
    let mut found = Vec::new();
    for token in office.reached() {
        let labelled = office.with(token, |session| session.labelled(&label));
        // What the catalogue doesn't look at, a certificate for one, freezes nothing.
        let keys = labelled.unwrap_or_default().into_iter().filter(|object| object.is_key);
        found.extend(keys.map(|object| (token, object.handle)));
    }
    if office.reached().is_empty() { Err(Error::NoToken) } else { Ok(found) }
}

/// Makes a marker on every token that can be reached and has none; gives those tokens. Tokens that
/// failed are in [`Office::failures`].
///
/// # Errors
/// [`Error::NoToken`] where none is left.
pub fn freeze(office: &mut Office, marker: &Marker) -> Result<Vec<usize>, Error> {
    let present = markers(office, marker)?;
    let label = marker.to_string();
    let mut made = Vec::new();
    for token in office.reached() {
        let has_one = present.iter().any(|(holder, _)| *holder == token);
        if !has_one && mark(office, token, &label).is_ok() {
            made.push(token);
        }
    }
    if office.reached().is_empty() { Err(Error::NoToken) } else { Ok(made) }
}

/// Destroys every marker of this label, whoever made it; gives the token of each. Tokens that failed
/// are in [`Office::failures`], and may still freeze.
///
/// # Errors
/// [`Error::NoToken`] where none is left.
pub fn unfreeze(office: &mut Office, marker: &Marker) -> Result<Vec<usize>, Error> {
    let mut destroyed = Vec::new();
    for (token, handle) in markers(office, marker)? {
        match office.with(token, |session| session.destroy(handle)) {
            Ok(()) => destroyed.push(token),
            // Somebody else was faster.
            Err(Error::Token { fault, .. }) if fault.kind == FaultKind::HandleStale => {}
            // In the office's failures.
            Err(_) => {}
        }
    }
    if office.reached().is_empty() { Err(Error::NoToken) } else { Ok(destroyed) }
}
