//! The accounting: what was used of what is reserved. Pure.
//!
//! What is reserved is written down before it is used. So after a crash no more was used than is
//! written, and all of that counts as used.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::ledger::{Counted, Ledger, TokenSet};
use super::limit::{AtLimit, EncryptionLimit, Level, Share};

/// Every version that is counted.
#[derive(Debug)]
pub struct Book {
    share: Share,
    counters: HashMap<Counted, Counter>,
    lost: BTreeSet<TokenSet>,
    /// Grows with every change that has to be written down though nothing is reserved by it.
    revision: u64,
    /// Which of them is written.
    written: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counter {
    used: u64,
    /// What is written down.
    reserved: u64,
    /// It is in use: more is reserved before that is used up.
    is_wanted: bool,
    /// What was said of it.
    said: Level,
}

/// What came of taking one encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Whether it was.
    pub outcome: Outcome,
    /// What has to be said of the version, the first time.
    pub crossed: Option<Level>,
    /// How many are used now.
    pub used: u64,
    /// More should be reserved.
    pub is_low: bool,
}

/// Whether an encryption was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was, and may be made.
    Granted,
    /// All that is written down is used.
    Unreserved,
    /// The share is used up, and the key store wants that refused.
    Exhausted,
}

/// Whether an encryption may be made that is not written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwritten {
    /// It must be reserved first.
    No,
    /// It is counted in memory only.
    Allowed,
}

/// A ledger that is about to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What is to be written.
    pub ledger: Ledger,
    revision: u64,
}

impl Book {
    /// Goes on where a ledger ends. Without one, nothing is known of the keys of any of these groups
    /// of tokens.
    pub fn open(share: Share, ledger: Option<Ledger>, groups: &BTreeSet<TokenSet>) -> Self {
        let is_new = ledger.is_none();
        let ledger = ledger
            .map_or(Ledger { lost: groups.clone(), ..Ledger::default() }, |l| regroup(l, groups));
        let counter = |reserved| Counter { used: reserved, reserved, ..Counter::default() };
        let counters = ledger.reserved.into_iter().map(|(what, n)| (what, counter(n))).collect();
        let (revision, written) = (u64::from(is_new), 0);
        Self { share, counters, lost: ledger.lost, revision, written }
    }

    /// Another share from now on, and other groups of tokens: what is known of the keys of those that
    /// stand together otherwise now is carried over.
    pub fn go_on_with(&mut self, share: Share, groups: &BTreeSet<TokenSet>) {
        self.share = share;
        let used = |(what, counter): (&Counted, &Counter)| (what.clone(), counter.used);
        let reserved = self.counters.iter().map(used).collect();
        let ledger = regroup(Ledger { reserved, lost: self.lost.clone() }, groups);
        for (what, used) in ledger.reserved {
            // Also where they have stood together like this before.
            let counter = self.counters.entry(what).or_default();
            counter.used = counter.used.max(used);
            counter.reserved = counter.reserved.max(counter.used);
        }
        // Requests that began before may still be about the groups of before.
        self.lost.extend(ledger.lost);
        self.revision += 1;
    }

    /// What one proxy may use.
    pub fn share(&self) -> Share {
        self.share
    }

    /// Takes one encryption under a version of a key of these tokens.
    pub fn take(
        &mut self,
        what: &Counted,
        tokens: &TokenSet,
        limit: EncryptionLimit,
        unwritten: Unwritten,
    ) -> Taken {
        let share = self.share;
        let counter = self.counter(what, tokens);
        let is_used_up = counter.used >= share.encryptions();
        counter.is_wanted = !is_used_up || limit.at_limit == AtLimit::Warn;
        let outcome = if !counter.is_wanted {
            Outcome::Exhausted
        } else if counter.used < counter.reserved || unwritten == Unwritten::Allowed {
            counter.used += 1;
            Outcome::Granted
        } else {
            Outcome::Unreserved
        };
        let level = limit.level(counter.used, share);
        let crossed = (level > counter.said).then_some(level);
        counter.said = counter.said.max(level);
        Taken { outcome, crossed, used: counter.used, is_low: counter.wants(share).is_some() }
    }

    /// Takes one back that was not made.
    pub fn give_back(&mut self, what: &Counted) {
        if let Some(counter) = self.counters.get_mut(what) {
            counter.used = counter.used.saturating_sub(1);
        }
    }

    /// Has encryptions reserved for a version that is about to be used.
    pub fn want(&mut self, what: &Counted, tokens: &TokenSet) {
        let whole = self.share.encryptions();
        let counter = self.counter(what, tokens);
        // What lies beyond the share is reserved only for those who use it.
        counter.is_wanted |= counter.used < whole;
    }

    /// How many encryptions a version has used; `None` if it is not counted yet.
    pub fn used(&self, what: &Counted) -> Option<u64> {
        self.counters.get(what).map(|counter| counter.used)
    }

    /// Whether nothing is known of the keys of these tokens.
    pub fn is_lost(&self, tokens: &TokenSet) -> bool {
        self.lost.contains(tokens)
    }

    /// All versions that these tokens hold. If nothing was known of them, each that is not counted may
    /// have used the whole share; what comes later begins at zero.
    pub fn found<'a>(
        &mut self,
        tokens: &TokenSet,
        versions: impl IntoIterator<Item = &'a Counted>,
    ) {
        if self.is_lost(tokens) {
            for what in versions {
                self.counter(what, tokens);
            }
            self.lost.remove(tokens);
            self.revision += 1;
        }
    }

    /// Whether there is something to write down.
    pub fn is_due(&self) -> bool {
        self.revision > self.written
            || self.counters.values().any(|counter| counter.wants(self.share).is_some())
    }

    /// What is to be written down now.
    pub fn plan(&self) -> Plan {
        self.planned(|counter| counter.wants(self.share).unwrap_or(counter.reserved))
    }

    /// The same at the end, when nothing will be encrypted any more: what was used and no more.
    pub fn last_plan(&self) -> Plan {
        self.planned(|counter| counter.used)
    }

    fn planned(&self, reserved: impl Fn(&Counter) -> u64) -> Plan {
        let all = self.counters.iter().map(|(what, counter)| (what.clone(), reserved(counter)));
        let ledger = Ledger { reserved: all.collect(), lost: self.lost.clone() };
        Plan { ledger, revision: self.revision }
    }

    /// It is written down, and outlives a crash.
    pub fn written(&mut self, plan: &Plan) {
        for (what, reserved) in &plan.ledger.reserved {
            if let Some(counter) = self.counters.get_mut(what) {
                counter.reserved = *reserved;
            }
        }
        self.written = self.written.max(plan.revision);
    }

    fn counter(&mut self, what: &Counted, tokens: &TokenSet) -> &mut Counter {
        if !self.counters.contains_key(what) {
            // That these tokens are lost is written down, if only by there being no ledger; and what
            // they hold has used a whole share thereby.
            let used = if self.is_lost(tokens) { self.share.encryptions() } else { 0 };
            let counter = Counter { used, reserved: used, ..Counter::default() };
            self.counters.insert(what.clone(), counter);
        }
        self.counters.get_mut(what).expect("it was put there if it was not there")
    }
}

impl Counter {
    /// What should be reserved, if that is more than is.
    fn wants(&self, share: Share) -> Option<u64> {
        let left = self.reserved.saturating_sub(self.used);
        if !self.is_wanted || left > share.block() / 2 {
            return None;
        }
        let next = self.used.saturating_add(share.block());
        // The last block ends with the share.
        let whole = share.encryptions();
        let next = if self.used < whole { next.min(whole) } else { next };
        (next > self.reserved).then_some(next)
    }
}

/// Carries over what is known of groups of tokens that stand in other groups now: a key that xksd did
/// not make is the same key there.
fn regroup(ledger: Ledger, groups: &BTreeSet<TokenSet>) -> Ledger {
    let heirs = |tokens: &TokenSet| -> Vec<TokenSet> {
        let heirs = groups.iter().filter(|group| group.shares_with(tokens));
        match heirs.cloned().collect::<Vec<_>>() {
            // It may come back as it was.
            none if none.is_empty() => vec![tokens.clone()],
            heirs if heirs.contains(tokens) => vec![tokens.clone()],
            heirs => heirs,
        }
    };
    let mut reserved: BTreeMap<Counted, u64> = BTreeMap::new();
    for (what, encryptions) in ledger.reserved {
        let heirs = match &what {
            Counted::Version(_) => vec![what],
            Counted::Foreign(key, tokens) => {
                heirs(tokens).into_iter().map(|heir| Counted::Foreign(key.clone(), heir)).collect()
            }
        };
        for heir in heirs {
            let sum = reserved.entry(heir).or_default();
            *sum = sum.saturating_add(encryptions);
        }
    }
    Ledger { reserved, lost: ledger.lost.iter().flat_map(heirs).collect() }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::names::ObjectId;

    const WARN: EncryptionLimit = EncryptionLimit { warn_percent: 80, at_limit: AtLimit::Warn };
    const REFUSE: EncryptionLimit = EncryptionLimit { at_limit: AtLimit::Refuse, ..WARN };

    fn set(names: &[&str]) -> TokenSet {
        TokenSet::new(&names.iter().map(|name| name.parse().unwrap()).collect::<Vec<_>>())
    }

    fn version(number: u8) -> Counted {
        Counted::Version(ObjectId::new([number; 8]))
    }

    fn foreign(tokens: &TokenSet) -> Counted {
        Counted::Foreign("orders".parse().unwrap(), tokens.clone())
    }

    /// A fleet of 10000: a share of 429496 in blocks of 6711.
    fn share() -> Share {
        Share::of(NonZeroU32::new(10_000).unwrap())
    }

    fn book(ledger: Option<Ledger>, groups: &[TokenSet]) -> Book {
        Book::open(share(), ledger, &groups.iter().cloned().collect())
    }

    fn write(book: &mut Book) -> Ledger {
        let plan = book.plan();
        book.written(&plan);
        plan.ledger
    }

    fn reserved(entries: &[(Counted, u64)]) -> Ledger {
        let reserved = entries.iter().cloned().collect();
        Ledger { reserved, lost: BTreeSet::new() }
    }

    #[test]
    fn a_block_is_reserved_before_it_is_used_and_the_next_one_ahead() {
        let (a, block) = (set(&["a"]), share().block());
        let mut book = book(Some(Ledger::default()), std::slice::from_ref(&a));
        let take = |book: &mut Book| book.take(&version(1), &a, WARN, Unwritten::No);
        assert_eq!(take(&mut book).outcome, Outcome::Unreserved);
        assert!(book.is_due());
        assert_eq!(write(&mut book), reserved(&[(version(1), block)]));
        assert!(!book.is_due());
        let mut granted = 0;
        while !take(&mut book).is_low {
            granted += 1;
        }
        assert_eq!(granted + 1, block - block / 2);
        assert_eq!(write(&mut book), reserved(&[(version(1), granted + 1 + block)]));
    }

    #[test]
    fn what_is_known_of_a_key_goes_with_its_tokens_when_they_stand_together_otherwise() {
        let (one, both) = (set(&["a"]), set(&["a", "b"]));
        let mut book = book(Some(Ledger::default()), std::slice::from_ref(&one));
        let use_it = |book: &mut Book, tokens: &TokenSet| {
            for _ in 0..100 {
                book.take(&foreign(tokens), tokens, WARN, Unwritten::Allowed);
            }
            book.used(&foreign(tokens)).unwrap()
        };
        assert_eq!(use_it(&mut book, &one), 100);
        book.go_on_with(share(), &BTreeSet::from([both.clone()]));
        assert!(book.is_due());
        assert_eq!(use_it(&mut book, &both), 200);
        // And back again: too many at most, never too few.
        book.go_on_with(share(), &BTreeSet::from([one.clone()]));
        assert!(use_it(&mut book, &one) >= 300);
        assert!(!book.is_lost(&one));
    }

    #[test]
    fn what_was_reserved_counts_as_used_after_a_crash_and_what_was_used_after_an_end() {
        let a = set(&["a"]);
        let groups = std::slice::from_ref(&a);
        let mut book = book(Some(Ledger::default()), groups);
        book.want(&version(1), &a);
        let crashed = write(&mut book);
        for _ in 0..5 {
            book.take(&version(1), &a, WARN, Unwritten::No);
        }
        book.give_back(&version(1));
        let ended = book.last_plan().ledger;
        let again = |ledger| self::book(Some(ledger), groups).used(&version(1));
        assert_eq!(again(crashed), Some(share().block()));
        assert_eq!(again(ended), Some(4));
    }

    #[test]
    fn a_version_that_is_not_used_any_more_reserves_nothing() {
        let a = set(&["a"]);
        let mut book = book(Some(reserved(&[(version(1), 7)])), std::slice::from_ref(&a));
        assert!(!book.is_due());
        book.want(&version(2), &a);
        let expected = reserved(&[(version(1), 7), (version(2), share().block())]);
        assert_eq!(write(&mut book), expected);
    }

    #[test]
    fn the_limit_is_said_once_and_refused_where_asked_to() {
        let (a, whole) = (set(&["a"]), share().encryptions());
        let near = whole * 80 / 100;
        let at = |used| {
            let mut book = book(Some(reserved(&[(version(1), used)])), std::slice::from_ref(&a));
            book.want(&version(1), &a);
            write(&mut book);
            book
        };
        let take = |book: &mut Book, limit| {
            let Taken { outcome, crossed, .. } = book.take(&version(1), &a, limit, Unwritten::No);
            (outcome, crossed)
        };
        use Outcome::{Exhausted, Granted};
        let mut book = at(near - 1);
        assert_eq!(take(&mut book, WARN), (Granted, None));
        assert_eq!(take(&mut book, WARN), (Granted, Some(Level::Near)));
        assert_eq!(take(&mut book, WARN), (Granted, None));
        let mut book = at(whole - 1);
        assert_eq!(take(&mut book, REFUSE), (Granted, Some(Level::Reached)));
        assert_eq!(take(&mut book, REFUSE), (Exhausted, None));
        assert_eq!(book.used(&version(1)), Some(whole), "what is refused does not count");
        // Beyond the share it goes on being reserved.
        write(&mut book);
        assert_eq!(take(&mut book, WARN), (Outcome::Unreserved, None));
        write(&mut book);
        assert_eq!(take(&mut book, WARN), (Granted, None));
        assert_eq!(book.plan().ledger.reserved[&version(1)], whole + share().block());
    }

    #[test]
    fn lost_state_counts_as_the_whole_share_for_what_there_was() {
        let (a, b) = (set(&["a"]), set(&["b"]));
        let mut book = book(None, &[a.clone(), b.clone()]);
        assert!(book.is_due(), "that all is lost is to be written");
        let taken = book.take(&version(1), &a, REFUSE, Unwritten::No);
        assert_eq!((taken.outcome, taken.crossed), (Outcome::Exhausted, Some(Level::Reached)));
        book.found(&a, &[version(1), version(2)]);
        book.found(&a, &[version(3)]);
        let ledger = write(&mut book);
        let whole = share().encryptions();
        assert_eq!(ledger.reserved[&version(2)], whole);
        assert_eq!(ledger.lost, BTreeSet::from([b.clone()]));
        // Nothing else becomes of it after a crash: what came later begins at zero.
        let mut book = self::book(Some(ledger), &[a.clone(), b.clone()]);
        assert_eq!(book.used(&version(1)), Some(whole));
        book.want(&version(3), &a);
        book.want(&version(4), &b);
        assert_eq!((book.used(&version(3)), book.used(&version(4))), (Some(0), Some(whole)));
    }

    #[test]
    fn a_foreign_key_keeps_its_count_when_its_tokens_stand_with_others() {
        let (one, two, other) = (set(&["a"]), set(&["a", "b"]), set(&["c"]));
        let before = reserved(&[(foreign(&one), 5), (foreign(&other), 3), (version(1), 1)]);
        let both = book(Some(before), &[two.clone(), other.clone()]).plan().ledger;
        let expected = [(foreign(&two), 5), (foreign(&other), 3), (version(1), 1)];
        assert_eq!(both, reserved(&expected));
        // And back; what stands apart now had one count.
        let apart = [one.clone(), set(&["b"])];
        let back = book(Some(both), &apart).plan().ledger;
        let expected =
            [(foreign(&one), 5), (foreign(&apart[1]), 5), (foreign(&other), 3), (version(1), 1)];
        assert_eq!(back, reserved(&expected));
        let lost = Ledger { lost: BTreeSet::from([one]), ..Ledger::default() };
        assert_eq!(book(Some(lost), std::slice::from_ref(&two)).lost, BTreeSet::from([two]));
    }
}
