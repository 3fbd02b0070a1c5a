//! Spans as an `ExportTraceServiceRequest` of OTLP 1 (opentelemetry-proto, `trace/v1/trace.proto`).
//! Fields without a value are left out, as protobuf has it.

use super::protobuf::Message;
use super::span::{Attribute, Kind, Span, SpanId, Spans, Value, WallClock};

/// One export of these requests' spans.
pub(super) fn export(resource: &[Attribute], requests: &[Spans]) -> Vec<u8> {
    let mut export = Message::default();
    export.message(REQUEST_RESOURCE_SPANS, |message| {
        message.message(RESOURCE_SPANS_RESOURCE, |message| {
            attributes(message, RESOURCE_ATTRIBUTES, resource);
        });
        message.message(RESOURCE_SPANS_SCOPE_SPANS, |message| {
            message.message(SCOPE_SPANS_SCOPE, |scope| {
                scope.text(SCOPE_NAME, env!("CARGO_PKG_NAME"));
                scope.text(SCOPE_VERSION, env!("CARGO_PKG_VERSION"));
            });
            for request in requests {
                spans(message, request);
            }
        });
    });
    export.into_bytes()
}

fn spans(message: &mut Message, spans: &Spans) {
    let request = SpanId::random();
    let mut write = |span: &Span, id: SpanId, parent: Option<SpanId>| {
        message.message(SCOPE_SPANS_SPANS, |message| {
            message.bytes(SPAN_TRACE_ID, spans.trace.as_bytes());
            message.bytes(SPAN_SPAN_ID, id.as_bytes());
            if let Some(parent) = parent {
                message.bytes(SPAN_PARENT_SPAN_ID, parent.as_bytes());
            }
            self::span(message, span, spans.clock);
        });
    };
    write(&spans.request, request, None);
    for step in &spans.steps {
        write(step, SpanId::random(), Some(request));
    }
}

fn span(message: &mut Message, span: &Span, clock: WallClock) {
    let Span { name, kind, start, end, attributes, error } = span;
    let kind: Kind = *kind;
    message.text(SPAN_NAME, name);
    message.number(SPAN_KIND, kind as i64);
    message.fixed64(SPAN_START, clock.nanoseconds(*start));
    message.fixed64(SPAN_END, clock.nanoseconds(*end));
    self::attributes(message, SPAN_ATTRIBUTES, attributes);
    if let Some(error) = error {
        message.message(SPAN_STATUS, |status| {
            status.text(STATUS_MESSAGE, error);
            status.number(STATUS_CODE, ERROR);
        });
    }
}

fn attributes(message: &mut Message, field: u32, attributes: &[Attribute]) {
    for (key, value) in attributes {
        message.message(field, |message| {
            message.text(KEY_VALUE_KEY, key);
            message.message(KEY_VALUE_VALUE, |message| match value {
                Value::Text(text) => message.text(ANY_VALUE_STRING, text),
                Value::Number(number) => message.number(ANY_VALUE_INT, *number),
            });
        });
    }
}

// The numbers of fields: message and field as in the .proto files.
const REQUEST_RESOURCE_SPANS: u32 = 1;
const RESOURCE_SPANS_RESOURCE: u32 = 1;
const RESOURCE_SPANS_SCOPE_SPANS: u32 = 2;
const RESOURCE_ATTRIBUTES: u32 = 1;
const SCOPE_SPANS_SCOPE: u32 = 1;
const SCOPE_SPANS_SPANS: u32 = 2;
const SCOPE_NAME: u32 = 1;
const SCOPE_VERSION: u32 = 2;
const SPAN_TRACE_ID: u32 = 1;
const SPAN_SPAN_ID: u32 = 2;
const SPAN_PARENT_SPAN_ID: u32 = 4;
const SPAN_NAME: u32 = 5;
const SPAN_KIND: u32 = 6;
const SPAN_START: u32 = 7;
const SPAN_END: u32 = 8;
const SPAN_ATTRIBUTES: u32 = 9;
const SPAN_STATUS: u32 = 15;
const STATUS_MESSAGE: u32 = 2;
const STATUS_CODE: u32 = 3;
const KEY_VALUE_KEY: u32 = 1;
const KEY_VALUE_VALUE: u32 = 2;
const ANY_VALUE_STRING: u32 = 1;
const ANY_VALUE_INT: u32 = 3;

/// `STATUS_CODE_ERROR`
const ERROR: i64 = 2;
