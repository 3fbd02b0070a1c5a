//! The tokens that a command acts on, and what became of each.

use super::Error;
use super::survey::{Object, Survey};
use crate::hsm::backend::{Administration, ObjectHandle, Protection};
use crate::hsm::fault::{Fault, FaultKind};
use crate::hsm::key::KeyAttributes;
use crate::names::{ExternalKeyId, TokenName};

/// The tokens of a group, in its order. One that fails is noted and not used again.
pub struct Office {
    members: Vec<Member>,
    failures: Vec<Failed>,
}

struct Member {
    name: TokenName,
    session: Option<Box<dyn Administration>>,
}

/// A token that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Which one.
    pub token: TokenName,
    /// How.
    pub fault: Fault,
}

impl Office {
    /// Tokens, as far as they could be connected to.
    pub fn new(
        tokens: impl IntoIterator<Item = (TokenName, Result<Box<dyn Administration>, Fault>)>,
    ) -> Self {
        let mut office = Self { members: Vec::new(), failures: Vec::new() };
        for (name, session) in tokens {
            let session = match session {
                Ok(session) => Some(session),
                Err(fault) => {
                    office.failures.push(Failed { token: name.clone(), fault });
                    None
                }
            };
            office.members.push(Member { name, session });
        }
        office
    }

    /// The tokens that failed, each once.
    pub fn failures(&self) -> &[Failed] {
        &self.failures
    }

    /// How many tokens there are, with those that failed.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// A token's name, by its place in the group.
    pub fn name(&self, token: usize) -> &TokenName {
        &self.members[token].name
    }

    /// The tokens that have not failed, by their places.
    pub fn reached(&self) -> Vec<usize> {
        (0..self.len()).filter(|&token| self.members[token].session.is_some()).collect()
    }

    /// Everything that the tokens hold of a key.
    ///
    /// # Errors
    /// [`Error::NoToken`] where none is left.
    pub fn survey(&mut self, id: &ExternalKeyId) -> Result<Survey, Error> {
        let (mut objects, mut others) = (Vec::new(), Vec::new());
        for token in self.reached() {
            let held = self.with(token, |session| labelled(session, token, id));
            let Ok((held, has_others)) = held else { continue };
            objects.extend(held);
            others.extend(has_others.then_some(token));
        }
        if self.reached().is_empty() {
            return Err(Error::NoToken);
        }
        Ok(Survey::new(id.clone(), objects, others))
    }

    /// Every key of one token whose label is an external key id, and how many objects could not be
    /// read.
    ///
    /// # Errors
    /// The token's.
    pub fn keys(&mut self, token: usize) -> Result<(Vec<Survey>, usize), Error> {
        let (objects, unread) = self.with(token, |session| every(session, token))?;
        let mut ids: Vec<_> = objects.iter().map(|(id, _)| id.clone()).collect();
        ids.sort();
        ids.dedup();
        let survey = |id: ExternalKeyId| {
            let of = objects.iter().filter(|(other, _)| *other == id);
            let of = of.map(|(_, object)| object.clone()).collect();
            Survey::new(id, of, Vec::new())
        };
        Ok((ids.into_iter().map(survey).collect(), unread))
    }

    /// How a token keeps an object.
    ///
    /// # Errors
    /// The token's.
    pub fn protection(&mut self, object: &Object) -> Result<Protection, Error> {
        self.with(object.token, |session| session.read_protection(object.handle))
    }

    /// Does something with a token that has not failed. If that fails, the token has; but for objects
    /// that are not there any more.
    pub(super) fn with<T>(
        &mut self,
        token: usize,
        act: impl FnOnce(&mut dyn Administration) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        let Member { name, session } = &mut self.members[token];
        let Some(open) = session else { return Err(Error::NoToken) };
        act(open.as_mut()).map_err(|fault| {
            let token = name.clone();
            if fault.kind != FaultKind::HandleStale {
                *session = None;
                self.failures.push(Failed { token: token.clone(), fault });
            }
            Error::Token { token, fault }
        })
    }
}

fn labelled(
    session: &mut dyn Administration,
    token: usize,
    id: &ExternalKeyId,
) -> Result<(Vec<Object>, bool), Fault> {
    let labelled = session.labelled(id.as_str())?;
    let mut objects = Vec::new();
    for object in labelled.iter().filter(|object| object.is_key) {
        if let Some(attributes) = described(session, object.handle)? {
            objects.push(Object::new(token, object.handle, attributes));
        }
    }
    Ok((objects, labelled.iter().any(|object| !object.is_key)))
}

fn every(
    session: &mut dyn Administration,
    token: usize,
) -> Result<(Vec<(ExternalKeyId, Object)>, usize), Fault> {
    let (mut objects, mut unread) = (Vec::new(), 0);
    for handle in session.objects()? {
        let attributes = match described(session, handle) {
            Ok(Some(attributes)) => attributes,
            Ok(None) => continue,
            Err(fault) if matches!(fault.kind, FaultKind::Ambiguous | FaultKind::Bug) => {
                unread += 1;
                continue;
            }
            Err(fault) => return Err(fault),
        };
        let label = std::str::from_utf8(&attributes.changeable.label);
        if let Some(id) = label.ok().and_then(|label| label.parse().ok()) {
            objects.push((id, Object::new(token, handle, attributes)));
        }
    }
    Ok((objects, unread))
}

/// What the token says of an object; `None` if somebody destroyed it since it was found.
fn described(
    session: &mut dyn Administration,
    handle: ObjectHandle,
) -> Result<Option<KeyAttributes>, Fault> {
    match session.read_attributes(handle) {
        Ok(attributes) => Ok(Some(attributes)),
        Err(fault) if fault.kind == FaultKind::HandleStale => Ok(None),
        Err(fault) => Err(fault),
    }
}
