//! `xksd serve`

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;

use super::startup::{Surroundings, configuration, configuration_for_modules};
use super::{ConfigFile, Exit, Failure};
use crate::config::{Config, Isolation, Token};
use crate::counts::store::StoreError;
use crate::daemon::{self, Load, PassedError, StartError};
use crate::names::TokenName;
use crate::telemetry;

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    config: ConfigFile,
}

impl Serve {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let is_inside = |token: &Token| token.isolation == Isolation::Thread;
        let of = |_name: &TokenName, token: &Token| is_inside(token);
        let config = configuration_for_modules(&self.config, Surroundings::Ours, of)?;
        let level =
            telemetry::start(&config.log).map_err(|error| Failure::new(Exit::Config, error))?;
        for warning in &config.warnings {
            tracing::warn!(warning, "the configuration could be safer");
        }
        let addresses = addresses(&config);
        let file = self.config.clone();
        let load = Load::new(move || configuration(&file));
        daemon::serve(config, load, level).map_err(|error| failure(error, &addresses))
    }
}

/// Every address that is listened on, and the key that says so.
fn addresses(config: &Config) -> Vec<(&'static str, SocketAddr)> {
    let xks = config.server.listen.iter().map(|address| ("server.listen", *address));
    let metrics = config.ops.metrics_listen.map(|address| ("ops.metrics_listen", address));
    xks.chain([("ops.listen", config.ops.listen)]).chain(metrics).collect()
}

fn failure(error: StartError, addresses: &[(&'static str, SocketAddr)]) -> Failure {
    match &error {
        StartError::Listen(PassedError::Bind(bind)) => {
            let key = addresses.iter().find(|(_, address)| *address == bind.address);
            let key = key.map_or("listen", |(key, _)| key);
            let failure = Failure::new(Exit::OsError, &error);
            let hint = match bind.cause.kind() {
                ErrorKind::AddrInUse => {
                    "another process listens there, another xksd perhaps, or systemd for a socket unit"
                }
                ErrorKind::AddrNotAvailable => "this machine has no such address",
                ErrorKind::PermissionDenied => {
                    "ports below 1024 take the capability CAP_NET_BIND_SERVICE"
                }
                _ => "the address may be of a kind that this machine does not have",
            };
            failure.hint(hint).hint(format!("the setting is {key}"))
        }
        StartError::Listen(passed) => {
            let hint = match passed {
                PassedError::Disagrees { .. } => {
                    "ListenStream= of the socket unit and the configuration must be the same"
                }
                PassedError::Names { .. } | PassedError::Unknown(_) => {
                    "each socket unit needs FileDescriptorName=xks, ops or metrics"
                }
                PassedError::NotListening { .. } => {
                    "the socket unit needs ListenStream=ADDRESS:PORT and Accept=no"
                }
                PassedError::Bind(_) | PassedError::System(_) => {
                    "start it without the socket unit, and see whether it can listen by itself"
                }
            };
            let failure = Failure::new(Exit::Config, &error).hint(hint);
            failure.hint("docs/systemd.md, \"Socket activation\"")
        }
        StartError::Tls(_) | StartError::Keystores(_) => {
            Failure::new(Exit::Config, &error).hint("`xksd config check` names every fault")
        }
        StartError::Control(_) => {
            let hint = "another process may have it, or its directory be missing or another's";
            Failure::new(Exit::OsError, &error).hint(hint)
        }
        StartError::State(error) => {
            let hint = match error {
                StoreError::InUse(_) => "give each daemon a state.directory of its own",
                StoreError::Later(..) => {
                    "run the release that wrote it; or move the file away, and every version of a key \
                     that exists counts as having used its share"
                }
                _ => {
                    "state.directory names it; `xksd state init` makes it for a new installation, and \
                     the daemon's user must own it"
                }
            };
            Failure::new(Exit::OsError, error).hint(hint)
        }
        StartError::System(_) => Failure::new(Exit::OsError, &error),
    }
}
