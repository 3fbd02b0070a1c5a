//! An encryption, counted against the limit of its key before it is made.

use super::{Call, OperationError};
use crate::counts::ledger::Counted;
use crate::counts::{Counts, Encryption};
use crate::keystore::{AuthorizedKey, Permit};

/// One encryption that may be made, and counts.
#[derive(Debug)]
#[must_use]
pub(super) struct Tally<'a>(Option<(&'a Counts, Counted)>);

impl<'a> Tally<'a> {
    /// Takes one.
    ///
    /// # Errors
    /// [`OperationError::NotCounted`], where the key store wants that refused.
    pub(super) async fn take(
        call: &Call<'a>,
        permit: &Permit<'_>,
        key: &AuthorizedKey,
    ) -> Result<Self, OperationError> {
        let Some(counts) = call.counts else { return Ok(Self(None)) };
        let tokens = call.group.token_set();
        let counted = Counted::new(permit.id(), key.object_id(), tokens);
        let encryption = Encryption {
            key: permit.id(),
            version: key.version(),
            what: &counted,
            tokens,
            limit: permit.encryption_limit(),
        };
        counts.take(encryption, call.deadline).await?;
        Ok(Self(Some((counts, counted))))
    }

    /// It was certainly not made.
    pub(super) fn give_back(self) {
        if let Self(Some((counts, counted))) = self {
            counts.give_back(&counted);
        }
    }
}
