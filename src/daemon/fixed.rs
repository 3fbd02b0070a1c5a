//! What is as it was at the start for as long as the process lives.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::audit::log;
use crate::config::{Config, Transport};
use crate::telemetry::Format;
use crate::traces::sampler::Ratio;

/// The keys of these settings, and sections of which all are.
pub(crate) const KEYS: [&str; 9] = [
    "server.listen",
    "server.insecure_plain_http_on_loopback",
    "ops.listen",
    "ops.metrics_listen",
    "ops.control_socket",
    "log.format",
    "state.directory",
    "traces",
    "audit",
];

/// Settings that are used once, when the daemon starts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fixed {
    listen: Vec<SocketAddr>,
    is_tls: bool,
    ops_listen: SocketAddr,
    metrics_listen: Option<SocketAddr>,
    control_socket: Option<PathBuf>,
    log_format: Format,
    state_directory: Option<PathBuf>,
    /// Where traces go, and of how many requests.
    traces: Option<(String, Ratio)>,
    audit: Option<log::Settings>,
}

impl Fixed {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            listen: config.server.listen.clone(),
            is_tls: matches!(config.server.transport, Transport::Tls(_)),
            ops_listen: config.ops.listen,
            metrics_listen: config.ops.metrics_listen,
            control_socket: config.ops.control_socket.clone(),
            log_format: config.log.format,
            state_directory: config.state_directory.clone(),
            traces: config
                .traces
                .as_ref()
                .map(|traces| (traces.collector.endpoint().base(), traces.ratio)),
            audit: config.audit.clone(),
        }
    }

    /// The keys in which a configuration differs from this.
    pub(super) fn differences(&self, config: &Config) -> Vec<&'static str> {
        let other = Self::of(config);
        let differs = [
            self.listen != other.listen,
            self.is_tls != other.is_tls,
            self.ops_listen != other.ops_listen,
            self.metrics_listen != other.metrics_listen,
            self.control_socket != other.control_socket,
            self.log_format != other.log_format,
            self.state_directory != other.state_directory,
            self.traces != other.traces,
            self.audit != other.audit,
        ];
        KEYS.into_iter().zip(differs).filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}
