//! The file by itself, and together with the accounting across crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use proptest::prelude::*;
use proptest::sample::Index;

use super::super::book::{Book, Outcome, Unwritten};
use super::super::ledger::{Counted, TokenSet};
use super::super::limit::{EncryptionLimit, Share};
use super::*;
use crate::names::ObjectId;

fn one() -> Ledger {
    let version = Counted::Version(ObjectId::new([1; 8]));
    Ledger { reserved: BTreeMap::from([(version, 7)]), ..Ledger::default() }
}

#[test]
fn what_is_saved_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, found) = Store::open(directory.path()).unwrap();
    assert_eq!(found, Found::Nothing);
    store.save(&one()).unwrap();
    drop(store);
    assert_eq!(Store::open(directory.path()).unwrap().1, Found::Ledger(one()));
    assert_eq!(read(directory.path()).unwrap(), Some(Ok(one())));
    let files = fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(files, 1, "no draft is left");
}

#[test]
fn a_directory_is_for_one() {
    let directory = tempfile::tempdir().unwrap();
    let first = Store::open(directory.path()).unwrap();
    let second = Store::open(directory.path());
    assert!(matches!(second, Err(StoreError::InUse(_))), "{second:?}");
    assert!(matches!(Store::init(directory.path()), Err(StoreError::InUse(_))));
    drop(first);
    Store::open(directory.path()).unwrap();
    let missing = Store::open(&directory.path().join("missing"));
    assert!(matches!(missing, Err(StoreError::Directory(..))), "{missing:?}");
}

#[test]
fn a_new_installation_begins_with_an_empty_file_and_no_other_does() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("state");
    Store::init(&directory).unwrap();
    assert_eq!(Store::open(&directory).unwrap().1, Found::Ledger(Ledger::default()));
    assert!(matches!(Store::init(&directory), Err(StoreError::Exists(_))));
    // Neither is one that cannot be read made an empty one.
    fs::write(directory.join(FILE), "").unwrap();
    assert!(matches!(Store::init(&directory), Err(StoreError::Exists(_))));
}

#[test]
fn a_damaged_file_is_kept_and_that_of_a_later_release_is_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(FILE), "xksd-counts 1\nversion 01").unwrap();
    let (mut store, found) = Store::open(directory.path()).unwrap();
    assert!(matches!(found, Found::Damaged(_)), "{found:?}");
    store.save(&one()).unwrap();
    let kept = fs::read_to_string(directory.path().join(DAMAGED)).unwrap();
    assert_eq!(kept, "xksd-counts 1\nversion 01");
    drop(store);
    fs::write(directory.path().join(FILE), "xksd-counts 2\n").unwrap();
    let later = Store::open(directory.path());
    assert!(matches!(later, Err(StoreError::Later(..))), "{later:?}");
}

/// A disk that keeps what was synced, and of the rest what it likes.
#[derive(Debug, Default)]
struct Disk {
    /// What the file says for those who run, and whether a crash would leave it so.
    file: Option<(String, bool)>,
    /// What it may say instead after a crash.
    before: Option<String>,
    draft: Option<(String, bool)>,
    /// So many steps succeed, then the machine is gone.
    steps: usize,
}

impl Disk {
    fn step(&mut self) -> io::Result<()> {
        self.steps = self.steps.checked_sub(1).ok_or(ErrorKind::Interrupted)?;
        Ok(())
    }

    /// What is read after a crash; `fortune` chooses among what may have become of it.
    fn crash(&mut self, fortune: &Index) -> Option<String> {
        let survives = match self.file.take() {
            Some((text, true)) => Some(text),
            Some((text, false)) => [Some(text), self.before.clone()][fortune.index(2)].clone(),
            None => None,
        };
        self.file = survives.clone().map(|text| (text, true));
        (self.draft, self.before) = (None, survives.clone());
        survives
    }
}

impl Medium for Disk {
    fn write_draft(&mut self, text: &str) -> io::Result<()> {
        self.step()?;
        self.draft = Some((text.to_owned(), false));
        Ok(())
    }

    fn sync_draft(&mut self) -> io::Result<()> {
        self.step()?;
        self.draft.as_mut().expect("there is one").1 = true;
        Ok(())
    }

    fn replace(&mut self) -> io::Result<()> {
        self.step()?;
        let (text, is_synced) = self.draft.take().expect("there is one");
        // What was not synced may come out cut.
        let text = if is_synced { text } else { text[..text.len() / 2].to_owned() };
        self.file = Some((text, false));
        Ok(())
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        self.step()?;
        let (text, is_synced) = self.file.as_mut().expect("there is one");
        *is_synced = true;
        self.before = Some(text.clone());
        Ok(())
    }
}

#[derive(Debug, Clone)]
enum Event {
    /// So many encryptions under this version.
    Encrypt(u8, u16),
    /// One is given back.
    GiveBack(u8),
    /// The counts are written, or half written: so many steps succeed, and the machine goes on.
    Write(usize),
    /// The machine crashes after so many steps of a write.
    Crash(usize, Index),
    /// The daemon ends in order.
    End,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0..3_u8, 1..5000_u16).prop_map(|(version, times)| Event::Encrypt(version, times)),
        1 => (0..3_u8).prop_map(Event::GiveBack),
        4 => (0..7_usize).prop_map(Event::Write),
        2 => (0..5_usize, any::<Index>()).prop_map(|(steps, fortune)| Event::Crash(steps, fortune)),
        1 => Just(Event::End),
    ];
    proptest::collection::vec(event, 1..60)
}

/// A proxy of a large fleet, whose blocks are small.
struct World {
    disk: Disk,
    book: Book,
    tokens: TokenSet,
    /// What was encrypted, in truth.
    encrypted: BTreeMap<Counted, u64>,
    crashes: u64,
}

impl World {
    fn new() -> Self {
        let tokens = TokenSet::new(&["hsm".parse().unwrap()]);
        let mut disk = Disk { steps: 4, ..Disk::default() };
        save(&mut disk, &Ledger::default().to_string()).unwrap();
        let book = Self::open(&disk.file.as_ref().unwrap().0, &tokens).unwrap();
        Self { disk, book, tokens, encrypted: BTreeMap::new(), crashes: 0 }
    }

    fn open(text: &str, tokens: &TokenSet) -> Result<Book, LedgerError> {
        let share = Share::of(NonZeroU32::new(10_000).unwrap());
        let ledger = Ledger::parse(text)?;
        Ok(Book::open(share, Some(ledger), &BTreeSet::from([tokens.clone()])))
    }

    fn version(number: u8) -> Counted {
        Counted::Version(ObjectId::new([number + 1; 8]))
    }

    fn write(&mut self, steps: usize) {
        self.disk.steps = steps;
        let plan = self.book.plan();
        if save(&mut self.disk, &plan.ledger.to_string()).is_ok() {
            self.book.written(&plan);
        }
    }

    fn reopen(&mut self, text: &str) -> Result<(), TestCaseError> {
        self.book = match Self::open(text, &self.tokens) {
            Ok(book) => book,
            Err(error) => return Err(TestCaseError::fail(format!("lost by a crash: {error}"))),
        };
        for (version, encrypted) in &self.encrypted {
            let counted = self.book.used(version).unwrap_or(0);
            prop_assert!(counted >= *encrypted, "{counted} of {encrypted} are counted");
            // Nor many more: a block for each crash, and one that was half written.
            let most = encrypted + (self.crashes + 1) * 2 * self.book.share().block();
            prop_assert!(counted <= most, "{counted} are counted of {encrypted}");
        }
        Ok(())
    }

    fn undergo(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match event {
            Event::Encrypt(number, times) => {
                let version = Self::version(*number);
                for _ in 0..*times {
                    let limit = EncryptionLimit::default();
                    let taken = self.book.take(&version, &self.tokens, limit, Unwritten::No);
                    if taken.outcome != Outcome::Granted {
                        break;
                    }
                    *self.encrypted.entry(version.clone()).or_default() += 1;
                }
            }
            Event::GiveBack(number) => {
                let version = Self::version(*number);
                if let Some(encrypted) = self.encrypted.get_mut(&version).filter(|n| **n > 0) {
                    *encrypted -= 1;
                    self.book.give_back(&version);
                }
            }
            Event::Write(steps) => self.write(*steps),
            Event::Crash(steps, fortune) => {
                self.write(*steps);
                self.crashes += 1;
                let text = self.disk.crash(fortune).expect("there was a file from the start");
                self.reopen(&text)?;
            }
            Event::End => {
                self.disk.steps = 4;
                let plan = self.book.last_plan();
                save(&mut self.disk, &plan.ledger.to_string()).expect("all steps succeed");
                let (text, is_synced) = self.disk.file.clone().expect("it was saved");
                assert!(is_synced);
                self.reopen(&text)?;
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn no_crash_at_any_step_of_a_write_makes_it_count_less_than_was_encrypted(events in events()) {
        let mut world = World::new();
        for event in &events {
            world.undergo(event)?;
        }
    }
}
