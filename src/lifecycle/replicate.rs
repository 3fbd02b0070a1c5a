//! A version brought to tokens that lack it: wrapped by one that has it, under the other's public key,
//! which the first one's security officer has marked as trusted.
//!
//! The copy carries epoch 0 until it is proved, and no command but this one changes that: whoever is
//! killed in between leaves a copy that the next run completes.

use super::birth::destroy_if_same;
use super::door::{Door, door};
use super::making::{Source, unwrap};
use super::office::Office;
use super::ready::{Made, equal, stays};
use super::survey::{Held, Object, Survey};
use super::{Error, Refusal};
use crate::hsm::backend::{Leaves, NewKey, NewKeyUsage, Protection};
use crate::hsm::state::{KeyState, VersionStatus};
use crate::hsm::transport::{OaepHash, WrappingAlgorithm};
use crate::names::{ExternalKeyId, KeyVersion, ObjectId};

/// One version that one token lacks, or has unproved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Number of the version.
    pub version: KeyVersion,
    /// Its identity.
    pub object_id: ObjectId,
    /// The token that has it and may let it go, by its place in the group.
    pub from: usize,
    /// The token that lacks it.
    pub to: usize,
}

/// What there is to copy, and why the rest is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copies {
    /// In the order in which they are made: oldest version first, so that a token never has a newer one
    /// alone.
    pub possible: Vec<Copy>,
    /// One for each version that has to stay where it is.
    pub impossible: Vec<Refusal>,
}

/// What it takes until every token has every version.
///
/// # Errors
/// Where there is no such key; a token's.
pub fn copies(office: &mut Office, survey: &Survey) -> Result<Copies, Error> {
    survey.newest()?;
    let mut copies = Copies { possible: Vec::new(), impossible: Vec::new() };
    let in_use = |held: &&Held| held.status() != VersionStatus::Pending;
    for held in survey.versions.iter().rev().filter(in_use) {
        let is_there = |token: usize| {
            held.objects
                .iter()
                .any(|o| o.token == token && !o.state.as_ref().is_some_and(KeyState::is_unproved))
        };
        let missing: Vec<_> = (0..office.len()).filter(|&token| !is_there(token)).collect();
        if missing.is_empty() {
            continue;
        }
        let Some(from) = origin(office, held)? else {
            copies.impossible.push(Refusal::CannotLeave(held.version));
            continue;
        };
        let (version, object_id) = (held.version, held.object_id);
        let copy = |to| Copy { version, object_id, from, to };
        copies.possible.extend(missing.into_iter().map(copy));
    }
    Ok(copies)
}

/// The first token whose object may leave it.
fn origin(office: &mut Office, held: &Held) -> Result<Option<usize>, Error> {
    for object in proved(held) {
        if may_leave(office.protection(object)?) {
            return Ok(Some(object.token));
        }
    }
    Ok(None)
}

fn proved(held: &Held) -> impl Iterator<Item = &Object> {
    let is_proved = |object: &&Object| object.state.as_ref().is_some_and(|s| !s.is_unproved());
    held.objects.iter().filter(is_proved)
}

fn may_leave(kept: Protection) -> bool {
    kept.extractable == Some(true) && kept.wrap_with_trusted == Some(true)
}

/// Makes the copies. All tokens must be there.
///
/// # Errors
/// As [`copies`]; where nobody has marked the other token's pair as trusted, or the copy is no good. What
/// was copied before is in use then, and running it again goes on.
pub fn replicate(office: &mut Office, id: &ExternalKeyId) -> Result<Copies, Error> {
    if let Some(failed) = office.failures().first() {
        return Err(Refusal::Incomplete(failed.token.clone()).into());
    }
    let survey = office.survey(id)?;
    let copies = copies(office, &survey)?;
    for copy in &copies.possible {
        make(office, id, copy)?;
    }
    Ok(copies)
}

fn make(office: &mut Office, id: &ExternalKeyId, copy: &Copy) -> Result<(), Error> {
    let held = find(office, id, copy)?;
    let Some((original, state)) = of(&held, copy.from) else {
        return Err(Refusal::Overtaken.into());
    };
    let usage = original.attributes.usage;
    let usage = NewKeyUsage { encrypt: usage.encrypt, decrypt: usage.decrypt };
    let unproved = state.unproved();
    let leaves = Leaves::UnderTrusted;
    let new = NewKey { label: id.as_str(), state: &unproved, usage, leaves };
    if of(&held, copy.to).is_none() {
        bring(office, &original, copy.to, &new)?;
    }
    let held = find(office, id, copy)?;
    let (Some((original, state)), Some((made, before))) =
        (of(&held, copy.from), of(&held, copy.to))
    else {
        return Err(Refusal::Overtaken.into());
    };
    if !before.is_unproved() {
        // Another run was faster.
        return Ok(());
    }
    match examine(office, original, &made, usage) {
        Ok(()) => {}
        Err(Error::Refused(refusal)) => {
            office.with(copy.to, |session| destroy_if_same(session, &made))?;
            return Err(refusal.into());
        }
        Err(error) => return Err(error),
    }
    office.with(copy.to, |session| session.write_state(made.handle, &state))
}

/// Wraps the original for the other token, and has that unwrap it.
fn bring(office: &mut Office, original: &Object, to: usize, new: &NewKey<'_>) -> Result<(), Error> {
    let there = door(office, to, new.leaves)?;
    let Door { hash: here, .. } = door(office, original.token, new.leaves)?;
    let hash = if here == there.hash { here } else { OaepHash::Sha1 };
    let public = &there.pair.public;
    let Some(trusted) = office.with(original.token, |session| session.trusted(public))? else {
        let (on, of) = (office.name(original.token).clone(), office.name(to).clone());
        return Err(Refusal::NotTrusted { on, of }.into());
    };
    let wrap = |session: &mut dyn crate::hsm::backend::Administration| {
        session.wrap_under_trusted(original.handle, trusted, hash)
    };
    let wrapped = office.with(original.token, wrap)?;
    unwrap(office, to, new, &there, WrappingAlgorithm::Oaep(hash), &wrapped)
}

/// That the copy is kept as the original is, and is the same key.
fn examine(
    office: &mut Office,
    original: Object,
    made: &Object,
    usage: NewKeyUsage,
) -> Result<(), Error> {
    let source = Source::Shared;
    let leaves = Leaves::UnderTrusted;
    let kept = office.protection(made)?;
    if let Some(attribute) = (Made { usage, leaves, source: &source }).flaw(made, kept) {
        let token = office.name(made.token).clone();
        return Err(Refusal::Attribute { token, attribute }.into());
    }
    stays(office, made, leaves)?;
    equal(office, &[original, made.clone()], usage, &source)
}

fn find(office: &mut Office, id: &ExternalKeyId, copy: &Copy) -> Result<Held, Error> {
    let survey = office.survey(id)?;
    let is_it = |held: &Held| held.object_id == copy.object_id;
    survey.versions.into_iter().find(is_it).ok_or_else(|| Refusal::Overtaken.into())
}

/// A token's object of a version, with its state.
fn of(held: &Held, token: usize) -> Option<(Object, KeyState)> {
    let object = held.objects.iter().find(|object| object.token == token)?;
    let state = if object.state.as_ref()?.is_unproved() { &object.state } else { &held.state };
    Some((object.clone(), state.clone()?))
}
