//! What is as it was at the start for as long as the process lives.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::{Config, Transport};
use crate::telemetry::Format;
use crate::traces::sampler::Ratio;

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
        }
    }

    /// The keys in which a configuration differs from this.
    pub(super) fn differences(&self, config: &Config) -> Vec<&'static str> {
        let other = Self::of(config);
        let differences = [
            ("server.listen", self.listen != other.listen),
            ("server.insecure_plain_http_on_loopback", self.is_tls != other.is_tls),
            ("ops.listen", self.ops_listen != other.ops_listen),
            ("ops.metrics_listen", self.metrics_listen != other.metrics_listen),
            ("ops.control_socket", self.control_socket != other.control_socket),
            ("log.format", self.log_format != other.log_format),
            ("state.directory", self.state_directory != other.state_directory),
            ("traces", self.traces != other.traces),
        ];
        differences.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}
