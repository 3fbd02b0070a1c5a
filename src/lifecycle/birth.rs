//! `create` and `rotate`: a version is made as pending, proved, and enabled by one call.

use std::time::{Duration, Instant, SystemTime};

use super::change::{Write, carry_out};
use super::office::Office;
use super::proof::decrypts;
use super::survey::{Held, Object, Survey};
use super::{Error, Refusal};
use crate::hsm::backend::{NewKeyUsage, Protection};
use crate::hsm::codes;
use crate::hsm::fault::{Cause, Fault, FaultKind};
use crate::hsm::key::Usage;
use crate::hsm::state::{Date, KeyState, VersionStatus};
use crate::names::{ExternalKeyId, KeyVersion, ObjectId};

/// C_GenerateKey of SoftHSM fails for no reason in about 3% of calls under load.
const GENERATE_ATTEMPTS: usize = 5;

/// How often the other tokens are asked whether they show a new object.
const REPLICATION_POLL: Duration = Duration::from_millis(250);

/// How often the end is looked at, if others change the key at the same time.
const ATTEMPTS: usize = 10;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Which version is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The first of a new key.
    Create(NewKeyUsage),
    /// The next of a key that is in use, for the same usage.
    Rotate,
    /// The same, without anybody asking, and by several proxies at the same time: each has begun
    /// ([`begin`]), and has waited until all of them see what the others have made.
    Follow(Follow),
}

/// A version that is to be followed by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follow {
    /// Its number and identity: if it is the newest no more, there is nothing to do.
    pub newest: (KeyVersion, ObjectId),
    /// What was made for it when this was begun.
    pub own: Option<ObjectId>,
}

/// What is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Number of the version.
    pub version: KeyVersion,
    /// What it is for.
    pub usage: NewKeyUsage,
    /// The version that it follows.
    previous: Option<(KeyVersion, ObjectId)>,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Birth {
    /// Its state.
    pub state: KeyState,
    /// What it is for.
    pub usage: NewKeyUsage,
    /// An earlier run had begun it.
    pub was_begun: bool,
}

/// What is to be made, if the key is in a state for it.
///
/// # Errors
/// Where it is not.
pub fn wish(survey: &Survey, kind: Kind) -> Result<Wish, Refusal> {
    match kind {
        Kind::Create(usage) => {
            let version = KeyVersion::FIRST;
            let is_begun = survey.pending(version).len() == survey.versions.len();
            if !is_begun || !survey.others.is_empty() {
                return Err(Refusal::Exists);
            }
            Ok(Wish { version, usage, previous: None })
        }
        Kind::Rotate | Kind::Follow(_) => {
            let newest = survey.newest()?;
            let identity = (newest.version, newest.object_id);
            if matches!(kind, Kind::Follow(follow) if follow.newest != identity) {
                return Err(Refusal::Overtaken);
            }
            if newest.status() != VersionStatus::Enabled {
                return Err(Refusal::NotInUse(newest.status().as_str()));
            }
            let attributes = &newest.objects[0].attributes;
            if !attributes.kind.is_aes_256() {
                return Err(Refusal::NotAes256);
            }
            let Usage { encrypt, decrypt, .. } = attributes.usage;
            let number = newest.version.number().checked_add(1).ok_or(Refusal::NoVersionLeft)?;
            Ok(Wish {
                version: KeyVersion::new(number),
                usage: NewKeyUsage { encrypt, decrypt },
                previous: Some((newest.version, newest.object_id)),
            })
        }
    }
}

/// Makes a version on the first token, as pending, unless there is one. That [`bear`] completes it from
/// another process, later, is of use with SoftHSM2: a process that has just made an object may not see
/// those that others have made before, however long it looks.
///
/// # Errors
/// Then one may have been made all the same, which whoever comes next completes.
pub fn begin(
    office: &mut Office,
    id: &ExternalKeyId,
    kind: Kind,
) -> Result<Option<ObjectId>, Error> {
    if let Some(failed) = office.failures().first() {
        return Err(Refusal::Incomplete(failed.token.clone()).into());
    }
    let survey = office.survey(id)?;
    let wanted = wish(&survey, kind)?;
    make(office, &survey, &wanted)
}

/// Makes a version on the first token, waits until the others show it, no longer than `patience`, has
/// it proved on all of them, and enables it. What an earlier run has begun is completed.
///
/// # Errors
/// Then no version was put in use. One that is pending may be left; the next run completes it.
pub fn bear(
    office: &mut Office,
    id: &ExternalKeyId,
    kind: Kind,
    patience: Duration,
) -> Result<Birth, Error> {
    if let Some(failed) = office.failures().first() {
        return Err(Refusal::Incomplete(failed.token.clone()).into());
    }
    let survey = office.survey(id)?;
    let begun = match kind {
        Kind::Follow(follow) => follow.own,
        _ => None,
    };
    let wanted = match wish(&survey, kind) {
        Err(refusal) => return Err(withdraw(office, &survey, begun, refusal)),
        Ok(wanted) => wanted,
    };
    let made = match kind {
        Kind::Follow(_) => None,
        _ => make(office, &survey, &wanted)?,
    };
    let own = begun.or(made);
    let in_use = |survey: &Survey| {
        survey.versions.iter().filter(|held| held.status() != VersionStatus::Pending).count()
    };
    let seen = in_use(&survey);
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(PAUSE);
        }
        let survey = office.survey(id)?;
        // SoftHSM2 may miss an object for a moment while another process makes one.
        let is_missed = in_use(&survey) < seen;
        if is_missed || made.is_some_and(|made| survey.versions.iter().all(|h| h.object_id != made))
        {
            continue;
        }
        let still = wish(&survey, kind).map_err(|refusal| match refusal {
            Refusal::Exists => Refusal::Overtaken,
            other => other,
        });
        // Others may have begun at the same time. All go on with the same one, and each destroys its
        // own: when the one that was chosen is in use, and not before. Until then somebody who has not
        // seen that one may be about to enable this one.
        let chosen = survey.pending(wanted.version).first().map(|held| held.object_id);
        if still.as_ref() != Ok(&wanted) {
            let refusal = still.err().unwrap_or(Refusal::Overtaken);
            return Err(withdraw(office, &survey, own, refusal));
        }
        let Some(chosen) = chosen else { continue };
        let objects = match ready(office, id, chosen, &wanted, patience) {
            Ok(objects) => objects,
            // Somebody has destroyed it meanwhile, or the token does not show it for a moment.
            Err(Error::Token { fault, .. }) if fault.kind == FaultKind::HandleStale => continue,
            Err(Error::Refused(Refusal::Overtaken)) => continue,
            // Of no use to anybody, and never in use.
            Err(Error::Refused(refusal)) => {
                let survey = office.survey(id)?;
                discard(office, &survey, chosen)?;
                let other = own.filter(|own| *own != chosen);
                return Err(withdraw(office, &survey, other, refusal));
            }
            Err(error) => return Err(error),
        };
        let survey = office.survey(id)?;
        let lowest = survey.pending(wanted.version).first().map(|held| held.object_id);
        let is_same = wish(&survey, kind).as_ref() == Ok(&wanted) && lowest == Some(chosen);
        let was_enabled =
            |held: &Held| held.object_id == chosen && held.status() != VersionStatus::Pending;
        if is_same {
            enable(office, objects)?;
        } else if !survey.versions.iter().any(was_enabled) {
            // Somebody made one with a lower object id, or has disabled the key: look again.
            continue;
        }
        let state = settle(office, id, chosen, wanted.previous)?;
        if let Some(lost) = own.filter(|own| *own != chosen) {
            let survey = office.survey(id)?;
            discard(office, &survey, lost)?;
        }
        return Ok(Birth { state, usage: wanted.usage, was_begun: own != Some(chosen) });
    }
    Err(Error::Unsettled)
}

/// Destroys what was made for nothing.
fn withdraw(
    office: &mut Office,
    survey: &Survey,
    own: Option<ObjectId>,
    refusal: Refusal,
) -> Error {
    let withdrawn = own.map_or(Ok(()), |own| discard(office, survey, own));
    withdrawn.err().unwrap_or_else(|| refusal.into())
}

/// One call for each object puts the version in use.
fn enable(office: &mut Office, objects: Vec<Object>) -> Result<(), Error> {
    let enable = |object: Object| {
        let from = object.state?;
        let to = from.changed(VersionStatus::Enabled, None);
        Some(Write { token: object.token, handle: object.handle, from, to })
    };
    let writes: Vec<_> = objects.into_iter().filter_map(enable).collect();
    let wanted = writes.len();
    if carry_out(office, writes).len() < wanted
        && let Some(failed) = office.failures().first()
    {
        let (token, fault) = (failed.token.clone(), failed.fault);
        return Err(Error::Token { token, fault });
    }
    Ok(())
}

/// Makes a pending object, unless there is one.
fn make(office: &mut Office, survey: &Survey, wish: &Wish) -> Result<Option<ObjectId>, Error> {
    match survey.pending(wish.version).first() {
        None => generate(office, &survey.id, wish).map(Some),
        Some(_) => Ok(None),
    }
}

/// Makes a pending object on the first token, and gives its identity.
fn generate(office: &mut Office, id: &ExternalKeyId, wish: &Wish) -> Result<ObjectId, Error> {
    office.with(0, |session| {
        let mut bytes = [0; 8];
        // Zero is taken by foreign keys.
        while bytes == [0; 8] {
            session.random(&mut bytes)?;
        }
        let object_id = ObjectId::new(bytes);
        let state = KeyState::pending(object_id, wish.version, Date::of(SystemTime::now()));
        let mut attempt = 1;
        loop {
            let Err(fault) = session.generate(id, &state, wish.usage) else { return Ok(object_id) };
            let is_general = matches!(
                fault.cause,
                Cause::Returned(codes::GENERAL_ERROR | codes::FUNCTION_FAILED)
            );
            if !is_general || attempt == GENERATE_ATTEMPTS {
                return Err(fault);
            }
            // It may have been made all the same, and two of one identity would be one too many.
            for object in session.labelled(id)? {
                if session.read_changeable(object.handle)?.id == state.to_string().as_bytes() {
                    return Ok(object_id);
                }
            }
            attempt += 1;
        }
    })
}

/// Every token's object of a pending version, once all have one, each is what was asked for, and all
/// are proved to be one key.
fn ready(
    office: &mut Office,
    id: &ExternalKeyId,
    object_id: ObjectId,
    wish: &Wish,
    patience: Duration,
) -> Result<Vec<Object>, Error> {
    let objects = on_all(office, id, object_id, patience)?;
    for object in &objects {
        let protection = office.protection(object)?;
        if let Some(attribute) = flaw(object, protection, wish.usage) {
            let token = office.name(object.token).clone();
            return Err(Refusal::Attribute { token, attribute }.into());
        }
    }
    let first = &objects[0];
    if wish.usage.encrypt && wish.usage.decrypt {
        for object in &objects {
            for (writer, reader) in [(first, object), (object, first)] {
                if !decrypts(office, writer, reader)? {
                    return Err(Refusal::NotProved(office.name(object.token).clone()).into());
                }
                if object.token == first.token {
                    break;
                }
            }
        }
    } else {
        let value = first.attributes.check_value;
        let differs = |other: &&Object| {
            other.token != first.token && (value.is_none() || other.attributes.check_value != value)
        };
        if let Some(other) = objects.iter().find(differs) {
            return Err(Refusal::NotProved(office.name(other.token).clone()).into());
        }
    }
    Ok(objects)
}

/// Waits until all tokens show it, as replicating HSMs do by themselves.
fn on_all(
    office: &mut Office,
    id: &ExternalKeyId,
    object_id: ObjectId,
    patience: Duration,
) -> Result<Vec<Object>, Error> {
    let begun = Instant::now();
    loop {
        let survey = office.survey(id)?;
        if let Some(failed) = office.failures().first() {
            return Err(Error::Token { token: failed.token.clone(), fault: failed.fault });
        }
        let held = survey.versions.into_iter().find(|held| held.object_id == object_id);
        let objects = held.ok_or(Refusal::Overtaken)?.objects;
        let lacks = |token: &usize| !objects.iter().any(|object| object.token == *token);
        let Some(missing) = (0..office.len()).find(lacks) else { return Ok(objects) };
        if begun.elapsed() >= patience {
            return Err(Refusal::NotReplicated(office.name(missing).clone()).into());
        }
        std::thread::sleep(REPLICATION_POLL);
    }
}

/// The attribute that is not as it was asked for.
fn flaw(object: &Object, kept: Protection, wanted: NewKeyUsage) -> Option<&'static str> {
    let usage = Usage { encrypt: wanted.encrypt, decrypt: wanted.decrypt, ..Usage::default() };
    let attributes = &object.attributes;
    let checks = [
        (attributes.kind.is_aes_256(), "length"),
        (attributes.usage == usage, "usage"),
        (kept.sensitive == Some(true), "CKA_SENSITIVE"),
        (kept.extractable == Some(false), "CKA_EXTRACTABLE"),
        // These a token may leave out; what it says must be right.
        (kept.token != Some(false), "CKA_TOKEN"),
        (kept.private != Some(false), "CKA_PRIVATE"),
        (kept.always_sensitive != Some(false), "CKA_ALWAYS_SENSITIVE"),
        (kept.never_extractable != Some(false), "CKA_NEVER_EXTRACTABLE"),
        (kept.modifiable != Some(false), "CKA_MODIFIABLE"),
    ];
    checks.into_iter().find(|(is_right, _)| !is_right).map(|(_, attribute)| attribute)
}

/// Destroys the objects of a version that is pending, and still is.
fn discard(office: &mut Office, survey: &Survey, object_id: ObjectId) -> Result<(), Error> {
    let held = survey.versions.iter().filter(|held| held.object_id == object_id);
    let pending = held.filter(|held| held.status() == VersionStatus::Pending);
    for object in pending.flat_map(|held| &held.objects) {
        office.with(object.token, |session| destroy_if_same(session, object))?;
    }
    Ok(())
}

/// Destroys an object if its state is what it was.
pub(super) fn destroy_if_same(
    session: &mut dyn crate::hsm::backend::Administration,
    object: &Object,
) -> Result<(), Fault> {
    let now = session.read_changeable(object.handle)?;
    if now != object.attributes.changeable {
        let why = "its state was changed meanwhile";
        let kind = FaultKind::HandleStale;
        return Err(Fault::refused(kind, "C_DestroyObject", why));
    }
    session.destroy(object.handle)
}

/// Looks whether it is in use on all tokens, and takes over what was done to its predecessor since:
/// a key that was disabled during its rotation is to stay so.
fn settle(
    office: &mut Office,
    id: &ExternalKeyId,
    object_id: ObjectId,
    previous: Option<(KeyVersion, ObjectId)>,
) -> Result<KeyState, Error> {
    for _ in 0..ATTEMPTS {
        let survey = office.survey(id)?;
        let of = |identity: ObjectId| survey.versions.iter().find(|h| h.object_id == identity);
        let Some((held, mut state)) = of(object_id).and_then(|h| Some((h, h.state.clone()?)))
        else {
            std::thread::sleep(PAUSE);
            continue;
        };
        let previous = previous.and_then(|(_, identity)| of(identity)?.state.as_ref());
        let inherited = previous.filter(|previous| previous.status != VersionStatus::Enabled);
        if let Some(previous) = inherited
            && state.status == VersionStatus::Enabled
        {
            state = state.changed(previous.status, previous.deletion);
        }
        let lags = |object: &Object| {
            let from = object.state.clone().filter(|known| *known != state)?;
            Some(Write { token: object.token, handle: object.handle, from, to: state.clone() })
        };
        let writes: Vec<_> = held.objects.iter().filter_map(lags).collect();
        if writes.is_empty() {
            return Ok(state);
        }
        carry_out(office, writes);
    }
    Err(Error::Unsettled)
}
