//! Two proxies side by side, as ratios: figures of one machine and one hour mean little elsewhere,
//! and what one of them is of the other means more.

use std::fmt;

use serde::Serialize;

use super::report::{Latency, Report};

/// The second proxy's figures, each divided by the first one's. `None` where one of them has none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ratios {
    /// The first proxy.
    pub url: String,
    /// The second one.
    pub compared_with: String,
    /// Good answers per second.
    pub rate_ratio: Option<f64>,
    /// Mean latency.
    pub mean_ratio: Option<f64>,
    /// Median latency.
    pub p50_ratio: Option<f64>,
    /// Latency of the slowest hundredth.
    pub p99_ratio: Option<f64>,
    /// Latency of the slowest thousandth.
    #[serde(rename = "p99.9_ratio")]
    pub p999_ratio: Option<f64>,
}

impl Ratios {
    /// Of the second to the first.
    pub fn new(first: &Report, second: &Report) -> Self {
        let ratio = |first: f64, second: f64| {
            (first > 0.0 && second > 0.0).then(|| (second / first * 1000.0).round() / 1000.0)
        };
        let of = |figure: fn(&Latency) -> f64| {
            let (first, second) = (first.latency_us.as_ref()?, second.latency_us.as_ref()?);
            ratio(figure(first), figure(second))
        };
        Self {
            url: first.url.clone(),
            compared_with: second.url.clone(),
            rate_ratio: ratio(first.rate, second.rate),
            mean_ratio: of(|latency| latency.mean),
            p50_ratio: of(|latency| latency.p50 as f64),
            p99_ratio: of(|latency| latency.p99 as f64),
            p999_ratio: of(|latency| latency.p999 as f64),
        }
    }

    /// One line, without its end.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and strings always have a JSON form")
    }
}

/// For people.
impl fmt::Display for Ratios {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, compared_with, rate_ratio, mean_ratio, p50_ratio, .. } = self;
        write!(f, "{compared_with} to {url}:")?;
        let figures = [
            ("rate", rate_ratio),
            ("mean", mean_ratio),
            ("p50", p50_ratio),
            ("p99", &self.p99_ratio),
            ("p99.9", &self.p999_ratio),
        ];
        for (name, ratio) in figures {
            match ratio {
                Some(ratio) => write!(f, "  {name} {ratio:.3}")?,
                None => write!(f, "  {name} -")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::super::report::Setting;
    use super::super::{Loop, Plan, Recorder};
    use super::*;

    fn report(url: &str, millis: &[u64]) -> Report {
        let start = Instant::now();
        let mut measured = Recorder::new(start);
        for took in millis {
            measured.record(start, start + Duration::from_millis(*took), Ok(()));
        }
        let setting = Setting {
            url: url.to_owned(),
            operation: "encrypt".to_owned(),
            http: "HTTP/1.1",
            tls: true,
            concurrency: 1,
            connections: 1,
            new_connections: false,
            plaintext_size: 32,
        };
        let (warmup, duration) = (Duration::ZERO, Duration::from_secs(1));
        let plan = Plan { kind: Loop::Closed, warmup, duration, requests: None };
        Report::new(setting, &plan, &measured, 0)
    }

    #[test]
    fn the_second_is_divided_by_the_first() {
        let (one, two) = (report("https://a", &[10, 100]), report("https://b", &[20, 50]));
        let ratios = Ratios::new(&one, &two);
        assert_eq!(ratios.rate_ratio, Some(2.0));
        let p50 = ratios.p50_ratio.unwrap();
        assert!((p50 - 2.0).abs() < 0.01, "{p50}");
        let text = ratios.to_string();
        assert!(text.starts_with("https://b to https://a:  rate 2.000  mean 0.6"), "{text}");
        assert!(ratios.to_json().contains(r#""p99.9_ratio":0.5"#), "{}", ratios.to_json());
    }

    #[test]
    fn what_was_not_measured_has_no_ratio() {
        let ratios = Ratios::new(&report("https://a", &[]), &report("https://b", &[1]));
        assert_eq!((ratios.rate_ratio, ratios.p99_ratio), (None, None));
        assert!(ratios.to_string().ends_with("p99.9 -"));
    }
}
