//! The configuration: what a file and the environment say, as the settings of every component.
//!
//! [`load`] reads the file and the overrides as one tree of values (`source`), takes it apart
//! section by section (`server`, `traces`, `tokens`, `audit`, `keystores` and its `authorization`) through a
//! `reader` that collects every fault in a `report`, and gives a [`Config`] that is valid as a whole, or all
//! [`ConfigErrors`]. Each key is read at one place, and there its default stands, written as in the file.

mod audit;
mod authorization;
mod command;
mod credentials;
mod fault;
mod keystores;
mod limits;
mod parse;
pub mod policy_files;
mod reader;
mod report;
mod secrets;
mod server;
mod source;
mod tokens;
mod traces;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use command::SecretCommand;
pub use credentials::{CredentialPlace, credentials_directories};
pub use fault::{ConfigErrors, Fault, Origin};
pub use secrets::{CREDENTIALS_DIRECTORY, SecretPlaces, SecretSource};

use reader::{Section, Shape};
use report::{Report, Wrong};

use crate::audit::log;
use crate::client::Endpoint;
use crate::hsm::pkcs11::TokenSelector;
use crate::hsm::profile::Profile;
use crate::hsm::token;
use crate::keystore;
use crate::names::TokenName;
use crate::secret::Secret;
use crate::server::listener;
use crate::{telemetry, tls};

/// A configuration with every key, its meaning and its default.
pub const TEMPLATE: &str = include_str!("template.toml");

/// Everything that can be configured, valid as a whole.
#[derive(Debug)]
pub struct Config {
    /// The file, for commands that are to read the same.
    pub file: PathBuf,
    /// The XKS listener.
    pub server: Server,
    /// The listener for health checks and metrics.
    pub ops: Ops,
    /// Where logs go and what is in them.
    pub log: telemetry::Settings,
    /// The audit log, if there is to be one.
    pub audit: Option<log::Settings>,
    /// Where traces go, if anywhere.
    pub traces: Option<crate::traces::Settings>,
    /// How many proxies serve this endpoint (P-60).
    pub fleet_size: NonZeroU32,
    /// Where KMS finds them, as it was told: for `xksd doctor`.
    pub endpoint: Option<Endpoint>,
    /// Where encryptions are counted; `None`: nowhere.
    pub state_directory: Option<PathBuf>,
    /// HSM tokens.
    pub tokens: BTreeMap<TokenName, Token>,
    /// Key stores; each names one of the tokens, no two clash.
    pub keystores: Vec<keystore::Settings>,
    /// Where their credentials are kept.
    pub credentials: Vec<CredentialPlace>,
    /// Where its secrets are kept, the private key of TLS among them.
    pub secret_places: SecretPlaces,
    /// What is allowed and should not be: an inline PIN, for one.
    pub warnings: Vec<String>,
    /// Every file that was read: the configuration itself, secrets, certificates, policies. What was
    /// named with a `*` is in it like that, for [`policy_files::find`].
    pub files: BTreeSet<PathBuf>,
    /// How often it is looked whether these have changed, to reload by itself; `None`: never.
    pub reload_on_change: Option<Duration>,
}

/// The XKS listener.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// What runs over TCP.
    pub transport: Transport,
    /// How connections are treated.
    pub limits: listener::Limits,
    /// Time for a request, from its head (P-8).
    pub deadline: Duration,
    /// How long `/readyz` says no before connections are closed.
    pub drain_delay: Duration,
    /// How long connections may take to end then.
    pub drain_timeout: Duration,
}

/// What runs over TCP.
#[derive(Debug)]
pub enum Transport {
    /// TLS.
    Tls(tls::Settings),
    /// Plain HTTP: asked for in so many words, and only on loopback.
    PlainOnLoopback,
}

/// The listener for health checks and metrics.
#[derive(Debug)]
pub struct Ops {
    /// `/livez` and `/readyz`, and `/metrics` unless that has an address of its own.
    pub listen: SocketAddr,
    /// `/metrics`, if it is to be elsewhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Where an administrator of the machine may ask the daemon.
    pub control_socket: Option<PathBuf>,
}

/// One HSM token.
#[derive(Debug)]
pub struct Token {
    /// The PKCS#11 module.
    pub module: PathBuf,
    /// How it is told from others of the module.
    pub selector: TokenSelector,
    /// The user PIN.
    pub pin: Secret<String>,
    /// What kind of module it is; `None`: that is recognised.
    pub profile: Option<&'static Profile>,
    /// What the module's C_Initialize is given in its reserved argument.
    pub initialization: Option<CString>,
    /// Where it was found.
    pub pin_source: SecretSource,
    /// Where the module runs.
    pub isolation: Isolation,
    /// How long a call may take before the process that makes it is killed.
    pub call_limit: Duration,
    /// Variables that the module reads.
    pub environment: BTreeMap<String, String>,
    /// Sessions, queue, intervals.
    pub settings: token::Settings,
}

/// Where a PKCS#11 module runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// In a process of its own.
    Process,
    /// On threads of the daemon.
    Thread,
}

/// Reads the file, with the overrides of the environment put in; no other part of the process is
/// looked at or changed.
///
/// # Errors
/// Every fault at once.
pub fn load(
    path: &Path,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Config, ConfigErrors> {
    let environment = environment.collect();
    let tree = source::read(path, &environment)?;
    let report = Report::new(path, tree.variables, environment);
    let config = read(&report, tree.values);
    let (faults, warnings, files) = report.into_parts();
    match config {
        Some(config) if faults.is_empty() => Ok(Config { warnings, files, ..config }),
        _ => {
            assert!(!faults.is_empty(), "what can't be read has left a fault");
            Err(ConfigErrors { faults, warnings, files })
        }
    }
}

/// Where health checks are answered, whatever else is wrong with the configuration: no other key is
/// looked at, and no secret is read.
///
/// # Errors
/// If it can't be read, is no TOML, or has a fault there.
pub fn ops_address(
    path: &Path,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<SocketAddr, ConfigErrors> {
    let environment = environment.collect();
    let tree = source::read(path, &environment)?;
    let report = Report::new(path, tree.variables, environment);
    let ops = tree.values.into_iter().filter(|(key, _)| key == "ops").collect();
    let ops = server::ops(&mut Section::root(&report, ops));
    let (faults, warnings, files) = report.into_parts();
    ops.map(|ops| ops.listen).ok_or(ConfigErrors { faults, warnings, files })
}

fn read(report: &Report, values: BTreeMap<String, config::Value>) -> Option<Config> {
    let mut root = Section::root(report, values);
    let version = root.required("version", Shape::Number, |text| match text {
        "1" => Ok(()),
        _ => Err(Wrong::from("must be 1, the only version of this format")),
    });
    let server = server::server(&mut root);
    let ops = server::ops(&mut root);
    server::check_addresses(&root, server.as_ref(), ops.as_ref());
    let log = server::log(&mut root);
    let traces = traces::traces(&mut root);
    let fleet = server::fleet(&mut root);
    let reload_on_change = server::reload(&mut root);
    let state_directory = limits::state_directory(&mut root);
    let tokens = tokens::tokens(&mut root);
    let audit = audit::audit(&mut root, &tokens.names);
    // One that is at fault is not missing as well.
    let has_state = state_directory.as_ref().is_none_or(Option::is_some);
    let keystores = keystores::keystores(&mut root, &tokens.names, has_state);
    version?;
    let (fleet_size, endpoint) = fleet?;
    Some(Config {
        file: report.configuration_file(),
        server: server?,
        ops: ops?,
        log: log?,
        audit: audit?,
        traces: traces?,
        fleet_size,
        endpoint,
        state_directory: state_directory?,
        tokens: tokens.tokens,
        keystores,
        credentials: report.credentials.take(),
        secret_places: report.secret_places.take(),
        warnings: Vec::new(),
        files: BTreeSet::new(),
        reload_on_change: reload_on_change?,
    })
}
