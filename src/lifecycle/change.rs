//! Disabling, enabling, scheduling a deletion and cancelling it.

use super::office::Office;
use super::survey::Survey;
use super::{Error, Refusal};
use crate::hsm::backend::ObjectHandle;
use crate::hsm::state::{Date, KeyState, VersionStatus};
use crate::names::{ExternalKeyId, ObjectId};

/// How often a change is made again that somebody else has undone meanwhile.
const ATTEMPTS: usize = 5;

/// What is to become of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Refused until it is enabled.
    Disable,
    /// In use again.
    Enable,
    /// Refused, and may be destroyed from this date on.
    ScheduleDeletion(Date),
    /// Not to be destroyed; disabled.
    CancelDeletion,
}

/// What a change comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The state of the version that is meant, after it.
    pub state: KeyState,
    /// The calls, in order.
    pub writes: Vec<Write>,
}

/// One C_SetAttributeValue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Which token, by its place in the group.
    pub token: usize,
    /// The object.
    pub handle: ObjectHandle,
    /// Its state before.
    pub from: KeyState,
    /// Its state after.
    pub to: KeyState,
}

/// What is to be written for a change: the new state of the version to each token that has it, and,
/// to tokens that missed an earlier change of any version, what the others know.
///
/// # Errors
/// Where the version is in no state for it.
pub fn plan(survey: &Survey, meant: Option<ObjectId>, change: Change) -> Result<Plan, Refusal> {
    let held = survey.meant(meant)?;
    let before = held.state.as_ref().ok_or(Refusal::Foreign)?;
    let state = change.of(before)?;
    let mut writes = Vec::new();
    // The version that is meant comes first: of a key that is to be stopped, it is what stops it.
    let rest = survey.versions.iter().filter(|other| !std::ptr::eq(*other, held));
    for held in std::iter::once(held).chain(rest) {
        let wanted = match &held.state {
            Some(known) if known.object_id != state.object_id => known,
            Some(_) => &state,
            None => continue,
        };
        writes.extend(held.objects.iter().filter_map(|object| {
            let from = object.state.clone().filter(|s| s != wanted && !s.is_unproved())?;
            Some(Write { token: object.token, handle: object.handle, from, to: wanted.clone() })
        }));
    }
    Ok(Plan { state, writes })
}

impl Change {
    /// The state after it; the same where it is in force already.
    fn of(self, before: &KeyState) -> Result<KeyState, Refusal> {
        use VersionStatus::{Deleting, Disabled, Enabled, Pending};
        let deleting = || Err(Refusal::Deleting(before.deletion.unwrap_or(before.created)));
        Ok(match (self, before.status) {
            (_, Pending) => return Err(Refusal::Pending),
            (Self::Disable | Self::CancelDeletion, Disabled)
            | (Self::Enable, Enabled)
            | (Self::ScheduleDeletion(_), Deleting) => before.clone(),
            (Self::Disable, Enabled) => before.changed(Disabled, None),
            (Self::Enable, Disabled) => before.changed(Enabled, None),
            (Self::ScheduleDeletion(date), Enabled | Disabled) => {
                before.changed(Deleting, Some(date))
            }
            (Self::CancelDeletion, Deleting) => before.changed(Disabled, None),
            (Self::Disable | Self::Enable, Deleting) => return deleting(),
            (Self::CancelDeletion, Enabled) => return Err(Refusal::NotDeleting),
        })
    }

    /// Whether the key is to be used less. Only such a change is insisted on against others.
    fn restricts(self) -> bool {
        matches!(self, Self::Disable | Self::ScheduleDeletion(_))
    }
}

/// Makes a change on every token that can be reached. Gives the state and the calls that were made;
/// tokens that failed are in [`Office::failures`].
///
/// # Errors
/// [`Error::Refused`], and nothing was changed.
pub fn apply(
    office: &mut Office,
    id: &ExternalKeyId,
    meant: Option<ObjectId>,
    change: Change,
) -> Result<Plan, Error> {
    let mut made = Vec::new();
    let mut aim = None;
    for _ in 0..ATTEMPTS {
        // Somebody may have rotated the key meanwhile: what is newest now is to be stopped.
        let Plan { state, writes } = plan(&office.survey(id)?, meant, change)?;
        if writes.is_empty() {
            return Ok(Plan { state, writes: made });
        }
        if !change.restricts() && *aim.get_or_insert(state.epoch) != state.epoch {
            return Err(Error::Unsettled);
        }
        made.extend(carry_out(office, writes));
    }
    Err(Error::Unsettled)
}

/// Makes these calls; gives those that were made.
pub(super) fn carry_out(office: &mut Office, writes: Vec<Write>) -> Vec<Write> {
    let make = |write: &Write| {
        office.with(write.token, |session| session.write_state(write.handle, &write.to)).is_ok()
    };
    writes.into_iter().filter(make).collect()
}
