//! Traces of requests, in OpenTelemetry's protocol (OTLP over HTTP, protobuf): which request spent
//! which time where. Off unless a collector is configured.
//!
//! Nothing is measured for them: a finished request's record becomes spans, if it is sampled
//! ([`sampler`]). [`Traces::offer`] puts them into a bounded queue and never waits; [`exporter`] sends
//! them from there, written by [`otlp`] in the few words of [`protobuf`] that it takes. What finds no
//! room, or no collector, is thrown away and counted.
//!
//! The crates of OpenTelemetry are not used: `opentelemetry-otlp` would bring eighteen crates that are
//! not here, a second generator of random numbers among them, to write seven messages and to send them
//! over the HTTP client that is. Those messages are read in tests by OpenTelemetry's own code.

pub mod exporter;
mod otlp;
mod protobuf;
pub mod sampler;
pub mod span;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::client::Connector;
use crate::metrics::{Metrics, TracesDropped};
use exporter::{Exporter, Flush};
use sampler::Ratio;
use span::{Spans, TraceId};

/// Requests whose spans wait to be sent, at most; one is about two kilobytes.
pub const QUEUE: usize = 2048;

/// Where traces go, and of how many requests.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The way to the collector.
    pub collector: Connector,
    /// Of how many requests.
    pub ratio: Ratio,
    /// How many requests' spans may wait to be sent; [`QUEUE`].
    pub queue: usize,
}

/// Takes the spans of finished requests.
#[derive(Debug, Clone)]
pub struct Traces {
    ratio: Ratio,
    queue: mpsc::Sender<Spans>,
    metrics: Arc<Metrics>,
}

impl Traces {
    /// A queue, the task that empties it, and the means to have that finish.
    pub fn new(settings: Settings, metrics: Arc<Metrics>) -> (Self, Exporter, Flush) {
        let Settings { collector, ratio, queue } = settings;
        let (sender, receiver) = mpsc::channel(queue);
        let ((closing, close), (done, finished)) = (oneshot::channel(), oneshot::channel());
        let exporter = Exporter::new(collector, receiver, close, done, metrics.clone());
        (Self { ratio, queue: sender, metrics }, exporter, Flush::new(closing, finished))
    }

    /// Whether this request is traced; if so, under which id.
    pub fn sample(&self) -> Option<TraceId> {
        self.ratio.sample(TraceId::random())
    }

    /// Sends the spans of a request, or throws them away: the caller never waits.
    pub fn offer(&self, spans: Spans) {
        if self.queue.try_send(spans).is_err() {
            self.metrics.traces_dropped(TracesDropped::QueueFull, 1);
        }
    }
}

#[cfg(test)]
mod tests;
