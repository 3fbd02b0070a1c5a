//! The audit log of the daemon: started before any HSM is touched, watched while it serves, and ended
//! when nothing is served any more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::audit::log::{Checkpoints, Log, Settings};
use crate::audit::sealer;
use crate::audit::store::StoreError;
use crate::hsm::token::Token;
use crate::metrics::Metrics;
use crate::names::TokenName;

/// How long the last records may take to be written.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often the lag is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// The log, and what is to be done for it.
pub(super) struct Audit {
    log: Log,
    settings: Settings,
}

impl Audit {
    /// Goes on with the log of the directory, or begins one.
    pub(super) fn start(settings: Settings, metrics: &Metrics) -> Result<Self, StoreError> {
        let log = Log::start(&settings, metrics.audit())?;
        Ok(Self { log, settings })
    }

    /// What requests leave their records with.
    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    /// Starts the tasks that live as long as the daemon.
    pub(super) fn spawn(&self, tokens: &HashMap<TokenName, Arc<Token>>, tasks: &mut JoinSet<()>) {
        tasks.spawn(watch(self.log.clone(), self.settings.clone()));
        if let Some((token, checkpoints)) = self.signer(tokens) {
            tasks.spawn(sealer::run(self.log.clone(), token, checkpoints));
        }
    }

    fn signer(&self, tokens: &HashMap<TokenName, Arc<Token>>) -> Option<(Arc<Token>, Checkpoints)> {
        let checkpoints = self.settings.checkpoints.clone()?;
        let token = tokens.get(&checkpoints.token)?.clone();
        Some((token, checkpoints))
    }

    /// Has everything written.
    pub(super) async fn stop(&self) {
        let log = self.log.clone();
        let stopped = tokio::task::spawn_blocking(move || log.stop(PATIENCE)).await;
        if !matches!(stopped, Ok(true)) {
            tracing::error!("the audit log could not be ended in time");
        }
    }
}

/// Keeps the gauge of the lag, and says when it is too much: the thread that writes may hang in the
/// disk, and say nothing.
async fn watch(log: Log, settings: Settings) {
    let most = settings.sync_interval.saturating_add(settings.max_delay);
    let mut was_late = false;
    loop {
        tokio::time::sleep(LOOK).await;
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
