//! What is wrong with a log: every record that was changed, is missing, was moved or put in, and where.
//!
//! A verifier is given the lines of all files one by one, the oldest file of a chain first.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use super::chain::{ChainId, Hash, Head};
use super::checkpoint::Sealed;
use super::line::Line;

/// How far back a checkpoint may point to be compared: the HSM signs while records go on.
const REMEMBERED: usize = 1 << 20;

/// Something that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: String,
    /// The line in it, from 1.
    pub line: u64,
    /// What is wrong there.
    pub problem: Problem,
}

/// What can be wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The line is no record.
    NoRecord,
    /// The last line has no end: a crash while writing, or it was cut.
    NoLineEnd,
    /// The record after it carries another hash than this one has.
    Changed {
        /// Its number.
        seq: u64,
    },
    /// There are no records of these numbers before this line.
    Missing {
        /// The first of them.
        from: u64,
        /// The last of them.
        to: u64,
    },
    /// The record stands after one of a higher number, or of the same.
    OutOfOrder {
        /// Its number.
        seq: u64,
        /// The number that should stand here.
        expected: u64,
    },
    /// A record of another chain stands in the middle of a file.
    OtherChain,
    /// The first record of a chain carries the hash of one before it.
    NoBeginning,
    /// The checkpoint is not as checkpoints are written, or speaks of another chain or of what is to
    /// come.
    BadCheckpoint,
    /// No key that was given made the checkpoint's signature.
    BadSignature {
        /// What it says the head was.
        head: Head,
    },
    /// The checkpoint is signed, and the record that it speaks of has another hash now.
    Rewritten {
        /// What the head was.
        head: Head,
    },
    /// The record that the checkpoint speaks of is too far before it to be compared.
    TooFar {
        /// What the head was.
        head: Head,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRecord => write!(f, "is no record of an audit log: it was changed, or put in"),
            Self::NoLineEnd => {
                write!(f, "has no line end: a crash while it was written, or the end was cut off")
            }
            Self::Changed { seq } => write!(
                f,
                "record {seq} was changed: the record after it carries another hash than it has"
            ),
            Self::Missing { from, to } if from == to => {
                write!(f, "record {from} is missing before this line")
            }
            Self::Missing { from, to } => {
                write!(f, "records {from} to {to} are missing before this line")
            }
            Self::OutOfOrder { seq, expected } => {
                write!(f, "record {seq} is out of order: record {expected} should stand here")
            }
            Self::OtherChain => write!(f, "belongs to another chain than the records before it"),
            Self::NoBeginning => {
                write!(f, "is the first record of a chain, and carries the hash of one before it")
            }
            Self::BadCheckpoint => write!(f, "is no checkpoint of this chain as xksd writes them"),
            Self::BadSignature { head } => {
                write!(f, "no key that was given signed this checkpoint of record {}", head.seq)
            }
            Self::Rewritten { head } => write!(
                f,
                "this checkpoint is signed for other records: record {} had the hash {}",
                head.seq, head.hash
            ),
            Self::TooFar { head } => {
                write!(f, "record {} is too far before this checkpoint of it", head.seq)
            }
        }
    }
}

/// What a key says of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It made the signature.
    Good,
    /// It did not.
    Bad,
    /// There is no key to judge by.
    Unjudged,
}

/// What is known of one chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Which one.
    pub chain: ChainId,
    /// Number of the first record that was given; those before it are not judged.
    pub first: u64,
    /// The last record.
    pub head: Head,
    /// How many there are.
    pub records: u64,
    /// How many checkpoints, with those that are not judged.
    pub checkpoints: u64,
    /// Up to which record signed checkpoints hold: `None` without any.
    pub signed: Option<Head>,
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What is wrong, in the order of the lines.
    pub findings: Vec<Finding>,
    /// The chains, in the order of their identities.
    pub chains: Vec<Summary>,
    /// Heads that were kept elsewhere, and of which there is no record with this number and hash: the log
    /// was cut, set back, or rewritten.
    pub missing: Vec<Head>,
}

/// Reads a log, line by line.
pub struct Verifier<'a> {
    judge: Box<dyn FnMut(&Sealed) -> Judgement + 'a>,
    /// Heads that were kept elsewhere and not met yet.
    missing: Vec<Head>,
    findings: Vec<Finding>,
    chains: BTreeMap<ChainId, State>,
    file: String,
    line: u64,
    current: Option<ChainId>,
}

struct State {
    summary: Summary,
    /// Where the last record stands.
    place: (String, u64),
    /// Whether what stands before the next record can be compared with it.
    is_broken: bool,
    /// Hashes of the last records, the newest last.
    remembered: VecDeque<Hash>,
}

impl<'a> Verifier<'a> {
    /// Judges checkpoints so, and looks for heads that were kept elsewhere.
    pub fn new(judge: impl FnMut(&Sealed) -> Judgement + 'a, expect: &[Head]) -> Self {
        Self {
            judge: Box::new(judge),
            missing: expect.to_vec(),
            findings: Vec::new(),
            chains: BTreeMap::new(),
            file: String::new(),
            line: 0,
            current: None,
        }
    }

    /// Goes on with another file.
    pub fn file(&mut self, name: &str) {
        name.clone_into(&mut self.file);
        self.line = 0;
        self.current = None;
    }

    /// The next line of the file, with its end if it has one.
    pub fn line(&mut self, bytes: &[u8]) {
        self.line = self.line.saturating_add(1);
        let text = match bytes.strip_suffix(b"\n") {
            Some(text) => text,
            None => {
                self.find(Problem::NoLineEnd);
                bytes
            }
        };
        match Line::parse(text) {
            Ok(line) => self.record(line),
            Err(_) => {
                self.find(Problem::NoRecord);
                if let Some(state) = self.current.and_then(|chain| self.chains.get_mut(&chain)) {
                    // It may have been the next one: its number is not missed, nor its hash.
                    state.is_broken = true;
                }
            }
        }
    }

    /// What all lines together gave.
    pub fn finish(self) -> Report {
        let chains = self.chains.into_values().map(|state| state.summary).collect();
        Report { findings: self.findings, chains, missing: self.missing }
    }

    fn find(&mut self, problem: Problem) {
        let place = (self.file.clone(), self.line);
        self.find_at(place, problem);
    }

    fn find_at(&mut self, (file, line): (String, u64), problem: Problem) {
        self.findings.push(Finding { file, line, problem });
    }

    fn record(&mut self, line: Line<'_>) {
        let hash = Hash::of(line.text.as_bytes());
        let head = Head { seq: line.seq, hash };
        if self.current.is_some_and(|chain| chain != line.chain) {
            self.find(Problem::OtherChain);
            return;
        }
        self.current = Some(line.chain);
        self.missing.retain(|kept| *kept != head);
        if line.seq == 1 && line.prev != Hash::NONE {
            self.find(Problem::NoBeginning);
        }
        let place = (self.file.clone(), self.line);
        match self.chains.get_mut(&line.chain) {
            None => {
                let summary = Summary {
                    chain: line.chain,
                    first: line.seq,
                    head,
                    records: 1,
                    checkpoints: 0,
                    signed: None,
                };
                let remembered = VecDeque::from([hash]);
                let state = State { summary, place, is_broken: false, remembered };
                self.chains.insert(line.chain, state);
            }
            Some(state) => {
                let problem = state.follow(line, head, place);
                if let Some((place, problem)) = problem {
                    self.find_at(place, problem);
                }
            }
        }
        if line.kind == "checkpoint" {
            self.checkpoint(line);
        }
    }

    fn checkpoint(&mut self, line: Line<'_>) {
        let sealed = Sealed::read(line.text);
        let sealed = sealed.filter(|sealed| {
            let statement = &sealed.statement;
            statement.chain == line.chain && (1..line.seq).contains(&statement.head.seq)
        });
        let Some(sealed) = sealed else { return self.find(Problem::BadCheckpoint) };
        let judgement = (self.judge)(&sealed);
        let head = sealed.statement.head;
        let Some(state) = self.chains.get_mut(&line.chain) else { return };
        state.summary.checkpoints = state.summary.checkpoints.saturating_add(1);
        let problem = match (judgement, state.holds(head)) {
            (Judgement::Bad, _) => Problem::BadSignature { head },
            (_, Held::Differs) => Problem::Rewritten { head },
            (Judgement::Unjudged, _) | (Judgement::Good, Held::Before) => return,
            (Judgement::Good, Held::Forgotten) => Problem::TooFar { head },
            (Judgement::Good, Held::Same) => {
                if state.summary.signed.is_none_or(|signed| signed.seq < head.seq) {
                    state.summary.signed = Some(head);
                }
                return;
            }
        };
        self.find(problem);
    }
}

/// What a chain holds of a head.
enum Held {
    /// The record, with this hash.
    Same,
    /// The record, with another hash.
    Differs,
    /// It stands before the first record that was given.
    Before,
    /// It stands too far back.
    Forgotten,
}

impl State {
    /// Takes the next record; says what is wrong with how it follows.
    fn follow(
        &mut self,
        line: Line<'_>,
        head: Head,
        place: (String, u64),
    ) -> Option<((String, u64), Problem)> {
        let last = self.summary.head;
        let expected = last.seq.saturating_add(1);
        // One line that could not be read may have been the one that is expected.
        let unread = if self.is_broken { expected.saturating_add(1) } else { expected };
        let problem = if line.seq < expected {
            Some((place.clone(), Problem::OutOfOrder { seq: line.seq, expected }))
        } else if line.seq > unread {
            let to = line.seq.saturating_sub(1);
            Some((place.clone(), Problem::Missing { from: unread, to }))
        } else if line.seq == expected && line.prev != last.hash {
            Some((self.place.clone(), Problem::Changed { seq: last.seq }))
        } else {
            None
        };
        // The hashes stand in a row: for what is missing there is none.
        let skipped = line.seq.saturating_sub(expected);
        if line.seq < expected {
            // Moved or doubled: it stands for no other one.
            self.summary.records = self.summary.records.saturating_add(1);
            return problem;
        }
        for _ in 0..skipped.min(REMEMBERED as u64) {
            self.remember(Hash::NONE);
        }
        self.remember(head.hash);
        self.summary.head = head;
        self.summary.records = self.summary.records.saturating_add(1);
        self.place = place;
        self.is_broken = false;
        problem
    }

    fn remember(&mut self, hash: Hash) {
        if self.remembered.len() == REMEMBERED {
            self.remembered.pop_front();
        }
        self.remembered.push_back(hash);
    }

    fn holds(&self, head: Head) -> Held {
        if head.seq < self.summary.first {
            return Held::Before;
        }
        let back = self.summary.head.seq.saturating_sub(head.seq);
        let at = usize::try_from(back)
            .ok()
            .and_then(|back| self.remembered.len().checked_sub(back.saturating_add(1)));
        match at.and_then(|at| self.remembered.get(at)) {
            None => Held::Forgotten,
            Some(hash) if *hash == head.hash => Held::Same,
            Some(_) => Held::Differs,
        }
    }
}

#[cfg(test)]
mod tests;
