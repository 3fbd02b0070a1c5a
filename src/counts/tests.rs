//! The counts as requests meet them.

use std::fs;
use std::num::NonZeroU32;

use super::*;
use crate::names::ObjectId;

const WARN: EncryptionLimit = EncryptionLimit { warn_percent: 80, at_limit: AtLimit::Warn };
const REFUSE: EncryptionLimit = EncryptionLimit { at_limit: AtLimit::Refuse, ..WARN };

struct Bench {
    directory: tempfile::TempDir,
    tokens: TokenSet,
    metrics: Arc<Metrics>,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Store::init(directory.path()).unwrap();
        let tokens = TokenSet::new(&["hsm".parse().unwrap()]);
        Self { directory, tokens, metrics: Arc::default() }
    }

    fn open(&self) -> Arc<Counts> {
        let share = Share::of(NonZeroU32::new(10_000).unwrap());
        let groups = BTreeSet::from([self.tokens.clone()]);
        Counts::open(self.directory.path(), share, &groups, self.metrics.clone()).unwrap()
    }

    async fn take(&self, counts: &Counts, limit: EncryptionLimit) -> Result<(), NotCounted> {
        let deadline = Deadline::after(Duration::from_secs(60));
        let key = "orders".parse().unwrap();
        let (what, version) = (version(), KeyVersion::FIRST);
        let tokens = &self.tokens;
        counts.take(Encryption { key: &key, version, what: &what, tokens, limit }, deadline).await
    }

    fn written(&self) -> Option<u64> {
        let ledger = store::read(self.directory.path()).unwrap().unwrap().unwrap();
        ledger.reserved.get(&version()).copied()
    }
}

fn version() -> Counted {
    Counted::Version(ObjectId::new([7; 8]))
}

/// The draft of the file cannot be made: as on a disk that is full, for root too.
fn spoil(bench: &Bench) -> std::path::PathBuf {
    let in_the_way = bench.directory.path().join("encryption-counts.new");
    fs::create_dir(&in_the_way).unwrap();
    in_the_way
}

#[tokio::test]
async fn the_first_encryption_waits_until_it_is_written_down() {
    let bench = Bench::new();
    let counts = bench.open();
    let block = counts.share().block();
    let keeping = tokio::spawn(counts.clone().keep());
    bench.take(&counts, REFUSE).await.unwrap();
    assert_eq!(bench.written(), Some(block));
    assert_eq!(counts.used(&version()), Some(1));
    counts.give_back(&version());
    assert_eq!(counts.used(&version()), Some(0));
    keeping.abort();
    bench.take(&counts, REFUSE).await.unwrap();
    counts.close();
    assert_eq!(bench.written(), Some(1), "in the end nothing is lost");
    assert!(bench.metrics.render().contains("xksd_key_encryptions_share 429496\n"));
}

#[tokio::test]
async fn what_cannot_be_written_is_refused_or_counted_in_memory() {
    let bench = Bench::new();
    let counts = bench.open();
    let in_the_way = spoil(&bench);
    let keeping = tokio::spawn(counts.clone().keep());
    assert_eq!(bench.take(&counts, REFUSE).await, Err(NotCounted::Unwritable));
    assert_eq!(counts.used(&version()), Some(0));
    for used in 1..=3 {
        bench.take(&counts, WARN).await.unwrap();
        assert_eq!(counts.used(&version()), Some(used));
    }
    let failed = "xksd_key_encryptions_write_failures_total 0\n";
    assert!(!bench.metrics.render().contains(failed));
    // When there is room again, what was made meanwhile is written too.
    fs::remove_dir(in_the_way).unwrap();
    let mut writes = counts.writes.subscribe();
    writes.wait_for(|writes| !writes.is_failing).await.unwrap();
    bench.take(&counts, REFUSE).await.unwrap();
    assert_eq!(bench.written(), Some(3 + counts.share().block()));
    keeping.abort();
}

#[tokio::test]
async fn at_the_limit_it_is_refused_without_waiting_for_anything() {
    let bench = Bench::new();
    let share = bench.open().share().encryptions();
    let ledger = format!("xksd-counts 1\n{} {share}\nend\n", version());
    fs::write(bench.directory.path().join(store::FILE), ledger).unwrap();
    // Nobody writes.
    let counts = bench.open();
    assert_eq!(bench.take(&counts, REFUSE).await, Err(NotCounted::Exhausted));
    assert_eq!(counts.used(&version()), Some(share));
}
