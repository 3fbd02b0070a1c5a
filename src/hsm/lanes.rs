//! Who is served next: jobs wait in a lane for each key store, and the lanes take turns. So whoever
//! sends more than the HSM can do waits behind himself, and nobody else waits with him.
//!
//! Without locks, threads or time, which [`queue`](super::queue) adds.

use std::collections::VecDeque;

use crate::names::KeystoreName;

/// Who a job is for. Each has a share of the token of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lane {
    /// A key store's callers.
    Keystore(KeystoreName),
    /// Nobody's: work of xksd's own, such as proofs that two tokens hold the same keys.
    Internal,
    /// Checkpoints of the audit log: one at a time, and each waits as long as it must.
    Audit,
}

/// Where a job would stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Jobs that wait in its lane.
    pub(super) own: usize,
    /// Jobs that would be served before it, those of other lanes included.
    pub(super) ahead: usize,
}

/// A job was put into its lane.
#[derive(Debug)]
pub(super) struct Pushed<J> {
    /// By this number it can be withdrawn.
    pub(super) number: u64,
    /// What had to leave for it.
    pub(super) displaced: Option<J>,
}

/// Jobs that wait, no more than a bound. Lanes without jobs leave no trace, so there are never more
/// of them than jobs; they are few, and looked for one by one.
#[derive(Debug)]
pub(super) struct Lanes<J> {
    bound: usize,
    length: usize,
    /// The number of the last job pushed.
    pushed: u64,
    /// How many jobs were taken.
    taken: u64,
    /// The lanes that have jobs, in the order of their turns.
    turns: VecDeque<Waiting<J>>,
}

#[derive(Debug)]
struct Waiting<J> {
    lane: Lane,
    /// Oldest first, with their numbers, which rise. Never empty.
    jobs: VecDeque<(u64, J)>,
    /// How many jobs had been taken of all lanes when this one had its last turn, or came.
    last_turn: u64,
    /// Running mean of how many jobs are taken for one of this lane's; `None` before its first turn.
    pace: Option<Pace>,
}

/// In 1024ths. A lane that is often empty shows only in the pace of the others, since it has hardly
/// ever a job waiting when they are looked at.
#[derive(Debug, Clone, Copy)]
struct Pace(u64);

impl Pace {
    const ONE: u64 = 1024;
    /// Weight of the newest turn: one in this many.
    const SMOOTHING: u64 = 16;

    fn next(before: Option<Self>, taken: u64) -> Self {
        let taken = taken.saturating_mul(Self::ONE);
        Self(
            before.map_or(taken, |Self(mean)| {
                mean - mean / Self::SMOOTHING + taken / Self::SMOOTHING
            }),
        )
    }

    /// How many are taken until so many of the lane's are.
    fn until(self, own: usize) -> usize {
        let all = (own as u64).saturating_mul(self.0) / Self::ONE;
        usize::try_from(all).unwrap_or(usize::MAX)
    }
}

impl<J> Lanes<J> {
    /// Room for so many jobs, one at least.
    pub(super) fn new(bound: usize) -> Self {
        Self { bound: bound.max(1), length: 0, pushed: 0, taken: 0, turns: VecDeque::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Where the next job of a lane would stand. Others come while it waits, and take turns too, as
    /// the pace tells.
    pub(super) fn place(&self, lane: &Lane) -> Place {
        let (mut own, mut pace) = (0, None);
        if let Some(waiting) = self.turns.iter().find(|waiting| waiting.lane == *lane) {
            (own, pace) = (waiting.jobs.len(), waiting.pace);
        }
        let others = self.turns.iter().filter(|waiting| waiting.lane != *lane);
        // For each of its own before it, and for itself, every other lane has one turn at most.
        let others: usize = others.map(|waiting| waiting.jobs.len().min(own + 1)).sum();
        let ahead = pace.map_or(0, |pace| pace.until(own)).max(own + others);
        Place { own, ahead }
    }

    /// Puts a job at the end of its lane. Where all is full, the longest lane gives up its newest
    /// job, which would have waited longest, unless it would then be shorter than the newcomer's.
    /// So a lane may always have as many jobs as the bound divided by the lanes that have any, and
    /// a key store that is alone may have them all; nothing is reserved for who does not come.
    ///
    /// # Errors
    /// The job, if there is no room for it.
    pub(super) fn push(&mut self, lane: &Lane, job: J) -> Result<Pushed<J>, J> {
        let own = self.turns.iter().find(|waiting| waiting.lane == *lane);
        let own = own.map_or(0, |waiting| waiting.jobs.len());
        let mut displaced = None;
        if self.length >= self.bound {
            let longest = self.turns.iter_mut().max_by_key(|waiting| waiting.jobs.len());
            match longest.filter(|longest| longest.jobs.len() > own + 1) {
                // Two at least were in there, so the lane does not end.
                Some(longest) => displaced = longest.jobs.pop_back().map(|(_, job)| job),
                None => return Err(job),
            }
            self.length -= 1;
        }
        self.length += 1;
        self.pushed += 1;
        let number = self.pushed;
        match self.turns.iter_mut().find(|waiting| waiting.lane == *lane) {
            Some(waiting) => waiting.jobs.push_back((number, job)),
            None => self.turns.push_back(Waiting {
                lane: lane.clone(),
                jobs: VecDeque::from([(number, job)]),
                last_turn: self.taken,
                pace: None,
            }),
        }
        Ok(Pushed { number, displaced })
    }

    /// The oldest job of the lane whose turn it is.
    pub(super) fn take(&mut self) -> Option<J> {
        let mut waiting = self.turns.pop_front()?;
        let (_, job) = waiting.jobs.pop_front()?;
        self.length -= 1;
        self.taken += 1;
        waiting.pace = Some(Pace::next(waiting.pace, self.taken - waiting.last_turn));
        waiting.last_turn = self.taken;
        if !waiting.jobs.is_empty() {
            self.turns.push_back(waiting);
        }
        Some(job)
    }

    /// Takes a job out of its lane, if it still waits there.
    pub(super) fn withdraw(&mut self, lane: &Lane, number: u64) -> Option<J> {
        let turn = self.turns.iter().position(|waiting| waiting.lane == *lane)?;
        let jobs = &mut self.turns[turn].jobs;
        let at = jobs.binary_search_by_key(&number, |&(number, _)| number).ok()?;
        let (_, job) = jobs.remove(at)?;
        if jobs.is_empty() {
            self.turns.remove(turn);
        }
        self.length -= 1;
        Some(job)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn lane(number: u8) -> Lane {
        match number {
            0 => Lane::Internal,
            _ => Lane::Keystore(format!("store-{number}").parse().unwrap()),
        }
    }

    #[test]
    fn lanes_take_turns() {
        let mut lanes = Lanes::new(10);
        for (number, job) in [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (0, "i1"), (2, "b2")] {
            lanes.push(&lane(number), job).unwrap();
        }
        let order: Vec<_> = std::iter::from_fn(|| lanes.take()).collect();
        assert_eq!(order, ["a1", "b1", "i1", "a2", "b2", "a3"]);
    }

    #[test]
    fn who_is_alone_has_all_the_room() {
        let mut lanes = Lanes::new(3);
        for job in 0..3 {
            assert!(lanes.push(&lane(1), job).unwrap().displaced.is_none());
        }
        assert_eq!(lanes.push(&lane(1), 3).unwrap_err(), 3);
    }

    #[test]
    fn the_longest_lane_makes_room_until_shares_are_fair() {
        let mut lanes = Lanes::new(4);
        for job in 0..4 {
            lanes.push(&lane(1), job).unwrap();
        }
        assert_eq!(lanes.push(&lane(2), 10).unwrap().displaced, Some(3));
        assert_eq!(lanes.push(&lane(2), 11).unwrap().displaced, Some(2));
        // Two each: neither has too much.
        assert_eq!(lanes.push(&lane(2), 12).unwrap_err(), 12);
        assert_eq!(lanes.push(&lane(1), 4).unwrap_err(), 4);
        let order: Vec<_> = std::iter::from_fn(|| lanes.take()).collect();
        assert_eq!(order, [0, 10, 1, 11]);
    }

    #[test]
    fn a_lone_job_finds_one_of_each_lane_before_it() {
        let mut lanes = Lanes::new(100);
        for job in 0..50 {
            lanes.push(&lane(1), job).unwrap();
        }
        assert_eq!(lanes.place(&lane(1)), Place { own: 50, ahead: 50 });
        assert_eq!(lanes.place(&lane(2)), Place { own: 0, ahead: 1 });
        lanes.push(&lane(2), 50).unwrap();
        assert_eq!(lanes.place(&lane(1)), Place { own: 50, ahead: 51 });
        assert_eq!(lanes.place(&lane(2)), Place { own: 1, ahead: 3 });
    }

    #[test]
    fn others_that_come_and_go_are_in_the_pace() {
        let mut lanes = Lanes::new(100);
        for job in 0..80 {
            lanes.push(&lane(1), job).unwrap();
        }
        // One job of another lane for each of this one's; it never has two waiting.
        for _ in 0..40 {
            lanes.push(&lane(2), 0).unwrap();
            lanes.take().unwrap();
            lanes.take().unwrap();
        }
        let Place { own, ahead } = lanes.place(&lane(1));
        assert_eq!(own, 40);
        assert!((76..=80).contains(&ahead), "{ahead}");
        // It stays away.
        for job in 0..90 {
            lanes.push(&lane(1), job).ok();
            lanes.take().unwrap();
        }
        let Place { own, ahead } = lanes.place(&lane(1));
        assert!((own..=own + own / 10).contains(&ahead), "{ahead} for {own}");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(u8),
        Take,
        /// The job of this index, among all that were pushed, gives up.
        Withdraw(prop::sample::Index),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        // The first lane has most of the jobs.
        let step = prop_oneof![
            3 => Just(Step::Push(0)),
            3 => (1_u8..5).prop_map(Step::Push),
            3 => Just(Step::Take),
            1 => any::<prop::sample::Index>().prop_map(Step::Withdraw),
        ];
        prop::collection::vec(step, 0..300)
    }

    /// What the lanes have to be like, told in another way: jobs of each lane in order.
    type Model = BTreeMap<u8, Vec<usize>>;

    fn waiting(model: &Model) -> usize {
        model.values().map(Vec::len).sum()
    }

    proptest! {
        #[test]
        fn every_job_ends_once_and_in_its_turn(bound in 1_usize..20, steps in steps()) {
            let mut lanes = Lanes::new(bound);
            let mut model = Model::new();
            let mut jobs: Vec<(u8, u64)> = Vec::new();
            let mut ended = BTreeSet::new();
            // How often a lane was served since another one that has work was served last.
            let mut passed: BTreeMap<(u8, u8), usize> = BTreeMap::new();
            let drain = std::iter::repeat_n(Step::Take, bound + 1);
            for step in steps.into_iter().chain(drain) {
                match step {
                    Step::Push(number) => {
                        let job = jobs.len();
                        let own = model.get(&number).map_or(0, Vec::len);
                        let full = waiting(&model) == bound;
                        match lanes.push(&lane(number), (number, job)) {
                            Ok(pushed) => {
                                jobs.push((number, pushed.number));
                                prop_assert_eq!(full, pushed.displaced.is_some());
                                if let Some((loser, lost)) = pushed.displaced {
                                    let left = model.get_mut(&loser).unwrap();
                                    prop_assert_eq!(left.pop(), Some(lost));
                                    prop_assert!(left.len() > own && ended.insert(lost));
                                }
                                model.entry(number).or_default().push(job);
                            }
                            Err((_, refused)) => {
                                jobs.push((number, 0));
                                prop_assert!(full && ended.insert(refused));
                                model.entry(number).or_default();
                                let with_work = |(lane, jobs): &(&u8, &Vec<_>)| {
                                    **lane == number || !jobs.is_empty()
                                };
                                let sharers = model.iter().filter(with_work).count();
                                prop_assert!(own >= bound / sharers, "less than its share");
                            }
                        }
                    }
                    Step::Take => match lanes.take() {
                        Some((served, job)) => {
                            prop_assert_eq!(model.get_mut(&served).unwrap().remove(0), job);
                            prop_assert!(ended.insert(job));
                            for (&other, jobs) in &model {
                                if other != served && !jobs.is_empty() {
                                    let times = passed.entry((other, served)).or_default();
                                    *times += 1;
                                    prop_assert_eq!(*times, 1, "{} passed {}", served, other);
                                }
                            }
                            passed.retain(|&(other, _), _| other != served);
                        }
                        None => prop_assert_eq!(waiting(&model), 0),
                    },
                    Step::Withdraw(index) => {
                        let Some(&(number, ticket)) = (!jobs.is_empty()).then(|| index.get(&jobs))
                        else {
                            continue;
                        };
                        let withdrawn = lanes.withdraw(&lane(number), ticket);
                        let of_lane = model.entry(number).or_default();
                        let job = index.index(jobs.len());
                        let at = of_lane.iter().position(|&waiting| waiting == job);
                        prop_assert_eq!(withdrawn.map(|(_, job)| job), at.map(|_| job));
                        if let Some(at) = at {
                            of_lane.remove(at);
                            ended.insert(job);
                        }
                    }
                }
                passed.retain(|(other, _), _| model.get(other).is_some_and(|jobs| !jobs.is_empty()));
                prop_assert!(waiting(&model) <= bound);
                prop_assert_eq!(lanes.is_empty(), waiting(&model) == 0);
            }
            prop_assert!(lanes.is_empty());
            prop_assert_eq!(ended, (0..jobs.len()).collect());
        }

        #[test]
        fn without_newcomers_nobody_waits_longer_than_his_place_says(steps in steps(), own in 0_u8..5) {
            let mut lanes = Lanes::new(1000);
            for step in steps {
                match step {
                    Step::Push(number) => drop(lanes.push(&lane(number), false).unwrap()),
                    Step::Take => drop(lanes.take()),
                    Step::Withdraw(_) => {}
                }
            }
            let place = lanes.place(&lane(own));
            lanes.push(&lane(own), true).unwrap();
            let before = std::iter::from_fn(|| lanes.take()).take_while(|mine| !mine).count();
            prop_assert!(before <= place.ahead, "{} before it, not {:?}", before, place);
        }
    }
}
