//! Encryptions, counted for each version of a key against the 2^32 that AES-GCM with random IVs
//! allows (NIST SP 800-38D, 8.3).
//!
//! Every proxy counts its own, and may use its share of the whole: one over the size of the fleet. It
//! reserves encryptions in blocks, in a file, before it uses them, so that it counts too many after a
//! crash and never too few. Where the file is lost, each version that there is counts as having used
//! the whole share.
//!
//! [`book`] is the accounting, [`ledger`] what is written down, [`store`] where. [`Counts`] is what
//! requests ask and what writes ahead of them; an [`auditor`] for each group of tokens tells it which
//! versions there are.

pub mod auditor;
pub mod book;
pub mod ledger;
pub mod limit;
pub mod store;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::clock::Deadline;
use crate::metrics::Metrics;
use crate::names::{ExternalKeyId, KeyVersion};
use book::{Book, Outcome, Plan, Taken, Unwritten};
use ledger::{Counted, TokenSet};
use limit::{AtLimit, EncryptionLimit, Level, Share};
use store::{Found, Store, StoreError};

/// How long a request waits for encryptions to be reserved. They are reserved long before they are
/// wanted; so this is about a version that has just come, or a disk that does not write.
const PATIENCE: Duration = Duration::from_millis(50);

/// After a write that failed it is tried again: soon at first, later less often.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// Why an encryption must not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotCounted {
    /// The share is used up.
    #[error(
        "this proxy's share of the 2^32 encryptions under this version of the key is used up, and \
         at_limit is \"refuse\": rotate the key"
    )]
    Exhausted,
    /// It cannot be written down that it is made.
    #[error(
        "the encryption cannot be counted in the state directory, and at_limit is \"refuse\": the \
         line `cannot write the encryption counts` says why"
    )]
    Unwritable,
}

/// An encryption that is to be made.
#[derive(Debug, Clone, Copy)]
pub struct Encryption<'a> {
    /// Under which external key.
    pub key: &'a ExternalKeyId,
    /// Under which version of it.
    pub version: KeyVersion,
    /// As what it is counted.
    pub what: &'a Counted,
    /// Where the key is.
    pub tokens: &'a TokenSet,
    /// What the key store wants.
    pub limit: EncryptionLimit,
}

/// The counts of one proxy.
#[derive(Debug)]
pub struct Counts {
    book: Mutex<Book>,
    store: Mutex<Store>,
    metrics: Arc<Metrics>,
    /// There is something to write down.
    due: Notify,
    /// What the last write came to, and how many there were.
    writes: watch::Sender<Writes>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Writes {
    count: u64,
    is_failing: bool,
}

impl Counts {
    /// Goes on with the counts in a state directory, for these groups of tokens.
    ///
    /// # Errors
    /// Where the directory is missing, or another daemon has it.
    pub fn open(
        directory: &Path,
        share: Share,
        groups: &BTreeSet<TokenSet>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, StoreError> {
        let (store, found) = Store::open(directory)?;
        let ledger = match found {
            Found::Ledger(ledger) => Some(ledger),
            Found::Nothing => {
                let file = store.path();
                tracing::warn!(
                    file = %file.display(),
                    "there are no encryption counts: every version of a key that exists now counts as \
                     having used this proxy's share; for a new installation, `xksd state init` makes \
                     the file"
                );
                None
            }
            Found::Damaged(why) => {
                let file = store.path();
                tracing::error!(
                    file = %file.display(), why,
                    "the encryption counts are damaged: every version of a key that exists now counts \
                     as having used this proxy's share"
                );
                None
            }
        };
        metrics.encryption_share(share.encryptions());
        Ok(Arc::new(Self {
            book: Mutex::new(Book::open(share, ledger, groups)),
            store: Mutex::new(store),
            metrics,
            due: Notify::new(),
            writes: watch::Sender::default(),
        }))
    }

    /// Goes on with another share and for other groups of tokens, after a reload.
    pub fn go_on_with(&self, share: Share, groups: &BTreeSet<TokenSet>) {
        self.metrics.encryption_share(share.encryptions());
        self.book().go_on_with(share, groups);
        self.due.notify_one();
    }

    /// Counts an encryption that is about to be made. It waits only where nothing is reserved for the
    /// version yet.
    ///
    /// # Errors
    /// Where it must not be made. With [`AtLimit::Warn`] it always may.
    pub async fn take(
        &self,
        encryption: Encryption<'_>,
        deadline: Deadline,
    ) -> Result<(), NotCounted> {
        let mut writes = self.writes.subscribe();
        let deadline = deadline.min(Deadline::after(PATIENCE));
        loop {
            let is_failing = writes.borrow_and_update().is_failing;
            match self.taken(encryption, Unwritten::No) {
                Outcome::Granted => return Ok(()),
                Outcome::Exhausted => return Err(NotCounted::Exhausted),
                Outcome::Unreserved => {}
            }
            let written = tokio::time::timeout_at(deadline.instant().into(), writes.changed());
            if is_failing || !matches!(written.await, Ok(Ok(()))) {
                break;
            }
        }
        let unwritten = match encryption.limit.at_limit {
            AtLimit::Refuse => return Err(NotCounted::Unwritable),
            AtLimit::Warn => Unwritten::Allowed,
        };
        self.taken(encryption, unwritten);
        Ok(())
    }

    fn taken(&self, encryption: Encryption<'_>, unwritten: Unwritten) -> Outcome {
        let Encryption { key, version, what, tokens, limit } = encryption;
        let (taken, share) = {
            let mut book = self.book();
            (book.take(what, tokens, limit, unwritten), book.share().encryptions())
        };
        let Taken { outcome, crossed, used, is_low } = taken;
        if is_low || outcome == Outcome::Unreserved {
            self.due.notify_one();
        }
        match crossed {
            None | Some(Level::Below) => {}
            Some(Level::Near) => tracing::warn!(
                %key,
                %version,
                used,
                share,
                "a version of a key nears this proxy's share of its 2^32 encryptions: rotate the key"
            ),
            Some(Level::Reached) => tracing::error!(
                %key,
                %version,
                used,
                share,
                refused = limit.at_limit == AtLimit::Refuse,
                "a version of a key has used this proxy's share of its 2^32 encryptions: rotate the key"
            ),
        }
        outcome
    }

    /// Takes back an encryption that was not made.
    pub fn give_back(&self, what: &Counted) {
        self.book().give_back(what);
    }

    /// How many encryptions a version has used here; `None` if it is not counted yet.
    pub fn used(&self, what: &Counted) -> Option<u64> {
        self.book().used(what)
    }

    /// Whether what these tokens' keys have used is lost, and they have not been read since.
    pub fn is_lost(&self, tokens: &TokenSet) -> bool {
        self.book().is_lost(tokens)
    }

    /// What this proxy may use of each version.
    pub fn share(&self) -> Share {
        self.book().share()
    }

    /// Writes down what is due, for as long as this is awaited.
    pub async fn keep(self: Arc<Self>) {
        let mut pause = RETRY.0;
        loop {
            if !self.book().is_due() {
                self.due.notified().await;
                continue;
            }
            let counts = self.clone();
            let write = move || {
                let plan = counts.book().plan();
                counts.write(&plan)
            };
            match tokio::task::spawn_blocking(write).await.expect("a write does not panic") {
                Ok(()) => pause = RETRY.0,
                Err(_told) => {
                    tokio::time::sleep(pause).await;
                    pause = RETRY.1.min(pause * 2);
                }
            }
        }
    }

    /// Writes down what was used, so that nothing of what is reserved is lost. For the end, when
    /// nothing is encrypted any more.
    pub fn close(&self) {
        let plan = self.book().last_plan();
        // What was reserved is written, if this cannot be: that is told, and nothing to be done.
        let _told = self.write(&plan);
    }

    fn write(&self, plan: &Plan) -> io::Result<()> {
        let saved = {
            let mut store = self.store.lock().expect("nothing panics while holding this lock");
            store.save(&plan.ledger).inspect_err(|error| {
                self.metrics.count_write_failed();
                let file = store.path();
                tracing::error!(file = %file.display(), %error, "cannot write the encryption counts");
            })
        };
        if saved.is_ok() {
            self.book().written(plan);
        }
        self.writes.send_modify(|writes| {
            if writes.is_failing && saved.is_ok() {
                tracing::info!("the encryption counts can be written again");
            }
            *writes = Writes { count: writes.count + 1, is_failing: saved.is_err() };
        });
        saved
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("nothing panics while holding this lock")
    }
}

#[cfg(test)]
mod tests;
