//! `xksd bench`

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::access::{Access, seconds};
use super::failure::{print, say};
use super::{Exit, Failure};
use crate::client::load::report::{Report, Setting};
use crate::client::load::target::{Bench as Target, PrepareError, Workload};
use crate::client::load::{self, Loop, Pacer, Plan};
use crate::client::{Connector, Scheme, Signer};
use crate::names::ExternalKeyId;
use crate::secret::Plaintext;

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Bench {
    #[command(flatten)]
    access: Access,
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
    /// Bytes of each plaintext; KMS sends 32 for a data key
    #[arg(long, value_name = "BYTES", default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=8192))]
    plaintext_size: u16,
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
        let signer = self.access.signer()?;
        let connector = self.access.connector()?;
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
            url: self.access.url.to_string(),
            operation: self.operation.name(),
            http: if self.access.http2 { "HTTP/2" } else { "HTTP/1.1" },
            tls: self.access.url.scheme() == Scheme::Https,
            concurrency: self.concurrency,
            connections,
            plaintext_size: self.plaintext_size.into(),
        };
        Ok(Report::new(setting, &plan, &measured, target.reconnected()))
    }

    fn plan(&self) -> Plan {
        let kind = match self.rate {
            None => Loop::Closed,
            Some(rate) => Loop::Open { rate, grace: self.access.timeout, pacer: Pacer::Thread },
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
        if connections < self.concurrency && !self.access.http2 {
            let error = "fewer --connections than --concurrency: HTTP/1.1 carries one request at \
                a time on each";
            return Err(Failure::new(Exit::Usage, error).hint("--http2 lets requests share them"));
        }
        Ok(connections)
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
