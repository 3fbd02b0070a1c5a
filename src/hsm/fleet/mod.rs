//! Several tokens that hold the same keys, as one: the tokens of a key store.
//!
//! A [`Group`] shows the keys of its tokens as one [`GroupCatalogue`], and an [`Attempts`] leads a
//! request from token to token. Which token's object of a key is used is settled in the background
//! by the group's [`Keeper`]. A group of one token is the common case, and nothing is special there.

mod admission;
mod attempts;
mod keeper;
mod merge;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use tokio::sync::watch;

pub use attempts::{Attempt, Attempts};
pub use keeper::Keeper;
pub use merge::GroupCatalogue;

use super::key::{Holders, Version};
use super::token::{Token, TokenError, TokenState};
use crate::clock::Deadline;
use crate::counts::ledger::TokenSet;
use crate::keystore::KeyRule;

/// Tokens that hold the same keys, in the order in which they are trusted.
#[derive(Debug)]
pub struct Group {
    tokens: Vec<Arc<Token>>,
    token_set: TokenSet,
    catalogue: watch::Sender<GroupCatalogue>,
    /// The keys that are looked at.
    rules: watch::Sender<Vec<KeyRule>>,
    /// Whose turn it is among equals.
    turn: AtomicUsize,
}

impl Group {
    /// A group of these tokens, of which there must be one at least. Nothing is in its catalogue
    /// before its [`Keeper`] runs.
    pub fn new(tokens: Vec<Arc<Token>>) -> Self {
        assert!(!tokens.is_empty(), "a key store has a token");
        let token_set = TokenSet::new(tokens.iter().map(|token| token.name()));
        let (catalogue, rules, turn) = Default::default();
        Self { tokens, token_set, catalogue, rules, turn }
    }

    /// Has only keys looked at that one of these rules allows: it is not ours to encrypt with others.
    pub fn look_at(&self, rules: Vec<KeyRule>) {
        self.rules.send_if_modified(|now| {
            let is_new = *now != rules;
            *now = rules;
            is_new
        });
    }

    /// Has the keys looked at that one of these rules allows, besides those that are.
    pub fn look_at_also(&self, rules: &[KeyRule]) {
        self.rules.send_if_modified(|now| {
            let before = now.len();
            for rule in rules {
                if !now.contains(rule) {
                    now.push(rule.clone());
                }
            }
            now.len() > before
        });
    }

    /// Its tokens, in order.
    pub fn tokens(&self) -> &[Arc<Token>] {
        &self.tokens
    }

    /// Their names, as counts know them.
    pub fn token_set(&self) -> &TokenSet {
        &self.token_set
    }

    /// Tells of every reading of a token's keys, and of what becomes of it.
    pub fn watch_catalogue(&self) -> watch::Receiver<GroupCatalogue> {
        self.catalogue.subscribe()
    }

    /// Whether any of them serves.
    pub fn serves(&self) -> bool {
        self.tokens.iter().any(|token| token.state().serves())
    }

    /// The keys as they were last read.
    pub fn catalogue(&self) -> GroupCatalogue {
        self.catalogue.borrow().clone()
    }

    /// The keys, once they are `enough`, or once every token that can be read was read after this
    /// moment. Asks for early readings as long as `unknown`; all who wait share them.
    ///
    /// # Errors
    /// [`TokenError::Late`] where neither comes about before the deadline; [`TokenError::Down`] if
    /// no token serves.
    pub async fn catalogue_since(
        &self,
        moment: Instant,
        deadline: Deadline,
        enough: impl Fn(&GroupCatalogue) -> Enough,
    ) -> Result<GroupCatalogue, TokenError> {
        let mut readings = self.catalogue.subscribe();
        let answered = readings.wait_for(|catalogue| match enough(catalogue) {
            Enough::Yes => true,
            Enough::Soon => false,
            Enough::No => self.ask_for_readings(catalogue, moment),
        });
        match tokio::time::timeout_at(deadline.instant().into(), answered).await {
            Ok(Ok(catalogue)) => Ok(catalogue.clone()),
            Ok(Err(_closed)) => Err(TokenError::Down),
            Err(_elapsed) if self.serves() => Err(TokenError::Late),
            Err(_elapsed) => Err(TokenError::Down),
        }
    }

    /// Waits until the keys of every token that serves are in the catalogue, and none of them waits for
    /// a proof: nothing more is to be expected then. Says whether that was so before the deadline.
    pub async fn settled(&self, deadline: Deadline) -> bool {
        let mut readings = self.catalogue.subscribe();
        let settled = readings.wait_for(|catalogue| {
            let is_in = |(number, token): (usize, &Arc<Token>)| {
                !token.state().serves() || catalogue.has_read(number)
            };
            self.tokens.iter().enumerate().all(is_in)
                && catalogue.versions().all(|version| self.readiness(version) != Enough::Soon)
        });
        matches!(tokio::time::timeout_at(deadline.instant().into(), settled).await, Ok(Ok(_)))
    }

    /// Whether none of them serves, nor will in a moment.
    pub fn is_down(&self) -> bool {
        self.tokens.iter().all(|token| is_down(token))
    }

    /// Whether every token that can be read was, from this moment on.
    pub fn is_read_since(&self, catalogue: &GroupCatalogue, moment: Instant) -> bool {
        let mut tokens = self.tokens.iter().enumerate();
        tokens.all(|(number, token)| is_down(token) || catalogue.is_since(number, moment))
    }

    /// Whether every token was read from this moment on: only such readings may say that a key does
    /// not exist.
    pub fn is_complete_since(&self, catalogue: &GroupCatalogue, moment: Instant) -> bool {
        (0..self.tokens.len()).all(|token| catalogue.is_since(token, moment))
    }

    /// Whether a version can be used now.
    pub fn readiness(&self, version: &Version<Holders>) -> Enough {
        let mut readiness = Enough::Yes;
        for holder in version.at.iter() {
            match self.tokens[holder.token].state() {
                state if state.serves() => {}
                TokenState::Probing => {
                    readiness = Enough::Soon;
                    continue;
                }
                _ => continue,
            }
            if holder.standing.is_admitted() {
                return Enough::Yes;
            }
            // What is refused stays so: there is nothing to wait for.
            if holder.standing == super::key::Standing::Pending {
                readiness = Enough::Soon;
            }
        }
        readiness
    }

    /// Asks those tokens for a reading that have not been read since; says whether there are none
    /// that could be.
    fn ask_for_readings(&self, catalogue: &GroupCatalogue, moment: Instant) -> bool {
        for (number, token) in self.tokens.iter().enumerate() {
            if !is_down(token) && !catalogue.is_since(number, moment) {
                // Again after each reading that had begun too early.
                token.ask_for_reading();
            }
        }
        self.is_read_since(catalogue, moment)
    }
}

fn is_down(token: &Token) -> bool {
    matches!(token.state(), TokenState::Down(_) | TokenState::PinRefused)
}

/// Whether a catalogue tells what somebody wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enough {
    /// It does, or no other will.
    Yes,
    /// A later one will, by itself.
    Soon,
    /// Only a later reading of the tokens can.
    No,
}
