//! A running log, as requests see it: who will leave a record takes a seat first.
//!
//! A seat is room for one record until that is safe on disk. So memory is bounded, and where a request
//! whose record can't be kept must not be served (`on_failure = "refuse"`), it is refused before the
//! HSM is used. What was served and could not be recorded is counted, and recorded as a gap.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{oneshot, watch};

use super::chain::{ChainId, Head};
use super::copies::Destination;
use super::disk::{Disk, Local};
use super::record::{Draft, Gap, Refused};
use super::store::{Place, Store, StoreError};
use super::writer::Writer;
use crate::clock::Deadline;
use crate::metrics::AuditMetrics;
use crate::names::{KeystoreName, TokenName};

/// Most records that are in memory. With a few hundred bytes each, some megabytes.
pub(super) const SEATS: usize = 16_384;

/// What happens to requests whose record can't be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// They are not served.
    Refuse,
    /// They are, and counted.
    Warn,
}

/// How a log is kept. Everything here can be set in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where.
    pub place: Place,
    /// What happens to requests whose record can't be kept.
    pub on_failure: OnFailure,
    /// How long a record may wait until it survives a power cut. Zero: an answer waits for its record.
    pub sync_interval: Duration,
    /// How old a record that is not on disk may be before `on_failure` decides.
    pub max_delay: Duration,
    /// How often refused authentications are summed up.
    pub refused_interval: Duration,
    /// When checkpoints are signed, and where.
    pub checkpoints: Option<Checkpoints>,
    /// Where else records are sent.
    pub copies: Vec<Destination>,
}

/// When checkpoints are signed, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoints {
    /// The token that holds the audit key.
    pub token: TokenName,
    /// After so many records.
    pub records: u64,
    /// Or after so long, if there is one record that is not signed.
    pub interval: Duration,
}

/// Why a request can't be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unrecorded {
    /// The disk refuses.
    #[error("the audit log cannot be written")]
    Failing,
    /// The disk is too slow, or does not answer.
    #[error("the audit log is not written in time")]
    Behind,
}

/// How far a log is safe on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Safe {
    /// Which chain.
    pub chain: ChainId,
    /// Its last record that is synced.
    pub head: Head,
    /// How many records were synced since the start, without checkpoints.
    pub records: u64,
}

/// A log that is being written. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) on_failure: OnFailure,
    pub(super) sync_interval: Duration,
    pub(super) refused_interval: Duration,
    max_delay: Duration,
    pub(super) metrics: AuditMetrics,
    pub(super) safe: watch::Sender<Safe>,
    state: Mutex<State>,
    changed: Condvar,
}

/// What requests and the writer share. Locked for moments only.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) queue: VecDeque<Entry>,
    /// What the records of the queue say, one behind the other: so no memory changes hands between
    /// the threads that serve and the one that writes.
    pub(super) texts: String,
    /// Taken by requests under way, and by records that are not synced.
    pub(super) seats: usize,
    /// Since when the oldest record has been waiting to be synced.
    pub(super) oldest: Option<Instant>,
    /// Why nothing can be written.
    pub(super) trouble: Option<String>,
    pub(super) gap: Option<Gap>,
    pub(super) refused: HashMap<(KeystoreName, &'static str), Refused>,
    /// The writer waits for something to do.
    pub(super) is_waiting: bool,
    pub(super) is_stopping: bool,
    pub(super) has_ended: bool,
}

/// One record that waits to be written.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) time: SystemTime,
    pub(super) since: Instant,
    pub(super) kind: &'static str,
    /// Bytes of its text.
    pub(super) length: usize,
    /// Whether it holds a seat.
    pub(super) is_seated: bool,
    /// Told once it is synced.
    pub(super) receipt: Option<oneshot::Sender<()>>,
}

impl Log {
    /// Goes on with the log of a directory, or begins one. The first records are safe when this
    /// returns; the thread that writes runs until [`Log::stop`].
    ///
    /// # Errors
    /// Where nothing can be written there.
    pub fn start(settings: &Settings, metrics: AuditMetrics) -> Result<Self, StoreError> {
        Self::start_on(settings, metrics, Box::new(Local))
    }

    /// The same, on a disk that a test plays.
    ///
    /// # Errors
    /// Where nothing can be written there.
    pub fn start_on(
        settings: &Settings,
        metrics: AuditMetrics,
        disk: Box<dyn Disk>,
    ) -> Result<Self, StoreError> {
        let now = SystemTime::now();
        let place = settings.place.clone();
        let directory = place.directory.clone();
        let mut store = Store::open(place, disk, "xksd serve", now)?;
        store.sync(now).map_err(|cause| StoreError::Directory { directory, cause })?;
        let safe = Safe { chain: store.chain(), head: store.head(), records: 1 };
        let shared = Arc::new(Shared {
            on_failure: settings.on_failure,
            sync_interval: settings.sync_interval,
            refused_interval: settings.refused_interval,
            max_delay: settings.max_delay,
            metrics,
            safe: watch::Sender::new(safe),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        Writer::spawn(shared.clone(), store, &settings.copies).map_err(StoreError::Thread)?;
        Ok(Self { shared })
    }

    /// Makes room for the record of a request that is about to be served.
    ///
    /// # Errors
    /// Where the request must not be served.
    pub fn admit(&self) -> Result<Seat, Unrecorded> {
        let mut state = self.shared.lock();
        let outlook = self.shared.outlook(&state);
        let is_seated = state.seats < SEATS;
        match (outlook, self.shared.on_failure) {
            (Err(why), OnFailure::Refuse) => {
                let reason = why.reason(&state);
                state.miss(reason, |gap| gap.refused = gap.refused.saturating_add(1));
                self.shared.metrics.refused.inc();
                return Err(why);
            }
            _ => state.seats = state.seats.saturating_add(usize::from(is_seated)),
        }
        drop(state);
        Ok(Seat { shared: self.shared.clone(), is_seated, is_used: false })
    }

    /// Counts a request whose caller was not authenticated.
    pub fn refused(&self, keystore: &KeystoreName, reason: &'static str) {
        let mut state = self.shared.lock();
        let entry = state.refused.entry((keystore.clone(), reason));
        let refused = entry.or_insert_with(|| {
            let (keystore, from) = (keystore.clone(), SystemTime::now());
            Refused { keystore, reason, count: 0, from }
        });
        refused.count = refused.count.saturating_add(1);
    }

    /// Adds a record of xksd's own, which nobody waits for.
    pub fn note<'a>(&self, record: impl Into<Draft<'a>>) {
        let record = record.into();
        let mut state = self.shared.lock();
        self.shared.push(&mut state, &record, false, None);
    }

    /// Whether requests are served, as far as this log is concerned.
    ///
    /// # Errors
    /// Why not.
    pub fn outlook(&self) -> Result<(), Unrecorded> {
        match self.shared.on_failure {
            OnFailure::Refuse => self.shared.outlook(&self.shared.lock()),
            OnFailure::Warn => Ok(()),
        }
    }

    /// How far it is safe on disk.
    pub fn watch_safe(&self) -> watch::Receiver<Safe> {
        self.shared.safe.subscribe()
    }

    /// Its metrics.
    pub fn metrics(&self) -> &AuditMetrics {
        &self.shared.metrics
    }

    /// Whether nobody writes any more: after [`Log::stop`], or since the writer met a defect of its own.
    pub fn has_ended(&self) -> bool {
        self.shared.lock().has_ended
    }

    /// How long the oldest record has been waiting to be synced. The gauge has it too.
    pub fn lag(&self) -> Duration {
        let lag = self.shared.lock().lag();
        self.shared.metrics.lag.set(lag.as_secs_f64());
        lag
    }

    /// Writes what is there and ends. Says whether that was done.
    pub fn stop(&self, patience: Duration) -> bool {
        let mut state = self.shared.lock();
        state.is_stopping = true;
        self.shared.changed.notify_all();
        let is_going = |state: &mut State| !state.has_ended;
        let waited = self.shared.changed.wait_timeout_while(state, patience, is_going);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.has_ended
    }
}

/// Room for one record.
#[derive(Debug)]
#[must_use = "what was admitted is to be recorded"]
pub struct Seat {
    shared: Arc<Shared>,
    /// There was room. If not, the record is counted as lost.
    is_seated: bool,
    is_used: bool,
}

impl Seat {
    /// Leaves the record. Where answers wait for theirs, the receipt tells when it is safe.
    pub fn keep<'a>(mut self, record: impl Into<Draft<'a>>) -> Option<Receipt> {
        self.is_used = true;
        let record = record.into();
        let mut state = self.shared.lock();
        if !self.is_seated {
            let reason = Unrecorded::Behind.reason(&state);
            state.miss(reason, |gap| gap.lost = gap.lost.saturating_add(1));
            self.shared.metrics.lost.inc();
            return None;
        }
        let (receipt, waiting) = match self.shared.sync_interval.is_zero() {
            true => {
                let (sender, receiver) = oneshot::channel();
                (Some(sender), Some(Receipt { safe: receiver, shared: self.shared.clone() }))
            }
            false => (None, None),
        };
        self.shared.push(&mut state, &record, true, receipt);
        waiting
    }
}

impl Drop for Seat {
    /// Of a request that left no record: it panicked.
    fn drop(&mut self) {
        if self.is_used {
            return;
        }
        let mut state = self.shared.lock();
        state.seats = state.seats.saturating_sub(usize::from(self.is_seated));
        let reason = "a request ended in a panic".to_owned();
        state.miss(reason, |gap| gap.lost = gap.lost.saturating_add(1));
        self.shared.metrics.lost.inc();
    }
}

/// Tells when a record is safe on disk.
#[derive(Debug)]
pub struct Receipt {
    safe: oneshot::Receiver<()>,
    shared: Arc<Shared>,
}

impl Receipt {
    /// Waits until the record is safe, no longer than there is time.
    ///
    /// # Errors
    /// Where it is not safe by then, and the answer must not be sent.
    pub async fn wait(self, deadline: Deadline) -> Result<(), Unrecorded> {
        let safe = tokio::time::timeout_at(deadline.instant().into(), self.safe).await;
        if let Ok(Ok(())) = safe {
            return Ok(());
        }
        match self.shared.on_failure {
            OnFailure::Warn => Ok(()),
            OnFailure::Refuse => {
                self.shared.metrics.refused.inc();
                let is_failing = self.shared.lock().trouble.is_some();
                Err(if is_failing { Unrecorded::Failing } else { Unrecorded::Behind })
            }
        }
    }
}

impl Unrecorded {
    /// In words for the record of the gap.
    fn reason(self, state: &State) -> String {
        state.trouble.clone().unwrap_or_else(|| self.to_string())
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // The state holds after each of its changes: a panic in between leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is something to do, or so long.
    pub(super) fn wait<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        time: Duration,
    ) -> MutexGuard<'a, State> {
        state.is_waiting = true;
        let has_nothing = |state: &mut State| state.queue.is_empty() && !state.is_stopping;
        let waited = self.changed.wait_timeout_while(state, time, has_nothing);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_waiting = false;
        state
    }

    /// Waits so long, unless everything ends.
    pub(super) fn pause(&self, time: Duration) {
        let is_going = |state: &mut State| !state.is_stopping;
        drop(self.changed.wait_timeout_while(self.lock(), time, is_going));
    }

    pub(super) fn ended(&self) {
        self.lock().has_ended = true;
        self.changed.notify_all();
    }

    fn push(
        &self,
        state: &mut State,
        record: &Draft<'_>,
        is_seated: bool,
        receipt: Option<oneshot::Sender<()>>,
    ) {
        let (time, since) = (SystemTime::now(), Instant::now());
        state.oldest.get_or_insert(since);
        state.texts.push_str(record.text());
        let (kind, length) = (record.kind(), record.text().len());
        state.queue.push_back(Entry { time, since, kind, length, is_seated, receipt });
        if state.is_waiting {
            self.changed.notify_all();
        }
    }

    fn outlook(&self, state: &State) -> Result<(), Unrecorded> {
        if state.trouble.is_some() || state.has_ended {
            return Err(Unrecorded::Failing);
        }
        let is_late = state.lag() > self.sync_interval.saturating_add(self.max_delay);
        if is_late || state.seats >= SEATS { Err(Unrecorded::Behind) } else { Ok(()) }
    }
}

impl State {
    fn lag(&self) -> Duration {
        self.oldest.map_or(Duration::ZERO, |oldest| oldest.elapsed())
    }

    fn miss(&mut self, reason: String, count: impl FnOnce(&mut Gap)) {
        let from = SystemTime::now();
        let gap = self.gap.get_or_insert(Gap { lost: 0, refused: 0, from, reason });
        count(gap);
    }
}

#[cfg(test)]
mod tests;
