//! The thread that writes a log: in batches, each a single write, synced at its interval.
//!
//! While nothing can be written it tries again and again; what was taken stays in memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;

use super::copies::{Copies, Destination};
use super::log::{Entry, Safe, Shared};
use super::record::{Draft, Event, Refused};
use super::store::Store;

/// How long records are gathered before they are written in one call: what the end of this process,
/// and of nothing else, may cost.
const GATHER: Duration = Duration::from_millis(5);

/// How long until a write that failed is made again.
const RETRY: Duration = Duration::from_millis(500);

/// How often the file is looked at where there is nothing to write.
const LOOK: Duration = Duration::from_secs(1);

/// So many records are synced before their time, so that those that come find room.
const MANY: usize = super::log::SEATS / 4;

pub(super) struct Writer {
    shared: Arc<Shared>,
    store: Store,
    copies: Copies,
    /// Empty, for the records that come next while those before are written.
    queue: VecDeque<Entry>,
    texts: String,
    /// Seats that are free once all is synced.
    seats: usize,
    receipts: Vec<oneshot::Sender<()>>,
    records: u64,
    synced: Instant,
    summed: Instant,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn spawn(
        shared: Arc<Shared>,
        store: Store,
        copies: &[Destination],
    ) -> std::io::Result<()> {
        let copies = Copies::start(copies, &shared.metrics);
        let now = Instant::now();
        let (queue, texts) = Default::default();
        let (seats, receipts, records) = (0, Vec::new(), 1);
        let ended = Ended(shared.clone());
        let writer = Self {
            shared,
            store,
            copies,
            queue,
            texts,
            seats,
            receipts,
            records,
            synced: now,
            summed: now,
        };
        let run = move || {
            // On a panic too: nothing is admitted any more then.
            let _ended = ended;
            writer.run();
        };
        std::thread::Builder::new().name("audit".to_owned()).spawn(run).map(drop)
    }

    fn run(mut self) {
        loop {
            let is_stopping = self.take();
            if is_stopping {
                self.append(SystemTime::now(), Event::Closed);
            }
            let now = SystemTime::now();
            if is_stopping || self.is_due() {
                self.sync();
            } else if let Err(error) = self.store.write(now) {
                self.failed(&error);
                self.sync();
            }
            if is_stopping {
                return;
            }
        }
    }

    /// Waits for records and adds them. Says whether they are the last.
    fn take(&mut self) -> bool {
        let shared = self.shared.clone();
        let mut state = shared.wait(shared.lock(), self.patience());
        let gathers = !shared.sync_interval.is_zero() && !state.is_stopping;
        if gathers && !state.queue.is_empty() {
            drop(state);
            shared.pause(GATHER);
            state = shared.lock();
        }
        let mut queue = std::mem::replace(&mut state.queue, std::mem::take(&mut self.queue));
        let mut texts = std::mem::replace(&mut state.texts, std::mem::take(&mut self.texts));
        let gap = state.gap.take();
        let is_stopping = state.is_stopping;
        let is_time = self.summed.elapsed() >= shared.refused_interval || is_stopping;
        let refused = if is_time { std::mem::take(&mut state.refused) } else { Default::default() };
        drop(state);
        let mut rest = texts.as_str();
        for entry in queue.drain(..) {
            let (text, others) = rest.split_at(entry.length);
            rest = others;
            self.append(entry.time, Draft::again(entry.kind, text));
            self.seats = self.seats.saturating_add(usize::from(entry.is_seated));
            self.receipts.extend(entry.receipt);
        }
        texts.clear();
        (self.queue, self.texts) = (queue, texts);
        let now = SystemTime::now();
        if let Some(gap) = gap {
            self.append(now, Event::Gap(gap));
        }
        if is_time {
            self.summed = Instant::now();
            let mut refused: Vec<Refused> = refused.into_values().collect();
            refused.sort_by(|a, b| {
                (a.keystore.as_str(), a.reason).cmp(&(b.keystore.as_str(), b.reason))
            });
            for refused in refused {
                self.append(now, Event::Refused(refused));
            }
        }
        is_stopping
    }

    /// How long there is nothing to do if no record comes.
    fn patience(&self) -> Duration {
        let summing = self.shared.refused_interval.saturating_sub(self.summed.elapsed());
        let look = match self.store.unsynced() {
            0 => LOOK,
            _ => self.shared.sync_interval,
        };
        look.saturating_sub(self.synced.elapsed()).min(summing)
    }

    fn is_due(&self) -> bool {
        let waited = self.synced.elapsed();
        match self.store.unsynced() {
            0 => waited >= LOOK,
            _ => waited >= self.shared.sync_interval || self.seats >= MANY,
        }
    }

    fn append<'a>(&mut self, time: SystemTime, record: impl Into<Draft<'a>>) {
        let record = record.into();
        let (kind, is_checkpoint) = (record.kind(), record.is_checkpoint());
        let line = self.store.append(time, record);
        self.shared.metrics.recorded(kind, line.len().saturating_add(1));
        if !is_checkpoint {
            self.records = self.records.saturating_add(1);
        }
        self.copies.offer(line);
    }

    /// Syncs, however often it takes; gives up only if everything ends.
    fn sync(&mut self) {
        while let Err(error) = self.store.sync(SystemTime::now()) {
            self.failed(&error);
            self.shared.pause(RETRY);
            if self.shared.lock().is_stopping && self.store.sync(SystemTime::now()).is_err() {
                let bytes = self.store.unsynced();
                tracing::error!(bytes, "ending with audit records that could not be written");
                return;
            }
        }
        self.synced = Instant::now();
        let (chain, head) = (self.store.chain(), self.store.head());
        let mut state = self.shared.lock();
        if state.trouble.take().is_some() {
            tracing::info!("the audit log is written again");
        }
        state.seats = state.seats.saturating_sub(self.seats);
        state.oldest = state.queue.front().map(|entry| entry.since);
        drop(state);
        self.seats = 0;
        for receipt in self.receipts.drain(..) {
            // Whoever waited may have given up.
            let _ = receipt.send(());
        }
        self.shared.safe.send_replace(Safe { chain, head, records: self.records });
    }

    fn failed(&self, error: &std::io::Error) {
        self.shared.metrics.failures.inc();
        let trouble = error.to_string();
        let mut state = self.shared.lock();
        if state.trouble.as_ref() != Some(&trouble) {
            tracing::error!(%error, on_failure = ?self.shared.on_failure, "the audit log cannot be written");
            state.trouble = Some(trouble);
        }
    }
}

/// Tells, when dropped, that nobody writes any more.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.ended();
    }
}
