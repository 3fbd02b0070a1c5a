//! One request's way from token to token.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Group;
use crate::clock::Deadline;
use crate::hsm::backend::ObjectHandle;
use crate::hsm::key::{Holder, Standing};
use crate::hsm::token::{Token, TokenState};
use crate::keystore::AuthorizedKey;

/// One request in so many goes to any token that is up, however slow it was before.
const ANYBODYS_TURN: usize = 16;

/// Which tokens a request has been to.
#[derive(Debug)]
pub struct Attempts<'a> {
    group: &'a Group,
    deadline: Deadline,
    /// Empty, and without memory of its own, unless something fails.
    tried: Vec<usize>,
    tried_again: bool,
}

/// One attempt, on one token.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The token.
    pub token: &'a Token,
    /// The token's object of the key.
    pub handle: ObjectHandle,
    /// Its place in the group.
    number: usize,
    /// How the token came to be used for this key.
    pub standing: Standing,
    /// Whether another token, one that is up, can be tried after this one.
    has_other: bool,
    deadline: Deadline,
}

impl Attempt<'_> {
    /// When an answer that is asked for now is of no use to this attempt any more: with the
    /// request, or sooner where another token can still be tried.
    pub fn deadline(&self) -> Deadline {
        if !self.has_other {
            return self.deadline;
        }
        self.deadline.min(Deadline::after(self.token.settings().attempt_limit))
    }
}

impl<'a> Attempts<'a> {
    /// The way of a request that has been nowhere yet.
    pub fn new(group: &'a Group, deadline: Deadline) -> Self {
        Self { group, deadline, tried: Vec::new(), tried_again: false }
    }

    /// The next attempt: on the token that is expected to be done first, of those that hold the key
    /// and have not been tried. `None`: there are none.
    pub fn next(&mut self, key: &AuthorizedKey) -> Option<Attempt<'a>> {
        let holders = || self.usable(key).filter(|holder| !self.tried.contains(&holder.token));
        let holder = self.best(holders())?;
        let is_up = |other: &Holder| self.group.tokens[other.token].state() == TokenState::Up;
        let mut others = holders().filter(|other| other.token != holder.token);
        let has_other = others.any(|other| is_up(&other));
        Some(self.attempt(holder, has_other))
    }

    /// A second attempt on a token that has been tried already, once: where no other can be, and
    /// another session or another reading may help.
    pub fn again(&mut self, key: &AuthorizedKey) -> Option<Attempt<'a>> {
        if std::mem::replace(&mut self.tried_again, true) {
            return None;
        }
        let holder = self.best(self.usable(key))?;
        Some(self.attempt(holder, false))
    }

    /// Whether a token that has not been tried can be.
    pub fn has_other(&self, key: &AuthorizedKey) -> bool {
        self.usable(key).any(|holder| !self.tried.contains(&holder.token))
    }

    /// The attempt on this token gave nothing.
    pub fn failed(&mut self, attempt: &Attempt<'_>) {
        self.tried.push(attempt.number);
    }

    /// Whether there is time for anything.
    pub fn is_over(&self) -> bool {
        self.deadline.has_passed()
    }

    fn attempt(&self, holder: Holder, has_other: bool) -> Attempt<'a> {
        let Holder { token: number, handle, standing } = holder;
        let token = &*self.group.tokens[number];
        Attempt { token, handle, number, standing, has_other, deadline: self.deadline }
    }

    fn usable<'k>(&self, key: &'k AuthorizedKey) -> impl Iterator<Item = Holder> + use<'k, 'a> {
        let group = self.group;
        let usable = move |holder: &Holder| {
            holder.standing.is_admitted() && group.tokens[holder.token].state().serves()
        };
        key.holders().iter().copied().filter(usable)
    }

    /// Of those that are up, the one that would be done first. None of them is left idle for being a
    /// little slower: those that take at most twice as long take turns. Nor is any forgotten: now and
    /// then it is the turn of one whatever it took before, for that may have changed.
    fn best(&self, mut holders: impl Iterator<Item = Holder>) -> Option<Holder> {
        let group = self.group;
        let first = holders.next()?;
        let Some(second) = holders.next() else { return Some(first) };
        let holders = [first, second].into_iter().chain(holders);
        let rate = |holder: Holder| {
            let token = &group.tokens[holder.token];
            (token.state() != TokenState::Up, token.expected(), holder)
        };
        let mut rated: Vec<(bool, Duration, Holder)> = holders.map(rate).collect();
        let &(suspect, least, _) =
            rated.iter().min_by_key(|(suspect, expected, _)| (*suspect, *expected))?;
        let turn = group.turn.fetch_add(1, Ordering::Relaxed);
        let (round, is_anybodys) = (turn / ANYBODYS_TURN, turn.is_multiple_of(ANYBODYS_TURN));
        let most = if is_anybodys { Duration::MAX } else { least.saturating_mul(2) };
        rated.retain(|(also, expected, _)| *also == suspect && *expected <= most);
        let turn = if is_anybodys { round } else { turn };
        rated.get(turn % rated.len()).map(|(_, _, holder)| *holder)
    }
}
