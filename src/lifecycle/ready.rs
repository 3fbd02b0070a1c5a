//! Whether a version that was made may be put in use: on all tokens, as it was asked for, one key.

use std::time::{Duration, Instant};

use super::birth::Wish;
use super::door::door;
use super::making::Source;
use super::office::Office;
use super::proof::{decrypts, holds};
use super::survey::Object;
use super::{Error, Refusal};
use crate::hsm::backend::{Leaves, NewKeyUsage, Protection};
use crate::hsm::key::Usage;
use crate::hsm::state::Origin;
use crate::hsm::transport::{MATERIAL_LEN, WrappingAlgorithm};
use crate::names::{ExternalKeyId, ObjectId};

/// How often the other tokens are asked whether they show a new object.
const POLL: Duration = Duration::from_millis(250);

/// Every token's object of a pending version, once all have one, each is what was asked for, and all
/// are proved to be one key.
pub(super) fn ready(
    office: &mut Office,
    id: &ExternalKeyId,
    object_id: ObjectId,
    wish: &Wish,
    source: &Source,
    leaves: Leaves,
    patience: Duration,
) -> Result<Vec<Object>, Error> {
    let objects = on_all(office, id, object_id, patience)?;
    for object in &objects {
        let kept = office.protection(object)?;
        let made = Made { usage: wish.usage, leaves, source };
        if let Some(attribute) = made.flaw(object, kept) {
            let token = office.name(object.token).clone();
            return Err(Refusal::Attribute { token, attribute }.into());
        }
        if leaves == Leaves::UnderTrusted {
            stays(office, object, leaves)?;
        }
        if let Source::Plain(material) = source
            && !holds(office, object, material, wish.usage)?
        {
            return Err(Refusal::NotProved(office.name(object.token).clone()).into());
        }
    }
    equal(office, &objects, wish.usage, source)?;
    Ok(objects)
}

/// That all objects are one key.
pub(super) fn equal(
    office: &mut Office,
    objects: &[Object],
    usage: NewKeyUsage,
    source: &Source,
) -> Result<(), Error> {
    let first = &objects[0];
    let differs = |office: &Office, object: &Object| {
        Error::Refused(Refusal::NotProved(office.name(object.token).clone()))
    };
    if usage.encrypt && usage.decrypt {
        for object in objects {
            for (writer, reader) in [(first, object), (object, first)] {
                if !decrypts(office, writer, reader)? {
                    return Err(differs(office, object));
                }
                if object.token == first.token {
                    break;
                }
            }
        }
        return Ok(());
    }
    // Each was compared with the material itself.
    if matches!(source, Source::Plain(_)) && (usage.encrypt || usage.decrypt) {
        return Ok(());
    }
    for object in objects.iter().filter(|object| object.token != first.token) {
        match (first.attributes.check_value, object.attributes.check_value) {
            (Some(one), Some(other)) if one == other => {}
            (Some(_), Some(_)) => return Err(differs(office, object)),
            (one, _) => {
                let silent = if one.is_none() { first.token } else { object.token };
                return Err(Refusal::NoProof(office.name(silent).clone()).into());
            }
        }
    }
    Ok(())
}

/// That the token does not wrap a key for somebody whom nobody trusts: some know the attribute that
/// says so, and do not act on it.
pub(super) fn stays(office: &mut Office, object: &Object, leaves: Leaves) -> Result<(), Error> {
    let door = door(office, object.token, leaves)?;
    let refuses = office.with(object.token, |session| {
        session.refuses_untrusted(object.handle, &door.pair.public, door.hash)
    })?;
    if refuses {
        return Ok(());
    }
    Err(Refusal::WrapsForAnybody(office.name(object.token).clone()).into())
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
        if objects.windows(2).any(|pair| pair[0].token == pair[1].token) {
            return Err(Refusal::Ambiguous.into());
        }
        let lacks = |token: &usize| !objects.iter().any(|object| object.token == *token);
        let Some(missing) = (0..office.len()).find(lacks) else { return Ok(objects) };
        if begun.elapsed() >= patience {
            return Err(Refusal::NotReplicated(office.name(missing).clone()).into());
        }
        std::thread::sleep(POLL);
    }
}

/// What an object has to be like.
pub(super) struct Made<'a> {
    pub(super) usage: NewKeyUsage,
    pub(super) leaves: Leaves,
    pub(super) source: &'a Source,
}

impl Made<'_> {
    /// The attribute that is not as it was asked for.
    pub(super) fn flaw(&self, object: &Object, kept: Protection) -> Option<&'static str> {
        let NewKeyUsage { encrypt, decrypt } = self.usage;
        let usage = Usage { encrypt, decrypt, ..Usage::default() };
        let attributes = &object.attributes;
        let may_leave = self.leaves == Leaves::UnderTrusted;
        // Only what the token generated itself, and for itself, was never anywhere else.
        let was_elsewhere = self.source.origin() != Origin::Generated;
        let checks = [
            (attributes.kind.is_aes_256() && self.is_length(kept.value_len), "length"),
            (attributes.usage == usage, "usage"),
            (kept.sensitive == Some(true), "CKA_SENSITIVE"),
            (kept.extractable == Some(may_leave), "CKA_EXTRACTABLE"),
            (!may_leave || kept.wrap_with_trusted == Some(true), "CKA_WRAP_WITH_TRUSTED"),
            // These a token may leave out; what it says must be right.
            (kept.token != Some(false), "CKA_TOKEN"),
            (kept.private != Some(false), "CKA_PRIVATE"),
            (was_elsewhere || kept.always_sensitive != Some(false), "CKA_ALWAYS_SENSITIVE"),
            (was_elsewhere || kept.never_extractable != Some(false), "CKA_NEVER_EXTRACTABLE"),
            (kept.modifiable != Some(false), "CKA_MODIFIABLE"),
        ];
        checks.into_iter().find(|(is_right, _)| !is_right).map(|(_, attribute)| attribute)
    }

    /// Where the token does not tell the length of what it unwrapped, how that came to be must: a key
    /// of 32 bytes was wrapped, or the length of what was unwrapped shows it.
    fn is_length(&self, told: Option<u64>) -> bool {
        match told {
            Some(bytes) => bytes == MATERIAL_LEN as u64,
            None => match self.source {
                Source::Generated | Source::Wrapped(WrappingAlgorithm::Oaep(_), _) => false,
                Source::Shared | Source::Plain(_) => true,
                Source::Wrapped(WrappingAlgorithm::AesKeyWrap(_), _) => true,
            },
        }
    }
}
