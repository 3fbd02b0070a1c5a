//! What is said of a reload, and how one is asked for.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

/// Who wanted a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// SIGHUP.
    Signal,
    /// The control socket.
    Control,
    /// A file whose contents have changed.
    Files,
}

impl Source {
    /// The word for it in logs and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::Control => "control",
            Self::Files => "files",
        }
    }
}

/// Why a reload was refused; what was served before is served on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The configuration is wrong, or wants what only a restart can give.
    Configuration,
    /// A token can't be reached.
    Unavailable,
    /// A token refuses its PIN.
    PinRefused,
}

impl Refusal {
    /// The word for it in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Unavailable => "unavailable",
            Self::PinRefused => "pin_refused",
        }
    }
}

/// One thing that stands against a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong, and where.
    pub problem: String,
    /// What to do about it, where that does not follow.
    pub hint: Option<String>,
}

/// What became of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Who wanted it.
    pub source: Source,
    /// When it ended.
    pub at: SystemTime,
    /// Why it was refused; `None`: it is in force.
    pub refusal: Option<Refusal>,
    /// All that stands against it; nothing, if it is in force.
    pub faults: Vec<Finding>,
    /// What is in force and should not be so: an inline PIN, a token that is not up yet.
    pub warnings: Vec<String>,
    /// What is other than before.
    pub changes: Vec<String>,
}

/// What is known of reloads.
#[derive(Debug, Clone, Default)]
pub struct Reloads {
    /// The last one.
    pub last: Option<Report>,
    /// Settings of the configuration in force that count from the next start on.
    pub restart_pending: Vec<String>,
}

/// Asks for reloads, one after the other.
#[derive(Debug, Clone)]
pub struct Reloading {
    /// Whoever asks is answered when it is done.
    pub requests: mpsc::Sender<oneshot::Sender<Report>>,
    /// What is known of them.
    pub known: watch::Receiver<Reloads>,
}

impl Reloading {
    /// Has the configuration read anew, and waits for what becomes of it. `None`: the daemon leaves.
    pub async fn reload(&self) -> Option<Report> {
        let (reply, report) = oneshot::channel();
        self.requests.send(reply).await.ok()?;
        report.await.ok()
    }

    /// What is known, for the control socket.
    pub fn in_json(&self) -> Value {
        let Reloads { last, restart_pending } = self.known.borrow().clone();
        let last = last.as_ref().map(Report::in_json);
        json!({ "last": last, "restart_pending": restart_pending })
    }
}

impl Report {
    /// For the control socket.
    pub fn in_json(&self) -> Value {
        let Self { source, at, refusal, faults, warnings, changes } = self;
        let fault =
            |Finding { problem, hint }: &Finding| json!({ "problem": problem, "hint": hint });
        json!({
            "source": source.name(),
            "at": at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            "outcome": if refusal.is_none() { "applied" } else { "refused" },
            "refusal": refusal.map(Refusal::name),
            "faults": faults.iter().map(fault).collect::<Vec<_>>(),
            "warnings": warnings,
            "changes": changes,
        })
    }
}
