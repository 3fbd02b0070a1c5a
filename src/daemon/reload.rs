//! Reloads, one at a time: who may ask for one, how the configuration is read, and what is said of it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinError;
use tokio::time::{Instant, sleep_until};

use super::estate::{Estate, Loaded, Refused};
use super::files::Files;
use super::notify::Notifier;
use super::status;
use super::transport::Transport;
use crate::config::{Config, ConfigErrors};
use crate::metrics::Metrics;
use crate::secret::Fingerprints;
use crate::server::drain::{Draining, Phase};
use crate::server::reload::{Finding, Refusal, Reloading, Reloads, Report, Source};

/// Reads the configuration anew, from where it was read at the start.
#[derive(Clone)]
pub struct Load(Arc<dyn Fn() -> Result<Config, ConfigErrors> + Send + Sync>);

impl Load {
    /// Reads it by this function, which may block.
    pub fn new(load: impl Fn() -> Result<Config, ConfigErrors> + Send + Sync + 'static) -> Self {
        Self(Arc::new(load))
    }
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Load")
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Reloader {
    notifier: Notifier,
    estate: Estate,
    load: Load,
    fingerprints: Arc<Fingerprints>,
    files: Files,
    on_change: Option<Duration>,
    hangup: Signal,
    requests: mpsc::Receiver<oneshot::Sender<Report>>,
    known: watch::Sender<Reloads>,
    metrics: Arc<Metrics>,
    draining: Draining,
}

/// What reloads are made with.
#[derive(Debug)]
pub(super) struct Means {
    pub(super) notifier: Notifier,
    pub(super) load: Load,
    pub(super) fingerprints: Arc<Fingerprints>,
    pub(super) files: Files,
    pub(super) on_change: Option<Duration>,
    pub(super) hangup: Signal,
    pub(super) metrics: Arc<Metrics>,
    pub(super) draining: Draining,
}

impl Reloader {
    /// Of what is in force; and the way to ask for reloads.
    pub(super) fn new(estate: Estate, means: Means) -> (Self, Reloading) {
        let Means { notifier, load, fingerprints, files, on_change, hangup, metrics, draining } =
            means;
        let (sender, requests) = mpsc::channel(1);
        let known = watch::Sender::default();
        let reloading = Reloading { requests: sender, known: known.subscribe() };
        let reloader = Self {
            notifier,
            estate,
            load,
            fingerprints,
            files,
            on_change,
            hangup,
            requests,
            known,
            metrics,
            draining,
        };
        (reloader, reloading)
    }

    /// Reloads for as long as this is awaited. It ends only if something else has ended that must not.
    pub(super) async fn run(mut self) {
        loop {
            let look = self.on_change.map(|interval| Instant::now() + interval);
            tokio::select! {
                _ = self.hangup.recv() => drop(self.reload(Source::Signal).await),
                Some(reply) = self.requests.recv() => {
                    // Not answered: the daemon leaves.
                    if self.draining.phase() != Phase::Closing {
                        let report = self.reload(Source::Control).await;
                        // Whoever asked may have gone.
                        let _ = reply.send(report);
                    }
                }
                () = until(look) => {
                    if self.files.have_changed().await {
                        self.reload(Source::Files).await;
                    }
                }
                Some(ended) = self.estate.keepers.join_next() => {
                    if !is_meant(&ended) {
                        tracing::error!(?ended, "the keeper of a group of tokens has ended");
                        return;
                    }
                }
                Some(_ended) = self.estate.retiring.join_next() => self.estate.settle(),
            }
        }
    }

    /// Reloads, and has the service manager know.
    async fn reload(&mut self, source: Source) -> Report {
        self.notifier.reloading("reloading the configuration").await;
        let report = self.replace(source).await;
        let says = status::text(self.draining.phase(), &self.estate.shown.serving);
        self.notifier.ready(&says).await;
        report
    }

    async fn replace(&mut self, source: Source) -> Report {
        tracing::info!(source = source.name(), "reloading the configuration");
        let outcome = match self.read().await {
            Ok(loaded) => {
                let on_change = loaded.config.reload_on_change;
                let outcome = self.estate.replace(loaded, source).await;
                if outcome.is_ok() {
                    self.on_change = on_change;
                }
                outcome
            }
            Err(refused) => Err(refused),
        };
        let at = SystemTime::now();
        let report = match outcome {
            Ok(changes) => {
                let warnings = self.estate.warnings.clone();
                Report { source, at, refusal: None, faults: Vec::new(), warnings, changes }
            }
            Err(Refused { refusal, faults }) => {
                let (warnings, changes) = Default::default();
                Report { source, at, refusal: Some(refusal), faults, warnings, changes }
            }
        };
        self.publish(&report);
        report
    }

    /// Reads the configuration and all that it names, without touching what is in force.
    async fn read(&mut self) -> Result<Loaded, Refused> {
        self.files.before_reading().await;
        let (load, fingerprints) = (self.load.clone(), self.fingerprints.clone());
        let read = move || {
            let config = (load.0)()?;
            let transport = Transport::load(&config.server.transport, &fingerprints);
            Ok::<_, ConfigErrors>((config, transport))
        };
        let read = tokio::task::spawn_blocking(read).await;
        let wrong = |faults| Refused { refusal: Refusal::Configuration, faults };
        let (config, transport) = match read {
            Ok(Ok(read)) => read,
            Ok(Err(errors)) => {
                self.files.after_reading(errors.files.clone());
                return Err(wrong(findings(&errors)));
            }
            Err(panic) => {
                tracing::error!(%panic, "reading the configuration panicked: please report it");
                let problem = "reading it met a defect of xksd".to_owned();
                return Err(wrong(vec![Finding { problem, hint: None }]));
            }
        };
        self.files.after_reading(config.files.clone());
        // It was good a moment ago: a file is being replaced.
        let transport = transport.map_err(|error| {
            let hint = Some("has a file been replaced meanwhile?".to_owned());
            wrong(vec![Finding { problem: format!("server.tls: {error}"), hint }])
        })?;
        Ok(Loaded { config, transport })
    }

    fn publish(&self, report: &Report) {
        let restart_pending = self.estate.restart_pending.clone();
        if report.refusal.is_none() {
            self.metrics.reloaded();
            for warning in &report.warnings {
                tracing::warn!(warning, "the configuration could be safer");
            }
            for setting in &restart_pending {
                tracing::warn!(setting, "this setting counts once xksd is started anew");
            }
            let changes = report.changes.join("; ");
            tracing::info!(changes, "the configuration was reloaded");
        } else {
            self.metrics.reload_refused();
            for Finding { problem, hint } in &report.faults {
                tracing::error!(problem, hint, "the configuration is refused");
            }
            tracing::error!("nothing was reloaded: what was served before is served on");
        }
        self.known.send_replace(Reloads { last: Some(report.clone()), restart_pending });
    }
}

fn findings(errors: &ConfigErrors) -> Vec<Finding> {
    let faults = errors.faults.iter();
    faults.map(|f| Finding { problem: f.to_string(), hint: f.hint.clone() }).collect()
}

/// Whether a task was ended by us.
fn is_meant(ended: &Result<(), JoinError>) -> bool {
    ended.as_ref().is_err_and(JoinError::is_cancelled)
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
