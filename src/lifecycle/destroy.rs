//! The end of a version, or of a key.

use super::birth::destroy_if_same;
use super::change::{Change, apply};
use super::office::Office;
use super::survey::{Held, Object, Survey};
use super::{Error, Refusal};
use crate::hsm::state::{Date, VersionStatus};
use crate::names::{ExternalKeyId, KeyVersion, ObjectId};

/// What is to be destroyed, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doomed {
    /// The objects. Those of the newest version come last: for as long as one is left, the key is to
    /// be deleted, and no older version becomes its newest.
    pub objects: Vec<Object>,
    /// Whether nothing of the key is left then.
    pub is_whole_key: bool,
}

/// What destroying the version with this object id comes to: of the newest version, the whole key.
///
/// # Errors
/// Where its date has not come; where it was in use and `force` is missing; where what is left would
/// be used in its place.
pub fn doomed(
    survey: &Survey,
    object_id: ObjectId,
    today: Date,
    force: bool,
) -> Result<Doomed, Refusal> {
    let held = survey.meant(Some(object_id))?;
    let state = held.state.as_ref().ok_or(Refusal::Foreign)?;
    if state.status == VersionStatus::Pending {
        return Ok(Doomed { objects: held.objects.clone(), is_whole_key: false });
    }
    match state.deletion {
        Some(date) if state.status == VersionStatus::Deleting && date <= today => {}
        Some(date) if state.status == VersionStatus::Deleting => {
            return Err(Refusal::TooEarly(date));
        }
        _ => return Err(Refusal::NotDeleting),
    }
    if !force {
        return Err(Refusal::WasInUse(held.version));
    }
    if survey.newest()?.object_id != object_id {
        return Ok(Doomed { objects: held.objects.clone(), is_whole_key: false });
    }
    if survey.versions.iter().any(|other| other.version == KeyVersion::FOREIGN) {
        return Err(Refusal::ForeignWouldRemain);
    }
    // Pending ones are newer than the newest.
    let is_other = |other: &&Held| other.object_id != object_id;
    let others = survey.versions.iter().rev().filter(is_other);
    let objects = others.chain([held]).flat_map(|held| held.objects.iter().cloned());
    Ok(Doomed { objects: objects.collect(), is_whole_key: true })
}

/// Destroys it. All tokens must be there: the state that says that the key is to be deleted goes with
/// it, and a token that comes back would show it as it was.
///
/// # Errors
/// As [`doomed`]; a token's, and then running it again goes on.
pub fn destroy(
    office: &mut Office,
    id: &ExternalKeyId,
    object_id: ObjectId,
    today: Date,
    force: bool,
) -> Result<Doomed, Error> {
    let survey = office.survey(id)?;
    if let Some(failed) = office.failures().first() {
        return Err(Refusal::Incomplete(failed.token.clone()).into());
    }
    let Doomed { is_whole_key, .. } = doomed(&survey, object_id, today, force)?;
    if survey.meant(Some(object_id))?.status() == VersionStatus::Deleting {
        // It says so on every token before it goes from the first.
        apply(office, id, Some(object_id), Change::ScheduleDeletion(today))?;
    }
    let survey = office.survey(id)?;
    if let Some(failed) = office.failures().first() {
        return Err(Refusal::Incomplete(failed.token.clone()).into());
    }
    let doomed = doomed(&survey, object_id, today, force)?;
    if doomed.is_whole_key != is_whole_key {
        return Err(Refusal::Overtaken.into());
    }
    for object in &doomed.objects {
        office.with(object.token, |session| destroy_if_same(session, object))?;
    }
    Ok(doomed)
}
