//! The daemon: puts the parts together, serves until told to leave, and leaves in order.

mod audit;
mod tokens;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::config::{Config, Ops, Server, Transport};
use crate::hsm::pkcs11::exit_now;
use crate::hsm::process::ProcessBackend;
use crate::hsm::token::Token;
use crate::keystore::{Keystore, Keystores};
use crate::metrics::Metrics;
use crate::server::audited::Auditor;
use crate::server::connections::Connections;
use crate::server::control::{self, Control, ControlError};
use crate::server::drain::{Drain, Phase};
use crate::server::http::Xks;
use crate::server::listener::{self, Acceptor, BindError, Serve};
use crate::server::ops_listener::{self, Reach};
use crate::server::pipeline::{Pipeline, Snapshot};
use crate::sigv4::Verifier;
use crate::tls::{self, Tls, TlsError};
use crate::wire::limits::Limits;
use audit::Audit;
use tokens::Tokens;
pub(crate) use tokens::is_for_modules;

/// How long the threads of the tokens may take to leave the HSM library.
const TOKENS_PATIENCE: Duration = Duration::from_secs(5);

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
    /// The audit log can't be written.
    #[error("{0}")]
    Audit(#[from] crate::audit::store::StoreError),
    /// Key stores that can't stand side by side; the configuration check names all of them.
    #[error("{0}")]
    Keystores(#[from] crate::keystore::Clash),
}

/// Serves until SIGTERM or SIGINT. Does not return after a successful start: it leaves through
/// `_exit`, since a thread may be inside the HSM library to the end.
pub fn serve(config: Config) -> Result<ExitCode, StartError> {
    hide_memory();
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let status = runtime.block_on(async { Daemon::start(config)?.run().await })?;
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
    audit: Option<Audit>,
    tokens: Vec<Arc<Token>>,
    /// Those whose libraries run in processes of their own.
    children: Vec<Arc<ProcessBackend>>,
    drain: Drain,
    /// Never advanced, only kept: health checks are answered to the very end.
    _ops_drain: Drain,
    drain_delay: Duration,
    drain_timeout: Duration,
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
    fn start(config: Config) -> Result<Self, StartError> {
        let Config { server, ops, log, audit, fleet_size, tokens, keystores, .. } = config;
        let secret_places = config.secret_places;
        let signals = Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
        let metrics = Arc::new(Metrics::new());
        let drain = Drain::default();
        // Addresses and certificates first: what is wrong with them is said before any HSM is
        // touched.
        let transport = transport(&server.transport, &metrics)?;
        let sockets = bind_all(&server, &ops)?;
        let control = ops.control_socket.as_deref().map(control::bind).transpose()?;
        let mut audit = audit.map(|audit| Audit::start(audit, &metrics)).transpose()?;
        let keystores = keystores.into_iter().map(Keystore::new).collect();
        let keystores = Keystores::new(keystores).map_err(|mut clashes| clashes.remove(0))?;
        let Tokens { tokens, children } = Tokens::start(tokens, &log, &secret_places, &metrics);
        let mut tasks = JoinSet::new();
        let groups = tokens::groups(&tokens, &keystores, &mut tasks);
        let snapshot = Arc::new(Snapshot {
            keystores,
            groups,
            fleet_size,
            limits: Limits::default(),
            deadline: server.deadline,
        });
        let connections = Connections::new(server.limits.max_connections);
        warn_about_descriptors(server.limits.max_connections);
        let log = audit.as_ref().map(|audit| audit.log().clone());
        let auditor = Auditor::new(log.clone(), client_subject(&server.transport));
        if let Some(audit) = &mut audit {
            audit.spawn(&tokens, &mut tasks);
        }
        let pipeline =
            Pipeline::new(snapshot.clone(), Verifier::new(Clock::System), metrics.clone())
                .audited_by(auditor);
        let xks = Acceptor {
            transport,
            limits: Arc::new(server.limits.clone()),
            connections: connections.clone(),
            service: Xks {
                pipeline: Arc::new(pipeline),
                metrics: metrics.clone(),
                body_timeout: server.body_timeout,
            },
            metrics: Some(metrics.clone()),
            draining: drain.watch(),
        };
        for socket in sockets.xks {
            announce(&socket, "serving XKS");
            tasks.spawn(xks.clone().run(socket));
        }
        if let Some(listener) = control {
            let started = (Instant::now(), SystemTime::now());
            let (snapshot, connections) = (snapshot.clone(), connections.clone());
            let answers = Control { snapshot, connections, draining: drain.watch(), started };
            tasks.spawn(answers.run(listener));
        }
        let ops_drain = Drain::default();
        let mut ops_tasks = JoinSet::new();
        for (socket, reach) in sockets.ops {
            announce(&socket, "serving health checks and metrics");
            let shown = (snapshot.clone(), metrics.clone(), log.clone());
            let service = ops_listener::Ops::new(reach, shown, drain.watch());
            ops_tasks.spawn(ops_acceptor(service, &server.limits, &ops_drain).run(socket));
        }
        let (drain_delay, drain_timeout) = (server.drain_delay, server.drain_timeout);
        Ok(Self {
            _ops_drain: ops_drain,
            audit,
            tokens: tokens.into_values().collect(),
            children,
            drain,
            drain_delay,
            drain_timeout,
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
                let delay = self.drain_delay;
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
        if status == EXIT_OK {
            tokio::select! {
                () = tokio::time::sleep(self.drain_delay) => {}
                signal = self.signals.any() => {
                    tracing::info!(signal, "told a second time: not waiting any longer");
                }
            }
        }
        self.drain.advance(Phase::Closing);
        let open = self.connections.count();
        tracing::info!(open, "closing: answering what was asked");
        if tokio::time::timeout(self.drain_timeout, self.connections.closed()).await.is_err() {
            tracing::warn!(open = self.connections.count(), "connections did not end in time");
        }
        if let Some(audit) = &self.audit {
            audit.stop().await;
        }
        self.stop_tokens().await;
        tracing::info!(status, "ended");
        Ok(status)
    }

    /// No thread is inside the HSM library when the process leaves, if it can be helped.
    async fn stop_tokens(&self) {
        let tokens = self.tokens.clone();
        let children = self.children.clone();
        let stop = move || {
            for token in tokens {
                if !token.stop(TOKENS_PATIENCE) {
                    let token = token.name().as_str();
                    tracing::warn!(token, "a call into the HSM library has not returned");
                }
            }
            for child in children {
                if !child.end() {
                    tracing::warn!("a process of an HSM library does not end");
                }
            }
        };
        let _ = tokio::task::spawn_blocking(stop).await;
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

fn transport(transport: &Transport, metrics: &Metrics) -> Result<listener::Transport, TlsError> {
    match transport {
        Transport::Tls(settings) => {
            let Tls { config, not_after } = tls::load(settings)?;
            let expires = not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
            metrics.certificate_expires(expires.as_secs_f64());
            Ok(listener::Transport::Tls(config))
        }
        Transport::PlainOnLoopback => {
            tracing::warn!("INSECURE: plain HTTP on loopback, as the configuration asks");
            Ok(listener::Transport::Plain)
        }
    }
}

/// The subject without which TLS accepts no client, for audit records.
fn client_subject(transport: &Transport) -> Option<String> {
    match transport {
        Transport::Tls(tls::Settings {
            client_auth: tls::ClientAuth::Required { subject, .. },
            ..
        }) => Some(subject.to_string()),
        _ => None,
    }
}

fn ops_acceptor<S: Serve>(service: S, limits: &listener::Limits, drain: &Drain) -> Acceptor<S> {
    Acceptor {
        transport: listener::Transport::Plain,
        limits: Arc::new(listener::Limits { proxy_protocol_from: Vec::new(), ..limits.clone() }),
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
