//! How the key material of a new version comes into the tokens: generated in the first, wrapped by it
//! for all, or from outside.

use std::time::SystemTime;

use super::birth::Wish;
use super::door::{Door, door, open};
use super::office::Office;
use super::{Error, Refusal};
use crate::hsm::backend::{Administration, Leaves, NewKey, NewKeyUsage, ObjectHandle};
use crate::hsm::codes;
use crate::hsm::fault::{Cause, Fault, FaultKind};
use crate::hsm::state::{Date, KeyState, Origin};
use crate::hsm::transport::{Arrival, OaepHash, WrappingAlgorithm};
use crate::names::{ExternalKeyId, KeyVersion, ObjectId};
use crate::secret::Plaintext;

/// C_GenerateKey of SoftHSM fails for no reason in about 3% of calls under load.
const ATTEMPTS: usize = 5;

/// Where the key material of a new version comes from.
#[derive(Debug)]
pub enum Source {
    /// The first token generates it; the others show it by themselves, if there are any.
    Generated,
    /// The first token generates it, and wraps it for each.
    Shared,
    /// From outside, as it is.
    Plain(Plaintext),
    /// From outside, encrypted for each token: one ciphertext each, in their order.
    Wrapped(WrappingAlgorithm, Vec<Vec<u8>>),
}

impl Source {
    pub(super) fn origin(&self) -> Origin {
        match self {
            Self::Generated => Origin::Generated,
            Self::Shared => Origin::Replicable,
            Self::Plain(_) | Self::Wrapped(..) => Origin::Imported,
        }
    }
}

/// Makes the pending objects of a version, and gives its identity. On the first token only, or on all.
pub(super) fn make(
    office: &mut Office,
    id: &ExternalKeyId,
    wish: &Wish,
    source: &Source,
    leaves: Leaves,
) -> Result<ObjectId, Error> {
    let mut doors = Vec::new();
    if matches!(source, Source::Shared | Source::Wrapped(..)) {
        for token in 0..office.len() {
            doors.push(door(office, token, leaves)?);
        }
    }
    if let Source::Wrapped(algorithm, files) = source {
        fit(office, &doors, *algorithm, files)?;
    }
    let object_id = office.with(0, random_id)?;
    let today = Date::of(SystemTime::now());
    let state = KeyState::pending(object_id, wish.version, today, source.origin());
    let new = NewKey { label: id.as_str(), state: &state, usage: wish.usage, leaves };
    let made = match source {
        Source::Generated => {
            let made = office.with(0, |session| insist(session, &new, |s| s.generate(&new)));
            // It stays, if the token made it all the same: the next run goes on with it.
            return made.map(|_| object_id);
        }
        Source::Shared => share(office, &new, &doors),
        Source::Plain(material) => {
            (0..office.len()).try_for_each(|token| plain(office, token, &new, material))
        }
        Source::Wrapped(algorithm, files) => {
            let mut all = doors.iter().zip(files).enumerate();
            all.try_for_each(|(token, (door, file))| {
                unwrap(office, token, &new, door, *algorithm, file)
            })
        }
    };
    made.map(|()| object_id).inspect_err(|_| abandon(office, &new))
}

/// Makes a key that nobody may use: for its label alone. Its state is never read, but makes its `CKA_ID`
/// one of its own.
pub(super) fn mark(office: &mut Office, token: usize, label: &str) -> Result<(), Error> {
    office.with(token, |session| {
        let (today, version) = (Date::of(SystemTime::now()), KeyVersion::FIRST);
        let state = KeyState::pending(random_id(session)?, version, today, Origin::Generated);
        let usage = NewKeyUsage { encrypt: false, decrypt: false };
        let new = NewKey { label, state: &state, usage, leaves: Leaves::Never };
        insist(session, &new, |session| session.generate(&new)).map(drop)
    })
}

/// Whether there is one ciphertext for each token, as long as it has to be.
fn fit(
    office: &Office,
    doors: &[Door],
    algorithm: WrappingAlgorithm,
    files: &[Vec<u8>],
) -> Result<(), Refusal> {
    for (token, door) in doors.iter().enumerate() {
        let expected = algorithm.length(door.pair.public.modulus().len());
        let found = files.get(token).map_or(0, Vec::len);
        if found != expected {
            let token = office.name(token).clone();
            return Err(Refusal::WrappedLength { token, expected, found, algorithm });
        }
    }
    Ok(())
}

/// The first token generates a key that may be wrapped, wraps it for every token and destroys it; each
/// unwraps its own, the first too.
fn share(office: &mut Office, new: &NewKey<'_>, doors: &[Door]) -> Result<(), Error> {
    let wraps = doors.first().map_or(OaepHash::Sha1, |door| door.hash);
    let recipients: Vec<_> = doors
        .iter()
        .map(|door| (&door.pair.public, if wraps == door.hash { wraps } else { OaepHash::Sha1 }))
        .collect();
    let wrapped = office.with(0, |session| session.generate_wrapped(&recipients))?;
    for (token, (door, bytes)) in doors.iter().zip(&wrapped).enumerate() {
        let algorithm = WrappingAlgorithm::Oaep(recipients[token].1);
        unwrap(office, token, new, door, algorithm, bytes)?;
    }
    Ok(())
}

/// Has a token unwrap a key.
pub(super) fn unwrap(
    office: &mut Office,
    token: usize,
    new: &NewKey<'_>,
    door: &Door,
    algorithm: WrappingAlgorithm,
    bytes: &[u8],
) -> Result<(), Error> {
    let modulus = door.pair.public.modulus().len();
    let arrival = Arrival::Wrapped { private: door.pair.private, algorithm, bytes, modulus };
    let done = office.with(token, |session| {
        match insist(session, new, |session| session.receive(&arrival, new)) {
            Err(fault) if is_no_key_of_ours(&fault) => Ok(Err(fault)),
            received => received.map(Ok),
        }
    })?;
    match done {
        Ok(_) => Ok(()),
        Err(fault) => Err(Refusal::NotUnwrapped(office.name(token).clone(), fault).into()),
    }
}

/// Gives a token the material as it is; one that forbids that, under its own public key.
fn plain(
    office: &mut Office,
    token: usize,
    new: &NewKey<'_>,
    material: &Plaintext,
) -> Result<(), Error> {
    let done = office.with(token, |session| {
        let arrival = Arrival::Plain(material);
        match insist(session, new, |session| session.receive(&arrival, new)) {
            Err(fault) if forbids_values(&fault) => {}
            received => return received.map(|_| Ok(())),
        }
        let Door { pair, hash } = match open(session, new.leaves)? {
            Ok(door) => door,
            Err(closed) => return Ok(Err(closed)),
        };
        let bytes = pair.public.encrypt(hash, material);
        let arrival = Arrival::Wrapped {
            private: pair.private,
            algorithm: WrappingAlgorithm::Oaep(hash),
            bytes: &bytes,
            modulus: pair.public.modulus().len(),
        };
        insist(session, new, |session| session.receive(&arrival, new)).map(|_| Ok(()))
    })?;
    done.map_err(|closed| closed.of(office.name(token).clone()).into())
}

/// Makes an object, again where the token failed for no reason. It may have made it all the same, and
/// two of one identity would be one too many; nor is one made twice in an HSM that has two names.
fn insist(
    session: &mut dyn Administration,
    new: &NewKey<'_>,
    mut make: impl FnMut(&mut dyn Administration) -> Result<ObjectHandle, Fault>,
) -> Result<ObjectHandle, Fault> {
    let mut attempt = 1;
    if let Some(there) = find(session, new)? {
        return Ok(there);
    }
    loop {
        let fault = match make(session) {
            Err(fault) if fault.kind == FaultKind::Ambiguous => fault,
            made => return made,
        };
        if let Some(there) = find(session, new)? {
            return Ok(there);
        }
        if attempt == ATTEMPTS {
            return Err(fault);
        }
        attempt += 1;
    }
}

/// The object, if there is one with this state.
fn find(session: &mut dyn Administration, new: &NewKey<'_>) -> Result<Option<ObjectHandle>, Fault> {
    let wanted = new.state.to_string();
    for object in session.labelled(new.label)? {
        if session.read_changeable(object.handle)?.id == wanted.as_bytes() {
            return Ok(Some(object.handle));
        }
    }
    Ok(None)
}

/// Destroys what was made of a version that cannot be completed, where the token lets itself be asked.
/// What stays is pending, and the next run destroys it.
fn abandon(office: &mut Office, new: &NewKey<'_>) {
    for token in office.reached() {
        let _ = office.with(token, |session| match find(session, new)? {
            Some(object) => session.destroy(object),
            None => Ok(()),
        });
    }
}

fn random_id(session: &mut dyn Administration) -> Result<ObjectId, Fault> {
    let mut bytes = [0; 8];
    // Zero is taken by foreign keys.
    while bytes == [0; 8] {
        session.random(&mut bytes)?;
    }
    Ok(ObjectId::new(bytes))
}

/// Whether the token will not have a key's value from outside, as those in FIPS mode will not.
fn forbids_values(fault: &Fault) -> bool {
    let Cause::Returned(code) = fault.cause else { return false };
    let forbids = matches!(
        code,
        codes::ATTRIBUTE_VALUE_INVALID
            | codes::ATTRIBUTE_TYPE_INVALID
            | codes::ATTRIBUTE_READ_ONLY
            | codes::ATTRIBUTE_SENSITIVE
            | codes::TEMPLATE_INCONSISTENT
            | codes::ACTION_PROHIBITED
            | codes::FUNCTION_NOT_SUPPORTED
            | codes::FUNCTION_REJECTED
            | codes::KEY_FUNCTION_NOT_PERMITTED
            | codes::OPERATION_NOT_VALIDATED
    );
    fault.function == "C_CreateObject" && forbids
}

/// Whether the token says that what it was given is no key, or none for it.
fn is_no_key_of_ours(fault: &Fault) -> bool {
    let Cause::Returned(code) = fault.cause else { return false };
    let says_so = matches!(
        code,
        codes::GENERAL_ERROR
            | codes::FUNCTION_FAILED
            | codes::DATA_INVALID
            | codes::DATA_LEN_RANGE
            | codes::ENCRYPTED_DATA_INVALID
            | codes::ENCRYPTED_DATA_LEN_RANGE
            | codes::WRAPPED_KEY_INVALID
            | codes::WRAPPED_KEY_LEN_RANGE
            | codes::KEY_SIZE_RANGE
            | codes::MECHANISM_INVALID
            | codes::MECHANISM_PARAM_INVALID
            | codes::ARGUMENTS_BAD
            // kryoptic, of padding that is none.
            | codes::DEVICE_ERROR
    );
    fault.function == "C_UnwrapKey" && says_so
}
