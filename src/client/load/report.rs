//! A run's result: one line of JSON for programs, a few lines for people.

use std::collections::BTreeMap;
use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{Loop, Plan, Recorder};

/// What was measured, and how.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where the load went.
    pub url: String,
    /// The operation, as the command line names it.
    pub operation: String,
    /// `closed` or `open`.
    pub mode: &'static str,
    /// Open loop: requests per second that were asked for.
    pub target_rate: Option<f64>,
    /// `HTTP/1.1` or `HTTP/2`.
    pub http: &'static str,
    /// Whether TLS was spoken.
    pub tls: bool,
    /// Most requests at once.
    pub concurrency: usize,
    /// Connections kept.
    pub connections: usize,
    /// Whether each request had a connection of its own instead: `rate` is then that of new
    /// connections.
    pub new_connections: bool,
    /// Connections that were lost and made again.
    pub reconnected: u64,
    /// Bytes of plaintext.
    pub plaintext_size: usize,
    /// Seconds from the end of the warm-up to the last answer.
    pub elapsed_s: f64,
    /// Requests that count: good answers and errors.
    pub requests: u64,
    /// Good answers.
    pub ok: u64,
    /// The others, by `errorName`, or in words where there is none.
    pub errors: BTreeMap<String, u64>,
    /// Good answers per second.
    pub rate: f64,
    /// How long good answers took; in an open loop from when the request was due.
    pub latency_us: Option<Latency>,
    /// How long the errors took.
    pub error_latency_us: Option<Latency>,
}

/// Latencies in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Latency {
    /// Of all.
    pub mean: f64,
    /// Half were not slower.
    pub p50: u64,
    /// 90%
    pub p90: u64,
    /// 99%
    pub p99: u64,
    /// 99.9%
    #[serde(rename = "p99.9")]
    pub p999: u64,
    /// The slowest.
    pub max: u64,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Option<Self> {
        // The histogram knows values to three digits; what it names is never beyond the slowest.
        let at = |quantile| histogram.value_at_quantile(quantile).min(histogram.max());
        (!histogram.is_empty()).then(|| Self {
            mean: rounded(histogram.mean()),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
        })
    }
}

/// What a report says of the run besides its measurements.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Where the load went.
    pub url: String,
    /// The operation, as the command line names it.
    pub operation: String,
    /// `HTTP/1.1` or `HTTP/2`.
    pub http: &'static str,
    /// Whether TLS was spoken.
    pub tls: bool,
    /// Most requests at once.
    pub concurrency: usize,
    /// Connections kept.
    pub connections: usize,
    /// Whether each request had a connection of its own instead: `rate` is then that of new
    /// connections.
    pub new_connections: bool,
    /// Bytes of plaintext.
    pub plaintext_size: usize,
}

impl Report {
    /// Puts a run's result together.
    pub fn new(setting: Setting, plan: &Plan, measured: &Recorder, reconnected: u64) -> Self {
        let (mode, target_rate) = match plan.kind {
            Loop::Closed => ("closed", None),
            Loop::Open { rate, .. } => ("open", Some(rate)),
        };
        let Setting { url, operation, http, tls, concurrency, connections, .. } = setting;
        let Setting { new_connections, plaintext_size, .. } = setting;
        let (ok, failed) = (measured.answered.len(), measured.failed.len());
        Self {
            url,
            operation,
            mode,
            target_rate,
            http,
            tls,
            concurrency,
            connections,
            new_connections,
            reconnected,
            plaintext_size,
            elapsed_s: rounded(measured.elapsed().as_secs_f64()),
            requests: ok.saturating_add(failed),
            ok,
            errors: measured.errors.clone(),
            rate: rounded(measured.rate()),
            latency_us: Latency::of(&measured.answered),
            error_latency_us: Latency::of(&measured.failed),
        }
    }

    /// Whether all answers were good, and there were any.
    pub fn is_good(&self) -> bool {
        self.errors.is_empty() && self.ok > 0
    }

    /// One line, without its end.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and strings always have a JSON form")
    }
}

/// To three decimals.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// For people: what was asked, how fast it went, what went wrong.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, url, http, .. } = self;
        writeln!(f, "{operation} at {url}, {http}{}", if self.tls { " over TLS" } else { "" })?;
        match self.target_rate {
            None => write!(f, "closed loop")?,
            Some(rate) => write!(f, "open loop, {rate} due per second")?,
        }
        let (concurrency, connections) = (self.concurrency, self.connections);
        match self.new_connections {
            true => writeln!(f, ", {concurrency} at once, each on a new connection")?,
            false => writeln!(f, ", {concurrency} at once, {connections} connections")?,
        }
        let Self { ok, rate, elapsed_s, .. } = self;
        writeln!(f, "{ok} good answers in {elapsed_s:.2} s: {rate:.0} per second")?;
        if let Some(latency) = &self.latency_us {
            writeln!(f, "latency {latency}")?;
        }
        if let Some(latency) = &self.error_latency_us {
            writeln!(f, "errors took {latency}")?;
        }
        for (name, count) in &self.errors {
            writeln!(f, "{count} x {name}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["p50", "p90", "p99", "p99.9", "max"];
        let values = [self.p50, self.p90, self.p99, self.p999, self.max];
        for (name, value) in names.into_iter().zip(values) {
            let blank = if name == "p50" { "" } else { "  " };
            write!(f, "{blank}{name} {:.2} ms", value as f64 / 1000.0)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    fn setting() -> Setting {
        Setting {
            url: "https://h/kms/xks/v1".to_owned(),
            operation: "encrypt".to_owned(),
            http: "HTTP/1.1",
            tls: true,
            concurrency: 4,
            connections: 2,
            new_connections: false,
            plaintext_size: 32,
        }
    }

    const PLAN: Plan = Plan {
        kind: Loop::Closed,
        warmup: Duration::ZERO,
        duration: Duration::from_secs(2),
        requests: None,
    };

    #[test]
    fn the_json_has_this_form() {
        let start = Instant::now();
        let mut measured = Recorder::new(start);
        let done = |millis| start + Duration::from_millis(millis);
        for _ in 0..3 {
            measured.record(start, done(2), Ok(()));
        }
        measured.record(done(1000), done(2000), Err("ThrottlingException".to_owned()));
        let report = Report::new(setting(), &PLAN, &measured, 1);
        let line = report.to_json();
        assert!(!line.contains('\n'));
        let same = |value: u64| {
            let mean = value as f64;
            serde_json::json!({
                "mean": mean, "p50": value, "p90": value, "p99": value, "p99.9": value, "max": value
            })
        };
        let failed = measured.failed.max();
        let expected = serde_json::json!({
            "url": "https://h/kms/xks/v1", "operation": "encrypt", "mode": "closed",
            "target_rate": null, "http": "HTTP/1.1", "tls": true, "concurrency": 4,
            "connections": 2, "new_connections": false, "reconnected": 1, "plaintext_size": 32, "elapsed_s": 2.0,
            "requests": 4, "ok": 3, "errors": {"ThrottlingException": 1}, "rate": 1.5,
            "latency_us": same(2000), "error_latency_us": same(failed),
        });
        let mut value: serde_json::Value = serde_json::from_str(&line).unwrap();
        // A mean of buckets is as exact as its buckets: to three digits.
        for (latency, exact) in [("latency_us", 2000.0), ("error_latency_us", failed as f64)] {
            let mean = value[latency]["mean"].as_f64().unwrap();
            assert!((mean / exact - 1.0).abs() < 0.001, "{mean}");
            value[latency]["mean"] = exact.into();
        }
        assert_eq!(value, expected);
    }

    #[test]
    fn a_run_without_answers_has_no_latencies() {
        let report = Report::new(setting(), &PLAN, &Recorder::new(Instant::now()), 0);
        assert_eq!(report.latency_us, None);
        assert!(report.to_json().contains(r#""rate":0.0,"latency_us":null"#));
        assert!(report.to_string().contains("0 good answers"));
    }

    #[test]
    fn people_read_milliseconds() {
        let start = Instant::now();
        let mut measured = Recorder::new(start);
        measured.record(start, start + Duration::from_micros(1500), Ok(()));
        let text = Report::new(setting(), &PLAN, &measured, 0).to_string();
        assert!(text.contains("p50 1.50 ms  p90 1.50 ms"), "{text}");
    }
}
