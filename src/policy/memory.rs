//! Decisions that were made, so that they need not be made again.

use std::collections::HashMap;
use std::sync::RwLock;
use std::{fmt, mem};

use super::case::Case;
use super::decision::Decision;

/// Decisions by their cases. It belongs to one [`Authorizer`](super::Authorizer), whose policies never
/// change: with other policies there is another memory, and that is empty.
///
/// Cases are compared as a whole, so that none is ever taken for another. What it takes is bounded:
/// whatever is not asked for while [`GENERATION`] bytes are learnt is forgotten.
#[derive(Default)]
pub(super) struct Memory {
    generations: RwLock<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<Case<'static>, Decision>,
    /// Bytes of the young.
    weight: usize,
    old: HashMap<Case<'static>, Decision>,
}

impl Memory {
    /// What was decided of this case, if that is known.
    pub(super) fn recall(&self, case: &Case<'_>) -> Option<Decision> {
        let decision = {
            // Where somebody panicked nothing is known any more.
            let generations = self.generations.read().ok()?;
            let (young, old): (&HashMap<Case<'_>, _>, &HashMap<Case<'_>, _>) =
                (&generations.young, &generations.old);
            if let Some(decision) = young.get(case) {
                return Some(decision.clone());
            }
            old.get(case)?.clone()
        };
        self.keep(case.clone(), decision.clone());
        Some(decision)
    }

    /// Keeps what was decided of a case.
    pub(super) fn keep(&self, case: Case<'_>, decision: Decision) {
        let weight = case.weight() + decision.weight();
        if weight > LARGEST {
            return;
        }
        let case = case.into_owned();
        let forgotten = {
            let Ok(mut generations) = self.generations.write() else { return };
            if generations.young.insert(case, decision).is_none() {
                generations.weight += weight;
            }
            if generations.weight < GENERATION {
                return;
            }
            generations.weight = 0;
            let young = mem::take(&mut generations.young);
            mem::replace(&mut generations.old, young)
        };
        // That takes its time, for which nobody has to wait.
        drop(forgotten);
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

/// Bytes of one generation, of which there are two.
const GENERATION: usize = 4 << 20;

/// Bytes of a case and its decision that are kept.
const LARGEST: usize = GENERATION / 64;

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::decision::Outcome;
    use super::super::facts::Facts;
    use super::super::reads::Reads;
    use super::*;
    use crate::wire::metadata::RequestMetadata;
    use crate::wire::route::KeyOperation;

    /// Does something with the case of a caller whose certificate says this.
    fn of_client<T>(subject: &str, with: impl FnOnce(Case<'_>) -> T) -> T {
        let facts = Facts {
            operation: KeyOperation::Encrypt,
            keystore: &"demo".parse().unwrap(),
            key: &"key".parse().unwrap(),
            metadata: &RequestMetadata::default(),
            access_key_id: &"ABCDEFGHIJKLMNOPQRST".parse().unwrap(),
            region: &"us-east-1".parse().unwrap(),
            client_subject: Some(subject),
            time: SystemTime::UNIX_EPOCH,
        };
        with(Case::new(&facts, Reads::ALL))
    }

    fn decision(policy: &str) -> Decision {
        Decision::new(Outcome::Allowed, vec![policy.to_owned()], vec![], vec![])
    }

    fn keep(memory: &Memory, subject: &str) {
        of_client(subject, |case| memory.keep(case, decision(subject)));
    }

    fn recall(memory: &Memory, subject: &str) -> Option<Decision> {
        of_client(subject, |case| memory.recall(&case))
    }

    #[test]
    fn each_case_has_its_own_decision() {
        let memory = Memory::default();
        for subject in ["", "a", "b"] {
            assert_eq!(recall(&memory, subject), None);
            keep(&memory, subject);
        }
        for subject in ["b", "", "a"] {
            assert_eq!(recall(&memory, subject), Some(decision(subject)));
        }
        assert_eq!(recall(&memory, "c"), None);
    }

    #[test]
    fn what_it_takes_is_bounded() {
        let memory = Memory::default();
        let long = "x".repeat(10_000);
        keep(&memory, "used");
        for number in 0..3 * GENERATION / long.len() {
            keep(&memory, &format!("{number}{long}"));
            assert!(recall(&memory, "used").is_some(), "after {number}");
            let generations = memory.generations.read().unwrap();
            let kept = generations.young.iter().chain(&generations.old);
            let weight: usize = kept.map(|(case, said)| case.weight() + said.weight()).sum();
            assert!(weight < 2 * GENERATION + LARGEST, "{weight} after {number}");
        }
        assert_eq!(recall(&memory, &format!("0{long}")), None);
        keep(&memory, &"x".repeat(LARGEST));
        assert_eq!(recall(&memory, &"x".repeat(LARGEST)), None);
    }
}
