//! `xksd bench`

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, ValueEnum};
use zeroize::Zeroizing;

use super::failure::{print, say};
use super::{Exit, Failure};
use crate::client::load::report::{Report, Setting};
use crate::client::load::target::{Bench as Target, PrepareError, Workload};
use crate::client::load::{self, Loop, Pacer, Plan};
use crate::client::trust::SYSTEM_BUNDLE;
use crate::client::{ClientIdentity, Connector, Endpoint, HttpVersion, Scheme, Signer, Trust};
use crate::names::{AccessKeyId, ExternalKeyId, Region};
use crate::secret::{Plaintext, Secret};
use crate::sigv4::SecretAccessKey;

/// The environment variable that may hold the secret, as setup.sh's client.env exports it.
const SECRET_VARIABLE: &str = "SIGV4_SECRET_ACCESS_KEY";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Bench {
    /// The proxy and its path prefix: https://host[:port][/prefix]
    url: Endpoint,
    /// Access key id of the credential to sign with
    #[arg(long, value_name = "ID", env = "SIGV4_ACCESS_KEY_ID", hide_env_values = true)]
    access_key_id: AccessKeyId,
    /// File with the secret access key; without it, the variable SIGV4_SECRET_ACCESS_KEY
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// AWS Region to sign for
    #[arg(long, env = "REGION", hide_env_values = true)]
    region: Region,
    /// External key to use
    #[arg(long, value_name = "KEY", env = "KEY_ID", hide_env_values = true)]
    key: ExternalKeyId,
    /// What to ask for
    #[arg(long, value_name = "OPERATION", default_value = "encrypt")]
    operation: Operation,
    /// Requests at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = at_least_one)]
    concurrency: usize,
    /// Connections; as many as --concurrency unless HTTP/2 shares them
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    connections: Option<usize>,
    /// Open loop: requests due per second, latency counted from when each was due
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    rate: Option<f64>,
    /// Seconds that count
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    duration: Duration,
    /// End after this many requests that count
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
    /// Seconds before anything counts
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    warmup: Duration,
    /// Seconds to wait for a connection, and for an answer
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    timeout: Duration,
    /// Bytes of each plaintext; KMS sends 32 for a data key
    #[arg(long, value_name = "BYTES", default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=8192))]
    plaintext_size: u16,
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
    http2: bool,
}

const AFTER_HELP: &str = "One line of JSON goes to stdout, a summary to stderr. Exit codes: 0 all \
    answers good, 1 some were not, 64 wrong command line, 69 the proxy cannot be reached or refused \
    the first request.";

/// Exit code where the run went through and not every answer was good.
const SOME_FAILED: u8 = 1;

/// `--operation`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Operation {
    /// Encrypt
    Encrypt,
    /// Encrypt with a data integrity value, for which the proxy decrypts too
    EncryptCdiv,
    /// Decrypt what was encrypted beforehand
    Decrypt,
    /// GetKeyMetadata
    Metadata,
    /// GetHealthStatus
    Health,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Encrypt => "encrypt",
            Self::EncryptCdiv => "encrypt-cdiv",
            Self::Decrypt => "decrypt",
            Self::Metadata => "metadata",
            Self::Health => "health",
        }
    }

    fn workload(self) -> Workload {
        match self {
            Self::Encrypt => Workload::Encrypt,
            Self::EncryptCdiv => Workload::EncryptCdiv,
            Self::Decrypt => Workload::Decrypt,
            Self::Metadata => Workload::Metadata,
            Self::Health => Workload::Health,
        }
    }
}

impl Bench {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let connections = self.connections()?;
        let credential = (self.access_key_id.clone(), self.secret()?);
        let signer = Signer::new(self.url.clone(), credential, self.region.clone());
        let connector = self.connector()?;
        let report = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(Exit::OsError, error))?
            .block_on(self.measure(connector, signer, connections))?;
        say(report.to_string().trim_end());
        print(&format!("{}\n", report.to_json()))?;
        let good = report.errors.is_empty() && report.ok > 0;
        Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(SOME_FAILED) })
    }

    async fn measure(
        &self,
        connector: Connector,
        signer: Signer,
        connections: usize,
    ) -> Result<Report, Failure> {
        let plaintext = random_plaintext(self.plaintext_size.into())?;
        let what = (&self.key, self.operation.workload());
        let target = Target::prepare(connector, signer, what, plaintext, connections);
        let target = Arc::new(target.await.map_err(|error| unavailable(&error))?);
        let stop = stop_on_interrupt();
        let plan = self.plan();
        let measured = load::run(plan, target.targets(self.concurrency), stop).await;
        let setting = Setting {
            url: self.url.to_string(),
            operation: self.operation.name(),
            http: if self.http2 { "HTTP/2" } else { "HTTP/1.1" },
            tls: self.url.scheme() == Scheme::Https,
            concurrency: self.concurrency,
            connections,
            plaintext_size: self.plaintext_size.into(),
        };
        Ok(Report::new(setting, &plan, &measured, target.reconnected()))
    }

    fn plan(&self) -> Plan {
        let kind = match self.rate {
            None => Loop::Closed,
            Some(rate) => Loop::Open { rate, grace: self.timeout, pacer: Pacer::Thread },
        };
        let Self { warmup, duration, requests, .. } = *self;
        Plan { kind, warmup, duration, requests }
    }

    fn connections(&self) -> Result<usize, Failure> {
        let connections = self.connections.unwrap_or(self.concurrency);
        if connections > self.concurrency {
            let error = "more --connections than --concurrency: some would never be used";
            return Err(Failure::new(Exit::Usage, error));
        }
        if connections < self.concurrency && !self.http2 {
            let error = "fewer --connections than --concurrency: HTTP/1.1 carries one request at \
                a time on each";
            return Err(Failure::new(Exit::Usage, error).hint("--http2 lets requests share them"));
        }
        Ok(connections)
    }

    fn connector(&self) -> Result<Connector, Failure> {
        let http = if self.http2 { HttpVersion::Http2 } else { HttpVersion::Http1 };
        if self.url.scheme() == Scheme::Http {
            return Ok(Connector::plain(self.url.clone(), http, self.timeout));
        }
        let roots = self.cacert.as_deref().unwrap_or(Path::new(SYSTEM_BUNDLE));
        let unusable = |error: &dyn std::fmt::Display| Failure::new(Exit::Usage, error.to_string());
        let trust = Trust::from_pem_file(roots).map_err(|error| {
            unusable(&error).hint("--cacert names a file with the CA certificates to trust")
        })?;
        let identity = match (&self.client_cert, &self.client_key) {
            (Some(certificate), Some(key)) => {
                let identity = ClientIdentity::from_pem_files(certificate, key);
                Some(identity.map_err(|error| unusable(&error))?)
            }
            _ => None,
        };
        Connector::new(self.url.clone(), &trust, identity.as_ref(), http, self.timeout)
            .map_err(|error| unusable(&error))
    }

    /// From the file or the environment, never from the command line, which every user can read.
    fn secret(&self) -> Result<SecretAccessKey, Failure> {
        let text = match &self.secret_file {
            Some(file) => fs::read_to_string(file).map_err(|error| {
                let error = format!("cannot read `{}`: {error}", file.display());
                Failure::new(Exit::Usage, error).hint("--secret-file names a file with the secret")
            })?,
            None => env::var(SECRET_VARIABLE).map_err(|_| {
                Failure::new(Exit::Usage, "there is no secret access key to sign with").hint(
                    format!("put it in a file for --secret-file, or export {SECRET_VARIABLE}"),
                )
            })?,
        };
        let text = Zeroizing::new(text);
        let secret = Secret::new(text.trim_end_matches('\n').to_owned());
        SecretAccessKey::new(secret).map_err(|error| Failure::new(Exit::Usage, error))
    }
}

fn random_plaintext(size: usize) -> Result<Plaintext, Failure> {
    let mut bytes = vec![0; size];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Failure::new(Exit::OsError, "no random bytes for a plaintext"))?;
    Ok(Plaintext::new(bytes))
}

/// Ctrl-C ends the run early, and what was measured up to then is reported; again, at once.
fn stop_on_interrupt() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            flag.store(true, Ordering::Relaxed);
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(130);
            }
        }
    });
    stop
}

fn unavailable(error: &PrepareError) -> Failure {
    let failure = Failure::new(Exit::Unavailable, error);
    match error {
        PrepareError::Connect(_) => failure.hint("--cacert names the CA of a private certificate"),
        PrepareError::First { .. } => {
            failure.hint("nothing was measured: the first request has to succeed")
        }
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=100_000) => Ok(number),
        _ => Err("must be a number from 1 to 100000".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("must be a number from 0.001 to 1000000".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.strip_suffix('s').unwrap_or(text).parse::<f64>() {
        Ok(seconds) if (0.0..=1_000_000.0).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err("must be a number of seconds from 0 to 1000000".to_owned()),
    }
}
