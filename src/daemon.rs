//! The daemon: puts the parts together, serves until told to leave, and leaves in order.

mod audit;
mod candidates;
mod changes;
mod counts;
mod estate;
mod files;
pub(crate) mod fixed;
mod groups;
mod memory;
pub mod notify;
mod origin;
mod passed;
mod plan;
mod reload;
mod rotation;
mod status;
mod tokens;
mod transport;
mod watchdog;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::config::{Config, Ops, Server};
use crate::counts::Counts;
use crate::counts::store::StoreError;
use crate::hsm::pkcs11::exit_now;
use crate::metrics::Metrics;
use crate::secret::Fingerprints;
use crate::server::audited::Auditor;
use crate::server::connections::Connections;
use crate::server::control::{self, Control, ControlError};
use crate::server::drain::{Drain, Phase};
use crate::server::http::Xks;
use crate::server::listener::{self, Acceptor, Serve};
use crate::server::ops_listener::{self, Reach};
use crate::server::pipeline::Pipeline;
use crate::server::pulse::pulse;
use crate::server::serving::Serving;
use crate::server::terms::CurrentTerms;
use crate::sigv4::Verifier;
use crate::telemetry::Level;
use crate::tls::TlsError;
use crate::traces::exporter::Flush;
use crate::traces::{self, Traces};
use audit::Audit;
use estate::{Estate, House, Leaving, Loaded, Shown};
use files::Files;
pub(crate) use memory::{hide_memory, lock_memory};
use notify::{NOTIFY_SOCKET, Notifier};
use passed::Passed;
pub use passed::PassedError;
pub use reload::Load;
use reload::{Means, Reloader};
use rotation::Rotator;
use tokens::Tokens;
pub(crate) use tokens::is_for_modules;
use transport::Transport;

/// What the service manager is asked for beyond the limits that are known, when the daemon leaves.
const MARGIN: Duration = Duration::from_secs(5);

/// How long the last traces may take to be sent.
const TRACES_PATIENCE: Duration = Duration::from_secs(2);

/// How long the encryption counts may take to be written at the end.
const COUNTS_PATIENCE: Duration = Duration::from_secs(2);

/// Connections of the operations listeners: a load balancer, Prometheus, and room to spare.
const OPS_CONNECTIONS: usize = 256;

/// Exit status after an orderly end.
const EXIT_OK: i32 = 0;

/// Exit status when a part of the daemon ended that must not (sysexits.h, EX_SOFTWARE).
const EXIT_SOFTWARE: i32 = 70;

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No runtime, or no signal handlers.
    #[error("the operating system refused: {0}")]
    System(#[from] std::io::Error),
    /// An address can't be listened on, by a socket of ours or of the service manager's.
    #[error("{0}")]
    Listen(#[from] PassedError),
    /// The control socket can't be had.
    #[error("{0}")]
    Control(#[from] ControlError),
    /// TLS can't be set up.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// The audit log can't be written.
    #[error("{0}")]
    Audit(#[from] crate::audit::store::StoreError),
    /// Key stores that can't stand side by side; the configuration check names all of them.
    #[error("{0}")]
    Keystores(#[from] crate::keystore::Clash),
    /// The state directory can't be had.
    #[error("{0}")]
    State(#[from] StoreError),
}

/// Serves until SIGTERM or SIGINT. Does not return after a successful start: it leaves through
/// `_exit`, since a thread may be inside the HSM library to the end.
///
/// `load` reads the configuration anew, and `level` changes what is logged, when it is reloaded.
pub fn serve(config: Config, load: Load, level: Level) -> Result<ExitCode, StartError> {
    hide_memory();
    if let Err(error) = lock_memory() {
        let hint = "it takes LimitMEMLOCK=infinity in the unit, or CAP_IPC_LOCK in a container";
        tracing::warn!(%error, hint, "cannot lock memory: secrets may be written to swap");
    }
    raise_descriptor_limit();
    // While there are no threads.
    let passed = Passed::take()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let start = || Daemon::start(config, load, level, passed);
    let status = runtime.block_on(async { start()?.run().await })?;
    exit_now(status)
}

/// There are descriptors for every connection.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let files = getrlimit(Resource::Nofile);
    let most = Rlimit { current: files.maximum, maximum: files.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

struct Daemon {
    audit: Option<Audit>,
    serving: Arc<Serving>,
    tokens: Arc<Tokens>,
    drain: Drain,
    /// Never advanced, only kept: health checks are answered to the very end.
    _ops_drain: Drain,
    leaving: watch::Sender<Leaving>,
    connections: Arc<Connections>,
    counts: Option<Arc<Counts>>,
    /// Tasks that live as long as the daemon. If one ends by itself, so does the daemon.
    tasks: JoinSet<()>,
    ops_tasks: JoinSet<()>,
    /// Has the last traces sent, if there are any.
    traces: Option<Flush>,
    signals: Signals,
    notifier: Notifier,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    async fn any(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

impl Daemon {
    fn start(config: Config, load: Load, level: Level, passed: Passed) -> Result<Self, StartError> {
        let signals = Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
        let hangup = signal(SignalKind::hangup())?;
        let metrics = Arc::new(Metrics::new());
        let tokens = Arc::new(Tokens::new(metrics.clone()));
        let fingerprints = Arc::<Fingerprints>::default();
        let drain = Drain::default();
        // Addresses and certificates first: what is wrong with them is said before any HSM is
        // touched.
        let transport = Transport::load(&config.server.transport, &fingerprints)?;
        if matches!(transport.ready, listener::Transport::Plain) {
            tracing::warn!("INSECURE: plain HTTP on loopback, as the configuration asks");
        }
        let sockets = bind_all(&config.server, &config.ops, passed)?;
        let control = config.ops.control_socket.as_deref().map(control::bind).transpose()?;
        warn_about_descriptors(config.server.limits.max_connections);
        let audit = config.audit.clone().map(|audit| Audit::start(audit, &metrics)).transpose()?;
        let files = Files::new(fingerprints.clone(), config.files.clone());
        let (on_change, traces) = (config.reload_on_change, config.traces.clone());
        let file = config.file.clone();
        let house = House {
            metrics: metrics.clone(),
            tokens: tokens.clone(),
            fingerprints: fingerprints.clone(),
            level,
        };
        let estate = Estate::first(house, Loaded { config, transport })?;
        let Shown { serving, terms, ops_terms, leaving, connections, running } =
            estate.shown.clone();
        let counts = estate.counts.clone();
        let notifier = notifier();
        let means = Means {
            notifier: notifier.clone(),
            load,
            fingerprints,
            files,
            on_change,
            hangup,
            metrics: metrics.clone(),
            draining: drain.watch(),
        };
        let (reloader, reloading) = Reloader::new(estate, means);
        let mut tasks = JoinSet::new();
        if let Some(counts) = &counts {
            tasks.spawn(counts.clone().keep());
        }
        let audit = audit.map(|audit| audit.spawn(&running, &mut tasks));
        let log = audit.as_ref().map(|audit| audit.log().clone());
        let (traces, flush) = start_traces(traces, &metrics, &mut tasks);
        let pipeline =
            Pipeline::new(serving.clone(), Verifier::new(Clock::System), metrics.clone())
                .audited_by(Auditor::new(log.clone()))
                .with_traces(traces);
        let xks = Acceptor {
            terms: terms.subscribe(),
            connections: connections.clone(),
            service: Xks { pipeline: Arc::new(pipeline), metrics: metrics.clone() },
            metrics: Some(metrics.clone()),
            draining: drain.watch(),
        };
        let mut loops = Vec::new();
        for socket in sockets.xks {
            announce(&socket, "serving XKS");
            let (pulse, monitor) = pulse();
            loops.push(monitor);
            tasks.spawn(xks.clone().run(socket, pulse));
        }
        let (served, counted) = (serving.clone(), metrics.clone());
        tasks.spawn(Rotator::new(served, counted, file, drain.watch()).run());
        if let Some(listener) = control {
            let started = (Instant::now(), SystemTime::now());
            let (serving, connections) = (serving.clone(), connections.clone());
            let draining = drain.watch();
            let metrics = metrics.clone();
            let answers = Control { serving, connections, draining, started, reloading, metrics };
            tasks.spawn(answers.run(listener));
        }
        tasks.spawn(reloader.run());
        let ops_drain = Drain::default();
        let mut ops_tasks = JoinSet::new();
        for (socket, reach) in sockets.ops {
            announce(&socket, "serving health checks and metrics");
            let shown = (serving.clone(), metrics.clone(), log.clone());
            let service = ops_listener::Ops::new(reach, shown, drain.watch());
            let (pulse, monitor) = pulse();
            loops.push(monitor);
            let acceptor = ops_acceptor(service, ops_terms.subscribe(), &ops_drain);
            ops_tasks.spawn(acceptor.run(socket, pulse));
        }
        let variable = |name| std::env::var(name).ok();
        let (usec, pid) = (variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"));
        if let Some(due) = watchdog::due(usec.as_deref(), pid.as_deref()) {
            tasks.spawn(watchdog::watch(notifier.clone(), due, loops));
        }
        Ok(Self {
            _ops_drain: ops_drain,
            audit,
            serving,
            tokens,
            drain,
            leaving,
            connections,
            counts,
            tasks,
            ops_tasks,
            traces: flush,
            signals,
            notifier,
        })
    }

    /// Serves until a signal, or until a part ends that must not; gives the exit status.
    async fn run(mut self) -> Result<i32, StartError> {
        // Whatever its tokens do: it answers for them from now on, and health checks tell.
        self.notifier.ready(&status::text(Phase::Serving, &self.serving)).await;
        if self.notifier.is_heard() {
            let (notifier, serving) = (self.notifier.clone(), self.serving.clone());
            self.tasks.spawn(status::keep(notifier, serving, self.drain.watch()));
        }
        let status = tokio::select! {
            signal = self.signals.any() => {
                let delay = self.leaving.borrow().delay;
                tracing::info!(signal, ?delay, "leaving: serving on until load balancers notice");
                EXIT_OK
            }
            Some(ended) = self.tasks.join_next() => {
                tracing::error!(?ended, "a part that must not end has ended: leaving");
                EXIT_SOFTWARE
            }
            Some(ended) = self.ops_tasks.join_next() => {
                tracing::error!(?ended, "an operations listener has ended: leaving");
                EXIT_SOFTWARE
            }
        };
        self.drain.advance(Phase::Leaving);
        let Leaving { delay, timeout } = *self.leaving.borrow();
        let says = status::text(Phase::Leaving, &self.serving);
        self.notifier.stopping(&says, delay + MARGIN).await;
        if status == EXIT_OK {
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                signal = self.signals.any() => {
                    tracing::info!(signal, "told a second time: not waiting any longer");
                }
            }
        }
        self.drain.advance(Phase::Closing);
        let says = status::text(Phase::Closing, &self.serving);
        let of_audit = self.audit.as_ref().map_or(Duration::ZERO, |_| audit::PATIENCE);
        let within = timeout + of_audit + self.tokens.patience() + MARGIN;
        self.notifier.still_stopping(&says, within).await;
        let open = self.connections.count();
        tracing::info!(open, "closing: answering what was asked");
        if tokio::time::timeout(timeout, self.connections.closed()).await.is_err() {
            tracing::warn!(open = self.connections.count(), "connections did not end in time");
        }
        if let Some(audit) = &self.audit {
            audit.stop().await;
        }
        let traces = self.traces.take();
        let flush = async {
            if let Some(traces) = traces {
                traces.within(TRACES_PATIENCE).await;
            }
        };
        tokio::join!(self.stop_tokens(), flush);
        if let Some(counts) = self.counts {
            // A disk that does not answer must not keep the process.
            let close = tokio::task::spawn_blocking(move || counts.close());
            let _ = tokio::time::timeout(COUNTS_PATIENCE, close).await;
        }
        tracing::info!(status, "ended");
        Ok(status)
    }

    /// No thread is inside the HSM library when the process leaves, if it can be helped.
    async fn stop_tokens(&self) {
        let tokens = self.tokens.clone();
        let _ = tokio::task::spawn_blocking(move || tokens.stop_all()).await;
    }
}

struct Sockets {
    xks: Vec<TcpListener>,
    ops: Vec<(TcpListener, Reach)>,
}

fn bind_all(server: &Server, ops: &Ops, mut passed: Passed) -> Result<Sockets, PassedError> {
    let xks = passed.listeners(passed::XKS, &server.listen)?;
    let reach = if ops.metrics_listen.is_some() { Reach::Health } else { Reach::All };
    let health = passed.listeners(passed::OPS, &[ops.listen])?;
    let metrics = passed.listeners(passed::METRICS, ops.metrics_listen.as_slice())?;
    let health = health.into_iter().map(|socket| (socket, reach));
    let metrics = metrics.into_iter().map(|socket| (socket, Reach::Metrics));
    Ok(Sockets { xks, ops: health.chain(metrics).collect() })
}

/// The way to the service manager, if it wants to be told.
fn notifier() -> Notifier {
    let address = std::env::var_os(NOTIFY_SOCKET);
    Notifier::connect(address.as_deref()).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot reach the service manager at {NOTIFY_SOCKET}");
        Notifier::default()
    })
}

fn announce(socket: &TcpListener, what: &'static str) {
    let address = socket.local_addr().map(|address| address.to_string()).unwrap_or_default();
    tracing::info!(address, "{what}");
}

/// Traces, the task that sends them and what ends it, if they are wanted.
fn start_traces(
    settings: Option<traces::Settings>,
    metrics: &Arc<Metrics>,
    tasks: &mut JoinSet<()>,
) -> (Option<Traces>, Option<Flush>) {
    let Some(settings) = settings else { return (None, None) };
    let collector = settings.collector.endpoint().base();
    let (traces, exporter, flush) = Traces::new(settings, metrics.clone());
    tasks.spawn(exporter.run());
    tracing::info!(collector, "sending traces");
    (Some(traces), Some(flush))
}

fn ops_acceptor<S: Serve>(service: S, terms: CurrentTerms, drain: &Drain) -> Acceptor<S> {
    Acceptor {
        terms,
        connections: Connections::new(OPS_CONNECTIONS),
        service,
        metrics: None,
        draining: drain.watch(),
    }
}

fn warn_about_descriptors(max_connections: usize) {
    use rustix::process::{Resource, getrlimit};
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // Sessions, logs, listeners and the operations listeners' connections come on top.
    let wanted = max_connections as u64 + OPS_CONNECTIONS as u64 + 128;
    if files < wanted {
        tracing::warn!(files, wanted, "fewer open files are allowed than connections may need");
    }
}
