//! Where an operation goes next when an attempt gave nothing, and whether it goes on at all.

use std::time::Instant;

use super::OperationError;
use crate::clock::Deadline;
use crate::hsm::fault::FaultKind;
use crate::hsm::fleet::{Attempt, Attempts, Group};
use crate::hsm::token::TokenError;
use crate::keystore::AuthorizedKey;

/// One operation's way through the tokens of its key store: each is tried once, and where there is
/// only one, that one a second time if another session or another reading of its keys may help.
#[derive(Debug)]
pub(super) struct Way<'a> {
    attempts: Attempts<'a>,
    last: Option<OperationError>,
    known_since: Instant,
}

impl<'a> Way<'a> {
    pub(super) fn new(group: &'a Group, arrived: Instant, deadline: Deadline) -> Self {
        Self { attempts: Attempts::new(group, deadline), last: None, known_since: arrived }
    }

    /// From when on the keys must have been read for the next attempt.
    pub(super) fn known_since(&self) -> Instant {
        self.known_since
    }

    /// The next attempt; else what the last one gave.
    pub(super) fn next(&mut self, key: &AuthorizedKey) -> Result<Attempt<'a>, OperationError> {
        let last = match self.last {
            None => return self.attempts.next(key).ok_or(TokenError::Down.into()),
            Some(last) if self.attempts.is_over() => return Err(last),
            Some(last) => last,
        };
        let next = self.attempts.next(key);
        let again = || may_help_again(last).then(|| self.attempts.again(key)).flatten();
        next.or_else(again).ok_or(last)
    }

    /// Takes an attempt's failure; gives it back if that was the end.
    pub(super) fn failed(
        &mut self,
        attempt: &Attempt<'_>,
        key: &AuthorizedKey,
        error: OperationError,
    ) -> Result<(), OperationError> {
        if is_final(error) {
            return Err(error);
        }
        self.attempts.failed(attempt);
        if self.attempts.has_other(key) {
            tracing::debug!(token = %attempt.token.name(), %error, "trying another token");
            attempt.token.metrics().failed_over();
        } else if is_stale(error) {
            self.known_since = Instant::now();
        }
        self.last = Some(error);
        Ok(())
    }
}

/// Whether no token would answer otherwise.
fn is_final(error: OperationError) -> bool {
    !matches!(error, OperationError::Token(_) | OperationError::CheckFailed)
}

/// Whether the same token may do it with another session, another reading of its keys or another IV.
fn may_help_again(error: OperationError) -> bool {
    match error {
        OperationError::CheckFailed => true,
        OperationError::Token(TokenError::Fault(fault)) => matches!(
            fault.kind,
            FaultKind::HandleStale
                | FaultKind::SessionLost
                | FaultKind::LoginLost
                | FaultKind::TokenLost
                | FaultKind::Ambiguous
        ),
        _ => false,
    }
}

fn is_stale(error: OperationError) -> bool {
    matches!(
        error,
        OperationError::Token(TokenError::Fault(fault)) if fault.kind == FaultKind::HandleStale
    )
}
