//! The configuration: what a file and the environment say, as the settings of every component.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use crate::hsm::pkcs11::TokenSelector;
use crate::hsm::token;
use crate::keystore;
use crate::names::TokenName;
use crate::secret::Secret;
use crate::server::listener;
use crate::{telemetry, tls};

/// Everything that can be configured, valid as a whole.
#[derive(Debug)]
pub struct Config {
    /// The XKS listener.
    pub server: Server,
    /// The listener for health checks and metrics.
    pub ops: Ops,
    /// Where logs go and what is in them.
    pub log: telemetry::Settings,
    /// How many proxies serve this endpoint (P-60).
    pub fleet_size: NonZeroU32,
    /// HSM tokens.
    pub tokens: BTreeMap<TokenName, Token>,
    /// Key stores; each names one of the tokens, no two clash.
    pub keystores: Vec<keystore::Settings>,
    /// Variables that PKCS#11 modules read from the process environment.
    pub environment: BTreeMap<String, String>,
    /// What is allowed and should not be: an inline PIN, for one.
    pub warnings: Vec<String>,
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
    /// Time for the body of a request to arrive.
    pub body_timeout: Duration,
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
    /// Sessions, queue, intervals.
    pub settings: token::Settings,
}
