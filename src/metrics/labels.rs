//! Closed sets of label values.

/// Why a connection was closed from our side, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// More connections than allowed.
    Limit,
    /// The TLS handshake, or the PROXY header, did not end in time.
    HandshakeTimeout,
    /// The head of a request did not end in time.
    HeadTimeout,
    /// No request for as long as idle connections are kept.
    Idle,
    /// A PROXY header was missing, malformed or unexpected.
    ProxyHeader,
    /// TLS would not let its client in any more.
    Barred,
}

impl Closed {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::HeadTimeout => "head_timeout",
            Self::Idle => "idle",
            Self::ProxyHeader => "proxy_header",
            Self::Barred => "client_barred",
        }
    }
}

/// Why spans were not sent, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TracesDropped {
    /// As many wait as may wait.
    QueueFull,
    /// The collector did not take them.
    Collector,
}

/// Whose quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaOf {
    /// The key store's.
    Keystore,
    /// That of each key.
    Key,
}
