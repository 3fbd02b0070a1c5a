//! The metrics of one token.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
};

use super::{Metrics, unix_now};
use crate::hsm::codes::{self, Code};
use crate::hsm::token::TokenState;
use crate::names::TokenName;

/// A C call that has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HsmCall {
    /// The function.
    pub function: &'static str,
    /// How long it took.
    pub took: Duration,
    /// What it returned.
    pub code: Code,
}

/// The metrics of one token.
#[derive(Debug)]
pub struct TokenMetrics {
    pub(super) token: String,
    pub(super) calls: HistogramVec,
    pub(super) call_failures: IntCounterVec,
    pub(super) queue: Histogram,
    pub(super) refused: IntCounterVec,
    pub(super) write_checks_failed: IntCounter,
    pub(super) write_checks_skipped: IntCounter,
    pub(super) gauges: Gauges,
    pub(super) processes: IntCounter,
    pub(super) failovers: IntCounter,
    /// Where C calls are noted, in a process whose metrics nobody reads.
    pub(super) notes: Option<Mutex<Vec<HsmCall>>>,
}

/// What is so of a token now. A token that takes the place of another one of its name has its own,
/// which are not shown before it has.
#[derive(Debug)]
pub(super) struct Gauges {
    sessions: IntGauge,
    up: IntGauge,
    suspect: IntGauge,
    state: IntGaugeVec,
    key_versions: IntGaugeVec,
    probe: Gauge,
    keys: IntGauge,
    read: Gauge,
}

impl Gauges {
    pub(super) fn new(token: &TokenName) -> Self {
        let opts = |name, help| Opts::new(name, help).const_label("token", token.as_str());
        let gauge = |name, help| {
            IntGauge::with_opts(opts(name, help)).expect("the name is a valid constant")
        };
        let float_gauge =
            |name, help| Gauge::with_opts(opts(name, help)).expect("the name is a valid constant");
        Self {
            sessions: gauge("xksd_hsm_sessions", "Sessions that are open and serve requests."),
            up: gauge("xksd_hsm_up", "Whether the token is served."),
            suspect: gauge(
                "xksd_hsm_suspect",
                "Whether the token serves only where no other token can: it fails or is slow.",
            ),
            state: IntGaugeVec::new(
                opts("xksd_hsm_state", "1 for the state that the token is in, 0 for the others."),
                &["state"],
            )
            .expect("the name and the label are valid constants"),
            key_versions: IntGaugeVec::new(
                opts(
                    "xksd_hsm_key_versions",
                    "Versions of keys, by what is known of the token's object beside other tokens'.",
                ),
                &["standing"],
            )
            .expect("the name and the label are valid constants"),
            probe: float_gauge(
                "xksd_hsm_probe_duration_seconds",
                "Duration of the last successful health probe.",
            ),
            keys: gauge("xksd_catalogue_keys", "External keys found in the token."),
            read: float_gauge(
                "xksd_catalogue_read_timestamp_seconds",
                "When the token's keys were last read completely.",
            ),
        }
    }

    pub(super) fn all(&self) -> [Box<dyn Collector>; 8] {
        [
            Box::new(self.sessions.clone()),
            Box::new(self.up.clone()),
            Box::new(self.suspect.clone()),
            Box::new(self.state.clone()),
            Box::new(self.key_versions.clone()),
            Box::new(self.probe.clone()),
            Box::new(self.keys.clone()),
            Box::new(self.read.clone()),
        ]
    }
}

/// Why a job was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobRefused {
    /// The queue was full.
    QueueFull,
    /// It would not have been done in time.
    Overloaded,
    /// Its deadline had passed before a session was free.
    Expired,
    /// The token was down.
    Down,
}

impl TokenMetrics {
    /// Only notes C calls, for [`TokenMetrics::take_notes`]; nothing else of it is ever read.
    pub fn noting() -> Self {
        let name: TokenName = "none".parse().expect("it is a token name");
        let metrics = Metrics::new().candidate(&name);
        let metrics = std::sync::Arc::into_inner(metrics).expect("nobody else has it yet");
        Self { notes: Some(Mutex::default()), ..metrics }
    }

    /// The calls since this was last asked.
    pub fn take_notes(&self) -> Vec<HsmCall> {
        self.notes.as_ref().map(|notes| std::mem::take(&mut *lock(notes))).unwrap_or_default()
    }

    /// A process was started for the token's library.
    pub fn process_started(&self) {
        self.processes.inc();
    }

    /// A C call has returned.
    pub fn hsm_call(&self, function: &'static str, took: Duration, code: Code) {
        if let Some(notes) = &self.notes {
            return lock(notes).push(HsmCall { function, took, code });
        }
        let token = self.token.as_str();
        self.calls.with_label_values(&[token, function]).observe(took.as_secs_f64());
        if code != codes::OK {
            let code = code.name().unwrap_or("vendor");
            self.call_failures.with_label_values(&[token, function, code]).inc();
        }
    }

    /// A job has reached a session.
    pub fn queued(&self, waited: Duration) {
        self.queue.observe(waited.as_secs_f64());
    }

    /// A job was not done.
    pub fn refused(&self, why: JobRefused) {
        let reason = match why {
            JobRefused::QueueFull => "queue_full",
            JobRefused::Overloaded => "overloaded",
            JobRefused::Expired => "expired",
            JobRefused::Down => "down",
        };
        self.refused.with_label_values(&[&self.token, reason]).inc();
    }

    /// A ciphertext was thrown away since it did not decrypt to the plaintext (P-43).
    pub fn write_check_failed(&self) {
        self.write_checks_failed.inc();
    }

    /// A ciphertext was to be checked, and its key does not permit it.
    pub fn write_check_skipped(&self) {
        self.write_checks_skipped.inc();
    }

    /// The gauge of open sessions.
    pub fn sessions(&self) -> &IntGauge {
        &self.gauges.sessions
    }

    /// The token is in this state from now on.
    pub fn is(&self, now: TokenState) {
        let gauges = &self.gauges;
        gauges.up.set(now.serves().into());
        gauges.suspect.set((now == TokenState::Suspect).into());
        for state in TokenState::NAMES {
            gauges.state.with_label_values(&[state]).set((state == now.name()).into());
        }
    }

    /// A request has left the token for another one.
    pub fn failed_over(&self) {
        self.failovers.inc();
    }

    /// So many of the token's key versions have this standing among those of its key store.
    pub fn key_versions(&self, standing: &'static str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.gauges.key_versions.with_label_values(&[standing]).set(count);
    }

    /// A probe has succeeded.
    pub fn probed(&self, took: Duration) {
        self.gauges.probe.set(took.as_secs_f64());
    }

    /// The catalogue was read.
    pub fn catalogue(&self, keys: usize) {
        self.gauges.keys.set(i64::try_from(keys).unwrap_or(i64::MAX));
        self.gauges.read.set(unix_now());
    }
}

fn lock(notes: &Mutex<Vec<HsmCall>>) -> std::sync::MutexGuard<'_, Vec<HsmCall>> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}
