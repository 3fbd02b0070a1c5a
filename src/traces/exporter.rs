//! Sends spans to the collector, in a task of its own.
//!
//! Requests never wait for it. A collector that does not answer costs them nothing but their traces:
//! a batch is tried a few times, with pauses, and then thrown away, while the queue takes what it can.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::otlp;
use super::span::{Attribute, Spans, Value};
use crate::client::{CallError, ConnectError, Connection, Connector, Endpoint};
use crate::metrics::{Metrics, TracesDropped};

/// Requests in one export, at most.
const BATCH: usize = 256;

/// How long a request's spans wait for others to go with.
const GATHER: Duration = Duration::from_secs(1);

/// Time for the collector to take a connection, and to answer an export.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How often a batch is sent before it is thrown away.
const TRIES: u32 = 3;

/// Pauses after the first failure, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Why the collector has not taken an export.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error("{0}")]
    Call(#[from] CallError),
    /// An answer of the collector's that is no success.
    #[error("the collector answers {0}")]
    Status(StatusCode),
}

impl ExportError {
    /// Whether the same export may be taken later (OTLP, "Retryable Response Codes").
    fn may_pass(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Call(_) => true,
            Self::Status(status) => matches!(status.as_u16(), 429 | 502 | 503 | 504),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Exporter {
    collector: Connector,
    connection: Option<Connection>,
    inbox: Inbox,
    resource: Vec<Attribute>,
    metrics: Arc<Metrics>,
    pause: Duration,
    /// Whether the last export failed, which is said once.
    is_failing: bool,
    /// Dropped when everything is sent.
    _done: oneshot::Sender<()>,
}

/// Has the exporter send what it still has, and end.
#[derive(Debug)]
pub struct Flush {
    close: oneshot::Sender<()>,
    finished: oneshot::Receiver<()>,
}

impl Flush {
    pub(super) fn new(close: oneshot::Sender<()>, finished: oneshot::Receiver<()>) -> Self {
        Self { close, finished }
    }

    /// Takes no more spans in, and waits until those that are there were sent, for so long at most.
    pub async fn within(self, patience: Duration) {
        // One that has ended already has nothing left.
        let _ = self.close.send(());
        if timeout(patience, self.finished).await.is_err() {
            tracing::warn!("the last traces were not sent in time");
        }
    }
}

impl Exporter {
    pub(super) fn new(
        collector: Connector,
        queue: mpsc::Receiver<Spans>,
        closing: oneshot::Receiver<()>,
        done: oneshot::Sender<()>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            collector,
            connection: None,
            inbox: Inbox { queue, closing, is_closed: false },
            resource: resource(),
            metrics,
            pause: PAUSES.0,
            is_failing: false,
            _done: done,
        }
    }

    /// Sends until it is told to end by [`Flush`].
    pub async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.inbox.gather(&mut batch).await {
            self.deliver(&batch).await;
            batch.clear();
        }
    }

    /// Sends a batch, or throws it away.
    async fn deliver(&mut self, batch: &[Spans]) {
        let export = Bytes::from(otlp::export(&self.resource, batch));
        for number in 1..=TRIES {
            let Err(error) = self.send(export.clone()).await else {
                self.metrics.traces_exported(batch.len());
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("the collector takes traces again");
                }
                self.pause = PAUSES.0;
                return;
            };
            if !std::mem::replace(&mut self.is_failing, true) {
                let collector = self.collector.endpoint().base();
                tracing::warn!(collector, %error, "the collector does not take traces");
            }
            let is_last = number == TRIES || !error.may_pass();
            if is_last {
                self.metrics.traces_dropped(TracesDropped::Collector, batch.len());
            }
            let is_closed = self.inbox.pause(self.pause).await;
            self.pause = (self.pause * 2).min(PAUSES.1);
            if is_last {
                return;
            }
            // Those who wait for the end don't wait for a collector that comes back.
            if is_closed {
                return self.metrics.traces_dropped(TracesDropped::Collector, batch.len());
            }
        }
    }

    /// One export, over the connection that there is. A collector may have closed that at any time,
    /// which is no failure: then over a new one.
    async fn send(&mut self, export: Bytes) -> Result<(), ExportError> {
        if let Some(kept) = self.connection.take() {
            match self.send_over(kept, export.clone()).await {
                Err(ExportError::Call(CallError::Connection(_))) => {}
                other => return other,
            }
        }
        let connection = self.collector.connect().await?;
        self.send_over(connection, export).await
    }

    async fn send_over(
        &mut self,
        mut connection: Connection,
        export: Bytes,
    ) -> Result<(), ExportError> {
        let answer = connection.send(request(self.collector.endpoint(), export)).await?;
        if !answer.status.is_success() {
            return Err(ExportError::Status(answer.status));
        }
        self.connection = Some(connection);
        Ok(())
    }
}

fn request(collector: &Endpoint, export: Bytes) -> Request<Full<Bytes>> {
    Request::post(format!("{}/v1/traces", collector.base_path()))
        .header(HOST, collector.authority())
        .header(CONTENT_TYPE, "application/x-protobuf")
        .header(USER_AGENT, concat!("xksd/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(export))
        .expect("an endpoint is made of what can stand in a request")
}

/// What is said of this process, in OpenTelemetry's words.
fn resource() -> Vec<Attribute> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    vec![
        ("service.name", Value::Text(env!("CARGO_PKG_NAME").to_owned())),
        ("service.version", Value::Text(env!("CARGO_PKG_VERSION").to_owned())),
        ("host.name", Value::Text(host)),
    ]
}

/// Where spans arrive, until it is closed.
#[derive(Debug)]
struct Inbox {
    queue: mpsc::Receiver<Spans>,
    closing: oneshot::Receiver<()>,
    is_closed: bool,
}

impl Inbox {
    /// Waits for spans, and a while for more of them. Says whether there are any: none come any more
    /// once it is closed and empty.
    async fn gather(&mut self, batch: &mut Vec<Spans>) -> bool {
        if self.take(batch).await == 0 {
            return false;
        }
        let more = async { while batch.len() < BATCH && self.take(batch).await > 0 {} };
        // Elapsed or full, it is enough.
        let _ = timeout(GATHER, more).await;
        true
    }

    /// Waits for spans and adds them to the batch, as many as fit; says how many.
    async fn take(&mut self, batch: &mut Vec<Spans>) -> usize {
        loop {
            let room = BATCH - batch.len();
            tokio::select! {
                biased;
                _ = &mut self.closing, if !self.is_closed => self.close(),
                taken = self.queue.recv_many(batch, room) => return taken,
            }
        }
    }

    /// Does nothing for a while; says whether it was closed meanwhile, or before.
    async fn pause(&mut self, time: Duration) -> bool {
        if !self.is_closed {
            tokio::select! {
                _ = &mut self.closing => self.close(),
                () = sleep(time) => {}
            }
        }
        self.is_closed
    }

    fn close(&mut self) {
        self.is_closed = true;
        self.queue.close();
    }
}
