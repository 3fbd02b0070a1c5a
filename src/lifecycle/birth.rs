//! `create` and `rotate`: a version is made as pending, proved, and enabled by one call.

use std::time::Duration;

use super::change::{Write, carry_out};
use super::making::{Source, make};
use super::office::Office;
use super::ready::ready;
use super::survey::{Held, Object, Survey};
use super::{Error, Refusal};
use crate::hsm::backend::{Leaves, NewKeyUsage};
use crate::hsm::fault::{Fault, FaultKind};
use crate::hsm::key::Usage;
use crate::hsm::state::{KeyState, Origin, VersionStatus};
use crate::names::{ExternalKeyId, KeyVersion, ObjectId};

/// How often the end is looked at, if others change the key at the same time.
const ATTEMPTS: usize = 10;

/// For how long a token may miss an object that it was given a moment ago, as SoftHSM2 does while
/// another process makes one.
const SETTLING: Duration = Duration::from_secs(5);

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

/// Which version is to be made, and how.
#[derive(Debug)]
pub struct Order {
    /// Which one.
    pub kind: Kind,
    /// Where its key material comes from.
    pub source: Source,
    /// Whether it may leave its token later. A version that follows one that may, may too.
    pub leaves: Leaves,
    /// How long the other tokens may take to show what the first has generated.
    pub patience: Duration,
}

impl Order {
    /// One that the first token generates, and that never leaves it but as its vendor copies keys.
    pub fn generated(kind: Kind, patience: Duration) -> Self {
        Self { kind, source: Source::Generated, leaves: Leaves::Never, patience }
    }
}

/// What is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Number of the version.
    pub version: KeyVersion,
    /// What it is for.
    pub usage: NewKeyUsage,
    /// Where its key material comes from.
    pub origin: Origin,
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
pub fn wish(survey: &Survey, order: &Order) -> Result<Wish, Refusal> {
    let origin = order.source.origin();
    match order.kind {
        Kind::Create(usage) => {
            let version = KeyVersion::FIRST;
            let is_begun = survey.pending(version).len() == survey.versions.len();
            if !is_begun || !survey.others.is_empty() {
                return Err(Refusal::Exists);
            }
            Ok(Wish { version, usage, origin, previous: None })
        }
        Kind::Rotate | Kind::Follow(_) => {
            let newest = survey.newest()?;
            let identity = (newest.version, newest.object_id);
            if matches!(order.kind, Kind::Follow(follow) if follow.newest != identity) {
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
            let is_shared = newest.state.as_ref().is_some_and(|s| s.origin == Origin::Replicable);
            Ok(Wish {
                version: KeyVersion::new(number),
                usage: NewKeyUsage { encrypt, decrypt },
                origin: match origin {
                    Origin::Generated if is_shared => Origin::Replicable,
                    origin => origin,
                },
                previous: Some((newest.version, newest.object_id)),
            })
        }
    }
}

/// Makes a version as pending, on every token or on the first, unless there is one that can be gone on
/// with. That [`bear`] completes it from another process, later, is of use with SoftHSM2: a process that
/// has just made an object may not see those that others have made before, however long it looks.
///
/// # Errors
/// Then one may have been made all the same, which whoever comes next completes or destroys.
pub fn begin(
    office: &mut Office,
    id: &ExternalKeyId,
    order: &Order,
) -> Result<Option<ObjectId>, Error> {
    if let Some(failed) = office.failures().first() {
        return Err(Refusal::Incomplete(failed.token.clone()).into());
    }
    let survey = office.survey(id)?;
    let wanted = wish(&survey, order)?;
    unless_begun(office, &survey, &wanted, order)
}

/// Makes a version on every token, or on the first, waiting until the others show it, has it proved on
/// all of them, and enables it. What an earlier run has begun is completed where that is possible, and
/// destroyed where it is not.
///
/// # Errors
/// Then no version was put in use. One that is pending may be left; the next run completes or destroys
/// it.
pub fn bear(office: &mut Office, id: &ExternalKeyId, order: &Order) -> Result<Birth, Error> {
    if let Some(failed) = office.failures().first() {
        return Err(Refusal::Incomplete(failed.token.clone()).into());
    }
    let survey = office.survey(id)?;
    let begun = match order.kind {
        Kind::Follow(follow) => follow.own,
        _ => None,
    };
    let wanted = match wish(&survey, order) {
        Err(refusal) => return Err(withdraw(office, &survey, begun, refusal)),
        Ok(wanted) => wanted,
    };
    let source = source(&wanted, order);
    let leaves = leaves(office, &survey, order)?;
    let made = match order.kind {
        Kind::Follow(_) => None,
        _ => unless_begun(office, &survey, &wanted, order)?,
    };
    let own = begun.or(made);
    let patience = match source {
        Source::Generated => order.patience,
        _ => SETTLING,
    };
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
        let still = wish(&survey, order).map_err(|refusal| match refusal {
            Refusal::Exists => Refusal::Overtaken,
            other => other,
        });
        // Others may have begun at the same time. All go on with the same one, and each destroys its
        // own: when the one that was chosen is in use, and not before. Until then somebody who has not
        // seen that one may be about to enable this one.
        let chosen = lowest(&survey, &wanted);
        // What others have imported is other material, and what they share is theirs to complete.
        let is_anothers = wanted.origin != Origin::Generated
            && own.is_some_and(|own| chosen.is_some_and(|chosen| chosen != own));
        if still.as_ref() != Ok(&wanted) || is_anothers {
            let refusal = still.err().unwrap_or(Refusal::Overtaken);
            return Err(withdraw(office, &survey, own, refusal));
        }
        let Some(chosen) = chosen else { continue };
        let objects = match ready(office, id, chosen, &wanted, source, leaves, patience) {
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
        let is_same = wish(&survey, order).as_ref() == Ok(&wanted)
            && lowest(&survey, &wanted) == Some(chosen);
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

/// Makes a pending version, unless one can be gone on with. What nobody can go on with is destroyed.
fn unless_begun(
    office: &mut Office,
    survey: &Survey,
    wanted: &Wish,
    order: &Order,
) -> Result<Option<ObjectId>, Error> {
    let (begun, useless) = begun(survey, wanted, office.len());
    for held in useless {
        discard(office, survey, held)?;
    }
    match begun {
        Some(_) => Ok(None),
        None => {
            let leaves = leaves(office, survey, order)?;
            make(office, &survey.id, wanted, source(wanted, order), leaves).map(Some)
        }
    }
}

/// Where the key material comes from: a version that follows one that is shared is shared as well.
fn source<'a>(wanted: &Wish, order: &'a Order) -> &'a Source {
    if wanted.origin == Origin::Replicable { &Source::Shared } else { &order.source }
}

/// What an earlier run has begun and this one can complete, and all that nobody can: of what was
/// imported the material is not here, and what was wrapped for all tokens and is not on all of them is
/// nowhere else any more.
pub fn begun(survey: &Survey, wish: &Wish, tokens: usize) -> (Option<ObjectId>, Vec<ObjectId>) {
    let can_go_on = |held: &&Held| {
        let origin = held.state.as_ref().map(|state| state.origin);
        origin == Some(wish.origin)
            && match wish.origin {
                Origin::Generated => true,
                Origin::Replicable => held.objects.len() == tokens,
                Origin::Imported => false,
            }
    };
    let (good, useless): (Vec<&Held>, Vec<&Held>) =
        survey.pending(wish.version).into_iter().partition(can_go_on);
    let of = |held: &&Held| held.object_id;
    (good.first().map(of), useless.iter().map(of).collect())
}

/// Of the pending versions of one origin, the one that all runs go on with.
fn lowest(survey: &Survey, wish: &Wish) -> Option<ObjectId> {
    let is_it = |held: &&Held| held.state.as_ref().is_some_and(|s| s.origin == wish.origin);
    survey.pending(wish.version).into_iter().find(is_it).map(|held| held.object_id)
}

/// Whether the new version may leave its token: as was asked, or as the version that it follows.
fn leaves(office: &mut Office, survey: &Survey, order: &Order) -> Result<Leaves, Error> {
    let newest = match (order.kind, survey.newest()) {
        (Kind::Rotate | Kind::Follow(_), Ok(newest)) => newest,
        _ => return Ok(order.leaves),
    };
    let is_shared = newest.state.as_ref().is_some_and(|s| s.origin == Origin::Replicable);
    if is_shared && matches!(order.source, Source::Generated | Source::Shared) {
        let kept = office.protection(&newest.objects[0])?;
        if kept.extractable == Some(true) && kept.wrap_with_trusted == Some(true) {
            return Ok(Leaves::UnderTrusted);
        }
    }
    Ok(order.leaves)
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
            let from = object.state.clone().filter(|s| *s != state && !s.is_unproved())?;
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
