//! The audit log of the daemon: started before any HSM is touched, watched while it serves, and ended
//! when nothing is served any more.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::audit::log::{Log, Settings};
use crate::audit::sealer::{self, Running, SealError};
use crate::audit::store::StoreError;
use crate::metrics::Metrics;
use crate::names::TokenName;

/// How long the last records may take to be written.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);

/// How long a last checkpoint may take.
const SIGNATURE_PATIENCE: Duration = Duration::from_secs(3);

/// The longest that [`Audit::stop`] takes.
pub(super) const PATIENCE: Duration = WRITE_PATIENCE.saturating_add(SIGNATURE_PATIENCE);

/// How often the lag is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// The log, and what is to be done for it.
pub(super) struct Audit {
    log: Log,
    settings: Settings,
    signer: Option<Signer>,
}

/// Where the key that signs is.
struct Signer {
    token: TokenName,
    running: watch::Receiver<Running>,
}

impl Audit {
    /// Goes on with the log of the directory, or begins one.
    pub(super) fn start(settings: Settings, metrics: &Metrics) -> Result<Self, StoreError> {
        let log = Log::start(&settings, metrics.audit())?;
        Ok(Self { log, settings, signer: None })
    }

    /// What requests leave their records with.
    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    /// Starts the tasks that live as long as the daemon.
    pub(super) fn spawn(
        mut self,
        running: &watch::Sender<Running>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        tasks.spawn(watch(self.log.clone(), self.settings.clone()));
        if let Some(checkpoints) = &self.settings.checkpoints {
            let (token, running) = (checkpoints.token.clone(), running.subscribe());
            tasks.spawn(sealer::run(self.log.clone(), running.clone(), checkpoints.clone()));
            self.signer = Some(Signer { token, running });
        }
        self
    }

    /// Has all records signed that are there.
    async fn sign(&self, signer: &Signer) -> Result<(), SealError> {
        let mut safe = self.log.watch_safe();
        while !self.log.lag().is_zero() && safe.changed().await.is_ok() {}
        let now = *safe.borrow();
        let token = signer.running.borrow().get(&signer.token).cloned();
        sealer::sign(&self.log, token.as_deref(), now).await
    }

    /// Has everything signed, if that takes no time, and written.
    pub(super) async fn stop(&self) {
        if let Some(signer) = &self.signer {
            match tokio::time::timeout(SIGNATURE_PATIENCE, self.sign(signer)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "leaving without a last checkpoint"),
                Err(_) => tracing::warn!("leaving without a last checkpoint: it takes too long"),
            }
        }
        let log = self.log.clone();
        let stopped = tokio::task::spawn_blocking(move || log.stop(WRITE_PATIENCE)).await;
        if !matches!(stopped, Ok(true)) {
            tracing::error!("the audit log could not be ended in time");
        }
    }
}

/// Keeps the gauge of the lag, and says when it is too much: the thread that writes may hang in the
/// disk, and say nothing. Ends if that thread has.
async fn watch(log: Log, settings: Settings) {
    let most = settings.sync_interval.saturating_add(settings.max_delay);
    let mut was_late = false;
    loop {
        tokio::time::sleep(LOOK).await;
        if log.has_ended() {
            return;
        }
        let lag = log.lag();
        let is_late = lag > most;
        if is_late != was_late {
            let on_failure = settings.on_failure;
            match is_late {
                true => tracing::error!(?lag, ?on_failure, "the audit log is not written in time"),
                false => tracing::info!("the audit log is written in time again"),
            }
        }
        was_late = is_late;
    }
}
