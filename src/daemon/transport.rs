//! TLS, as the configuration says, and whether it is the one that there is.

use std::time::UNIX_EPOCH;

use super::files::fingerprint;
use crate::config;
use crate::metrics::Metrics;
use crate::secret::{Fingerprint, Fingerprints};
use crate::server::listener;
use crate::tls::{self, ClientAuth, Tls, TlsError};

/// What runs over TCP, and what it was made of.
#[derive(Debug)]
pub(super) struct Transport {
    pub(super) ready: listener::Transport,
    made_of: Option<Fingerprint>,
}

impl Transport {
    /// Reads certificates and keys. Blocks.
    pub(super) fn load(
        transport: &config::Transport,
        fingerprints: &Fingerprints,
    ) -> Result<Self, TlsError> {
        let config::Transport::Tls(settings) = transport else {
            return Ok(Self { ready: listener::Transport::Plain, made_of: None });
        };
        // Before they are read: if one is replaced meanwhile, the next reload will see it.
        let made_of = material(settings, fingerprints);
        let ready = listener::Transport::Tls(tls::load(settings)?);
        Ok(Self { ready, made_of: Some(made_of) })
    }

    /// Whether another one is made of the same files: then this one is kept, with the sessions that
    /// can be resumed.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.made_of == other.made_of
    }

    /// Whether another one can take its place while connections are open: from TLS to none is a restart.
    pub(super) fn can_become(&self, other: &Self) -> bool {
        self.made_of.is_some() == other.made_of.is_some()
    }

    /// Shows when the certificate expires.
    pub(super) fn show(&self, metrics: &Metrics) {
        if let listener::Transport::Tls(Tls { not_after, .. }) = &self.ready {
            let expires = not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
            metrics.certificate_expires(expires.as_secs_f64());
        }
    }
}

fn material(settings: &tls::Settings, fingerprints: &Fingerprints) -> Fingerprint {
    let tls::Settings { certificate, private_key, client_auth } = settings;
    let (ca, subject) = match client_auth {
        ClientAuth::Off => (None, String::new()),
        ClientAuth::Required { ca, subject } => (Some(ca), subject.to_string()),
    };
    let files = [certificate, private_key].into_iter().chain(ca);
    let files: Vec<_> = files.map(|file| fingerprint(fingerprints, file).bytes()).collect();
    fingerprints.of(&[files.as_flattened(), subject.as_bytes()])
}
