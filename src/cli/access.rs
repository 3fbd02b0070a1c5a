//! How a proxy is reached and signed for: what `bench` and `conformance` both ask for.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use zeroize::Zeroizing;

use super::{Exit, Failure};
use crate::client::trust::SYSTEM_BUNDLE;
use crate::client::{ClientIdentity, Connector, Endpoint, HttpVersion, Scheme, Signer, Trust};
use crate::names::{AccessKeyId, Region};
use crate::secret::Secret;
use crate::sigv4::SecretAccessKey;

/// The environment variable that may hold the secret, as setup.sh's client.env exports it.
const SECRET_VARIABLE: &str = "SIGV4_SECRET_ACCESS_KEY";

#[derive(Debug, Args)]
pub(super) struct Access {
    /// The proxy and its path prefix: https://host[:port][/prefix]
    pub(super) url: Endpoint,
    /// Access key id of the credential to sign with
    #[arg(long, value_name = "ID", env = "SIGV4_ACCESS_KEY_ID", hide_env_values = true)]
    pub(super) access_key_id: AccessKeyId,
    /// File with the secret access key; without it, the variable SIGV4_SECRET_ACCESS_KEY
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// AWS Region to sign for
    #[arg(long, env = "REGION", hide_env_values = true)]
    pub(super) region: Region,
    /// Seconds to wait for a connection, and for an answer
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(super) timeout: Duration,
    /// CA certificates to trust (PEM) instead of the system's
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// Client certificate chain (PEM), for proxies that ask for one
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
    /// Speak HTTP/2 instead of HTTP/1.1
    #[arg(long)]
    pub(super) http2: bool,
}

impl Access {
    /// Signs for a proxy, this one or another.
    pub(super) fn signer_to(&self, url: &Endpoint) -> Result<Signer, Failure> {
        let secret = SecretAccessKey::new(self.secret()?);
        let secret = secret.map_err(|error| Failure::new(Exit::Usage, error))?;
        let credential = (self.access_key_id.clone(), secret);
        Ok(Signer::new(url.clone(), credential, self.region.clone()))
    }

    /// The way to a proxy, this one or another, under the same conditions.
    pub(super) fn connector_to(&self, url: &Endpoint) -> Result<Connector, Failure> {
        let http = if self.http2 { HttpVersion::Http2 } else { HttpVersion::Http1 };
        if url.scheme() == Scheme::Http {
            return Ok(Connector::plain(url.clone(), http, self.timeout));
        }
        let identity = self.identity()?;
        Connector::new(url.clone(), &self.trust()?, identity.as_ref(), http, self.timeout)
            .map_err(|error| Failure::new(Exit::Usage, error))
    }

    /// The certificate authorities to believe.
    pub(super) fn trust(&self) -> Result<Trust, Failure> {
        let roots = self.cacert.as_deref().unwrap_or(Path::new(SYSTEM_BUNDLE));
        Trust::from_pem_file(roots).map_err(|error| {
            Failure::new(Exit::Usage, error)
                .hint("--cacert names a file with the CA certificates to trust")
        })
    }

    /// The certificate to show.
    pub(super) fn identity(&self) -> Result<Option<ClientIdentity>, Failure> {
        let (Some(certificate), Some(key)) = (&self.client_cert, &self.client_key) else {
            return Ok(None);
        };
        let identity = ClientIdentity::from_pem_files(certificate, key);
        identity.map(Some).map_err(|error| Failure::new(Exit::Usage, error))
    }

    /// From the file or the environment, never from the command line, which every user can read.
    pub(super) fn secret(&self) -> Result<Secret<String>, Failure> {
        match &self.secret_file {
            Some(file) => read_secret(file, "--secret-file"),
            None => env::var(SECRET_VARIABLE).map(trimmed).map_err(|_| {
                Failure::new(Exit::Usage, "there is no secret access key to sign with").hint(
                    format!("put it in a file for --secret-file, or export {SECRET_VARIABLE}"),
                )
            }),
        }
    }
}

/// A secret access key from the file that an option names.
pub(super) fn read_secret(file: &Path, option: &str) -> Result<Secret<String>, Failure> {
    fs::read_to_string(file).map(trimmed).map_err(|error| {
        let error = format!("cannot read `{}`: {error}", file.display());
        Failure::new(Exit::Usage, error).hint(format!("{option} names a file with the secret"))
    })
}

/// Without the line's end that files have.
fn trimmed(text: String) -> Secret<String> {
    let text = Zeroizing::new(text);
    Secret::new(text.trim_end_matches('\n').to_owned())
}

/// `10` or `10s`
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    match text.strip_suffix('s').unwrap_or(text).parse::<f64>() {
        Ok(seconds) if (0.0..=1_000_000.0).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err("must be a number of seconds from 0 to 1000000".to_owned()),
    }
}
