//! Where the time of a request goes: its way, part by part, and its jobs on the tokens.
//!
//! The parts follow one another, so that one begins where the one before it ends, whether that
//! succeeded or was the end of the request. Only around jobs is there time of nobody's: until the
//! task of the request runs again.

use std::time::{Duration, Instant};

use crate::hsm::fleet::Attempt;
use crate::hsm::token::{Timed, Times, Token, TokenError};
use crate::keystore::AuthorizedKey;
use crate::names::{KeyVersion, TokenName};
use crate::wire::ciphertext_format::CiphertextFormat;

/// An Encrypt that is checked has nine steps; room for them is made at once.
const USUAL_STEPS: usize = 9;

/// A part of a request's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// From the end of the head until the body is there.
    Body,
    /// Whose path it is, and whether the signature holds.
    Authenticate,
    /// Quotas, parsing, the rules of the key store.
    Authorize,
    /// Finding the key, and waiting for the tokens' keys to be read where that is needed.
    Catalogue,
    /// A job waits for a session.
    Queue,
    /// A session of the HSM works on a job.
    Hsm,
    /// The answer is written, or the error turned into the protocol's words.
    Respond,
}

impl Part {
    /// All, in the order of the way.
    pub const ALL: [Self; 7] = [
        Self::Body,
        Self::Authenticate,
        Self::Authorize,
        Self::Catalogue,
        Self::Queue,
        Self::Hsm,
        Self::Respond,
    ];

    /// Its name in metrics and traces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Authenticate => "authenticate",
            Self::Authorize => "authorize",
            Self::Catalogue => "catalogue",
            Self::Queue => "queue",
            Self::Hsm => "hsm",
            Self::Respond => "respond",
        }
    }
}

/// What a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// To encrypt.
    Encrypt,
    /// To decrypt.
    Decrypt,
    /// To decrypt what was just encrypted (P-43).
    Check,
}

impl Work {
    /// Its name in traces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
            Self::Check => "check",
        }
    }
}

/// The part of a job in a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Which token.
    pub token: TokenName,
    /// Which of the request's attempts it belongs to, from 1.
    pub attempt: u32,
    /// What it is for.
    pub work: Work,
    /// Why it ended here without a result, if it did.
    pub error: Option<TokenError>,
}

/// A part of the way, and when it was gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Which part.
    pub part: Part,
    /// When it began.
    pub start: Instant,
    /// When it ended.
    pub end: Instant,
    /// Of queue and HSM: which job.
    pub job: Option<Job>,
}

/// What a request leaves for its record, however it ends.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// The token that the request was last sent to.
    pub token: Option<TokenName>,
    /// How often it was sent to a token.
    pub attempts: u32,
    /// The version of the key that was used.
    pub version: Option<KeyVersion>,
    /// What the ciphertext is.
    pub format: Option<CiphertextFormat>,
    /// Encryptions that the HSM made, retries included.
    pub encryptions: u64,
    steps: Vec<Step>,
    open: Option<(Part, Instant)>,
}

impl Trace {
    /// A part begins, and the one before it ends.
    pub fn begin(&mut self, part: Part) {
        self.begin_at(part, Instant::now());
    }

    /// The same, at a moment that has been.
    pub fn begin_at(&mut self, part: Part, start: Instant) {
        self.end_at(start);
        self.open = Some((part, start));
    }

    /// The last part ends.
    pub fn end_at(&mut self, end: Instant) {
        if let Some((part, start)) = self.open.take() {
            self.push(Step { part, start, end, job: None });
        }
    }

    /// All that has ended, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The time of all steps of a part together; `None` if there are none.
    pub fn time(&self, part: Part) -> Option<Duration> {
        let steps = self.steps.iter().filter(|step| step.part == part);
        let times = steps.map(|step| step.end.saturating_duration_since(step.start));
        times.reduce(|all, one| all + one)
    }

    /// The request goes to a token.
    pub(super) fn sent(
        &mut self,
        attempt: &Attempt<'_>,
        key: &AuthorizedKey,
        format: CiphertextFormat,
    ) {
        self.token = Some(attempt.token.name().clone());
        self.version = Some(key.version());
        self.format = Some(format);
        self.attempts += 1;
    }

    /// A job has ended; gives what it gave.
    pub(super) fn job<T>(
        &mut self,
        token: &Token,
        work: Work,
        timed: Timed<T>,
    ) -> Result<T, TokenError> {
        let Timed { result, times: Times { asked, taken, ended } } = timed;
        let error = result.as_ref().err().copied();
        let job =
            |error| Some(Job { token: token.name().clone(), attempt: self.attempts, work, error });
        let (waited, worked) = match taken {
            None => (Step { part: Part::Queue, start: asked, end: ended, job: job(error) }, None),
            Some(taken) => (
                Step { part: Part::Queue, start: asked, end: taken, job: job(None) },
                Some(Step { part: Part::Hsm, start: taken, end: ended, job: job(error) }),
            ),
        };
        self.end_at(asked);
        self.push(waited);
        if let Some(worked) = worked {
            self.push(worked);
        }
        result
    }

    fn push(&mut self, step: Step) {
        if self.steps.capacity() == 0 {
            self.steps.reserve_exact(USUAL_STEPS);
        }
        self.steps.push(step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_part_begins_where_the_one_before_it_ends() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut trace = Trace::default();
        trace.begin_at(Part::Body, at(0));
        trace.begin_at(Part::Authenticate, at(3));
        trace.begin_at(Part::Respond, at(4));
        trace.end_at(at(9));
        let steps: Vec<_> =
            trace.steps().iter().map(|step| (step.part, step.start, step.end)).collect();
        assert_eq!(
            steps,
            [
                (Part::Body, at(0), at(3)),
                (Part::Authenticate, at(3), at(4)),
                (Part::Respond, at(4), at(9)),
            ]
        );
        assert_eq!(trace.time(Part::Respond), Some(Duration::from_millis(5)));
        assert_eq!(trace.time(Part::Hsm), None);
    }

    #[test]
    fn a_part_that_is_gone_twice_is_counted_twice() {
        let start = Instant::now();
        let mut trace = Trace::default();
        for round in 0..2 {
            let begun = start + Duration::from_millis(10 * round);
            trace.begin_at(Part::Catalogue, begun);
            trace.end_at(begun + Duration::from_millis(2));
        }
        assert_eq!(trace.time(Part::Catalogue), Some(Duration::from_millis(4)));
    }
}
