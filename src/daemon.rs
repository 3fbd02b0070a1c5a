//! The daemon: puts the parts together, serves until told to leave, and leaves in order.

mod candidates;
mod changes;
mod estate;
mod files;
mod fixed;
mod groups;
mod origin;
mod plan;
mod reload;
mod tokens;
mod transport;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::config::{Config, Ops, Server};
use crate::hsm::pkcs11::exit_now;
use crate::metrics::Metrics;
use crate::secret::Fingerprints;
use crate::server::connections::Connections;
use crate::server::control::{self, Control, ControlError};
use crate::server::drain::{Drain, Phase};
use crate::server::http::Xks;
use crate::server::listener::{self, Acceptor, BindError, Serve};
use crate::server::ops_listener::{self, Reach};
use crate::server::pipeline::Pipeline;
use crate::server::terms::CurrentTerms;
use crate::sigv4::Verifier;
use crate::telemetry::Level;
use crate::tls::TlsError;
use estate::{Estate, House, Leaving, Loaded, Shown};
use files::Files;
pub use reload::Load;
use reload::{Means, Reloader};
use tokens::Tokens;
pub(crate) use tokens::is_for_modules;
use transport::Transport;

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
    /// An address can't be listened on.
    #[error("{0}")]
    Bind(#[from] BindError),
    /// The control socket can't be had.
    #[error("{0}")]
    Control(#[from] ControlError),
    /// TLS can't be set up.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// Key stores that can't stand side by side; the configuration check names all of them.
    #[error("{0}")]
    Keystores(#[from] crate::keystore::Clash),
}

/// Serves until SIGTERM or SIGINT. Does not return after a successful start: it leaves through
/// `_exit`, since a thread may be inside the HSM library to the end.
///
/// `load` reads the configuration anew, and `level` changes what is logged, when it is reloaded.
pub fn serve(config: Config, load: Load, level: Level) -> Result<ExitCode, StartError> {
    hide_memory();
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let status = runtime.block_on(async { Daemon::start(config, load, level)?.run().await })?;
    exit_now(status)
}

/// Nothing of our memory is readable through a core dump or a debugger of the same user.
pub(crate) fn hide_memory() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "cannot turn core dumps off");
    }
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "cannot limit core dumps to nothing");
    }
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
    tokens: Arc<Tokens>,
    drain: Drain,
    /// Never advanced, only kept: health checks are answered to the very end.
    _ops_drain: Drain,
    leaving: watch::Sender<Leaving>,
    connections: Arc<Connections>,
    /// Tasks that live as long as the daemon. If one ends by itself, so does the daemon.
    tasks: JoinSet<()>,
    ops_tasks: JoinSet<()>,
    signals: Signals,
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
    fn start(config: Config, load: Load, level: Level) -> Result<Self, StartError> {
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
        let sockets = bind_all(&config.server, &config.ops)?;
        let control = config.ops.control_socket.as_deref().map(control::bind).transpose()?;
        warn_about_descriptors(config.server.limits.max_connections);
        let files = Files::new(fingerprints.clone(), config.files.clone());
        let on_change = config.reload_on_change;
        let house = House {
            metrics: metrics.clone(),
            tokens: tokens.clone(),
            fingerprints: fingerprints.clone(),
            level,
        };
        let estate = Estate::first(house, Loaded { config, transport })?;
        let Shown { serving, terms, ops_terms, leaving, connections } = estate.shown.clone();
        let means = Means {
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
        let pipeline =
            Pipeline::new(serving.clone(), Verifier::new(Clock::System), metrics.clone());
        let xks = Acceptor {
            terms: terms.subscribe(),
            connections: connections.clone(),
            service: Xks { pipeline: Arc::new(pipeline), metrics: metrics.clone() },
            metrics: Some(metrics.clone()),
            draining: drain.watch(),
        };
        for socket in sockets.xks {
            announce(&socket, "serving XKS");
            tasks.spawn(xks.clone().run(socket));
        }
        if let Some(listener) = control {
            let started = (Instant::now(), SystemTime::now());
            let (serving, connections) = (serving.clone(), connections.clone());
            let draining = drain.watch();
            let answers = Control { serving, connections, draining, started, reloading };
            tasks.spawn(answers.run(listener));
        }
        tasks.spawn(reloader.run());
        let ops_drain = Drain::default();
        let mut ops_tasks = JoinSet::new();
        for (socket, reach) in sockets.ops {
            announce(&socket, "serving health checks and metrics");
            let service =
                ops_listener::Ops::new(reach, serving.clone(), metrics.clone(), drain.watch());
            ops_tasks.spawn(ops_acceptor(service, ops_terms.subscribe(), &ops_drain).run(socket));
        }
        Ok(Self {
            _ops_drain: ops_drain,
            tokens,
            drain,
            leaving,
            connections,
            tasks,
            ops_tasks,
            signals,
        })
    }

    /// Serves until a signal, or until a part ends that must not; gives the exit status.
    async fn run(mut self) -> Result<i32, StartError> {
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
        if status == EXIT_OK {
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                signal = self.signals.any() => {
                    tracing::info!(signal, "told a second time: not waiting any longer");
                }
            }
        }
        self.drain.advance(Phase::Closing);
        let open = self.connections.count();
        tracing::info!(open, "closing: answering what was asked");
        if tokio::time::timeout(timeout, self.connections.closed()).await.is_err() {
            tracing::warn!(open = self.connections.count(), "connections did not end in time");
        }
        self.stop_tokens().await;
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

fn bind_all(server: &Server, ops: &Ops) -> Result<Sockets, BindError> {
    let xks = server.listen.iter().copied().map(listener::bind).collect::<Result<_, _>>()?;
    let ops = match ops.metrics_listen {
        None => vec![(listener::bind(ops.listen)?, Reach::All)],
        Some(metrics) => vec![
            (listener::bind(ops.listen)?, Reach::Health),
            (listener::bind(metrics)?, Reach::Metrics),
        ],
    };
    Ok(Sockets { xks, ops })
}

fn announce(socket: &TcpListener, what: &'static str) {
    let address = socket.local_addr().map(|address| address.to_string()).unwrap_or_default();
    tracing::info!(address, "{what}");
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
