//! `xksd bench`

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use tokio::task::AbortHandle;

use super::access::{Access, seconds};
use super::failure::{print, say};
use super::{Exit, Failure};
use crate::client::load::capacity::{self, Search};
use crate::client::load::ratios::Ratios;
use crate::client::load::report::{Report, Setting};
use crate::client::load::target::{Bench as Target, Load, Mix, PrepareError, Renewal, Workload};
use crate::client::load::{self, Control, Loop, Pacer, Plan, Recorder, plot};
use crate::client::{Endpoint, Scheme};
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
    /// What to ask for: one operation, or several with their weights, encrypt=3,decrypt=1
    #[arg(long, value_name = "OPERATIONS", default_value = "encrypt")]
    operation: Operations,
    /// Requests at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = at_least_one)]
    concurrency: usize,
    /// Connections; as many as --concurrency unless HTTP/2 shares them
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    connections: Option<usize>,
    /// A new connection for each request: measures new connections per second
    #[arg(long, conflicts_with = "connections")]
    new_connections: bool,
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
    /// Measure this proxy, too, in turns with the other, and print ratios; same key and credential
    #[arg(long, value_name = "URL", conflicts_with = "find_capacity")]
    compare: Option<Endpoint>,
    /// Find the highest rate that keeps 99% of the answers under 25 ms; --duration is that of a run
    #[arg(long, conflicts_with_all = ["rate", "requests"])]
    find_capacity: bool,
    /// Draw latency by percentile to this file, as SVG
    #[arg(long, value_name = "FILE", conflicts_with = "find_capacity")]
    svg: Option<PathBuf>,
}

const AFTER_HELP: &str = "One line of JSON goes to stdout, a summary to stderr. Exit codes: 0 all \
    answers good, 1 some were not, 64 wrong command line, 69 the proxy cannot be reached or refused \
    the first request.";

/// Exit code where the run went through and not every answer was good.
const SOME_FAILED: u8 = 1;

/// Runs of each proxy in a comparison: what changes on the machine meanwhile meets both.
const TURNS: u32 = 5;

/// p99 that `--find-capacity` keeps to, in microseconds: a tenth of what KMS waits.
const CAPACITY_P99: u64 = 25_000;

/// Share of the rate asked for that has to be reached, or the proxy did not keep up.
const KEPT_UP: f64 = 0.98;

/// Operations by the names of the command line.
const OPERATIONS: [(&str, Workload); 5] = [
    ("encrypt", Workload::Encrypt),
    ("encrypt-cdiv", Workload::EncryptCdiv),
    ("decrypt", Workload::Decrypt),
    ("metadata", Workload::Metadata),
    ("health", Workload::Health),
];

/// `--operation`
#[derive(Debug, Clone)]
struct Operations {
    text: String,
    mix: Mix,
}

impl FromStr for Operations {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "must be of encrypt, encrypt-cdiv, decrypt, metadata and health, each \
            once, with weights of 1 to 100 where there are several: encrypt=3,decrypt=1";
        let part = |part: &str| {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let weight = weight.parse().ok().filter(|weight| (1..=100).contains(weight))?;
            let (_, workload) = OPERATIONS.iter().find(|(known, _)| *known == name)?;
            Some((*workload, weight))
        };
        let parts: Option<Vec<(Workload, u32)>> = text.split(',').map(part).collect();
        let mix = parts.and_then(Mix::new).ok_or(FORM)?;
        Ok(Self { text: text.to_owned(), mix })
    }
}

impl Bench {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let connections = self.connections()?;
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(Exit::OsError, error))?
            .block_on(async {
                if self.find_capacity {
                    self.capacity(connections).await
                } else {
                    self.measurements(connections).await
                }
            })
    }

    /// One proxy, or two in turns.
    async fn measurements(&self, connections: usize) -> Result<ExitCode, Failure> {
        let urls: Vec<&Endpoint> = [&self.access.url].into_iter().chain(&self.compare).collect();
        let mut targets = Vec::with_capacity(urls.len());
        for url in &urls {
            targets.push(self.target(url, connections).await?);
        }
        let control = Arc::<Control>::default();
        stop_on_interrupt(control.clone());
        let turns = if self.compare.is_some() { TURNS } else { 1 };
        let plan = self.plan(turns);
        let progress = Progress::start(control.clone());
        let mut sums: Vec<Option<Recorder>> = vec![None; urls.len()];
        for _ in 0..turns {
            for (sum, target) in sums.iter_mut().zip(&targets) {
                if sum.is_some() && control.stop.load(Ordering::Relaxed) {
                    continue;
                }
                let run = load::run(plan, target.targets(self.concurrency), control.clone()).await;
                *sum = Some(match sum.take() {
                    Some(sum) => sum.then(run),
                    None => run,
                });
            }
        }
        drop(progress);
        let sums: Vec<Recorder> = sums.into_iter().flatten().collect();
        let reports: Vec<Report> = urls
            .iter()
            .zip(sums.iter().zip(&targets))
            .map(|(url, (sum, target))| {
                Report::new(self.setting(url, connections), &plan, sum, target.reconnected())
            })
            .collect();
        self.draw(&urls, &sums)?;
        for report in &reports {
            say(report.to_string().trim_end());
            print(&format!("{}\n", report.to_json()))?;
        }
        if let [first, second] = &reports[..] {
            let ratios = Ratios::new(first, second);
            say(&ratios.to_string());
            print(&format!("{}\n", ratios.to_json()))?;
        }
        let good = reports.iter().all(Report::is_good);
        Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(SOME_FAILED) })
    }

    /// The highest rate at which 99% of the answers come in time, and all of them are good.
    async fn capacity(&self, connections: usize) -> Result<ExitCode, Failure> {
        let url = &self.access.url;
        let target = self.target(url, connections).await?;
        let control = Arc::<Control>::default();
        stop_on_interrupt(control.clone());
        let mut best: Option<Report> = None;
        let found = capacity::find(Search::default(), async |rate| {
            let plan = Plan { kind: self.open_loop(rate), ..self.plan(1) };
            let run = load::run(plan, target.targets(self.concurrency), control.clone()).await;
            if control.stop.load(Ordering::Relaxed) {
                return Err(Failure::new(Exit::Difference, "interrupted: nothing was found"));
            }
            let setting = self.setting(url, connections);
            let report = Report::new(setting, &plan, &run, target.reconnected());
            let p99 = report.latency_us.as_ref().map(|latency| latency.p99);
            let in_time = p99.is_some_and(|p99| p99 < CAPACITY_P99);
            let holds = in_time && report.is_good() && report.rate >= KEPT_UP * rate;
            let words = if holds { "held" } else { "not held" };
            let p99 = p99.map_or("none".to_owned(), |p99| format!("{:.2} ms", p99 as f64 / 1e3));
            say(&format!("{rate:.0} per second: p99 {p99}, {words}"));
            if holds {
                best = Some(report);
            }
            Ok(holds)
        });
        match (found.await?, best) {
            (Some(rate), Some(report)) => {
                say(&format!("capacity: {rate:.0} per second with p99 under 25 ms"));
                print(&format!("{}\n", report.to_json()))?;
                Ok(ExitCode::SUCCESS)
            }
            _ => {
                let failure = "no rate was found at which 99% of the answers come within 25 ms";
                Err(Failure::new(Exit::Difference, failure)
                    .hint("measure without --find-capacity to see latencies and errors"))
            }
        }
    }

    async fn target(&self, url: &Endpoint, connections: usize) -> Result<Arc<Target>, Failure> {
        let signer = self.access.signer_to(url)?;
        let connector = self.access.connector_to(url)?;
        let renewal = if self.new_connections { Renewal::Always } else { Renewal::Keep };
        let plaintext = random_plaintext(self.plaintext_size.into())?;
        let (key, mix) = (&self.key, &self.operation.mix);
        let load = Load { key, mix, plaintext, connections, renewal };
        let target = Target::prepare(connector, signer, load).await;
        target.map(Arc::new).map_err(|error| unavailable(&error))
    }

    fn setting(&self, url: &Endpoint, connections: usize) -> Setting {
        Setting {
            url: url.to_string(),
            operation: self.operation.text.clone(),
            http: if self.access.http2 { "HTTP/2" } else { "HTTP/1.1" },
            tls: url.scheme() == Scheme::Https,
            concurrency: self.concurrency,
            connections,
            new_connections: self.new_connections,
            plaintext_size: self.plaintext_size.into(),
        }
    }

    /// The plan of one of so many turns.
    fn plan(&self, turns: u32) -> Plan {
        let kind = self.rate.map_or(Loop::Closed, |rate| self.open_loop(rate));
        let requests = self.requests.map(|all| all.div_ceil(turns.into()));
        let duration = self.duration / turns;
        Plan { kind, warmup: self.warmup, duration, requests }
    }

    fn open_loop(&self, rate: f64) -> Loop {
        Loop::Open { rate, grace: self.access.timeout, pacer: Pacer::Thread }
    }

    fn draw(&self, urls: &[&Endpoint], sums: &[Recorder]) -> Result<(), Failure> {
        let Some(file) = &self.svg else { return Ok(()) };
        let names: Vec<String> = urls.iter().map(|url| url.to_string()).collect();
        let named = names.iter().map(String::as_str);
        let runs: Vec<_> = named.zip(sums.iter().map(|sum| &sum.answered)).collect();
        let title = format!("xksd bench, {}: latency by percentile", self.operation.text);
        std::fs::write(file, plot::svg(&title, &runs)).map_err(|error| {
            Failure::new(Exit::Io, format!("cannot write `{}`: {error}", file.display()))
        })
    }

    fn connections(&self) -> Result<usize, Failure> {
        if self.new_connections {
            // For what is made before the run, ciphertexts for one.
            return Ok(1);
        }
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
fn stop_on_interrupt(control: Arc<Control>) {
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            control.stop.store(true, Ordering::Relaxed);
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(130);
            }
        }
    });
}

/// A line on the terminal that says how it goes, until it is dropped. Nothing where there is none.
struct Progress(Option<AbortHandle>);

impl Progress {
    fn start(control: Arc<Control>) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let task = tokio::spawn(async move {
            let mut last = 0;
            let mut second = tokio::time::interval(Duration::from_secs(1));
            second.tick().await;
            for passed in 1_u64.. {
                second.tick().await;
                let answered = control.answered.load(Ordering::Relaxed);
                let failed = control.failed.load(Ordering::Relaxed);
                let rate = answered - last;
                last = answered;
                // Where the terminal is gone nobody reads on.
                let line = format!("\r{passed} s: {rate} per second, {failed} errors \x1b[K");
                let _ = std::io::stderr().lock().write_all(line.as_bytes());
            }
        });
        Self(Some(task.abort_handle()))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
            let _ = std::io::stderr().lock().write_all(b"\r\x1b[K");
        }
    }
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
