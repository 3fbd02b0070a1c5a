//! A rule: what happens, and at which calls.

use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cryptoki_sys::{CK_RV, CK_ULONG};

use crate::chance::Chance;
use crate::function::Function;
use crate::identity::Field;
use crate::output;

/// One rule of a script, for one function.
#[derive(Debug)]
pub(crate) struct Rule {
    /// All of them must select a call; without any, every call is selected.
    pub(crate) selectors: Vec<Selector>,
    pub(crate) action: Action,
    /// Number of the rule in its script, so that each has its own chance.
    salt: u64,
    /// Bytes that the action repeats at later calls.
    memory: Mutex<Vec<u8>>,
}

/// At which calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Selector {
    /// At this call of the function, counted from 1 since the script was loaded.
    Nth(NonZeroU64),
    /// At each call whose number can be divided by this.
    Every(NonZeroU64),
    /// At so many calls from the first on.
    First(NonZeroU64),
    /// At all calls from this one on.
    From(NonZeroU64),
    /// At this share of the calls, by chance.
    Share(Share),
    /// C_OpenSession: where no read-write session is asked for.
    ReadOnly,
    /// C_OpenSession: where so many sessions are open, or being opened, already.
    Beyond(u64),
}

/// A share in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share(pub(crate) u32);

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Sleeps at least this long, in the calling thread, before the real call.
    Delay(RangeInclusive<Duration>),
    /// Waits until another script is loaded.
    Hang,
    /// Ends the process by SIGABRT.
    Crash,
    /// Ends the process with this status, through its exit handlers.
    Exit(i32),
    /// Answers with this code.
    Return(CK_RV, When),
    /// Flips so many neighbouring bits of the output.
    Flip(u64),
    /// Says that the output is this much shorter than it is.
    Short(CK_ULONG),
    /// Says that the output is this much longer than it is.
    Long(CK_ULONG),
    /// Fills the output with zeros.
    Zero,
    /// Fills the output with the bytes of the first output.
    Same,
    /// Gives each object the handle of another.
    Renumber,
    /// C_EncryptInit and C_EncryptMessage with CKM_AES_GCM: the token makes the IV.
    Iv(IvPlace, IvValue),
    /// C_GetInfo and the like: writes this text into a field.
    Say(Field, String),
}

/// When an answer is given in place of the real module's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// At once; the real module is not called.
    Before,
    /// The real module is called, whatever it answers.
    After,
    /// The real module is called and answers with this code.
    For(CK_RV),
}

/// Where the caller finds an IV that the token made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IvPlace {
    /// In the buffer that `pIv` points to, 12 bytes, all zero before.
    InPlace,
    /// Behind the tag, 16 bytes; there may be no `pIv`.
    Appended,
}

/// Whether the token's generator works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IvValue {
    Fresh,
    /// The first is used again and again.
    Same,
}

/// What selectors want to know of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// Number of the call among those of its function since the script was loaded, from 1.
    pub(crate) number: u64,
    /// C_OpenSession: sessions that were open, or being opened, before.
    pub(crate) sessions: u64,
    /// C_OpenSession: no read-write session is asked for.
    pub(crate) read_only: bool,
}

impl Rule {
    pub(crate) fn new(selectors: Vec<Selector>, action: Action, salt: u64) -> Self {
        Self { selectors, action, salt, memory: Mutex::default() }
    }

    /// Whether the rule is obeyed at this call.
    pub(crate) fn selects(&self, facts: &Facts, seed: u64) -> bool {
        let mut chance = self.chance(facts, seed);
        self.selectors.iter().all(|selector| selector.selects(facts, &mut chance))
    }

    /// The draws for what the action leaves to chance at this call.
    pub(crate) fn chance_of_action(&self, facts: &Facts, seed: u64) -> Chance {
        // Not those of the selectors: calls selected by a low draw would all get low ones.
        self.chance(facts, !seed)
    }

    /// Bytes that the action repeats; empty before the first call.
    pub(crate) fn memory(&self) -> MutexGuard<'_, Vec<u8>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn chance(&self, facts: &Facts, seed: u64) -> Chance {
        Chance::new(seed, self.salt, facts.number)
    }
}

impl Selector {
    /// Whether there is a sense in selecting calls of this function so.
    pub(crate) fn fits(self, function: Function) -> bool {
        match self {
            Self::ReadOnly | Self::Beyond(_) => function == Function::C_OpenSession,
            _ => true,
        }
    }

    fn selects(self, facts: &Facts, chance: &mut Chance) -> bool {
        match self {
            Self::Nth(nth) => facts.number == nth.get(),
            Self::Every(step) => facts.number.is_multiple_of(step.get()),
            Self::First(last) => facts.number <= last.get(),
            Self::From(first) => facts.number >= first.get(),
            Self::Share(share) => chance.below(Share::WHOLE) < share.0.into(),
            Self::ReadOnly => facts.read_only,
            Self::Beyond(limit) => facts.sessions >= limit,
        }
    }
}

impl Share {
    /// All calls.
    pub(crate) const WHOLE: u64 = 1_000_000;
}

impl Action {
    /// Whether this can happen at a call of this function.
    pub(crate) fn fits(&self, function: Function) -> bool {
        match self {
            Self::Delay(_)
            | Self::Hang
            | Self::Crash
            | Self::Exit(_)
            | Self::Return(..)
            | Self::Renumber => true,
            Self::Flip(_) | Self::Zero | Self::Same => output::of_function(function).is_some(),
            Self::Short(_) | Self::Long(_) => {
                output::of_function(function).is_some_and(output::Shape::has_length)
            }
            Self::Iv(IvPlace::InPlace, _) => {
                matches!(function, Function::C_EncryptInit | Function::C_EncryptMessage)
            }
            Self::Iv(IvPlace::Appended, _) => function == Function::C_EncryptInit,
            Self::Say(field, _) => field.function == function,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(selectors: &[Selector], seed: u64) -> Vec<u64> {
        let rule = Rule::new(selectors.to_vec(), Action::Hang, 0);
        let facts = |number| Facts { number, sessions: 0, read_only: false };
        (1..=12).filter(|number| rule.selects(&facts(*number), seed)).collect()
    }

    fn number(number: u64) -> NonZeroU64 {
        NonZeroU64::new(number).expect("not zero")
    }

    #[test]
    fn selectors_by_number() {
        assert_eq!(calls(&[], 0), Vec::from_iter(1..=12));
        assert_eq!(calls(&[Selector::Nth(number(3))], 0), [3]);
        assert_eq!(calls(&[Selector::Every(number(5))], 0), [5, 10]);
        assert_eq!(calls(&[Selector::First(number(2))], 0), [1, 2]);
        assert_eq!(calls(&[Selector::From(number(11))], 0), [11, 12]);
        assert_eq!(calls(&[Selector::Every(number(2)), Selector::From(number(9))], 0), [10, 12]);
    }

    #[test]
    fn a_share_is_by_chance_and_repeats_with_its_seed() {
        let half = [Selector::Share(Share(500_000))];
        assert_eq!(calls(&half, 1), calls(&half, 1));
        assert_ne!(calls(&half, 1), calls(&half, 2));
        assert_eq!(calls(&[Selector::Share(Share(1_000_000))], 1), Vec::from_iter(1..=12));
    }

    #[test]
    fn selectors_of_sessions() {
        let rule = |selector| Rule::new(vec![selector], Action::Hang, 0);
        let facts = |sessions, read_only| Facts { number: 1, sessions, read_only };
        assert!(!rule(Selector::Beyond(2)).selects(&facts(1, false), 0));
        assert!(rule(Selector::Beyond(2)).selects(&facts(2, false), 0));
        assert!(!rule(Selector::ReadOnly).selects(&facts(0, false), 0));
        assert!(rule(Selector::ReadOnly).selects(&facts(0, true), 0));
    }
}
