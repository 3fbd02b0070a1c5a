//! Whether the tokens of a group hold the same keys.

use super::Error;
use super::office::Office;
use super::proof::decrypts;
use super::survey::{Object, Survey};
use crate::names::{KeyVersion, ObjectId};

/// What was found out about one token's object of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Number of the version.
    pub version: KeyVersion,
    /// Identity of the version.
    pub object_id: ObjectId,
    /// Which token, by its place in the group.
    pub token: usize,
    /// What was found out.
    pub agreement: Agreement,
}

/// How a token's object compares with that of the first token that has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// Each decrypts what the other encrypts; of the first itself: it decrypts what it encrypts.
    Decrypts,
    /// The key permits no such proof; the check values are equal.
    CheckValue,
    /// The key permits no such proof, and this is the first: the others are compared with it.
    First,
    /// The key permits no such proof, and a check value is missing.
    Unproved,
    /// The check values differ, or one does not decrypt what the other encrypts.
    Differs,
    /// The state, the kind or the usage differs.
    OtherAttributes,
    /// The token has none.
    Missing,
}

impl Agreement {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decrypts => "decrypts",
            Self::CheckValue => "check value",
            Self::First => "first",
            Self::Unproved => "unproved",
            Self::Differs => "differs",
            Self::OtherAttributes => "other attributes",
            Self::Missing => "missing",
        }
    }

    /// Whether nothing is wrong.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Decrypts | Self::CheckValue | Self::First)
    }
}

/// Compares every version on every token that can be reached.
///
/// # Errors
/// A token's.
pub fn verify(office: &mut Office, survey: &Survey) -> Result<Vec<Verified>, Error> {
    let mut all = Vec::new();
    for held in &survey.versions {
        let first = &held.objects[0];
        for token in office.reached() {
            let agreement = match held.objects.iter().find(|object| object.token == token) {
                None => Agreement::Missing,
                Some(object) => compare(office, first, object)?,
            };
            let (version, object_id) = (held.version, held.object_id);
            all.push(Verified { version, object_id, token, agreement });
        }
    }
    Ok(all)
}

fn compare(office: &mut Office, first: &Object, object: &Object) -> Result<Agreement, Error> {
    let (one, other) = (&first.attributes, &object.attributes);
    let is_first = first.token == object.token;
    if one.kind != other.kind || one.usage != other.usage || first.state != object.state {
        return Ok(Agreement::OtherAttributes);
    }
    if let (Some(one), Some(other)) = (one.check_value, other.check_value)
        && one != other
    {
        return Ok(Agreement::Differs);
    }
    if one.kind.is_aes_256() && one.usage.encrypt && one.usage.decrypt {
        let is_same =
            decrypts(office, first, object)? && (is_first || decrypts(office, object, first)?);
        return Ok(if is_same { Agreement::Decrypts } else { Agreement::Differs });
    }
    Ok(match (one.check_value, other.check_value) {
        _ if is_first => Agreement::First,
        (Some(_), Some(_)) => Agreement::CheckValue,
        _ => Agreement::Unproved,
    })
}
