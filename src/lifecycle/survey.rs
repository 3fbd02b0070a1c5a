//! What the tokens hold of one key, as one. Pure.

use std::collections::BTreeMap;

use super::Refusal;
use crate::hsm::backend::ObjectHandle;
use crate::hsm::key::KeyAttributes;
use crate::hsm::state::{KeyState, VersionStatus};
use crate::names::{ExternalKeyId, KeyVersion, ObjectId};

/// One token's object of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Which token, by its place in the group.
    pub token: usize,
    /// The object.
    pub handle: ObjectHandle,
    /// What the token says of it.
    pub attributes: KeyAttributes,
    /// Its state; `None` if xksd did not make it.
    pub state: Option<KeyState>,
}

impl Object {
    /// Reads the state that the object carries.
    pub fn new(token: usize, handle: ObjectHandle, attributes: KeyAttributes) -> Self {
        let state = KeyState::parse(&attributes.changeable.id).ok();
        Self { token, handle, attributes, state }
    }

    fn identity(&self) -> (KeyVersion, ObjectId) {
        let of = |state: &KeyState| (state.version, state.object_id);
        self.state.as_ref().map_or((KeyVersion::FOREIGN, ObjectId::FOREIGN), of)
    }
}

/// One version, and every token's object of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its number.
    pub version: KeyVersion,
    /// Its identity.
    pub object_id: ObjectId,
    /// The newest state that any token knows; `None` if xksd did not make it.
    pub state: Option<KeyState>,
    /// In the order of the tokens; never empty.
    pub objects: Vec<Object>,
}

impl Held {
    /// Whether it may be used: what xksd did not make may be.
    pub fn status(&self) -> VersionStatus {
        self.state.as_ref().map_or(VersionStatus::Enabled, |state| state.status)
    }
}

/// What the tokens hold of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// Its external key id.
    pub id: ExternalKeyId,
    /// All versions, pending ones too, newest first.
    pub versions: Vec<Held>,
    /// Tokens that have something else than a key under this label.
    pub others: Vec<usize>,
    is_ambiguous: bool,
}

impl Survey {
    /// Puts the objects of one label together.
    pub fn new(id: ExternalKeyId, objects: Vec<Object>, others: Vec<usize>) -> Self {
        let mut all = BTreeMap::<_, Vec<Object>>::new();
        for object in objects {
            all.entry(object.identity()).or_default().push(object);
        }
        let mut is_ambiguous = false;
        let versions = all.into_iter().rev().map(|((version, object_id), objects)| {
            let states = objects.iter().filter_map(|object| object.state.as_ref());
            let state = states.max_by_key(|state| state.rank()).cloned();
            let is_ready = state.as_ref().is_none_or(|s| s.status != VersionStatus::Pending);
            let twins = objects.windows(2).any(|pair| pair[0].token == pair[1].token);
            is_ambiguous |= is_ready && twins;
            Held { version, object_id, state, objects }
        });
        let versions = versions.collect();
        Self { id, versions, others, is_ambiguous }
    }

    /// The version whose status is the key's.
    ///
    /// # Errors
    /// Where the objects under this label are no key in use.
    pub fn newest(&self) -> Result<&Held, Refusal> {
        if self.is_ambiguous {
            return Err(Refusal::Ambiguous);
        }
        let ready = |held: &&Held| held.status() != VersionStatus::Pending;
        match self.versions.iter().find(ready) {
            Some(newest) => Ok(newest),
            None if self.versions.is_empty() => Err(Refusal::NoSuchKey),
            None => Err(Refusal::NoneReady),
        }
    }

    /// The version with this object id, or the newest.
    ///
    /// # Errors
    /// Where there is none.
    pub fn meant(&self, object_id: Option<ObjectId>) -> Result<&Held, Refusal> {
        let newest = self.newest();
        let Some(object_id) = object_id else { return newest };
        match newest {
            Err(refusal @ (Refusal::Ambiguous | Refusal::NoSuchKey)) => Err(refusal),
            _ => self
                .versions
                .iter()
                .find(|held| held.object_id == object_id)
                .ok_or(Refusal::NoSuchVersion(object_id)),
        }
    }

    /// The pending versions of this number: one, unless several runs made one at the same time. The
    /// one with the lowest object id comes first, and is the one that everybody goes on with.
    pub fn pending(&self, version: KeyVersion) -> Vec<&Held> {
        let is_it =
            |held: &&Held| held.version == version && held.status() == VersionStatus::Pending;
        let mut pending: Vec<_> = self.versions.iter().filter(is_it).collect();
        pending.sort_by_key(|held| held.object_id);
        pending
    }
}
