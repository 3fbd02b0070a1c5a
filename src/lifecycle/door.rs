//! The RSA pair under whose public key material comes into a token.

use super::office::Office;
use super::{Error, Refusal};
use crate::hsm::backend::{Administration, Leaves};
use crate::hsm::fault::Fault;
use crate::hsm::transport::{OaepHash, Pair};
use crate::names::TokenName;

/// A token's pair, and the hash that it unwraps with.
#[derive(Debug, Clone)]
pub struct Door {
    /// The pair.
    pub pair: Pair,
    /// The best hash that was tried with success.
    pub hash: OaepHash,
}

/// Why no material comes into a token this way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// What bears the label was not generated in the token, or can do more than unwrap.
    NotSound,
    /// It unwraps nothing.
    DoesNotUnwrap,
}

impl Closed {
    pub(super) fn of(self, token: TokenName) -> Refusal {
        match self {
            Self::NotSound => Refusal::PairNotSound(token),
            Self::DoesNotUnwrap => Refusal::DoesNotUnwrap(token),
        }
    }
}

/// A token's pair, made if it has none, and tried.
///
/// # Errors
/// Where the token's pair can't be relied on, or does not work; the token's.
pub fn door(office: &mut Office, token: usize, leaves: Leaves) -> Result<Door, Error> {
    let found = office.with(token, |session| open(session, leaves))?;
    found.map_err(|closed| closed.of(office.name(token).clone()).into())
}

pub(super) fn open(
    session: &mut dyn Administration,
    leaves: Leaves,
) -> Result<Result<Door, Closed>, Fault> {
    let mut pairs = session.pairs(leaves)?;
    if pairs.is_empty() {
        session.make_pair(leaves)?;
        pairs = session.pairs(leaves)?;
    }
    let Some(pair) = pairs.into_iter().find(|pair| pair.is_sound) else {
        return Ok(Err(Closed::NotSound));
    };
    for hash in OaepHash::ALL {
        if session.unwraps(&pair, leaves, hash)? {
            return Ok(Ok(Door { pair, hash }));
        }
    }
    Ok(Err(Closed::DoesNotUnwrap))
}
