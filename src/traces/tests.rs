//! The way of spans from the queue to a collector that is well, busy, dead or hung.

use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::trace::v1::Span as Received;
use prost::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::exporter::PATIENCE;
use super::sampler::Ratio;
use super::span::{Kind, Span, Spans, TraceId, Value, WallClock};
use super::{Settings, Traces};
use crate::client::Connector;
use crate::client::connector::HttpVersion;
use crate::metrics::Metrics;

/// Longer than any of this takes.
const LONG: Duration = Duration::from_secs(30);

fn settings(listener: &TcpListener, queue: usize) -> Settings {
    let endpoint = format!("http://{}/base", listener.local_addr().unwrap()).parse().unwrap();
    let collector = Connector::plain(endpoint, HttpVersion::Http1, PATIENCE);
    Settings { collector, ratio: Ratio::ALL, queue }
}

fn spans(number: u8) -> Spans {
    let start = Instant::now();
    let span = |name, kind, error: Option<&str>| Span {
        name,
        kind,
        start,
        end: start + Duration::from_millis(3),
        attributes: vec![
            ("kms.request_id", Value::Text("id".to_owned())),
            ("xks.attempt", Value::Number(-2)),
        ],
        error: error.map(str::to_owned),
    };
    Spans {
        trace: TraceId::from_bytes([number; 16]),
        request: span("Encrypt", Kind::Server, None),
        steps: vec![span("queue", Kind::Internal, None), span("hsm", Kind::Client, Some("late"))],
        clock: WallClock::now(),
    }
}

fn assert_counted(metrics: &Metrics, sample: &str) {
    let text = metrics.render();
    assert!(text.contains(&format!("{sample}\n")), "no `{sample}` in\n{text}");
}

/// Serves one connection: answers each request with the next of these statuses, and gives the heads
/// and bodies.
async fn collect(listener: TcpListener, statuses: &[u16]) -> Vec<(String, Vec<u8>)> {
    let mut received = Vec::new();
    let mut statuses = statuses.iter();
    let mut status = statuses.next();
    while status.is_some() {
        let (mut stream, _peer) = listener.accept().await.unwrap();
        while let Some(code) = status {
            let Some(request) = receive(&mut stream).await else { break };
            received.push(request);
            let answer = format!("HTTP/1.1 {code} x\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            status = statuses.next();
        }
    }
    received
}

/// A request's head and body; `None` at the end of the connection.
async fn receive(stream: &mut tokio::net::TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
            let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
            if bytes.len() == end + 4 + length.parse::<usize>().unwrap() {
                return Some((head, bytes.split_off(end + 4)));
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap() == 0 {
            return None;
        }
    }
}

fn received(body: &[u8]) -> Vec<Received> {
    let export = ExportTraceServiceRequest::decode(body).unwrap();
    let [resource] = &export.resource_spans[..] else { panic!("{export:?}") };
    let [scope] = &resource.scope_spans[..] else { panic!("{export:?}") };
    scope.spans.clone()
}

#[tokio::test]
async fn opentelemetry_reads_what_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let metrics = Arc::new(Metrics::new());
    let (traces, exporter, flush) = Traces::new(settings(&listener, 8), metrics.clone());
    let sent = spans(7);
    traces.offer(sent.clone());
    let (collected, (), ()) =
        tokio::join!(collect(listener, &[200]), exporter.run(), flush.within(LONG));
    let [(head, body)] = &collected[..] else { panic!("{collected:?}") };
    assert!(head.starts_with("post /base/v1/traces http/1.1"), "{head}");
    assert!(head.contains("content-type: application/x-protobuf"), "{head}");
    let spans = received(body);
    let [request, queue, hsm] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((request.name.as_str(), request.kind), ("Encrypt", 2));
    assert!(request.parent_span_id.is_empty());
    for (span, kind) in [(queue, 1), (hsm, 3)] {
        assert_eq!(span.parent_span_id, request.span_id);
        assert_eq!(span.kind, kind);
    }
    for (span, made) in spans.iter().zip([&sent.request, &sent.steps[0], &sent.steps[1]]) {
        assert_eq!(span.trace_id, [7; 16]);
        assert_eq!(span.span_id.len(), 8);
        assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 3_000_000);
        assert_eq!(span.start_time_unix_nano, sent.clock.nanoseconds(made.start));
        let attributes: Vec<_> = span
            .attributes
            .iter()
            .map(|attribute| {
                let value = attribute.value.clone().and_then(|value| value.value);
                (attribute.key.as_str(), value.unwrap())
            })
            .collect();
        let id = AnyValue::StringValue("id".to_owned());
        assert_eq!(attributes, [("kms.request_id", id), ("xks.attempt", AnyValue::IntValue(-2))]);
    }
    assert!(request.status.is_none() && queue.status.is_none());
    let status = hsm.status.as_ref().unwrap();
    assert_eq!((status.code, status.message.as_str()), (2, "late"));
    assert_counted(&metrics, "xksd_traces_exported_total 1");
}

#[tokio::test]
async fn a_busy_collector_is_asked_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let metrics = Arc::new(Metrics::new());
    let (traces, exporter, flush) = Traces::new(settings(&listener, 8), metrics.clone());
    traces.offer(spans(1));
    let exporting = tokio::spawn(exporter.run());
    let collected = collect(listener, &[503, 200]).await;
    assert_eq!(collected[0].1, collected[1].1, "the same export");
    flush.within(LONG).await;
    exporting.await.unwrap();
    assert_counted(&metrics, "xksd_traces_exported_total 1");
    assert!(!metrics.render().contains("xksd_traces_dropped_total{"));
}

#[tokio::test]
async fn what_a_collector_refuses_is_not_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let metrics = Arc::new(Metrics::new());
    let (traces, exporter, flush) = Traces::new(settings(&listener, 8), metrics.clone());
    traces.offer(spans(1));
    let (collected, (), ()) =
        tokio::join!(collect(listener, &[400]), exporter.run(), flush.within(LONG));
    assert_eq!(collected.len(), 1);
    assert_counted(&metrics, r#"xksd_traces_dropped_total{reason="collector"} 1"#);
}

/// Nobody waits for room: what finds none is counted.
#[tokio::test]
async fn a_full_queue_drops_and_counts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let metrics = Arc::new(Metrics::new());
    // Nobody takes anything out of the queue.
    let (traces, _exporter, _flush) = Traces::new(settings(&listener, 2), metrics.clone());
    for number in 0..5 {
        traces.offer(spans(number));
    }
    assert_counted(&metrics, r#"xksd_traces_dropped_total{reason="queue_full"} 3"#);
}

/// A collector that nobody finds costs its traces, one batch after the other.
#[tokio::test(start_paused = true)]
async fn a_dead_collector_costs_the_traces() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let metrics = Arc::new(Metrics::new());
    let (traces, exporter, flush) = Traces::new(settings(&listener, 8), metrics.clone());
    drop(listener);
    let exporting = tokio::spawn(exporter.run());
    for number in 0..3 {
        traces.offer(spans(number));
    }
    let sample = r#"xksd_traces_dropped_total{reason="collector"} 3"#;
    while !metrics.render().contains(sample) {
        // The clock of the test runs on once everybody sleeps.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    traces.offer(spans(3));
    flush.within(LONG).await;
    exporting.await.unwrap();
    assert_counted(&metrics, r#"xksd_traces_dropped_total{reason="collector"} 4"#);
    assert_counted(&metrics, "xksd_traces_exported_total 0");
}

/// Whoever ends is kept by a collector that says nothing for as long as he waits, and no longer.
#[tokio::test(start_paused = true)]
async fn a_hung_collector_keeps_nobody() {
    // Connections are taken by the kernel, and by nobody else.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (traces, exporter, flush) = Traces::new(settings(&listener, 8), Arc::default());
    traces.offer(spans(1));
    let exporting = tokio::spawn(exporter.run());
    let start = tokio::time::Instant::now();
    flush.within(Duration::from_secs(2)).await;
    assert!(start.elapsed() < PATIENCE);
    exporting.abort();
}
